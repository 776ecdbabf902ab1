//! Group relative policy optimisation.

use candle_core::Tensor;
use hone_feedback::metrics::mean;
use hone_nn::Loss;
use hone_nn::loss::{Kl, weighted_sum};
use serde::{Deserialize, Serialize};

use crate::bench;
use crate::error::{Error, Result};
use crate::imitate::rejection_sampling;
use crate::method::{Claim, Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::refine::{Draw, prompts, sample};
use crate::reinforce::{
    Look, Part, Reuse, Rollout, Rule, Sampling, Step, check_draw, clipped_surrogate, group_advantages, learn,
    token_logps,
};
use crate::train::{Decay, Training};

method! {
    /// Raise the answers that score above their group's mean, press down those below it, in small clipped steps.
    /// # What it does
    /// Samples a group of answers to each prompt; an answer's advantage is its reward less the group's mean, over the
    /// group's standard deviation. Every token takes a clipped step in proportion to it, and a penalty (the k3 estimate)
    /// holds the policy near its start. `normalise`, `scale_rewards`, `clip_high` and `drop_flat_groups` give the
    /// published corrections: Dr. GRPO is `constant` and no scaling; DAPO is `tokens`, `clip_high = 0.28`, flat groups
    /// dropped and `kl_weight = 0`.
    /// # Feedback
    /// Prompts whose answers can be checked: an oracle, tests, or a reward model behind the same interface.
    /// # Departs from the paper
    /// Log-probabilities at sampling are the engine's own, not those of a second pass. DAPO's dropped groups are not
    /// sampled again, so a step may be smaller, and its length penalty is left out. Answers longer than the settings allow
    /// are left out; those cut at the limit of tokens are trained on.
    /// # Claim
    /// From the same number of samples, scores higher than rejection sampling fine-tuning does
    /// (`claim_scores_above_rejection_sampling`).
    /// # Source
    /// Shao et al. (DeepSeekMath), arXiv:2402.03300, section 4; Liu et al. (Dr. GRPO), arXiv:2503.20783; Yu et al. (DAPO),
    /// arXiv:2503.14476.
    pub static GRPO: Method = Method {
        id: "grpo", name: "GRPO", family: Family::Reinforce, needs: Needs::Checks, makes: Makes::Policy, settings: Grpo,
        claims: &[Claim {
            name: "claim_scores_above_rejection_sampling",
            says: "Sampled answers to held-out prompts score higher after GRPO than after rejection sampling fine-tuning \
                   on as many samples.",
            metric: "mean score of answers to held-out prompts at temperature 1, in [0, 1]",
            baseline: "rejection sampling fine-tuning, best answer of each group, as many samples and prompts",
            effect: scores_higher,
        }],
        run,
    };
}

/// What a token's loss is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// The answer's length, then the number of answers: every answer weighs the same (GRPO).
    Answers,
    /// The tokens of the step: every token weighs the same (DAPO).
    Tokens,
    /// The number of answers times `draw.max_tokens`: nothing depends on the length (Dr. GRPO).
    Constant,
}

/// Settings of GRPO. Defaults are DeepSeekMath's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpo {
    /// Answers per prompt, `G`, at least 2. Paper: 64.
    pub group_size: usize,
    /// Weight β of the penalty, at least 0. Paper: 0.04.
    pub kl_weight: f64,
    /// How far a ratio may fall below 1 and still gain, in (0, 1). Paper: 0.2.
    pub clip_low: f64,
    /// How far it may rise above 1. Paper: 0.2; DAPO: 0.28.
    pub clip_high: f64,
    /// Divide advantages by the group's standard deviation.
    pub scale_rewards: bool,
    /// What a token's loss is divided by.
    pub normalise: Normalise,
    /// Leave out groups whose rewards are all equal.
    pub drop_flat_groups: bool,
    /// Passes over the samples of an iteration, at least 1. Paper: 1.
    pub epochs_per_batch: usize,
    /// Optimiser steps per pass, at least 1. Paper: 1.
    pub minibatches: usize,
    /// How answers are sampled.
    pub draw: Draw,
    /// The descent, counted in prompts. Paper: 16 prompts a step, learning rate 1e-6.
    pub training: Training,
}

impl Default for Grpo {
    fn default() -> Grpo {
        let decay = Decay::Constant;
        let training =
            Training { learning_rate: 1e-6, batch_size: 16, warm_up: 0.0, decay, ..Training::default() };
        Grpo {
            group_size: 64,
            kl_weight: 0.04,
            clip_low: 0.2,
            clip_high: 0.2,
            scale_rewards: true,
            normalise: Normalise::Answers,
            drop_flat_groups: false,
            epochs_per_batch: 1,
            minibatches: 1,
            draw: Draw { max_tokens: 1024, ..Draw::default() },
            training,
        }
    }
}

impl Settings for Grpo {
    fn check(&self) -> Result<()> {
        if self.group_size < 2 {
            return Err(Error::range("grpo", "group_size", "at least 2", self.group_size));
        }
        not_negative("grpo", "kl_weight", self.kl_weight)?;
        if !(self.clip_low > 0.0 && self.clip_low < 1.0) {
            return Err(Error::range("grpo", "clip_low", "a number in (0, 1)", self.clip_low));
        }
        crate::method::above_zero("grpo", "clip_high", self.clip_high)?;
        for (key, value) in [("epochs_per_batch", self.epochs_per_batch), ("minibatches", self.minibatches)] {
            if value == 0 {
                return Err(Error::range("grpo", key, "at least 1", 0));
            }
        }
        check_draw("grpo", &self.draw)?;
        self.training.check("grpo")
    }
}

/// Advantages, and the log-probabilities of the reference where there is a penalty.
#[derive(Debug)]
pub struct Context {
    /// `[rollouts]`
    pub advantages: Vec<f64>,
    /// `[rollouts][T]`, in nats; empty without a penalty.
    pub reference: Vec<Vec<f32>>,
}

impl Rule for Grpo {
    type Context = Context;

    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Context> {
        if self.drop_flat_groups {
            let flat: Vec<usize> = rollouts
                .chunk_by(|a, b| a.group == b.group)
                .filter(|group| group.iter().all(|r| r.reward == group[0].reward))
                .map(|group| group[0].group)
                .collect();
            rollouts.retain(|rollout| !flat.contains(&rollout.group));
        }
        let reference = match self.kl_weight > 0.0 {
            true => token_logps(look.reference, rollouts, &self.draw)?,
            false => vec![],
        };
        Ok(Context { advantages: group_advantages(rollouts, self.scale_rewards), reference })
    }

    fn loss(&self, part: &Part<'_>, context: &Context, step: &Step) -> hone_nn::Result<Loss> {
        let logps = &part.outputs.logps;
        let old = part.old_logps()?;
        let advantages = part.tensor(part.spread(|index| context.advantages[index]))?;
        let mut losses = clipped_surrogate(logps, &old, &advantages, self.clip_low, self.clip_high)?;
        let weights = self.weights(part, step);
        let mut metrics = vec![("clip_ratio", self.clipped(logps, &old)? / step.tokens as f64)];
        if self.kl_weight > 0.0 {
            let of = part.indices.iter().flat_map(|&index| context.reference[index].iter().copied());
            let kl = Kl::K3.estimate(logps, &part.tensor(of.collect())?)?;
            let sum = hone_nn::loss::scalar(&kl.sum_all()?)?;
            metrics.push(("kl", sum / step.tokens as f64));
            losses = (losses + (kl * self.kl_weight)?)?;
        }
        Ok(Loss { value: weighted_sum(&losses, &weights, 1.0)?, metrics })
    }
}

impl Grpo {
    /// `[M]`: what each token's loss is multiplied by.
    fn weights(&self, part: &Part<'_>, step: &Step) -> Vec<f32> {
        let answers = step.rollouts as f64;
        match self.normalise {
            Normalise::Answers => {
                let lengths: Vec<f64> = part.rollouts.iter().map(|r| r.logps.len() as f64).collect();
                let each = part.rollouts.iter().zip(&lengths);
                each.flat_map(|(r, n)| std::iter::repeat_n((1.0 / (n * answers)) as f32, r.logps.len()))
                    .collect()
            }
            Normalise::Tokens => part.spread(|_| 1.0 / step.tokens as f64),
            Normalise::Constant => part.spread(|_| 1.0 / (answers * self.draw.max_tokens as f64)),
        }
    }

    /// How many tokens have left the range in which they gain.
    fn clipped(&self, logps: &Tensor, old: &Tensor) -> hone_nn::Result<f64> {
        let ratios: Vec<f32> = (logps - old)?.exp()?.to_vec1()?;
        let outside = |ratio: &&f32| {
            f64::from(**ratio) < 1.0 - self.clip_low || f64::from(**ratio) > 1.0 + self.clip_high
        };
        Ok(ratios.iter().filter(outside).count() as f64)
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Grpo = settings("grpo", job.settings)?;
    let max_tokens = own.training.tokens_for(&job.policy.model);
    let sampling = Sampling { group: own.group_size, draw: &own.draw, max_tokens };
    let reuse = Reuse { epochs: own.epochs_per_batch, minibatches: own.minibatches };
    Ok(Product::Policy(learn("grpo", job, sampling, &own.training, reuse, &own)?))
}

/// Mean score of sampled answers to held-out prompts, after `run`.
pub(crate) fn held_out_score(
    bench: &bench::Bench,
    run: fn(Job<'_>) -> Result<Product>,
    own: &str,
) -> Result<f64> {
    let (train, held_out) = (bench.records(64, 0, "train"), bench.records(60, 0, "held out"));
    let settings = bench::quick(own)?;
    let policy = run(bench.job(&train, &settings)?)?.policy()?;
    let model = policy.speaker()?;
    let answers = sample(&model, &prompts(&model, &held_out)?, 4, &Draw::default(), 7)?;
    Ok(mean(&answers.iter().flatten().map(|s| (bench.utility(&s.text) + 1.0) / 2.0).collect::<Vec<_>>()))
}

/// How much higher answers to held-out prompts score with this `baseline` than with none, on the same samples.
pub(crate) fn over_no_baseline(
    seed: u64,
    run: fn(Job<'_>) -> Result<Product>,
    baseline: &str,
) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let score = |baseline: &str| {
        let own = format!(
            "group_size = 4\nbaseline = \"{baseline}\"\n[draw]\ntemperature = 1.0\nmax_tokens = 24\n[training]\n\
             batch_size = 8\nepochs = 4.0"
        );
        held_out_score(&bench, run, &own)
    };
    Ok(score(baseline)? - score("none")?)
}

fn scores_higher(seed: u64) -> Result<f64> {
    let bench = bench::Bench::new(seed)?;
    let own = "group_size = 8\n[draw]\nmax_tokens = 24\n[training]\nbatch_size = 8\nepochs = 2.0";
    let grpo = held_out_score(&bench, run, own)?;
    let own = "samples = 8\nkeep = \"best\"\nrounds = 2\n[draw]\ntemperature = 1.0\nmax_tokens = 24\n[training]\n\
               batch_size = 8\nepochs = 1.0";
    Ok(grpo - held_out_score(&bench, rejection_sampling::REJECTION_SAMPLING.run, own)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_by_hand() {
        let of = |length: usize| Rollout {
            record: 0,
            group: 0,
            sequence: crate::policy::Sequence::of_tokens(&[1], &vec![2; length]),
            logps: vec![0.0; length],
            reward: 0.0,
            ended: true,
        };
        let (one, two) = (of(1), of(3));
        let mut batch = hone_nn::Batch::new();
        for rollout in [&one, &two] {
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask).unwrap();
        }
        let policy = bench::Bench::new(1).unwrap().policy().unwrap();
        let outputs = hone_nn::Network::evaluate(&policy.model, &batch, &hone_nn::Want::default()).unwrap();
        let part = Part { rollouts: vec![&one, &two], indices: &[0, 1], batch: &batch, outputs: &outputs };
        let step = Step { rollouts: 2, tokens: 4, places: vec![0, 1] };
        let of = |normalise| Grpo { normalise, ..Grpo::default() }.weights(&part, &step);
        assert_eq!(of(Normalise::Answers), [0.5, 1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0]);
        assert_eq!(of(Normalise::Tokens), [0.25; 4]);
        assert_eq!(of(Normalise::Constant), [1.0 / 2048.0; 4]);
    }

    #[test]
    fn flat_groups_are_dropped_on_request() {
        let bench = bench::Bench::new(1).unwrap();
        let policy = bench.policy().unwrap();
        let of = |group, reward| Rollout {
            record: 0,
            group,
            sequence: crate::policy::Sequence::of_tokens(&[3], &[4, 1]),
            logps: vec![-1.0; 2],
            reward,
            ended: true,
        };
        let mut rollouts = vec![of(0, 1.0), of(0, 1.0), of(1, 1.0), of(1, 0.0)];
        let rule = Grpo { drop_flat_groups: true, ..Grpo::default() };
        let context = crate::reinforce::prepared(&rule, &policy.model, &mut rollouts).unwrap();
        assert_eq!(rollouts.len(), 2);
        assert_eq!((context.advantages.len(), context.reference.len()), (2, 2));
    }

    #[test]
    fn claim_scores_above_rejection_sampling() {
        bench::assert_holds(scores_higher, 5);
    }
}
