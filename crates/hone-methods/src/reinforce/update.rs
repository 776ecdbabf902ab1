//! The update of proximal policy optimisation on rewards per token: advantages from a value head, a clipped surrogate, a
//! clipped value loss, several passes over the same answers.

use hone_feedback::metrics::mean;
use hone_nn::loss::{scalar, weighted_sum};
use hone_nn::{Loss, Model, Want};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{Job, above_zero, not_negative};
use crate::policy::Policy;
use crate::refine::Draw;
use crate::reinforce::clip::{Clipping, surrogate};
use crate::reinforce::gae::{gae, whiten};
use crate::reinforce::{Part, Reuse, Rollout, Rule, Sampling, Step, learn, value};
use crate::train::Training;

/// Settings of the update. Defaults are TRL's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// What is done with a ratio that has left its range.
    pub clipping: Clipping,
    /// How far a ratio may fall below 1 and still gain, in (0, 1).
    pub clip_low: f64,
    /// How far it may rise above 1, above 0.
    pub clip_high: f64,
    /// Ratio at which the loss of a bad token is cut, above 1; for `clipping = "dual"`.
    pub clip_dual: f64,
    /// How far a value may move from that at sampling, above 0; 0 does not clip.
    pub value_clip: f64,
    /// Weight of the value loss, at least 0.
    pub value_weight: f64,
    /// Discount γ per token, in [0, 1].
    pub gamma: f64,
    /// λ of the advantages, in [0, 1].
    pub lambda: f64,
    /// Give the advantages of an iteration a mean of 0 and a variance of 1.
    pub whiten: bool,
    /// Mean ratio of an answer above which it is left out of a step; 0 leaves none out.
    pub ratio_limit: f64,
    /// Passes over the answers of an iteration, at least 1.
    pub epochs_per_batch: usize,
    /// Optimiser steps per pass, at least 1.
    pub minibatches: usize,
}

impl Default for Update {
    fn default() -> Update {
        Update {
            clipping: Clipping::Token,
            clip_low: 0.2,
            clip_high: 0.2,
            clip_dual: 3.0,
            value_clip: 0.2,
            value_weight: 0.1,
            gamma: 1.0,
            lambda: 0.95,
            whiten: true,
            ratio_limit: 0.0,
            epochs_per_batch: 4,
            minibatches: 1,
        }
    }
}

/// What an iteration's answers have earned.
#[derive(Debug, Clone, Default)]
pub struct Credit {
    /// `[rollouts][T]`: advantages, whitened if so set.
    pub advantages: Vec<Vec<f32>>,
    /// `[rollouts][T]`: what values should have been.
    pub returns: Vec<Vec<f32>>,
    /// `[rollouts][T]`: what they were.
    pub values: Vec<Vec<f32>>,
    /// `[rollouts][T]`: which tokens take part; all if there are none.
    pub masks: Option<Vec<Vec<bool>>>,
    /// What is worth reporting of the iteration.
    pub said: Vec<(&'static str, f64)>,
}

impl Update {
    /// Refuses what is outside the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Range`].
    pub fn check(&self, method: &str) -> Result<()> {
        let key = |name: &str| format!("update.{name}");
        let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::range(method, &key(name), "a number in [0, 1]", value)),
        };
        if !(self.clip_low > 0.0 && self.clip_low < 1.0) {
            return Err(Error::range(method, &key("clip_low"), "a number in (0, 1)", self.clip_low));
        }
        above_zero(method, &key("clip_high"), self.clip_high)?;
        if !(self.clip_dual > 1.0 && self.clip_dual.is_finite()) {
            return Err(Error::range(method, &key("clip_dual"), "a number above 1", self.clip_dual));
        }
        not_negative(method, &key("value_clip"), self.value_clip)?;
        not_negative(method, &key("value_weight"), self.value_weight)?;
        not_negative(method, &key("ratio_limit"), self.ratio_limit)?;
        share("gamma", self.gamma)?;
        share("lambda", self.lambda)?;
        for (name, value) in [("epochs_per_batch", self.epochs_per_batch), ("minibatches", self.minibatches)]
        {
            if value == 0 {
                return Err(Error::range(method, &key(name), "at least 1", 0));
            }
        }
        Ok(())
    }

    /// What `rollouts` have earned, from `[rollouts][T]` rewards and the values that `current` gives them. Tokens that are
    /// false in `masks` take no part, and no credit goes past them.
    ///
    /// # Errors
    /// Those of the engine; a model without a value head.
    pub fn credit(
        &self,
        current: &Model,
        rollouts: &[Rollout],
        rewards: &[Vec<f32>],
        masks: Option<Vec<Vec<bool>>>,
    ) -> Result<Credit> {
        let values = value::of_rollouts(current, rollouts)?;
        let (mut advantages, mut returns) = (vec![], vec![]);
        for (at, (rewards, values)) in rewards.iter().zip(&values).enumerate() {
            let mask = masks.as_ref().and_then(|masks| masks.get(at)).map(Vec::as_slice);
            let (of_one, earned) = gae(rewards, values, mask, self.gamma, self.lambda);
            advantages.push(of_one);
            returns.push(earned);
        }
        if self.whiten {
            whiten(&mut advantages, masks.as_deref(), true);
        }
        let all = |rows: &[Vec<f32>]| mean(&rows.iter().flatten().map(|&x| f64::from(x)).collect::<Vec<_>>());
        let said = vec![("value", all(&values)), ("return", all(&returns))];
        Ok(Credit { advantages, returns, values, masks, said })
    }

    /// What is wanted of the policy at each step.
    pub fn want(&self, draw: &Draw) -> Want {
        Want { temperature: draw.temperature as f32, scores: true, ..Want::default() }
    }

    /// The loss of one part: a mean over the tokens of the step that take part.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn loss(&self, part: &Part<'_>, credit: &Credit, step: &Step) -> hone_nn::Result<Loss> {
        let (logps, old) = (&part.outputs.logps, part.old_logps()?);
        let count = credit.tokens(step).max(1) as f64;
        let weights = self.weights(part, credit, &(logps - &old)?.to_vec1::<f32>()?);
        let advantages = part.tensor(part.gather(&credit.advantages))?;
        let range = (self.clip_low, self.clip_high, self.clip_dual);
        let policy = surrogate(self.clipping, logps, &old, &advantages, part.batch, range)?;
        let policy = weighted_sum(&policy, &weights, count)?;
        let values = value::of_targets(part.batch, part.outputs)?;
        let (before, returns) =
            (part.tensor(part.gather(&credit.values))?, part.tensor(part.gather(&credit.returns))?);
        let error = value::clipped_loss(&values, &before, &returns, self.value_clip)?;
        let error = weighted_sum(&error, &weights, count)?;
        let mut metrics = vec![
            ("policy_loss", scalar(&policy)?),
            ("value_loss", scalar(&error)?),
            ("clip_ratio", self.clipped(&(logps - &old)?.to_vec1::<f32>()?, &weights) / count),
        ];
        if step.places.first().is_some_and(|first| part.indices.contains(first)) {
            metrics.extend(&credit.said);
        }
        Ok(Loss { value: (policy + (error * self.value_weight)?)?, metrics })
    }

    /// `[M]`: 1 for tokens that take part, from `[M]` logarithms of ratios.
    fn weights(&self, part: &Part<'_>, credit: &Credit, moved: &[f32]) -> Vec<f32> {
        let mut weights = vec![];
        for (at, &index) in part.indices.iter().enumerate() {
            let moved = moved.get(part.batch.target_range(at)).unwrap_or_default();
            let kept = |token: usize| credit.keeps(index, token);
            let ratios: Vec<f64> = moved
                .iter()
                .enumerate()
                .filter(|(at, _)| kept(*at))
                .map(|(_, x)| f64::from(*x).exp())
                .collect();
            // Samples that no longer say anything of this policy would bring large steps.
            let strayed = self.ratio_limit > 0.0 && mean(&ratios) > self.ratio_limit;
            weights.extend((0..moved.len()).map(|token| f32::from(u8::from(kept(token) && !strayed))));
        }
        weights
    }

    /// How many tokens that take part have left the range in which they gain.
    fn clipped(&self, moved: &[f32], weights: &[f32]) -> f64 {
        let outside = |(moved, weight): (&f32, &f32)| {
            let ratio = f64::from(*moved).exp();
            *weight > 0.0 && (ratio < 1.0 - self.clip_low || ratio > 1.0 + self.clip_high)
        };
        moved.iter().zip(weights).filter(|&pair| outside(pair)).count() as f64
    }
}

impl Credit {
    fn keeps(&self, rollout: usize, token: usize) -> bool {
        let mask = self.masks.as_ref().and_then(|masks| masks.get(rollout));
        mask.and_then(|mask| mask.get(token)).copied().unwrap_or(true)
    }

    /// Tokens of the step that take part.
    fn tokens(&self, step: &Step) -> usize {
        let of = |masks: &Vec<Vec<bool>>| {
            let rows = step.places.iter().filter_map(|&place| masks.get(place));
            rows.flatten().filter(|&&kept| kept).count()
        };
        self.masks.as_ref().map_or(step.tokens, of)
    }
}

/// [`learn`] with a value head on the policy, which comes off at the end.
///
/// # Errors
/// As [`learn`].
pub fn learn_with_values<R: Rule>(
    method: &str,
    mut job: Job<'_>,
    sampling: Sampling<'_>,
    training: &Training,
    update: &Update,
    rule: &R,
) -> Result<Policy> {
    job.policy.model = value::with_head(&job.policy.model, job.seed)?;
    let reuse = Reuse { epochs: update.epochs_per_batch, minibatches: update.minibatches };
    let mut policy = learn(method, job, sampling, training, reuse, rule)?;
    policy.model = value::without_head(&policy.model)?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use hone_nn::{Batch, Network};

    use super::*;
    use crate::bench::Bench;
    use crate::policy::Sequence;
    use crate::reinforce::token_logps;

    /// A policy with a value head, and two answers as it would have sampled them.
    fn setting() -> (Model, Vec<Rollout>) {
        let model = value::with_head(&Bench::new(1).unwrap().policy().unwrap().model, 1).unwrap();
        let of = |answer: &[u32]| Rollout {
            record: 0,
            group: 0,
            sequence: Sequence::of_tokens(&[2, 5], answer),
            logps: vec![0.0; answer.len()],
            reward: 0.0,
            ended: true,
        };
        let mut rollouts = vec![of(&[4, 6, 1]), of(&[7, 1])];
        let logps = token_logps(&model, &rollouts, &Draw::default()).unwrap();
        rollouts.iter_mut().zip(logps).for_each(|(rollout, logps)| rollout.logps = logps);
        (model, rollouts)
    }

    fn loss(update: &Update, model: &Model, rollouts: &[Rollout], credit: &Credit) -> Loss {
        let mut batch = Batch::new();
        for rollout in rollouts {
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask).unwrap();
        }
        let outputs = model.evaluate(&batch, &update.want(&Draw::default())).unwrap();
        let part =
            Part { rollouts: rollouts.iter().collect(), indices: &[0, 1], batch: &batch, outputs: &outputs };
        update.loss(&part, credit, &Step { rollouts: 2, tokens: 5, places: vec![1, 0] }).unwrap()
    }

    #[test]
    fn on_what_was_just_sampled_the_loss_is_known() {
        let (model, rollouts) = setting();
        let update = Update { whiten: false, ..Update::default() };
        let masks = Some(vec![vec![true, false, true], vec![true, true]]);
        let rewards = [vec![1.0, 0.0, -1.0], vec![0.0, 0.5]];
        let credit = update.credit(&model, &rollouts, &rewards, masks).unwrap();
        // Ratios are 1 and values where they were: minus the mean advantage, and a tenth of half the mean square of it,
        // over the four tokens that take part. Returns less values are the advantages.
        let kept: Vec<f64> = credit.advantages.concat().iter().map(|&x| f64::from(x)).collect();
        assert_eq!(kept[1], 0.0);
        let (sum, squares) = (kept.iter().sum::<f64>(), kept.iter().map(|x| x * x).sum::<f64>());
        let got = scalar(&loss(&update, &model, &rollouts, &credit).value).unwrap();
        assert!((got - (-sum / 4.0 + 0.1 * 0.5 * squares / 4.0)).abs() < 1e-5, "{got}");
    }

    #[test]
    fn answers_that_strayed_are_left_out() {
        let (model, mut rollouts) = setting();
        let update = Update { whiten: false, value_weight: 0.0, ratio_limit: 10.0, ..Update::default() };
        let credit = update.credit(&model, &rollouts, &[vec![1.0; 3], vec![1.0; 2]], None).unwrap();
        // The first answer is now e^3 times as likely per token as when it was sampled.
        rollouts[0].logps.iter_mut().for_each(|logp| *logp -= 3.0);
        let rest: f32 = credit.advantages[1].iter().sum();
        let got = scalar(&loss(&update, &model, &rollouts, &credit).value).unwrap();
        assert!((got + f64::from(rest) / 5.0).abs() < 1e-5, "{got}");
    }

    #[test]
    fn settings_outside_their_ranges_are_refused() {
        let refused = |update: Update| update.check("ppo").unwrap_err().to_string();
        assert!(refused(Update { lambda: 1.5, ..Update::default() }).contains("`update.lambda`"));
        assert!(refused(Update { clip_dual: 1.0, ..Update::default() }).contains("above 1"));
        assert!(refused(Update { minibatches: 0, ..Update::default() }).contains("`update.minibatches`"));
        Update::default().check("ppo").unwrap();
    }
}
