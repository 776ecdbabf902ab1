//! `hone generate --model DIR --prompt TEXT`

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use hone_lm::{Constraint, Event, GenerateRequest, Message, Prompt, Sampling};
use serde_json::{Value, json};

use crate::source::Source;

/// Arguments of `hone generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// Prompt; without, each line of standard input is one, as text or as {"prompt": …} or {"messages": […]}.
    #[arg(long)]
    prompt: Option<String>,
    /// Take prompts as raw text, without the chat template.
    #[arg(long)]
    raw: bool,
    /// Answers per prompt.
    #[arg(short, default_value_t = 1)]
    n: usize,
    /// Most tokens per answer.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// 0 takes the likeliest token.
    #[arg(long)]
    temperature: Option<f32>,
    /// Keep the likeliest tokens up to this share of probability.
    #[arg(long)]
    top_p: Option<f32>,
    /// Keep this many tokens.
    #[arg(long)]
    top_k: Option<usize>,
    /// Same seed, same text.
    #[arg(long)]
    seed: Option<u64>,
    /// End the answer before this text; may be given several times.
    #[arg(long)]
    stop: Vec<String>,
    /// JSON schema the answer must follow, as JSON text.
    #[arg(long, value_name = "JSON", conflicts_with = "regex")]
    schema: Option<String>,
    /// Regular expression the answer must match.
    #[arg(long)]
    regex: Option<String>,
    /// One JSON object per answer instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command. Exit status 1 if some prompts could not be answered.
pub fn run(args: Args) -> Result<ExitCode> {
    let prompts = match &args.prompt {
        Some(prompt) => vec![prompt_of(prompt, args.raw)],
        None => read_prompts(args.raw)?,
    };
    if prompts.is_empty() {
        bail!("no prompt: give --prompt or lines on standard input");
    }
    let constraint = match (&args.schema, &args.regex) {
        (Some(schema), _) => Some(Constraint::JsonSchema(serde_json::from_str(schema).context("--schema")?)),
        (None, Some(regex)) => Some(Constraint::Regex(regex.clone())),
        (None, None) => None,
    };
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        seed: args.seed,
        stop: args.stop.clone(),
        max_tokens: Some(args.max_tokens),
        ..Sampling::default()
    };
    let single = prompts.len() == 1 && args.n == 1 && !args.json;
    let requests: Vec<GenerateRequest> = prompts
        .into_iter()
        .map(|prompt| GenerateRequest {
            sampling: sampling.clone(),
            n: args.n,
            constraint: constraint.clone(),
            stream: single,
            ..GenerateRequest::new(prompt)
        })
        .collect();
    let model = args.source.open()?;
    if !args.raw && !model.capabilities().chat {
        bail!("{} has no chat template: give --raw to continue text as it is", model.capabilities().name);
    }
    let mut out = std::io::stdout().lock();
    let mut broken = Ok(());
    let answers = model.generate(&requests, &mut |event| match event {
        Event::Piece { text, .. } if single && broken.is_ok() => {
            broken = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
        Event::Retry { request, attempt, wait, why } => {
            eprintln!("hone: prompt {}: try {attempt} failed ({why}); next in {wait:.1?}", request + 1);
        }
        _ => {}
    })?;
    broken?;
    let mut failed = false;
    for (index, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(error) => {
                failed = true;
                eprintln!("hone: prompt {}: {error}", index + 1);
            }
            Ok(_) if single => writeln!(out)?,
            Ok(answer) => {
                for (sample, text) in answer.samples.iter().enumerate() {
                    if args.json {
                        let line = json!({
                            "prompt": index, "sample": sample, "text": text.text,
                            "finish_reason": text.finish, "usage": answer.usage,
                        });
                        writeln!(out, "{line}")?;
                    } else {
                        writeln!(out, "{}", text.text)?;
                    }
                }
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn prompt_of(text: &str, raw: bool) -> Prompt {
    if raw { Prompt::Text(text.into()) } else { Prompt::chat(vec![Message::new("user", text)]) }
}

fn read_prompts(raw: bool) -> Result<Vec<Prompt>> {
    let mut prompts = vec![];
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.with_context(|| format!("standard input: line {}", number + 1))?;
        if line.trim().is_empty() {
            continue;
        }
        prompts.push(if line.trim_start().starts_with('{') {
            parse_prompt(&line, raw).with_context(|| format!("standard input: line {}", number + 1))?
        } else {
            prompt_of(&line, raw)
        });
    }
    Ok(prompts)
}

/// `{"prompt": …}` or `{"messages": […]}`.
pub fn parse_prompt(line: &str, raw: bool) -> Result<Prompt> {
    let row: Value = serde_json::from_str(line)?;
    match (&row["messages"], &row["prompt"]) {
        (messages @ Value::Array(_), _) | (_, messages @ Value::Array(_)) => {
            Ok(Prompt::chat(serde_json::from_value(messages.clone())?))
        }
        (_, Value::String(text)) => Ok(prompt_of(text, raw)),
        _ => bail!("needs a field `prompt` (text or messages) or `messages`"),
    }
}
