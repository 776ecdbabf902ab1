//! `hone improve LOG…`

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hone_methods::improve::{Event, Listener, Run, Settings};
use hone_methods::report::Verdict;

/// Exit status of a run that improved nothing.
const NOT_IMPROVED: u8 = 3;

/// Arguments of `hone improve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status: 0 if something improved, 3 if nothing did, 2 for an error.")]
pub struct Args {
    /// Feedback logs, read as one; any format that `hone check` knows.
    #[arg(required = true)]
    logs: Vec<PathBuf>,
    /// Format of the rows, where content does not tell.
    #[arg(long)]
    from: Option<String>,
    /// Model folder to start from; the built-in model if left out.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Method to use; give it several times for several, in order. Without, the forms of feedback decide.
    #[arg(long, value_name = "ID")]
    method: Vec<String>,
    /// A setting of a method, as in `--set dpo.beta=0.2`; may be repeated.
    #[arg(long, value_name = "METHOD.KEY=VALUE")]
    set: Vec<String>,
    /// Wall time of the whole run: 90s, 10m, 2h.
    #[arg(long, default_value = "10m", value_parser = duration)]
    budget: Duration,
    /// Folder for the run: model, report, metrics.
    #[arg(long, value_name = "DIR", default_value = "improved")]
    out: PathBuf,
    /// Share of prompts that is kept for measuring.
    #[arg(long, default_value_t = 0.2)]
    held_out: f64,
    /// Seed of everything.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Train a LoRA adapter instead of all weights.
    #[arg(long)]
    lora: bool,
    /// Rank of the adapter.
    #[arg(long, default_value_t = 8, requires = "lora")]
    lora_rank: usize,
    /// Print the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Go on with the interrupted run in the folder.
    #[arg(long)]
    resume: bool,
}

/// A time such as `90s`, `10m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()].parse().map_err(|_| needed(text))?;
    let seconds = match unit {
        "s" | "" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(needed(text)),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| needed(text))
}

fn needed(got: &str) -> String {
    format!("needs a time such as 90s, 10m or 2h, got `{got}`")
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.resume && args.dry_run {
        bail!("--dry-run and --resume: give one of them");
    }
    let command = std::env::args().map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
    let settings = Settings {
        logs: args.logs,
        from: args.from,
        model: match args.model {
            Some(folder) => folder,
            None => hone_methods::tiny::folder()?,
        },
        methods: args.method,
        set: args.set,
        budget: Some(args.budget.as_secs_f64()),
        held_out: args.held_out,
        seed: args.seed,
        lora: if args.lora { args.lora_rank } else { 0 },
        keep: false,
        recipes: vec![],
    };
    let run = Run::prepare(settings, &args.out, args.resume, command, listener())?;
    print!("{}", run.plan_text());
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let improved = run.go()?;
    println!("\n{}", improved.outcome);
    match &improved.model {
        Some(folder) => println!("model   {}", folder.display()),
        None => println!("model   none written: no step that changes it was kept"),
    }
    println!("report  {}", improved.page.display());
    Ok(match improved.outcome.verdict() {
        Verdict::Improved | Verdict::Mixed => ExitCode::SUCCESS,
        Verdict::NotImproved => ExitCode::from(NOT_IMPROVED),
    })
}

/// A word as a shell would need it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Progress on the error stream: a bar with the time left on a terminal, a line now and then elsewhere.
pub fn listener() -> Listener {
    struct State {
        began: Instant,
        said: Instant,
        part: String,
    }
    let now = Instant::now();
    let state = Mutex::new(State { began: now, said: now, part: String::new() });
    Arc::new(move |event| {
        let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut err = std::io::stderr();
        let bar = err.is_terminal();
        // Progress that cannot be written is no reason to stop.
        let _ = match event {
            Event::Part(part) => {
                (state.began, state.part) = (Instant::now(), part.clone());
                writeln!(err, "{}· {part}", if bar { "\r\x1b[K" } else { "" })
            }
            Event::Note(line) => writeln!(err, "{}  {line}", if bar { "\r\x1b[K" } else { "" }),
            Event::Step { method, step, steps, loss } => {
                let every = if bar { 0.2 } else { 10.0 };
                if state.said.elapsed().as_secs_f64() < every && step != steps {
                    return;
                }
                state.said = Instant::now();
                let left = state.began.elapsed().as_secs_f64() / *step as f64 * (steps - step) as f64;
                let filled = (20 * step / steps.max(&1)) as usize;
                let line = format!(
                    "  {method} [{}{}] {step}/{steps}  loss {loss:.4}  {left:.0} s left",
                    "█".repeat(filled),
                    "·".repeat(20 - filled.min(20)),
                );
                match bar {
                    true => write!(err, "\r\x1b[K{line}"),
                    false => writeln!(err, "{line}"),
                }
            }
        };
        let _ = err.flush();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("soon").unwrap_err().contains("got `soon`"));
        assert!(duration("-3m").is_err());
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("--budget=10m"), "--budget=10m");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
