//! What every reader promises of any input, as one function: the tests and the fuzz targets run the same.

use std::io::Cursor;

use hone_feedback::convert::Shape;
use hone_feedback::formats::{self, Options};
use hone_feedback::{Record, split};

/// The formats of each fuzz target. The empty name: found by content.
pub const FAMILIES: &[(&str, &[&str])] = &[
    ("hone", &["hone"]),
    (
        "trl",
        &[
            "trl-stepwise",
            "trl-preference",
            "trl-unpaired",
            "trl-completion",
            "trl-messages",
            "trl-prompt",
            "trl-text",
        ],
    ),
    ("openai", &["openai-preference", "openai-chat"]),
    ("hh", &["hh-rlhf", "hh-turns"]),
    ("sets", &["sharegpt-preference", "defacto", "saf", "app-reviews"]),
    ("qa", &["qa-feedback"]),
    ("prm", &["prm", "prm800k"]),
    ("rl", &["verl", "nemo-preference"]),
    ("traces", &["langfuse", "langsmith"]),
    ("evals", &["lm-eval", "promptfoo", "inspect"]),
    ("argilla", &["argilla"]),
    ("tables", &["csv", "table", "sparse-ratings", "sparse-rankings"]),
    ("containers", &["", "jsonl", "json", "parquet"]),
];

/// Lines of records and of problems.
pub type Lines = (Vec<u64>, Vec<u64>);

/// Reads bytes as a format and holds the reader to its word: a record that it gives is sound, survives being
/// written as a Hone record, and can be converted and split; a problem says what was needed and where.
pub fn exercise(bytes: &[u8], from: &str) -> Lines {
    let from = (!from.is_empty()).then(|| from.to_owned());
    let options = Options { from, line_limit: 1 << 16, ..Options::default() };
    let (mut records, mut problems) = (Vec::new(), Vec::new());
    let Ok(reader) = formats::open_stream("fuzz", Box::new(Cursor::new(bytes.to_vec())), &options) else {
        return (records, vec![0]);
    };
    for item in reader {
        match item {
            Ok(located) => {
                hold(&located.record);
                records.push(located.line);
            }
            Err(problem) => {
                let told = !problem.fault.needed.is_empty() && problem.to_string().starts_with("fuzz");
                assert!(told, "{problem}");
                problems.push(problem.line);
            }
        }
    }
    (records, problems)
}

fn hold(record: &Record) {
    assert_eq!(record.validate(), []);
    let written = record.to_json();
    match Record::from_json(written.as_bytes()) {
        Ok(again) => assert_eq!(&again, record, "{written}"),
        Err(fault) => panic!("{fault}: {written}"),
    }
    for shape in Shape::ALL {
        shape.count(record);
    }
    split::side(record, 0.1, 1);
}

/// [`exercise`] over all formats of a family.
pub fn exercise_family(bytes: &[u8], family: &str) {
    let formats = FAMILIES.iter().find(|(name, _)| *name == family).map(|(_, formats)| *formats);
    for from in formats.expect("a family of the list") {
        exercise(bytes, from);
    }
}
