//! Reward model of marked spans.

use hone_feedback::convert::Shape;
use hone_nn::config::Head;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::preference::reward_steps::{auc_of_marks, fit_marks};
use crate::reward::RewardModel;
use crate::train::Training;

method! {
    /// Learn which tokens of an answer people would mark as wrong.
    /// # What it does
    /// A head on every token of a marked response gives the probability that the token lies in a span of negative value;
    /// binary cross-entropy over all tokens of responses that have at least one mark.
    /// # Feedback
    /// Spans: parts of responses with a value; below 0 is bad.
    /// # Departs from the paper
    /// Fine-grained RLHF has one model per kind of error and reads sub-sentences; here all kinds are one label and each
    /// token is read.
    /// # Claim
    /// Tells marked from unmarked tokens of held-out answers far better than chance, by the area under the ROC curve
    /// (`claim_finds_marked_tokens`).
    /// # Source
    /// Wu et al., NeurIPS 2023, arXiv:2306.01693, section 3.
    pub static REWARD_SPANS: Method = Method {
        id: "reward-spans", name: "Token-level reward model", family: Family::Preference,
        needs: Needs::Shape(Shape::SpanLabels), makes: Makes::Reward, settings: RewardSpans,
        claims: &[Claim {
            name: "claim_finds_marked_tokens",
            says: "On held-out answers, tokens in marked spans get higher probabilities than others.",
            metric: "area under the ROC curve over held-out tokens",
            baseline: "the same head before training",
            effect: finds_marked_tokens,
        }],
        run,
    };
}

/// Settings of the token-level reward model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardSpans {
    /// The descent; a response with its marks is one example.
    pub training: Training,
}

impl Default for RewardSpans {
    fn default() -> RewardSpans {
        RewardSpans { training: super::reward_steps::RewardSteps::default().training }
    }
}

impl Settings for RewardSpans {
    fn check(&self) -> Result<()> {
        self.training.check("reward-spans")
    }
}

/// Examples whose marks say of every token whether it lies in a span of negative value: 1 or 0.
///
/// # Errors
/// As [`Examples::from_records`].
pub fn faulty_tokens(
    policy: &crate::Policy,
    records: &[hone_feedback::Record],
    max_tokens: usize,
) -> Result<Examples> {
    let mut examples = Examples::from_records(policy, records, Shape::SpanLabels, max_tokens)?;
    for (_, value) in examples.items.iter_mut().flat_map(|item| &mut item.marks) {
        *value = f32::from(u8::from(*value < 0.0));
    }
    Ok(examples)
}

fn run(job: Job<'_>) -> Result<Product> {
    let RewardSpans { training } = settings("reward-spans", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = faulty_tokens(&job.policy, job.records, max_tokens)?;
    Error::expect_examples("reward-spans", "marked spans", &examples, job.records)?;
    Ok(Product::Reward(fit_marks(job, &examples, &training)?))
}

fn finds_marked_tokens(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.marks(160, "train", false), bench.marks(80, "held out", false));
    let settings = bench::quick("")?;
    let fitted = run(bench.job(&train, &settings)?)?.reward()?;
    let mut policy = bench.policy()?;
    let held_out = faulty_tokens(&policy, &held_out, 64)?.items;
    policy.model = policy.model_with_head(Head::Token { labels: 1 }, seed)?;
    Ok(auc_of_marks(&fitted, &held_out)? - auc_of_marks(&RewardModel { policy }, &held_out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_negative_spans_are_ones() {
        let bench = bench::Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let records = bench.marks(8, "places", false);
        let examples = faulty_tokens(&policy, &records, 64).unwrap();
        for example in &examples.items {
            let text = records[example.record].responses[0].content.text().into_owned();
            let disliked: Vec<f32> =
                text.split(' ').map(|word| f32::from(u8::from(bench.utility(word) < 0.0))).collect();
            let marks: Vec<f32> = example.marks.iter().map(|(_, value)| *value).collect();
            assert_eq!(marks, disliked, "{text}");
        }
        assert!(examples.len() >= 6);
    }

    #[test]
    fn claim_finds_marked_tokens() {
        bench::assert_holds(finds_marked_tokens, 5);
    }
}
