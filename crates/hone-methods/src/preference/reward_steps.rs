//! Process reward model.

use hone_feedback::convert::Shape;
use hone_nn::Loss;
use hone_nn::config::Head;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::{Example, Examples};
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::reward::{self, RewardModel};
use crate::train::Training;

method! {
    /// Learn which steps of an answer are right.
    /// # What it does
    /// A head on every token, read at the last token of each labelled step, gives the probability that the step is
    /// right; binary cross-entropy over the labelled steps. Steps nobody judged are not targets.
    /// # Feedback
    /// Step labels: right or wrong per step.
    /// # Departs from the paper
    /// The paper predicts a token of the vocabulary after each step and has a neutral label; here a head of its own and
    /// two labels.
    /// # Claim
    /// Tells right from wrong steps on held-out answers far better than chance, by the area under the ROC curve
    /// (`claim_tells_steps_apart`).
    /// # Source
    /// Lightman et al., ICLR 2024, arXiv:2305.20050, section 2.6.
    pub static REWARD_STEPS: Method = Method {
        id: "reward-steps", name: "Process reward model", family: Family::Preference,
        needs: Needs::Shape(Shape::StepLabels), makes: Makes::Reward, settings: RewardSteps,
        claims: &[Claim {
            name: "claim_tells_steps_apart",
            says: "On held-out answers, right steps get higher probabilities than wrong ones.",
            metric: "area under the ROC curve over held-out steps",
            baseline: "the same head before training",
            effect: tells_steps_apart,
        }],
        run,
    };
}

/// Settings of the process reward model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardSteps {
    /// The descent; an answer with its steps is one example. Paper: two passes.
    pub training: Training,
}

impl Default for RewardSteps {
    fn default() -> RewardSteps {
        let training = super::reward_pairs::RewardPairs::default().training;
        RewardSteps { training: Training { epochs: 2.0, ..training } }
    }
}

impl Settings for RewardSteps {
    fn check(&self) -> Result<()> {
        self.training.check("reward-steps")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let RewardSteps { training } = settings("reward-steps", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = Examples::from_records(&job.policy, job.records, Shape::StepLabels, max_tokens)?;
    Error::expect_examples("reward-steps", "steps that are labelled right or wrong", &examples, job.records)?;
    Ok(Product::Reward(fit_marks(job, &examples, &training)?))
}

/// Fits a token head to the marks of `examples` by binary cross-entropy, a mean over the marks of each step.
///
/// # Errors
/// As [`reward::fit`].
pub fn fit_marks(job: Job<'_>, examples: &Examples, training: &Training) -> Result<RewardModel> {
    reward::fit(job, Head::Token { labels: 1 }, examples, training, |part| {
        let logits = reward::mark_scores(part.examples.iter().copied(), part.batch, part.outputs)?;
        let labels: Vec<f32> = part.examples.iter().flat_map(|e| e.marks.iter().map(|(_, l)| *l)).collect();
        let sum = reward::binary_cross_entropy(&logits, &labels)?;
        Ok(Loss::from((sum / part.step_marks.max(1) as f64)?))
    })
}

/// Area under the ROC curve over all marks of `examples`; ½ where one side is empty.
///
/// # Errors
/// Those of the engine.
pub fn auc_of_marks(model: &RewardModel, examples: &[Example]) -> Result<f64> {
    let scores: Vec<f64> = model.score_marks(examples)?.concat().into_iter().map(f64::from).collect();
    let positive: Vec<bool> = examples.iter().flat_map(|e| e.marks.iter().map(|(_, l)| *l > 0.5)).collect();
    Ok(reward::auc(&scores, &positive).unwrap_or(0.5))
}

fn tells_steps_apart(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.marks(160, "train", true), bench.marks(80, "held out", true));
    let settings = bench::quick("")?;
    let fitted = run(bench.job(&train, &settings)?)?.reward()?;
    let mut policy = bench.policy()?;
    let held_out = Examples::from_records(&policy, &held_out, Shape::StepLabels, 64)?.items;
    policy.model = policy.model_with_head(Head::Token { labels: 1 }, seed)?;
    Ok(auc_of_marks(&fitted, &held_out)? - auc_of_marks(&RewardModel { policy }, &held_out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stand_at_the_last_token_of_each_step() {
        let bench = bench::Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let records = bench.marks(8, "places", true);
        let examples = Examples::from_records(&policy, &records, Shape::StepLabels, 64).unwrap();
        assert_eq!(examples.len(), 8);
        for (example, record) in examples.items.iter().zip(&records) {
            // Prompt `say x y` is three tokens, a step one word, so step i stands at token 3 + i.
            let places: Vec<usize> = example.marks.iter().map(|(at, _)| *at).collect();
            assert_eq!(places, (0..record.feedback.len()).map(|i| 3 + i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn claim_tells_steps_apart() {
        bench::assert_holds(tells_steps_apart, 5);
    }
}
