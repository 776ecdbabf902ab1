//! `hone score --model DIR < rows.jsonl`

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_lm::{Continuation, ScoreRequest};
use serde_json::{Value, json};

use super::generate::parse_prompt;
use crate::source::Source;

/// Arguments of `hone score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Take prompts as raw text, without the chat template.
    #[arg(long)]
    raw: bool,
    /// Log-probability of every token, not of the whole only.
    #[arg(long)]
    tokens: bool,
}

/// Runs the command: rows {"prompt": …, "completion": "…"} in, one JSON object per row out. Exit status 1 if some rows
/// could not be scored.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut requests = vec![];
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let place = || format!("standard input: line {}", number + 1);
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        let prompt = parse_prompt(&line, args.raw).with_context(place)?;
        let row: Value = serde_json::from_str(&line).with_context(place)?;
        let Some(completion) = row["completion"].as_str() else {
            bail!("{}: field `completion`: needs text, got {}", place(), row["completion"]);
        };
        requests.push(ScoreRequest { prompt, continuation: Continuation::Text(completion.into()) });
    }
    if requests.is_empty() {
        bail!("no row on standard input");
    }
    let model = args.source.open()?;
    let mut out = std::io::stdout().lock();
    let mut failed = false;
    for (index, scored) in model.score(&requests)?.into_iter().enumerate() {
        match scored {
            Err(error) => {
                failed = true;
                eprintln!("hone: row {}: {error}", index + 1);
            }
            Ok(scored) => {
                let mut line = json!({ "row": index, "logp": scored.logp, "tokens": scored.tokens.len() });
                if args.tokens {
                    line["token_logps"] =
                        scored.tokens.iter().map(|t| json!([t.text, t.logprob])).collect::<Vec<_>>().into();
                }
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
