//! Critique-GRPO.

mod claims;
mod refine;

use candle_core::Tensor;
use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_lm::Local;
use hone_nn::loss::{Kl, cross_entropy, entropy_bonus};
use hone_nn::{Loss, Want};
use hone_worlds::people::Tells;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::method::{
    Claim, Family, Job, Makes, Needs, Product, Settings, above_zero, method, not_negative, settings,
};
use crate::oracle::Oracle;
use crate::policy::Policy;
use crate::refine::majority_vote::Final;
use crate::refine::{Draw, judge};
use crate::reinforce::{
    Look, Part, Reuse, Rollout, Rule, Sampling, Step, check_draw, clipped_surrogate, group_advantages, learn,
    token_logps,
};
use crate::templates::Templates;
use crate::train::{Decay, Training};

method! {
    /// GRPO in which one answer of each group is a refinement that the policy wrote after reading what is wrong.
    /// # What it does
    /// Samples answers to each prompt, has each criticised, and lets the policy write each again with the critique before
    /// it. The first refinement that is right (or the best) joins the group as if it were an answer to the bare prompt;
    /// advantages are rewards less the group's mean. Sampled answers take the ratio of now to then; the refinement's tokens
    /// take `p / (p + gamma)`, which presses most where the policy finds them unlikely but not impossible. Where all answers
    /// are wrong GRPO learns nothing, and this does. Critiques are a verdict, the verdict with the right answer, the
    /// oracle's words on the first error, a critic model's, or the policy's own.
    /// # Feedback
    /// Prompts whose answers can be checked, by an oracle that can say what is wrong: a world's or tests. Logged critiques
    /// are not read: each answer is new.
    /// # Departs from the paper
    /// Only the answers that join the group are sampled (7 and their 7 refinements, not 8 and 8). The critic model is a
    /// folder here, GPT-4o there. AdamW's clipping is the trainer's. Answers longer than the settings allow are left out.
    /// `scale_rewards` gives the release as it ran, which divided by the deviation, with 1e-4 beside it instead of 1e-6.
    /// Prompts' words are this project's; the built-in model is asked in its own.
    /// # Claim
    /// Effects are means over five seeds with the half width of their 95 % interval. One holds: on riddles of which the policy
    /// knows half, the shaping ends with more right answers than plain probability, +0.085 ± 0.022
    /// (`claim_shaping_beats_probability`).
    ///
    /// Seven are undecided and two come out reversed. Undecided: against GRPO of as many samples
    /// +0.10 ± 0.17 (`claim_beats_grpo`), on prompts that the start answers
    /// by chance alone more than on others by +0.12 ± 0.14 (`claim_gains_where_all_fail`): right on average, and undecided,
    /// since GRPO finds the two right words by chance in some seeds. Twelve passes instead of six give +0.11 ± 0.18 and
    /// +0.16 ± 0.39; a start that slips more often and four passes gave +0.05 ± 0.09 and, holding, +0.094 ± 0.089.
    /// Reversed: the right answer in the refinement's place teaches more, by 0.13 ± 0.09 (`claim_beats_a_demonstration`): it is
    /// two words that are always right, where the critique mends one of them at a time; and the bare ratio teaches more, by
    /// 0.25 ± 0.14 (`claim_shaping_beats_ratio`): its slope does not fall with `p`, and nothing here is long enough to
    /// collapse. One refinement against four, +0.02 ± 0.22 (`claim_one_refinement_is_enough`), and their entropy, +0.02 ± 0.11
    /// (`claim_many_refinements_raise_entropy`), are undecided. Keeping wrong refinements costs 0.018 ± 0.035, so that five
    /// points are just not excluded (`claim_wrong_refinements_cost_little`), undecided too. The right result mends no more than
    /// a verdict, -0.04 ± 0.08 (`claim_gold_mends_more_than_a_verdict`): the built-in model was never told a result alone. On sums
    /// that it fails four times of four, the oracle's words mend as much as the right result does, -0.001 ± 0.117
    /// (`claim_words_mend_most`), the seventh: there are about ten such sums in 200. With an earlier built-in model, which
    /// mended less by itself, words were ahead by 0.103 ± 0.066.
    /// # Source
    /// Zhang et al., arXiv:2506.03106; code zhangxy-2019/critique-GRPO.
    pub static CRITIQUE_GRPO: Method = Method {
        id: "critique-grpo", name: "Critique-GRPO", family: Family::Reinforce, needs: Needs::Checks,
        makes: Makes::Policy, settings: CritiqueGrpo,
        claims: &[
            Claim {
                name: "claim_beats_grpo",
                says: "Answers to held-out riddles are right more often after Critique-GRPO than after GRPO on as many samples.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "no refinement in the group, as many sampled answers instead, same code",
                effect: claims::beats_grpo,
            },
            Claim {
                name: "claim_gains_where_all_fail",
                says: "The gain over GRPO is larger on prompts that the start answers right by chance alone.",
                metric: "gain over GRPO in the share of right answers, on such prompts less on the others",
                baseline: "no refinement in the group, as many sampled answers instead, same code",
                effect: claims::gains_where_all_fail,
            },
            Claim {
                name: "claim_beats_a_demonstration",
                says: "A refinement of the policy's own teaches more than the right answer from outside in its place.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "the right answer as the group's last member, same shaping, as many samples",
                effect: claims::beats_a_demonstration,
            },
            Claim {
                name: "claim_shaping_beats_probability",
                says: "p / (p + gamma) learns refinements that the policy finds unlikely faster than p does.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "`shaping = \"probability\"`, all else equal",
                effect: claims::shaping_beats_probability,
            },
            Claim {
                name: "claim_shaping_beats_ratio",
                says: "p / (p + gamma) ends with more right answers than the bare ratio of now to then.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "`shaping = \"ratio\"`, all else equal",
                effect: claims::shaping_beats_ratio,
            },
            Claim {
                name: "claim_one_refinement_is_enough",
                says: "One refinement per group ends with more right answers than four.",
                metric: "share of right answers to held-out prompts at temperature 1",
                baseline: "`refinements = 4`, same slots",
                effect: claims::one_is_enough,
            },
            Claim {
                name: "claim_many_refinements_raise_entropy",
                says: "Four refinements per group leave the policy with more entropy than one.",
                metric: "mean entropy of the next token in answers to held-out prompts, in nats",
                baseline: "`refinements = 1`, same slots",
                effect: claims::many_raise_entropy,
            },
            Claim {
                name: "claim_wrong_refinements_cost_little",
                says: "Keeping wrong refinements costs less than five points of right answers.",
                metric: "share of right answers to held-out prompts at temperature 1, plus 0.05",
                baseline: "`keep_wrong = false`, the right answer's end told in both",
                effect: claims::wrong_cost_little,
            },
            Claim {
                name: "claim_words_mend_most",
                says: "Of sums that the built-in model fails four times of four, the oracle's words on the first error mend more than the right result does.",
                metric: "share of refinements that are right",
                baseline: "refinements after the verdict with the right result",
                effect: claims::words_mend_most,
            },
            Claim {
                name: "claim_gold_mends_more_than_a_verdict",
                says: "Of the same sums, the verdict with the right result mends more than the verdict alone.",
                metric: "share of refinements that are right",
                baseline: "refinements after the verdict alone",
                effect: claims::gold_mends_more,
            },
        ],
        run,
    };
}

/// What is said of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Critique {
    /// That it is right or wrong.
    Verdict,
    /// And what the right answer is.
    Gold,
    /// The oracle's words on the first error.
    Words,
    /// The words of the model in `critic_model`, which sees the right answer where the oracle has one; right answers get
    /// the verdict.
    Model,
    /// The policy's own words.
    Own,
}

/// Who joins a group of sampled answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guest {
    /// Refinements of the policy's own.
    Refinement,
    /// A right answer of the oracle's (LUFFY, arXiv:2504.14945).
    Demonstration,
    /// Nobody: GRPO.
    Nobody,
}

/// What is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The mixed group.
    Group,
    /// The likelihood of guests that are right, alone: refinement fine-tuning, or fine-tuning on demonstrations.
    Imitate,
}

/// What multiplies the advantage of a guest's token of probability `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shaping {
    /// `p / (p + gamma)`.
    Shaped,
    /// `p`.
    Probability,
    /// `p` now over `p` before the step, both after the bare prompt.
    Ratio,
}

impl Shaping {
    /// `[M]` from `[M]` log-probabilities in nats after the bare prompt, now and before the step.
    ///
    /// # Errors
    /// Those of the tensor library, for lengths that differ.
    pub fn of(self, logps: &Tensor, old: &Tensor, gamma: f64) -> hone_nn::Result<Tensor> {
        Ok(match self {
            Shaping::Shaped => {
                let p = logps.exp()?;
                (&p / (&p + gamma)?)?
            }
            Shaping::Probability => logps.exp()?,
            Shaping::Ratio => (logps - old)?.exp()?,
        })
    }
}

/// Settings of Critique-GRPO. Defaults are the authors'.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CritiqueGrpo {
    /// Members of a group, guests included, at least 2. Paper: 8.
    pub group_size: usize,
    /// Refinements among them, at least 1 and fewer than all. Paper: 1.
    pub refinements: usize,
    /// Who joins.
    pub guest: Guest,
    /// What is trained on.
    pub objective: Objective,
    /// What is said of an answer. Release: `gold`; best in the paper: critiques of a large model.
    pub critique: Critique,
    /// How much the oracle's words tell.
    pub detail: Tells,
    /// What of a right answer is told.
    pub gold: Final,
    /// Folder of the model that criticises; needed if it does.
    pub critic_model: String,
    /// What is said of a right answer.
    pub says_right: String,
    /// What is said of a wrong answer.
    pub says_wrong: String,
    /// What is said where the right answer is told, a Jinja template over `gold`.
    pub says_gold: String,
    /// What a model is asked for a critique, a Jinja template over `prompt`, `answer` and `gold` (empty where unknown, and
    /// for the policy's own critiques).
    pub criticise: String,
    /// What is asked for a refinement, a Jinja template over `prompt`, `answer` and `critique`.
    pub refine: String,
    /// Whether a refinement that is wrong joins all the same. Paper: it does.
    pub keep_wrong: bool,
    /// What multiplies a guest's advantage.
    pub shaping: Shaping,
    /// γ of the shaping, above 0. Paper: 0.1.
    pub gamma: f64,
    /// How far a sampled answer's ratio may leave 1 and still gain; 0 for no limit, as in the paper. Configuration: 0.2.
    pub clip: f64,
    /// Divide advantages by the group's standard deviation. Paper: no; the release as run: yes.
    pub scale_rewards: bool,
    /// Weight of the entropy bonus, at least 0. Paper: 0.001.
    pub entropy_weight: f64,
    /// Weight of the divergence from the start (k3), at least 0. Paper: 0.
    pub kl_weight: f64,
    /// Optimiser steps per iteration, at least 1. Paper: 2, of 64 prompts each.
    pub minibatches: usize,
    /// How answers and refinements are sampled; `max_tokens` is what losses are divided by, too. Paper: temperature 1, 6,144
    /// tokens.
    pub draw: Draw,
    /// How critiques are sampled. Paper: temperature 0.7, top-p 0.75.
    pub critic_draw: Draw,
    /// The descent, counted in prompts. Paper: 128 prompts, 30 epochs, learning rate 1e-6, weight decay 0.01.
    pub training: Training,
}

impl Default for CritiqueGrpo {
    fn default() -> CritiqueGrpo {
        let training = Training {
            learning_rate: 1e-6,
            batch_size: 128,
            epochs: 30.0,
            warm_up: 0.0,
            decay: Decay::Constant,
            weight_decay: 0.01,
            max_tokens: 8192,
            ..Training::default()
        };
        CritiqueGrpo {
            group_size: 8,
            refinements: 1,
            guest: Guest::Refinement,
            objective: Objective::Group,
            critique: Critique::Gold,
            detail: Tells::Correction,
            gold: Final::LastNumber,
            critic_model: String::new(),
            says_right: "The answer is right.".into(),
            says_wrong: "The answer is wrong.".into(),
            says_gold: "The answer is wrong. The right answer is {{ gold }}.".into(),
            criticise: include_str!("prompts/criticise.jinja").into(),
            refine: include_str!("prompts/refine.jinja").into(),
            keep_wrong: true,
            shaping: Shaping::Shaped,
            gamma: 0.1,
            clip: 0.0,
            scale_rewards: false,
            entropy_weight: 0.001,
            kl_weight: 0.0,
            minibatches: 2,
            draw: Draw { max_tokens: 6144, ..Draw::default() },
            critic_draw: Draw { temperature: 0.7, top_p: 0.75, max_tokens: 1024, ..Draw::default() },
            training,
        }
    }
}

impl Settings for CritiqueGrpo {
    fn check(&self) -> Result<()> {
        let id = "critique-grpo";
        if self.group_size < 2 {
            return Err(Error::range(id, "group_size", "at least 2", self.group_size));
        }
        if !(1..self.group_size).contains(&self.refinements) {
            let needed = format!("at least 1 and fewer than the {} of a group", self.group_size);
            return Err(Error::range(id, "refinements", &needed, self.refinements));
        }
        if self.critique == Critique::Model && self.critic_model.is_empty() {
            let needed = "the folder of a model, since `critique` is `model`";
            return Err(Error::range(id, "critic_model", needed, "none"));
        }
        above_zero(id, "gamma", self.gamma)?;
        for (key, value) in
            [("clip", self.clip), ("entropy_weight", self.entropy_weight), ("kl_weight", self.kl_weight)]
        {
            not_negative(id, key, value)?;
        }
        if self.clip >= 1.0 {
            return Err(Error::range(id, "clip", "a number in [0, 1)", self.clip));
        }
        if self.minibatches == 0 {
            return Err(Error::range(id, "minibatches", "at least 1", 0));
        }
        self.templates()?;
        check_draw(id, &self.draw)?;
        self.critic_draw.check(id)?;
        self.training.check(id)
    }
}

impl CritiqueGrpo {
    fn templates(&self) -> Result<Templates<'_>> {
        let sources =
            [("says_gold", &*self.says_gold), ("criticise", &*self.criticise), ("refine", &*self.refine)];
        Templates::new("critique-grpo", &sources)
    }

    /// Answers that are sampled for a group.
    fn sampled(&self) -> usize {
        match self.guest {
            Guest::Nobody => self.group_size,
            Guest::Demonstration => self.group_size - 1,
            Guest::Refinement => self.group_size - self.refinements,
        }
    }
}

/// The settings with all they call upon.
struct Mixed<'a> {
    own: &'a CritiqueGrpo,
    templates: Templates<'a>,
    /// The text side of the policy.
    home: &'a Policy,
    critic: Option<Local>,
    oracle: Option<&'a dyn Oracle>,
    /// Longest sequence, in tokens.
    max_tokens: usize,
}

impl<'a> Mixed<'a> {
    fn new(own: &'a CritiqueGrpo, home: &'a Policy, oracle: Option<&'a dyn Oracle>) -> Result<Mixed<'a>> {
        let critic = match own.critique {
            Critique::Model => Some(Policy::from_folder(own.critic_model.as_ref())?.speaker()?),
            _ => None,
        };
        let max_tokens = own.training.tokens_for(&home.model);
        Ok(Mixed { own, templates: own.templates()?, home, critic, oracle, max_tokens })
    }
}

/// What is kept of an iteration.
#[derive(Debug, Default)]
struct Context {
    /// `[rollouts]`: whether it came as a guest.
    guests: Vec<bool>,
    advantages: Vec<f64>,
    /// `[rollouts][T]` in nats; empty without a penalty.
    reference: Vec<Vec<f32>>,
    /// Share of right ones among all refinements of the iteration.
    mended: f64,
}

impl Rule for Mixed<'_> {
    type Context = Context;

    fn reward(&self, id: &str, oracle: Option<&dyn Oracle>, record: &Record, answer: &str) -> Result<f64> {
        Ok(f64::from(u8::from(judge(id, oracle, record, answer)?.right)))
    }

    fn want(&self, draw: &Draw) -> Want {
        Want {
            temperature: draw.temperature as f32,
            entropies: self.own.objective == Objective::Group,
            ..Want::default()
        }
    }

    fn prepare(&self, look: &mut Look<'_>, rollouts: &mut Vec<Rollout>) -> Result<Context> {
        let mut context = Context::default();
        let mut guests = match self.own.guest {
            Guest::Nobody => vec![],
            Guest::Demonstration => self.demonstrations(look, rollouts)?,
            Guest::Refinement => {
                let refined = self.refine(look.current, look.records, rollouts, look.seed)?;
                context.mended = mean(&refined.iter().map(|(rollout, _)| rollout.reward).collect::<Vec<_>>());
                self.choose(refined)
            }
        };
        let known = token_logps(look.current, &guests, &self.own.draw)?;
        for (guest, logps) in guests.iter_mut().zip(known) {
            guest.logps = logps;
        }
        let mut guests = guests.into_iter().peekable();
        let sampled = std::mem::take(rollouts);
        for group in sampled.chunk_by(|a, b| a.group == b.group) {
            rollouts.extend(group.iter().cloned());
            context.guests.resize(rollouts.len(), false);
            let place = group[0].group;
            while let Some(guest) = guests.next_if(|guest| guest.group == place) {
                rollouts.push(guest);
                context.guests.push(true);
            }
        }
        if self.own.objective == Objective::Imitate {
            let mut is_guest = context.guests.iter();
            rollouts.retain(|rollout| is_guest.next() == Some(&true) && rollout.reward > 0.0);
            context.guests = vec![true; rollouts.len()];
        }
        context.advantages = group_advantages(rollouts, self.own.scale_rewards);
        if self.own.kl_weight > 0.0 {
            context.reference = token_logps(look.reference, rollouts, &self.own.draw)?;
        }
        Ok(context)
    }

    fn loss(&self, part: &Part<'_>, context: &Context, step: &Step) -> hone_nn::Result<Loss> {
        let (own, logps) = (self.own, &part.outputs.logps);
        if own.objective == Objective::Imitate {
            return Ok(cross_entropy(logps, None, step.tokens as f64)?.into());
        }
        let old = part.old_logps()?;
        let advantages = part.tensor(part.spread(|index| context.advantages[index]))?;
        let guest: Vec<u8> = part
            .spread(|index| f64::from(u8::from(context.guests[index])))
            .into_iter()
            .map(|is| u8::from(is > 0.5))
            .collect();
        let guest = Tensor::new(guest, logps.device())?;
        let sampled = match own.clip > 0.0 {
            true => clipped_surrogate(logps, &old, &advantages, own.clip, own.clip)?,
            false => ((logps - &old)?.exp()? * &advantages)?.neg()?,
        };
        let guests = (own.shaping.of(logps, &old, own.gamma)? * &advantages)?.neg()?;
        let mut losses = guest.where_cond(&guests, &sampled)?;
        if own.kl_weight > 0.0 {
            let reference = part.tensor(part.gather(&context.reference))?;
            losses = (losses + (Kl::K3.estimate(logps, &reference)? * own.kl_weight)?)?;
        }
        // A fixed length, not the realised one: no answer weighs less for being long.
        let mut value = (losses.sum_all()? / own.draw.max_tokens as f64)?;
        let mut metrics = vec![];
        if let Some(entropies) = &part.outputs.entropies {
            let weights = vec![1.0; entropies.elem_count()];
            value = (value + entropy_bonus(entropies, &weights, step.tokens as f64, own.entropy_weight)?)?;
            metrics.push(("entropy", hone_nn::loss::scalar(&entropies.sum_all()?)? / step.tokens as f64));
        }
        let count = |up: bool| {
            let of = part.indices.iter().filter(|&&index| {
                let advantage = context.advantages[index];
                context.guests[index] && if up { advantage > 0.0 } else { advantage < 0.0 }
            });
            of.count() as f64
        };
        metrics.extend([("guests/raised", count(true)), ("guests/lowered", count(false))]);
        metrics
            .push(("refinements/right", context.mended * part.rollouts.len() as f64 / step.rollouts as f64));
        Ok(Loss { value, metrics })
    }
}

fn run(job: Job<'_>) -> Result<Product> {
    let own: CritiqueGrpo = settings("critique-grpo", job.settings)?;
    let home = job.policy.copy()?;
    let rule = Mixed::new(&own, &home, job.oracle)?;
    let sampling = Sampling { group: own.sampled(), draw: &own.draw, max_tokens: rule.max_tokens };
    let reuse = Reuse { epochs: 1, minibatches: own.minibatches };
    Ok(Product::Policy(learn("critique-grpo", job, sampling, &own.training, reuse, &rule)?))
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;
    use crate::bench::riddles::Riddles;
    use crate::bench::{assert_close, assert_holds, tensor};
    use crate::policy::Sequence;

    #[test]
    fn shaping_by_hand_and_its_slope() {
        // p = 0.1 and 0.9 at γ = 0.1: 0.5 and 0.9.
        let logps = tensor(&[0.1f64.ln(), 0.9f64.ln()]);
        assert_close(&Shaping::Shaped.of(&logps, &logps, 0.1).unwrap(), &[0.5, 0.9]);
        assert_close(&Shaping::Probability.of(&logps, &logps, 0.1).unwrap(), &[0.1, 0.9]);
        assert_close(&Shaping::Ratio.of(&logps, &logps, 0.1).unwrap(), &[1.0, 1.0]);
        // The slope by log p is γ p / (p + γ)²: 0.25 at p = γ, where it is largest, 0.09 at 0.9, 0.00098 at 0.0001.
        for (p, slope) in [(0.1, 0.25), (0.9, 0.09), (1e-4, 1e-5 / 0.1001f64.powi(2))] {
            let at = Var::from_tensor(&Tensor::new(&[f64::ln(p)], &Device::Cpu).unwrap()).unwrap();
            let grads = Shaping::Shaped.of(&at, &at, 0.1).unwrap().sum_all().unwrap().backward().unwrap();
            assert_close(grads.get(&at).unwrap(), &[slope]);
        }
    }

    fn own(more: &str) -> CritiqueGrpo {
        settings("critique-grpo", &claims::on_riddles(more).unwrap()).unwrap()
    }

    /// Two groups of two wrong answers, and what is made of them.
    fn prepared(own: &CritiqueGrpo) -> (Vec<Rollout>, Context) {
        let riddles = Riddles::new(1).unwrap();
        let policy = riddles.policy().unwrap();
        let (records, _) = riddles.records(2);
        let wrong = policy.tokenizer.encode("right", false).unwrap();
        let rollout = |at: usize| {
            let prompt = policy.tokenizer.encode(&records[at / 2].prompt.text(), true).unwrap();
            let sequence = Sequence::of_tokens(&prompt, &wrong);
            Rollout { record: at / 2, group: at / 2, sequence, logps: vec![-1.0], reward: 0.0, ended: true }
        };
        let mut rollouts: Vec<Rollout> = (0..4).map(rollout).collect();
        let rule = Mixed::new(own, &policy, Some(&riddles)).unwrap();
        let mut kept = std::collections::BTreeMap::new();
        let (current, reference) = (&policy.model, &policy.model);
        let look =
            &mut Look { current, reference, average: None, records: &records, kept: &mut kept, seed: 1 };
        let context = rule.prepare(look, &mut rollouts).unwrap();
        (rollouts, context)
    }

    #[test]
    fn a_guest_answers_the_bare_prompt_and_counts_in_the_mean() {
        let (rollouts, context) = prepared(&own("guest = \"demonstration\"\ngroup_size = 3"));
        assert_eq!(context.guests, [false, false, true, false, false, true]);
        // One right of three: ⅔ for it, −⅓ for the others, no deviation, no length.
        for (advantage, expected) in context.advantages.iter().zip([-1.0, -1.0, 2.0, -1.0, -1.0, 2.0]) {
            assert!((advantage - expected / 3.0).abs() < 1e-12, "{:?}", context.advantages);
        }
        let asked = |rollout: &Rollout| rollout.sequence.split().0;
        assert_eq!(asked(&rollouts[2]), asked(&rollouts[0]));
        let (refined, context) = prepared(&own("group_size = 3"));
        assert_eq!(context.guests, [false, false, true, false, false, true]);
        assert_eq!(asked(&refined[2]), asked(&refined[0]));
        // What it was sampled under is not what it is trained under.
        assert_eq!(refined[2].logps.len(), refined[2].sequence.targets());
    }

    #[test]
    fn without_a_guest_a_group_of_failures_teaches_nothing() {
        let (rollouts, context) = prepared(&own("guest = \"nobody\""));
        assert_eq!((rollouts.len(), context.advantages), (4, vec![0.0; 4]));
    }

    #[test]
    fn imitation_keeps_right_guests_alone() {
        let (rollouts, _) =
            prepared(&own("guest = \"demonstration\"\nobjective = \"imitate\"\ngroup_size = 3"));
        assert_eq!(rollouts.iter().map(|r| r.reward).collect::<Vec<_>>(), [1.0, 1.0]);
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let refused = |text: &str| (CRITIQUE_GRPO.check)(&text.parse().unwrap()).unwrap_err().to_string();
        assert!(refused("refinements = 8").contains("fewer than the 8 of a group"));
        assert!(refused("critique = \"model\"").contains("`critic_model`"));
        assert!(refused("refine = \"{{ prompt\"").contains("`refine`: syntax error"));
        assert!(refused("clip = 1.0").contains("`clip`"));
    }

    /// Checks the mean of an effect that does not hold here (see the method's comment): a change that makes it hold, or
    /// fail by far, is to be noticed.
    #[track_caller]
    fn assert_within(effect: fn(u64) -> Result<f64>, range: std::ops::Range<f64>) {
        let (mean, _, values) = crate::bench::over_seeds(effect, 5).unwrap();
        assert!(range.contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_beats_grpo() {
        assert_within(claims::beats_grpo, 0.0..0.2);
    }

    #[test]
    fn claim_gains_where_all_fail() {
        assert_within(claims::gains_where_all_fail, 0.0..0.25);
    }

    #[test]
    fn claim_beats_a_demonstration() {
        assert_within(claims::beats_a_demonstration, -0.25..0.0);
    }

    #[test]
    fn claim_shaping_beats_probability() {
        assert_holds(claims::shaping_beats_probability, 5);
    }

    #[test]
    fn claim_shaping_beats_ratio() {
        assert_within(claims::shaping_beats_ratio, -0.4..0.0);
    }

    #[test]
    fn claim_one_refinement_is_enough() {
        assert_within(claims::one_is_enough, -0.15..0.15);
    }

    #[test]
    fn claim_many_refinements_raise_entropy() {
        assert_within(claims::many_raise_entropy, -0.1..0.1);
    }

    #[test]
    fn claim_wrong_refinements_cost_little() {
        assert_within(claims::wrong_cost_little, -0.02..0.1);
    }

    #[test]
    fn claim_words_mend_most() {
        assert_within(claims::words_mend_most, -0.12..0.12);
    }

    #[test]
    fn claim_gold_mends_more_than_a_verdict() {
        assert_within(claims::gold_mends_more, -0.12..0.05);
    }
}
