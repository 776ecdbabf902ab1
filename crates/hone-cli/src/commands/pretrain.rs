//! `hone pretrain --out DIR`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hone_methods::order::TokenOrder;
use hone_methods::pretrain::mix::Mix;
use hone_methods::pretrain::{Length, Settings, Size, run as train};

/// Time between two lines of progress.
const SAY: Duration = Duration::from_secs(10);

/// Arguments of `hone pretrain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder: settings, metrics, checkpoints, and at last `model/`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Go on with the run in the folder, with its own settings.
    #[arg(long)]
    resume: bool,
    /// Model folder to go on from, made by this command before.
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// Size of the model: 0.1m, 0.7m, 2m or 3m parameters.
    #[arg(long, default_value = "2m")]
    size: String,
    /// Learn to read answers from their end and to write the questions: the twin that `trlm` scores with.
    #[arg(long, conflicts_with = "both_orders")]
    reversed: bool,
    /// Learn half of the conversations that way and half as usual.
    #[arg(long)]
    both_orders: bool,
    /// Optimiser steps.
    #[arg(long, conflicts_with_all = ["tokens", "minutes"])]
    steps: Option<u64>,
    /// Tokens to read.
    #[arg(long, conflicts_with = "minutes")]
    tokens: Option<u64>,
    /// Minutes to train.
    #[arg(long)]
    minutes: Option<f64>,
    /// Step after which to end although more are planned; the average of the weights is then the model.
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    /// Tokens per step.
    #[arg(long)]
    step_tokens: Option<usize>,
    /// Peak learning rate.
    #[arg(long)]
    learning_rate: Option<f64>,
    /// Seed of everything.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; changes nothing but the time.
    #[arg(long)]
    threads: Option<usize>,
    /// Shares of roles, worlds and levels (TOML); without, the built-in ones.
    #[arg(long, value_name = "FILE")]
    mix: Option<PathBuf>,
    /// Roles to learn, separated by commas: answer, criticise, refine, label.
    #[arg(long, value_delimiter = ',')]
    roles: Vec<String>,
    /// Worlds to learn, separated by commas.
    #[arg(long, value_delimiter = ',')]
    worlds: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let mut mix = match &args.mix {
        Some(path) => Mix::read(path)?,
        None => Mix::default(),
    };
    if !args.roles.is_empty() {
        mix.only_roles(&args.roles)?;
    }
    if !args.worlds.is_empty() {
        mix.only_worlds(&args.worlds)?;
    }
    let usual = Settings::default();
    let length = match (args.steps, args.tokens, args.minutes) {
        (Some(steps), _, _) => Length::Steps(steps),
        (_, Some(tokens), _) => Length::Tokens(tokens),
        (_, _, Some(minutes)) => Length::Minutes(minutes),
        _ => usual.length,
    };
    let settings = Settings {
        seed: args.seed,
        init: args.init.clone(),
        order: match (args.reversed, args.both_orders) {
            (true, _) => TokenOrder::Reversed,
            (_, true) => TokenOrder::Both,
            _ => usual.order,
        },
        size: Size::named(&args.size)?,
        length,
        until: args.until,
        step_tokens: args.step_tokens.unwrap_or(usual.step_tokens),
        learning_rate: args.learning_rate.unwrap_or(usual.learning_rate),
        threads: args.threads.unwrap_or(usual.threads),
        mix,
        ..usual
    };
    if args.resume && !args.out.join("config.toml").exists() {
        bail!("--resume: no run in {}", args.out.display());
    }
    let mut said: Option<Instant> = None;
    let outcome = train(&settings, &args.out, args.resume, &mut |progress| {
        if said.is_none_or(|at| at.elapsed() >= SAY) || progress.report.step == progress.steps {
            said = Some(Instant::now());
            eprintln!("{progress}");
        }
    })?;
    println!(
        "{} parameters in {} after {} steps of {} tokens, loss {:.3}{}",
        outcome.parameters,
        outcome.model.display(),
        outcome.steps,
        outcome.tokens,
        outcome.loss,
        if outcome.finished { "" } else { " (ended early: the average of the weights was written)" },
    );
    Ok(ExitCode::SUCCESS)
}
