//! QA-Feedback: four predictions, marked spans in the first, what it misses, a corrected version, and six
//! comparisons.

use serde_json::{Map, Value, json};

use super::row::{Row, as_text};
use super::trl::{demonstration, record_of};
use super::{Context, Format, Joins, note_details, row_for, with_extra};
use crate::convert::Losses;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Message, Prompt, Record, Response};

/// The pairs that `preference` lists, in its order.
const PAIRS: [(&str, &str); 6] = [("1", "2"), ("1", "3"), ("1", "4"), ("2", "3"), ("2", "4"), ("3", "4")];

/// See the module.
pub(super) static QA_FEEDBACK: Format = Format {
    name: "qa-feedback",
    about: "QA-Feedback: question, passages, prediction 1 to 4, feedback with spans, preference",
    looks_like: |row| row.contains_key("question") && row.contains_key("prediction 1"),
    read,
    write: Some(write),
    joins: Joins::No,
};

fn read(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let question = row.text("question")?;
    let passages = row.has("passages").then(|| row.list("passages")).transpose()?.unwrap_or_default();
    let mut responses = Vec::new();
    for id in ["1", "2", "3", "4"] {
        if let Some(text) = row.maybe_text(&format!("prediction {id}"))? {
            responses.push(Response::new(id, text));
        }
    }
    let mut feedback: Vec<Feedback> = Vec::new();
    if row.has("feedback") {
        let mut said = row.object("feedback")?;
        judgements(&mut said, &passages, &mut feedback).map_err(|fault| fault.under("feedback"))?;
        if !said.0.is_empty() {
            row.0.insert("feedback".into(), Value::Object(said.0));
        }
    }
    if row.has("preference") {
        preferences(row.list("preference")?, &responses, &mut feedback)?;
    }
    if let Some(gold) = row.maybe_text("gold")? {
        responses.push(Response::new("gold", gold));
        feedback.push(demonstration("gold").by("reference"));
    }
    let asked = prompt_text(&question, &passages);
    if !passages.is_empty() {
        // The prompt holds them as one text; writers need them one by one.
        row.0.insert("passages".into(), Value::Array(passages));
    }
    let mut record = record_of(row, Prompt::Messages(vec![Message::new("user", asked)]));
    record.extra.insert("question".into(), question.into());
    record.responses = responses;
    record.feedback = feedback;
    Ok(record)
}

/// Each passage is its title, then its sentences; the question comes last, nearest to the answer.
fn prompt_text(question: &str, passages: &[Value]) -> String {
    let mut text = String::new();
    for passage in passages.iter().filter_map(Value::as_array) {
        let sentences: Vec<&str> = passage.iter().skip(1).filter_map(Value::as_str).collect();
        text.push_str(sentences.join(" ").trim());
        text.push_str("\n\n");
    }
    text + question
}

fn judgements(said: &mut Row, passages: &[Value], feedback: &mut Vec<Feedback>) -> Result<(), Fault> {
    let list = |said: &mut Row, name: &str| said.has(name).then(|| said.list(name)).transpose();
    for (index, error) in list(said, "errors")?.unwrap_or_default().into_iter().enumerate() {
        let field = format!("errors[{index}]");
        let Value::Object(error) = error else {
            return Err(Fault::new(field, "an object with error type, start and end", error.to_string()));
        };
        let mut error = Row(error);
        let mut offset = |name: &str| {
            let value = error.need(name, "a whole number from 0").map_err(|fault| fault.under(&field))?;
            let offset = value.as_u64().and_then(|offset| usize::try_from(offset).ok());
            offset.ok_or_else(|| {
                Fault::new(format!("{field}.{name}"), "a whole number from 0", value.to_string())
            })
        };
        let (start, end) = (offset("start")?, offset("end")?);
        let label = error.maybe_text("error type").map_err(|fault| fault.under(&field))?;
        let why = error.maybe_text("explanation").map_err(|fault| fault.under(&field))?;
        let mut item = Feedback::from(Form::Span { on: "1".into(), start, end, label, value: Some(-1.0) });
        item.text = why.filter(|why| !why.is_empty());
        item.extra = error.0;
        feedback.push(item);
    }
    for (index, missing) in list(said, "missing-info")?.unwrap_or_default().into_iter().enumerate() {
        let field = format!("missing-info[{index}]");
        let Value::Object(missing) = missing else {
            return Err(Fault::new(field, "an object with passage_id and sentence_id", missing.to_string()));
        };
        let text = missing_text(&missing, passages);
        let mut item = Feedback::from(Form::Critique { on: Some("1".into()), text });
        item.extra.insert("missing".into(), Value::Object(missing));
        feedback.push(item);
    }
    if let Some(corrected) = said.maybe_text("corrected-prediction")? {
        if corrected.trim().is_empty() {
            said.0.insert("corrected-prediction".into(), corrected.into());
        } else {
            feedback.push(Form::Edit { on: "1".into(), content: corrected.into() }.into());
        }
    }
    Ok(())
}

/// Says in words what the answer misses: the kind, and the sentences of the passage that hold it.
fn missing_text(missing: &Map<String, Value>, passages: &[Value]) -> String {
    let kind = missing.get("error type").and_then(Value::as_str).unwrap_or("Missing");
    let passage = missing.get("passage_id").and_then(Value::as_u64).and_then(|id| passages.get(id as usize));
    let ids: Vec<u64> = match missing.get("sentence_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
        Some(id) => id.as_u64().into_iter().collect(),
        None => Vec::new(),
    };
    // The title is the first entry of a passage, and sentences count from the one after it.
    let sentence = |id: &u64| passage?.get(*id as usize + 1)?.as_str();
    let sentences: Vec<&str> = ids.iter().filter_map(sentence).collect();
    if sentences.is_empty() { kind.to_owned() } else { format!("{kind}: {}", sentences.join(" ")) }
}

fn preferences(list: Vec<Value>, responses: &[Response], feedback: &mut Vec<Feedback>) -> Result<(), Fault> {
    if list.len() != PAIRS.len() {
        return Err(Fault::new("preference", "6 numbers", list.len().to_string()));
    }
    for (index, (value, (first, second))) in list.iter().zip(PAIRS).enumerate() {
        let there = |id: &str| responses.iter().any(|response| response.id == id);
        if value.as_u64() == Some(0) && !(there(first) && there(second)) {
            // Only a place holder: a row of fewer predictions has six numbers all the same.
            continue;
        }
        let (first, second) = (first.to_owned(), second.to_owned());
        let form = match value.as_u64() {
            Some(0) => Form::Ranking { order: vec![vec![first, second]] },
            Some(1) => Form::Comparison { better: first, worse: second },
            Some(2) => Form::Comparison { better: second, worse: first },
            _ => return Err(Fault::new(format!("preference[{index}]"), "0, 1 or 2", value.to_string())),
        };
        feedback.push(form.into());
    }
    Ok(())
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    let mut row = row_for(record);
    let question = record.extra.get("question").cloned().and_then(|question| as_text(question).ok());
    let question = question.or_else(|| record.prompt.last_user().map(|text| text.into_owned()));
    row.insert("question".into(), question.unwrap_or_default().into());
    row.insert("passages".into(), record.extra.get("passages").cloned().unwrap_or_else(|| json!([])));
    let gold = record.response("gold");
    row.insert("gold".into(), gold.map_or(Value::Null, |gold| gold.content.text().into()));
    let predictions: Vec<&Response> =
        record.responses.iter().filter(|response| response.id != "gold").collect();
    losses.add_many("response past the fourth", predictions.len().saturating_sub(4) as u64);
    for (number, response) in predictions.iter().take(4).enumerate() {
        row.insert(format!("prediction {}", number + 1), response.content.text().into());
    }
    let place = |id: &str| predictions.iter().take(4).position(|response| response.id == id);
    let (mut errors, mut missing, mut corrected) = (Vec::new(), Vec::new(), Value::Null);
    let mut preference: [Option<u64>; 6] = [None; 6];
    let mut prefer = |a: &str, b: &str, tied: bool, losses: &mut Losses| match (place(a), place(b)) {
        (Some(a), Some(b)) if a != b => {
            let wanted = ((a.min(b) + 1).to_string(), (a.max(b) + 1).to_string());
            let at = PAIRS.iter().position(|(x, y)| (*x, *y) == (wanted.0.as_str(), wanted.1.as_str()));
            let value = if tied { 0 } else { 1 + u64::from(a > b) };
            match at.map(|at| &mut preference[at]) {
                Some(slot @ None) => *slot = Some(value),
                _ => losses.add("second verdict on one pair"),
            }
        }
        _ => losses.add("comparison of a response that the format does not hold"),
    };
    for item in &record.feedback {
        match &item.form {
            Form::Span { on, start, end, label, .. } if place(on) == Some(0) => {
                let mut error = Map::new();
                error.insert("error type".into(), json!(label));
                error.insert("explanation".into(), item.text.clone().unwrap_or_default().into());
                error.insert("start".into(), (*start).into());
                error.insert("end".into(), (*end).into());
                errors.push(Value::Object(error));
            }
            Form::Critique { on: Some(on), .. }
                if place(on) == Some(0) && item.extra.contains_key("missing") =>
            {
                missing.push(item.extra["missing"].clone());
            }
            Form::Edit { on, content } if place(on) == Some(0) && corrected.is_null() => {
                corrected = content.text().into();
            }
            Form::Comparison { better, worse } => prefer(better, worse, false, losses),
            Form::Ranking { order } => {
                for (place, ids) in order.iter().enumerate() {
                    for (at, id) in ids.iter().enumerate() {
                        ids[at + 1..].iter().for_each(|tied| prefer(id, tied, true, losses));
                        order[place + 1..]
                            .iter()
                            .flatten()
                            .for_each(|worse| prefer(id, worse, false, losses));
                    }
                }
            }
            Form::Event { on: Some(on), event, .. } if on == "gold" && event == "demonstration" => {}
            other => losses.add(other.kind().name()),
        }
    }
    let said = record.extra.get("feedback_").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut feedback =
        Map::from_iter([("errors".to_owned(), errors.into()), ("missing-info".to_owned(), missing.into())]);
    if !corrected.is_null() {
        feedback.insert("corrected-prediction".into(), corrected);
    }
    feedback.extend(said);
    row.insert("feedback".into(), Value::Object(feedback));
    if preference.iter().any(Option::is_some) {
        let unknown = preference.iter().filter(|value| value.is_none()).count();
        losses.add_many("pair that was not compared, written as a tie", unknown as u64);
        row.insert("preference".into(), preference.iter().map(|value| value.unwrap_or(0)).collect());
    }
    note_details(record, losses);
    let mut rest = record.clone();
    for used in ["question", "passages", "feedback_"] {
        rest.extra.shift_remove(used);
    }
    vec![with_extra(row, &rest, losses)]
}
