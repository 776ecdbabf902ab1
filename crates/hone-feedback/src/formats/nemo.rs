//! Preference rows of NeMo RL: one context, several completions, a rank each.

use serde_json::{Map, Value, json};

use super::row::{Row, answer, answer_messages};
use super::trl::{messages_of, record_of};
use super::{Context, Format, Joins, note_details, note_empty, row_for, with_extra};
use crate::convert::{self, Losses};
use crate::error::Fault;
use crate::feedback::Form;
use crate::record::{Prompt, Record, Response};

/// `{"context":[…],"completions":[{"rank","completion":[…]}],"task_name"}`; the lower rank is better.
pub(super) static NEMO: Format = Format {
    name: "nemo-preference",
    about: "NeMo RL preference: context, completions with rank (lower is better) and completion, task_name",
    looks_like: |row| {
        row.contains_key("context")
            && row.get("completions").and_then(Value::as_array).is_some_and(|completions| {
                completions.iter().any(|one| one.get("rank").is_some() && one.get("completion").is_some())
            })
    },
    read,
    write: Some(write),
    joins: Joins::No,
};

fn read(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let context = row.messages("context")?;
    let mut responses = Vec::new();
    // The responses of each rank.
    let mut places: std::collections::BTreeMap<i64, Vec<String>> = std::collections::BTreeMap::new();
    for (index, completion) in row.list("completions")?.into_iter().enumerate() {
        let field = format!("completions[{index}]");
        let Value::Object(completion) = completion else {
            return Err(Fault::new(field, "an object with rank and completion", completion.to_string()));
        };
        let mut completion = Row(completion);
        let under = |fault: Fault| fault.under(&field);
        let rank = completion.need("rank", "a whole number").map_err(under)?;
        let rank = rank
            .as_i64()
            .ok_or_else(|| Fault::new(format!("{field}.rank"), "a whole number", rank.to_string()))?;
        let messages = completion.messages("completion").map_err(under)?;
        let id = (index + 1).to_string();
        places.entry(rank).or_default().push(id.clone());
        let mut response = Response::new(id, answer(messages));
        response.extra = completion.0;
        responses.push(response);
    }
    let mut record = record_of(row, Prompt::Messages(context));
    // One answer alone has a rank too, which orders nothing.
    if responses.len() > 1 {
        record = record.say(Form::Ranking { order: places.into_values().collect() });
    }
    record.responses = responses;
    Ok(record)
}

fn write(record: &Record, losses: &mut Losses) -> Vec<Map<String, Value>> {
    note_details(record, losses);
    let mut rows = Vec::new();
    for list in convert::lists(record, losses) {
        let mut labels = list.labels.clone();
        labels.sort_by(|a, b| b.total_cmp(a));
        labels.dedup();
        let mut completions: Vec<(usize, Value)> = list
            .contents
            .iter()
            .zip(&list.labels)
            .map(|(content, label)| {
                let rank = labels.iter().position(|known| known == label).unwrap_or_default();
                let place = record
                    .responses
                    .iter()
                    .position(|one| std::ptr::eq(&one.content, *content))
                    .unwrap_or_default();
                (place, json!({"rank": rank, "completion": answer_messages(content)}))
            })
            .collect();
        // As the record has them, so that the order of a row says nothing about quality.
        completions.sort_by_key(|(place, _)| *place);
        losses.add_many(
            "response without a place in the order",
            record.responses.len().saturating_sub(completions.len()) as u64,
        );
        let mut row = row_for(record);
        row.insert("context".into(), json!(messages_of(list.prompt, losses)));
        row.insert("completions".into(), completions.into_iter().map(|(_, completion)| completion).collect());
        rows.push(with_extra(row, record, losses));
    }
    note_empty(&rows, losses);
    rows
}
