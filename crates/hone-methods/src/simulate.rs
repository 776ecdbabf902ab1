//! Feedback logs of simulated people on answers of a real model.

use hone_lm::{GenerateRequest, LanguageModel, Message, Prompt, Sampling};
use hone_worlds::World;
use hone_worlds::people::{self, LogSettings, People};
use serde_json::Value;

use crate::error::Result;

/// Most tokens of an answer.
const ANSWER_TOKENS: usize = 192;

/// The records of a log whose answers `model` gives, sampled at temperature 1, each from its own seed.
///
/// # Errors
/// Those of [`people::log`] and of the model.
pub fn log(
    world: &dyn World,
    people: &People,
    settings: &LogSettings,
    model: &dyn LanguageModel,
) -> Result<Vec<Value>> {
    // Once to learn what is asked, once with the answers: so the model answers all prompts at once.
    let mut asked = Vec::new();
    let mut note = |prompt: &str, seed: u64| {
        asked.push((prompt.to_string(), seed));
        String::new()
    };
    people::log(world, people, settings, Some(&mut note))?;
    let mut answers = answer(model, asked)?.into_iter();
    let mut give = |_: &str, _: u64| answers.next().unwrap_or_default();
    Ok(people::log(world, people, settings, Some(&mut give))?)
}

fn answer(model: &dyn LanguageModel, asked: Vec<(String, u64)>) -> Result<Vec<String>> {
    let able = model.capabilities();
    let request = |(prompt, seed): (String, u64)| {
        let prompt = match able.chat {
            true => Prompt::chat(vec![Message::new("user", prompt)]),
            false => Prompt::Text(format!("{prompt}\n")),
        };
        let sampling = Sampling {
            temperature: Some(1.0),
            max_tokens: Some(ANSWER_TOKENS),
            seed: able.seeds.then_some(seed),
            ..Sampling::default()
        };
        GenerateRequest { sampling, ..GenerateRequest::new(prompt) }
    };
    let requests: Vec<GenerateRequest> = asked.into_iter().map(request).collect();
    let first = |samples: Vec<hone_lm::Sample>| samples.into_iter().next().map(|s| s.text).unwrap_or_default();
    model.generate(&requests, &mut |_| {})?.into_iter().map(|g| Ok(first(g?.samples))).collect()
}
