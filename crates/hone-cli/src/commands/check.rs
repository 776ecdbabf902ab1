//! `hone check LOG…`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hone_feedback::doctor::{Report, Settings, check};
use hone_feedback::formats::Options;
use hone_lm::Tokenizer;
use hone_methods::{METHODS, Method, Needs};

/// Arguments of `hone check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Logs to read as one; gzip and zstd are seen through.
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// Format of the rows, where content does not tell.
    #[arg(long)]
    from: Option<String>,
    /// Model folder whose tokenizer measures lengths in tokens.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Take each file as a split of its own and report prompts that lie in two.
    #[arg(long)]
    splits: bool,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status 1 if training may not go on.
pub fn run(args: Args) -> Result<ExitCode> {
    let tokenizer = args
        .model
        .as_ref()
        .map(|folder| Tokenizer::from_folder(folder).with_context(|| folder.display().to_string()))
        .transpose()?;
    let count = tokenizer.map(|tokenizer| {
        // A text that cannot be encoded counts as empty: lengths are a survey, training reads the text again.
        move |text: &str| tokenizer.encode(text, false).map_or(0, |ids| ids.len())
    });
    let settings = Settings {
        options: Options { from: args.from, ..Options::default() },
        threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
        files_are_splits: args.splits,
        tokens: count.as_ref().map(|count| count as _),
        ..Settings::default()
    };
    let report = check(&args.logs, &settings)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
        let methods = feeds(&report);
        if !methods.is_empty() {
            println!("Methods that could learn from it: {}.", methods.join(", "));
        }
    }
    Ok(if report.verdict.may_train() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Methods of the catalogue, each with the share of records that it could use; those that could use none are left out.
fn feeds(report: &Report) -> Vec<String> {
    let share = |method: &Method| match method.needs {
        Needs::Shape(shape) => {
            let usable = report.usable.iter().find(|usable| usable.shape == shape.name())?;
            (usable.examples > 0).then(|| format!("{} ({:.0} %)", method.id, 100.0 * usable.share))
        }
        _ => None,
    };
    METHODS.iter().filter_map(|method| share(method)).collect()
}
