//! What multiplies the negative log-likelihood of an answer.

use hone_nn::{Model, Network, Want};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::ALol;
use super::logged::Logged;
use crate::data::Example;
use crate::error::Result;
use crate::train::batch_of;

/// What multiplies the negative log-likelihood of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Advantage and the clipped ratio of the whole answer.
    ALol,
    /// Advantage.
    RefFree,
    /// Advantage and each token's clipped ratio.
    Seq,
    /// Advantage; the log-ratio is added.
    Kl,
    /// 1.
    Nll,
    /// Reward.
    Wbc,
    /// Reward and each token's probability, at least 0.1.
    RGold,
    /// Reward and the clipped ratio of the whole answer.
    RLol,
}

impl Objective {
    /// Whether it weighs by advantage.
    pub fn takes_advantage(self) -> bool {
        matches!(self, Objective::ALol | Objective::RefFree | Objective::Seq | Objective::Kl)
    }
}

/// `[T]`: what each token's negative log-probability is multiplied by, no gradient in it.
///
/// `scale` is the answer's advantage, clamped at 0, or its reward; `logps` and `reference` are `[T]`, in nats.
pub fn token_weights(own: &ALol, scale: f64, logps: &[f32], reference: &[f32]) -> Vec<f64> {
    let clip = |log_ratio: f64| log_ratio.exp().clamp(1.0 - own.clip, 1.0 + own.clip);
    let gaps = || logps.iter().zip(reference).map(|(now, then)| f64::from(*now) - f64::from(*then));
    match own.objective {
        // The log-ratio is what adds: β log π is −β times the negative log-likelihood.
        Objective::Kl => vec![scale - own.kl_weight; logps.len()],
        Objective::ALol | Objective::RLol => vec![scale * clip(gaps().sum()); logps.len()],
        Objective::Seq => gaps().map(|gap| scale * clip(gap)).collect(),
        Objective::RefFree | Objective::Wbc => vec![scale; logps.len()],
        Objective::RGold => logps.iter().map(|logp| scale * f64::from(*logp).exp().max(0.1)).collect(),
        Objective::Nll => vec![1.0; logps.len()],
    }
}

/// Log-probabilities of the reference, and what multiplies each answer.
#[derive(Debug)]
pub(super) struct Against {
    /// `[examples][T]`.
    pub(super) reference: Vec<Vec<f32>>,
    /// `[examples]`.
    pub(super) scales: Vec<f64>,
    /// `[examples]`, running sums of what answers are drawn in proportion to.
    pub(super) chances: Vec<f64>,
    /// Mean reward of the reference's greedy answers.
    pub(super) reward: f64,
}

impl Against {
    /// What the log is worth to a reference.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn new(
        model: &Model,
        train: &Logged,
        advantages: &[f64],
        own: &ALol,
        reward: f64,
    ) -> Result<Against> {
        let scales: Vec<f64> = match own.objective {
            Objective::Nll => vec![1.0; advantages.len()],
            objective if objective.takes_advantage() => advantages.iter().map(|a| a.max(0.0)).collect(),
            _ => train.rewards.clone(),
        };
        let reference = token_logps(model, &train.examples.items)?;
        let all = own.keep_negative || !own.objective.takes_advantage();
        let mut sum = 0.0;
        let chances = scales
            .iter()
            .map(|&scale| {
                sum += match (own.priority, all) {
                    (true, _) => scale,
                    (false, true) => 1.0,
                    (false, false) => f64::from(u8::from(scale > 0.0)),
                };
                sum
            })
            .collect();
        Ok(Against { reference, scales, chances, reward })
    }

    /// So many answers; one stands twice only if there are too few that can be drawn.
    pub(super) fn draw(&self, count: usize, rng: &mut impl Rng) -> Vec<usize> {
        let total = self.chances.last().copied().unwrap_or(0.0);
        let mut taken: Vec<usize> = vec![];
        let mut tries = 0;
        while taken.len() < count {
            let drawn = rng.random::<f64>() * total;
            let at = self.chances.partition_point(|&sum| sum <= drawn);
            tries += 1;
            if at < self.chances.len() && (!taken.contains(&at) || tries > 20 * count) {
                taken.push(at);
            }
        }
        taken
    }
}

/// `[examples][T]`: log-probability of every answer token, in nats.
fn token_logps(model: &Model, examples: &[Example]) -> Result<Vec<Vec<f32>>> {
    let mut rows = vec![];
    for chunk in examples.chunks(64) {
        let batch = batch_of(model, chunk)?;
        let logps: Vec<f32> =
            model.evaluate(&batch, &Want::default())?.logps.to_vec1().map_err(hone_nn::Error::from)?;
        rows.extend((0..batch.len()).map(|at| logps[batch.target_range(at)].to_vec()));
    }
    Ok(rows)
}
