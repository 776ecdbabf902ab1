//! Argilla's flat export: field columns, and per question its responses, users, statuses and suggestion.

use serde_json::{Map, Value, json};

use super::row::{Row, as_number, as_text, number};
use super::trl::record_of;
use super::{Context, Format, Joins, note_details, row_for, with_extra};
use crate::convert::Losses;
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Prompt, Record, Response};

const RESPONSES: &str = ".responses";

/// See the module.
pub(super) static ARGILLA: Format = Format {
    name: "argilla",
    about: "Argilla flat export: fields, <question>.responses, .responses.users, .responses.status, .suggestion",
    looks_like: |row| row.keys().any(|key| key.ends_with(RESPONSES) || key.ends_with(".suggestion")),
    read,
    write: Some(write),
    joins: Joins::No,
};

/// Field names that hold what was asked.
const PROMPTS: [&str; 8] =
    ["prompt", "instruction", "question", "input", "query", "context", "chat", "messages"];
/// Field names, or starts of them, that hold an answer.
const ANSWERS: [&str; 6] = ["response", "completion", "answer", "output", "generation", "text"];

fn read(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let prompt = match PROMPTS.iter().find(|name| row.has(name)) {
        Some(name) => row.prompt(name)?,
        None => Prompt::Text(String::new()),
    };
    let questions = question_names(&row);
    let fields: Vec<String> =
        row.0.keys().filter(|key| !key.contains('.') && answer_id(key).is_some()).cloned().collect();
    let mut responses = Vec::new();
    for field in fields {
        if row.has(&field) {
            let id = answer_id(&field).unwrap_or_default().to_owned();
            responses.push(Response::new(if id.is_empty() { "a".into() } else { id }, row.content(&field)?));
        }
    }
    if responses.is_empty() {
        return Err(Fault::new(
            "response",
            "a field with an answer, such as response, text or output",
            "none",
        ));
    }
    let mut feedback = Vec::new();
    for question in &questions {
        // A question may be about one of several answers, whose id then ends its name.
        let ends = |response: &&Response| {
            question.strip_suffix(&response.id).is_some_and(|rest| rest.ends_with('_'))
        };
        let named = responses.iter().find(ends);
        let on = named.or(responses.first()).map(|response| response.id.clone()).unwrap_or_default();
        let aspect = match named {
            Some(response) => question[..question.len() - response.id.len() - 1].to_owned(),
            None => question.clone(),
        };
        answers(&mut row, question, &aspect, &on, &mut feedback)?;
    }
    let mut record = record_of(row, prompt);
    record.responses = responses;
    record.feedback = feedback;
    Ok(record)
}

fn question_names(row: &Row) -> Vec<String> {
    let mut names = Vec::new();
    for key in row.0.keys() {
        let name = key.strip_suffix(RESPONSES).or_else(|| key.strip_suffix(".suggestion"));
        if let Some(name) = name.filter(|name| !names.iter().any(|known| known == name)) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The answer's id in a field name: `response_b` is `b`, `output` is empty. None: no answer field.
fn answer_id(field: &str) -> Option<&str> {
    let rest = ANSWERS.iter().find_map(|name| field.strip_prefix(name))?;
    let id = rest.trim_start_matches(['_', '-']);
    (rest.is_empty() || id.len() < rest.len() || rest.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
}

/// All people's answers to one question, and the suggestion.
fn answers(
    row: &mut Row,
    question: &str,
    aspect: &str,
    on: &str,
    feedback: &mut Vec<Feedback>,
) -> Result<(), Fault> {
    let name = format!("{question}{RESPONSES}");
    let listed = |row: &mut Row, name: &str| row.has(name).then(|| row.list(name)).transpose();
    let values = listed(row, &name)?.unwrap_or_default();
    let users = listed(row, &format!("{name}.users"))?.unwrap_or_default();
    let status = listed(row, &format!("{name}.status"))?.unwrap_or_default();
    for (index, value) in values.into_iter().enumerate().filter(|(_, value)| !value.is_null()) {
        let mut extra = Map::new();
        if let Some(status) = status.get(index).filter(|status| *status != "submitted") {
            extra.insert("status".into(), status.clone());
        }
        let by = users.get(index).cloned().and_then(|user| as_text(user).ok());
        let items = items_of(value, aspect, on).map_err(|fault| fault.under(&format!("{name}[{index}]")))?;
        feedback.extend(items.into_iter().map(|mut item| {
            item.by = by.clone();
            item.extra = extra.clone();
            item
        }));
    }
    let name = format!("{question}.suggestion");
    if let Some(value) = row.take(&name) {
        let by = row.maybe_text(&format!("{name}.agent"))?.or_else(|| Some("suggestion".into()));
        let score = row.take(&format!("{name}.score"));
        for mut item in items_of(value, aspect, on).map_err(|fault| fault.under(&name))? {
            item.by = by.clone();
            item.extra.extend(score.clone().map(|score| ("score".to_owned(), score)));
            feedback.push(item);
        }
    }
    Ok(())
}

/// What one answer to a question says.
fn items_of(value: Value, aspect: &str, on: &str) -> Result<Vec<Feedback>, Fault> {
    let about = |form: Form| Feedback::from(form).about(aspect);
    let on = on.to_owned();
    if let Some(value) = as_number(&value) {
        return Ok(vec![about(Form::Rating { on, value, scale: None })]);
    }
    Ok(match value {
        Value::Bool(value) => vec![about(Form::Thumb { on, value })],
        Value::String(text) => {
            let lower = aspect.to_ascii_lowercase();
            let rewritten = ["correct", "edit", "rewrite", "improve"].iter().any(|word| lower.contains(word));
            let said = text.to_ascii_lowercase();
            match said.as_str() {
                _ if rewritten && said.split_whitespace().count() > 1 => {
                    vec![Feedback::from(Form::Edit { on, content: text.into() }).about(aspect)]
                }
                "yes" | "no" | "true" | "false" => {
                    vec![about(Form::Thumb { on, value: matches!(said.as_str(), "yes" | "true") })]
                }
                _ => vec![about(Form::Critique { on: Some(on), text })],
            }
        }
        Value::Array(items) if items.iter().all(|item| item.get("rank").is_some()) && !items.is_empty() => {
            vec![about(Form::Ranking { order: order_of(&items)? })]
        }
        Value::Array(items) if items.iter().all(|item| item.get("start").is_some()) => {
            let span = |(index, item): (usize, Value)| {
                let Value::Object(item) = item else {
                    return Err(Fault::new("", "a span", item.to_string()));
                };
                let mut item = Row(item);
                let mut offset = |name: &str| {
                    let value = item.need(name, "a whole number from 0")?;
                    let offset = value.as_u64().and_then(|offset| usize::try_from(offset).ok());
                    offset.ok_or_else(|| Fault::new(name, "a whole number from 0", value.to_string()))
                };
                let place = format!("[{index}]");
                let start = offset("start").map_err(|fault| fault.under(&place))?;
                let end = offset("end").map_err(|fault| fault.under(&place))?;
                let label = item.maybe_text("label").map_err(|fault| fault.under(&place))?;
                Ok(about(Form::Span { on: on.clone(), start, end, label, value: None }))
            };
            items.into_iter().enumerate().map(span).collect::<Result<_, _>>()?
        }
        // Several labels chosen at once.
        Value::Array(labels) => {
            let label = |label: Value| {
                let text = as_text(label).map_err(|got| Fault::new("", "a label", got))?;
                Ok(about(Form::Critique { on: Some(on.clone()), text }))
            };
            labels.into_iter().map(label).collect::<Result<_, _>>()?
        }
        other => {
            return Err(Fault::new("", "a number, text, list of ranks or list of spans", other.to_string()));
        }
    })
}

/// Places by rank, 1 is best; `response-2` and `response_2` name the answer `2`.
fn order_of(items: &[Value]) -> Result<Vec<Vec<String>>, Fault> {
    let mut ranked = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let rank = item.get("rank").and_then(as_number);
        let rank = rank.ok_or_else(|| Fault::new(format!("[{index}].rank"), "a number", item.to_string()))?;
        let value = item.get("value").and_then(Value::as_str);
        let value = value.ok_or_else(|| Fault::new(format!("[{index}].value"), "text", item.to_string()))?;
        let id = answer_id(value).filter(|id| !id.is_empty()).unwrap_or(value);
        ranked.push((rank, id.to_owned()));
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut order: Vec<Vec<String>> = Vec::new();
    let mut last = f64::NAN;
    for (rank, id) in ranked {
        match order.last_mut() {
            Some(place) if rank == last => place.push(id),
            _ => order.push(vec![id]),
        }
        last = rank;
    }
    Ok(order)
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    let mut row = row_for(record);
    row.insert("prompt".into(), json!(record.prompt));
    for response in &record.responses {
        row.insert(format!("response_{}", response.id), json!(response.content));
    }
    // Per question: values, users.
    let mut questions: Map<String, Value> = Map::new();
    for item in &record.feedback {
        let Some((question, value)) = answer_of(item, record, losses) else { continue };
        losses.add_many("words that came with the feedback", item.text.iter().len() as u64);
        for (column, value) in [
            (RESPONSES, value),
            (".responses.users", json!(item.by)),
            (".responses.status", json!("submitted")),
        ] {
            let list = questions.entry(format!("{question}{column}")).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.push(value);
            }
        }
    }
    row.extend(questions);
    let mut quiet = Losses::default();
    note_details(record, &mut quiet);
    for (reason, count) in
        quiet.iter().filter(|(reason, _)| !matches!(*reason, "who said it" | "aspect of the feedback"))
    {
        losses.add_many(reason, count);
    }
    vec![with_extra(row, record, losses)]
}

/// The question and the answer that say the same as the item.
fn answer_of(item: &Feedback, record: &Record, losses: &mut Losses) -> Option<(String, Value)> {
    let named = |fallback: &str, on: Option<&str>| {
        let aspect = item.aspect.as_deref().unwrap_or(fallback);
        let aspect = aspect.replace('.', "_");
        match on {
            Some(on) => format!("{aspect}_{on}"),
            None => aspect,
        }
    };
    let on = item.form.on();
    Some(match &item.form {
        Form::Rating { value, scale, .. } => {
            losses.add_many("scale of a rating", scale.iter().len() as u64);
            (named("rating", on), number(*value))
        }
        Form::Thumb { value, .. } => (named("good", on), json!(if *value { "yes" } else { "no" })),
        Form::Critique { on: Some(_), text } => (named("critique", on), json!(text)),
        Form::Edit { content, .. } => (named("corrected", on), content.text().into()),
        Form::Span { start, end, label, value, .. } => {
            losses.add_many("value of a span", value.iter().len() as u64);
            (named("spans", on), json!([{"start": start, "end": end, "label": label}]))
        }
        Form::Ranking { order } => {
            let places = order.iter().enumerate();
            let values = places.flat_map(|(place, ids)| {
                ids.iter().map(move |id| json!({"value": format!("response_{id}"), "rank": place + 1}))
            });
            (named("ranking", None), values.collect())
        }
        Form::Comparison { better, worse } if record.response(better).is_some() => {
            let rank = |id: &str, rank: u8| json!({"value": format!("response_{id}"), "rank": rank});
            losses.add("comparison written as a ranking of two");
            (named("preference", None), json!([rank(better, 1), rank(worse, 2)]))
        }
        other => {
            losses.add(other.kind().name());
            return None;
        }
    })
}
