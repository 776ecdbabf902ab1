//! What evaluation tools log of each sample: promptfoo results and the samples of Inspect.

use serde_json::{Map, Value};

use super::row::{Row, answer, as_number, as_text};
use super::trl::record_of;
use super::{Context, Format, Joins};
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Content, Prompt, Record, Response};

/// One of `results.results` of a promptfoo file, or a line of its JSONL output.
pub(super) static PROMPTFOO: Format = Format {
    name: "promptfoo",
    about: "promptfoo results: prompt, vars, response, success, gradingResult, namedScores",
    looks_like: |row| {
        row.contains_key("vars")
            && row.contains_key("success")
            && (row.contains_key("response") || row.contains_key("gradingResult"))
    },
    read: promptfoo,
    write: None,
    joins: Joins::No,
};

fn promptfoo(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let success = row.boolean("success")?;
    let prompt = match row.need("prompt", "an object with raw, or text")? {
        Value::Object(prompt) => Row(prompt).text("raw").map_err(|fault| fault.under("prompt"))?,
        other => as_text(other).map_err(|got| Fault::new("prompt", "an object with raw, or text", got))?,
    };
    let error = row.0.get("error").and_then(Value::as_str).unwrap_or("nothing").to_owned();
    let answered = match row.take("response") {
        Some(Value::Object(mut response)) => {
            let output = response.shift_remove("output");
            if !response.is_empty() {
                row.0.insert("response".into(), Value::Object(response));
            }
            output
        }
        other => other,
    };
    let content = match answered {
        None | Some(Value::Null) => return Err(Fault::new("response.output", "what was answered", error)),
        Some(Value::String(text)) => text,
        // Answers that a provider or a transform parsed.
        Some(other) => other.to_string(),
    };
    let model = match row.0.get("provider") {
        Some(Value::String(name)) => Some(name.clone()),
        Some(provider) => provider.get("id").and_then(Value::as_str).map(str::to_owned),
        None => None,
    };
    let mut said = Vec::new();
    let mut outcome = |check: &str, passed: bool, reason: Option<&Value>| {
        let mut item =
            Feedback::from(Form::Outcome { on: "a".into(), check: check.into(), passed }).by("promptfoo");
        item.text = reason.and_then(Value::as_str).filter(|why| !why.trim().is_empty()).map(str::to_owned);
        said.push(item);
    };
    let grading = row.0.get("gradingResult");
    outcome("success", success, grading.and_then(|grading| grading.get("reason")));
    let parts = grading.and_then(|grading| grading.get("componentResults")).and_then(Value::as_array);
    for part in parts.into_iter().flatten() {
        let Some(passed) = part.get("pass").and_then(Value::as_bool) else { continue };
        let assertion = |name: &str| part.get("assertion")?.get(name)?.as_str();
        let check = assertion("metric").or_else(|| assertion("type")).unwrap_or("assertion");
        outcome(check, passed, part.get("reason"));
    }
    if let Some(Value::Object(scores)) = row.take("namedScores") {
        for (name, value) in scores {
            let value = as_number(&value)
                .ok_or_else(|| Fault::new(format!("namedScores.{name}"), "a number", value.to_string()))?;
            let mark = Form::Rating { on: "a".into(), value, scale: None };
            said.push(Feedback::from(mark).about(name).by("promptfoo"));
        }
    }
    // A chat is written as the text of its messages.
    let messages = serde_json::from_str(&prompt).ok().filter(|prompt| matches!(prompt, Prompt::Messages(_)));
    let mut record = record_of(row, messages.unwrap_or_else(|| Prompt::from(prompt)));
    let mut response = Response::new("a", content);
    response.model = model;
    record.responses.push(response);
    record.feedback = said;
    Ok(record)
}

/// One of `samples` of an Inspect log in JSON.
pub(super) static INSPECT: Format = Format {
    name: "inspect",
    about: "Inspect samples: input, target, output, scores with value, answer, explanation",
    looks_like: |row| {
        ["input", "target", "output"].iter().all(|name| row.contains_key(*name))
            && row.get("scores").is_some_and(Value::is_object)
    },
    read: inspect,
    write: None,
    joins: Joins::No,
};

fn inspect(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let prompt = match row.prompt("input")? {
        Prompt::Text(text) => Prompt::from(text),
        messages => messages,
    };
    let mut output = row.object("output")?;
    let model = output.maybe_text("model").map_err(|fault| fault.under("output"))?;
    let completion = output.maybe_text("completion").map_err(|fault| fault.under("output"))?;
    let content = match completion.filter(|text| !text.is_empty()) {
        Some(text) => Content::Text(text),
        None => {
            let message = output.0.get("choices").and_then(|choices| choices.get(0)?.get("message"));
            let message = message.cloned().and_then(|message| serde_json::from_value(message).ok());
            let needed = || Fault::new("output.choices[0].message", "what was answered", "none");
            plain(answer(vec![message.ok_or_else(needed)?]))
        }
    };
    let mut said = Vec::new();
    for (name, score) in row.object("scores")?.0 {
        let Value::Object(score) = score else {
            return Err(Fault::new(format!("scores.{name}"), "an object with value", score.to_string()));
        };
        said.push(score_of(&name, score)?);
    }
    // Runs of several epochs give a sample of one id each.
    let epoch = row.0.get("epoch").and_then(Value::as_u64).filter(|epoch| *epoch > 1);
    let mut record = record_of(row, prompt);
    if let (Some(epoch), false) = (epoch, record.id.is_empty()) {
        record.id = format!("{}:{epoch}", record.id);
    }
    let mut response = Response::new("a", content);
    response.model = model;
    record.responses.push(response);
    record.feedback = said;
    Ok(record)
}

/// A message that says nothing but its text, whatever ids a log gives it.
fn plain(content: Content) -> Content {
    match content {
        Content::Turns(turns) if turns.iter().all(|turn| !turn.extra.contains_key("tool_calls")) => {
            Content::Text(Content::Turns(turns).text().into_owned())
        }
        other => other,
    }
}

/// `C` is correct, `I` incorrect, `P` half right and `N` no answer; other letters are grades, kept in words.
fn score_of(name: &str, score: Map<String, Value>) -> Result<Feedback, Fault> {
    let mut score = Row(score);
    let field = format!("scores.{name}");
    let value = score.need("value", "a score").map_err(|fault| fault.under(&field))?;
    let explanation = score.maybe_text("explanation").map_err(|fault| fault.under(&field))?;
    let on = || "a".to_owned();
    let outcome = |passed| Form::Outcome { on: on(), check: name.to_owned(), passed };
    let grade = |value, scale| Form::Rating { on: on(), value, scale };
    let form = match &value {
        Value::Bool(passed) => outcome(*passed),
        Value::String(letter) => match letter.as_str() {
            "C" => outcome(true),
            "I" => outcome(false),
            "P" => grade(0.5, Some([0.0, 1.0])),
            "N" => grade(0.0, Some([0.0, 1.0])),
            other => Form::Critique { on: Some(on()), text: format!("{name}: {other}") },
        },
        Value::Number(number) => match number.as_f64() {
            Some(value) if value == 0.0 || value == 1.0 => outcome(value == 1.0),
            Some(value) => grade(value, None),
            None => return Err(Fault::new(field + ".value", "a score", number.to_string())),
        },
        // Several values under one name.
        other => Form::Critique { on: Some(on()), text: format!("{name}: {other}") },
    };
    let is_outcome = matches!(form, Form::Outcome { .. });
    let mut item = Feedback::from(form).by("inspect");
    item.aspect = (!is_outcome).then(|| name.to_owned());
    // A critique's words are in its form; what explains it stays under its own name.
    if matches!(item.form, Form::Critique { .. }) {
        score.0.extend(explanation.map(|words| ("explanation".to_owned(), words.into())));
    } else {
        item.text = explanation.filter(|words| !words.trim().is_empty());
    }
    item.extra = score.0;
    Ok(item)
}
