//! Random and mangled input for every reader: no panic, and every row is a record or a problem.

use hone_feedback::formats::{self, FORMATS, Options};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Names that the readers know, so that random rows get past the first field.
const NAMES: &[&str] = &[
    "id",
    "prompt",
    "responses",
    "feedback",
    "text",
    "messages",
    "completion",
    "chosen",
    "rejected",
    "label",
    "labels",
    "completions",
    "input",
    "preferred_output",
    "non_preferred_output",
    "turns",
    "problem",
    "steps",
    "question",
    "passages",
    "prediction 1",
    "gold",
    "preference",
    "timestamp",
    "output",
    "scores",
    "traceId",
    "name",
    "value",
    "dataType",
    "inputs",
    "outputs",
    "run_id",
    "run_type",
    "key",
    "score",
    "comment",
    "correction",
    "q.responses",
    "q.responses.users",
    "q.suggestion",
    "response",
    "on",
    "form",
    "detail",
    "candidate",
    "has_error",
    "app",
    "review",
    "features_all",
    "query",
    "relevant",
    "conversations",
    "response_b",
    "rating",
    "0",
    "1",
    "2",
    "3",
    "4",
    "role",
    "content",
    "start",
    "end",
    "rank",
    "from",
    "errors",
    "missing-info",
    "dataset_id",
    "stringValue",
    "data",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..9).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c\u{e9}\u{1f980} \n]{0,6}".prop_map(Value::from),
        prop::sample::select(
            &[
                "user",
                "assistant",
                "thumb",
                "span",
                "ranking",
                "NUMERIC",
                "TEXT",
                "\n\nHuman: a\n\nAssistant: b",
                "a",
                "equal"
            ][..]
        )
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..5).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn row() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec((prop::sample::select(NAMES), value()), 1..9)
        .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Reads bytes as a format; gives the lines of records and of problems.
fn read(bytes: Vec<u8>, from: &str) -> (Vec<u64>, Vec<u64>) {
    let options = Options { from: Some(from.to_owned()), line_limit: 1 << 16, ..Options::default() };
    let Ok(reader) = formats::open_stream("fuzz", Box::new(std::io::Cursor::new(bytes)), &options) else {
        return (Vec::new(), vec![0]);
    };
    let (mut records, mut problems) = (Vec::new(), Vec::new());
    for item in reader {
        match item {
            Ok(located) => {
                assert_eq!(located.record.validate(), []);
                records.push(located.line);
            }
            Err(problem) => {
                assert!(
                    !problem.fault.needed.is_empty() && problem.to_string().starts_with("fuzz"),
                    "{problem}"
                );
                problems.push(problem.line);
            }
        }
    }
    (records, problems)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_row_is_dropped_by_any_reader(rows in prop::collection::vec(row(), 1..5)) {
        let text: String = rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect();
        for format in FORMATS {
            if format.name == "csv" {
                // That name asks for a table, which these lines are not; the next test has one.
                continue;
            }
            // Rows of one id are one record there.
            let joins = ["langfuse", "langsmith"].contains(&format.name);
            let (records, problems) = read(text.clone().into_bytes(), format.name);
            prop_assert!(!records.is_empty() || !problems.is_empty(), "{}", format.name);
            if !joins {
                for line in 1..=rows.len() as u64 {
                    let told = records.contains(&line) != problems.contains(&line);
                    prop_assert!(told, "{} line {line}: {records:?} {problems:?}", format.name);
                }
            }
        }
    }

    #[test]
    fn mangled_logs_never_panic(seed in any::<u64>(), cuts in prop::collection::vec((any::<u32>(), any::<u8>()), 1..6), place in 0usize..6) {
        let sound = [
            crate::words::EVERY_FORM.to_owned(),
            json!({"prompt": "q", "chosen": "a", "rejected": "b"}).to_string(),
            "id,prompt,on,response,form,value\nr,q,a,\"x\ny\",thumb,true\nr,,a,,rating,4\n".to_owned(),
            format!("[{},\n{}]", crate::words::EVERY_FORM, json!({"id": "r", "prompt": "q"})),
            json!({"id": "t", "timestamp": "2026-01-01", "input": "q", "output": "a", "scores": [{"name": "n", "value": 1}]}).to_string(),
            "PAR1".to_owned() + &seed.to_string() + "PAR1",
        ];
        let mut bytes = sound[place].clone().into_bytes();
        for (at, byte) in cuts {
            let at = at as usize % bytes.len();
            match byte % 3 {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, byte),
            }
        }
        for from in ["hone", "trl-preference", "csv", "json", "parquet", "langfuse"] {
            read(bytes.clone(), from);
        }
        let options = Options::default();
        if let Ok(reader) = formats::open_stream("fuzz", Box::new(std::io::Cursor::new(bytes)), &options) {
            reader.for_each(drop);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for magic in [&b""[..], &[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"PAR1", b"{", b"["] {
            let input = [magic, &bytes].concat();
            if let Ok(reader) = formats::open_stream("fuzz", Box::new(std::io::Cursor::new(input)), &Options::default()) {
                reader.for_each(drop);
            }
        }
    }
}
