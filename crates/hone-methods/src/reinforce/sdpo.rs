//! Self-distillation policy optimisation.

use candle_core::Tensor;
use hone_feedback::{Prompt, Record};
use hone_nn::loss::weighted_sum;
use hone_nn::network::Candidates;
use hone_nn::{Batch, Loss, Model, Network, Want};
use hone_worlds::Detail;
use hone_worlds::people::Tells;
use minijinja::context;
use serde::{Deserialize, Serialize};

use crate::bench::riddles::Riddles;
use crate::error::{Error, Result};
use crate::method::{
    Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, not_negative, settings,
};
use crate::oracle::Oracle;
use crate::policy::{Policy, Sequence, lm_prompt};
use crate::refine::Draw;
use crate::reinforce::grpo;
use crate::reinforce::{
    Look, Part, Reuse, Rollout, Rule, Sampling, Step, check_draw, clipped_surrogate, group_advantages, learn,
};
use crate::templates::Templates;
use crate::train::{Decay, Training};

method! {
    /// Let the policy, once it is told what was wrong, teach its own answers token by token.
    /// # What it does
    /// Samples a group of answers to each prompt. Each is read again by the policy with more in its prompt: what the oracle
    /// says of it, and an answer of the group that is right. At every token of the answer the bare policy's distribution is
    /// drawn towards that of the told one, which is held fixed: the reverse (`alpha = 1`) or forward (`alpha = 0`)
    /// divergence, or one between. So that the teacher does not run away with its pupil, its weights are a slow average
    /// (`teacher = "average"`), or its distribution is held near the start's (`"trust_region"`). Nothing more is sampled
    /// than by GRPO, and an answer learns though all of its group are wrong.
    /// # Feedback
    /// Prompts whose answers can be checked, by an oracle that can say what is wrong; or plain checks, where a right answer of
    /// the group is all that a teacher is told. Logged critiques are not read: each answer is new.
    /// # Departs from the paper
    /// Not read in the paper itself but in summaries, in TRL's trainer and in ports of the release, and so settings here:
    /// `alpha`, `top_k` with the tail as one more token, `rate`, `ratio_clip`, `success_reward`, `group_weight`, learning
    /// rate and batch; the words around what a teacher is told are this project's. The trust region mixes log-probabilities
    /// of the told start and the told policy. The average moves at each step.
    /// # Claim
    /// On riddles of which the policy knows half, same samples: more right answers to held-out prompts than GRPO
    /// (`claim_beats_grpo`), most where the start is right by chance alone (`claim_gains_where_all_fail`). Being told what is
    /// wrong against being shown right answers of the group alone (`claim_words_beat_solutions`), and a slow teacher against
    /// the policy of the moment (`claim_a_slow_teacher_helps`).
    /// # Source
    /// Hübotter et al., arXiv:2601.20802; code lasgroup/SDPO.
    pub static SDPO: Method = Method {
        id: "sdpo", name: "SDPO", family: Family::Reinforce, needs: Needs::Checks, makes: Makes::Policy, settings: Sdpo,
        claims: &[
            Claim {
                name: "claim_beats_grpo",
                says: "Answers to held-out riddles are right more often after SDPO than after GRPO on as many samples.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "GRPO, same prompts, samples, steps and rate",
                effect: beats_grpo,
            },
            Claim {
                name: "claim_gains_where_all_fail",
                says: "The gain over GRPO is larger on prompts that the start answers right by chance alone.",
                metric: "gain over GRPO in the share of right answers, on such prompts less on the others",
                baseline: "GRPO, same prompts, samples, steps and rate",
                effect: gains_where_all_fail,
            },
            Claim {
                name: "claim_words_beat_solutions",
                says: "A teacher that is told what is wrong teaches more than one that is shown right answers of the group alone.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "`feedback = false`, all else equal",
                effect: words_beat_solutions,
            },
            Claim {
                name: "claim_a_slow_teacher_helps",
                says: "A teacher whose weights are a slow average ends with more right answers than the policy of the moment.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "`teacher = \"current\"`, all else equal",
                effect: slow_teacher_helps,
            },
        ],
        run,
    };
}

/// Whose distribution is learnt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// The running average of the policy's weights.
    Average,
    /// The start's, moved by `rate` towards the policy's: log-probabilities are mixed, then normalised.
    TrustRegion,
    /// The policy's of the moment.
    Current,
    /// The start's.
    Start,
}

/// Settings of SDPO.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sdpo {
    /// Answers per prompt, at least 1. Release: 8.
    pub group_size: usize,
    /// Which divergence, in [0, 1]: 0 is KL(teacher ‖ policy), 1 is KL(policy ‖ teacher), ½ Jensen-Shannon. Release: 0.5;
    /// the paper's equation: 1.
    pub alpha: f64,
    /// The policy's likeliest tokens that are compared, at each place; 0 for all. Release: 100.
    pub top_k: usize,
    /// Compare what is left beside them as one more token; else the kept ones are normalised. Release: yes.
    pub tail: bool,
    /// Who teaches. Release: the average.
    pub teacher: Teacher,
    /// How far the teacher moves towards the policy: at each step for the average, in all for the trust region. In (0, 1].
    /// Release: 0.05.
    pub rate: f64,
    /// Largest ratio of now to then that a token's loss is weighted with; 0 for no weight. Release: 2.
    pub ratio_clip: f64,
    /// Tell the teacher what the oracle says of a wrong answer.
    pub feedback: bool,
    /// How much that tells.
    pub detail: Tells,
    /// Show the teacher another answer of the group that is right.
    pub solution: bool,
    /// Reward from which an answer is right. Release: 1.
    pub success_reward: f64,
    /// What the teacher is asked, a Jinja template over `prompt`, `solution`, `feedback` (each empty if there is none) and
    /// `answer`.
    pub teach: String,
    /// Weight of GRPO's surrogate beside the divergence, which gets the rest, in [0, 1]. Paper: 0.
    pub group_weight: f64,
    /// Optimiser steps per iteration, at least 1.
    pub minibatches: usize,
    /// How answers are sampled.
    pub draw: Draw,
    /// The descent, counted in prompts.
    pub training: Training,
}

impl Default for Sdpo {
    fn default() -> Sdpo {
        let decay = Decay::Constant;
        let training = Training {
            learning_rate: 1e-5,
            batch_size: 32,
            warm_up: 0.0,
            decay,
            max_tokens: 10240,
            ..Training::default()
        };
        Sdpo {
            group_size: 8,
            alpha: 0.5,
            top_k: 100,
            tail: true,
            teacher: Teacher::Average,
            rate: 0.05,
            ratio_clip: 2.0,
            feedback: true,
            detail: Tells::Correction,
            solution: true,
            success_reward: 1.0,
            teach: include_str!("prompts/teach.jinja").into(),
            group_weight: 0.0,
            minibatches: 1,
            draw: Draw { max_tokens: 8192, ..Draw::default() },
            training,
        }
    }
}

impl Settings for Sdpo {
    fn check(&self) -> Result<()> {
        for (key, value) in [("group_size", self.group_size), ("minibatches", self.minibatches)] {
            if value == 0 {
                return Err(Error::range("sdpo", key, "at least 1", 0));
            }
        }
        for (key, value) in [("alpha", self.alpha), ("group_weight", self.group_weight)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::range("sdpo", key, "a share in [0, 1]", value));
            }
        }
        above_zero("sdpo", "rate", self.rate)?;
        if self.rate > 1.0 {
            return Err(Error::range("sdpo", "rate", "a share in (0, 1]", self.rate));
        }
        not_negative("sdpo", "ratio_clip", self.ratio_clip)?;
        if !self.feedback && !self.solution {
            let needed = "true, or `solution`: a teacher that is told nothing teaches nothing";
            return Err(Error::range("sdpo", "feedback", needed, "false"));
        }
        self.templates()?;
        check_draw("sdpo", &self.draw)?;
        self.training.check("sdpo")
    }
}

impl Sdpo {
    fn templates(&self) -> Result<Templates<'_>> {
        Templates::new("sdpo", &[("teach", &*self.teach)])
    }
}

/// `[M]` divergences in nats from `[M, K]` log-probabilities of the policy and of its teacher, each row a whole
/// distribution. `alpha` as in [`Sdpo::alpha`].
///
/// # Errors
/// Those of the tensor library, for shapes that differ.
pub fn divergence(policy: &Tensor, teacher: &Tensor, alpha: f64) -> hone_nn::Result<Tensor> {
    let kl =
        |from: &Tensor, to: &Tensor| -> hone_nn::Result<Tensor> { Ok((from.exp()? * (from - to)?)?.sum(1)?) };
    if alpha <= 0.0 {
        return kl(teacher, policy);
    }
    if alpha >= 1.0 {
        return kl(policy, teacher);
    }
    let mixture = ((policy.exp()? * (1.0 - alpha))? + (teacher.exp()? * alpha)?)?;
    // Below the smallest probability that the decoder gives, so that no term is infinite.
    let mixture = mixture.clamp(1e-30, f64::INFINITY)?.log()?;
    Ok(((kl(policy, &mixture)? * (1.0 - alpha))? + (kl(teacher, &mixture)? * alpha)?)?)
}

/// `[M, K]` log-probabilities of some tokens made whole: what is left as one more token (`[M, K + 1]`), or normalised.
///
/// # Errors
/// Those of the tensor library.
pub fn whole(logps: &Tensor, tail: bool) -> hone_nn::Result<Tensor> {
    let kept = logps.exp()?.sum_keepdim(1)?;
    Ok(match tail {
        // 1e-7: what single precision leaves of 1 where the kept tokens are everything.
        true => Tensor::cat(&[logps, &(kept.neg()? + 1.0)?.clamp(1e-7, 1.0)?.log()?], 1)?,
        false => logps.broadcast_sub(&kept.log()?)?,
    })
}

/// What is kept of an iteration.
#[derive(Debug, Default)]
struct Context {
    /// Tokens compared at each place, `K`.
    per_target: usize,
    /// Whether they are fewer than all.
    cut: bool,
    /// `[rollouts][T × K]`
    tokens: Vec<Vec<u32>>,
    /// `[rollouts][T × K]`: the teacher's log-probabilities in nats; zeros where it was told nothing.
    teacher: Vec<Vec<f32>>,
    /// `[rollouts]`: whether its teacher was told anything.
    told: Vec<bool>,
    advantages: Vec<f64>,
}

/// The settings with all they call upon.
struct Taught<'a> {
    own: &'a Sdpo,
    templates: Templates<'a>,
    /// The text side of the policy.
    home: &'a Policy,
    oracle: Option<&'a dyn Oracle>,
    /// Longest sequence, in tokens.
    max_tokens: usize,
}

impl<'a> Taught<'a> {
    fn new(own: &'a Sdpo, home: &'a Policy, oracle: Option<&'a dyn Oracle>) -> Result<Taught<'a>> {
        let max_tokens = own.training.tokens_for(&home.model);
        Ok(Taught { own, templates: own.templates()?, home, oracle, max_tokens })
    }

    /// Each rollout's tokens after all that its teacher is told; `None` where that is nothing, or too long.
    fn retold(&self, records: &[Record], rollouts: &[Rollout]) -> Result<Vec<Option<Sequence>>> {
        let model = self.home.speaker()?;
        let chats = self.home.template.is_some();
        let answers = rollouts.iter().map(|rollout| rollout.sequence.split().1);
        let texts = answers.map(|tokens| Ok(self.home.tokenizer.decode(&tokens, true)?.trim().to_string()));
        let texts = texts.collect::<Result<Vec<String>>>()?;
        let mut told = vec![];
        for (at, rollout) in rollouts.iter().enumerate() {
            let record = &records[rollout.record];
            let right = |other: &usize| {
                let reward = rollouts[*other].reward;
                *other != at && rollouts[*other].group == rollout.group && reward >= self.own.success_reward
            };
            let solution = match self.own.solution {
                true => (0..rollouts.len()).find(right).map(|other| texts[other].as_str()),
                false => None,
            };
            let wrong = rollout.reward < self.own.success_reward;
            let feedback = match self.oracle.filter(|_| self.own.feedback && wrong) {
                Some(oracle) => oracle.explain(record, &texts[at], Detail::from(self.own.detail))?,
                None => None,
            };
            if solution.is_none() && feedback.is_none() {
                told.push(None);
                continue;
            }
            let (prompt, answer) = (record.prompt.text(), texts[at].as_str());
            let (solution, feedback) = (solution.unwrap_or_default(), feedback.unwrap_or_default());
            let text = self.templates.render("teach", context! { prompt, solution, feedback, answer })?;
            let asked = model.prompt_tokens(at, &lm_prompt(&Prompt::from(text), chats)?)?;
            let sequence = Sequence::of_tokens(&asked, &rollout.sequence.split().1);
            told.push(Some(sequence).filter(|sequence| sequence.tokens.len() <= self.max_tokens));
        }
        Ok(told)
    }

    /// `[T × K]` log-probabilities of `tokens` at each place of an answer under the teacher, in nats.
    fn teacher(&self, look: &Look<'_>, sequence: &Sequence, tokens: &[u32], k: usize) -> Result<Vec<f32>> {
        let mut batch = Batch::new();
        batch.push_masked(&sequence.tokens, &sequence.mask)?;
        let temperature = self.own.draw.temperature as f32;
        let of = |model: &Model| -> Result<Vec<f32>> {
            let candidates = Some(Candidates { per_target: k, tokens: tokens.to_vec() });
            let want = Want { candidates, temperature, ..Want::default() };
            let outputs = model.evaluate(&batch, &want)?.candidates;
            Ok(outputs
                .map(|logps| logps.flatten_all()?.to_vec1())
                .transpose()
                .map_err(engine)?
                .unwrap_or_default())
        };
        match (self.own.teacher, look.average) {
            (Teacher::Average, Some(average)) => of(average),
            (Teacher::Start, _) => of(look.reference),
            (Teacher::TrustRegion, _) => {
                let all = |model: &Model| -> Result<Vec<Vec<f32>>> {
                    let want = Want { distributions: true, temperature, ..Want::default() };
                    let outputs = model.evaluate(&batch, &want)?.distributions;
                    Ok(outputs.map(|logps| logps.to_vec2()).transpose().map_err(engine)?.unwrap_or_default())
                };
                let (start, now) = (all(look.reference)?, all(look.current)?);
                let mut logps = Vec::with_capacity(tokens.len());
                for ((start, now), wanted) in start.iter().zip(&now).zip(tokens.chunks(k.max(1))) {
                    let mixed = mixed(start, now, self.own.rate as f32);
                    logps.extend(wanted.iter().filter_map(|&token| mixed.get(token as usize).copied()));
                }
                Ok(logps)
            }
            _ => of(look.current),
        }
    }
}

fn engine(error: candle_core::Error) -> Error {
    hone_nn::Error::from(error).into()
}

/// `[V]` log-probabilities of the normalised geometric mean of two distributions, in nats.
fn mixed(start: &[f32], now: &[f32], rate: f32) -> Vec<f32> {
    let raw: Vec<f32> = start.iter().zip(now).map(|(s, n)| (1.0 - rate) * s + rate * n).collect();
    let log_sum = raw.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln() as f32;
    raw.into_iter().map(|x| x - log_sum).collect()
}

/// `[rollouts][T × K]`: the policy's likeliest tokens at each place.
fn likeliest(model: &Model, rollouts: &[Rollout], k: usize, draw: &Draw) -> Result<Vec<Vec<u32>>> {
    let want = Want { top: Some(k), temperature: draw.temperature as f32, ..Want::default() };
    let mut rows = vec![];
    for chunk in rollouts.chunks(64) {
        let mut batch = Batch::new();
        for rollout in chunk {
            batch.push_masked(&rollout.sequence.tokens, &rollout.sequence.mask)?;
        }
        let Some(top) = model.evaluate(&batch, &want)?.top else { continue };
        rows.extend((0..chunk.len()).map(|at| {
            let places = batch.target_range(at);
            top.tokens[places.start * k..places.end * k].to_vec()
        }));
    }
    Ok(rows)
}

impl Rule for Taught<'_> {
    type Context = Context;

    fn want_at(&self, draw: &Draw, context: &Context, places: &[usize]) -> Want {
        let tokens = places.iter().flat_map(|&place| context.tokens[place].iter().copied()).collect();
        let candidates = Some(Candidates { per_target: context.per_target, tokens });
        Want { candidates, ..self.want(draw) }
    }

    fn average_decay(&self) -> Option<f64> {
        (self.own.teacher == Teacher::Average).then_some(1.0 - self.own.rate)
    }

    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Context> {
        let mut told = self.retold(look.records, rollouts)?;
        let mut advantages = group_advantages(rollouts, true);
        if self.own.group_weight == 0.0 {
            let keep: Vec<bool> = told.iter().map(Option::is_some).collect();
            let kept = |flags: &mut dyn Iterator<Item = &bool>| flags.next() == Some(&true);
            let (mut a, mut b, mut c) = (keep.iter(), keep.iter(), keep.iter());
            rollouts.retain(|_| kept(&mut a));
            told.retain(|_| kept(&mut b));
            advantages.retain(|_| kept(&mut c));
        }
        let vocabulary = look.current.config().vocab_size;
        let k = if self.own.top_k == 0 { vocabulary } else { self.own.top_k.min(vocabulary) };
        let tokens = likeliest(look.current, rollouts, k, &self.own.draw)?;
        let mut teacher = vec![];
        for (sequence, tokens) in told.iter().zip(&tokens) {
            teacher.push(match sequence {
                Some(sequence) => self.teacher(look, sequence, tokens, k)?,
                None => vec![0.0; tokens.len()],
            });
        }
        let told = told.iter().map(Option::is_some).collect();
        Ok(Context { per_target: k, cut: k < vocabulary, tokens, teacher, told, advantages })
    }

    fn loss(&self, part: &Part<'_>, context: &Context, step: &Step) -> hone_nn::Result<Loss> {
        let (own, logps) = (self.own, &part.outputs.logps);
        let Some(policy) = &part.outputs.candidates else {
            return Err(hone_nn::Error::argument(
                "candidates",
                "log-probabilities of the compared tokens",
                "none",
            ));
        };
        let teacher = part.tensor(part.gather(&context.teacher))?.reshape(policy.shape())?;
        let (policy, teacher) = match context.cut {
            true => (whole(policy, own.tail)?, whole(&teacher, own.tail)?),
            false => (policy.clone(), teacher),
        };
        let old = part.old_logps()?;
        let mut losses = divergence(&policy, &teacher, own.alpha)?;
        if own.ratio_clip > 0.0 {
            let ratio = (logps - &old)?.exp()?.clamp(0.0, own.ratio_clip)?.detach();
            losses = (losses * ratio)?;
        }
        // `[rollouts][T × K]` counts T where divided by K.
        let count: usize = step
            .places
            .iter()
            .filter(|&&place| context.told[place])
            .map(|&place| context.tokens[place].len() / context.per_target.max(1))
            .sum();
        let count = count.max(1) as f64;
        let weights = part.spread(|index| f64::from(u8::from(context.told[index])));
        let distilled = weighted_sum(&losses, &weights, count)?;
        let metrics = vec![("distillation", hone_nn::loss::scalar(&distilled)?)];
        let mut value = (distilled * (1.0 - own.group_weight))?;
        if own.group_weight > 0.0 {
            let advantages = part.tensor(part.spread(|index| context.advantages[index]))?;
            let surrogate = clipped_surrogate(logps, &old, &advantages, 0.2, 0.2)?;
            let each = vec![1.0; surrogate.elem_count()];
            value = (value + (weighted_sum(&surrogate, &each, step.tokens as f64)? * own.group_weight)?)?;
        }
        Ok(Loss { value, metrics })
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: Sdpo = settings("sdpo", job.settings)?;
    let home = job.policy.copy()?;
    let rule = Taught::new(&own, &home, job.oracle)?;
    let sampling = Sampling { group: own.group_size, draw: &own.draw, max_tokens: rule.max_tokens };
    let reuse = Reuse { epochs: 1, minibatches: own.minibatches };
    Ok(Product::Policy(learn("sdpo", job, sampling, &own.training, reuse, &rule)?))
}

/// What is the same in every run on riddles.
const SHARED: &str = "group_size = 8\n[draw]\nmax_tokens = 4\n[training]\nlearning_rate = 2e-3\nbatch_size = 8\n\
                      epochs = 6.0\nmax_tokens = 64";

/// Share of right answers to held-out riddles: all, those that the start knew, the others.
fn right(seed: u64, run: fn(Job<'_>) -> Result<Product>, more: &str) -> Result<[f64; 3]> {
    let riddles = Riddles::new(seed)?;
    let (train, held_out) = riddles.records(40);
    let fault = |e: toml::de::Error| Error::Settings { method: "bench".into(), message: e.to_string() };
    let settings: toml::Table = format!("{more}\n{SHARED}").parse().map_err(fault)?;
    let policy = run(riddles.job(&train, &settings)?)?.policy()?;
    let (known, rest): (Vec<Record>, Vec<Record>) =
        held_out.iter().cloned().partition(|record| riddles.known(record));
    Ok([riddles.right(&policy, &held_out)?, riddles.right(&policy, &known)?, riddles.right(&policy, &rest)?])
}

/// Runs it on riddles with these settings beside the shared ones.
fn taught(seed: u64, more: &str) -> Result<[f64; 3]> {
    let teach = "teach = \"{{ prompt }} answer {{ answer }} check {% if feedback %}{{ feedback }}{% else %}solution \
                 {{ solution }}{% endif %} better\"";
    right(seed, run, &format!("{teach}\n{more}"))
}

fn grouped(seed: u64) -> Result<[f64; 3]> {
    right(seed, grpo::GRPO.run, "kl_weight = 0.0")
}

fn beats_grpo(seed: u64) -> Result<f64> {
    Ok(taught(seed, "")?[0] - grouped(seed)?[0])
}

fn gains_where_all_fail(seed: u64) -> Result<f64> {
    let (own, grpo) = (taught(seed, "")?, grouped(seed)?);
    Ok((own[2] - grpo[2]) - (own[1] - grpo[1]))
}

fn words_beat_solutions(seed: u64) -> Result<f64> {
    Ok(taught(seed, "")?[0] - taught(seed, "feedback = false")?[0])
}

fn slow_teacher_helps(seed: u64) -> Result<f64> {
    Ok(taught(seed, "")?[0] - taught(seed, "teacher = \"current\"")?[0])
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::bench::{assert_close, assert_holds, tensor};

    fn rows(values: &[f64]) -> Tensor {
        tensor(values).reshape(((), 2)).unwrap().log().unwrap()
    }

    #[test]
    fn divergences_by_hand() {
        let (policy, teacher) = (rows(&[0.5, 0.5]), rows(&[0.9, 0.1]));
        // 0.5 ln(0.5/0.9) + 0.5 ln(0.5/0.1) = −0.293893 + 0.804719.
        assert_close(&divergence(&policy, &teacher, 1.0).unwrap(), &[0.510826]);
        // 0.9 ln(0.9/0.5) + 0.1 ln(0.1/0.5) = 0.529008 − 0.160944.
        assert_close(&divergence(&policy, &teacher, 0.0).unwrap(), &[0.368064]);
        // The mean is 0.7, 0.3: ½ (0.5 ln(0.5/0.7) + 0.5 ln(0.5/0.3)) + ½ (0.9 ln(0.9/0.7) + 0.1 ln(0.1/0.3)):
        // ½ (−0.168236 + 0.255413) + ½ (0.226183 − 0.109861).
        assert_close(&divergence(&policy, &teacher, 0.5).unwrap(), &[0.101749]);
        assert_close(&divergence(&policy, &policy, 0.5).unwrap(), &[0.0]);
    }

    #[test]
    fn slopes_by_finite_differences() {
        let teacher = rows(&[0.7, 0.2]);
        let at = [0.3f64.ln(), 0.4f64.ln()];
        for (alpha, tail) in [(0.0, true), (0.5, true), (1.0, true), (0.5, false)] {
            let of = |x: &Tensor| {
                let policy = whole(&x.reshape((1, 2)).unwrap(), tail).unwrap();
                divergence(&policy, &whole(&teacher, tail).unwrap(), alpha).unwrap().sum_all().unwrap()
            };
            let variable = Var::from_tensor(&Tensor::new(&at, &Device::Cpu).unwrap()).unwrap();
            let grads = of(&variable).backward().unwrap();
            let slopes: Vec<f64> = grads.get(&variable).unwrap().to_vec1().unwrap();
            for (index, slope) in slopes.iter().enumerate() {
                let moved = |by: f64| {
                    let mut at = at;
                    at[index] += by;
                    of(&tensor(&at)).to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((slope - expected).abs() < 1e-7, "alpha {alpha}: {slope}, {expected}");
            }
        }
    }

    #[test]
    fn what_is_left_is_one_more_token() {
        // 0.3 and 0.4 leave 0.3; normalised they are 3/7 and 4/7.
        let logps = rows(&[0.3, 0.4]);
        assert_close(&whole(&logps, true).unwrap().exp().unwrap(), &[0.3, 0.4, 0.3]);
        assert_close(&whole(&logps, false).unwrap().exp().unwrap(), &[3.0 / 7.0, 4.0 / 7.0]);
    }

    #[test]
    fn the_trust_region_is_a_normalised_mean() {
        // √(0.5·0.9) = 0.670820, √(0.5·0.1) = 0.223607, of 0.894427 together: 0.75, 0.25.
        let mixed = mixed(&[0.5f32.ln(), 0.5f32.ln()], &[0.9f32.ln(), 0.1f32.ln()], 0.5);
        assert!((mixed[0].exp() - 0.75).abs() < 1e-6 && (mixed[1].exp() - 0.25).abs() < 1e-6);
    }

    #[test]
    fn only_who_is_told_something_is_taught() {
        let riddles = Riddles::new(1).unwrap();
        let policy = riddles.policy().unwrap();
        let (records, _) = riddles.records(2);
        let rollout = |at: usize, right: bool| {
            let prompt = policy.tokenizer.encode(&records[at].prompt.text(), true).unwrap();
            let text = if right { riddles.reference(&records[at]).unwrap().unwrap() } else { "right".into() };
            let sequence = Sequence::of_tokens(&prompt, &policy.tokenizer.encode(&text, false).unwrap());
            let logps = vec![-1.0; sequence.targets()];
            Rollout {
                record: at,
                group: at,
                sequence,
                logps,
                reward: f64::from(u8::from(right)),
                ended: true,
            }
        };
        // Group 0: right and wrong; group 1: right alone, which there is nothing to say of.
        let start = vec![rollout(0, true), rollout(0, false), rollout(1, true)];
        for (feedback, solution, kept) in [(true, true, 1), (false, true, 1), (true, false, 1)] {
            for teacher in [Teacher::Current, Teacher::TrustRegion] {
                let own = Sdpo { feedback, solution, teacher, top_k: 5, ..Sdpo::default() };
                let rule = Taught::new(&own, &policy, Some(&riddles)).unwrap();
                let mut kept_notes = std::collections::BTreeMap::new();
                let (current, reference) = (&policy.model, &policy.model);
                let look = &mut Look {
                    current,
                    reference,
                    average: None,
                    records: &records,
                    kept: &mut kept_notes,
                    seed: 1,
                };
                let mut rollouts = start.clone();
                let context = rule.prepare(look, &mut rollouts).unwrap();
                assert_eq!(rollouts.len(), kept, "feedback {feedback}, solution {solution}");
                assert_eq!((context.per_target, context.cut), (5, true));
                assert_eq!(context.teacher[0].len(), 5 * rollouts[0].sequence.targets());
                assert!(context.teacher[0].iter().all(|logp| *logp < 0.0));
            }
        }
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let refused = |text: &str| (SDPO.check)(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(refused("alpha = 1.5").contains("`alpha`: needs a share in [0, 1]"));
        assert!(refused("feedback = false\nsolution = false").contains("told nothing teaches nothing"));
        assert!(refused("rate = 0.0").contains("`rate`"));
    }

    #[test]
    fn claim_beats_grpo() {
        assert_holds(beats_grpo, 5);
    }

    #[test]
    fn claim_gains_where_all_fail() {
        assert_holds(gains_where_all_fail, 5);
    }

    #[test]
    fn claim_words_beat_solutions() {
        assert_holds(words_beat_solutions, 5);
    }

    #[test]
    fn claim_a_slow_teacher_helps() {
        assert_holds(slow_teacher_helps, 5);
    }
}
