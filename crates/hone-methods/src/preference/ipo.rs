//! Identity preference optimisation.

use candle_core::Tensor;
use hone_feedback::convert::Shape;
use hone_nn::{Loss, Want};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::data::Examples;
use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, settings};
use crate::preference::{dpo, reward_metrics};
use crate::train::{Training, chosen_rejected, descend, seq_logps};

method! {
    /// Learn from pairs towards a fixed margin, so that certain preferences do not push without end.
    /// # What it does
    /// Squares the distance between the log-ratio of chosen over rejected, relative to the policy's start, and
    /// `1 / (2 τ)`. With `per_token` every log-probability is the mean over the response's tokens, as later
    /// implementations have it.
    /// # Feedback
    /// Pairs: comparisons, rankings, ratings or thumbs on two responses of one prompt, edits.
    /// # Departs from the paper
    /// AdamW on a language model, where the paper shows bandits; learning rate and batch are DPO's.
    /// # Claim
    /// On pairs without doubt, training on leaves its margin near `1 / (2 τ)` where DPO's runs away
    /// (`claim_margin_stays`).
    /// # Source
    /// Azar et al., AISTATS 2024, arXiv:2310.12036, equation 17.
    pub static IPO: Method = Method {
        id: "ipo", name: "IPO", family: Family::Preference, needs: Needs::Shape(Shape::Pairs), makes: Makes::Policy, settings: Ipo,
        claims: &[Claim {
            name: "claim_margin_stays",
            says: "After many passes over few certain pairs, the mean margin lies nearer to 1 / (2 τ) than DPO's.",
            metric: "nearness of the mean training margin to 1 / (2 τ): minus the distance, nats",
            baseline: "DPO with β = τ, same pairs, same steps",
            effect: margin_stays,
        }],
        run,
    };
}

/// Settings of IPO.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ipo {
    /// Strength τ of the pull to the reference. Per nat, above 0. The paper sweeps it; 0.1 is one value of its sweep.
    pub tau: f64,
    /// Means over tokens instead of sums. Paper: sums.
    pub per_token: bool,
    /// The descent.
    pub training: Training,
}

impl Default for Ipo {
    fn default() -> Ipo {
        Ipo { tau: 0.1, per_token: false, training: dpo::Dpo::default().training }
    }
}

impl Settings for Ipo {
    fn check(&self) -> Result<()> {
        above_zero("ipo", "tau", self.tau)?;
        self.training.check("ipo")
    }
}

/// `[P]` losses in nats squared from `[P]` log-ratios, chosen over rejected, of policy and reference.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn ipo_loss(policy: &Tensor, reference: &Tensor, tau: f64) -> hone_nn::Result<Tensor> {
    Ok(((policy - reference)? - 0.5 / tau)?.sqr()?)
}

fn run(job: Job<'_>) -> Result<Product> {
    let Ipo { tau, per_token, training } = settings("ipo", job.settings)?;
    let mut policy = job.policy;
    let examples =
        Examples::from_records(&policy, job.records, Shape::Pairs, training.tokens_for(&policy.model))?;
    Error::expect_examples("ipo", "pairs", &examples, job.records)?;
    let mut reference = seq_logps(&policy.model, &examples.items, &Want::default())?;
    if per_token {
        for (row, example) in reference.iter_mut().zip(&examples.items) {
            row.iter_mut().zip(&example.sequences).for_each(|(logp, s)| *logp /= s.targets().max(1) as f32);
        }
    }
    let want = Want::default();
    policy.model = descend(policy.model, &examples, &training, job.seed, &job.session, &want, |part| {
        let logps = if per_token { part.mean_logps()? } else { part.seq_logps()? };
        let (chosen, rejected) = chosen_rejected(&logps)?;
        let (ref_chosen, ref_rejected) = chosen_rejected(&part.known(&reference)?)?;
        let losses = ipo_loss(&(&chosen - &rejected)?, &(&ref_chosen - &ref_rejected)?, tau)?;
        let rewards = |now: Tensor, then: Tensor| -> hone_nn::Result<Tensor> { Ok(((now - then)? * tau)?) };
        let metrics = reward_metrics(part, &rewards(chosen, ref_chosen)?, &rewards(rejected, ref_rejected)?)?;
        Ok(Loss { value: (losses.sum_all()? / part.step_examples as f64)?, metrics })
    })?;
    Ok(Product::Policy(policy))
}

fn margin_stays(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let train = bench.pairs(32, "train");
    let start = bench.policy()?;
    let pairs = Examples::from_records(&start, &train, Shape::Pairs, 64)?.items;
    let distance = |own: &str, run: fn(Job<'_>) -> Result<Product>| -> Result<f64> {
        let settings = bench::quick(&format!("{own}\n[training]\nepochs = 30.0"))?;
        let after = run(bench.job(&train, &settings)?)?.policy()?;
        let margin = hone_feedback::metrics::mean(&bench::margins(&start, &after, &pairs)?);
        Ok((margin - 0.5 / 0.1).abs())
    };
    Ok(distance("beta = 0.1", dpo::DPO.run)? - distance("tau = 0.1", run)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // τ 0.25 aims at 2. Ratios moved by 0 and 3: (0 − 2)² = 4 and (3 − 2)² = 1.
        let losses = ipo_loss(&bench::tensor(&[1.0, 4.0]), &bench::tensor(&[1.0, 1.0]), 0.25).unwrap();
        bench::assert_close(&losses, &[4.0, 1.0]);
    }

    #[test]
    fn claim_margin_stays() {
        bench::assert_holds(margin_stays, 5);
    }
}
