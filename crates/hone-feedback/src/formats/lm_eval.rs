//! The samples that lm-evaluation-harness logs: `samples_<task>_<time>.jsonl`.

use serde_json::Value;

use super::row::{Row, as_number};
use super::trl::record_of;
use super::{Context, Format, Joins};
use crate::error::Fault;
use crate::feedback::{Feedback, Form};
use crate::record::{Prompt, Record, Response};

/// See the module.
pub(super) static LM_EVAL: Format = Format {
    name: "lm-eval",
    about: "lm-evaluation-harness samples: doc_id, doc, arguments, resps, filtered_resps, metrics",
    looks_like: |row| ["doc_id", "doc", "resps"].iter().all(|name| row.contains_key(*name)),
    read,
    write: None,
    joins: Joins::No,
};

/// The first text inside nested lists and objects, in their order.
fn first_text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.iter().find_map(first_text),
        Value::Object(fields) => fields.values().find_map(first_text),
        _ => None,
    }
}

fn read(mut row: Row, _: &mut Context) -> Result<Record, Fault> {
    let doc = row.text("doc_id")?;
    // Newer versions name the arguments (`gen_args_0`, `arg_0`), older ones list them.
    let prompt = row.0.get("arguments").and_then(first_text).map(str::to_owned);
    let prompt = prompt.ok_or_else(|| Fault::new("arguments", "the prompt that was sent", "none"))?;
    let answered = ["filtered_resps", "resps"].iter().find_map(|name| row.0.get(*name).and_then(first_text));
    let answered = answered.map(str::to_owned);
    let answered = answered.ok_or_else(|| Fault::new("resps", "what was answered", "none"))?;
    // Without the list of metrics (before 0.4.8) every number that is no id is one.
    let named: Option<Vec<String>> = row.has("metrics").then(|| row.texts("metrics")).transpose()?;
    let number =
        |key: &String| key != "doc_id" && row.0.get(key).is_some_and(|value| as_number(value).is_some());
    let metrics = named.unwrap_or_else(|| row.0.keys().filter(|key| number(key)).cloned().collect());
    let mut said = Vec::new();
    for metric in metrics {
        let Some(value) = row.0.get(&metric).and_then(as_number) else { continue };
        row.take(&metric);
        let on = "a".to_owned();
        said.push(if value == 0.0 || value == 1.0 {
            Feedback::from(Form::Outcome { on, check: metric, passed: value == 1.0 }).by("lm-eval")
        } else {
            Feedback::from(Form::Rating { on, value, scale: None }).about(metric).by("lm-eval")
        });
    }
    // Several filters give a row each for one document.
    let filter =
        row.0.get("filter").and_then(Value::as_str).map(|filter| format!(":{filter}")).unwrap_or_default();
    let mut record = record_of(row, Prompt::Text(prompt));
    record.id = format!("doc-{doc}{filter}");
    record.responses.push(Response::new("a", answered));
    record.feedback = said;
    Ok(record)
}
