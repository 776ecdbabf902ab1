//! Reward model of ratings.

use hone_feedback::convert::Shape;
use hone_feedback::metrics;
use hone_nn::Loss;
use hone_nn::config::Head;
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, settings};
use crate::reward;
use crate::train::Training;

method! {
    /// Learn a score for answers from the marks that people gave.
    /// # What it does
    /// A scalar head at the last token is fitted to each mark as a share of its scale by squared error.
    /// # Feedback
    /// Scalar targets: ratings with a scale, thumbs, outcomes. Marks without a known scale are left out and counted.
    /// # Departs from the paper
    /// One head for all aspects, where HelpSteer2 has one for each; marks are shares of their scale, so that scales can be
    /// mixed. The score itself is fitted, where Bansal et al. fit its logistic function.
    /// # Claim
    /// Follows held-out ratings, by rank correlation, better than length does (`claim_follows_ratings`).
    /// # Source
    /// Wang et al. (HelpSteer2), NeurIPS 2024, arXiv:2406.08673, the regression reward models; Bansal et al. (sparse
    /// feedback), ICLR 2024, arXiv:2308.15812.
    pub static REWARD_RATINGS: Method = Method {
        id: "reward-ratings", name: "Regression reward model", family: Family::Preference,
        needs: Needs::Shape(Shape::ScalarTargets), makes: Makes::Reward, settings: RewardRatings,
        claims: &[Claim {
            name: "claim_follows_ratings",
            says: "Scores follow held-out ratings better than length alone can.",
            metric: "Spearman's rank correlation with held-out ratings",
            baseline: "length of the response, in the better of both directions",
            effect: follows_ratings,
        }],
        run,
    };
}

/// Settings of the reward model of ratings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardRatings {
    /// The descent. HelpSteer2's learning rates are those of models of 70B and 340B; this is the pairwise model's.
    pub training: Training,
}

impl Default for RewardRatings {
    fn default() -> RewardRatings {
        RewardRatings { training: super::reward_pairs::RewardPairs::default().training }
    }
}

impl Settings for RewardRatings {
    fn check(&self) -> Result<()> {
        self.training.check("reward-ratings")
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let RewardRatings { training } = settings("reward-ratings", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = Examples::from_records(&job.policy, job.records, Shape::ScalarTargets, max_tokens)?;
    Error::expect_examples("reward-ratings", "ratings", &examples, job.records)?;
    let fitted = reward::fit(job, Head::Sequence { labels: 1 }, &examples, &training, |part| {
        let scores = reward::sequence_scores(part.outputs)?;
        let targets = part.tensor(part.examples.iter().map(|e| e.labels[0]).collect())?;
        let squared = (scores - targets)?.sqr()?.sum_all()?;
        Ok(Loss::from((squared / part.step_examples as f64)?))
    })?;
    Ok(Product::Reward(fitted))
}

fn follows_ratings(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.ratings(320, "train"), bench.ratings(200, "held out"));
    let settings = bench::quick("")?;
    let fitted = run(bench.job(&train, &settings)?)?.reward()?;
    let held_out = Examples::from_records(&fitted.policy, &held_out, Shape::ScalarTargets, 64)?.items;
    let scores: Vec<f64> = fitted.score(&held_out)?.iter().map(|s| f64::from(s[0])).collect();
    let targets: Vec<f64> = held_out.iter().map(|e| f64::from(e.labels[0])).collect();
    let lengths: Vec<f64> = held_out.iter().map(|e| e.sequences[0].targets() as f64).collect();
    let by_score = metrics::ranking::spearman(&scores, &targets).unwrap_or(0.0);
    Ok(by_score - metrics::ranking::spearman(&lengths, &targets).unwrap_or(0.0).abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_shares_of_the_scale() {
        let bench = bench::Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let records = bench.ratings(20, "scale");
        let examples = Examples::from_records(&policy, &records, Shape::ScalarTargets, 64).unwrap();
        for (example, record) in examples.items.iter().zip(&records) {
            let hone_feedback::Form::Rating { value, .. } = record.feedback[0].form else {
                panic!("a rating")
            };
            assert_eq!(f64::from(example.labels[0]), (value - 1.0) / 4.0);
        }
    }

    #[test]
    fn claim_follows_ratings() {
        bench::assert_holds(follows_ratings, 5);
    }
}
