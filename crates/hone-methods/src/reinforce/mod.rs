//! Methods that optimise a reward by the policy's own samples, and the loop that they share.
//!
//! Each iteration samples a group of answers to each of some prompts, scores them, and takes optimiser steps on them.
//! What differs between methods, how rewards become advantages and what the loss is, stays in their files.

pub mod a_lol;
pub mod clip;
pub mod critique_grpo;
pub mod gae;
pub mod grpo;
pub mod kl;
pub mod ppo;
#[expect(clippy::module_inception, reason = "a method lies in a file of its name")]
pub mod reinforce;
pub mod rloo;
pub mod sdpo;
pub mod text2grad;
pub mod update;
pub mod value;

use std::collections::BTreeMap;
use std::time::Instant;

use candle_core::Tensor;
use hone_feedback::Record;
use hone_feedback::metrics::{mean, standard_deviation};
use hone_lm::Local;
use hone_nn::train::batches::{Order, parts};
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::train::{StepReport, Trainer, TrainerSettings, checkpoint};
use hone_nn::{Batch, Loss, Model, Network, Outputs, Want};

use crate::error::{Error, Result};
use crate::method::Job;
use crate::oracle::Oracle;
use crate::policy::{Policy, Sequence, copy_of};
use crate::refine::{Draw, judge, prompts, sample};
use crate::train::{CHECKPOINT_SECONDS, PART_TOKENS, Training};

/// One sampled answer with all that a loss needs of it.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// Index of its record.
    pub record: usize,
    /// Index of its prompt among those of the iteration: answers to one prompt are one group.
    pub group: usize,
    /// Prompt and answer in the tokens that were sampled.
    pub sequence: Sequence,
    /// `[T]`: log-probability of each answer token when it was sampled, at the temperature of sampling, in nats.
    pub logps: Vec<f32>,
    /// Its reward.
    pub reward: f64,
    /// Whether it ended by itself, not at the limit of tokens.
    pub ended: bool,
}

/// What an iteration samples.
#[derive(Debug, Clone, Copy)]
pub struct Sampling<'a> {
    /// Answers per prompt, `G`.
    pub group: usize,
    /// How they are drawn.
    pub draw: &'a Draw,
    /// Longest sequence, in tokens; longer answers are left out.
    pub max_tokens: usize,
}

/// Samples a group of answers to each prompt and scores them by the oracle.
///
/// # Errors
/// [`Error::Data`] without an oracle that knows the records; those of the model.
pub fn rollouts(
    method: &str,
    model: &Local,
    records: &[(usize, &Record)],
    oracle: Option<&dyn Oracle>,
    sampling: Sampling<'_>,
    seed: u64,
) -> Result<Vec<Rollout>> {
    let score = |record: &Record, answer: &str| Ok(judge(method, oracle, record, answer)?.score);
    scored(model, records, score, sampling, seed)
}

/// [`rollouts`] with rewards by any rule of a record and an answer to it.
fn scored(
    model: &Local,
    records: &[(usize, &Record)],
    score: impl Fn(&Record, &str) -> Result<f64>,
    sampling: Sampling<'_>,
    seed: u64,
) -> Result<Vec<Rollout>> {
    let asked: Vec<Record> = records.iter().map(|(_, record)| (*record).clone()).collect();
    let asked = prompts(model, &asked)?;
    let drawn = sample(model, &asked, sampling.group, sampling.draw, seed)?;
    let mut rollouts = vec![];
    for (group, ((record, samples), prompt)) in records.iter().zip(drawn).zip(&asked).enumerate() {
        if samples.is_empty() {
            // Nothing could be asked: the sampler has said why by giving no answers.
            continue;
        }
        let before = model.prompt_tokens(group, prompt)?;
        for one in samples {
            let reward = score(record.1, &one.text)?;
            let ended = one.finish != hone_lm::model::FinishReason::Length;
            let tokens = one.tokens.unwrap_or_default();
            let ids: Option<Vec<u32>> = tokens.iter().map(|token| token.id).collect();
            let logps: Option<Vec<f32>> = tokens.iter().map(|token| token.sampling_logprob).collect();
            let (Some(ids), Some(logps)) = (ids, logps) else { continue };
            if ids.is_empty() || before.len() + ids.len() > sampling.max_tokens {
                continue;
            }
            let sequence = Sequence::of_tokens(&before, &ids);
            rollouts.push(Rollout { record: record.0, group, sequence, logps, reward, ended });
        }
    }
    Ok(rollouts)
}

/// Rewards less the mean of their group; divided by the group's standard deviation if `scale`. `[rollouts]`.
///
/// A group of equal rewards has no advantage. The deviation is that of a sample, as in the released code.
pub fn group_advantages(rollouts: &[Rollout], scale: bool) -> Vec<f64> {
    per_group(rollouts, |rewards| {
        let (centre, spread) =
            (mean(rewards), if rewards.len() > 1 { standard_deviation(rewards) } else { 0.0 });
        // 1e-4 keeps a group of nearly equal rewards from blowing up, as in the released code.
        rewards.iter().map(|r| (r - centre) / if scale { spread + 1e-4 } else { 1.0 }).collect()
    })
}

/// Rewards less the mean of the others of their group. `[rollouts]`.
pub fn leave_one_out_advantages(rollouts: &[Rollout]) -> Vec<f64> {
    per_group(rollouts, |rewards| {
        let (sum, others) = (rewards.iter().sum::<f64>(), rewards.len().saturating_sub(1) as f64);
        rewards.iter().map(|r| if others > 0.0 { r - (sum - r) / others } else { 0.0 }).collect()
    })
}

fn per_group(rollouts: &[Rollout], of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let mut advantages = Vec::with_capacity(rollouts.len());
    for group in rollouts.chunk_by(|a, b| a.group == b.group) {
        advantages.extend(of(&group.iter().map(|rollout| rollout.reward).collect::<Vec<_>>()));
    }
    advantages
}

/// Share of groups whose rewards are all equal: they teach nothing.
pub fn flat_groups(rollouts: &[Rollout]) -> f64 {
    let groups: Vec<f64> = rollouts
        .chunk_by(|a, b| a.group == b.group)
        .map(|group| f64::from(u8::from(group.iter().all(|r| r.reward == group[0].reward))))
        .collect();
    mean(&groups)
}

/// One part of an optimiser step, as a loss sees it.
#[derive(Debug)]
pub struct Part<'a> {
    /// Its rollouts, in the order of the batch's sequences.
    pub rollouts: Vec<&'a Rollout>,
    /// Their places among all rollouts of the iteration.
    pub indices: &'a [usize],
    /// The sequences.
    pub batch: &'a Batch,
    /// What the policy says of them now.
    pub outputs: &'a Outputs,
}

impl Part<'_> {
    /// `[M]`: log-probabilities at the time of sampling.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn old_logps(&self) -> hone_nn::Result<Tensor> {
        self.tensor(self.rollouts.iter().flat_map(|rollout| rollout.logps.iter().copied()).collect())
    }

    /// `[M]` of this part's answer tokens, from `[rollouts][T]` of the iteration.
    pub fn gather(&self, of_all: &[Vec<f32>]) -> Vec<f32> {
        self.indices.iter().filter_map(|&index| of_all.get(index)).flatten().copied().collect()
    }

    /// `[M]`: one number per rollout, spread over its tokens.
    pub fn spread(&self, of: impl Fn(usize) -> f64) -> Vec<f32> {
        let sizes = self.indices.iter().zip(&self.rollouts);
        sizes.flat_map(|(&index, r)| std::iter::repeat_n(of(index) as f32, r.logps.len())).collect()
    }

    /// A tensor of plain numbers beside the outputs.
    ///
    /// # Errors
    /// Those of the tensor library.
    pub fn tensor(&self, values: Vec<f32>) -> hone_nn::Result<Tensor> {
        Ok(Tensor::new(values, self.outputs.logps.device())?)
    }
}

/// `[M]` losses in nats of the clipped surrogate from `[M]` log-probabilities now and when sampled, and `[M]` advantages:
/// `−min(ρ A, clip(ρ, 1 − low, 1 + high) A)` with `ρ = π / π_old`.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn clipped_surrogate(
    logps: &Tensor,
    old: &Tensor,
    advantages: &Tensor,
    low: f64,
    high: f64,
) -> hone_nn::Result<Tensor> {
    let ratio = (logps - old)?.exp()?;
    let clipped = ratio.clamp(1.0 - low, 1.0 + high)?;
    Ok((ratio * advantages)?.minimum(&(clipped * advantages)?)?.neg()?)
}

/// What a method may look at when it prepares an iteration.
#[derive(Debug)]
pub struct Look<'a> {
    /// The policy that sampled.
    pub current: &'a Model,
    /// The policy's start.
    pub reference: &'a Model,
    /// The running average of the policy's weights, for a rule that has a decay.
    pub average: Option<&'a Model>,
    /// All records of the run, by [`Rollout::record`].
    pub records: &'a [Record],
    /// What the method keeps from one iteration to the next; goes into checkpoints.
    pub kept: &'a mut BTreeMap<String, serde_json::Value>,
    /// Seed of this iteration.
    pub seed: u64,
}

/// What a method does with the rollouts of an iteration.
pub trait Rule: Sync {
    /// What is kept of an iteration beside its rollouts: advantages, weights, log-probabilities of the reference.
    type Context: Sync;

    /// The reward of a whole answer: the oracle's score, unless a method has its own.
    ///
    /// # Errors
    /// As [`judge`].
    fn reward(
        &self,
        method: &str,
        oracle: Option<&dyn Oracle>,
        record: &Record,
        answer: &str,
    ) -> Result<f64> {
        Ok(judge(method, oracle, record, answer)?.score)
    }

    /// What is wanted of the policy at each step. Log-probabilities are those of the distribution that was sampled from.
    fn want(&self, draw: &Draw) -> Want {
        Want { temperature: draw.temperature as f32, ..Want::default() }
    }

    /// [`Rule::want`] of one step on the rollouts at `places`, in the order of their parts: what differs between steps,
    /// such as candidates, is said here.
    fn want_at(&self, draw: &Draw, _: &Self::Context, _places: &[usize]) -> Want {
        self.want(draw)
    }

    /// What the running average of the weights keeps of itself at each step, in [0, 1); `None` for no average.
    fn average_decay(&self) -> Option<f64> {
        None
    }

    /// Prepares an iteration. May drop rollouts; an iteration without any is skipped.
    ///
    /// # Errors
    /// Those of the engine.
    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Self::Context>;

    /// The loss of one part, already scaled by the counts of the whole step.
    ///
    /// # Errors
    /// Those of the tensor library.
    fn loss(&self, part: &Part<'_>, context: &Self::Context, step: &Step) -> hone_nn::Result<Loss>;
}

/// Counts of a whole optimiser step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Rollouts.
    pub rollouts: usize,
    /// Answer tokens.
    pub tokens: usize,
    /// Places of its rollouts among all of the iteration, for counts of a method's own.
    pub places: Vec<usize>,
}

/// How many optimiser steps are taken on the rollouts of an iteration.
#[derive(Debug, Clone, Copy)]
pub struct Reuse {
    /// Passes over them, at least 1.
    pub epochs: usize,
    /// Steps per pass, at least 1.
    pub minibatches: usize,
}

/// The loop: sample, score, prepare, step. `training` counts in prompts: its batch is the prompts of an iteration, its
/// epochs are passes over the prompts.
///
/// # Errors
/// [`Error::Data`] for no prompt, or prompts whose answers cannot be checked; those of the engine.
pub fn learn<R: Rule>(
    method: &str,
    job: Job<'_>,
    sampling: Sampling<'_>,
    training: &Training,
    reuse: Reuse,
    rule: &R,
) -> Result<Policy> {
    let Job { policy: start, records, oracle, seed, session, .. } = job;
    if records.is_empty() {
        let needed = "prompts whose answers can be checked".into();
        return Err(Error::Data { method: method.into(), needed, got: "none".into() });
    }
    let iterations = training.steps(records.len());
    let steps = iterations * (reuse.epochs * reuse.minibatches) as u64;
    let descent = TrainerSettings { ema_decay: rule.average_decay(), ..training.trainer(steps, seed) };
    let mut trainer = Trainer::new(start.copy()?.model, descent)?;
    let mut order = Order::new(records.len(), trainer.seed("order"))?;
    session.open(&mut trainer)?;
    let mut saved = Instant::now();
    let first = trainer.extra.get(ITERATION).and_then(|value| value.as_u64()).unwrap_or(0);
    for iteration in first..iterations {
        if session.deadline.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let taken = order.take(&mut trainer.position, training.batch_size);
        let asked: Vec<(usize, &Record)> = taken.iter().map(|&index| (index, &records[index])).collect();
        let seed = sub_seed(seed, &format!("iteration {iteration}"));
        let model = start.speaker_of(&trainer.model)?;
        let score = |record: &Record, answer: &str| rule.reward(method, oracle, record, answer);
        let mut rollouts = scored(&model, &asked, score, sampling, seed)?;
        let said = said(&rollouts);
        let average = match rule.average_decay() {
            Some(_) => Some(trainer.with_average(|model| copy_of(model))??),
            None => None,
        };
        let Trainer { model, extra: kept, .. } = &mut trainer;
        let (reference, average) = (&start.model, average.as_ref());
        let look = &mut Look { current: model, reference, average, records, kept, seed };
        let context = rule.prepare(look, &mut rollouts)?;
        for pass in 0..reuse.epochs {
            let mut places: Vec<usize> = (0..rollouts.len()).collect();
            shuffle(&mut places, &mut rng(seed, &format!("pass {pass}")));
            for minibatch in places.chunks(places.len().div_ceil(reuse.minibatches).max(1)) {
                let report = step(
                    &mut trainer,
                    &rollouts,
                    minibatch,
                    |places| rule.want_at(sampling.draw, &context, places),
                    |part, step| rule.loss(part, &context, step),
                    &said,
                );
                let report = report.map_err(|error| {
                    let batch = minibatch.iter().map(|&at| (rollouts[at].record, &rollouts[at].sequence));
                    session.keep(&trainer, error, batch)
                })?;
                if let Some(listener) = &session.listener {
                    listener(&report, steps);
                }
            }
        }
        trainer.extra.insert(ITERATION.into(), (iteration + 1).into());
        if let Some(folder) = &session.folder
            && (saved.elapsed().as_secs() >= CHECKPOINT_SECONDS || iteration + 1 == iterations)
        {
            checkpoint::save(&trainer, folder, 1)?;
            saved = Instant::now();
        }
    }
    Ok(Policy { model: trainer.model, ..start })
}

/// Key of the iterations done, in a checkpoint.
const ITERATION: &str = "iteration";

/// What is worth reporting of an iteration's rollouts.
fn said(rollouts: &[Rollout]) -> Vec<(&'static str, f64)> {
    let of = |f: &dyn Fn(&Rollout) -> f64| mean(&rollouts.iter().map(f).collect::<Vec<_>>());
    let rewards: Vec<f64> = rollouts.iter().map(|rollout| rollout.reward).collect();
    if rollouts.is_empty() {
        return vec![];
    }
    vec![
        ("reward", mean(&rewards)),
        ("reward_std", standard_deviation(&rewards)),
        ("frac_reward_zero_std", flat_groups(rollouts)),
        ("completions/mean_length", of(&|r| r.logps.len() as f64)),
        ("completions/clipped_ratio", of(&|r| f64::from(u8::from(!r.ended)))),
    ]
}

/// One optimiser step on some of the rollouts.
fn step(
    trainer: &mut Trainer,
    rollouts: &[Rollout],
    places: &[usize],
    want: impl Fn(&[usize]) -> Want,
    loss: impl Fn(&Part<'_>, &Step) -> hone_nn::Result<Loss> + Sync,
    said: &[(&'static str, f64)],
) -> Result<StepReport> {
    let sizes: Vec<usize> = places.iter().map(|&at| rollouts[at].sequence.tokens.len()).collect();
    let groups: Vec<Vec<usize>> = parts(&sizes, PART_TOKENS, trainer.model.threads.max(1))?
        .into_iter()
        .map(|part| part.into_iter().map(|at| places[at]).collect())
        .collect();
    let mut batches = vec![];
    for group in &groups {
        let mut batch = Batch::new();
        for &at in group {
            batch.push_masked(&rollouts[at].sequence.tokens, &rollouts[at].sequence.mask)?;
        }
        batches.push(batch);
    }
    let tokens = batches.iter().map(|batch| batch.targets().len()).sum();
    let counts = Step { rollouts: places.len(), tokens, places: places.to_vec() };
    let want = want(&groups.concat());
    Ok(trainer.step(&batches, &want, &|index, outputs| {
        let indices = &groups[index];
        let part = Part {
            rollouts: indices.iter().map(|&at| &rollouts[at]).collect(),
            indices,
            batch: &batches[index],
            outputs,
        };
        let mut value = loss(&part, &counts)?;
        if index == 0 {
            value.metrics.extend(said);
        }
        Ok(value)
    })?)
}

/// `[rollouts]`: per token the log-probability of each answer under `model`, at the temperature of sampling, in nats.
///
/// # Errors
/// Those of the engine.
pub fn token_logps(model: &Model, rollouts: &[Rollout], draw: &Draw) -> Result<Vec<Vec<f32>>> {
    let want = Want { temperature: draw.temperature as f32, ..Want::default() };
    let mut rows = vec![];
    for chunk in rollouts.chunks(64) {
        let mut batch = Batch::new();
        for rollout in chunk {
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask)?;
        }
        let logps: Vec<f32> = model.evaluate(&batch, &want)?.logps.to_vec1().map_err(hone_nn::Error::from)?;
        rows.extend((0..chunk.len()).map(|at| logps[batch.target_range(at)].to_vec()));
    }
    Ok(rows)
}

/// Refuses settings of sampling that no log-probability exists for.
///
/// # Errors
/// [`Error::Range`].
pub fn check_draw(method: &str, draw: &Draw) -> Result<()> {
    draw.check(method)?;
    crate::method::above_zero(method, "draw.temperature", draw.temperature)?;
    // A cut distribution is not the one that the policy's log-probabilities are of.
    let refuse = |key, needed, got: String| {
        let needed = format!("{needed}: the policy must be trained on what it samples from");
        Err(Error::range(method, key, &needed, got))
    };
    match (draw.top_p < 1.0, draw.top_k > 0) {
        (true, _) => refuse("draw.top_p", 1, draw.top_p.to_string()),
        (_, true) => refuse("draw.top_k", 0, draw.top_k.to_string()),
        _ => Ok(()),
    }
}

/// What `rule` makes of rollouts of a policy that has not moved yet.
#[cfg(test)]
pub(crate) fn prepared<R: Rule>(rule: &R, start: &Model, rollouts: &mut Vec<Rollout>) -> Result<R::Context> {
    let (current, reference, kept) = (start, start, &mut BTreeMap::new());
    rule.prepare(&mut Look { current, reference, average: None, records: &[], kept, seed: 1 }, rollouts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{assert_close, tensor};

    fn rollout(group: usize, reward: f64) -> Rollout {
        let sequence = Sequence::of_tokens(&[1], &[2]);
        Rollout { record: group, group, sequence, logps: vec![-1.0], reward, ended: true }
    }

    #[test]
    fn advantages_by_hand() {
        let rollouts = [rollout(0, 1.0), rollout(0, 0.0), rollout(1, 0.5), rollout(1, 0.5), rollout(2, 1.0)];
        assert_eq!(group_advantages(&rollouts, false), [0.5, -0.5, 0.0, 0.0, 0.0]);
        // A sample's deviation of 0 and 1 is 1/√2: 0.5 / 0.70721 = 0.70701.
        assert!((group_advantages(&rollouts, true)[0] - 0.70701).abs() < 1e-4);
        assert_eq!(leave_one_out_advantages(&rollouts), [1.0, -1.0, 0.0, 0.0, 0.0]);
        // Two of three groups are flat; one answer alone is.
        assert!((flat_groups(&rollouts) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_surrogate_is_clipped_where_it_would_gain() {
        let (old, up) = (tensor(&[0.0, 0.0, 0.0]), tensor(&[1.0, 1.0, -1.0]));
        // Ratios 1, 2, 2 with clip at 1.2: −1, −1.2, and for a bad answer the larger loss, 2.
        let now = tensor(&[0.0, 2f64.ln(), 2f64.ln()]);
        assert_close(&clipped_surrogate(&now, &old, &up, 0.2, 0.2).unwrap(), &[-1.0, -1.2, 2.0]);
    }

    #[test]
    fn sampled_tokens_and_their_logps_are_those_of_the_policy() {
        let bench = crate::bench::Bench::new(1).unwrap();
        let (policy, records) = (bench.policy().unwrap(), bench.records(4, 0, "asked"));
        let asked: Vec<(usize, &Record)> = records.iter().enumerate().collect();
        let draw = Draw { temperature: 0.8, max_tokens: 24, ..Draw::default() };
        let sampling = Sampling { group: 3, draw: &draw, max_tokens: 64 };
        let model = policy.speaker().unwrap();
        let rollouts = rollouts("grpo", &model, &asked, Some(&bench), sampling, 1).unwrap();
        assert_eq!(rollouts.len(), 12);
        // What the engine says it sampled with is what a forward pass gives: no re-tokenising, no other temperature.
        let again = token_logps(&policy.model, &rollouts, &draw).unwrap();
        for (rollout, again) in rollouts.iter().zip(&again) {
            assert_eq!(rollout.logps.len(), again.len());
            for (one, other) in rollout.logps.iter().zip(again) {
                assert!((one - other).abs() < 1e-4, "{one}, {other}");
            }
        }
    }

    #[test]
    fn cut_distributions_are_refused() {
        let draw = Draw { top_p: 0.9, ..Draw::default() };
        assert!(check_draw("grpo", &draw).unwrap_err().to_string().contains("`draw.top_p`: needs 1"));
        let draw = Draw { top_k: 5, ..Draw::default() };
        assert!(check_draw("grpo", &draw).unwrap_err().to_string().contains("`draw.top_k`: needs 0"));
        let draw = Draw { temperature: 0.0, ..Draw::default() };
        assert!(check_draw("grpo", &draw).is_err());
    }

    /// A rule whose second step has no number for a loss.
    struct Breaks(std::sync::atomic::AtomicUsize);

    impl Rule for Breaks {
        type Context = ();

        fn prepare(&self, _: &mut Look<'_>, _: &mut Vec<Rollout>) -> Result<()> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        }

        fn loss(&self, part: &Part<'_>, (): &(), _: &Step) -> hone_nn::Result<Loss> {
            let bad = self.0.load(std::sync::atomic::Ordering::Relaxed) > 1;
            Ok(Loss::from((part.outputs.logps.sum_all()? * if bad { f64::INFINITY } else { 1e-3 })?))
        }
    }

    #[test]
    fn a_loss_that_is_not_finite_leaves_the_rollouts() {
        let bench = crate::bench::Bench::new(1).unwrap();
        let records = bench.records(8, 0, "train");
        let folder = tempfile::tempdir().unwrap();
        let settings = toml::Table::new();
        let mut job = bench.job(&records, &settings).unwrap();
        job.session.folder = Some(folder.path().to_path_buf());
        let draw = Draw { max_tokens: 8, ..Draw::default() };
        let sampling = Sampling { group: 2, draw: &draw, max_tokens: 64 };
        let training = Training { batch_size: 4, ..Training::default() };
        let reuse = Reuse { epochs: 1, minibatches: 1 };
        let error =
            learn("grpo", job, sampling, &training, reuse, &Breaks(0.into())).unwrap_err().to_string();
        assert!(error.contains("at step 2") && error.contains("failed-step-2.jsonl"), "{error}");
        let text = std::fs::read_to_string(folder.path().join("failed-step-2.jsonl")).unwrap();
        // Two answers to each of four prompts, none of which was in the first step.
        assert_eq!(text.lines().count(), 8);
        assert_eq!(checkpoint::list(folder.path()).unwrap().len(), 1);
    }
}
