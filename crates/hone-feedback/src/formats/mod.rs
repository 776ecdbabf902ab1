//! Readers and writers of every format, found by content.
//!
//! A file is a *container* (JSON lines, a JSON list, CSV, Parquet; gzip and zstd around each of them) of rows in
//! a *format* (what the fields mean). The two are independent: TRL preference rows in Parquet need no reader of
//! their own. [`open`] finds both out; [`Options::from`] names the format instead.
//!
//! Reading is streaming: at most one block of lines and the longest allowed line are held, except for formats
//! whose rows have to be joined by id (Langfuse, LangSmith), which are held whole. Every row gives records or a
//! [`Problem`](crate::Problem); none is dropped.

mod argilla;
mod elements;
mod evals;
mod flat;
mod hh;
mod langfuse;
mod langsmith;
pub(crate) mod lines;
mod lm_eval;
mod nemo;
mod openai;
mod parquet;
mod prm;
mod qa;
mod read;
mod row;
mod sets;
mod source;
mod table;
mod trl;
mod verl;
mod write;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

pub(crate) use read::{LineParser, Lines};
pub use read::{Located, OpenError, Options, Reader, open, open_stream};

pub use write::{Container, WriteError, Writer, Written};

use crate::convert::Losses;
use crate::error::Fault;
use crate::record::Record;
use row::Row;

/// The rows that say what a record says, as far as a format can; the rest goes to the losses.
type WriteRows = fn(&Record, &mut Losses) -> Vec<Map<String, Value>>;

/// What the fields of a row mean.
pub struct Format {
    /// The name, for `--from` and `--to`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub about: &'static str,
    /// Whether a row looks like this format.
    looks_like: fn(&Map<String, Value>) -> bool,
    read: fn(Row, &mut Context) -> Result<Record, Fault>,
    write: Option<WriteRows>,
    /// What happens to records that several rows describe.
    joins: Joins,
}

/// How rows become records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joins {
    /// One row, one record.
    No,
    /// Rows of one id that follow each other are one record.
    Adjacent,
    /// Rows of one id anywhere in the input are one record; the input is held whole.
    ById,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Format {
    /// Whether Hone also writes it.
    pub fn is_written(&self) -> bool {
        self.write.is_some()
    }
}

/// What a reader knows besides the row.
#[derive(Debug, Default)]
struct Context {
    /// The file, for formats that say part of a row in its name or in a file beside it.
    path: Option<PathBuf>,
    /// Questions of a file beside this one, by key; None until they were looked for.
    questions: Option<HashMap<String, Map<String, Value>>>,
}

/// Every format; where several fit a row, the first one is meant.
pub static FORMATS: &[&Format] = &[
    &HONE,
    &flat::CSV,
    &openai::PREFERENCE,
    &hh::TRANSCRIPTS,
    &hh::TURNS,
    &sets::SHAREGPT,
    &qa::QA_FEEDBACK,
    &sets::DEFACTO,
    &sets::SAF,
    &sets::APP_REVIEWS,
    &prm::FIRST_ERROR,
    &prm::PRM800K,
    &evals::PROMPTFOO,
    &evals::INSPECT,
    &nemo::NEMO,
    &verl::VERL,
    &trl::STEPWISE,
    &trl::PREFERENCE,
    &trl::UNPAIRED,
    &trl::COMPLETION,
    &openai::CHAT,
    &trl::MESSAGES,
    &langfuse::LANGFUSE,
    &langsmith::LANGSMITH,
    &lm_eval::LM_EVAL,
    &argilla::ARGILLA,
    &sets::SPARSE_RATINGS,
    &sets::SPARSE_RANKINGS,
    &flat::TABLE,
    &trl::PROMPT,
    &trl::TEXT,
];

/// The format called `name`.
pub fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().copied().find(|format| format.name == name)
}

/// Hone's own records.
pub static HONE: Format = Format {
    name: "hone",
    about: "Hone records: prompt, responses and every form of feedback",
    looks_like: |row| {
        row.contains_key("prompt")
            && (row.get("feedback").is_some_and(Value::is_array)
                || row.get("responses").is_some_and(Value::is_array)
                || (row.len() <= 3
                    && row.keys().all(|key| matches!(key.as_str(), "id" | "prompt" | "split"))
                    && row.contains_key("id")))
    },
    read: |row, _| Record::from_object(row.0),
    write: Some(|record, _| match serde_json::to_value(record) {
        Ok(Value::Object(object)) => vec![object],
        _ => Vec::new(),
    }),
    joins: Joins::No,
};

/// An id that a reader made up because the row had none.
fn is_made_up(id: &str) -> bool {
    id.strip_prefix('#')
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The start of a row of another format: the id, where it is the record's own.
fn row_for(record: &Record) -> Map<String, Value> {
    let mut row = Map::new();
    if !is_made_up(&record.id) {
        row.insert("id".into(), record.id.clone().into());
    }
    row
}

/// Adds the unknown fields of the record to a row of a format that allows any columns.
fn with_extra(mut row: Map<String, Value>, record: &Record, losses: &mut Losses) -> Map<String, Value> {
    if let Some(split) = &record.split {
        row.entry("split").or_insert_with(|| split.clone().into());
    }
    for (key, value) in &record.extra {
        // A column that reading had to rename takes its name back where that is free.
        let own = key.strip_suffix('_').filter(|own| RECORD.contains(own) && !row.contains_key(*own));
        let key = own.unwrap_or(key);
        if row.contains_key(key) {
            losses.add("unknown field whose name the format uses");
        } else {
            row.insert(key.to_owned(), value.clone());
        }
    }
    row
}

/// The fields of a record.
const RECORD: &[&str] = &["id", "prompt", "responses", "feedback", "split"];

/// Renames unknown fields of a foreign row whose names Hone uses itself, `feedback` to `feedback_`: written as a
/// record, two fields of one name would be refused or hide each other.
fn keep_apart(record: &mut Record) {
    rename(&mut record.extra, RECORD);
    for response in &mut record.responses {
        rename(&mut response.extra, &["id", "content", "model", "steps"]);
    }
    for item in &mut record.feedback {
        rename(&mut item.extra, item.form.fields());
        rename(&mut item.extra, &["form", "by", "at", "aspect", "text"]);
    }
}

fn rename(extra: &mut Map<String, Value>, taken: &[&str]) {
    if !taken.iter().any(|name| extra.contains_key(*name)) {
        return;
    }
    // Rebuilt, so that the fields keep their order.
    let mut apart = Map::new();
    for (mut key, value) in std::mem::take(extra) {
        while taken.contains(&key.as_str()) || apart.contains_key(&key) {
            key.push('_');
        }
        apart.insert(key, value);
    }
    *extra = apart;
}

/// Counts what simple rows cannot say about answers and feedback: who, when, which quality, unknown fields.
fn note_details(record: &Record, losses: &mut Losses) {
    for response in &record.responses {
        losses.add_many("model of a response", response.model.iter().len() as u64);
        losses.add_many("unknown field of a response", response.extra.len() as u64);
    }
    for item in &record.feedback {
        losses.add_many("who said it", item.by.iter().len() as u64);
        losses.add_many("when it was said", item.at.iter().len() as u64);
        losses.add_many("aspect of the feedback", item.aspect.iter().len() as u64);
        losses.add_many("unknown field of the feedback", item.extra.len() as u64);
    }
}

/// Counts a record that gives no row.
fn note_empty(rows: &[Map<String, Value>], losses: &mut Losses) {
    if rows.is_empty() {
        losses.add("record without anything the format holds");
    }
}
