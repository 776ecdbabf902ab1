//! REINFORCE leave-one-out.

use candle_core::Tensor;
use hone_nn::Loss;
use hone_nn::loss::{seq_logps, sum_sequences, weighted_sum};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::refine::Draw;
use crate::reinforce::grpo::over_no_baseline;
use crate::reinforce::{
    Look, Part, Reuse, Rollout, Rule, Sampling, Step, check_draw, learn, leave_one_out_advantages,
    token_logps,
};
use crate::train::{Decay, Training};

method! {
    /// Plain policy gradient on whole answers, each measured against the others to its prompt.
    /// # What it does
    /// An answer is one action. Its reward, less `kl_weight` times how far its log-probability has moved from the start's,
    /// less the mean of the other answers' to the same prompt, multiplies the gradient of its log-probability. One answer
    /// per prompt and a mean over the batch instead would be REINFORCE; `baseline = "none"` is that without any mean.
    /// # Feedback
    /// Prompts whose answers can be checked: an oracle, tests, or a reward model behind the same interface.
    /// # Departs from the paper
    /// One optimiser step per iteration by default, so that it stays on-policy; with more, sequences are weighted by
    /// their ratio without clipping. AdamW's learning rate is constant.
    /// # Claim
    /// The other answers as a baseline score higher than none, same samples (`claim_a_baseline_helps`).
    /// # Source
    /// Ahmadian et al., ACL 2024, arXiv:2402.14740, section 3; Kool et al., ICLR 2019 workshop.
    pub static RLOO: Method = Method {
        id: "rloo", name: "RLOO", family: Family::Reinforce, needs: Needs::Checks, makes: Makes::Policy, settings: Rloo,
        claims: &[Claim {
            name: "claim_a_baseline_helps",
            says: "Sampled answers to held-out prompts score higher with the leave-one-out baseline than with none.",
            metric: "mean score of answers to held-out prompts at temperature 1, in [0, 1]",
            baseline: "REINFORCE without a baseline, same prompts, samples and steps",
            effect: baseline_helps,
        }],
        run,
    };
}

/// What is taken off a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The mean of the other answers to the prompt.
    LeaveOneOut,
    /// Nothing.
    None,
}

/// Settings of RLOO. Defaults are the paper's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rloo {
    /// Answers per prompt, `k`, at least 2. Paper: 2 and 4.
    pub group_size: usize,
    /// Weight β of the divergence in the reward, at least 0. Paper: 0.03 to 0.1.
    pub kl_weight: f64,
    /// What is taken off a reward.
    pub baseline: Baseline,
    /// How answers are sampled. Paper: temperature 0.75.
    pub draw: Draw,
    /// The descent, counted in prompts. Paper: learning rate 1e-6.
    pub training: Training,
}

impl Default for Rloo {
    fn default() -> Rloo {
        let decay = Decay::Constant;
        let training =
            Training { learning_rate: 1e-6, batch_size: 128, warm_up: 0.0, decay, ..Training::default() };
        let draw = Draw { temperature: 0.75, max_tokens: 128, ..Draw::default() };
        Rloo { group_size: 4, kl_weight: 0.03, baseline: Baseline::LeaveOneOut, draw, training }
    }
}

impl Settings for Rloo {
    fn check(&self) -> Result<()> {
        if self.group_size < 2 {
            return Err(Error::range("rloo", "group_size", "at least 2", self.group_size));
        }
        not_negative("rloo", "kl_weight", self.kl_weight)?;
        check_draw("rloo", &self.draw)?;
        self.training.check("rloo")
    }
}

impl Rule for Rloo {
    type Context = Vec<f64>;

    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Vec<f64>> {
        if self.kl_weight > 0.0 {
            // The divergence belongs to the reward, so the baseline takes its mean off too.
            let then = token_logps(look.reference, rollouts, &self.draw)?;
            for (rollout, then) in rollouts.iter_mut().zip(then) {
                let moved: f64 =
                    rollout.logps.iter().zip(then).map(|(now, then)| f64::from(now - then)).sum();
                rollout.reward -= self.kl_weight * moved;
            }
        }
        Ok(match self.baseline {
            Baseline::LeaveOneOut => leave_one_out_advantages(rollouts),
            Baseline::None => rollouts.iter().map(|rollout| rollout.reward).collect(),
        })
    }

    fn loss(&self, part: &Part<'_>, advantages: &Vec<f64>, step: &Step) -> hone_nn::Result<Loss> {
        let logps = seq_logps(&part.outputs.logps, part.batch)?;
        let old = sum_sequences(&part.old_logps()?, part.batch)?;
        let weights: Vec<f32> = part.indices.iter().map(|&index| -advantages[index] as f32).collect();
        // The ratio has the gradient of the log-probability, and is 1 on what was just sampled.
        let ratio: Tensor = (logps - old)?.exp()?;
        Ok(Loss::from(weighted_sum(&ratio, &weights, step.rollouts as f64)?))
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Rloo = settings("rloo", job.settings)?;
    let max_tokens = own.training.tokens_for(&job.policy.model);
    let sampling = Sampling { group: own.group_size, draw: &own.draw, max_tokens };
    let once = Reuse { epochs: 1, minibatches: 1 };
    Ok(Product::Policy(learn("rloo", job, sampling, &own.training, once, &own)?))
}

fn baseline_helps(seed: u64) -> Result<f64> {
    over_no_baseline(seed, run, "leave_one_out")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench;

    #[test]
    fn divergence_is_part_of_the_reward() {
        let policy = bench::Bench::new(1).unwrap().policy().unwrap();
        let of = |reward| Rollout {
            record: 0,
            group: 0,
            sequence: crate::policy::Sequence::of_tokens(&[3], &[4, 1]),
            logps: vec![0.0; 2],
            reward,
            ended: true,
        };
        let mut rollouts = vec![of(1.0), of(0.0)];
        let draw = Draw::default();
        let then: f32 = token_logps(&policy.model, &rollouts, &draw).unwrap()[0].iter().sum();
        let rule = Rloo { kl_weight: 0.5, draw, ..Rloo::default() };
        let advantages = crate::reinforce::prepared(&rule, &policy.model, &mut rollouts).unwrap();
        // Both moved by −then, so the difference of rewards is still 1.
        assert!((rollouts[0].reward - (1.0 + 0.5 * f64::from(then))).abs() < 1e-5);
        assert!((advantages[0] - 1.0).abs() < 1e-9 && (advantages[1] + 1.0).abs() < 1e-9);
    }

    #[test]
    fn claim_a_baseline_helps() {
        bench::assert_holds(baseline_helps, 5);
    }
}
