//! Flat tables: Hone's own lossless one, and the tables that people make by hand.

use serde_json::{Map, Value, json};

use super::row::{Row, as_bool, as_number, number};
use super::trl::{demonstration, record_of};
use super::{Context, Format, Joins};
use crate::convert::Losses;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Prompt, Record, Response};

/// One row per response or item of feedback; rows of one id belong together.
///
/// Columns: `id`, `prompt` (first row), `on`, `response` and `model` (first row of that response), `form`,
/// `value`, `text`, `aspect`, `by`, `at`, and `detail`: JSON with whatever has no column of its own.
pub(super) static CSV: Format = Format {
    name: "csv",
    about: "one row per response or item of feedback, rows of one id following each other",
    looks_like: |row| {
        // Every row has an id and nothing that is not a column; later rows of a record have no prompt.
        row.contains_key("id")
            && row.keys().all(|key| COLUMNS.contains(&key.as_str()))
            && ["prompt", "form", "response"].iter().any(|key| row.contains_key(*key))
    },
    read: read_flat,
    write: Some(write_flat),
    joins: Joins::Adjacent,
};

/// The columns, in order.
pub(super) const COLUMNS: [&str; 12] =
    ["id", "prompt", "on", "response", "model", "form", "value", "text", "aspect", "by", "at", "detail"];

fn read_flat(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let id = row.text("id")?;
    let prompt = if row.has("prompt") { row.prompt("prompt")? } else { Prompt::Text(String::new()) };
    let mut record = Record::new(id, prompt);
    let mut detail = if row.has("detail") { row.object("detail")?.0 } else { Map::new() };
    if let Some(Value::Object(extra)) = detail.shift_remove("record") {
        record.extra = extra;
    }
    if let Some(order) = detail.shift_remove("order_of_responses") {
        record.extra.insert("order_of_responses".into(), order);
    }
    if let Some(Value::String(split)) = detail.shift_remove("split") {
        record.split = Some(split);
    }
    let on = row.maybe_text("on")?;
    if row.has("response") || detail.contains_key("response") {
        let Some(id) = on.clone() else {
            return Err(Fault::new("on", "the id of the response", "nothing"));
        };
        let mut response = match detail.shift_remove("response") {
            Some(Value::Object(own)) => {
                let own = serde_json::from_value(Value::Object(own));
                own.map_err(|error: serde_json::Error| {
                    Fault::new("detail.response", "a response", error.to_string())
                })?
            }
            _ => Response::new(id, ""),
        };
        if row.has("response") {
            response.content = row.content("response")?;
        }
        response.model = row.maybe_text("model")?.or(response.model);
        record.responses.push(response);
    }
    if let Some(form) = row.maybe_text("form")? {
        let mut item = detail;
        item.insert("form".into(), form.clone().into());
        if let Some(on) = on {
            item.entry("on").or_insert(on.into());
        }
        for name in ["text", "aspect", "by", "at"] {
            if let Some(text) = row.maybe_text(name)? {
                item.insert(name.into(), text.into());
            }
        }
        if let Some(value) = row.take("value") {
            let truth = form == "thumb" || form == "step" || form == "outcome";
            let read = if truth { as_bool(&value).map(Value::Bool) } else { as_number(&value).map(number) };
            let needed = if truth { "true or false" } else { "a number" };
            let read = read.ok_or_else(|| Fault::new("value", needed, value.to_string()))?;
            let name = match form.as_str() {
                "step" => "correct",
                "outcome" => "passed",
                _ => "value",
            };
            item.insert(name.into(), read);
        }
        record.feedback.push(Feedback::from_object(item)?);
    }
    for (key, value) in row.0 {
        record.extra.insert(key, value);
    }
    Ok(record)
}

fn write_flat(record: &Record, _: &mut Losses) -> Vec<Map<String, Value>> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for item in &record.feedback {
        let mut row = Map::new();
        if let Some(response) = item.form.on().and_then(|on| record.response(on))
            && !told.contains(&response.id.as_str())
        {
            told.push(&response.id);
            tell(response, &mut row);
        }
        let Value::Object(mut own) = json!(item) else { continue };
        for (name, column) in [
            ("form", "form"),
            ("on", "on"),
            ("text", "text"),
            ("aspect", "aspect"),
            ("by", "by"),
            ("at", "at"),
        ] {
            if let Some(value) = own.shift_remove(name) {
                row.insert(column.into(), value);
            }
        }
        let value = match item.form {
            Form::Step { .. } => "correct",
            Form::Outcome { .. } => "passed",
            _ => "value",
        };
        if matches!(
            item.form,
            Form::Thumb { .. }
                | Form::Rating { .. }
                | Form::Step { .. }
                | Form::Outcome { .. }
                | Form::Event { .. }
                | Form::Span { .. }
        ) && let Some(value) = own.shift_remove(value)
        {
            row.insert("value".into(), value);
        }
        let detail = row.entry("detail").or_insert_with(|| json!({}));
        if let Value::Object(detail) = detail {
            detail.extend(own);
        }
        rows.push(row);
    }
    for response in record.responses.iter().filter(|response| !told.contains(&response.id.as_str())) {
        let mut row = Map::new();
        tell(response, &mut row);
        rows.push(row);
    }
    if rows.is_empty() {
        rows.push(Map::new());
    }
    // The order of the responses matters to nobody, but a round trip keeps it.
    let order: Vec<&str> = record.responses.iter().map(|response| response.id.as_str()).collect();
    let first = &mut rows[0];
    first.insert("prompt".into(), json!(record.prompt));
    if let Value::Object(detail) = first.entry("detail").or_insert_with(|| json!({})) {
        if !record.extra.is_empty() {
            detail.insert("record".into(), record.extra.clone().into());
        }
        if let Some(split) = &record.split {
            detail.insert("split".into(), split.clone().into());
        }
        if order.len() > 1 {
            detail.insert("order_of_responses".into(), json!(order));
        }
    }
    for row in &mut rows {
        row.insert("id".into(), record.id.clone().into());
        if row.get("detail").and_then(Value::as_object).is_some_and(Map::is_empty) {
            row.shift_remove("detail");
        }
    }
    rows
}

fn tell(response: &Response, row: &mut Map<String, Value>) {
    row.insert("on".into(), response.id.clone().into());
    let Value::Object(mut own) = json!(response) else { return };
    let plain = matches!(response.content, crate::record::Content::Text(_));
    if plain && let Some(content) = own.shift_remove("content") {
        row.insert("response".into(), content);
    }
    if let Some(model) = own.shift_remove("model") {
        row.insert("model".into(), model);
    }
    if own.len() > 1 || !plain {
        own.entry("content").or_insert_with(|| "".into());
        row.insert("detail".into(), json!({"response": own}));
    }
}

/// A table as people make it: a prompt, an answer or two, and whatever was said about them, by usual names.
pub(super) static TABLE: Format = Format {
    name: "table",
    about: "a table with a prompt, an answer and a rating, thumb, comment, correction or preference",
    looks_like: |row| {
        let lower = lower_keys(row);
        let has = |names: &[&str]| names.iter().any(|name| lower.contains(*name));
        has(PROMPT)
            && (has(ANSWER) || has(FIRST) && has(SECOND))
            && (has(RATING) || has(THUMB) || has(WORDS) || has(EDIT) || has(PREFERENCE))
    },
    read: read_table,
    write: None,
    joins: Joins::No,
};

const PROMPT: &[&str] = &["prompt", "instruction", "question", "query"];
const ANSWER: &[&str] = &["response", "answer", "output", "completion"];
const FIRST: &[&str] = &["output_1", "response_1", "answer_1", "response_a", "answer_a"];
const SECOND: &[&str] = &["output_2", "response_2", "answer_2", "response_b", "answer_b"];
const RATING: &[&str] = &["rating", "score", "stars"];
const THUMB: &[&str] = &["thumb", "thumbs", "liked", "good", "label"];
const WORDS: &[&str] = &["critique", "comment", "feedback", "review"];
const EDIT: &[&str] = &["edit", "edited", "correction", "corrected", "correct_answer"];
const PREFERENCE: &[&str] = &["preference", "preferred", "winner", "choice"];
const BY: &[&str] = &["by", "user", "annotator", "rater"];

fn lower_keys(row: &Map<String, Value>) -> std::collections::HashSet<String> {
    row.keys().map(|key| key.to_ascii_lowercase()).collect()
}

fn read_table(row: Row, _: &mut Context) -> Result<Record, Fault> {
    let mut row = Row(row.0.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect());
    let pick = |row: &Row, names: &[&'static str]| names.iter().copied().find(|name| row.has(name));
    let mut prompt = match pick(&row, PROMPT) {
        Some(name) => row.prompt(name)?,
        None => return Err(Fault::new("prompt", "a prompt", "nothing")),
    };
    // Alpaca's second half of the instruction.
    if let (Prompt::Text(text), Some(input)) = (&mut prompt, row.maybe_text("input")?)
        && !input.trim().is_empty()
        && input != "nan"
    {
        text.push_str("\n\n");
        text.push_str(&input);
    }
    if let Prompt::Text(text) = prompt {
        prompt = Prompt::from(text);
    }
    let mut responses = Vec::new();
    for (names, id) in [(ANSWER, "a"), (FIRST, "1"), (SECOND, "2")] {
        if let Some(name) = pick(&row, names) {
            responses.push(Response::new(id, row.content(name)?));
        }
    }
    let Some(on) = responses.first().map(|response| response.id.clone()) else {
        return Err(Fault::new("response", "an answer", "nothing"));
    };
    let mut said: Vec<Feedback> = Vec::new();
    if let Some(name) = pick(&row, RATING) {
        said.push(Form::Rating { on: on.clone(), value: row.number(name)?, scale: None }.into());
    }
    if let Some(name) = pick(&row, THUMB) {
        said.push(Form::Thumb { on: on.clone(), value: row.boolean(name)? }.into());
    }
    if let Some(name) = pick(&row, PREFERENCE) {
        let choice = row.text(name)?;
        let ends = |digit: char, letter: char| {
            let lower = choice.trim_matches(['(', ')', ' ']).to_ascii_lowercase();
            lower.ends_with(digit) || lower == letter.to_string() || lower.ends_with(&format!("_{letter}"))
        };
        let (one, two) = ("1".to_owned(), "2".to_owned());
        said.push(match () {
            () if ends('1', 'a') => Form::Comparison { better: one, worse: two }.into(),
            () if ends('2', 'b') => Form::Comparison { better: two, worse: one }.into(),
            () if ["0", "tie", "equal", "same", "both"].contains(&choice.to_ascii_lowercase().as_str()) => {
                Form::Ranking { order: vec![vec![one, two]] }.into()
            }
            () => return Err(Fault::new(name, "1, 2 or tie", format!("{choice:?}"))),
        });
    }
    if let Some(name) = pick(&row, EDIT) {
        said.push(Form::Edit { on: on.clone(), content: row.content(name)? }.into());
    }
    if let Some(name) = pick(&row, WORDS) {
        said.push(Form::Critique { on: Some(on.clone()), text: row.text(name)? }.into());
    }
    if said.is_empty() {
        said.push(demonstration(&on));
    }
    let by = pick(&row, BY).map(|name| row.text(name)).transpose()?;
    for item in &mut said {
        item.by = by.clone();
    }
    let mut record = record_of(row, prompt);
    record.responses = responses;
    record.feedback = said;
    Ok(record)
}
