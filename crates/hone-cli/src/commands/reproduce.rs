//! `hone reproduce ID… | --all`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_methods::reproduce::{Finding, missing, reproduce, table};
use hone_methods::{METHODS, Method, find};
use serde_json::Value;

/// Arguments of `hone reproduce`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 if every claim holds, 1 if one does not, 2 if one could not be run. A claim that \
                        does not hold is a result, not a fault."
)]
pub struct Args {
    /// Ids of methods, as `hone methods` lists them.
    #[arg(value_name = "ID", required_unless_present = "all")]
    methods: Vec<String>,
    /// Every method.
    #[arg(long, conflicts_with = "methods")]
    all: bool,
    /// Runs of each claim and its baseline, with seeds 1 to N; the interval is over them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..))]
    seeds: u64,
    /// The findings as JSON.
    #[arg(long)]
    json: bool,
    /// File for the table of findings in Markdown, those that do not hold included; written after each method. Rows of
    /// other methods that it has already stay.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Runs only methods of which the table lacks a claim, or has it over fewer seeds: what a stopped run left.
    #[arg(long, requires = "out")]
    only_missing: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let old = match &args.out {
        Some(path) if path.exists() => {
            std::fs::read_to_string(path).with_context(|| path.display().to_string())?
        }
        _ => String::new(),
    };
    let mut methods: Vec<&Method> = match args.all {
        true => METHODS.to_vec(),
        false => args.methods.iter().map(|id| find(id)).collect::<hone_methods::Result<_>>()?,
    };
    if args.only_missing {
        methods.retain(|method| missing(method, &old, args.seeds));
    }
    let mut findings: Vec<Finding> = vec![];
    let mut failed = vec![];
    for (index, method) in methods.iter().enumerate() {
        let place = format!("{}/{} {}", index + 1, methods.len(), method.id);
        let mut on = |claim: &str, seed| eprintln!("{place}: {claim}, seed {seed} of {}", args.seeds);
        match reproduce(method, args.seeds, &mut on) {
            Ok(found) => {
                if !args.json {
                    found.iter().for_each(|finding| println!("{finding}\n"));
                }
                findings.extend(found);
                if let Some(path) = &args.out {
                    std::fs::write(path, table(&findings, &old, &command(&args)))
                        .with_context(|| path.display().to_string())?;
                }
            }
            // What the others found is not thrown away for it.
            Err(error) => {
                eprintln!("{place}: {error}");
                failed.push((method.id, error));
            }
        }
    }
    hone_methods::bench::clean_up();
    if args.json {
        let all: Vec<Value> = findings.iter().map(with_verdict).collect::<Result<_>>()?;
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    let holding = findings.iter().filter(|finding| finding.holds()).count();
    eprintln!("{holding} of {} claims hold", findings.len());
    if !failed.is_empty() {
        let each: Vec<String> = failed.iter().map(|(id, error)| format!("{id}: {error}")).collect();
        bail!("{} of {} methods could not be run: {}", failed.len(), methods.len(), each.join("; "));
    }
    Ok(if holding == findings.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn with_verdict(finding: &Finding) -> Result<Value> {
    let mut value = serde_json::to_value(finding)?;
    value["holds"] = finding.holds().into();
    Ok(value)
}

/// The command that gives this table again.
fn command(args: &Args) -> String {
    let which = if args.all { "--all".into() } else { args.methods.join(" ") };
    format!("hone reproduce {which} --seeds {}", args.seeds)
}
