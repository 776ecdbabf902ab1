//! Rows of reinforcement learning with checkable rewards, as verl reads them.

use serde_json::{Map, Value, json};

use super::row::Row;
use super::trl::{messages_of, record_of};
use super::{Context, Format, Joins, note_details, row_for, with_extra};
use crate::convert::{self, Losses};
use crate::error::Fault;
use crate::record::Record;

/// `{"data_source","prompt":[…],"ability","reward_model":{"style","ground_truth"},"extra_info":{"split","index"}}`
pub(super) static VERL: Format = Format {
    name: "verl",
    about: "verl prompts with checkable rewards: data_source, prompt, ability, reward_model, extra_info",
    looks_like: |row| row.contains_key("prompt") && row.get("reward_model").is_some_and(Value::is_object),
    read,
    write: Some(write),
    joins: Joins::No,
};

/// The truth stays an unknown field: a checker needs it, and `72` is nothing to imitate.
fn read(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let prompt = row.prompt("prompt")?;
    if row.0.get("reward_model").and_then(|model| model.get("ground_truth")).is_none() {
        return Err(Fault::new(
            "reward_model.ground_truth",
            "what a right answer is checked against",
            "nothing",
        ));
    }
    let split = row.0.get("extra_info").and_then(|info| info.get("split")).and_then(Value::as_str);
    let split = split.map(str::to_owned);
    let mut record = record_of(row, prompt);
    record.split = record.split.or(split);
    Ok(record)
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    note_details(record, losses);
    let mut said = convert::Losses::default();
    let reward = match record.extra.get("reward_model") {
        Some(reward @ Value::Object(_)) => reward.clone(),
        _ => match convert::demonstrations(record, &mut said).first() {
            Some(shown) => {
                losses.add("answer to imitate, written as the truth to check against");
                json!({"style": "rule", "ground_truth": shown.content.text()})
            }
            None => {
                super::note_empty(&[], losses);
                return Vec::new();
            }
        },
    };
    losses.add_many("response", record.responses.len() as u64);
    losses.add_many("feedback", record.feedback.len() as u64);
    let text =
        |name: &str, other: &str| record.extra.get(name).and_then(Value::as_str).unwrap_or(other).to_owned();
    let mut info = match record.extra.get("extra_info") {
        Some(Value::Object(info)) => info.clone(),
        _ => Map::new(),
    };
    if let Some(split) = &record.split {
        info.insert("split".into(), split.clone().into());
    }
    let mut row = row_for(record);
    row.insert("data_source".into(), text("data_source", "hone").into());
    row.insert("prompt".into(), json!(messages_of(&record.prompt, losses)));
    row.insert("ability".into(), text("ability", "").into());
    row.insert("reward_model".into(), reward);
    row.insert("extra_info".into(), Value::Object(info));
    let mut rest = record.clone();
    // Said in `extra_info` already.
    rest.split = None;
    for used in ["data_source", "ability", "reward_model", "extra_info"] {
        rest.extra.shift_remove(used);
    }
    vec![with_extra(row, &rest, losses)]
}
