//! The rows of TRL: text, messages, prompt, completion, preference, unpaired, stepwise.
//!
//! Each text may also be a list of messages. Extra columns (`tools`, `images`, …) stay with the record.

use serde_json::{Map, Value, json};

use super::row::{Row, answer_messages, as_bool, split_conversation};
use super::{Context, Format, Joins, note_details, note_empty, row_for, with_extra};
use crate::convert::{self, Losses};
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Content, Message, Prompt, Record, Response};

fn has(row: &Map<String, Value>, names: &[&str]) -> bool {
    names.iter().all(|name| row.contains_key(*name))
}

/// `{"text"}`
pub(super) static TEXT: Format = Format {
    name: "trl-text",
    about: "TRL language modelling: text",
    looks_like: |row| has(row, &["text"]) && row.get("text").is_some_and(Value::is_string),
    read: |mut row, _| {
        let content = Content::Text(row.text("text")?);
        Ok(demonstrate(row, Prompt::Text(String::new()), Some(content)))
    },
    write: Some(|record, losses| {
        demonstrations(record, losses, |prompt, content, losses| {
            if matches!(prompt, Prompt::Messages(_)) {
                losses.add("roles of a chat");
            }
            let prompt = prompt.text();
            let glue = if prompt.is_empty() || matches!(record.prompt, Prompt::Text(_)) { "" } else { "\n" };
            vec![("text", json!(format!("{prompt}{glue}{}", content.text())))]
        })
    }),
    joins: Joins::No,
};

/// `{"messages"}`
pub(super) static MESSAGES: Format = Format {
    name: "trl-messages",
    about: "TRL language modelling: messages; the answer is what follows the last message of the user",
    looks_like: |row| row.get("messages").is_some_and(Value::is_array),
    read: |mut row, _| {
        let messages = row.messages("messages")?;
        Ok(conversation(row, messages))
    },
    write: Some(|record, losses| {
        demonstrations(record, losses, |prompt, content, losses| {
            vec![("messages", json!(whole_conversation(prompt, content, losses)))]
        })
    }),
    joins: Joins::No,
};

/// `{"prompt"}`
pub(super) static PROMPT: Format = Format {
    name: "trl-prompt",
    about: "TRL prompt only: prompt",
    looks_like: |row| {
        // Whatever answers or judges makes it a row of another kind.
        has(row, &["prompt"])
            && !["completion", "completions", "chosen", "rejected", "responses", "feedback"]
                .iter()
                .any(|name| row.contains_key(*name))
    },
    read: |mut row, _| {
        let prompt = row.prompt("prompt")?;
        Ok(demonstrate(row, prompt, None))
    },
    write: Some(|record, losses| {
        losses.add_many("response", record.responses.len() as u64);
        losses.add_many("feedback", record.feedback.len() as u64);
        let mut row = row_for(record);
        row.insert("prompt".into(), json!(record.prompt));
        vec![with_extra(row, record, losses)]
    }),
    joins: Joins::No,
};

/// `{"prompt","completion"}`
pub(super) static COMPLETION: Format = Format {
    name: "trl-completion",
    about: "TRL prompt and completion: prompt, completion",
    looks_like: |row| has(row, &["prompt", "completion"]),
    read: |mut row, _| {
        let prompt = row.prompt("prompt")?;
        let content = row.content("completion")?;
        Ok(demonstrate(row, prompt, Some(content)))
    },
    write: Some(|record, losses| {
        demonstrations(record, losses, |prompt, content, _| {
            vec![("prompt", json!(prompt)), ("completion", completion(prompt, content))]
        })
    }),
    joins: Joins::No,
};

/// `{"prompt"?,"chosen","rejected"}`
pub(super) static PREFERENCE: Format = Format {
    name: "trl-preference",
    about: "TRL preference: prompt (may be implicit), chosen, rejected",
    looks_like: |row| has(row, &["chosen", "rejected"]),
    read: preference,
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::pairs(record, losses)
            .into_iter()
            .map(|pair| {
                let mut row = row_for(record);
                row.insert("prompt".into(), json!(pair.prompt));
                row.insert("chosen".into(), completion(pair.prompt, pair.chosen));
                row.insert("rejected".into(), completion(pair.prompt, pair.rejected));
                with_extra(row, record, losses)
            })
            .collect();
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// `{"prompt","completion","label"}`
pub(super) static UNPAIRED: Format = Format {
    name: "trl-unpaired",
    about: "TRL unpaired preference: prompt, completion, label",
    looks_like: |row| has(row, &["prompt", "completion", "label"]),
    read: |mut row, _| {
        let (prompt, content) = (row.prompt("prompt")?, row.content("completion")?);
        let value = row.boolean("label")?;
        let mut record = record_of(row, prompt);
        record.responses.push(Response::new("a", content));
        Ok(record.say(Form::Thumb { on: "a".into(), value }))
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::binary_labels(record, losses)
            .into_iter()
            .map(|label| {
                let mut row = row_for(record);
                row.insert("prompt".into(), json!(label.prompt));
                row.insert("completion".into(), completion(label.prompt, label.content));
                row.insert("label".into(), label.good.into());
                with_extra(row, record, losses)
            })
            .collect();
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// `{"prompt","completions","labels"}`
pub(super) static STEPWISE: Format = Format {
    name: "trl-stepwise",
    about: "TRL stepwise supervision: prompt, completions, labels",
    looks_like: |row| has(row, &["prompt", "completions", "labels"]),
    read: |mut row, _| {
        let prompt = row.prompt("prompt")?;
        let steps = row.texts("completions")?;
        let labels = row.list("labels")?;
        if labels.len() != steps.len() {
            let needed = format!("{} labels, one per completion", steps.len());
            return Err(Fault::new("labels", needed, labels.len().to_string()));
        }
        let mut record = record_of(row, prompt);
        record.responses.push(stepped("a", steps));
        for (index, label) in labels.iter().enumerate() {
            let correct = as_bool(label)
                .ok_or_else(|| Fault::new(format!("labels[{index}]"), "true or false", label.to_string()))?;
            record.feedback.push(Form::Step { on: "a".into(), index, correct }.into());
        }
        Ok(record)
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let mut rows = Vec::new();
        for labels in convert::step_labels(record, losses) {
            // The format has no word for "not judged", so the row ends before the first such step.
            let judged = labels.correct.iter().take_while(|correct| correct.is_some()).count();
            losses.add_many("step without a verdict before it", (labels.correct.len() - judged) as u64);
            if judged == 0 {
                continue;
            }
            let mut row = row_for(record);
            row.insert("prompt".into(), json!(record.prompt));
            row.insert("completions".into(), json!(labels.steps[..judged]));
            row.insert("labels".into(), json!(labels.correct[..judged]));
            rows.push(with_extra(row, record, losses));
        }
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// A record with the row's id and, as unknown fields, what is left of the row.
pub(super) fn record_of(mut row: Row, prompt: Prompt) -> Record {
    let mut record = Record::new(row.id().unwrap_or_default(), prompt);
    if let Some(Value::String(_)) = row.0.get("split") {
        record.split = row.maybe_text("split").ok().flatten();
    }
    record.extra = row.0;
    record
}

/// A record whose one response is there to imitate.
pub(super) fn demonstrate(row: Row, prompt: Prompt, content: Option<Content>) -> Record {
    let mut record = record_of(row, prompt);
    if let Some(content) = content {
        record.responses.push(Response::new("a", content));
        record.feedback.push(demonstration("a"));
    }
    record
}

/// The mark of a response to imitate.
pub(super) fn demonstration(on: &str) -> Feedback {
    Form::Event { on: Some(on.into()), event: "demonstration".into(), value: None }.into()
}

/// A record from a whole conversation.
pub(super) fn conversation(row: Row, messages: Vec<Message>) -> Record {
    let (prompt, answer) = split_conversation(messages);
    let content = (!answer.is_empty()).then(|| super::row::answer(answer));
    demonstrate(row, Prompt::Messages(prompt), content)
}

/// A response that lists its steps.
pub(super) fn stepped(id: &str, steps: Vec<String>) -> Response {
    let mut response = Response::new(id, steps.join("\n"));
    response.steps = Some(steps);
    response
}

/// An answer as TRL has it beside such a prompt: text beside text, messages beside messages.
fn completion(prompt: &Prompt, content: &Content) -> Value {
    match (prompt, content) {
        (Prompt::Messages(_), content) => json!(answer_messages(content)),
        (Prompt::Text(_), content) => json!(content),
    }
}

/// Prompt and answer as one list of messages.
pub(super) fn whole_conversation(prompt: &Prompt, content: &Content, losses: &mut Losses) -> Vec<Message> {
    let mut messages = messages_of(prompt, losses);
    messages.extend(answer_messages(content));
    messages
}

/// A prompt as messages; raw text becomes one of the user.
pub(super) fn messages_of(prompt: &Prompt, losses: &mut Losses) -> Vec<Message> {
    match prompt {
        Prompt::Messages(messages) => messages.clone(),
        Prompt::Text(text) if text.is_empty() => Vec::new(),
        Prompt::Text(text) => {
            losses.add("raw prompt became a message of the user");
            vec![Message::new("user", text.as_str())]
        }
    }
}

/// One row per demonstration, and the responses that are none counted as lost.
fn demonstrations(
    record: &Record,
    losses: &mut Losses,
    row: impl Fn(&Prompt, &Content, &mut Losses) -> Vec<(&'static str, Value)>,
) -> Vec<Map<String, Value>> {
    note_details(record, losses);
    let shown = convert::demonstrations(record, losses);
    let unused = |response: &&Response| !shown.iter().any(|one| std::ptr::eq(one.content, &response.content));
    losses
        .add_many("response that is no demonstration", record.responses.iter().filter(unused).count() as u64);
    let rows: Vec<_> = shown
        .iter()
        .map(|one| {
            let mut out = row_for(record);
            out.extend(
                row(one.prompt, one.content, losses).into_iter().map(|(key, value)| (key.to_owned(), value)),
            );
            with_extra(out, record, losses)
        })
        .collect();
    note_empty(&rows, losses);
    rows
}

fn preference(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let explicit = row.has("prompt");
    let given = if explicit { Some(row.prompt("prompt")?) } else { None };
    let (chosen, rejected) = (row.content("chosen")?, row.content("rejected")?);
    let (prompt, chosen, rejected) = match (given, chosen, rejected) {
        (Some(prompt), chosen, rejected) => (prompt, chosen, rejected),
        (None, Content::Turns(chosen), Content::Turns(rejected)) => {
            let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            // Two equal conversations still need an answer each.
            let shared = shared.min(chosen.len().min(rejected.len()).saturating_sub(1));
            let rest = |messages: &[Message]| super::row::answer(messages[shared..].to_vec());
            (Prompt::Messages(chosen[..shared].to_vec()), rest(&chosen), rest(&rejected))
        }
        (None, Content::Text(chosen), Content::Text(rejected)) => {
            let shared = shared_text(&chosen, &rejected);
            let rest = |text: &str| Content::Text(text[shared..].to_owned());
            (Prompt::Text(chosen[..shared].to_owned()), rest(&chosen), rest(&rejected))
        }
        _ => return Err(Fault::new("rejected", "the same kind as chosen", "text beside messages")),
    };
    let mut record = record_of(row, prompt);
    record.responses.push(Response::new("chosen", chosen));
    record.responses.push(Response::new("rejected", rejected));
    Ok(record.say(Form::Comparison { better: "chosen".into(), worse: "rejected".into() }))
}

/// Bytes that both texts share from the start, up to the last word boundary.
fn shared_text(a: &str, b: &str) -> usize {
    let same = a.char_indices().zip(b.chars()).take_while(|((_, x), y)| x == y);
    let end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    a[..end].rfind(char::is_whitespace).map_or(0, |at| at + a[at..].chars().next().map_or(0, char::len_utf8))
}
