//! Random and mangled input for every reader: no panic, and every row is a record or a problem.

use hone_feedback::formats::FORMATS;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::harness::{FAMILIES, exercise, exercise_family};

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
    "context",
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
            let (records, problems) = exercise(text.as_bytes(), format.name);
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
        for family in FAMILIES {
            exercise_family(&bytes, family.0);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for magic in [&b""[..], &[0x1f, 0x8b], &[0x28, 0xb5, 0x2f, 0xfd], b"PAR1", b"{", b"["] {
            exercise_family(&[magic, &bytes].concat(), "containers");
        }
    }

    #[test]
    fn the_doctor_agrees_with_the_plain_reader(rows in prop::collection::vec(line(), 0..12), from in prop::sample::select(FORMATS)) {
        if from.name != "csv" && !from.name.starts_with("sparse-") {
            crate::doctor::agrees(rows.join("\n").as_bytes(), Some(from.name));
        }
    }
}

/// A line of a log: sound, of another format, cut, or blank.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => row().prop_map(|row| Value::Object(row).to_string()),
        3 => (0u8..4, "[a-cA \u{e9}\u{1f980}\t]{1,9}", any::<bool>()).prop_map(|(id, text, value)| json!({
            "id": id.to_string(), "prompt": text, "split": if value { "train" } else { "test" },
            "responses": [{"id": "a", "content": "X y"}, {"id": "b", "content": text}],
            "feedback": [{"form": "thumb", "on": "a", "value": value, "by": "u"},
                {"form": "comparison", "better": "a", "worse": "b", "by": id.to_string()}],
        }).to_string()),
        1 => (1usize..600).prop_map(|end| crate::words::EVERY_FORM.chars().take(end).collect()),
        1 => Just(" ".to_owned()),
    ]
}

/// Every sample of the tables in `formats.rs`, bent in every way that a fuzzer finds first.
#[test]
fn samples_of_every_format_bent() {
    for (format, text) in crate::formats::SAMPLES {
        let family = FAMILIES.iter().find(|(_, formats)| formats.contains(format)).unwrap().0;
        let bytes = text.as_bytes();
        for cut in 0..bytes.len() {
            exercise(&bytes[..cut], format);
            let mut bent = bytes.to_vec();
            for byte in [0, b'"', b'7', b'[', 0xff] {
                bent[cut] = byte;
                exercise(&bent, format);
            }
        }
        exercise_family(bytes, family);
        exercise_family(bytes, "containers");
        crate::doctor::agrees(bytes, None);
    }
}

#[test]
fn every_format_has_a_fuzz_target() {
    let mut named: Vec<&str> = FAMILIES.iter().flat_map(|(_, formats)| *formats).copied().collect();
    named.retain(|name| !["", "jsonl", "json", "parquet"].contains(name));
    named.sort_unstable();
    let mut known: Vec<&str> = FORMATS.iter().map(|format| format.name).collect();
    known.sort_unstable();
    assert_eq!(named, known);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let mut targets: Vec<String> = std::fs::read_dir(folder.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort_unstable();
    let mut families: Vec<&str> = FAMILIES.iter().map(|(family, _)| *family).collect();
    families.sort_unstable();
    assert_eq!(targets, families);
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for family in families {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{family}.rs\"")), "{family}");
    }
}
