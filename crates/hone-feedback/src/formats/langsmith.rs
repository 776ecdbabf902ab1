//! LangSmith exports: runs, the feedback on them, and examples of data sets, joined by run id.

use serde_json::{Map, Value, json};

use super::langfuse::{content_of, prompt_of};
use super::row::{Row, as_number, as_text};
use super::trl::{demonstration, record_of};
use super::{Format, Joins};
use crate::convert::Losses;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Prompt, Record, Response};

/// The id of a run's only answer.
const OUTPUT: &str = "output";

/// See the module.
pub(super) static LANGSMITH: Format = Format {
    name: "langsmith",
    about: "LangSmith: runs (inputs, outputs), feedback (key, score, value, comment, correction), examples",
    looks_like: |row| {
        is_feedback(row)
            || (row.contains_key("inputs")
                && (row.contains_key("run_type") || row.contains_key("dataset_id")))
    },
    read: |row, _| if is_feedback(&row.0) { feedback_row(row) } else { run_row(row) },
    write: Some(write),
    joins: Joins::ById,
};

fn is_feedback(row: &Map<String, Value>) -> bool {
    row.contains_key("run_id") && row.contains_key("key")
}

fn run_row(mut row: Row) -> Result<Record, Fault> {
    let id = row.text("id")?;
    let example = row.0.contains_key("dataset_id");
    let inputs = row.take("inputs").unwrap_or_default();
    let prompt = if inputs.is_null() { Prompt::Text(String::new()) } else { prompt_of(&inputs) };
    let outputs = row.take("outputs");
    let mut record = record_of(row, prompt);
    record.id = id;
    if let Some(outputs) = outputs {
        record.responses.push(Response::new(OUTPUT, content_of(&outputs)));
        if example {
            record.feedback.push(demonstration(OUTPUT));
        }
    }
    Ok(record)
}

fn feedback_row(mut row: Row) -> Result<Record, Fault> {
    let run = row.text("run_id")?;
    let mut record = Record::new(run, Prompt::Text(String::new()));
    if let Some(own) = row.0.get("feedback_source").and_then(|source| source.get("metadata")?.get("hone"))
        && let Value::Object(own) = own
    {
        let item = Feedback::from_object(own.clone())
            .map_err(|fault| fault.under("feedback_source.metadata.hone"))?;
        record.feedback.push(item);
        return Ok(record);
    }
    let key = row.text("key")?;
    let score = row.take("score");
    let value = row.take("value");
    let comment = row.maybe_text("comment")?.filter(|comment| !comment.trim().is_empty());
    let correction = row.take("correction");
    let at = row.maybe_text("created_at")?;
    let user = row.0.get("feedback_source").and_then(|source| {
        source.get("user_id").filter(|user| !user.is_null()).or_else(|| source.get("type")).cloned()
    });
    let by = user.and_then(|user| as_text(user).ok());
    let on = || OUTPUT.to_owned();
    let mut said: Vec<(Form, bool)> = Vec::new();
    if let Some(correction) = correction {
        said.push((Form::Edit { on: on(), content: content_of(&correction) }, false));
    }
    match (score, value) {
        (Some(Value::Bool(value)), other) => {
            keep(&mut row, other);
            said.push((Form::Thumb { on: on(), value }, true));
        }
        (Some(score), other) => {
            let value = as_number(&score)
                .ok_or_else(|| Fault::new("score", "a number or a truth", score.to_string()))?;
            keep(&mut row, other);
            said.push((Form::Rating { on: on(), value, scale: None }, true));
        }
        (None, Some(label)) => {
            keep(&mut row, Some(label));
            said.push((Form::Event { on: Some(on()), event: key.clone(), value: None }, false));
        }
        (None, None) => {}
    }
    let mut comment = comment;
    if said.is_empty() {
        let Some(text) = comment.take() else {
            return Err(Fault::new("score", "a score, value, comment or correction", "none of them"));
        };
        said.push((Form::Critique { on: Some(on()), text }, true));
    }
    for (form, has_aspect) in said {
        let mut item = Feedback::from(form);
        item.by = by.clone();
        item.at = at.clone();
        item.aspect = has_aspect.then(|| key.clone());
        // One judgement's words stay with its mark.
        item.text = comment.take();
        item.extra = row.0.clone();
        record.feedback.push(item);
    }
    Ok(record)
}

fn keep(row: &mut Row, value: Option<Value>) {
    if let Some(value) = value {
        row.0.insert("label".into(), value);
    }
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    let several = record.responses.len() > 1;
    losses.add_many("prompt shared by several responses", u64::from(several));
    let mut rows = Vec::new();
    let inputs = match &record.prompt {
        Prompt::Text(text) => json!({"input": text}),
        Prompt::Messages(messages) => json!({"messages": messages}),
    };
    for response in &record.responses {
        let id = if several { format!("{}:{}", record.id, response.id) } else { record.id.clone() };
        losses.add_many("unknown field of a response", response.extra.len() as u64);
        losses.add_many("model of a response", response.model.iter().len() as u64);
        let outputs = match &response.content {
            crate::record::Content::Turns(messages) => json!({"messages": messages}),
            other => json!({"output": other.text()}),
        };
        let row = json!({"id": id, "run_type": "llm", "inputs": inputs, "outputs": outputs});
        rows.extend(row.as_object().cloned().map(|row| super::with_extra(row, record, losses)));
        for item in record.feedback.iter().filter(|item| item.form.on() == Some(&response.id)) {
            rows.extend(feedback_of(item, &id).as_object().cloned());
        }
    }
    if record.responses.is_empty() {
        let row = json!({"id": record.id, "run_type": "llm", "inputs": inputs, "outputs": null});
        rows.extend(row.as_object().cloned().map(|row| super::with_extra(row, record, losses)));
    }
    for item in record.feedback.iter().filter(|item| item.form.on().is_none()) {
        losses.add(item.form.kind().name());
    }
    rows
}

/// Feedback as LangSmith shows it, with the whole of it in its source's metadata.
fn feedback_of(item: &Feedback, run: &str) -> Value {
    let mut own = json!(item);
    if let Some(own) = own.as_object_mut()
        && own.contains_key("on")
    {
        own.insert("on".into(), OUTPUT.into());
    }
    let score = match &item.form {
        Form::Thumb { value, .. } => json!(value),
        Form::Rating { value, .. } => super::row::number(*value),
        Form::Outcome { passed, .. } => json!(passed),
        Form::Step { correct, .. } => json!(correct),
        Form::Span { value: Some(value), .. } | Form::Event { value: Some(value), .. } => {
            super::row::number(*value)
        }
        _ => Value::Null,
    };
    let correction = match &item.form {
        Form::Edit { content, .. } => json!({"output": content.text()}),
        _ => Value::Null,
    };
    json!({
        "run_id": run, "key": item.aspect.as_deref().unwrap_or(item.form.kind().name()), "score": score,
        "comment": item.words(), "correction": correction, "created_at": item.at,
        "feedback_source": {"type": "api", "user_id": item.by, "metadata": {"hone": own}},
    })
}
