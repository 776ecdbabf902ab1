//! Reward model of pairs.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::config::Head;
use hone_nn::{Loss, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::preference::reward_metrics;
use crate::reward;
use crate::train::{Training, chosen_rejected};

method! {
    /// Learn to score answers from pairs in which people preferred one.
    /// # What it does
    /// A scalar head at the last token; the probability that the chosen response wins is the logistic function of the
    /// difference of scores (Bradley-Terry). `margin_weight` asks for a difference in proportion to how far apart the
    /// ratings were; `centre` pulls the sum of the two scores to 0, since pairs leave it open.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings or thumbs on two responses of one prompt, edits.
    /// # Departs from the paper
    /// Pairs of one prompt may fall in different steps, where InstructGPT keeps them together. The rate rises over the
    /// first tenth of the steps and ends at 0, where InstructGPT's ends at a tenth of its peak.
    /// # Claim
    /// Orders held-out pairs better than the better of the two length rules (`claim_orders_better_than_length`).
    /// # Source
    /// Ouyang et al., NeurIPS 2022, arXiv:2203.02155, equation 1; margin: Touvron et al., arXiv:2307.09288, equation 2;
    /// centring: Eisenstein et al., arXiv:2312.09244.
    pub static REWARD_PAIRS: Method = Method {
        id: "reward-pairs", name: "Bradley-Terry reward model", family: Family::Preference,
        needs: Needs::Shape(Shape::Pairs), makes: Makes::Reward, settings: RewardPairs,
        claims: &[Claim {
            name: "claim_orders_better_than_length",
            says: "Orders held-out pairs better than length alone can.",
            metric: "share of held-out pairs in their labelled order",
            baseline: "the longer response wins, or the shorter one, whichever is right more often",
            effect: orders_better,
        }],
        run,
    };
}

/// Settings of the reward model of pairs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RewardPairs {
    /// Difference of scores asked for per share of the rating scale between the two, at least 0. InstructGPT: 0.
    pub margin_weight: f64,
    /// Weight of the squared sum of both scores, at least 0. InstructGPT: 0.
    pub centre: f64,
    /// The descent. InstructGPT: learning rate 9e-6, batch 64, one pass, cosine decay.
    pub training: Training,
}

impl Default for RewardPairs {
    fn default() -> RewardPairs {
        let decay = crate::train::Decay::Cosine;
        let training = Training { learning_rate: 9e-6, batch_size: 64, decay, ..Training::default() };
        RewardPairs { margin_weight: 0.0, centre: 0.0, training }
    }
}

impl Settings for RewardPairs {
    fn check(&self) -> Result<()> {
        not_negative("reward-pairs", "margin_weight", self.margin_weight)?;
        not_negative("reward-pairs", "centre", self.centre)?;
        self.training.check("reward-pairs")
    }
}

/// `[P]` losses in nats from `[P]` scores of both sides and `[P]` margins.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn bradley_terry_loss(
    chosen: &Tensor,
    rejected: &Tensor,
    margins: &Tensor,
    centre: f64,
) -> hone_nn::Result<Tensor> {
    let ordered = loss::log_sigmoid(&((chosen - rejected)? - margins)?)?.neg()?;
    Ok((ordered + ((chosen + rejected)?.sqr()? * centre)?)?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let RewardPairs { margin_weight, centre, training } = settings("reward-pairs", job.settings)?;
    let max_tokens = training.tokens_for(&job.policy.model);
    let examples = Examples::from_records(&job.policy, job.records, Shape::Pairs, max_tokens)?;
    Error::expect_examples("reward-pairs", "pairs", &examples, job.records)?;
    let fitted = reward::fit(job, Head::Sequence { labels: 1 }, &examples, &training, |part| {
        let (chosen, rejected) = chosen_rejected(&reward::sequence_scores(part.outputs)?)?;
        let margins =
            part.tensor(part.examples.iter().map(|e| e.labels[0] * margin_weight as f32).collect())?;
        let losses = bradley_terry_loss(&chosen, &rejected, &margins, centre)?;
        let metrics = reward_metrics(part, &chosen, &rejected)?;
        Ok(Loss { value: (losses.sum_all()? / part.step_examples as f64)?, metrics })
    })?;
    Ok(Product::Reward(fitted))
}

fn orders_better(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let (train, held_out) = (bench.pairs(240, "train"), bench.pairs(200, "held out"));
    let settings = bench::quick("")?;
    let fitted = run(bench.job(&train, &settings)?)?.reward()?;
    let held_out = Examples::from_records(&fitted.policy, &held_out, Shape::Pairs, 64)?.items;
    let report = reward::pair_report(&fitted.score(&held_out)?, &held_out);
    Ok(hone_feedback::metrics::mean(&report.hits) - hone_feedback::metrics::mean(&report.longer))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;

    #[test]
    fn by_hand() {
        // Difference 1 with margin 1: ln 2. Centred: + 0.1 · (2 + 1)².
        let (chosen, rejected, margin) =
            (bench::tensor(&[2.0]), bench::tensor(&[1.0]), bench::tensor(&[1.0]));
        bench::assert_close(&bradley_terry_loss(&chosen, &rejected, &margin, 0.1).unwrap(), &[LN_2 + 0.9]);
    }

    #[test]
    fn claim_orders_better_than_length() {
        bench::assert_holds(orders_better, 5);
    }
}
