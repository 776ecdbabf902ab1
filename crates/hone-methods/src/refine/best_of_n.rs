//! Best of several answers.

use hone_feedback::Record;
use hone_lm::Sample;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Example;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::policy::{Policy, refusal};
use crate::preference::reward_pairs;
use crate::refine::{Answered, Attempt, Cost, Draw, judge, mean_logp, prompts, sample, tokens};
use crate::reward::RewardModel;

method! {
    /// Answer several times and keep the answer that a judge scores highest.
    /// # What it does
    /// Samples `n` answers to each prompt and returns the one with the highest score: that of a reward model, of the oracle,
    /// or the policy's own mean log-probability per token.
    /// # Feedback
    /// None in the log; a judge of answers: a reward model's folder, an oracle, or tests.
    /// # Departs from the paper
    /// The judge may also be the oracle. What it chooses is then an upper bound, and is not judged by the same oracle.
    /// # Claim
    /// Answers chosen by a reward model that was trained on pairs are better by the true utility, which it has not seen,
    /// than single ones from the same policy (`claim_beats_one_answer`).
    /// # Source
    /// Nakano et al. (WebGPT), arXiv:2112.09332, section 3.2; Stiennon et al., NeurIPS 2020, arXiv:2009.01325.
    pub static BEST_OF_N: Method = Method {
        id: "best-of-n", name: "Best of n", family: Family::Refine, needs: Needs::Checks, makes: Makes::Answers, settings: BestOfN,
        claims: &[Claim {
            name: "claim_beats_one_answer",
            says: "The best of 8 answers by a reward model of pairs has a higher true utility than one answer; the cost \
                   is 8 times as high.",
            metric: "mean true utility of the chosen answer, in [-1, 1]",
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
    /// The score of the model in `reward_model`.
    Reward,
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
    /// Folder of a reward model of whole answers, as `hone improve` writes them; needed if it decides.
    pub reward_model: String,
    /// How answers are sampled.
    pub draw: Draw,
}

impl Default for BestOfN {
    fn default() -> BestOfN {
        BestOfN { n: 16, judge: Judge::Oracle, reward_model: String::new(), draw: Draw::default() }
    }
}

impl Settings for BestOfN {
    fn check(&self) -> Result<()> {
        if self.n == 0 {
            return Err(Error::range("best-of-n", "n", "at least 1", 0));
        }
        if self.judge == Judge::Reward && self.reward_model.is_empty() {
            let needed = "the folder of a reward model, since `judge` is `reward`";
            return Err(Error::range("best-of-n", "reward_model", needed, "none"));
        }
        self.draw.check("best-of-n")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let BestOfN { n, judge: by, reward_model, draw } = settings("best-of-n", job.settings)?;
    let reward = match by {
        Judge::Reward => Some(RewardModel { policy: Policy::from_folder(reward_model.as_ref())? }),
        _ => None,
    };
    let model = job.policy.speaker()?;
    let drawn = sample(&model, &prompts(&model, job.records)?, n, &draw, job.seed)?;
    let mut answered = vec![];
    for (index, (record, samples)) in
        job.records.iter().zip(&drawn).enumerate().filter(|(_, (_, s))| !s.is_empty())
    {
        let mut cost = Cost::default();
        let mut attempts = vec![];
        let scored = reward.as_ref().map(|reward| scores(reward, record, samples)).transpose()?;
        for (at, sample) in samples.iter().enumerate() {
            cost += Cost { calls: 1, tokens: tokens(sample) };
            let score = match by {
                Judge::Oracle => Some(judge("best-of-n", job.oracle, record, &sample.text)?.score),
                Judge::Likelihood => mean_logp(sample),
                Judge::Reward => scored.as_ref().and_then(|scored| scored[at]),
            };
            attempts.push(Attempt { text: sample.text.clone(), critique: None, score });
        }
        let by_oracle = by == Judge::Oracle;
        answered.push(Answered { record: index, chosen: best(&attempts), attempts, cost, by_oracle });
    }
    Ok(Product::Answers(answered))
}

/// The reward model's score of each answer; `None` for one that is empty or too long for it.
fn scores(reward: &RewardModel, record: &Record, samples: &[Sample]) -> Result<Vec<Option<f64>>> {
    let limit = reward.policy.model.config().max_positions;
    let mut scores = vec![];
    for sample in samples {
        let sequence = match sample.text.trim().is_empty() {
            true => None,
            false => match reward.policy.encode(&record.prompt, &sample.text, limit) {
                Err(Error::Model(error)) if refusal(&error).is_some() => None,
                other => other?,
            },
        };
        scores.push(match sequence {
            Some(sequence) => {
                let sequences = vec![sequence];
                let example = Example { record: 0, sequences, labels: vec![], marks: vec![] };
                reward.score(&[example])?.first().map(|row| f64::from(row[0]))
            }
            None => None,
        });
    }
    Ok(scores)
}

/// The first attempt with the highest score; those without one come last.
pub fn best(attempts: &[Attempt]) -> usize {
    let score = |at: usize| attempts[at].score.unwrap_or(f64::NEG_INFINITY);
    (0..attempts.len()).fold(0, |best, at| if score(at) > score(best) { at } else { best })
}

fn beats_one(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let pairs = bench.pairs(160, "pairs");
    let judge = (reward_pairs::REWARD_PAIRS.run)(bench.job(&pairs, &bench::quick("")?)?)?.reward()?;
    let folder = bench::temporary(&format!("judge-{seed}"))?;
    judge.policy.save(&folder)?;
    let records = bench.records(40, 0, "asked");
    let mut settings = toml::Table::new();
    settings.insert("n".into(), 8.into());
    settings.insert("judge".into(), "reward".into());
    settings.insert("reward_model".into(), folder.display().to_string().into());
    let answers = run(bench.job(&records, &settings)?)?.answers()?;
    let gain = |a: &Answered| bench.utility(a.text()) - bench.utility(&a.attempts[0].text);
    Ok(hone_feedback::metrics::mean(&answers.iter().map(gain).collect::<Vec<_>>()))
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
        bench::assert_holds(beats_one, 5);
    }
}
