//! How far a policy has moved from its reference, per token, as plain numbers for rewards; and the weight of that.

use std::collections::BTreeMap;

use hone_feedback::metrics::mean;
use hone_nn::loss::{Kl, full_kl};
use hone_nn::{Batch, Model, Network, Want};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{above_zero, not_negative};
use crate::refine::Draw;
use crate::reinforce::{Rollout, token_logps};

/// How KL(π ‖ π_ref) of one token is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// `log π − log π_ref` of the sampled token: unbiased, of either sign.
    K1,
    /// Half its square: biased, never negative.
    K2,
    /// `exp(−k1) − 1 + k1`: unbiased, never negative.
    K3,
    /// The exact divergence of the whole next-token distribution. Needs a pass of both models over all `V` tokens.
    Full,
}

impl Estimator {
    /// `[rollouts][T]`: one number per answer token, in nats, without gradient.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn per_token(
        self,
        current: &Model,
        reference: &Model,
        rollouts: &[Rollout],
        draw: &Draw,
    ) -> Result<Vec<Vec<f32>>> {
        let sampled = match self {
            Estimator::K1 => Kl::K1,
            Estimator::K2 => Kl::K2,
            Estimator::K3 => Kl::K3,
            Estimator::Full => return full(current, reference, rollouts, draw),
        };
        let then = token_logps(reference, rollouts, draw)?;
        let of_one = |(rollout, then): (&Rollout, Vec<f32>)| from_logps(sampled, &rollout.logps, &then);
        rollouts.iter().zip(then).map(of_one).collect()
    }
}

/// `[T]` estimates from `[T]` log-probabilities under the policy and under the reference, in nats.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn from_logps(estimator: Kl, logps: &[f32], reference: &[f32]) -> Result<Vec<f32>> {
    let tensor = |values: &[f32]| candle_core::Tensor::new(values, &candle_core::Device::Cpu);
    let of = || Ok(estimator.estimate(&tensor(logps)?, &tensor(reference)?)?.to_vec1()?);
    of().map_err(|error: hone_nn::Error| error.into())
}

/// Numbers of all distributions that are held at once.
const HELD: usize = 1 << 22;

fn full(current: &Model, reference: &Model, rollouts: &[Rollout], draw: &Draw) -> Result<Vec<Vec<f32>>> {
    let want = Want { temperature: draw.temperature as f32, distributions: true, ..Want::default() };
    let vocabulary = current.config().vocab_size.max(1);
    let mut rows = Vec::with_capacity(rollouts.len());
    let mut rest = rollouts;
    while !rest.is_empty() {
        let mut batch = Batch::new();
        let mut taken = 0;
        for rollout in rest {
            if taken > 0 && (batch.targets().len() + rollout.logps.len()) * vocabulary > HELD {
                break;
            }
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask)?;
            taken += 1;
        }
        let whole = |model: &Model| -> Result<candle_core::Tensor> {
            let outputs = model.evaluate(&batch, &want)?;
            let missing = || hone_nn::Error::argument("model", "a language head", "none");
            Ok(outputs.distributions.ok_or_else(missing)?)
        };
        let kl = full_kl(&whole(current)?, &whole(reference)?)?;
        let kl: Vec<f32> = kl.to_vec1().map_err(hone_nn::Error::from)?;
        rows.extend((0..taken).map(|at| kl[batch.target_range(at)].to_vec()));
        rest = &rest[taken..];
    }
    Ok(rows)
}

/// The weight of a divergence: fixed, or led towards a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Penalty {
    /// Weight β at the start, at least 0.
    pub weight: f64,
    /// How the divergence of a token is found.
    pub estimator: Estimator,
    /// Divergence per answer that β is led towards, in nats; 0 keeps β fixed.
    pub target: f64,
    /// Answers over which β may change by a factor of about `e^0.2`, above 0.
    pub horizon: f64,
}

/// Key of an adapted weight, in a checkpoint.
const WEIGHT: &str = "kl_weight";

impl Penalty {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self, method: &str) -> Result<()> {
        not_negative(method, "kl.weight", self.weight)?;
        not_negative(method, "kl.target", self.target)?;
        above_zero(method, "kl.horizon", self.horizon)
    }

    /// β now, where `kept` is what a run keeps between iterations.
    pub fn now(&self, kept: &BTreeMap<String, serde_json::Value>) -> f64 {
        kept.get(WEIGHT).and_then(|value| value.as_f64()).unwrap_or(self.weight)
    }

    /// Leads β by what was measured on the answers of an iteration: `kl` is `[answers][T]`, in nats. With
    /// `e = clip(mean over answers / target − 1, −0.2, 0.2)`, β becomes `β (1 + e · answers / horizon)` (Ziegler et al.,
    /// arXiv:1909.08593, section 2.2).
    pub fn adapt(&self, kept: &mut BTreeMap<String, serde_json::Value>, kl: &[Vec<f32>]) {
        if self.target > 0.0 && !kl.is_empty() {
            let error = (per_answer(kl) / self.target - 1.0).clamp(-0.2, 0.2);
            let weight = self.now(kept) * (1.0 + error * kl.len() as f64 / self.horizon);
            kept.insert(WEIGHT.into(), weight.into());
        }
    }
}

/// Mean over answers of the divergence summed over tokens, in nats.
pub fn per_answer(kl: &[Vec<f32>]) -> f64 {
    mean(&kl.iter().map(|one| one.iter().map(|&x| f64::from(x)).sum()).collect::<Vec<f64>>())
}

/// `[T]` rewards: minus `weight` times the divergence of each token, and `terminal` on the last.
///
/// # Errors
/// [`Error::Data`] for an answer without a token.
pub fn token_rewards(method: &str, terminal: f64, kl: &[f32], weight: f64) -> Result<Vec<f32>> {
    let mut rewards: Vec<f32> = kl.iter().map(|&kl| -(weight as f32) * kl).collect();
    let empty = || Error::Data {
        method: method.into(),
        needed: "answers of a token or more".into(),
        got: "none".into(),
    };
    *rewards.last_mut().ok_or_else(empty)? += terminal as f32;
    Ok(rewards)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Bench, assert_near as close};
    use crate::policy::Sequence;

    #[test]
    fn estimates_by_hand() {
        // log π − log π_ref = 1 and −½. k2: ½, ⅛. k3: e^−1 − 1 + 1 = 0.36788, e^½ − 1 − ½ = 0.14872.
        let (now, then) = ([-1.0, -2.0], [-2.0, -1.5]);
        close(&from_logps(Kl::K1, &now, &then).unwrap(), &[1.0, -0.5]);
        close(&from_logps(Kl::K2, &now, &then).unwrap(), &[0.5, 0.125]);
        close(&from_logps(Kl::K3, &now, &then).unwrap(), &[0.36788, 0.14872]);
        assert!(from_logps(Kl::K1, &now, &then[..1]).is_err());
    }

    #[test]
    fn the_full_divergence_is_the_mean_of_the_sampled_ones() {
        let bench = Bench::new(1).unwrap();
        let (reference, mut current) = (bench.policy().unwrap().model, bench.policy().unwrap().model);
        current.params.data.iter_mut().for_each(|weight| *weight *= 1.1);
        // Every token in turn after one prompt: weighting k1 and k3 by π gives the divergence itself.
        let vocabulary = current.config().vocab_size as u32;
        let mut rollouts: Vec<Rollout> = (0..vocabulary)
            .map(|token| Rollout {
                record: 0,
                group: 0,
                sequence: Sequence::of_tokens(&[2, 5], &[token]),
                logps: vec![],
                reward: 0.0,
                ended: true,
            })
            .collect();
        let draw = Draw { temperature: 0.7, ..Draw::default() };
        let logps = token_logps(&current, &rollouts, &draw).unwrap();
        rollouts.iter_mut().zip(logps).for_each(|(rollout, logps)| rollout.logps = logps);
        let of = |estimator: Estimator| estimator.per_token(&current, &reference, &rollouts, &draw).unwrap();
        let weighted = |values: &[Vec<f32>]| -> f32 {
            values.iter().zip(&rollouts).map(|(value, rollout)| value[0] * rollout.logps[0].exp()).sum()
        };
        let full = of(Estimator::Full);
        assert!(full[0][0] > 1e-3, "{full:?}");
        // One state: the same for every token.
        assert!(full.iter().all(|one| (one[0] - full[0][0]).abs() < 1e-6));
        close(&[weighted(&of(Estimator::K1)), weighted(&of(Estimator::K3))], &[full[0][0]; 2]);
    }

    #[test]
    fn the_weight_is_led_to_its_target() {
        let mut kept = BTreeMap::new();
        let penalty = Penalty { weight: 0.2, estimator: Estimator::K1, target: 6.0, horizon: 10.0 };
        // Answers of 6 and 7.2 nats: 6.6 / 6 − 1 = 0.1, times 2 / 10 answers: 0.2 · 1.02.
        penalty.adapt(&mut kept, &[vec![2.0, 4.0], vec![7.2]]);
        assert!((penalty.now(&kept) - 0.204).abs() < 1e-7);
        // Far below: cut at −0.2, 0.204 · (1 − 0.2 · 0.1).
        penalty.adapt(&mut kept, &[vec![0.0]]);
        assert!((penalty.now(&kept) - 0.19992).abs() < 1e-7);
        let fixed = Penalty { target: 0.0, ..penalty };
        let mut kept = BTreeMap::new();
        fixed.adapt(&mut kept, &[vec![9.0]]);
        assert_eq!(fixed.now(&kept), 0.2);
    }

    #[test]
    fn the_terminal_reward_is_on_the_last_token() {
        close(&token_rewards("ppo", 1.0, &[0.5, -0.2, 0.0], 0.1).unwrap(), &[-0.05, 0.02, 1.0]);
        assert!(token_rewards("ppo", 1.0, &[], 0.1).is_err());
    }
}
