//! The claims, and what they are measured on.

use std::collections::HashSet;

use hone_feedback::metrics::{mean, standard_deviation};
use hone_feedback::{Form, Prompt, Record};
use hone_nn::train::seed::{rng, sub_seed};
use rand::Rng;

use super::logged::Logged;
use super::value::prompt_states;
use super::{Prepared, Validation, prepare, run};
use crate::bench::{self, Bench};
use crate::data::Example;
use crate::error::{Error, Result};
use crate::method::{Claim, Job};
use crate::oracle::{Oracle, Verdict};
use crate::policy::Policy;
use crate::preference::dpo;
use crate::refine::{Draw, prompts, sample};
use crate::reinforce::ppo;
use crate::train::Session;

/// The claims of the method.
pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        name: "claim_rewards_above_r_lol",
        says: "The four variants' answers score higher than those of the reward in the advantage's place.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1], mean of the variants",
        baseline: "`r_lol` on the same log",
        effect: above_r_lol,
    },
    Claim {
        name: "claim_rewards_above_wbc",
        says: "The four variants' answers score higher than those of reward-weighted cloning.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1], mean of the variants",
        baseline: "`wbc` on the same log",
        effect: above_wbc,
    },
    Claim {
        name: "claim_rewards_above_r_gold",
        says: "The four variants' answers score higher than those of Reward-GOLD.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1], mean of the variants",
        baseline: "`r_gold` on the same log",
        effect: above_r_gold,
    },
    Claim {
        name: "claim_baselines_above_nll",
        says: "Weighting by rewards scores higher than likelihood alone.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1], mean of the three baselines",
        baseline: "`nll` on the same log, as many steps",
        effect: baselines_above_nll,
    },
    Claim {
        name: "claim_gap_grows_with_bad_data",
        says: "What is gained over likelihood grows with the share of bad answers in the log.",
        metric: "gain in mean reward over `nll` with 60 % bad answers",
        baseline: "the gain with none",
        effect: gap_grows,
    },
    Claim {
        name: "claim_the_positive_part_is_enough",
        says: "Answers with a positive advantage and fewer steps teach as much as all, negative ones clamped to 0.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1]",
        baseline: "`keep_negative = true`, drawn evenly as well, all steps",
        effect: positive_part,
    },
    Claim {
        name: "claim_priority_helps",
        says: "Drawing in proportion to the advantage teaches more than drawing evenly.",
        metric: "mean reward of sampled answers to held-out prompts, in [0, 1]",
        baseline: "`priority = false`, same steps",
        effect: priority_helps,
    },
    Claim {
        name: "claim_answers_vary_more_than_dpos",
        says: "Answers repeat each other less than DPO's.",
        metric: "distinct pairs of words over all pairs in sampled answers, in [0, 1]",
        baseline: "DPO from the same reference on the log's pairs, as many steps",
        effect: varies_more,
    },
    Claim {
        name: "claim_seeds_differ_less",
        says: "Runs that differ in their seed alone end nearer to each other than PPO's.",
        metric: "minus the standard deviation of the mean reward over three seeds of training",
        baseline: "PPO from the same reference, about as many steps",
        effect: seeds_differ_less,
    },
    Claim {
        name: "claim_all_components_hold",
        says: "With a sum of two rewards, the one that changes least does not fall.",
        metric: "growth of the component that grows least over the reference, in shares of its scale",
        baseline: "the reference",
        effect: components_hold,
    },
    Claim {
        name: "claim_values_know_prompts",
        says: "Values of held-out prompts are nearer to the reference's rewards than their mean.",
        metric: "minus the mean squared error on the reference's greedy answers to held-out prompts",
        baseline: "predicting the mean of the validation prompts",
        effect: values_know_prompts,
    },
    Claim {
        name: "claim_advantages_have_the_right_sign",
        says: "Advantages of logged answers have the sign of their true quality.",
        metric: "share of the log's answers whose advantage is positive if and only if they were made good",
        baseline: "chance, one half",
        effect: signs_agree,
    },
];

/// Prompts of two kinds, answers good and bad, and what they are worth: to every second first word any answer is worth
/// less.
#[derive(Debug)]
pub(super) struct Shelf {
    bench: Bench,
    seed: u64,
    pub(super) good: Vec<String>,
    pub(super) bad: Vec<String>,
}

impl Shelf {
    pub(super) fn new(seed: u64) -> Result<Shelf> {
        let bench = Bench::new(seed)?;
        let mut words: Vec<String> = (0..32).map(|n| format!("w{n}")).collect();
        words.sort_by(|a, b| bench.utility(b).total_cmp(&bench.utility(a)));
        let bad = words.split_off(16);
        Ok(Shelf { bench, seed, good: words, bad })
    }

    /// What an answer is worth, in [0, 1].
    fn worth(&self, prompt: &Prompt, answer: &str) -> f64 {
        let Prompt::Text(text) = prompt else { return 0.0 };
        let first = text.split_whitespace().nth(1).and_then(|word| word.strip_prefix('w'));
        let even = first.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n % 2 == 0);
        let level = if even { 1.0 } else { 0.5 };
        level * (self.bench.utility(answer) + 1.0) / 2.0
    }

    /// Two rated answers to each prompt; each is bad with probability `bad`. With `brevity`, a second aspect likes few words.
    pub(super) fn log(&self, count: usize, bad: f64, brevity: bool, name: &str) -> Vec<Record> {
        let mut rng = rng(sub_seed(self.seed, name), "answers");
        let mut records = self.bench.records(count, 0, name);
        for record in &mut records {
            for id in ["a", "b"] {
                let (many, few) = match rng.random_bool(bad) {
                    true => (&self.bad, &self.good),
                    false => (&self.good, &self.bad),
                };
                let length = rng.random_range(3..=8);
                let words: Vec<&str> = (0..length)
                    .map(|_| {
                        let from = if rng.random_bool(0.8) { many } else { few };
                        from[rng.random_range(0..from.len())].as_str()
                    })
                    .collect();
                let text = words.join(" ");
                let rate = |value| Form::Rating { on: id.into(), value, scale: Some([0.0, 1.0]) };
                let taste = hone_feedback::Feedback::from(rate(self.worth(&record.prompt, &text)));
                let short = hone_feedback::Feedback::from(rate(shortness(&text)));
                let kept = std::mem::replace(record, Record::new("", ""));
                *record = kept.respond(id, text).say(taste.about("taste"));
                if brevity {
                    let kept = std::mem::replace(record, Record::new("", ""));
                    *record = kept.say(short.about("brevity"));
                }
            }
        }
        records
    }

    pub(super) fn job<'a>(
        &'a self,
        records: &'a [Record],
        settings: &'a toml::Table,
        seed: u64,
    ) -> Result<Job<'a>> {
        let policy = self.bench.policy()?;
        Ok(Job { policy, records, oracle: Some(self), settings, seed, session: Session::default() })
    }

    /// The policy after training on a log with this share of bad answers.
    fn after(&self, own: &str, bad: f64, seed: u64) -> Result<Policy> {
        let (records, settings) = (self.log(160, bad, false, "train"), quick(own)?);
        run(self.job(&records, &settings, seed)?)?.policy()
    }

    /// Sampled answers to held-out prompts.
    fn answers(&self, policy: &Policy) -> Result<Vec<(Record, Vec<String>)>> {
        let held_out = self.bench.records(60, 0, "held out");
        let model = policy.speaker()?;
        let draw = Draw { max_tokens: 24, ..Draw::default() };
        let said = sample(&model, &prompts(&model, &held_out)?, 4, &draw, 7)?;
        let texts = said.into_iter().map(|said| said.into_iter().map(|one| one.text).collect());
        Ok(held_out.into_iter().zip(texts).collect())
    }

    /// Their mean worth.
    fn reward(&self, policy: &Policy) -> Result<f64> {
        let answers = self.answers(policy)?;
        let each = answers.iter().flat_map(|(r, texts)| texts.iter().map(|text| self.worth(&r.prompt, text)));
        Ok(mean(&each.collect::<Vec<_>>()))
    }

    fn trained(&self, own: &str, bad: f64) -> Result<f64> {
        self.reward(&self.after(own, bad, self.seed)?)
    }
}

impl Oracle for Shelf {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        let score = self.worth(&record.prompt, answer);
        Ok(Some(Verdict { right: score > 0.5, score, well_formed: true, words: String::new() }))
    }
}

/// 1 for no word, 0 for eight or more.
fn shortness(text: &str) -> f64 {
    1.0 - text.split_whitespace().count().min(8) as f64 / 8.0
}

pub(super) fn quick(own: &str) -> Result<toml::Table> {
    let mut whole = bench::quick(own)?;
    let value: toml::Table =
        [("learning_rate", 0.01)].map(|(k, v)| (k.to_string(), v.into())).into_iter().collect();
    whole.entry("value").or_insert(value.into());
    for (key, number) in [("validation", 0.3), ("reference_epochs", 2.0)] {
        whole.entry(key).or_insert(number.into());
    }
    whole.entry("answer_tokens").or_insert(24.into());
    whole.entry("evaluations").or_insert(3.into());
    Ok(whole)
}

/// Share of bad answers in the log.
pub(super) const BAD: f64 = 0.4;

fn variants(shelf: &Shelf, bad: f64) -> Result<f64> {
    let each = ["a_lol", "ref_free", "seq", "kl"];
    let rewards: Vec<f64> = each
        .iter()
        .map(|name| shelf.trained(&format!("objective = \"{name}\""), bad))
        .collect::<Result<_>>()?;
    Ok(mean(&rewards))
}

fn above(seed: u64, objective: &str) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    Ok(variants(&shelf, BAD)? - shelf.trained(&format!("objective = \"{objective}\""), BAD)?)
}

pub(super) fn above_r_lol(seed: u64) -> Result<f64> {
    above(seed, "r_lol")
}

pub(super) fn above_wbc(seed: u64) -> Result<f64> {
    above(seed, "wbc")
}

pub(super) fn above_r_gold(seed: u64) -> Result<f64> {
    above(seed, "r_gold")
}

pub(super) fn baselines_above_nll(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let each = ["r_lol", "wbc", "r_gold"];
    let rewards: Vec<f64> = each
        .iter()
        .map(|name| shelf.trained(&format!("objective = \"{name}\""), BAD))
        .collect::<Result<_>>()?;
    Ok(mean(&rewards) - shelf.trained("objective = \"nll\"", BAD)?)
}

pub(super) fn gap_grows(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let gap = |bad| Ok::<f64, Error>(shelf.trained("", bad)? - shelf.trained("objective = \"nll\"", bad)?);
    Ok(gap(0.6)? - gap(0.0)?)
}

pub(super) fn positive_part(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let all = shelf.trained("priority = false\nkeep_negative = true", BAD)?;
    Ok(shelf.trained("priority = false", BAD)? - all)
}

pub(super) fn priority_helps(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    Ok(shelf.trained("", BAD)? - shelf.trained("priority = false", BAD)?)
}

/// Distinct pairs of neighbouring words over all of them.
fn distinct_pairs<'a>(texts: impl Iterator<Item = &'a String>) -> f64 {
    let mut pairs: Vec<(String, String)> = vec![];
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        pairs.extend(words.windows(2).map(|two| (two[0].to_string(), two[1].to_string())));
    }
    let distinct: HashSet<_> = pairs.iter().collect();
    distinct.len() as f64 / pairs.len().max(1) as f64
}

pub(super) fn varies_more(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let variety = |policy: &Policy| -> Result<f64> {
        Ok(distinct_pairs(shelf.answers(policy)?.iter().flat_map(|(_, texts)| texts)))
    };
    let (records, table) = (shelf.log(160, BAD, false, "train"), quick("")?);
    let Prepared { reference, .. } = prepare(shelf.job(&records, &table, seed)?)?;
    let own = bench::quick("beta = 0.1")?;
    let job = Job { policy: reference, ..shelf.job(&records, &own, seed)? };
    Ok(variety(&shelf.after("", BAD, seed)?)? - variety(&(dpo::DPO.run)(job)?.policy()?)?)
}

pub(super) fn seeds_differ_less(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let (mut own, mut other) = (vec![], vec![]);
    let asked = shelf.bench.records(64, 0, "asked");
    let records = shelf.log(160, BAD, false, "train");
    let table = quick("")?;
    let Prepared { reference, .. } = prepare(shelf.job(&records, &table, seed)?)?;
    for run_seed in 1..=3 {
        own.push(shelf.reward(&shelf.after("", BAD, run_seed)?)?);
        let table = bench::quick(
            "group_size = 4\n[draw]\ntemperature = 1.0\nmax_tokens = 24\n[training]\nbatch_size = 8\nepochs = 4.0",
        )?;
        let job = Job { policy: reference.copy()?, ..shelf.job(&asked, &table, run_seed)? };
        other.push(shelf.reward(&(ppo::PPO.run)(job)?.policy()?)?);
    }
    Ok(standard_deviation(&other) - standard_deviation(&own))
}

pub(super) fn components_hold(seed: u64) -> Result<f64> {
    /// The sum of both aspects as one share.
    #[derive(Debug)]
    struct Both<'a>(&'a Shelf);
    impl Oracle for Both<'_> {
        fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
            let score = (self.0.worth(&record.prompt, answer) + shortness(answer)) / 2.0;
            Ok(Some(Verdict { right: score > 0.5, score, well_formed: true, words: String::new() }))
        }
    }
    let shelf = Shelf::new(seed)?;
    let both = Both(&shelf);
    let (records, table) = (shelf.log(160, BAD, true, "train"), quick("")?);
    let job = || -> Result<Job<'_>> { Ok(Job { oracle: Some(&both), ..shelf.job(&records, &table, seed)? }) };
    let before = shelf.answers(&prepare(job()?)?.reference)?;
    let after = shelf.answers(&run(job()?)?.policy()?)?;
    let of = |answers: &[(Record, Vec<String>)], value: &dyn Fn(&Prompt, &str) -> f64| {
        mean(&answers.iter().flat_map(|(r, t)| t.iter().map(|t| value(&r.prompt, t))).collect::<Vec<_>>())
    };
    let taste = |prompt: &Prompt, text: &str| shelf.worth(prompt, text);
    let brevity = |_: &Prompt, text: &str| shortness(text);
    let grown = [of(&after, &taste) - of(&before, &taste), of(&after, &brevity) - of(&before, &brevity)];
    Ok(grown[0].min(grown[1]))
}

pub(super) fn values_know_prompts(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    // 144 validation prompts: 48 and ten passes teach the head no more than the mean.
    let records = shelf.log(480, BAD, false, "train");
    let table = quick("[value]\nlearning_rate = 0.01\nepochs = 40")?;
    let Prepared { own, reference, head, validation, reward, .. } =
        prepare(shelf.job(&records, &table, seed)?)?;
    let held_out = shelf.log(80, BAD, false, "unseen");
    let logged = Logged::read(&reference, &held_out, 64, true)?;
    let examples: Vec<Example> = logged.examples.items.into_iter().step_by(2).collect();
    let states = prompt_states(&reference.model, &examples.iter().collect::<Vec<_>>())?;
    let unseen = Validation { asked: held_out, examples, ..validation };
    let rewards = unseen.rewards(&reference, &reference.model, own.answer_tokens)?;
    let error = |values: &dyn Fn(usize) -> f64| {
        mean(&rewards.iter().enumerate().map(|(at, r)| (values(at) - r).powi(2)).collect::<Vec<_>>())
    };
    let values = head.values(&states)?;
    Ok(error(&|_| reward) - error(&|at| values[at]))
}

pub(super) fn signs_agree(seed: u64) -> Result<f64> {
    let shelf = Shelf::new(seed)?;
    let (records, table) = (shelf.log(160, BAD, false, "train"), quick("")?);
    let Prepared { train, advantages, .. } = prepare(shelf.job(&records, &table, seed)?)?;
    let right = train.examples.items.iter().zip(&train.rewards).zip(&advantages).map(
        |((item, reward), advantage)| {
            // The level of the prompt is taken off again: what is left is the quality of the words.
            let level = shelf.worth(&records[item.record].prompt, &shelf.good[0])
                / ((shelf.bench.utility(&shelf.good[0]) + 1.0) / 2.0);
            f64::from(u8::from((reward / level > 0.5) == (*advantage > 0.0)))
        },
    );
    Ok(mean(&right.collect::<Vec<_>>()) - 0.5)
}
