//! Reward model of rankings.

use candle_core::Tensor;
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
    /// Learn a score for answers from whole rankings.
    /// # What it does
    /// A scalar head at the last token; a ranking's probability is that of drawing its responses one after the other,
    /// each in proportion to `exp(score)` among those left (Plackett-Luce). Of tied responses each is drawn among all
    /// that are not better.
    /// # Feedback
    /// Lists: rankings, ratings or comparisons over two or more responses of one prompt.
    /// # Departs from the paper
    /// Ties, which the model does not have, are treated as Breslow does in survival analysis.
    /// # Claim
    /// Orders held-out lists better than length does, by Kendall's τ (`claim_orders_lists`).
    /// # Source
    /// Plackett, Applied Statistics 24(2), 1975; Zhu et al., ICML 2023, arXiv:2301.11270, the K-wise maximum
    /// likelihood.
    pub static REWARD_LISTS: Method = Method {
        id: "reward-lists", name: "Plackett-Luce reward model", family: Family::Preference,
        needs: Needs::Shape(Shape::Lists), makes: Makes::Reward, settings: RewardLists,
        claims: &[Claim {
            name: "claim_orders_lists",
            says: "Orders the responses of held-out lists better than length alone can.",
            metric: "Kendall's τ with the labelled order, mean over held-out lists",
            baseline: "length of the response, in the better of both directions",
            effect: orders_lists,
        }],
        run,
    };
}

/// Settings of the reward model of rankings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardLists {
    /// The descent; a list is one example.
    pub training: Training,
}

impl Default for RewardLists {
    fn default() -> RewardLists {
        RewardLists { training: super::reward_pairs::RewardPairs::default().training }
    }
}

impl Settings for RewardLists {
    fn check(&self) -> Result<()> {
        self.training.check("reward-lists")
    }
}

/// Loss of one list in nats, from its `[K]` scores and labels, larger is better.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn plackett_luce_loss(scores: &Tensor, labels: &[f32]) -> hone_nn::Result<Tensor> {
    let mut loss = Tensor::zeros((), scores.dtype(), scores.device())?;
    for (at, label) in labels.iter().enumerate() {
        let left: Vec<u32> = (0..labels.len()).filter(|&k| labels[k] <= *label).map(|k| k as u32).collect();
        // The last place has no choice left.
        if left.len() > 1 {
            let rest = scores.index_select(&Tensor::new(left, scores.device())?, 0)?;
            loss = ((loss + rest.log_sum_exp(0)?)? - scores.get(at)?)?;
        }
    }
    Ok(loss)
}

fn run(job: Job<'_>) -> Result<Product> {
    let RewardLists { training } = settings("reward-lists", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = Examples::from_records(&job.policy, job.records, Shape::Lists, max_tokens)?;
    Error::expect_examples("reward-lists", "lists of two or more ranked responses", &examples, job.records)?;
    let fitted = reward::fit(job, Head::Sequence { labels: 1 }, &examples, &training, |part| {
        let scores = reward::sequence_scores(part.outputs)?;
        let mut sum = Tensor::zeros((), scores.dtype(), scores.device())?;
        let mut start = 0;
        for example in &part.examples {
            let of_list = scores.narrow(0, start, example.labels.len())?;
            start += example.labels.len();
            sum = (sum + plackett_luce_loss(&of_list, &example.labels)?)?;
        }
        Ok(Loss::from((sum / part.step_examples as f64)?))
    })?;
    Ok(Product::Reward(fitted))
}

fn orders_lists(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.rankings(120, 4, "train"), bench.rankings(100, 4, "held out"));
    let settings = bench::quick("")?;
    let fitted = run(bench.job(&train, &settings)?)?.reward()?;
    let held_out = Examples::from_records(&fitted.policy, &held_out, Shape::Lists, 64)?.items;
    let scores = fitted.score(&held_out)?;
    let tau = |value: &dyn Fn(usize, usize) -> f64| {
        let each = held_out.iter().enumerate().filter_map(|(at, example)| {
            let values: Vec<f64> = (0..example.labels.len()).map(|k| value(at, k)).collect();
            let labels: Vec<f64> = example.labels.iter().map(|&l| f64::from(l)).collect();
            metrics::ranking::kendall_tau(&values, &labels)
        });
        metrics::mean(&each.collect::<Vec<_>>())
    };
    let by_score = tau(&|at, k| f64::from(scores[at][k]));
    let by_length = tau(&|at, k| held_out[at].sequences[k].targets() as f64);
    Ok(by_score - by_length.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let loss =
            |scores: &[f64], labels: &[f32]| plackett_luce_loss(&bench::tensor(scores), labels).unwrap();
        // Equal scores of three: ln 3 + ln 2 = 1.79176.
        bench::assert_close(&loss(&[0.0, 0.0, 0.0], &[2.0, 3.0, 1.0]), &[1.79176]);
        // Two: the logistic loss of the difference, softplus(−2) = 0.12693.
        bench::assert_close(&loss(&[3.0, 1.0], &[1.0, 0.0]), &[0.12693]);
        // A tie of two among three equal scores: ln 3 twice.
        bench::assert_close(&loss(&[0.0, 0.0, 0.0], &[1.0, 1.0, 0.0]), &[2.0 * 3.0f64.ln()]);
    }

    #[test]
    fn claim_orders_lists() {
        bench::assert_holds(orders_lists, 5);
    }
}
