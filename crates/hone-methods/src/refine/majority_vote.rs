//! The commonest of several answers.

use std::collections::HashMap;

use hone_feedback::{Form, Prompt, Record};
use hone_nn::train::seed::rng;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::refine::{Answered, Attempt, Cost, Draw, prompts, sample, tokens};

method! {
    /// Answer several times and give the answer that comes most often.
    /// # What it does
    /// Samples `n` answers to each prompt, reads the final answer of each, and returns an answer with the commonest one;
    /// of equally common ones, that which came first. What counts as the final answer is the whole text, its last line,
    /// or the last number in it.
    /// # Feedback
    /// None: prompts alone.
    /// # Departs from the paper
    /// The paper samples chains of thought from prompts with worked examples; here the prompt is the caller's.
    /// # Claim
    /// Right more often than one answer, for a policy that is right more often than it makes any one error
    /// (`claim_beats_one_answer`).
    /// # Source
    /// Wang et al. (self-consistency), ICLR 2023, arXiv:2203.11171, section 2.
    pub static MAJORITY_VOTE: Method = Method {
        id: "majority-vote", name: "Majority vote", family: Family::Refine, needs: Needs::Prompts,
        makes: Makes::Answers, settings: MajorityVote,
        claims: &[Claim {
            name: "claim_beats_one_answer",
            says: "The commonest of 15 answers is right more often than one answer; the cost is 15 times as high.",
            metric: "share of prompts answered right",
            baseline: "the first of the same answers",
            effect: beats_one,
        }],
        run,
    };
}

/// What of an answer is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Final {
    /// All of it.
    Whole,
    /// Its last line that is not empty.
    LastLine,
    /// The last number in it; the last line if there is none.
    LastNumber,
}

impl Final {
    /// The final answer of a text, without spaces around it.
    pub fn of(self, text: &str) -> &str {
        let last_line = || text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
        match self {
            Final::Whole => text.trim(),
            Final::LastLine => last_line(),
            Final::LastNumber => last_number(text).unwrap_or_else(last_line),
        }
    }
}

/// The last number with its sign and decimals. A sign after a digit or a letter is a minus, no sign.
fn last_number(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let mut start = end - 1;
    while start > 0 && (bytes[start - 1].is_ascii_digit() || matches!(bytes[start - 1], b'.' | b',')) {
        start -= 1;
    }
    while matches!(bytes[start], b'.' | b',') {
        start += 1;
    }
    let signed = start > 0
        && bytes[start - 1] == b'-'
        && !(start > 1 && (bytes[start - 2].is_ascii_alphanumeric() || bytes[start - 2] == b')'));
    Some(&text[start - usize::from(signed)..end])
}

/// Settings of majority vote.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MajorityVote {
    /// Answers per prompt, at least 1. Paper: 40.
    pub n: usize,
    /// What of an answer is compared.
    pub compare: Final,
    /// How answers are sampled. Paper: temperature 0.7, top-k 40 for PaLM.
    pub draw: Draw,
}

impl Default for MajorityVote {
    fn default() -> MajorityVote {
        let draw = Draw { temperature: 0.7, ..Draw::default() };
        MajorityVote { n: 40, compare: Final::LastNumber, draw }
    }
}

impl Settings for MajorityVote {
    fn check(&self) -> Result<()> {
        if self.n == 0 {
            return Err(Error::range("majority-vote", "n", "at least 1", 0));
        }
        self.draw.check("majority-vote")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let MajorityVote { n, compare, draw } = settings("majority-vote", job.settings)?;
    let model = job.policy.speaker()?;
    let drawn = sample(&model, &prompts(&model, job.records)?, n, &draw, job.seed)?;
    let answered =
        drawn.iter().enumerate().filter(|(_, samples)| !samples.is_empty()).map(|(record, samples)| {
            let finals: Vec<&str> = samples.iter().map(|sample| compare.of(&sample.text)).collect();
            let votes = votes(&finals);
            let attempts: Vec<Attempt> = samples
                .iter()
                .zip(&votes)
                .map(|(sample, &votes)| Attempt {
                    text: sample.text.clone(),
                    critique: None,
                    score: Some(votes as f64 / samples.len() as f64),
                })
                .collect();
            let cost = Cost { calls: samples.len() as u64, tokens: samples.iter().map(tokens).sum() };
            Answered { record, chosen: super::best_of_n::best(&attempts), attempts, cost, by_oracle: false }
        });
    Ok(Product::Answers(answered.collect()))
}

/// How often each final answer came, `[n]`.
fn votes(finals: &[&str]) -> Vec<usize> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    finals.iter().for_each(|answer| *counts.entry(answer).or_default() += 1);
    finals.iter().map(|answer| counts[answer]).collect()
}

/// A policy that is taught to answer the last word of the prompt with that word, but one time in two another.
fn beats_one(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let mut rng = rng(seed, "noise");
    let last = |record: &Record| match &record.prompt {
        Prompt::Text(text) => text.rsplit(' ').next().unwrap_or_default().to_string(),
        Prompt::Messages(_) => String::new(),
    };
    let train: Vec<Record> = bench
        .records(600, 1, "train")
        .into_iter()
        .map(|record| {
            let right = last(&record);
            let said =
                if rng.random::<f64>() < 0.5 { right } else { format!("w{}", rng.random_range(0..32)) };
            record.say(Form::Edit { on: "a".into(), content: said.into() })
        })
        .collect();
    let quick = bench::quick("[training]\nepochs = 12.0\nlearning_rate = 5e-3")?;
    let policy = (sft::SFT.run)(bench.job(&train, &quick)?)?.policy()?;
    let asked = bench.records(80, 0, "asked");
    let settings: toml::Table = [
        ("n".to_string(), toml::Value::Integer(15)),
        ("compare".to_string(), toml::Value::String("whole".into())),
    ]
    .into_iter()
    .collect();
    let answers = run(Job { policy, ..bench.job(&asked, &settings)? })?.answers()?;
    let right = |answer: &Answered, at: usize| {
        f64::from(u8::from(answer.attempts[at].text.trim() == last(&asked[answer.record])))
    };
    let gains: Vec<f64> =
        answers.iter().map(|answer| right(answer, answer.chosen) - right(answer, 0)).collect();
    Ok(hone_feedback::metrics::mean(&gains))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_answers() {
        let text = "7+5=12\n12-3=9\n";
        assert_eq!(Final::Whole.of(text), "7+5=12\n12-3=9");
        assert_eq!(Final::LastLine.of(text), "12-3=9");
        assert_eq!(Final::LastNumber.of(text), "9");
        assert_eq!(Final::LastNumber.of("so it is -1,204.50."), "-1,204.50");
        assert_eq!(Final::LastNumber.of("5-3"), "3");
        assert_eq!(Final::LastNumber.of("none here"), "none here");
        assert_eq!(Final::LastNumber.of(""), "");
    }

    #[test]
    fn the_commonest_wins_and_ties_go_to_the_first() {
        assert_eq!(votes(&["9", "8", "9"]), [2, 1, 2]);
        let attempts: Vec<Attempt> = votes(&["8", "9", "9", "8"])
            .into_iter()
            .map(|v| Attempt { text: String::new(), critique: None, score: Some(v as f64) })
            .collect();
        assert_eq!(super::super::best_of_n::best(&attempts), 0);
    }

    #[test]
    fn claim_beats_one_answer() {
        bench::assert_holds(beats_one, 5);
    }
}
