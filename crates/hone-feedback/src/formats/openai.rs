//! The files of OpenAI's fine-tuning API: chat and preference.

use serde_json::{Map, Value, json};

use super::trl::{conversation, messages_of, record_of, whole_conversation};
use super::{Format, Joins, note_details, note_empty};
use crate::convert::{self, Losses};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record, Response};

/// The fields of a request that both files may carry beside the messages.
const REQUEST: [&str; 2] = ["tools", "parallel_tool_calls"];

/// `{"messages":[…,(assistant "weight")],"tools"?}`
pub(super) static CHAT: Format = Format {
    name: "openai-chat",
    about: "OpenAI chat fine-tuning: messages, tools; weights of messages are kept",
    looks_like: |row| {
        row.get("messages").and_then(Value::as_array).is_some_and(|messages| {
            row.keys().all(|key| key == "messages" || REQUEST.contains(&key.as_str()))
                && (row.len() > 1 || messages.iter().any(|message| message.get("weight").is_some()))
        })
    },
    read: |mut row, _| {
        let messages = row.messages("messages")?;
        Ok(conversation(row, messages))
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::demonstrations(record, losses)
            .iter()
            .map(|one| {
                let messages = whole_conversation(one.prompt, one.content, losses);
                let mut row = Map::from_iter([("messages".to_owned(), json!(messages))]);
                row.extend(request_fields(record));
                row
            })
            .collect();
        note_fixed(record, losses);
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

/// `{"input":{"messages",…},"preferred_output","non_preferred_output"}`
pub(super) static PREFERENCE: Format = Format {
    name: "openai-preference",
    about: "OpenAI preference fine-tuning: input, preferred_output, non_preferred_output",
    looks_like: |row| row.contains_key("preferred_output") && row.contains_key("non_preferred_output"),
    read: |mut row, _| {
        let mut input = row.object("input")?;
        let messages = input.messages("messages").map_err(|fault| fault.under("input"))?;
        let (better, worse) = (row.content("preferred_output")?, row.content("non_preferred_output")?);
        row.0.extend(input.0);
        let mut record = record_of(row, Prompt::Messages(messages));
        record.responses.push(Response::new("preferred", better));
        record.responses.push(Response::new("non_preferred", worse));
        Ok(record.say(Form::Comparison { better: "preferred".into(), worse: "non_preferred".into() }))
    },
    write: Some(|record, losses| {
        note_details(record, losses);
        let rows: Vec<_> = convert::pairs(record, losses)
            .iter()
            .map(|pair| {
                let mut input =
                    Map::from_iter([("messages".to_owned(), json!(messages_of(pair.prompt, losses)))]);
                input.extend(request_fields(record));
                let output = |content: &Content| json!(super::row::answer_messages(content));
                Map::from_iter([
                    ("input".to_owned(), Value::Object(input)),
                    ("preferred_output".to_owned(), output(pair.chosen)),
                    ("non_preferred_output".to_owned(), output(pair.rejected)),
                ])
            })
            .collect();
        note_fixed(record, losses);
        note_empty(&rows, losses);
        rows
    }),
    joins: Joins::No,
};

fn request_fields(record: &Record) -> impl Iterator<Item = (String, Value)> {
    REQUEST.iter().filter_map(|key| Some(((*key).to_owned(), record.extra.get(*key)?.clone())))
}

/// The API refuses columns that it does not know.
fn note_fixed(record: &Record, losses: &mut Losses) {
    let unknown = record.extra.keys().filter(|key| !REQUEST.contains(&key.as_str())).count();
    losses.add_many("unknown field of a record", unknown as u64);
    losses.add_many("split of a record", record.split.iter().len() as u64);
    losses.add_many("id of a record", u64::from(!super::is_made_up(&record.id)));
}
