//! Advantage-leftover lunch: offline policy gradient on whole answers.

mod claims;
pub mod logged;
pub mod value;
mod weights;

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_nn::train::Trainer;
use hone_nn::train::seed::{rng, shuffle, sub_seed};
use hone_nn::{Loss, Model, Want, loss};
use serde::{Deserialize, Serialize};

use crate::data::Example;
use crate::error::{Error, Result};
use crate::imitate::sft;
use crate::method::{Family, Job, Makes, Needs, Product, Settings, method, not_negative, settings};
use crate::oracle::Oracle;
use crate::policy::Policy;
use crate::refine::{Draw, prompts, sample};
use crate::train::{Decay, Session, Training, descend_by};
use logged::{Logged, Scorer};
use value::{ValueFit, ValueHead, prompt_states};
use weights::Against;
pub use weights::{Objective, token_weights};

method! {
    /// Learn from logged answers with a reward each, by how much better they are than what the policy would have said.
    /// # What it does
    /// The policy is first fine-tuned on the log; that is the reference. On validation prompts its greedy answers are scored,
    /// and a value head (attention over the reference's last prompt states) learns what to expect of a prompt. An answer's
    /// advantage is its reward less that value; answers without one above 0 are left out, the steps shrink by their share,
    /// and the others are drawn in proportion to it. An answer is one action: `a_lol` multiplies its negative
    /// log-likelihood by the advantage and the clipped ratio of policy to reference; `ref_free` leaves the ratio out; `seq`
    /// clips each token's own ratio; `kl` adds `kl_weight` times the log-ratio. `nll`, `wbc` (reward times likelihood),
    /// `r_gold` and `r_lol` (the reward in the advantage's place) are the baselines. The checkpoint whose greedy answers to
    /// the validation prompts have the highest mean reward is returned.
    /// # Feedback
    /// A response and a number: ratings with a scale, thumbs, outcomes. Marks of several aspects are added up. Greedy
    /// answers are scored by the oracle if it knows the records, else by a reward model fitted to the log.
    /// # Departs from the paper
    /// Full weights unless the policy has an adapter. The reference takes one pass of fine-tuning, with the same settings.
    /// Advantages are computed once: with the head in evaluation mode those of each batch would be the same. No answer
    /// stands twice in a step where there are enough. A resumed run compares checkpoints from there on. PRO is
    /// not among the baselines.
    /// # Claim
    /// Mean reward of answers to held-out prompts, two fifths of the log bad, 5 seeds: weighting by rewards beats `nll` by
    /// 0.061 ± 0.017 (`claim_baselines_above_nll`); the gap to `nll` grows with bad data by 0.087 ± 0.044
    /// (`claim_gap_grows_with_bad_data`); drawing by advantage beats drawing evenly by 0.041 ± 0.034
    /// (`claim_priority_helps`); answers are more varied than DPO's (`claim_answers_vary_more_than_dpos`); advantages have the
    /// sign of the true quality more often than not (`claim_advantages_have_the_right_sign`).
    ///
    /// Not seen here, in one attempt each but for the last: the variants above `r_lol` (`claim_rewards_above_r_lol`,
    /// −0.006 ± 0.062), `wbc` (`claim_rewards_above_wbc`, 0.006 ± 0.046) and `r_gold` (`claim_rewards_above_r_gold`, 0.019 ±
    /// 0.045); the positive part with fewer steps as good as all (`claim_the_positive_part_is_enough`, −0.023 ± 0.032); seeds
    /// nearer to each other than PPO's (`claim_seeds_differ_less`, −0.028 ± 0.031); both components of a sum rising
    /// (`claim_all_components_hold`, 0.039 ± 0.048, no seed falls); values that know prompts (`claim_values_know_prompts`).
    /// The last was −0.004 ± 0.012 with 48 validation prompts and ten passes, as all other claims have them, and is 0.019 ±
    /// 0.026 with 144 and forty; where both words of a prompt count, not the first alone, it was 0.020 ± 0.020. The head so
    /// learns something of prompts in four seeds of five, and not surely: advantages stay noisy, which may be why the
    /// variants tie.
    /// # Source
    /// Baheti et al., ICLR 2024, arXiv:2305.14718.
    pub static A_LOL: Method = Method {
        id: "a-lol", name: "A-LoL", family: Family::Reinforce,
        needs: Needs::Shape(hone_feedback::convert::Shape::ScalarTargets), makes: Makes::Policy, settings: ALol,
        claims: claims::CLAIMS,
        run,
    };
}

/// Settings of A-LoL. Defaults are the paper's for its assistant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ALol {
    /// The loss.
    pub objective: Objective,
    /// How far a ratio may leave 1, ε, in (0, 1]. Paper: 0.9.
    pub clip: f64,
    /// Weight β of the log-ratio in `kl`, at least 0. The paper sets it per run.
    pub kl_weight: f64,
    /// Draw answers in proportion to their advantage, or reward. Paper: yes.
    pub priority: bool,
    /// Keep answers without a positive advantage, their weight clamped to 0, and all steps. Paper: no.
    pub keep_negative: bool,
    /// Leave out answers that end in a colon. Paper: yes.
    pub clean: bool,
    /// Passes of fine-tuning that make the reference; 0 takes the policy as it is.
    pub reference_epochs: f64,
    /// Share of the prompts kept for the value head and the choice of a checkpoint, in (0, 1).
    pub validation: f64,
    /// How often the greedy answers to them are scored, at least 1. Paper: every 900 of 9000 steps.
    pub evaluations: u64,
    /// How far the validation reward must rise for the policy to become the reference, with a new value head; 0 for never.
    pub refresh: f64,
    /// Longest greedy answer, in tokens. Paper: 128.
    pub answer_tokens: usize,
    /// How the value head is fitted.
    pub value: ValueFit,
    /// The descent. Paper: 16 answers a step, learning rate 2e-4, gradients clipped to 0.3.
    pub training: Training,
}

impl Default for ALol {
    fn default() -> ALol {
        ALol {
            objective: Objective::ALol,
            clip: 0.9,
            kl_weight: 0.1,
            priority: true,
            keep_negative: false,
            clean: true,
            reference_epochs: 1.0,
            validation: 0.1,
            evaluations: 10,
            refresh: 0.0,
            answer_tokens: 128,
            value: ValueFit::default(),
            training: Training {
                learning_rate: 2e-4,
                batch_size: 16,
                // 300 of 9000 steps.
                warm_up: 1.0 / 30.0,
                decay: Decay::Constant,
                max_grad_norm: 0.3,
                max_tokens: 768,
                ..Training::default()
            },
        }
    }
}

impl Settings for ALol {
    fn check(&self) -> Result<()> {
        let range = |ok: bool, key: &str, needed: &str, got: f64| match ok {
            true => Ok(()),
            false => Err(Error::range("a-lol", key, needed, got)),
        };
        range(self.clip > 0.0 && self.clip <= 1.0, "clip", "a number in (0, 1]", self.clip)?;
        not_negative("a-lol", "kl_weight", self.kl_weight)?;
        not_negative("a-lol", "reference_epochs", self.reference_epochs)?;
        not_negative("a-lol", "refresh", self.refresh)?;
        let share = self.validation;
        range(share > 0.0 && share < 1.0, "validation", "a share in (0, 1)", share)?;
        range(self.evaluations > 0, "evaluations", "at least 1", 0.0)?;
        range(self.answer_tokens > 0, "answer_tokens", "at least 1", 0.0)?;
        self.value.check("a-lol")?;
        self.training.check("a-lol")
    }
}

/// What scores the policy on the way: validation prompts and their examples.
struct Validation<'a> {
    scorer: Scorer<'a>,
    asked: Vec<Record>,
    examples: Vec<Example>,
    max_value: f64,
}

impl Validation<'_> {
    /// Rewards of greedy answers, in `[0, max_value]`.
    fn rewards(&self, policy: &Policy, model: &Model, tokens: usize) -> Result<Vec<f64>> {
        let speaker = policy.speaker_of(model)?;
        let draw = Draw { temperature: 0.0, max_tokens: tokens, ..Draw::default() };
        let said = sample(&speaker, &prompts(&speaker, &self.asked)?, 1, &draw, 0)?;
        let texts: Vec<String> =
            said.into_iter().map(|s| s.into_iter().next().map(|s| s.text).unwrap_or_default()).collect();
        self.scorer.score(&self.asked, &texts, self.max_value)
    }
}

/// All that comes before the descent: the reference and what it makes of the log.
struct Prepared<'a> {
    own: ALol,
    reference: Policy,
    train: Logged,
    validation: Validation<'a>,
    head: ValueHead,
    advantages: Vec<f64>,
    /// Mean reward of the reference's greedy answers to the validation prompts.
    reward: f64,
    seed: u64,
    session: Session,
}

fn prepare(job: Job<'_>) -> Result<Prepared<'_>> {
    let own: ALol = settings("a-lol", job.settings)?;
    let Job { policy, records, oracle, seed, session, .. } = job;
    let max_tokens = own.training.tokens_for(&policy.model);
    let logged = Logged::read(&policy, records, max_tokens, own.clean)?;
    Error::expect_examples("a-lol", "responses with a mark on a scale", &logged.examples, records)?;
    let mut asked: Vec<usize> = logged.examples.items.iter().map(|item| item.record).collect();
    asked.dedup();
    if asked.len() < 2 {
        let (needed, got) = ("marks on answers to two or more prompts".into(), asked.len().to_string());
        return Err(Error::Data { method: "a-lol".into(), needed, got });
    }
    shuffle(&mut asked, &mut rng(seed, "validation"));
    let count = ((own.validation * asked.len() as f64).ceil() as usize).clamp(1, asked.len() - 1);
    let held: Vec<usize> = asked[..count].to_vec();
    let kept: HashSet<usize> = held.iter().copied().collect();
    let train = logged.of_records(|record| !kept.contains(&record));
    let known = logged.of_records(|record| kept.contains(&record));
    let mut validation = Validation {
        scorer: scorer(&policy, records, oracle, &own, seed)?,
        asked: vec![],
        examples: vec![],
        max_value: logged.max_value,
    };
    for record in held {
        if let Some(item) = known.examples.items.iter().find(|item| item.record == record) {
            validation.asked.push(records[record].clone());
            validation.examples.push(item.clone());
        }
    }
    let mut reference = policy;
    if own.reference_epochs > 0.0 {
        let training = Training { epochs: own.reference_epochs, ..own.training.clone() };
        let nothing = toml::Table::new();
        let (seed, session) = (sub_seed(seed, "reference"), session.stage("reference"));
        let job = Job { policy: reference, records, oracle: None, settings: &nothing, seed, session };
        reference = sft::imitate("a-lol", job, &train.examples, &training)?.policy()?;
    }
    let rewards = validation.rewards(&reference, &reference.model, own.answer_tokens)?;
    let (head, advantages) = advantages(&reference.model, &train, &validation, &rewards, &own, seed)?;
    Ok(Prepared {
        own,
        reference,
        train,
        validation,
        head,
        advantages,
        reward: mean(&rewards),
        seed,
        session,
    })
}

fn scorer<'a>(
    policy: &Policy,
    records: &[Record],
    oracle: Option<&'a dyn Oracle>,
    own: &ALol,
    seed: u64,
) -> Result<Scorer<'a>> {
    let training = toml::Table::try_from(&own.training)
        .map_err(|e| Error::Settings { method: "a-lol".into(), message: e.to_string() })?;
    let table = toml::Table::from_iter([("training".to_string(), training.into())]);
    let (seed, session) = (sub_seed(seed, "scorer"), Session::default());
    Scorer::new(
        Job { policy: policy.copy()?, records, oracle: None, settings: &table, seed, session },
        oracle,
    )
}

/// A value head of this model, and `[examples]` of reward less value.
fn advantages(
    model: &Model,
    train: &Logged,
    validation: &Validation<'_>,
    rewards: &[f64],
    own: &ALol,
    seed: u64,
) -> Result<(ValueHead, Vec<f64>)> {
    let of_prompts = prompt_states(model, &validation.examples.iter().collect::<Vec<_>>())?;
    let head = ValueHead::fit(&of_prompts, rewards, train.max_value, &own.value, seed)?;
    let states = prompt_states(model, &train.examples.items.iter().collect::<Vec<_>>())?;
    let values = head.values(&states)?;
    Ok((head, train.rewards.iter().zip(values).map(|(reward, value)| reward - value).collect()))
}

fn run(job: Job<'_>) -> Result<Product> {
    let Prepared { own, reference, train, validation, advantages: first, reward, seed, session, .. } =
        prepare(job)?;
    let positive = first.iter().filter(|&&a| a > 0.0).count();
    let filters = own.objective.takes_advantage() && !own.keep_negative;
    if filters && positive == 0 {
        let needed = "an answer that is better than the policy's own".to_string();
        let got = format!("none among {}", first.len());
        return Err(Error::Data { method: "a-lol".into(), needed, got });
    }
    let planned = own.training.steps(train.rewards.len());
    let share = if filters { positive as f64 / first.len() as f64 } else { 1.0 };
    let steps = ((planned as f64 * share).round() as u64).max(1);
    let every = steps.div_ceil(own.evaluations).max(1);

    let against = Against::new(&reference.model, &train, &first, &own, reward)?;
    if against.chances.last().is_none_or(|&sum| sum <= 0.0) {
        let (needed, got) = ("answers with a reward above 0".into(), "none".into());
        return Err(Error::Data { method: "a-lol".into(), needed, got });
    }
    let against = RefCell::new(Arc::new(against));
    let mut best: Option<(f64, Policy)> = None;
    let mut consider = |model: &Model| -> Result<Vec<f64>> {
        let rewards = validation.rewards(&reference, model, own.answer_tokens)?;
        let now = mean(&rewards);
        if best.as_ref().is_none_or(|(most, _)| now > *most) {
            best = Some((now, reference.with_weights_of(model)?));
        }
        Ok(rewards)
    };
    let take = |trainer: &mut Trainer| {
        let step = trainer.step_count();
        if step > 0 && step.is_multiple_of(every) {
            let rewards = consider(&trainer.model)?;
            let then = against.borrow().reward;
            if own.refresh > 0.0 && mean(&rewards) > then + own.refresh {
                // The policy becomes the reference: new values, new advantages, new chances.
                let (_, fresh) = advantages(&trainer.model, &train, &validation, &rewards, &own, seed)?;
                let new = Against::new(&trainer.model, &train, &fresh, &own, mean(&rewards))?;
                // Nothing better is left to learn from: the old reference stays.
                if new.chances.last().is_some_and(|&sum| sum > 0.0) {
                    *against.borrow_mut() = Arc::new(new);
                }
            }
        }
        let mut rng = rng(sub_seed(seed, "draws"), &step.to_string());
        Ok(against.borrow().draw(own.training.batch_size, &mut rng))
    };
    let start = reference.copy()?.model;
    let (examples, training, want) = (&train.examples, &own.training, Want::default());
    let current = |_: &Model, _: &[usize]| Ok(against.borrow().clone());
    let last = descend_by(
        start,
        examples,
        training,
        steps,
        seed,
        &session,
        &want,
        take,
        current,
        |part, against| {
            let now: Vec<f32> = part.outputs.logps.to_vec1()?;
            let (mut weights, mut fixed, mut clipped) = (vec![], 0.0, 0.0);
            for (at, &index) in part.indices.iter().enumerate() {
                let (now, then) = (&now[part.batch.target_range(at)], &against.reference[index]);
                let each = token_weights(&own, against.scales[index], now, then);
                weights.extend(each.iter().map(|&w| w as f32));
                let gap: f64 = now.iter().zip(then).map(|(n, t)| f64::from(n - t)).sum();
                clipped += f64::from(u8::from((gap.exp() - 1.0).abs() > own.clip));
                if own.objective == Objective::Kl {
                    fixed += own.kl_weight * then.iter().map(|&t| f64::from(t)).sum::<f64>();
                }
            }
            let count = part.step_examples as f64;
            let value = loss::weighted_sum(&part.outputs.logps, &weights, count)?.neg()?;
            let value = (value - fixed / count)?;
            Ok(Loss { value, metrics: vec![("ratios/clipped", clipped / count)] })
        },
    )?;
    consider(&last)?;
    match best {
        Some((_, policy)) => Ok(Product::Policy(policy)),
        None => Ok(Product::Policy(Policy { model: last, ..reference })),
    }
}

#[cfg(test)]
mod tests {
    use super::claims::*;
    use crate::bench::{self, Bench};
    use hone_feedback::{Form, Prompt};
    use std::path::Path;
    use std::sync::Mutex;

    use hone_feedback::{Feedback, Message};

    use super::*;
    use crate::bench::assert_holds;

    fn own(text: &str) -> ALol {
        settings("a-lol", &text.parse().unwrap()).unwrap()
    }

    #[test]
    fn weights_by_hand() {
        let of = |objective: &str, logps: &[f32], reference: &[f32]| {
            token_weights(&own(&format!("objective = \"{objective}\"")), 2.0, logps, reference)
        };
        let assert = |got: Vec<f64>, expected: &[f64]| {
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?} {expected:?}");
        };
        // Token ratios e^½ = 1.64872 and e^−½ = 0.60653, whole ratio 1.
        let (now, then) = ([-1.0, -2.0], [-1.5, -1.5]);
        assert(of("a_lol", &now, &then), &[2.0, 2.0]);
        assert(of("r_lol", &now, &then), &[2.0, 2.0]);
        assert(of("seq", &now, &then), &[2.0 * 1.648_721_27, 2.0 * 0.606_530_66]);
        assert(of("ref_free", &now, &then), &[2.0, 2.0]);
        assert(of("wbc", &now, &then), &[2.0, 2.0]);
        // 2 − 0.1.
        assert(of("kl", &now, &then), &[1.9, 1.9]);
        assert(of("nll", &now, &then), &[1.0, 1.0]);
        // e^−1 = 0.36788; e^−3 = 0.04979 is raised to 0.1.
        assert(of("r_gold", &[-1.0, -3.0], &then), &[2.0 * 0.367_879_44, 0.2]);
        // Ratios e² and e^−4 leave [0.1, 1.9]; the whole ratio e^−2 = 0.13534 does not.
        let (now, then) = ([-1.0, -5.0], [-3.0, -1.0]);
        assert(of("seq", &now, &then), &[3.8, 0.2]);
        assert(of("a_lol", &now, &then), &[2.0 * 0.135_335_28; 2]);
    }

    #[test]
    fn at_the_reference_all_ratios_are_one() {
        let logps = [-0.5f32, -2.0, -0.1];
        for name in ["a_lol", "ref_free", "seq"] {
            assert_eq!(
                token_weights(&own(&format!("objective = \"{name}\"")), 0.3, &logps, &logps),
                [0.3; 3]
            );
        }
    }

    fn rated(id: &str, answer: &str, marks: &[(&str, f64)]) -> Record {
        marks.iter().fold(Record::new(id, "say w1 w2").respond("a", answer), |record, (aspect, value)| {
            let rating = Form::Rating { on: "a".into(), value: *value, scale: Some([0.0, 4.0]) };
            record.say(Feedback::from(rating).about(*aspect))
        })
    }

    #[test]
    fn rewards_are_sums_over_aspects() {
        let policy = Bench::new(1).unwrap().policy().unwrap();
        let records = [
            rated("both", "w1", &[("fit", 4.0), ("fit", 2.0), ("tone", 1.0)]),
            rated("one", "w2", &[("fit", 1.0)]),
            rated("promise", "w3 :", &[("fit", 4.0)]),
            rated("empty", " ", &[("fit", 4.0)]),
        ];
        let logged = Logged::read(&policy, &records, 64, true).unwrap();
        // (1 + ½) / 2 + ¼; ¼ stretched to two aspects.
        assert_eq!((logged.rewards.as_slice(), logged.max_value), (&[1.0, 0.5][..], 2.0));
        assert_eq!(logged.examples.items[0].labels, [0.75, 0.25]);
        let losses = &logged.examples.losses;
        assert_eq!(losses.of("answers that end in a colon"), 1);
        assert_eq!(losses.of("empty responses"), 1);
        assert_eq!(losses.of("answers without a mark of every aspect"), 1);
        assert_eq!(Logged::read(&policy, &records, 64, false).unwrap().rewards.len(), 3);
    }

    #[test]
    fn draws_follow_the_chances() {
        let against = |scales: &[f64]| Against {
            reference: vec![],
            scales: vec![],
            chances: scales
                .iter()
                .scan(0.0, |sum, s| {
                    Some({
                        *sum += s;
                        *sum
                    })
                })
                .collect(),
            reward: 0.0,
        };
        let (of, mut rng) = (against(&[1.0, 0.0, 3.0]), rng(1, "draws"));
        let mut counts = [0; 3];
        (0..4000).for_each(|_| counts[of.draw(1, &mut rng)[0]] += 1);
        // Standard error of the share ¼ is 0.0068; four of them.
        assert_eq!(counts[1], 0);
        assert!((f64::from(counts[0]) / 4000.0 - 0.25).abs() < 0.028, "{counts:?}");
        // Two of the two that can be drawn, then again one of them.
        let mut two = of.draw(2, &mut rng);
        two.sort_unstable();
        assert_eq!(two, [0, 2]);
        assert_eq!(of.draw(3, &mut rng).len(), 3);
    }

    #[test]
    fn steps_shrink_by_the_positive_share() {
        let shelf = Shelf::new(1).unwrap();
        let records = shelf.log(40, BAD, false, "train");
        let steps = |own: &str| {
            let heard = Arc::new(Mutex::new(vec![]));
            let table = quick(own).unwrap();
            let mut job = shelf.job(&records, &table, 1).unwrap();
            let ears = heard.clone();
            job.session.listener =
                Some(Arc::new(move |_: &hone_nn::train::StepReport, steps| ears.lock().unwrap().push(steps)));
            run(job).unwrap();
            heard.lock().unwrap().last().copied().unwrap()
        };
        let taken = steps("");
        let table = quick("").unwrap();
        let prepared = prepare(shelf.job(&records, &table, 1).unwrap()).unwrap();
        let planned = prepared.own.training.steps(prepared.train.rewards.len()) as f64;
        let positive = prepared.advantages.iter().filter(|&&a| a > 0.0).count();
        assert!(positive > 0 && positive < prepared.advantages.len());
        assert_eq!(taken as f64, (planned * positive as f64 / prepared.advantages.len() as f64).round());
        // Two of three tenths of 40 prompts stay out of training, each with two answers.
        assert_eq!((prepared.validation.asked.len(), prepared.train.rewards.len()), (12, 56));
        assert_eq!(steps("keep_negative = true") as f64, planned);
        assert_eq!(steps("objective = \"wbc\"") as f64, planned);
    }

    #[test]
    fn the_reference_may_move_on() {
        let shelf = Shelf::new(2).unwrap();
        let records = shelf.log(40, BAD, false, "train");
        let table = quick("refresh = 0.001").unwrap();
        let fixed = quick("").unwrap();
        let after = |table| run(shelf.job(&records, table, 1).unwrap()).unwrap().policy().unwrap();
        let (moved, stayed) = (after(&table), after(&fixed));
        assert_ne!(moved.model.params.data[..64], stayed.model.params.data[..64]);
    }

    #[test]
    fn without_an_oracle_a_reward_model_of_the_log_scores() {
        let shelf = Shelf::new(1).unwrap();
        let records = shelf.log(80, BAD, false, "train");
        let table = quick("").unwrap();
        let job = Job { oracle: None, ..shelf.job(&records, &table, 1).unwrap() };
        let prepared = prepare(job).unwrap();
        let Scorer::Model(_) = &prepared.validation.scorer else { panic!("an oracle") };
        let asked = vec![records[0].clone(); 2];
        let texts = [shelf.good[..3].join(" "), shelf.bad[13..].join(" ")];
        let scores = prepared.validation.scorer.score(&asked, &texts, 1.0).unwrap();
        assert!(scores[0] > scores[1] && scores.iter().all(|s| (0.0..=1.0).contains(s)), "{scores:?}");
    }

    #[test]
    fn what_cannot_be_learnt_from_is_an_error() {
        let bench = Bench::new(1).unwrap();
        let nothing = toml::Table::new();
        let said = |records: &[Record]| run(bench.job(records, &nothing).unwrap()).unwrap_err().to_string();
        assert!(said(&bench.records(3, 1, "none")).contains("responses with a mark on a scale"));
        assert!(
            said(&[rated("one", "w1", &[("fit", 4.0)])]).contains("marks on answers to two or more prompts")
        );
    }

    #[test]
    fn settings_outside_their_ranges_are_refused() {
        let refused = |text: &str| settings::<ALol>("a-lol", &text.parse().unwrap()).unwrap_err().to_string();
        assert!(refused("clip = 0").contains("`clip`: needs a number in (0, 1]"));
        assert!(refused("validation = 1.0").contains("`validation`: needs a share in (0, 1)"));
        assert!(refused("evaluations = 0").contains("`evaluations`"));
        assert!(refused("[value]\nheads = 0").contains("`value.heads`: needs at least 1"));
    }

    #[test]
    fn real_answers_are_read_and_cleaned() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/hh_helpful/hh_helpful.jsonl");
        let Ok(text) = std::fs::read_to_string(path) else {
            println!("skipped: hh_helpful is not here");
            return;
        };
        let records: Vec<Record> = text
            .lines()
            .take(150)
            .map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                let turns = row["turns"].as_array().unwrap().iter().map(|turn| {
                    let role = if turn["role"] == "human" { "user" } else { "assistant" };
                    Message::new(role, turn["text"].as_str().unwrap())
                });
                let record = Record::new(row["id"].as_str().unwrap(), Prompt::Messages(turns.collect()));
                [("chosen", true), ("rejected", false)].into_iter().fold(record, |record, (key, value)| {
                    let on = key.to_string();
                    record.respond(key, row[key].as_str().unwrap()).say(Form::Thumb { on, value })
                })
            })
            .collect();
        let policy = crate::tiny::policy().unwrap();
        let logged = Logged::read(&policy, &records, 1 << 16, true).unwrap();
        // 17 of 300 answers end in a colon.
        assert_eq!(logged.examples.losses.of("answers that end in a colon"), 17);
        assert_eq!(logged.rewards.len(), 300 - 17);
        assert!(logged.rewards.iter().all(|r| *r == 0.0 || *r == 1.0));
    }

    /// Claims that do not hold here (see the comment above); a change that makes one hold, or fail by far, is to be noticed.
    #[track_caller]
    fn assert_within(effect: fn(u64) -> Result<f64>, range: std::ops::Range<f64>) {
        let (mean, _, values) = bench::over_seeds(effect, 5).unwrap();
        assert!(range.contains(&mean), "effect {mean:.4}, per seed {values:?}");
    }

    #[test]
    fn claim_rewards_above_r_lol() {
        assert_within(above_r_lol, -0.12..0.1);
    }

    #[test]
    fn claim_rewards_above_wbc() {
        assert_within(above_wbc, -0.1..0.1);
    }

    #[test]
    fn claim_rewards_above_r_gold() {
        assert_within(above_r_gold, -0.1..0.12);
    }

    #[test]
    fn claim_baselines_above_nll() {
        assert_holds(baselines_above_nll, 5);
    }

    #[test]
    fn claim_gap_grows_with_bad_data() {
        assert_holds(gap_grows, 5);
    }

    #[test]
    fn claim_the_positive_part_is_enough() {
        assert_within(positive_part, -0.1..0.05);
    }

    #[test]
    fn claim_priority_helps() {
        assert_holds(priority_helps, 5);
    }

    #[test]
    fn claim_answers_vary_more_than_dpos() {
        assert_holds(varies_more, 5);
    }

    #[test]
    fn claim_seeds_differ_less() {
        assert_within(seeds_differ_less, -0.1..0.03);
    }

    #[test]
    fn claim_all_components_hold() {
        assert_within(components_hold, -0.02..0.15);
    }

    #[test]
    fn claim_values_know_prompts() {
        assert_within(values_know_prompts, -0.01..0.05);
    }

    #[test]
    fn claim_advantages_have_the_right_sign() {
        assert_holds(signs_agree, 5);
    }
}
