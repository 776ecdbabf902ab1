//! `hone convert IN OUT --to FORMAT`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use hone_feedback::Problems;
use hone_feedback::formats::{self, FORMATS, Options, Writer};

/// Arguments of `hone convert`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Log to read; gzip and zstd are seen through.
    input: PathBuf,
    /// File to write; its ending says the container (jsonl, json, csv, parquet) and the compression (gz, zst).
    output: PathBuf,
    /// Format of the rows to write.
    #[arg(long)]
    to: String,
    /// Format of the rows to read, where content does not tell.
    #[arg(long)]
    from: Option<String>,
}

/// Runs the command. Nothing is written if any row of the input is at fault.
pub fn run(args: Args) -> Result<ExitCode> {
    let Some(format) = formats::named(&args.to) else {
        let known: Vec<_> = FORMATS.iter().filter(|format| format.is_written()).map(|f| f.name).collect();
        bail!("--to {}: needs one of {}", args.to, known.join(", "));
    };
    let reader = formats::open(&args.input, &Options { from: args.from, ..Options::default() })?;
    let from = reader.format().name;
    let mut writer = Writer::create(&args.output, format)?;
    let mut problems = Problems::default();
    for item in reader {
        match item {
            Ok(located) if problems.is_empty() => writer.write(&located.record)?,
            Ok(_) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        drop(writer);
        bail!("nothing was written:\n{problems}");
    }
    let written = writer.finish()?;
    println!(
        "{} records of {from} -> {} rows of {} in {}",
        written.records,
        written.rows,
        format.name,
        args.output.display()
    );
    for (reason, count) in written.losses.iter() {
        println!("  left out: {count} x {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
