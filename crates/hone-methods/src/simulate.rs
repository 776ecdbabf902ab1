//! Feedback logs of simulated people on answers of a real model.

use hone_lm::{LanguageModel, Message, Prompt, Sampling};
use hone_worlds::World;
use hone_worlds::people::{self, LogSettings, People};
use serde_json::Value;

use crate::error::Result;
use crate::refine;

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
    let chats = model.capabilities().chat;
    let prompt = |text: String| match chats {
        true => Prompt::chat(vec![Message::new("user", text)]),
        false => Prompt::Text(format!("{text}\n")),
    };
    let asked = asked.into_iter().map(|(text, seed)| (prompt(text), Some(seed)));
    let sampling =
        Sampling { temperature: Some(1.0), max_tokens: Some(ANSWER_TOKENS), ..Sampling::default() };
    let first =
        |samples: Vec<hone_lm::Sample>| samples.into_iter().next().map(|s| s.text).unwrap_or_default();
    refine::ask(model, asked, 1, &sampling)?.into_iter().map(|said| Ok(first(said?))).collect()
}
