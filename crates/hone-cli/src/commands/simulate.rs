//! `hone simulate WORLD --out LOG`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hone_lm::{GenerateRequest, LanguageModel, Local, LocalOptions, Message, Prompt, Sampling};
use hone_worlds::people::{self, Form, LogSettings, People};

/// Arguments of `hone simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Built-in task: sums, programs, notes or lists.
    world: String,
    /// Log to write, in Hone JSON lines.
    #[arg(long, value_name = "LOG")]
    out: PathBuf,
    /// People file (TOML): who judges, with which tastes, noise and biases. Without, the built-in sample.
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// Forms of feedback, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "comparison,critique")]
    form: Vec<String>,
    /// Difficulty; the world's middle one if left out.
    #[arg(long)]
    level: Option<u32>,
    /// Prompts.
    #[arg(long, default_value_t = 100)]
    prompts: usize,
    /// Responses per prompt.
    #[arg(long, default_value_t = 2)]
    responses: usize,
    /// Model folder that answers, sampled at temperature 1; without, answers are attempts of the given skill.
    #[arg(long, value_name = "DIR", conflicts_with = "skill")]
    model: Option<PathBuf>,
    /// Skill of who answers, from 0 to 1.
    #[arg(long, default_value_t = 0.5)]
    skill: f64,
    /// Seed of everything.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode> {
    let world = hone_worlds::world(&args.world)?;
    let people = match &args.people {
        Some(path) => People::read(path).with_context(|| path.display().to_string())?,
        None => People::sample()?,
    };
    let forms = args.form.iter().map(|name| Form::named(name.trim())).collect::<hone_worlds::Result<_>>()?;
    let settings = LogSettings {
        level: args.level,
        prompts: args.prompts,
        responses: args.responses,
        skill: args.skill,
        forms,
        seed: args.seed,
    };
    let records = match &args.model {
        None => people::log(world.as_ref(), &people, &settings, None)?,
        Some(folder) => {
            // Once to learn what is asked, once with the answers: so the model answers all prompts at once.
            let mut asked = Vec::new();
            let mut note = |prompt: &str, seed: u64| {
                asked.push((prompt.to_string(), seed));
                String::new()
            };
            people::log(world.as_ref(), &people, &settings, Some(&mut note))?;
            let mut answers = answer(folder, asked)?.into_iter();
            let mut give = |_: &str, _: u64| answers.next().unwrap_or_default();
            people::log(world.as_ref(), &people, &settings, Some(&mut give))?
        }
    };
    people::write_log(&args.out, &records)?;
    println!("{} records in {}", records.len(), args.out.display());
    Ok(ExitCode::SUCCESS)
}

/// The model's answer to each prompt, from its own seed.
fn answer(folder: &std::path::Path, asked: Vec<(String, u64)>) -> Result<Vec<String>> {
    let model = Local::from_folder(folder, &LocalOptions::default())?;
    let request = |(prompt, seed): (String, u64)| {
        let prompt = match model.capabilities().chat {
            true => Prompt::chat(vec![Message::new("user", prompt)]),
            false => Prompt::Text(format!("{prompt}\n")),
        };
        let sampling = Sampling { temperature: Some(1.0), max_tokens: Some(192), seed: Some(seed), ..Sampling::default() };
        GenerateRequest { sampling, ..GenerateRequest::new(prompt) }
    };
    let requests: Vec<GenerateRequest> = asked.into_iter().map(request).collect();
    let generations = model.generate(&requests, &mut |_| {})?;
    generations.into_iter().map(|g| Ok(g?.samples.into_iter().next().map(|s| s.text).unwrap_or_default())).collect()
}
