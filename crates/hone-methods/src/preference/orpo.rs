//! Odds-ratio preference optimisation.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::{Loss, Want, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, settings};
use crate::preference::reward_metrics;
use crate::train::{Decay, Training, chosen_rejected, descend};

method! {
    /// Imitate the chosen response and press down the rejected one in one loss, with no reference.
    /// # What it does
    /// Adds to the likelihood loss of the chosen response a logistic loss on the log odds ratio of chosen over
    /// rejected, where the probability of a response is the geometric mean over its tokens.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings or thumbs on two responses of one prompt, edits.
    /// # Departs from the paper
    /// The likelihood loss is a mean per response, then over pairs; prompt tokens are never targets, as they are in
    /// some implementations. Linear decay instead of inverse square root.
    /// # Claim
    /// Sets held-out pairs further apart than imitating the chosen responses does, same pairs, same steps
    /// (`claim_sets_pairs_further_apart`).
    /// # Source
    /// Hong et al., EMNLP 2024, arXiv:2403.07691, equations 6 and 7.
    pub static ORPO: Method = Method {
        id: "orpo", name: "ORPO", family: Family::Preference, needs: Needs::Shape(Shape::Pairs), makes: Makes::Policy, settings: Orpo,
        claims: &[Claim {
            name: "claim_sets_pairs_further_apart",
            says: "The gap between chosen and rejected grows more than when the chosen responses are imitated.",
            metric: "mean growth of the log-ratio, chosen over rejected, of held-out pairs, nats",
            baseline: "supervised fine-tuning on the chosen responses",
            effect: sets_apart,
        }],
        run,
    };
}

/// Settings of ORPO. Defaults are the paper's for its 7B runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orpo {
    /// Weight λ of the odds-ratio loss. No unit, above 0. Paper: 0.1.
    pub lambda: f64,
    /// The descent. Paper: learning rate 8e-6.
    pub training: Training,
}

impl Default for Orpo {
    fn default() -> Orpo {
        let decay = Decay::Linear;
        Orpo {
            lambda: 0.1,
            training: Training { learning_rate: 8e-6, epochs: 5.0, decay, ..Training::default() },
        }
    }
}

impl Settings for Orpo {
    fn check(&self) -> Result<()> {
        above_zero("orpo", "lambda", self.lambda)?;
        self.training.check("orpo")
    }
}

/// `[P]` losses in nats from `[P]` mean log-probabilities per token, each below 0.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn orpo_loss(chosen: &Tensor, rejected: &Tensor, lambda: f64) -> hone_nn::Result<Tensor> {
    // A mean of exactly 0 has infinite odds; the bound keeps 1 − p a float above 0.
    let log_odds = |x: &Tensor| -> hone_nn::Result<Tensor> {
        let x = x.minimum(-1e-6)?;
        Ok((&x - x.exp()?.affine(-1.0, 1.0)?.log()?)?)
    };
    let ratio = (log_odds(chosen)? - log_odds(rejected)?)?;
    Ok((chosen.neg()? - (loss::log_sigmoid(&ratio)? * lambda)?)?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let Orpo { lambda, training } = settings("orpo", job.settings)?;
    let mut policy = job.policy;
    let examples =
        Examples::from_records(&policy, job.records, Shape::Pairs, training.tokens_for(&policy.model))?;
    Error::expect_examples("orpo", "pairs", &examples, job.records)?;
    let want = Want::default();
    policy.model = descend(policy.model, &examples, &training, job.seed, &job.session, &want, |part| {
        let (chosen, rejected) = chosen_rejected(&part.mean_logps()?)?;
        let losses = orpo_loss(&chosen, &rejected, lambda)?;
        let metrics = reward_metrics(part, &(chosen * lambda)?, &(rejected * lambda)?)?;
        Ok(Loss { value: (losses.sum_all()? / part.step_examples as f64)?, metrics })
    })?;
    Ok(Product::Policy(policy))
}

fn sets_apart(seed: u64) -> Result<f64> {
    bench::gap_over_imitation(seed, run, "lambda = 1.0")
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;

    #[test]
    fn by_hand() {
        // p 1/2 against 1/4: odds 1 and 1/3, log ratio ln 3, −log σ(ln 3) = ln(4/3) = 0.28768; NLL ln 2 = 0.69315.
        let losses = orpo_loss(&bench::tensor(&[0.5f64.ln()]), &bench::tensor(&[0.25f64.ln()]), 0.5).unwrap();
        bench::assert_close(&losses, &[LN_2 + 0.5 * 0.28768]);
    }

    #[test]
    fn claim_sets_pairs_further_apart() {
        bench::assert_holds(sets_apart, 5);
    }
}
