//! `hone run RECIPE`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hone_methods::improve::{Run, recipe};
use hone_methods::recipe::{Recipe, Source};

use super::improve::{listener, quoted};

/// Arguments of `hone run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recipe (TOML): a method, its data and its settings.
    recipe: PathBuf,
    /// A value of the recipe or a setting of its method, as in `--set training.epochs=2`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Model folder, instead of the recipe's.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Log, instead of the recipe's data.
    #[arg(long, value_name = "LOG")]
    data: Option<PathBuf>,
    /// Folder for the run; `runs/` and the method's id if left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the plan, the memory it takes and the first batch, and stop. What is published but not here is stood in for.
    #[arg(long)]
    dry_run: bool,
    /// Go on with the interrupted run in the folder.
    #[arg(long)]
    resume: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut recipe = Recipe::read(&args.recipe)?;
    for assignment in &args.set {
        recipe.set(assignment).with_context(|| format!("--set {assignment}"))?;
    }
    if let Some(model) = args.model {
        recipe.model = Some(Source::Folder(model));
    }
    if let Some(data) = args.data {
        recipe.data = data.display().to_string();
    }
    let out = args.out.unwrap_or_else(|| PathBuf::from("runs").join(&recipe.method));
    let command = std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
    let run =
        Run::prepare(recipe::settings(&recipe, &out, args.dry_run)?, &out, args.resume, command, listener())?;
    print!("{}", run.plan_text());
    if args.dry_run {
        print!("{}", run.first_batch_text()?);
        return Ok(ExitCode::SUCCESS);
    }
    let done = run.go()?;
    println!("\n{}", done.outcome);
    if let Some(folder) = &done.model {
        println!("model   {}", folder.display());
    }
    println!("report  {}", done.page.display());
    Ok(ExitCode::SUCCESS)
}
