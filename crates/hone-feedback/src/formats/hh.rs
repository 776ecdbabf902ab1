//! HH-RLHF: two transcripts of `Human:` and `Assistant:` turns, and the same as lists of turns.

use serde_json::{Value, json};

use super::row::{Row, answer};
use super::trl::record_of;
use super::{Format, Joins, note_details, note_empty, row_for, with_extra};
use crate::convert::{self, Losses};
use crate::error::Fault;
use crate::feedback::Form;
use crate::record::{Content, Message, Prompt, Record, Response};

const HUMAN: &str = "\n\nHuman:";
const ASSISTANT: &str = "\n\nAssistant:";

/// `{"chosen":"\n\nHuman: …\n\nAssistant: …","rejected":…}`
pub(super) static TRANSCRIPTS: Format = Format {
    name: "hh-rlhf",
    about: "HH-RLHF: chosen and rejected transcripts",
    looks_like: |row| {
        let transcript =
            |name: &str| row.get(name).and_then(Value::as_str).is_some_and(|text| text.contains(HUMAN));
        transcript("chosen") && transcript("rejected")
    },
    read: |mut row, _| {
        let chosen = turns("chosen", &row.text("chosen")?)?;
        let rejected = turns("rejected", &row.text("rejected")?)?;
        // The two share the conversation up to where they part; what follows is the answer.
        let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
        let shared = shared.min(chosen.len().min(rejected.len()).saturating_sub(1));
        let content = |turns: &[Message]| answer(turns[shared..].to_vec());
        compared(row, chosen[..shared].to_vec(), content(&chosen), content(&rejected))
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::pairs(record, losses)
            .iter()
            .map(|pair| {
                let mut row = row_for(record);
                row.insert("chosen".into(), transcript(pair.prompt, pair.chosen, losses).into());
                row.insert("rejected".into(), transcript(pair.prompt, pair.rejected, losses).into());
                with_extra(row, record, losses)
            })
            .collect();
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// `{"turns":[{"role","text"}],"chosen","rejected"}`
pub(super) static TURNS: Format = Format {
    name: "hh-turns",
    about: "HH-RLHF taken apart: turns, chosen, rejected",
    looks_like: |row| row.contains_key("turns") && row.contains_key("chosen") && row.contains_key("rejected"),
    read: |mut row, _| {
        let mut messages = Vec::new();
        for (index, turn) in row.list("turns")?.into_iter().enumerate() {
            let field = format!("turns[{index}]");
            let Value::Object(turn) = turn else {
                return Err(Fault::new(field, "an object with role and text", turn.to_string()));
            };
            let mut turn = Row(turn);
            let role = turn.text("role").map_err(|fault| fault.under(&field))?;
            let text = turn.text("text").map_err(|fault| fault.under(&field))?;
            messages.push(Message::new(if role == "human" { "user" } else { &role }, text));
        }
        let (chosen, rejected) = (row.content("chosen")?, row.content("rejected")?);
        compared(row, messages, chosen, rejected)
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::pairs(record, losses)
            .iter()
            .map(|pair| {
                let turn = |message: &Message| {
                    let role = if message.role == "user" { "human" } else { &message.role };
                    json!({"role": role, "text": message.text()})
                };
                let messages = super::trl::messages_of(pair.prompt, losses);
                let mut row = row_for(record);
                row.insert("turns".into(), messages.iter().map(turn).collect());
                row.insert("chosen".into(), text_of(pair.chosen, losses).into());
                row.insert("rejected".into(), text_of(pair.rejected, losses).into());
                with_extra(row, record, losses)
            })
            .collect();
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// An answer as plain text.
pub(super) fn text_of(content: &Content, losses: &mut Losses) -> String {
    if !matches!(content, Content::Text(_)) {
        losses.add("structure of an answer that is not plain text");
    }
    content.text().into_owned()
}

pub(super) fn compared(
    row: Row,
    prompt: Vec<Message>,
    chosen: Content,
    rejected: Content,
) -> Result<Record, Fault> {
    let mut record = record_of(row, Prompt::Messages(prompt));
    record.responses.push(Response::new("chosen", chosen));
    record.responses.push(Response::new("rejected", rejected));
    Ok(record.say(Form::Comparison { better: "chosen".into(), worse: "rejected".into() }))
}

/// The turns of a transcript. One blank after each mark belongs to the mark.
fn turns(field: &str, text: &str) -> Result<Vec<Message>, Fault> {
    let mut messages = Vec::new();
    let mut rest = text;
    let first = if text.starts_with(HUMAN) || text.starts_with(ASSISTANT) { "" } else { text };
    if !first.is_empty() {
        let got = first.chars().take(30).collect::<String>();
        return Err(Fault::new(
            field,
            "a transcript that starts with a blank line and Human:",
            format!("{got:?}"),
        ));
    }
    while !rest.is_empty() {
        let (role, body) = match rest.strip_prefix(HUMAN) {
            Some(body) => ("user", body),
            None => ("assistant", rest.strip_prefix(ASSISTANT).unwrap_or(rest)),
        };
        let end = [body.find(HUMAN), body.find(ASSISTANT)].into_iter().flatten().min().unwrap_or(body.len());
        messages.push(Message::new(role, body[..end].strip_prefix(' ').unwrap_or(&body[..end])));
        rest = &body[end..];
    }
    match messages.last() {
        Some(last) if last.role == "assistant" => Ok(messages),
        _ => Err(Fault::new(field, "a transcript that ends with Assistant:", "one that ends with Human:")),
    }
}

fn transcript(prompt: &Prompt, content: &Content, losses: &mut Losses) -> String {
    let mut out = String::new();
    let mut messages = super::trl::messages_of(prompt, losses);
    messages.extend(super::row::answer_messages(content));
    for message in &messages {
        let mark = match message.role.as_str() {
            "user" => HUMAN,
            "assistant" => ASSISTANT,
            _ => {
                losses.add("message of another role than user and assistant");
                continue;
            }
        };
        losses.add_many("field of a message beside its text", message.extra.len() as u64);
        let text = message.text();
        if text.contains(HUMAN) || text.contains(ASSISTANT) {
            losses.add("text that looks like the mark of a turn");
        }
        out.push_str(mark);
        out.push(' ');
        out.push_str(&text);
    }
    out
}
