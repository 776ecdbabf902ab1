//! `hone critique FILE --critic CRITIC`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use hone_methods::critique::over::criticise;
use hone_methods::critique::process::first_errors;
use hone_methods::evaluate::journal::Journal;
use serde_json::json;

use crate::critics;

/// Arguments of `hone critique`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Log whose responses are criticised.
    file: PathBuf,
    #[command(flatten)]
    critics: critics::Critics,
    /// Records at most; 0 for all.
    #[arg(long, default_value_t = 0)]
    records: usize,
    /// Folder for critiques (samples.jsonl, one a line) and what was run.
    #[arg(long, value_name = "DIR", default_value = "runs/critique")]
    out: PathBuf,
    /// The log again, with every critique as feedback.
    #[arg(long, value_name = "LOG")]
    log: Option<PathBuf>,
    /// Go on with the interrupted run in the folder.
    #[arg(long)]
    resume: bool,
    /// Responses asked about at once; what an interruption loses at most.
    #[arg(long, default_value_t = 64)]
    wave: usize,
    /// Seed of what is sampled.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The counts as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status 1 if calls failed; `--resume` makes them again.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut records = critics::records(&args.file, args.records)?;
    let (kit, opened) = (args.critics.kit()?, args.critics.open()?);
    let critic = args.critics.critic(&opened, &kit);
    let what = json!({
        "command": "critique", "file": args.file, "critic": args.critics.critic, "form": args.critics.form,
        "prompts": args.critics.prompts, "votes": args.critics.votes, "temperature": args.critics.critic_temperature,
        "tokens": args.critics.critic_tokens, "free": args.critics.free, "records": args.records, "seed": args.seed,
    });
    let mut journal = Journal::open(&args.out, &what, args.resume)?;
    let mut tell = critics::progress("critique");
    let (rows, tally) = criticise(critic.as_ref(), &records, &mut journal, args.wave, args.seed, &mut tell)?;
    // Before critiques join the labels that they are measured by.
    let found = first_errors(&records, &rows);
    if let Some(path) = &args.log {
        let mut rows = rows.iter();
        for record in &mut records {
            // Rows stand in the order of the responses.
            for row in rows.by_ref().take(record.responses.len()) {
                record
                    .feedback
                    .extend(row.critique.iter().flat_map(|critique| critique.feedback(&row.response)));
            }
        }
        let lines: String = records.iter().map(|record| record.to_json() + "\n").collect();
        std::fs::write(path, lines).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    }
    if args.json {
        let mut said = json!(tally);
        if let Some(found) = found {
            said["first_errors"] = json!(found);
            said["f1"] = json!(found.f1());
        }
        println!("{said}");
    } else {
        println!("{} critiques, {} failures", tally.critiques, tally.failures.values().sum::<usize>());
        for (why, count) in &tally.failures {
            println!("  {count} × {why}");
        }
        println!("{} calls, {} tokens, {} checks", tally.cost.calls, tally.cost.tokens, tally.checks);
        if let Some(found) = found {
            println!(
                "first wrong step: {:.4} on {} wrong, {:.4} on {} right, F1 {:.4}",
                found.on_wrong(),
                found.wrong,
                found.on_right(),
                found.right,
                found.f1()
            );
        }
    }
    eprintln!("{}", args.out.join("samples.jsonl").display());
    let lost = rows.iter().any(|row| row.failed.as_ref().is_some_and(|failure| failure.is_lost()));
    Ok(if lost { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
