//! Best of several answers.

use serde::{Deserialize, Serialize};

use crate::bench;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Needs, Product, Settings, method, settings};
use crate::refine::{Answered, Attempt, Cost, Draw, judge, mean_logp, prompts, sample, tokens};

method! {
    /// Answer several times and keep the answer that a judge scores highest.
    /// # What it does
    /// Samples `n` answers to each prompt and returns the one with the highest score: the oracle's, or without one the
    /// policy's own mean log-probability per token.
    /// # Feedback
    /// None in the log; a judge of answers: an oracle, tests, or a reward model behind the same interface.
    /// # Departs from the paper
    /// WebGPT's judge is a learned reward model; any judge does here.
    /// # Claim
    /// Chosen answers score higher than single ones from the same policy (`claim_beats_one_answer`).
    /// # Source
    /// Nakano et al. (WebGPT), arXiv:2112.09332, section 3.2; Stiennon et al., NeurIPS 2020, arXiv:2009.01325.
    pub static BEST_OF_N: Method = Method {
        id: "best-of-n", name: "Best of n", family: Family::Refine, needs: Needs::Checks, settings: BestOfN,
        claims: &[Claim {
            name: "claim_beats_one_answer",
            says: "The best of 8 answers scores higher than one answer; the cost is 8 times as high.",
            metric: "mean score of the chosen answer, in [0, 1]",
            baseline: "the first of the same answers",
            effect: beats_one,
        }],
        run,
    };
}

/// What decides among the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The oracle's score.
    Oracle,
    /// The policy's mean log-probability per token.
    Likelihood,
}

/// Settings of best-of-n.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BestOfN {
    /// Answers per prompt, at least 1. WebGPT: 4, 16 and 64.
    pub n: usize,
    /// What decides.
    pub judge: Judge,
    /// How answers are sampled.
    pub draw: Draw,
}

impl Default for BestOfN {
    fn default() -> BestOfN {
        BestOfN { n: 16, judge: Judge::Oracle, draw: Draw::default() }
    }
}

impl Settings for BestOfN {
    fn check(&self) -> Result<()> {
        if self.n == 0 {
            return Err(Error::range("best-of-n", "n", "at least 1", 0));
        }
        self.draw.check("best-of-n")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let BestOfN { n, judge: by, draw } = settings("best-of-n", job.settings)?;
    let model = job.policy.speaker()?;
    let drawn = sample(&model, &prompts(&model, job.records)?, n, &draw, job.seed)?;
    let mut answered = vec![];
    for (index, (record, samples)) in
        job.records.iter().zip(&drawn).enumerate().filter(|(_, (_, s))| !s.is_empty())
    {
        let mut cost = Cost::default();
        let mut attempts = vec![];
        for sample in samples {
            cost += Cost { calls: 1, tokens: tokens(sample) };
            let score = match by {
                Judge::Oracle => Some(judge("best-of-n", job.oracle, record, &sample.text)?.score),
                Judge::Likelihood => mean_logp(sample),
            };
            attempts.push(Attempt { text: sample.text.clone(), critique: None, score });
        }
        answered.push(Answered { record: index, chosen: best(&attempts), attempts, cost });
    }
    Ok(Product::Answers(answered))
}

/// The first attempt with the highest score; those without one come last.
pub fn best(attempts: &[Attempt]) -> usize {
    let score = |at: usize| attempts[at].score.unwrap_or(f64::NEG_INFINITY);
    (0..attempts.len()).fold(0, |best, at| if score(at) > score(best) { at } else { best })
}

fn beats_one(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let records = bench.records(40, 0, "asked");
    let settings: toml::Table = [("n".to_string(), toml::Value::Integer(8))].into_iter().collect();
    let answers = run(bench.job(&records, &settings)?)?.answers()?;
    let gains = answers.iter().filter_map(|a| Some(a.attempts[a.chosen].score? - a.attempts[0].score?));
    Ok(hone_feedback::metrics::mean(&gains.collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(score: Option<f64>) -> Attempt {
        Attempt { text: String::new(), critique: None, score }
    }

    #[test]
    fn the_first_of_the_best_is_chosen() {
        assert_eq!(best(&[attempt(None), attempt(Some(1.0)), attempt(Some(2.0)), attempt(Some(2.0))]), 2);
        assert_eq!(best(&[attempt(None), attempt(None)]), 0);
    }

    #[test]
    fn every_prompt_gets_n_answers_and_their_cost() {
        let bench = bench::Bench::new(1).unwrap();
        let records = bench.records(3, 0, "asked");
        let settings: toml::Table = "n = 4\njudge = \"likelihood\"".parse().unwrap();
        let answers = run(bench.job(&records, &settings).unwrap()).unwrap().answers().unwrap();
        assert_eq!(answers.len(), 3);
        for answer in &answers {
            assert_eq!((answer.attempts.len(), answer.cost.calls), (4, 4));
            let best = answer.attempts.iter().filter_map(|a| a.score).fold(f64::MIN, f64::max);
            assert_eq!(answer.attempts[answer.chosen].score, Some(best));
            // Each token is a word of the answer or the stop token.
            let words: usize = answer.attempts.iter().map(|a| a.text.split_whitespace().count()).sum();
            assert!((words..=words + 4).contains(&(answer.cost.tokens as usize)));
        }
    }

    #[test]
    fn without_an_oracle_it_says_what_is_missing() {
        let bench = bench::Bench::new(1).unwrap();
        let records = bench.records(1, 0, "asked");
        let settings = toml::Table::new();
        let job = Job { oracle: None, ..bench.job(&records, &settings).unwrap() };
        let refused = run(job).unwrap_err().to_string();
        assert!(refused.contains("needs prompts whose answers can be checked"), "{refused}");
    }

    #[test]
    fn claim_beats_one_answer() {
        bench::assert_holds(beats_one, 3);
    }
}
