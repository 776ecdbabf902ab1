//! `hone refine FILE --method METHOD --budget BUDGET`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_methods::evaluate::journal::Journal;
use hone_methods::method::settings;
use hone_methods::refine::iad::{self, Iad};
use hone_methods::refine::over;
use hone_methods::refine::self_refine::{self, SelfRefine};
use hone_methods::refine::trace::{Budget, Plan, Trace};
use hone_methods::templates::Templates;
use serde_json::json;

use crate::critics;
use crate::source::Source;

/// Arguments of `hone refine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Log whose prompts are answered.
    file: PathBuf,
    #[command(flatten)]
    source: Source,
    /// self-refine, best-of-n or iad.
    #[arg(long)]
    method: String,
    #[command(flatten)]
    critics: critics::Critics,
    /// What may be spent on one prompt, critics included: calls=N, tokens=N, or both with a comma.
    #[arg(long, default_value = "calls=8")]
    budget: String,
    /// A setting of the method, as in `--set per_round=2`; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Records at most; 0 for all.
    #[arg(long, default_value_t = 0)]
    records: usize,
    /// Folder for traces (samples.jsonl, one prompt a line) and what was run.
    #[arg(long, value_name = "DIR", default_value = "runs/refine")]
    out: PathBuf,
    /// Go on with the interrupted run in the folder.
    #[arg(long)]
    resume: bool,
    /// Prompts answered at once; what an interruption loses at most.
    #[arg(long, default_value_t = 32)]
    wave: usize,
    /// Seed of what is sampled.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Quality against budget as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status 1 if calls failed; `--resume` makes them again.
pub fn run(mut args: Args) -> Result<ExitCode> {
    let budget = budget(&args.budget)?;
    let records = critics::records(&args.file, args.records)?;
    if args.source.model.is_none() && args.source.endpoint.is_none() {
        args.source.model = Some(hone_methods::tiny::folder()?);
        // The built-in model is asked in the words it was trained on; what the caller sets comes after.
        args.set.splice(..0, tiny_settings(&args.method));
    }
    let id = if args.method == "best-of-n" { "iad" } else { &args.method };
    if !["iad", "self-refine"].contains(&id) {
        bail!("--method {}: needs one of self-refine, best-of-n, iad", args.method);
    }
    let mut recipe = hone_methods::improve::plan::recipe(id)?;
    recipe.settings.clear();
    for assignment in &args.set {
        recipe.set(&format!("settings.{assignment}")).with_context(|| format!("--set {assignment}"))?;
    }
    let (kit, opened) = (args.critics.kit()?, args.critics.open()?);
    let critic = args.critics.critic(&opened, &kit);
    let model = args.source.open()?;
    let what = json!({
        "command": "refine", "file": args.file, "method": args.method, "model": model.capabilities().name,
        "critic": args.critics.critic, "form": args.critics.form, "prompts": args.critics.prompts,
        "votes": args.critics.votes, "critic_temperature": args.critics.critic_temperature,
        "critic_tokens": args.critics.critic_tokens, "free": args.critics.free, "budget": budget,
        "settings": &recipe.settings, "max_tokens": args.max_tokens, "records": args.records, "seed": args.seed,
    });
    let mut journal = Journal::open(&args.out, &what, args.resume)?;
    let mut tell = critics::progress(&args.method);
    let most = args.critics.most(&opened);
    let rows = if id == "iad" {
        let mut own: Iad = settings("iad", &recipe.settings)?;
        (own.budget, own.draw.max_tokens) = (budget, args.max_tokens);
        let calls = usize::try_from(budget.calls).unwrap_or(usize::MAX);
        if calls > 0 {
            own.per_round = own.per_round.min(calls);
        }
        if args.method == "best-of-n" {
            own.context = iad::Context::Nothing;
            // As many as the budget allows, not the rounds of the other method.
            own.rounds = if calls > 0 { calls.div_ceil(own.per_round) } else { own.rounds };
        }
        let critic = own.degrade(critic);
        over::refine(&records, &mut journal, args.wave, args.seed, &mut tell, |records, seed| {
            iad::decode(model.as_ref(), critic.as_ref(), records, most, &own, seed)
        })?
    } else {
        let mut own: SelfRefine = settings("self-refine", &recipe.settings)?;
        own.draw.max_tokens = args.max_tokens;
        let templates = Templates::new("self-refine", &[("refine", own.refine.as_str())])?;
        let plan = Plan {
            rounds: own.iterations,
            budget,
            draw: &own.draw,
            critique: most,
            templates: &templates,
            first: None,
        };
        over::refine(&records, &mut journal, args.wave, args.seed, &mut tell, |records, seed| {
            hone_methods::refine::trace::refine(model.as_ref(), critic.as_ref(), records, &plan, seed)
        })?
    };
    report(&rows, args.json)?;
    eprintln!("{}", args.out.join("samples.jsonl").display());
    Ok(if rows.iter().any(|row| row.failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Quality against budget, and how traces ended.
fn report(rows: &[over::Refined], as_json: bool) -> Result<()> {
    let traces: Vec<&Trace> = rows.iter().filter_map(|row| row.trace.as_ref()).collect();
    let quality = over::quality(rows)?;
    let mut stops = std::collections::BTreeMap::<String, usize>::new();
    for trace in &traces {
        *stops.entry(json!(trace.stop).as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let unanswered = rows.len() - traces.len();
    if as_json {
        let (name, points) = quality.map_or((None, vec![]), |(name, points)| (Some(name), points));
        let said = json!({"quality": name, "points": points, "stops": stops, "unanswered": unanswered});
        println!("{said}");
        return Ok(());
    }
    let by_oracle = traces.iter().any(|trace| trace.by_oracle);
    match quality {
        None => println!("no score is known: neither the critic's nor by checks"),
        Some((name, points)) => {
            println!("    calls    tokens  {name}");
            for point in points {
                println!("{:9.2} {:9.1}  {:.4}", point.calls, point.tokens, point.quality);
            }
            if by_oracle {
                println!("The verifier chose: measured by the same checks, this is an upper bound.");
            }
        }
    }
    let stops: Vec<String> = stops.iter().map(|(why, count)| format!("{count} {why}")).collect();
    println!("{} answered ({}), {unanswered} not", traces.len(), stops.join(", "));
    Ok(())
}

fn budget(text: &str) -> Result<Budget> {
    let mut budget = Budget::default();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let wrong = || format!("--budget {text}: needs calls=N, tokens=N, or both with a comma");
        let (key, value) = part.split_once('=').with_context(wrong)?;
        let value: u64 = value.trim().parse().with_context(wrong)?;
        match key.trim() {
            "calls" => budget.calls = value,
            "tokens" => budget.tokens = value,
            _ => bail!(wrong()),
        }
    }
    Ok(budget)
}

/// Settings in which the built-in model is asked.
fn tiny_settings(method: &str) -> Vec<String> {
    match method {
        "iad" => {
            let recipe =
                hone_methods::improve::plan::recipe("iad").map(|recipe| recipe.settings).unwrap_or_default();
            let kept = recipe.iter().filter(|(key, _)| ["worst", "prompt"].contains(&key.as_str()));
            kept.map(|(key, value)| format!("{key}={value}")).collect()
        }
        "self-refine" => vec![format!("refine={:?}", self_refine::for_tiny().refine)],
        _ => vec![],
    }
}
