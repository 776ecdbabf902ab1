//! Langfuse exports: traces and observations, and the scores on them, in one file or one after the other.
//!
//! Scores may lie inside their trace or in rows of their own, before or after it; they are joined by id.

use serde_json::{Map, Value, json};

use super::row::{Row, answer, as_number, as_text};
use super::trl::record_of;
use super::{Format, Joins};
use crate::convert::Losses;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Content, Message, Prompt, Record, Response};

/// The id of a trace's only answer.
const OUTPUT: &str = "output";

/// See the module.
pub(super) static LANGFUSE: Format = Format {
    name: "langfuse",
    about: "Langfuse: traces or observations (input, output) and scores (name, value, dataType)",
    looks_like: |row| {
        is_score(row)
            || (row.contains_key("input")
                && row.contains_key("output")
                && row.contains_key("id")
                && [
                    "timestamp",
                    "traceId",
                    "trace_id",
                    "startTime",
                    "start_time",
                    "scores",
                    "sessionId",
                    "environment",
                ]
                .iter()
                .any(|key| row.contains_key(*key)))
    },
    read: |row, _| if is_score(&row.0) { score_row(row) } else { trace_row(row) },
    write: Some(write),
    joins: Joins::ById,
};

fn is_score(row: &Map<String, Value>) -> bool {
    let target = ["traceId", "trace_id", "observationId", "observation_id", "sessionId", "session_id"];
    row.contains_key("name")
        && ["value", "stringValue", "string_value", "longStringValue"]
            .iter()
            .any(|key| row.contains_key(*key))
        && target.iter().any(|key| row.contains_key(*key))
        && !row.contains_key("input")
}

/// A field under either of its two spellings.
fn either(row: &mut Row, camel: &str, snake: &str) -> Option<Value> {
    row.take(camel).or_else(|| row.take(snake))
}

fn trace_row(mut row: Row) -> Result<Record, Fault> {
    let id = row.text("id")?;
    let prompt = row.take("input").map_or_else(|| Prompt::Text(String::new()), |input| prompt_of(&input));
    let output = row.take("output");
    let scores = row.has("scores").then(|| row.list("scores")).transpose()?.unwrap_or_default();
    let model = row.maybe_text("model")?;
    let mut record = record_of(row, prompt);
    record.id = id;
    if let Some(output) = output {
        let mut response = Response::new(OUTPUT, content_of(&output));
        response.model = model;
        record.responses.push(response);
    }
    for (index, score) in scores.into_iter().enumerate() {
        let Value::Object(score) = score else {
            return Err(Fault::new(format!("scores[{index}]"), "a score", score.to_string()));
        };
        let mut score = Row(score);
        // Inside the trace they say nothing that the trace's id does not.
        for key in ["traceId", "trace_id"] {
            score.take(key);
        }
        let item = feedback_of(score).map_err(|fault| fault.under(&format!("scores[{index}]")))?;
        record.feedback.push(item);
    }
    Ok(record)
}

/// A record that waits for its trace.
fn score_row(mut row: Row) -> Result<Record, Fault> {
    let trace = either(&mut row, "traceId", "trace_id");
    let observation = either(&mut row, "observationId", "observation_id");
    let session = either(&mut row, "sessionId", "session_id");
    let target = observation
        .or(trace)
        .or(session)
        .ok_or_else(|| Fault::new("traceId", "what it scores", "nothing"))?;
    let id = as_text(target).map_err(|got| Fault::new("traceId", "an id", got))?;
    let mut record = Record::new(id, Prompt::Text(String::new()));
    record.feedback.push(feedback_of(row)?);
    Ok(record)
}

fn feedback_of(mut row: Row) -> Result<Feedback, Fault> {
    // What Hone itself wrote is there in full.
    if let Some(own) = row.0.get_mut("metadata").and_then(|metadata| metadata.get_mut("hone"))
        && let Value::Object(own) = own.take()
    {
        return Feedback::from_object(own).map_err(|fault| fault.under("metadata.hone"));
    }
    let name = row.text("name")?;
    let kind = either(&mut row, "dataType", "data_type").and_then(|kind| as_text(kind).ok());
    let long = either(&mut row, "longStringValue", "long_string_value");
    let words = long
        .or_else(|| either(&mut row, "stringValue", "string_value"))
        .and_then(|words| as_text(words).ok());
    let value = row.take("value");
    let words_or_value = |words: Option<String>, value: Option<Value>| {
        let text = words.or_else(|| value.and_then(|value| as_text(value).ok()));
        text.ok_or_else(|| Fault::new("value", "text", "nothing"))
    };
    let kind = kind.unwrap_or_else(|| match &value {
        Some(Value::Bool(_)) => "BOOLEAN".into(),
        Some(value) if as_number(value).is_some() => "NUMERIC".into(),
        _ => "CATEGORICAL".into(),
    });
    let number = value.as_ref().and_then(as_number);
    let on = OUTPUT.to_owned();
    let got = || value.as_ref().map_or("nothing".to_owned(), Value::to_string);
    let (form, aspect) = match kind.to_ascii_uppercase().as_str() {
        "NUMERIC" => {
            let value = number.ok_or_else(|| Fault::new("value", "a number", got()))?;
            (Form::Rating { on, value, scale: None }, Some(name))
        }
        "BOOLEAN" => {
            let truth = value.as_ref().and_then(super::row::as_bool);
            let value = truth.ok_or_else(|| Fault::new("value", "0 or 1", got()))?;
            (Form::Thumb { on, value }, Some(name))
        }
        "CATEGORICAL" => {
            let label = words_or_value(words, value)?;
            row.0.insert("stringValue".into(), label.into());
            (Form::Event { on: Some(on), event: name, value: number }, None)
        }
        "CORRECTION" => (Form::Edit { on, content: words_or_value(words, value)?.into() }, None),
        "TEXT" => (Form::Critique { on: Some(on), text: words_or_value(words, value)? }, Some(name)),
        other => {
            let needed = "NUMERIC, CATEGORICAL, BOOLEAN, CORRECTION or TEXT";
            return Err(Fault::new("dataType", needed, other));
        }
    };
    let mut item = Feedback::from(form);
    item.aspect = aspect;
    item.text = row.maybe_text("comment")?.filter(|comment| !comment.is_empty());
    item.at = row.maybe_text("timestamp")?;
    let author = either(&mut row, "authorUserId", "author_user_id").and_then(|author| as_text(author).ok());
    item.by = author.or(row.maybe_text("source")?);
    item.extra = row.0;
    Ok(item)
}

/// A prompt from whatever was logged as input.
pub(super) fn prompt_of(input: &Value) -> Prompt {
    if let Some(messages) = messages_of(input) {
        return Prompt::Messages(messages);
    }
    Prompt::Text(plain(input, &["prompt", "input", "question", "query", "text"]))
}

/// An answer from whatever was logged as output.
pub(super) fn content_of(output: &Value) -> Content {
    match messages_of(output) {
        Some(messages) => answer(messages),
        None => match output {
            Value::Object(message) if message.get("role").is_some_and(Value::is_string) => {
                answer(messages_of(&Value::Array(vec![output.clone()])).unwrap_or_default())
            }
            _ => Content::Text(plain(
                output,
                &["output", "answer", "response", "completion", "text", "content"],
            )),
        },
    }
}

/// The messages of a list or of a request that has some. LangChain's `type` and `human` are understood.
fn messages_of(value: &Value) -> Option<Vec<Message>> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(object) => object.get("messages")?.as_array()?,
        _ => return None,
    };
    let message = |value: &Value| {
        let mut fields = value.as_object()?.clone();
        if !fields.contains_key("role") {
            let role = match fields.shift_remove("type")?.as_str()? {
                "human" => "user",
                "ai" => "assistant",
                other @ ("system" | "tool") => other,
                _ => return None,
            }
            .to_owned();
            fields.insert("role".into(), role.into());
        }
        serde_json::from_value(Value::Object(fields)).ok()
    };
    (!list.is_empty()).then(|| list.iter().map(message).collect())?
}

/// Text as it is; of an object with one telling field that field; else the JSON itself.
fn plain(value: &Value, names: &[&str]) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(object) if object.len() == 1 => {
            let named = names.iter().find_map(|name| object.get(*name)?.as_str());
            named.map_or_else(|| value.to_string(), str::to_owned)
        }
        other => other.to_string(),
    }
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    let several = record.responses.len() > 1;
    let mut rows = Vec::new();
    for response in &record.responses {
        let scores: Vec<Value> = record
            .feedback
            .iter()
            .filter(|item| item.form.on() == Some(&response.id))
            .map(|item| score_of(item, &record.id))
            .collect();
        let id = if several { format!("{}:{}", record.id, response.id) } else { record.id.clone() };
        let mut row =
            Map::from_iter([("id".to_owned(), id.into()), ("input".to_owned(), json!(record.prompt))]);
        row.insert("output".into(), json!(response.content));
        if let Some(model) = &response.model {
            row.insert("model".into(), model.clone().into());
        }
        losses.add_many("unknown field of a response", response.extra.len() as u64);
        if !record.extra.contains_key("timestamp") {
            row.insert("timestamp".into(), Value::Null);
        }
        row.insert("scores".into(), scores.into());
        rows.push(super::with_extra(row, record, losses));
    }
    if record.responses.is_empty() {
        let row = json!({"id": record.id, "timestamp": null, "input": record.prompt, "output": null});
        rows.extend(row.as_object().cloned().map(|row| super::with_extra(row, record, losses)));
    }
    losses.add_many("prompt shared by several responses", u64::from(several));
    for item in record.feedback.iter().filter(|item| item.form.on().is_none()) {
        losses.add(item.form.kind().name());
    }
    rows
}

/// A score that shows the feedback to Langfuse, with the whole of it in its metadata.
fn score_of(item: &Feedback, trace: &str) -> Value {
    let (kind, name, value) = match &item.form {
        Form::Thumb { value, .. } => ("BOOLEAN", "thumb".to_owned(), json!(u8::from(*value))),
        Form::Rating { value, .. } => ("NUMERIC", "rating".to_owned(), super::row::number(*value)),
        Form::Outcome { check, passed, .. } => ("BOOLEAN", check.clone(), json!(u8::from(*passed))),
        Form::Step { index, correct, .. } => ("BOOLEAN", format!("step {index}"), json!(u8::from(*correct))),
        Form::Event { event, value, .. } => {
            ("NUMERIC", event.clone(), super::row::number(value.unwrap_or(1.0)))
        }
        Form::Span { label, value, .. } => {
            let name = label.clone().unwrap_or_else(|| "span".into());
            ("NUMERIC", name, super::row::number(value.unwrap_or(-1.0)))
        }
        Form::Edit { content, .. } => ("CORRECTION", "output".to_owned(), content.text().into()),
        Form::Critique { text, .. } => ("TEXT", "critique".to_owned(), text.clone().into()),
        Form::Comparison { .. } | Form::Ranking { .. } | Form::Rule { .. } => {
            ("TEXT", "rule".to_owned(), Value::Null)
        }
    };
    let mut own = json!(item);
    if let Some(own) = own.as_object_mut()
        && own.contains_key("on")
    {
        own.insert("on".into(), OUTPUT.into());
    }
    let name = item.aspect.clone().unwrap_or(name);
    json!({
        "traceId": trace, "name": name, "value": value, "dataType": kind, "comment": item.text,
        "source": item.by, "timestamp": item.at, "metadata": {"hone": own},
    })
}
