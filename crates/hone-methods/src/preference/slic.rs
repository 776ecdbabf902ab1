//! Sequence likelihood calibration.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::{Loss, Want};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{
    Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, not_negative, settings,
};
use crate::preference::{dpo, reward_metrics};
use crate::train::{Training, chosen_rejected, descend, seq_logps};

method! {
    /// Rank the chosen response above the rejected one by a margin, while still imitating good answers.
    /// # What it does
    /// A hinge on the log-probabilities of the two responses, summed over tokens, plus `regularisation` times the
    /// negative log-likelihood of the chosen response. With `normalised` the hinge is on `scale` times the log-ratios
    /// to the policy's start, as in the SLiC-norm of later papers, and needs no second term.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings or thumbs on two responses of one prompt, edits.
    /// # Departs from the paper
    /// The regulariser's target is the chosen response, since a log has no separate reference answer; AdamW, not
    /// Adafactor. The paper's coefficients are recalled, not checked, so both are settings.
    /// # Claim
    /// Sets held-out pairs further apart than imitating the chosen responses does, same pairs, same steps
    /// (`claim_sets_pairs_further_apart`).
    /// # Source
    /// Zhao et al., arXiv:2305.10425, equation for L^cal + λ L^reg; SLiC-norm: Liu et al., arXiv:2309.06657.
    pub static SLIC: Method = Method {
        id: "slic", name: "SLiC-HF", family: Family::Preference, needs: Needs::Shape(Shape::Pairs), makes: Makes::Policy, settings: Slic,
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

/// Settings of SLiC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slic {
    /// Margin δ that the chosen response is to have, in nats (no unit if normalised), above 0. Paper: 1.0.
    pub margin: f64,
    /// Weight λ of imitating the chosen response, at least 0. Paper: 0.5.
    pub regularisation: f64,
    /// Hinge on log-ratios to the start instead of log-probabilities.
    pub normalised: bool,
    /// Scale of the log-ratios if `normalised`, above 0. LiPO's baseline of this name: 0.05.
    pub scale: f64,
    /// The descent.
    pub training: Training,
}

impl Default for Slic {
    fn default() -> Slic {
        let training = Training { learning_rate: 1e-5, ..dpo::Dpo::default().training };
        Slic { margin: 1.0, regularisation: 0.5, normalised: false, scale: 0.05, training }
    }
}

impl Settings for Slic {
    fn check(&self) -> Result<()> {
        above_zero("slic", "margin", self.margin)?;
        above_zero("slic", "scale", self.scale)?;
        not_negative("slic", "regularisation", self.regularisation)?;
        self.training.check("slic")
    }
}

/// `[P]` hinges `max(0, margin − (chosen − rejected))`.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn hinge(chosen: &Tensor, rejected: &Tensor, margin: f64) -> hone_nn::Result<Tensor> {
    Ok(((rejected - chosen)? + margin)?.relu()?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let Slic { margin, regularisation, normalised, scale, training } = settings("slic", job.settings)?;
    let mut policy = job.policy;
    let examples =
        Examples::from_records(&policy, job.records, Shape::Pairs, training.tokens_for(&policy.model))?;
    Error::expect_examples("slic", "pairs", &examples, job.records)?;
    let want = Want::default();
    let reference = seq_logps(&policy.model, &examples.items, &want)?;
    policy.model = descend(policy.model, &examples, &training, job.seed, &job.session, &want, |part| {
        let (chosen, rejected) = chosen_rejected(&part.seq_logps()?)?;
        let (ref_chosen, ref_rejected) = chosen_rejected(&part.known(&reference)?)?;
        let ratio = |now: &Tensor, then: &Tensor| -> hone_nn::Result<Tensor> { Ok(((now - then)? * scale)?) };
        let (moved_c, moved_r) = (ratio(&chosen, &ref_chosen)?, ratio(&rejected, &ref_rejected)?);
        let losses = match normalised {
            true => hinge(&moved_c, &moved_r, margin)?,
            false => (hinge(&chosen, &rejected, margin)? - (&chosen * regularisation)?)?,
        };
        let metrics = reward_metrics(part, &moved_c, &moved_r)?;
        Ok(Loss { value: (losses.sum_all()? / part.step_examples as f64)?, metrics })
    })?;
    Ok(Product::Policy(policy))
}

fn sets_apart(seed: u64) -> Result<f64> {
    bench::gap_over_imitation(seed, run, "margin = 1.0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Apart by 3 with margin 1: met. By −1: 1 + 1 = 2.
        let (chosen, rejected) = (bench::tensor(&[-1.0, -3.0]), bench::tensor(&[-4.0, -2.0]));
        bench::assert_close(&hinge(&chosen, &rejected, 1.0).unwrap(), &[0.0, 2.0]);
    }

    #[test]
    fn claim_sets_pairs_further_apart() {
        bench::assert_holds(sets_apart, 5);
    }
}
