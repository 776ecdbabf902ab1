//! The `hone` command: one file per subcommand, none of which knows an algorithm.

mod commands;
mod critics;
mod source;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Learns from feedback on language models, and proves what it learnt.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read a feedback log, train on it, and show on held-out prompts what that changed.
    Improve(commands::improve::Args),
    /// Run a recipe: one method on its data, measured on held-out prompts.
    Run(commands::run::Args),
    /// Look at a feedback log: what is in it, what is wrong with it, what it can train.
    Check(commands::check::Args),
    /// Rewrite a feedback log in another format, saying what the format cannot hold.
    Convert(commands::convert::Args),
    /// Write a feedback log of simulated people on a built-in task.
    Simulate(commands::simulate::Args),
    /// Answer prompts with a model or an endpoint.
    Generate(commands::generate::Args),
    /// Log-probabilities of given continuations under a model or an endpoint.
    Score(commands::score::Args),
    /// Criticise every response of a log: by checks, people in the log, models, or several together.
    Critique(commands::critique::Args),
    /// Answer the prompts of a log in several attempts with critiques between them, within a budget.
    Refine(commands::refine::Args),
    /// Measure a model on fresh tasks, or on a file with references.
    Eval(commands::eval::Args),
    /// Train the built-in model from the worlds.
    Pretrain(commands::pretrain::Args),
    /// What is known to learn from feedback: every method, its page, its settings.
    Methods(commands::methods::Args),
    /// Run a method's claims against their baselines, and say which hold.
    Reproduce(commands::reproduce::Args),
    /// Find prompts by feedback.
    #[command(subcommand)]
    Prompt(commands::prompt::Command),
    /// Serve the OpenAI API in front of a model, keep every exchange, and take feedback on it.
    Serve(commands::serve::Args),
    /// Edit weights after training.
    #[command(subcommand)]
    Steer(commands::steer::Command),
    /// Show, make, or merge models.
    #[command(subcommand)]
    Model(commands::model::Command),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Improve(args) => commands::improve::run(args),
        Command::Run(args) => commands::run::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Convert(args) => commands::convert::run(args),
        Command::Simulate(args) => commands::simulate::run(args),
        Command::Generate(args) => commands::generate::run(args),
        Command::Score(args) => commands::score::run(args),
        Command::Critique(args) => commands::critique::run(args),
        Command::Refine(args) => commands::refine::run(args),
        Command::Eval(args) => commands::eval::run(args),
        Command::Pretrain(args) => commands::pretrain::run(args),
        Command::Methods(args) => commands::methods::run(args),
        Command::Reproduce(args) => commands::reproduce::run(args),
        Command::Prompt(command) => commands::prompt::run(command),
        Command::Serve(args) => commands::serve::run(args),
        Command::Steer(command) => commands::steer::run(command),
        Command::Model(command) => commands::model::run(command),
    };
    match result {
        Ok(code) => code,
        // A reader that has seen enough is no failure: `hone … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hone: {}", describe(&error));
            ExitCode::from(2)
        }
    }
}

/// An error with its causes, each said once: many errors already quote theirs.
fn describe(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        _ if text.contains(&cause) => text,
        _ => format!("{text}: {cause}"),
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
