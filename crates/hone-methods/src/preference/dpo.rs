//! Direct preference optimisation.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::{Loss, Want, loss};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, settings};
use crate::preference::reward_metrics;
use crate::train::{Decay, Training, chosen_rejected, descend, seq_logps};

method! {
    /// Learn from pairs as if the policy were its own reward model.
    /// # What it does
    /// Raises the log-ratio of the chosen response over the rejected one, relative to the same ratio under the
    /// policy's start, through a logistic loss. `label_smoothing` is the share of labels taken to be wrong.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings or thumbs on two responses of one prompt, edits.
    /// # Departs from the paper
    /// AdamW, not RMSprop; the warm-up is a share of the steps, not 150 of them.
    /// # Claim
    /// Orders held-out pairs better than imitating the chosen responses does, same pairs, same steps
    /// (`claim_orders_better_than_imitation`).
    /// # Source
    /// Rafailov et al., NeurIPS 2023, arXiv:2305.18290, equation 7; smoothing: Mitchell, "A note on DPO with noisy
    /// preferences".
    pub static DPO: Method = Method {
        id: "dpo", name: "DPO", family: Family::Preference, needs: Needs::Shape(Shape::Pairs), makes: Makes::Policy, settings: Dpo,
        claims: &[Claim {
            name: "claim_orders_better_than_imitation",
            says: "The log-ratio to the start orders held-out pairs better after DPO than after imitating the chosen \
                   responses.",
            metric: "share of held-out pairs in their labelled order",
            baseline: "supervised fine-tuning on the chosen responses",
            effect: orders_better,
        }],
        run,
    };
}

/// Settings of DPO. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// Scale β of the implicit reward `β (log π − log π_ref)`. No unit, above 0. Paper: 0.1.
    pub beta: f64,
    /// Share of pairs whose label is taken to be swapped, in `[0, 0.5)`. Paper: 0.
    pub label_smoothing: f64,
    /// The descent. Paper: learning rate 1e-6, batch 64.
    pub training: Training,
}

impl Default for Dpo {
    fn default() -> Dpo {
        let decay = Decay::Constant;
        let training = Training { learning_rate: 1e-6, batch_size: 64, decay, ..Training::default() };
        Dpo { beta: 0.1, label_smoothing: 0.0, training }
    }
}

impl Settings for Dpo {
    fn check(&self) -> Result<()> {
        above_zero("dpo", "beta", self.beta)?;
        if !(0.0..0.5).contains(&self.label_smoothing) {
            return Err(Error::range("dpo", "label_smoothing", "a share in [0, 0.5)", self.label_smoothing));
        }
        self.training.check("dpo")
    }
}

/// `[P]` losses in nats from `[P]` log-ratios, chosen over rejected, of policy and reference.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn dpo_loss(policy: &Tensor, reference: &Tensor, beta: f64, smoothing: f64) -> hone_nn::Result<Tensor> {
    let logits = ((policy - reference)? * beta)?;
    let kept = (loss::log_sigmoid(&logits)? * -(1.0 - smoothing))?;
    Ok((kept - (loss::log_sigmoid(&logits.neg()?)? * smoothing)?)?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let Dpo { beta, label_smoothing, training } = settings("dpo", job.settings)?;
    let mut policy = job.policy;
    let examples =
        Examples::from_records(&policy, job.records, Shape::Pairs, training.tokens_for(&policy.model))?;
    Error::expect_examples("dpo", "pairs", &examples, job.records)?;
    let reference = seq_logps(&policy.model, &examples.items, &Want::default())?;
    let want = Want::default();
    policy.model = descend(policy.model, &examples, &training, job.seed, &job.session, &want, |part| {
        let (chosen, rejected) = chosen_rejected(&part.seq_logps()?)?;
        let (ref_chosen, ref_rejected) = chosen_rejected(&part.known(&reference)?)?;
        let losses =
            dpo_loss(&(&chosen - &rejected)?, &(&ref_chosen - &ref_rejected)?, beta, label_smoothing)?;
        let rewards = |now: Tensor, then: Tensor| -> hone_nn::Result<Tensor> { Ok(((now - then)? * beta)?) };
        let metrics = reward_metrics(part, &rewards(chosen, ref_chosen)?, &rewards(rejected, ref_rejected)?)?;
        Ok(Loss { value: (losses.sum_all()? / part.step_examples as f64)?, metrics })
    })?;
    Ok(Product::Policy(policy))
}

fn orders_better(seed: u64) -> Result<f64> {
    bench::order_over_imitation(seed, run, "beta = 0.1")
}

#[cfg(test)]
mod tests {
    use std::f64::consts::LN_2;

    use super::*;

    #[test]
    fn by_hand() {
        // Unmoved: softplus(0) = ln 2 = 0.69315. Ratio 3 against 1 at β 0.5: softplus(−1) = 0.31326.
        let (policy, reference) = (bench::tensor(&[2.0, 3.0]), bench::tensor(&[2.0, 1.0]));
        let losses = dpo_loss(&policy, &reference, 0.5, 0.0).unwrap();
        bench::assert_close(&losses, &[LN_2, 0.31326]);
        // A tenth swapped: 0.9 · 0.31326 + 0.1 · softplus(1) = 0.28193 + 0.13133.
        bench::assert_close(&dpo_loss(&policy, &reference, 0.5, 0.1).unwrap(), &[LN_2, 0.41326]);
    }

    #[test]
    fn claim_orders_better_than_imitation() {
        bench::assert_holds(orders_better, 10);
    }
}
