//! Steps with verdicts: the index of the first error (ProcessBench, Mr-GSM8K), and PRM800K.

use serde_json::{Value, json};

use super::row::{Row, as_number};
use super::trl::{record_of, stepped};
use super::{Format, Joins, note_details, note_empty, row_for, with_extra};
use crate::convert;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::Prompt;

/// `{"problem","steps","label":index of the first wrong step or -1}`
pub(super) static FIRST_ERROR: Format = Format {
    name: "prm",
    about: "steps with the first wrong one (ProcessBench): problem, steps, label counted from 0, -1 for none",
    looks_like: |row| row.contains_key("problem") && row.get("steps").is_some_and(Value::is_array),
    read: |mut row, _| {
        let problem = row.text("problem")?;
        let steps = row.texts("steps")?;
        let label = row.number("label")?;
        let count = steps.len();
        if label.fract() != 0.0 || label < -1.0 || label >= count as f64 {
            return Err(Fault::new("label", format!("-1 or a step below {count}"), label.to_string()));
        }
        let model = row.maybe_text("generator")?;
        let passed =
            row.has("final_answer_correct").then(|| row.boolean("final_answer_correct")).transpose()?;
        let mut record = record_of(row, Prompt::from(problem));
        record.responses.push(stepped("a", steps));
        record.responses[0].model = model;
        // Steps after the first wrong one were not judged.
        let judged = if label < 0.0 { count } else { label as usize + 1 };
        for index in 0..judged {
            let correct = label < 0.0 || index < label as usize;
            record.feedback.push(Form::Step { on: "a".into(), index, correct }.into());
        }
        if let Some(passed) = passed {
            record.feedback.push(Form::Outcome { on: "a".into(), check: FINAL_ANSWER.into(), passed }.into());
        }
        Ok(record)
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let mut rows = Vec::new();
        for labels in convert::step_labels(record, losses) {
            let wrong = labels.correct.iter().position(|correct| *correct == Some(false));
            let before = &labels.correct[..wrong.unwrap_or(labels.correct.len())];
            if before.iter().any(Option::is_none) {
                losses.add("steps of which one before the first error was not judged");
                continue;
            }
            let after = labels.correct.iter().skip(before.len() + 1).flatten().count();
            losses.add_many("verdict after the first wrong step", after as u64);
            let mut row = row_for(record);
            let response =
                record.feedback.get(labels.origin.index).and_then(|item| record.response(item.form.on()?));
            if let Some(model) = response.and_then(|response| response.model.as_ref()) {
                row.insert("generator".into(), model.clone().into());
            }
            row.insert("problem".into(), record.prompt.text().into());
            row.insert("steps".into(), json!(labels.steps));
            let final_answer = record.feedback.iter().find_map(|item| match &item.form {
                Form::Outcome { on, check, passed }
                    if check == FINAL_ANSWER && response.is_some_and(|response| response.id == *on) =>
                {
                    Some(*passed)
                }
                _ => None,
            });
            if let Some(passed) = final_answer {
                row.insert("final_answer_correct".into(), passed.into());
            }
            row.insert("label".into(), wrong.map_or(-1, |index| index as i64).into());
            rows.push(with_extra(row, record, losses));
        }
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// The check that ProcessBench calls `final_answer_correct`.
const FINAL_ANSWER: &str = "final_answer";

/// `{"question":{"problem"},"label":{"steps":[{"completions":[{"text","rating"}],"chosen_completion"}]}}`
pub(super) static PRM800K: Format = Format {
    name: "prm800k",
    about: "PRM800K: question, label with steps whose completions are rated -1, 0 or 1",
    looks_like: |row| {
        row.get("label").and_then(|label| label.get("steps")).is_some_and(Value::is_array)
            && row.get("question").is_some_and(Value::is_object)
    },
    read: |mut row, _| {
        let mut question = row.object("question")?;
        let problem = question.text("problem").map_err(|fault| fault.under("question"))?;
        let mut label = row.object("label")?;
        let steps = label.list("steps").map_err(|fault| fault.under("label"))?;
        row.0.insert("question".into(), Value::Object(question.0));
        row.0.insert("label".into(), Value::Object(label.0));
        let by = row.maybe_text("labeler")?;
        let mut texts = Vec::new();
        let mut verdicts: Vec<Feedback> = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let field = format!("label.steps[{index}]");
            let Some((text, rating)) = chosen_completion(step, &field)? else { continue };
            if let Some(rating) = rating {
                // A neutral step (0) is not an error; the rating itself is kept beside the verdict.
                let correct = rating >= 0.0;
                let mut item = Feedback::from(Form::Step { on: "a".into(), index: texts.len(), correct });
                item.by = by.clone();
                item.extra.insert("value".into(), super::row::number(rating));
                verdicts.push(item);
            }
            texts.push(text);
        }
        let mut record = record_of(row, Prompt::from(problem));
        record.responses.push(stepped("a", texts));
        record.feedback = verdicts;
        Ok(record)
    },
    write: None,
    joins: Joins::No,
};

/// The completion that the solution went on with, and its rating: the chosen one, else the person's own, else
/// the first. None: the labeller gave up at this step.
fn chosen_completion(step: &Value, field: &str) -> Result<Option<(String, Option<f64>)>, Fault> {
    let Value::Object(step) = step else {
        return Err(Fault::new(field, "an object with completions", step.to_string()));
    };
    let step = Row(step.clone());
    let completions = step.0.get("completions").and_then(Value::as_array).cloned().unwrap_or_default();
    let chosen = step.0.get("chosen_completion").and_then(Value::as_u64);
    let human = step.0.get("human_completion").filter(|human| !human.is_null());
    let (completion, is_human) = match (chosen, human) {
        (Some(index), _) => {
            let found = completions.get(index as usize);
            let needed = format!("a completion below {}", completions.len());
            let missing = || Fault::new(format!("{field}.chosen_completion"), needed, index.to_string());
            (found.ok_or_else(missing)?, false)
        }
        (None, Some(human)) => (human, true),
        (None, None) => match completions.first() {
            Some(first) => (first, false),
            None => return Ok(None),
        },
    };
    let text = match completion {
        Value::String(text) => text.clone(),
        other => other.get("text").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
            Fault::new(format!("{field}.completions"), "a completion with text", other.to_string())
        })?,
    };
    let rating = completion.get("rating").and_then(as_number);
    Ok(Some((text, rating.or(is_human.then_some(1.0)))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Context;

    fn verdicts(record: &crate::Record) -> Vec<(usize, bool)> {
        let steps = record.feedback.iter().filter_map(|item| match item.form {
            Form::Step { index, correct, .. } => Some((index, correct)),
            _ => None,
        });
        steps.collect()
    }

    #[test]
    fn prm800k_follows_the_chosen_completions() {
        let row = json!({"labeler": "l1", "question": {"problem": "1+1?", "ground_truth_answer": "2"}, "label": {"steps": [
            {"completions": [{"text": "bad", "rating": -1}, {"text": "good", "rating": 1}], "chosen_completion": 1},
            {"completions": [{"text": "hm", "rating": 0}], "human_completion": null, "chosen_completion": null},
            {"completions": [], "human_completion": {"text": "mine"}, "chosen_completion": null},
            {"completions": [{"text": "2", "rating": -1}], "chosen_completion": 0}], "finish_reason": "solution"}});
        let Value::Object(row) = row else { unreachable!() };
        let record = (PRM800K.read)(Row(row), &mut Context::default()).unwrap();
        assert_eq!(
            record.responses[0].steps.as_deref(),
            Some(["good", "hm", "mine", "2"].map(str::to_owned).as_slice())
        );
        assert_eq!(verdicts(&record), [(0, true), (1, true), (2, true), (3, false)]);
        assert_eq!(record.extra["question"]["ground_truth_answer"], "2");
    }
}
