//! Methods that use feedback while answering: several attempts, critiques, refinements, and a choice among them.

pub mod best_of_n;
pub mod iad;
pub mod majority_vote;
pub mod over;
pub mod self_refine;
pub mod trace;
pub mod trlm;

use hone_feedback::Record;
use hone_lm::model::{Prompt, Sample, Sampling};
use hone_lm::{Constraint, GenerateRequest, LanguageModel};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::oracle::{Oracle, Verdict};
use crate::policy::{lm_prompt, refusal};

/// All that went into the answer to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Index of the record.
    pub record: usize,
    /// What was tried, in order.
    pub attempts: Vec<Attempt>,
    /// Which attempt is the answer.
    pub chosen: usize,
    /// What it cost.
    pub cost: Cost,
    /// Whether the oracle chose it: measured by the same oracle, it is an upper bound.
    pub by_oracle: bool,
}

impl Answered {
    /// The answer.
    pub fn text(&self) -> &str {
        &self.attempts[self.chosen].text
    }
}

/// One attempt at an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// The text.
    pub text: String,
    /// What was said of it, before the next attempt.
    pub critique: Option<String>,
    /// What the chooser made of it; its unit is the chooser's.
    pub score: Option<f64>,
}

/// Calls and tokens: every comparison of these methods is at equal cost, or says the cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Answers asked for.
    pub calls: u64,
    /// Tokens written.
    pub tokens: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.calls += other.calls;
        self.tokens += other.tokens;
    }
}

/// How answers are sampled: the settings that every method of this kind has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Draw {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Keeps the likeliest tokens up to this share, in (0, 1].
    pub top_p: f64,
    /// Keeps so many of the likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

impl Default for Draw {
    fn default() -> Draw {
        Draw { temperature: 1.0, top_p: 1.0, top_k: 0, max_tokens: 256 }
    }
}

impl Draw {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`crate::Error::Range`].
    pub fn check(&self, method: &str) -> Result<()> {
        crate::method::not_negative(method, "draw.temperature", self.temperature)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(crate::Error::range(method, "draw.top_p", "a share in (0, 1]", self.top_p));
        }
        match self.max_tokens {
            0 => Err(crate::Error::range(method, "draw.max_tokens", "at least 1", 0)),
            _ => Ok(()),
        }
    }

    /// The settings as a model takes them.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: Some(self.temperature as f32),
            top_p: (self.top_p < 1.0).then_some(self.top_p as f32),
            top_k: (self.top_k > 0).then_some(self.top_k),
            max_tokens: Some(self.max_tokens),
            ..Sampling::default()
        }
    }
}

/// What a model says to each prompt, all asked at once: `[prompts]`, each `n` answers or why there is none.
///
/// Every prompt comes with the seed of its own stream, so that equal prompts do not get equal answers. What the model
/// cannot do (seeds, log-probabilities, `top_k`) is left out.
///
/// # Errors
/// What the model refuses for all prompts alike.
pub fn ask(
    model: &dyn LanguageModel,
    asked: impl IntoIterator<Item = (Prompt, Option<u64>)>,
    n: usize,
    sampling: &Sampling,
) -> Result<Vec<hone_lm::Result<Vec<Sample>>>> {
    let plain = |(prompt, seed)| Asked { prompt, seed, constraint: None };
    ask_each(model, asked.into_iter().map(plain), n, sampling)
}

/// One prompt as [`ask_each`] takes it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The prompt.
    pub prompt: Prompt,
    /// The seed of its own stream.
    pub seed: Option<u64>,
    /// What the answer must follow.
    pub constraint: Option<Constraint>,
}

/// [`ask`] with a constraint of each prompt's own.
///
/// # Errors
/// As [`ask`]; a constraint that the model cannot follow.
pub fn ask_each(
    model: &dyn LanguageModel,
    asked: impl IntoIterator<Item = Asked>,
    n: usize,
    sampling: &Sampling,
) -> Result<Vec<hone_lm::Result<Vec<Sample>>>> {
    let able = model.capabilities();
    let (mut requests, mut said) = (vec![], vec![]);
    for (index, Asked { prompt, seed, constraint }) in asked.into_iter().enumerate() {
        // One empty prompt among the requests would have the model refuse them all.
        if is_empty(&prompt) {
            said.push(Some(Err(hone_lm::Error::Empty { index, what: "prompt" })));
            continue;
        }
        said.push(None);
        let sampling = Sampling {
            seed: seed.filter(|_| able.seeds),
            top_k: sampling.top_k.filter(|_| able.extended_sampling),
            ..sampling.clone()
        };
        requests.push(GenerateRequest {
            sampling,
            n,
            constraint,
            logprobs: able.logprobs,
            ..GenerateRequest::new(prompt)
        });
    }
    let mut generations = model.generate(&requests, &mut |_| {})?.into_iter();
    let mut next = || generations.next().map(|generation| generation.map(|g| g.samples));
    Ok(said.into_iter().filter_map(|said| said.or_else(&mut next)).collect())
}

fn is_empty(prompt: &Prompt) -> bool {
    match prompt {
        Prompt::Messages { messages, .. } => messages.is_empty(),
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(ids) => ids.is_empty(),
    }
}

/// `n` answers to each prompt, `[prompts][n]`, each prompt from a stream of its own. A prompt that leaves no place for an
/// answer, is empty, or is refused by the chat template gets none: an empty list in its place.
///
/// # Errors
/// The first prompt that fails for another reason.
pub fn sample(
    model: &dyn LanguageModel,
    prompts: &[Prompt],
    n: usize,
    draw: &Draw,
    seed: u64,
) -> Result<Vec<Vec<Sample>>> {
    let stream = |index: usize| Some(sub_seed(seed, &format!("prompt {index}")));
    let asked = prompts.iter().enumerate().map(|(index, prompt)| (prompt.clone(), stream(index)));
    ask(model, asked, n, &draw.sampling())?.into_iter().map(given).collect()
}

/// The answers to a prompt; none where it leaves no place for one, is empty, or is refused by the chat template.
///
/// # Errors
/// What made a prompt fail for another reason.
pub fn given(said: hone_lm::Result<Vec<Sample>>) -> Result<Vec<Sample>> {
    match said {
        Err(hone_lm::Error::TooLong { .. }) => Ok(vec![]),
        Err(error) if refusal(&error).is_some() => Ok(vec![]),
        said => Ok(said?),
    }
}

/// The prompts of records as a model takes them.
///
/// # Errors
/// As [`lm_prompt`].
pub fn prompts(model: &dyn LanguageModel, records: &[Record]) -> Result<Vec<Prompt>> {
    records.iter().map(|record| lm_prompt(&record.prompt, model.capabilities().chat)).collect()
}

/// Tokens written in an answer; its words where the model does not tell.
pub fn tokens(sample: &Sample) -> u64 {
    sample.tokens.as_ref().map_or_else(|| sample.text.split_whitespace().count(), Vec::len) as u64
}

/// Mean log-probability of an answer's tokens in nats, where the model tells.
pub fn mean_logp(sample: &Sample) -> Option<f64> {
    let tokens = sample.tokens.as_ref().filter(|tokens| !tokens.is_empty())?;
    let sum: Option<f64> = tokens.iter().map(|t| t.logprob.map(f64::from)).sum();
    sum.map(|sum| sum / tokens.len() as f64)
}

/// The verdict on an answer.
///
/// # Errors
/// [`crate::Error::Data`] without an oracle, or for a record that it does not know.
pub fn judge(method: &str, oracle: Option<&dyn Oracle>, record: &Record, answer: &str) -> Result<Verdict> {
    let missing = |got: String| crate::Error::Data {
        method: method.into(),
        needed: "prompts whose answers can be checked".into(),
        got,
    };
    let oracle = oracle.ok_or_else(|| missing("records without a task, tests or a reward model".into()))?;
    let verdict = oracle.check(record, answer)?;
    verdict.ok_or_else(|| missing(format!("record {}, which says no task", record.id)))
}

#[cfg(test)]
mod tests {
    use hone_lm::{ChatTemplate, Message};

    use super::*;
    use crate::bench::Bench;
    use crate::policy::Policy;

    #[test]
    fn a_prompt_that_cannot_be_asked_gets_no_answers() {
        let source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
                      {% for m in messages %}{{ m.content }} {% endfor %}";
        let template = Some(ChatTemplate::from_source(source, &[]).unwrap());
        let policy = Policy { template, ..Bench::new(1).unwrap().policy().unwrap() };
        let model = policy.speaker().unwrap();
        let chat = |role: &str| Prompt::chat(vec![Message::new(role, "say w1 w2")]);
        // No text, text without a token, no message, a refused message, more tokens than the 64 that fit; one is good.
        let prompts = [
            Prompt::Text(String::new()),
            Prompt::Text(" ".into()),
            Prompt::chat(vec![]),
            chat("system"),
            Prompt::Text("w1 ".repeat(64)),
            chat("user"),
        ];
        let draw = Draw { max_tokens: 4, ..Draw::default() };
        let answers = sample(&model, &prompts, 2, &draw, 3).unwrap();
        assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 2]);
        // Its stream is that of its place, whoever is refused before it.
        let all: Vec<Prompt> = (0..6).map(|_| chat("user")).collect();
        let texts = |answers: &[Sample]| answers.iter().map(|s| s.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&answers[5]), texts(&sample(&model, &all, 2, &draw, 3).unwrap()[5]));
    }

    #[test]
    fn equal_seeds_give_equal_answers() {
        let model = Bench::new(1).unwrap().policy().unwrap().speaker().unwrap();
        let prompt = Prompt::Text("say w1 w2".into());
        let sampling = Sampling { max_tokens: Some(16), ..Sampling::default() };
        let asked = [7, 7, 8].map(|seed| (prompt.clone(), Some(seed)));
        let said = ask(&model, asked, 1, &sampling).unwrap();
        let texts: Vec<&str> = said.iter().map(|said| said.as_ref().unwrap()[0].text.as_str()).collect();
        assert_eq!(texts[0], texts[1]);
        assert_ne!(texts[0], texts[2]);
    }
}
