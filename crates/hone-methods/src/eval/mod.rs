//! How good a model is: on fresh tasks of a world, in any of its roles, or on a file with references.
//!
//! Everything is a mean over prompts with a bootstrap interval over prompts; two models are compared on the same
//! prompts.

pub mod ask;
pub mod data;
mod report;
mod roles;

use hone_feedback::metrics::resample::mean_interval;
use hone_feedback::metrics::significance::{Comparison, paired_bootstrap, sign_test};
use hone_feedback::metrics::{calibration_error, mean, pass_at_k};
use hone_lm::{LanguageModel, Prompt, Sampling};
use hone_worlds::roles::Role;
use hone_worlds::seed::mix;
use hone_worlds::{Task, World};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use ask::Answer;

pub use ask::{answers, oracle};
pub use report::{Again, Against, Reference, Report, Verdicts};

/// Bins of confidence for the calibration error.
const BINS: usize = 10;

/// Bootstrap rounds of a comparison.
const ROUNDS: usize = 2000;

/// What is measured, and how closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Prompts, at least 1.
    pub prompts: usize,
    /// Answers per prompt, `n`, at least 1.
    pub samples: usize,
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Most tokens per answer.
    pub max_tokens: usize,
    /// Seed of tasks, answers and intervals.
    pub seed: u64,
    /// Level of the tasks; the world's middle one if `None`.
    pub level: Option<u32>,
    /// Tell the model in a system message what the world asks for. For models that were not trained on it.
    pub instructions: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            prompts: 200,
            samples: 4,
            temperature: 1.0,
            max_tokens: 256,
            seed: 1,
            level: None,
            instructions: false,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let least = [("prompts", self.prompts), ("samples", self.samples), ("max_tokens", self.max_tokens)];
        match least.into_iter().find(|(_, value)| *value == 0) {
            Some((key, value)) => Err(out_of_range(key, "at least 1", value)),
            None => Ok(()),
        }
    }

    /// The sampling settings for one purpose; each purpose draws its own numbers.
    fn sampling(&self, purpose: &str) -> Sampling {
        Sampling {
            temperature: Some(self.temperature),
            max_tokens: Some(self.max_tokens),
            // Halved, so that a prompt's own number can be added.
            seed: Some(mix(self.seed, purpose) >> 1),
            ..Sampling::default()
        }
    }
}

fn out_of_range(key: &str, needed: &str, got: impl ToString) -> Error {
    Error::Range { method: "eval".into(), key: key.into(), needed: needed.into(), got: got.to_string() }
}

/// Everything measured on one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What was asked, as text.
    pub prompt: String,
    /// What would be right.
    pub reference: String,
    /// The answers.
    pub answers: Vec<Judged>,
    /// Share of right answers when the prompt was asked again without a critique; only where refining is measured.
    pub again: Option<f64>,
    /// The label that is true, and the model's probability of `yes`; only where labels or critiques are measured.
    pub truth: Option<(bool, Option<f64>)>,
    /// Log-probability of the reference and its tokens; only for files with references.
    pub reference_logp: Option<(f64, usize)>,
}

/// One answer, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The answer.
    pub answer: Answer,
    /// Whether it is right.
    pub right: bool,
    /// How good it is, in `[0, 1]`.
    pub score: f64,
    /// Whether it has the form that was asked for.
    pub well_formed: bool,
    /// The verdict that it gives, where it is a label or a critique.
    pub verdict: Option<bool>,
}

/// A report and all that it was made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The numbers.
    pub report: Report,
    /// The prompts with their answers, in order.
    pub items: Vec<Item>,
}

/// Measures a model on fresh tasks of a world, in one role.
///
/// Tasks follow from the seed alone, so two models get the same. Refining is measured on the model's own wrong answers
/// with their true critiques, beside asking the same prompts again. Critiques and labels are measured on right answers
/// and planted errors, half and half.
///
/// # Errors
/// [`Error::Range`] for a setting outside its range; [`Error::Data`] if the model gives no wrong answer to refine;
/// those of the model, the world and the sandbox.
pub fn evaluate(
    model: &dyn LanguageModel,
    world: &dyn World,
    role: Role,
    settings: &Settings,
) -> Result<Evaluation> {
    settings.check()?;
    let level = settings.level.unwrap_or(world.middle());
    let items = roles::items(model, world, level, role, settings)?;
    let mut report = summary(&items, settings);
    report.model = model.capabilities().name.clone();
    report.on = format!("{} level {level}", world.id());
    report.role = crate::pretrain::mix::role_name(role).to_string();
    Ok(Evaluation { report, items })
}

/// Measures a model on a file: exercises with tests, or records that carry a reference.
///
/// # Errors
/// As [`evaluate`], and those of reading ([`data::read`]).
pub fn evaluate_data(
    model: &dyn LanguageModel,
    path: &std::path::Path,
    settings: &Settings,
) -> Result<Evaluation> {
    settings.check()?;
    let rows = data::read(path, settings.prompts)?;
    let items = data::items(model, &rows, settings)?;
    let mut report = summary(&items, settings);
    report.model = model.capabilities().name.clone();
    report.on = path.display().to_string();
    report.role = "answer".into();
    report.reference = Some(data::reference(&items, settings.seed));
    Ok(Evaluation { report, items })
}

/// Fresh tasks of a world: the ones that [`evaluate`] asks.
///
/// # Errors
/// [`hone_worlds::Error::Setting`] for a level that the world does not have.
pub fn tasks(world: &dyn World, level: u32, count: usize, seed: u64) -> Result<Vec<Box<dyn Task>>> {
    (0..count)
        .map(|index| Ok(world.task(level, mix(seed, &format!("eval/{}/{index}", world.id())))?))
        .collect()
}

/// The numbers of a set of items.
fn summary(items: &[Item], settings: &Settings) -> Report {
    let interval = |values: Vec<f64>| mean_interval(&values, settings.seed);
    let share =
        |item: &Item, of: &dyn Fn(&Judged) -> f64| mean(&item.answers.iter().map(of).collect::<Vec<_>>());
    let n = settings.samples;
    let ks = (0..).map(|power| 1usize << power).take_while(|k| *k < n).chain([n]);
    let pass = ks.filter_map(|k| {
        let values = items.iter().map(|item| {
            let right = item.answers.iter().filter(|judged| judged.right).count();
            pass_at_k(item.answers.len() as u64, right as u64, k as u64)
        });
        Some((k, interval(values.collect::<Option<Vec<f64>>>()?)?))
    });
    let flag = |flag: bool| f64::from(u8::from(flag));
    let (confidence, hit): (Vec<f64>, Vec<bool>) = items
        .iter()
        .flat_map(|item| &item.answers)
        .filter_map(|judged| Some((judged.answer.confidence?, judged.right)))
        .unzip();
    let of_yes: Vec<(f64, bool)> =
        items.iter().filter_map(|item| item.truth.and_then(|(truth, p)| Some((p?, truth)))).collect();
    let calibration = if of_yes.is_empty() {
        calibration_error(&confidence, &hit, BINS)
    } else {
        // How sure it is of whichever label it leans to, and whether that is the true one.
        let sure: Vec<f64> = of_yes.iter().map(|(p, _)| p.max(1.0 - p)).collect();
        let hit: Vec<bool> = of_yes.iter().map(|(p, truth)| (*p >= 0.5) == *truth).collect();
        calibration_error(&sure, &hit, BINS)
    };
    let again: Option<Vec<f64>> = items.iter().map(|item| item.again).collect();
    let again = again.filter(|again| !again.is_empty()).and_then(|again| {
        let refined: Vec<f64> = items.iter().map(|item| share(item, &|judged| flag(judged.right))).collect();
        let gain = paired_bootstrap(&again, &refined, ROUNDS, settings.seed)?;
        Some(Again { right: interval(again)?, gain: gain.difference })
    });
    Report {
        model: String::new(),
        on: String::new(),
        role: String::new(),
        prompts: items.len(),
        samples: n,
        temperature: settings.temperature,
        seed: settings.seed,
        pass: pass.collect(),
        majority: (n > 1)
            .then(|| interval(items.iter().map(|item| flag(majority_right(item))).collect()))
            .flatten(),
        score: interval(items.iter().map(|item| share(item, &|judged| judged.score)).collect()),
        format_errors: interval(
            items.iter().map(|item| share(item, &|judged| flag(!judged.well_formed))).collect(),
        ),
        calibration,
        again,
        verdicts: verdicts(items),
        reference: None,
        against: None,
    }
}

/// Whether the commonest answer is right; of equally common ones the first counts. Equal means equal but for space
/// around it.
fn majority_right(item: &Item) -> bool {
    let text = |judged: &Judged| judged.answer.text.trim().to_string();
    let votes = |judged: &&Judged| item.answers.iter().filter(|other| text(other) == text(judged)).count();
    let most = item.answers.iter().map(|judged| votes(&judged)).max();
    item.answers.iter().find(|judged| Some(votes(judged)) == most).is_some_and(|judged| judged.right)
}

/// How verdicts agree with the truth; a reply without one agrees with nothing.
fn verdicts(items: &[Item]) -> Option<Verdicts> {
    let mut pairs = vec![];
    for item in items {
        let (truth, _) = item.truth?;
        pairs.extend(item.answers.iter().map(|judged| (truth, judged.verdict)));
    }
    if pairs.is_empty() {
        return None;
    }
    let class = |class: bool| {
        let said = pairs.iter().filter(|(_, verdict)| *verdict == Some(class)).count() as f64;
        let is = pairs.iter().filter(|(truth, _)| *truth == class).count() as f64;
        let both = pairs.iter().filter(|(truth, v)| *truth == class && *v == Some(class)).count() as f64;
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        // 2 P R / (P + R) with P = both/said and R = both/is.
        (share(both, said), share(both, is), share(2.0 * both, said + is))
    };
    let (precision, recall, f1_wrong) = class(false);
    let (_, _, f1_right) = class(true);
    let agreed = pairs.iter().filter(|(truth, verdict)| *verdict == Some(*truth)).count();
    Some(Verdicts {
        accuracy: agreed as f64 / pairs.len() as f64,
        precision,
        recall,
        f1: (f1_wrong + f1_right) / 2.0,
    })
}

/// Compares a model with another on the same prompts: how much more often `one` is right than `other`.
///
/// # Errors
/// [`Error::Data`] if they were not asked the same prompts.
pub fn compare(one: &Evaluation, other: &Evaluation) -> Result<Against> {
    let rates = |evaluation: &Evaluation| -> Vec<f64> {
        let rate = |item: &Item| {
            let right = item.answers.iter().filter(|judged| judged.right).count();
            right as f64 / item.answers.len().max(1) as f64
        };
        evaluation.items.iter().map(rate).collect()
    };
    let same = one.items.len() == other.items.len()
        && one.items.iter().zip(&other.items).all(|(one, other)| one.prompt == other.prompt);
    let (a, b) = (rates(other), rates(one));
    match paired_bootstrap(&a, &b, ROUNDS, one.report.seed).filter(|_| same) {
        Some(Comparison { difference, p }) => {
            Ok(Against { model: other.report.model.clone(), difference, p, sign_test: sign_test(&a, &b) })
        }
        None => Err(Error::Data {
            method: "eval".into(),
            needed: "two models asked the same prompts".into(),
            got: format!("{} and {} prompts, not all alike", one.items.len(), other.items.len()),
        }),
    }
}

impl Evaluation {
    /// One JSON object per answer, as `--samples` writes them.
    pub fn samples(&self) -> impl Iterator<Item = Value> + '_ {
        self.items.iter().enumerate().flat_map(move |(index, item)| {
            item.answers.iter().enumerate().map(move |(sample, judged)| {
                json!({
                    "model": self.report.model, "prompt_index": index, "sample": sample,
                    "prompt": item.prompt, "answer": judged.answer.text, "reference": item.reference,
                    "right": judged.right, "score": judged.score, "well_formed": judged.well_formed,
                    "confidence": judged.answer.confidence, "ended": judged.answer.ended,
                })
            })
        })
    }
}

/// The prompts of texts, with the world's instructions and the role's if wanted.
fn prompts(texts: &[String], world: &dyn World, role: Role, settings: &Settings) -> Vec<Prompt> {
    let task = match role {
        Role::Answer => "",
        Role::Criticise => {
            " Below [answer] stands an answer to such a task. Below [check] say what is first wrong in \
             it, as `place: kind, what came, use what would be right`, or `all right`."
        }
        Role::Refine => {
            " Below [answer] stands an answer to such a task, below [check] what is wrong with it. Below \
             [better] write the whole answer again, mended."
        }
        Role::Label => {
            " Below [answer] stands an answer to such a task. Below [right?] say `yes` if it is right, else `no`, and \
             nothing more."
        }
    };
    let instructions = settings.instructions.then(|| format!("{}{task}", world.instructions()));
    texts.iter().map(|text| ask::chat(text, instructions.as_deref())).collect()
}

#[cfg(test)]
mod tests;
