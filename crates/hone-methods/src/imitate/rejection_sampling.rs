//! Rejection sampling fine-tuning.

use std::collections::BTreeSet;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::model::Sample;
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::imitate::sft::{Sft, imitate};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::oracle::Oracle;
use crate::policy::{Policy, Sequence};
use crate::refine::{Draw, judge, prompts, sample};
use crate::train::Training;

method! {
    /// Let the policy answer many times, keep what a check accepts, and imitate that.
    /// # What it does
    /// Samples `samples` answers to each prompt from the policy, keeps the distinct ones that are right (or the best one
    /// of each prompt), and fine-tunes the policy on them; `rounds` of this, each from the newest policy. The tokens
    /// that were sampled are the tokens trained on.
    /// # Feedback
    /// Prompts whose answers can be checked: an oracle, tests, or a reward model behind the same interface.
    /// # Departs from the paper
    /// RFT counts answers as equal if their equations are, here if their texts are; it starts each time from the base
    /// model, here from the policy. At most `keep_at_most` answers of a prompt are kept, so that easy prompts do not
    /// crowd out hard ones.
    /// # Claim
    /// Raises the share of right answers above that of imitating unfiltered samples, same number of samples
    /// (`claim_the_filter_is_what_helps`).
    /// # Source
    /// Yuan et al. (RFT), arXiv:2308.01825, section 3.3; the best one of each prompt: Dong et al. (RAFT), TMLR 2023,
    /// arXiv:2304.06767, algorithm 1.
    pub static REJECTION_SAMPLING: Method = Method {
        id: "rejection-sampling", name: "Rejection sampling fine-tuning", family: Family::Imitate,
        needs: Needs::Checks, makes: Makes::Policy, settings: RejectionSampling,
        claims: &[Claim {
            name: "claim_the_filter_is_what_helps",
            says: "Imitating the policy's right answers makes more of its answers right than imitating all of them.",
            metric: "share of right answers to held-out prompts at temperature 1",
            baseline: "imitating as many unfiltered samples of the same policy",
            effect: filter_helps,
        }],
        run,
    };
}

/// Which samples are imitated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those that are right.
    Right,
    /// The one of each prompt with the highest score.
    Best,
    /// All: a baseline.
    All,
}

/// Settings of rejection sampling fine-tuning. Defaults are RFT's, but for the number of samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RejectionSampling {
    /// Answers per prompt, at least 1. RFT: 100.
    pub samples: usize,
    /// Which are imitated.
    pub keep: Keep,
    /// Most answers of one prompt that are imitated; 0 for no limit. RFT: no limit.
    pub keep_at_most: usize,
    /// Times that sampling and training follow each other, at least 1.
    pub rounds: usize,
    /// How answers are sampled. RFT: temperature 0.7.
    pub draw: Draw,
    /// The descent.
    pub training: Training,
}

impl Default for RejectionSampling {
    fn default() -> RejectionSampling {
        let draw = Draw { temperature: 0.7, ..Draw::default() };
        let training = Sft::default().training;
        RejectionSampling { samples: 100, keep: Keep::Right, keep_at_most: 0, rounds: 1, draw, training }
    }
}

impl Settings for RejectionSampling {
    fn check(&self) -> Result<()> {
        for (key, value) in [("samples", self.samples), ("rounds", self.rounds)] {
            if value == 0 {
                return Err(Error::range("rejection-sampling", key, "at least 1", 0));
            }
        }
        self.draw.check("rejection-sampling")?;
        self.training.check("rejection-sampling")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: RejectionSampling = settings("rejection-sampling", job.settings)?;
    let Job { mut policy, records, oracle, settings, seed, session } = job;
    for round in 0..own.rounds {
        let seed = sub_seed(seed, &format!("round {round}"));
        let examples = collect(&policy, records, oracle, &own, seed)?;
        if examples.is_empty() {
            let got = format!("none right of {} samples for each of {} prompts", own.samples, records.len());
            let needed = "at least one right answer to imitate".into();
            return Err(Error::Data { method: "rejection-sampling".into(), needed, got });
        }
        let session = session.stage(&format!("round-{}", round + 1));
        let job = Job { policy, records, oracle, settings, seed, session };
        policy = imitate("rejection-sampling", job, &examples, &own.training)?.policy()?;
    }
    Ok(Product::Policy(policy))
}

/// Samples, judges and keeps.
fn collect(
    policy: &Policy,
    records: &[Record],
    oracle: Option<&dyn Oracle>,
    own: &RejectionSampling,
    seed: u64,
) -> Result<Examples> {
    let model = policy.speaker()?;
    let asked = prompts(&model, records)?;
    let drawn = sample(&model, &asked, own.samples, &own.draw, seed)?;
    let limit = own.training.tokens_for(&policy.model);
    let mut examples = Examples::default();
    for (index, (record, samples)) in records.iter().zip(&drawn).enumerate() {
        if samples.is_empty() {
            examples.losses.add("prompts that could not be asked");
            continue;
        }
        let mut judged = vec![];
        for sample in samples {
            let verdict = match own.keep {
                Keep::All => None,
                _ => Some(judge("rejection-sampling", oracle, record, &sample.text)?),
            };
            judged.push((sample, verdict));
        }
        let best =
            judged.iter().filter_map(|(_, v)| Some(v.as_ref()?.score)).fold(f64::NEG_INFINITY, f64::max);
        let mut seen = BTreeSet::new();
        let most = match (own.keep, own.keep_at_most) {
            (Keep::Best, _) => 1,
            (_, 0) => usize::MAX,
            (_, most) => most,
        };
        let wanted = judged.iter().filter(|(sample, verdict)| match (own.keep, verdict) {
            (Keep::Right, Some(verdict)) => verdict.right && seen.insert(sample.text.as_str()),
            (Keep::Best, Some(verdict)) => verdict.score == best,
            _ => true,
        });
        let prompt = model.prompt_tokens(index, &asked[index])?;
        for (sample, _) in wanted.take(most) {
            match sequence(&prompt, sample, policy.tokenizer.stop_tokens(), limit) {
                Some(sequence) => {
                    let sequences = vec![sequence];
                    examples.items.push(Example { record: index, sequences, labels: vec![], marks: vec![] });
                }
                None => {
                    examples.losses.add("samples that did not end, or are longer than the settings allow")
                }
            }
        }
    }
    Ok(examples)
}

/// The prompt and the sampled tokens; none if the answer did not end with a stop token or is too long.
fn sequence(prompt: &[u32], sample: &Sample, stops: &[u32], limit: usize) -> Option<Sequence> {
    let tokens: Option<Vec<u32>> = sample.tokens.as_ref()?.iter().map(|token| token.id).collect();
    let tokens = tokens.filter(|tokens| tokens.last().is_some_and(|last| stops.contains(last)))?;
    (prompt.len() + tokens.len() <= limit).then(|| Sequence::of_tokens(prompt, &tokens))
}

fn filter_helps(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.records(60, 0, "train"), bench.records(60, 0, "held out"));
    let right = |keep: &str| -> Result<f64> {
        let settings = bench::quick(&format!(
            "samples = 8\nkeep_at_most = 4\nkeep = \"{keep}\"\n[draw]\ntemperature = 1.0\n[training]\nepochs = 2.0"
        ))?;
        let policy = run(bench.job(&train, &settings)?)?.policy()?;
        let model = policy.speaker()?;
        let answers = sample(&model, &prompts(&model, &held_out)?, 4, &Draw::default(), seed)?;
        let shares = answers.iter().flatten().map(|s| f64::from(u8::from(bench.utility(&s.text) > 0.0)));
        Ok(mean(&shares.collect::<Vec<_>>()))
    };
    Ok(right("right")? - right("all")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_right_distinct_answers_are_kept_in_their_own_tokens() {
        let bench = bench::Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let records = bench.records(12, 0, "asked");
        let own = RejectionSampling { samples: 6, ..RejectionSampling::default() };
        let examples = collect(&policy, &records, Some(&bench), &own, 1).unwrap();
        assert!(!examples.is_empty());
        let mut seen = BTreeSet::new();
        for example in &examples.items {
            let sequence = &example.sequences[0];
            let response: Vec<u32> = (0..sequence.tokens.len())
                .filter(|&at| sequence.mask[at])
                .map(|at| sequence.tokens[at])
                .collect();
            let text = policy.tokenizer.decode(&response, true).unwrap();
            assert!(bench.utility(&text) > 0.0, "{text}");
            assert_eq!(response.last(), policy.tokenizer.stop_tokens().first());
            assert!(seen.insert((example.record, text)), "kept twice");
        }
        let best = RejectionSampling { keep: Keep::Best, ..own };
        let examples = collect(&policy, &records, Some(&bench), &best, 1).unwrap();
        assert_eq!(examples.len(), 12);
    }

    #[test]
    fn claim_the_filter_is_what_helps() {
        bench::assert_holds(filter_helps, 5);
    }
}
