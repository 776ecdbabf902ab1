//! Evaluation on a file: exercises with tests (MBPP, HumanEval), or any log whose records carry a reference.

use std::path::Path;

use hone_feedback::convert::{Losses, demonstrations};
use hone_feedback::formats::{self, Options};
use hone_feedback::metrics::mean;
use hone_feedback::metrics::resample::{bootstrap, mean_interval};
use hone_feedback::metrics::text::{chrf, exact_match, token_f1};
use hone_lm::{LanguageModel, Message, Prompt};
use hone_worlds::programs::Programs;
use hone_worlds::programs::datasets::{humaneval, mbpp};
use hone_worlds::{Check, Task};
use serde_json::Value;

use super::ask::{Answer, answers, scores};
use super::{Item, Judged, Reference, Settings};
use crate::error::{Error, Result};

/// One prompt with its reference.
#[derive(Debug)]
pub struct Row {
    /// What the model is asked.
    pub prompt: Prompt,
    /// The prompt as text.
    pub text: String,
    /// What would be right.
    pub reference: String,
    /// The exercise whose tests judge an answer; without, an answer is right if it matches the reference.
    pub exercise: Option<Box<dyn Task>>,
}

/// Reads at most `most` rows with a reference. Records of a log count by their first demonstration or edit; others are
/// left out.
///
/// # Errors
/// [`Error::File`] for a file that cannot be read, a row at fault, or no reference in the whole file.
pub fn read(path: &Path, most: usize) -> Result<Vec<Row>> {
    let wrong = |problem: String| Error::File { path: path.display().to_string(), problem };
    let exercises = match first_row(path) {
        Some(row) if row.get("canonical_solution").is_some() => Some(humaneval(path)?),
        Some(row) if row.get("test_list").is_some() => Some(mbpp(path)?),
        _ => None,
    };
    if let Some(exercises) = exercises {
        let programs = Programs::default();
        let row = |exercise| {
            let task = programs.exercise(exercise);
            let (text, reference) = (task.prompt(), task.reference());
            Row {
                prompt: super::ask::chat(&text, None),
                text,
                reference,
                exercise: Some(Box::new(task) as _),
            }
        };
        return Ok(exercises.into_iter().take(most).map(row).collect());
    }
    let reader = formats::open(path, &Options::default()).map_err(|error| wrong(error.to_string()))?;
    let (mut rows, mut records) = (vec![], 0);
    for item in reader {
        if rows.len() == most {
            break;
        }
        let record = item.map_err(|problem| wrong(problem.to_string()))?.record;
        records += 1;
        let found = demonstrations(&record, &mut Losses::default());
        if let Some(first) = found.first() {
            let prompt =
                prompt(&record.prompt).map_err(|problem| wrong(format!("{}: {problem}", record.id)))?;
            let (text, reference) = (record.prompt.text().into_owned(), first.content.text().into_owned());
            rows.push(Row { prompt, text, reference, exercise: None });
        }
    }
    if rows.is_empty() {
        return Err(wrong(format!(
            "needs records with a reference (an edit, or a demonstration), got none in {records} records"
        )));
    }
    Ok(rows)
}

/// The first JSON object of a file of lines or of an array, if it is one.
fn first_row(path: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_start();
    let mut rows = serde_json::Deserializer::from_str(text.strip_prefix('[').unwrap_or(text)).into_iter();
    rows.next()?.ok()
}

/// A record's prompt as a language model takes it.
fn prompt(prompt: &hone_feedback::Prompt) -> Result<Prompt, String> {
    match prompt {
        hone_feedback::Prompt::Text(text) => Ok(Prompt::Text(text.clone())),
        hone_feedback::Prompt::Messages(messages) => {
            let message = |message: &hone_feedback::Message| match serde_json::to_value(message) {
                Ok(Value::Object(fields)) => {
                    Message::from_fields(fields).map_err(|needed| format!("prompt: needs {needed}"))
                }
                other => Err(format!("prompt: needs messages, got {other:?}")),
            };
            Ok(Prompt::chat(messages.iter().map(message).collect::<Result<_, _>>()?))
        }
    }
}

pub(super) fn items(model: &dyn LanguageModel, rows: &[Row], settings: &Settings) -> Result<Vec<Item>> {
    let asked: Vec<Prompt> = rows.iter().map(|row| row.prompt.clone()).collect();
    let replies = answers(model, &asked, settings.samples, &settings.sampling("data"))?;
    let logps = match model.capabilities().scoring {
        true => {
            let both = rows.iter().map(|row| (row.prompt.clone(), row.reference.clone())).collect::<Vec<_>>();
            scores(model, &both)?.into_iter().map(Some).collect()
        }
        false => vec![None; rows.len()],
    };
    rows.iter()
        .zip(replies)
        .zip(logps)
        .map(|((row, replies), reference_logp)| {
            let judged = replies.into_iter().map(|answer| judge(row, answer)).collect::<Result<_>>()?;
            Ok(Item {
                prompt: row.text.clone(),
                reference: row.reference.clone(),
                answers: judged,
                again: None,
                truth: None,
                reference_logp,
            })
        })
        .collect()
}

fn judge(row: &Row, answer: Answer) -> Result<Judged> {
    let (right, score, well_formed) = match &row.exercise {
        Some(task) => {
            let Check { right, score, well_formed, .. } = task.check(&answer.text)?;
            (right, score, well_formed)
        }
        None => {
            let text = &answer.text;
            (exact_match(text, &row.reference), token_f1(text, &row.reference), !text.trim().is_empty())
        }
    };
    Ok(Judged { well_formed: well_formed && answer.ended, answer, right, score, verdict: None })
}

/// Likeness of the answers to the references.
pub(super) fn reference(items: &[Item], seed: u64) -> Reference {
    let per_item = |of: &dyn Fn(&str, &str) -> f64| {
        let value = |item: &Item| {
            let values = item.answers.iter().map(|judged| of(&judged.answer.text, &item.reference));
            mean(&values.collect::<Vec<_>>())
        };
        mean_interval(&items.iter().map(value).collect::<Vec<_>>(), seed)
    };
    let firsts: Vec<(&str, [&str; 1])> = items
        .iter()
        .filter_map(|item| Some((item.answers.first()?.answer.text.as_str(), [item.reference.as_str()])))
        .collect();
    let pairs: Vec<(&str, &[&str])> = firsts.iter().map(|(answer, of)| (*answer, of.as_slice())).collect();
    let logps: Vec<(f64, usize)> = items.iter().filter_map(|item| item.reference_logp).collect();
    // Over all tokens, not a mean of means: a short reference is not to weigh as much as a long one.
    let per_token = |rows: &[&(f64, usize)]| {
        let tokens: usize = rows.iter().map(|(_, tokens)| tokens).sum();
        -rows.iter().map(|(logp, _)| logp).sum::<f64>() / tokens.max(1) as f64
    };
    Reference {
        exact: per_item(&|answer, reference| f64::from(u8::from(exact_match(answer, reference)))),
        f1: per_item(&|answer, reference| token_f1(answer, reference)),
        chrf: (!pairs.is_empty()).then(|| chrf(&pairs)),
        nll: bootstrap(&logps, per_token, 2000, 0.95, seed),
    }
}
