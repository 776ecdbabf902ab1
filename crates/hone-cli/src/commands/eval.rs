//! `hone eval MODEL --world W` or `--data FILE`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_lm::{LanguageModel, Local, LocalOptions};
use hone_methods::eval::{Evaluation, Settings, compare, evaluate, evaluate_data};
use hone_methods::pretrain::mix::role;

use crate::source::Source;

/// Arguments of `hone eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model folder; short for --model.
    #[arg(value_name = "MODEL", conflicts_with_all = ["model", "endpoint"])]
    folder: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// Built-in task: sums, programs, notes or lists.
    #[arg(long, value_name = "WORLD", conflicts_with = "data", required_unless_present = "data")]
    world: Option<String>,
    /// Log or data set whose records carry a reference, or MBPP or HumanEval rows.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Difficulty; the world's middle one if left out.
    #[arg(long, conflicts_with = "data")]
    level: Option<u32>,
    /// What the model does: answer, criticise, refine or label.
    #[arg(long, default_value = "answer", conflicts_with = "data")]
    role: String,
    /// Prompts at most.
    #[arg(long, default_value_t = 200)]
    prompts: usize,
    /// Answers per prompt.
    #[arg(short, long, default_value_t = 4)]
    n: usize,
    /// 0 takes the likeliest token.
    #[arg(long, default_value_t = 1.0)]
    temperature: f32,
    /// Most tokens per answer.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Seed of tasks, answers and intervals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Tell the model what the world asks for; for models that were not trained on it. Always on for endpoints.
    #[arg(long)]
    instructions: bool,
    /// Another model folder, asked the same prompts: is the first one better?
    #[arg(long, value_name = "DIR")]
    against: Option<PathBuf>,
    /// File for every answer, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(mut args: Args) -> Result<ExitCode> {
    if let Some(folder) = args.folder.take() {
        args.source.model = Some(folder);
    }
    let model = args.source.open()?;
    let mut measured = measure(&args, model.as_ref())?;
    if let Some(folder) = &args.against {
        let other = Local::from_folder(folder, &LocalOptions::default())?;
        let other = measure(&args, &other)?;
        measured.report.against = Some(compare(&measured, &other)?);
    }
    if let Some(path) = &args.samples {
        write_samples(path, &measured).with_context(|| path.display().to_string())?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&measured.report)?);
    } else {
        print!("{}", measured.report);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args, model: &dyn LanguageModel) -> Result<Evaluation> {
    let settings = Settings {
        prompts: args.prompts,
        samples: args.n,
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        seed: args.seed,
        level: args.level,
        instructions: args.instructions || args.source.endpoint.is_some(),
    };
    match (&args.world, &args.data) {
        (_, Some(path)) => Ok(evaluate_data(model, path, &settings)?),
        (Some(world), None) => {
            let world = hone_worlds::world(world)?;
            Ok(evaluate(model, world.as_ref(), role(&args.role)?, &settings)?)
        }
        (None, None) => bail!("needs --world WORLD or --data FILE"),
    }
}

fn write_samples(path: &Path, measured: &Evaluation) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for sample in measured.samples() {
        writeln!(file, "{sample}")?;
    }
    Ok(file.flush()?)
}
