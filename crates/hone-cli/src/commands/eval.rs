//! `hone eval MODEL --world W`, `--data FILE` or `--protocol P`

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_lm::{Endpoint, EndpointConfig, LanguageModel, Local, LocalOptions};
use hone_methods::eval::{Evaluation, Settings, compare, evaluate, evaluate_data};
use hone_methods::evaluate::journal::Journal;
use hone_methods::evaluate::{PROTOCOLS, Terms};
use hone_methods::pretrain::mix::role;
use serde_json::json;

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
    #[arg(long, value_name = "WORLD", conflicts_with = "data", required_unless_present_any = ["data", "protocol"])]
    world: Option<String>,
    /// Published protocol, as in `hone methods`: mint, realcritic or sparse-feedback. Its data is a folder.
    #[arg(long, value_name = "ID", conflicts_with_all = ["world", "against", "samples"], requires = "data")]
    protocol: Option<String>,
    /// Folder of a protocol's run, which can be resumed; runs/ID if left out.
    #[arg(long, value_name = "DIR", requires = "protocol")]
    out: Option<PathBuf>,
    /// Go on with the interrupted run of a protocol.
    #[arg(long, requires = "protocol")]
    resume: bool,
    /// Change a setting of the protocol, as in draw.max_tokens=64; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", requires = "protocol")]
    set: Vec<String>,
    /// Endpoint of the model that comments or judges in a protocol; the measured model itself if left out.
    #[arg(long, value_name = "URL", requires_all = ["protocol", "other_name"])]
    other_endpoint: Option<String>,
    /// Model to ask that endpoint for.
    #[arg(long, value_name = "NAME")]
    other_name: Option<String>,
    /// Log or data set whose records carry a reference, or MBPP or HumanEval rows; the folder of a protocol's sets.
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
    if let Some(id) = &args.protocol {
        return protocol(&args, id, model.as_ref());
    }
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

/// Runs a protocol with a journal in its folder.
fn protocol(args: &Args, id: &str, model: &dyn LanguageModel) -> Result<ExitCode> {
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.method.id == id) else {
        let known: Vec<&str> = PROTOCOLS.iter().map(|protocol| protocol.method.id).collect();
        bail!("--protocol {id}: needs one of {}", known.join(", "));
    };
    let data = args.data.as_deref().context("needs --data DIR")?;
    let mut recipe = hone_methods::improve::plan::recipe(id)?;
    recipe.settings.clear();
    for assignment in &args.set {
        recipe.set(&format!("settings.{assignment}")).with_context(|| format!("--set {assignment}"))?;
    }
    (protocol.method.check)(&recipe.settings)?;
    let other = match (&args.other_endpoint, &args.other_name) {
        (Some(url), Some(name)) => {
            let mut config = EndpointConfig::new(url, name);
            config.api_key_env = args.source.api_key_env.clone();
            config.concurrency = args.source.concurrency;
            config.cache = args.source.cache.clone();
            Some(Endpoint::connect(config)?)
        }
        _ => None,
    };
    let what = json!({
        "protocol": id, "model": model.capabilities().name, "other": other.as_ref().map(|o| &o.capabilities().name),
        "data": data, "prompts": args.prompts, "seed": args.seed, "settings": &recipe.settings,
    });
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("runs").join(id));
    let journal = Journal::open(&out, &what, args.resume)?;
    let mut last = 0;
    let mut tell = |done: usize, all: usize| {
        // Once per part in a hundred: a line for each item would drown the rest.
        let part = 100 * done / all.max(1);
        if part != last || done == all {
            last = part;
            eprintln!("{id}: {done} of {all}");
        }
    };
    let measures = (protocol.run)(&mut Terms {
        model,
        other: other.as_ref().map(|other| other as &dyn LanguageModel),
        data,
        most: args.prompts,
        settings: &recipe.settings,
        seed: args.seed,
        journal,
        on: &mut tell,
    })?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&measures.to_lm_eval(&json!(recipe.settings)))?),
        false => print!("{measures}"),
    }
    eprintln!("{}", out.join("results.json").display());
    // What was lost to the connection is asked again by --resume.
    Ok(if measures.lost > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn write_samples(path: &Path, measured: &Evaluation) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for sample in measured.samples() {
        writeln!(file, "{sample}")?;
    }
    Ok(file.flush()?)
}
