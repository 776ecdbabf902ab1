//! Methods that use feedback while answering: several attempts, critiques, refinements, and a choice among them.

pub mod best_of_n;
pub mod majority_vote;
pub mod self_refine;

use hone_feedback::Record;
use hone_lm::model::{Prompt, Sample, Sampling};
use hone_lm::{GenerateRequest, LanguageModel};
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::oracle::{Oracle, Verdict};
use crate::policy::lm_prompt;

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
    /// Most tokens of an answer.
    pub max_tokens: usize,
}

impl Default for Draw {
    fn default() -> Draw {
        Draw { temperature: 1.0, top_p: 1.0, max_tokens: 256 }
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

    fn sampling(&self, seed: u64) -> Sampling {
        Sampling {
            temperature: Some(self.temperature as f32),
            top_p: (self.top_p < 1.0).then_some(self.top_p as f32),
            max_tokens: Some(self.max_tokens),
            seed: Some(seed),
            ..Sampling::default()
        }
    }
}

/// `n` answers to each prompt, `[prompts][n]`, each prompt from a stream of its own. A prompt that leaves no place for an
/// answer gets none.
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
    let able = model.capabilities();
    let request = |(index, prompt): (usize, &Prompt)| {
        let mut sampling = draw.sampling(sub_seed(seed, &format!("prompt {index}")));
        sampling.seed = sampling.seed.filter(|_| able.seeds);
        GenerateRequest { sampling, n, logprobs: able.logprobs, ..GenerateRequest::new(prompt.clone()) }
    };
    let requests: Vec<GenerateRequest> = prompts.iter().enumerate().map(request).collect();
    let mut answers = Vec::with_capacity(prompts.len());
    for generation in model.generate(&requests, &mut |_| {})? {
        answers.push(match generation {
            Ok(generation) => generation.samples,
            Err(hone_lm::Error::TooLong { .. }) => vec![],
            Err(error) => return Err(error.into()),
        });
    }
    Ok(answers)
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
