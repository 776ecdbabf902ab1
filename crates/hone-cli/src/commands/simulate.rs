//! `hone simulate WORLD --out LOG`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hone_lm::{Local, LocalOptions};
use hone_worlds::people::{self, Form, LogSettings, People};

/// Arguments of `hone simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Built-in task: sums, programs, notes or lists.
    world: String,
    /// Log to write, in Hone JSON lines.
    #[arg(long, value_name = "LOG")]
    out: PathBuf,
    /// People file (TOML): who judges, with which tastes, noise and biases. Without, the built-in sample.
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Forms of feedback, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "comparison,critique")]
    form: Vec<String>,
    /// Difficulty; the world's middle one if left out.
    #[arg(long)]
    level: Option<u32>,
    /// Prompts.
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Responses per prompt.
    #[arg(long, default_value_t = 2)]
    responses: usize,
    /// Model folder that answers, sampled at temperature 1; without, answers are attempts of the given skill.
    #[arg(long, value_name = "DIR", conflicts_with = "skill")]
    model: Option<PathBuf>,
    /// Skill of who answers, from 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    skill: f64,
    /// Seed of everything.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let world = hone_worlds::world(&args.world)?;
    let people = match &args.people {
        Some(path) => People::read(path).with_context(|| path.display().to_string())?,
        None => People::sample()?,
    };
    let forms = args.form.iter().map(|name| Form::named(name.trim())).collect::<hone_worlds::Result<_>>()?;
    let settings = LogSettings {
        level: args.level,
        prompts: args.prompts,
        responses: args.responses,
        skill: args.skill,
        forms,
        seed: args.seed,
    };
    let records = match &args.model {
        None => people::log(world.as_ref(), &people, &settings, None)?,
        Some(folder) => {
            let model = Local::from_folder(folder, &LocalOptions::default())?;
            hone_methods::simulate::log(world.as_ref(), &people, &settings, &model)?
        }
    };
    people::write_log(&args.out, &records)?;
    println!("{} records in {}", records.len(), args.out.display());
    Ok(ExitCode::SUCCESS)
}
