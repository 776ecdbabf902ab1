//! Every format: read, written, and read again.

#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::path::{Path, PathBuf};

use hone_feedback::convert::{self, Losses};
use hone_feedback::formats::{self, FORMATS, Options, Writer, Written};
use hone_feedback::{Content, Form, FormKind, Prompt, Record};

use crate::words::every_form;

pub fn read_all(path: &Path, from: Option<&str>) -> (Vec<Record>, Vec<String>) {
    let options = Options { from: from.map(str::to_owned), ..Options::default() };
    let mut records = Vec::new();
    let mut problems = Vec::new();
    for item in formats::open(path, &options).unwrap() {
        match item {
            Ok(located) => records.push(located.record),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    (records, problems)
}

fn write_all(path: &Path, format: &str, records: &[Record]) -> Written {
    let mut writer = Writer::create(path, formats::named(format).unwrap()).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.finish().unwrap()
}

fn put(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// The folder of real sets; None, with a note, where it is not there.
pub fn real(set: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(set);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn hone_csv_and_parquet_lose_nothing_in_any_container() {
    let folder = tempfile::tempdir().unwrap();
    let mut second =
        Record::new("r2", Prompt::Text("raw, with \"quotes\"\nand lines".into())).respond("x", "[1, 2]");
    second.extra.insert("note".into(), serde_json::json!({"deep": [1, null, {"a": "b"}]}));
    let third = Record::new("r3", "only a prompt");
    let records = [every_form(), second, third];
    for (format, name) in [
        ("hone", "log.jsonl"),
        ("hone", "log.jsonl.gz"),
        ("hone", "log.jsonl.zst"),
        ("hone", "log.json"),
        ("hone", "log.parquet"),
        ("hone", "log.csv"),
        ("csv", "flat.csv"),
        ("csv", "flat.parquet"),
        ("csv", "flat.json"),
    ] {
        let path = folder.path().join(name);
        let written = write_all(&path, format, &records);
        assert!(written.losses.is_empty(), "{name}: {:?}", written.losses);
        assert_eq!(written.records, 3);
        let (back, problems) = read_all(&path, None);
        assert_eq!(problems, Vec::<String>::new(), "{name}");
        assert_eq!(back.len(), 3, "{name}");
        for (got, wanted) in back.iter().zip(&records) {
            assert_eq!(got.to_json(), wanted.to_json(), "{name}");
        }
        assert!(!path.with_extension("partial").exists());
    }
}

/// Lines of each written format in its own words.
pub const SAMPLES: &[(&str, &str)] = &[
    ("trl-text", r#"{"text":"Once upon a time","source":"book"}"#),
    (
        "trl-messages",
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}]}"#,
    ),
    (
        "trl-messages",
        r#"{"messages":[{"role":"user","content":"add"},{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]},{"role":"tool","name":"f","content":"3"},{"role":"assistant","content":"3"}],"tools":[{"type":"function"}],"images":[]}"#,
    ),
    ("trl-prompt", r#"{"prompt":[{"role":"user","content":"hi"}]}"#),
    ("trl-completion", r#"{"prompt":"The sky","completion":" is blue."}"#),
    (
        "trl-completion",
        r#"{"prompt":[{"role":"user","content":"hi"}],"completion":[{"role":"assistant","content":"hello"}],"id":"x7"}"#,
    ),
    ("trl-preference", r#"{"prompt":"The sky","chosen":" is blue.","rejected":" is green.","score":0.5}"#),
    (
        "trl-preference",
        r#"{"prompt":[{"role":"user","content":"hi"}],"chosen":[{"role":"assistant","content":"hello"}],"rejected":[{"role":"assistant","content":"go away"}]}"#,
    ),
    (
        "trl-preference",
        r#"{"chosen":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello"}],"rejected":[{"role":"user","content":"hi"},{"role":"assistant","content":"no"}]}"#,
    ),
    ("trl-unpaired", r#"{"prompt":"The sky","completion":" is green.","label":false}"#),
    ("trl-stepwise", r#"{"prompt":"Sum?","completions":["1+1=2","2+2=5"],"labels":[true,false]}"#),
    (
        "openai-chat",
        r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"hello","weight":1}],"tools":[{"type":"function"}]}"#,
    ),
    (
        "openai-preference",
        r#"{"input":{"messages":[{"role":"user","content":"hi"}],"tools":[],"parallel_tool_calls":true},"preferred_output":[{"role":"assistant","content":"hello"}],"non_preferred_output":[{"role":"assistant","content":"no"}]}"#,
    ),
    (
        "hh-rlhf",
        r#"{"chosen":"\n\nHuman: hi\n\nAssistant: hello\n\nHuman: ok?\n\nAssistant: yes","rejected":"\n\nHuman: hi\n\nAssistant: hello\n\nHuman: ok?\n\nAssistant: no"}"#,
    ),
    ("hh-turns", r#"{"id":"t1","turns":[{"role":"human","text":"hi"}],"chosen":"hello","rejected":"no"}"#),
    (
        "prm",
        r#"{"id":"g-1","generator":"Qwen","problem":"Sum?","steps":["a","b","c"],"final_answer_correct":false,"label":1}"#,
    ),
    ("prm", r#"{"problem":"Sum?","steps":["a","b"],"label":-1}"#),
    (
        "qa-feedback",
        r#"{"question":"Who?","passages":[["T","T\n\nOne.","Two."]],"gold":"me","prediction 1":"ábc def","prediction 2":"x","prediction 3":"y","prediction 4":"z","feedback":{"errors":[{"error type":"Irrelevant","explanation":"why","start":0,"end":3}],"missing-info":[{"error type":"Missing-Answer","passage_id":0,"sentence_id":[1]}],"corrected-prediction":"abc"},"preference":[0,1,2,1,0,2]}"#,
    ),
    (
        "langfuse",
        r#"{"id":"t1","timestamp":"2026-05-01T10:00:00Z","name":"chat","input":"why?","output":"because","scores":[{"id":"s1","name":"helpful","value":0.9,"dataType":"NUMERIC","comment":"nice","source":"API"},{"name":"ok","value":1,"dataType":"BOOLEAN"},{"name":"tone","stringValue":"kind","value":0,"dataType":"CATEGORICAL"},{"name":"output","longStringValue":"therefore","dataType":"CORRECTION"},{"name":"note","stringValue":"short","dataType":"TEXT"}]}"#,
    ),
    (
        "langsmith",
        "{\"id\":\"r1\",\"run_type\":\"llm\",\"inputs\":{\"messages\":[{\"role\":\"user\",\"content\":\"why?\"}]},\"outputs\":{\"output\":\"because\"}}\n{\"run_id\":\"r1\",\"key\":\"helpful\",\"score\":0.5,\"comment\":\"meh\",\"created_at\":\"2026-05-01T10:00:00Z\",\"feedback_source\":{\"type\":\"api\",\"user_id\":\"u1\"}}\n{\"run_id\":\"r1\",\"key\":\"fix\",\"correction\":{\"output\":\"since\"}}",
    ),
    (
        "argilla",
        r#"{"id":"a1","prompt":"why?","response":"because","quality.responses":[4,null,2],"quality.responses.users":["u1","u2","u3"],"quality.responses.status":["submitted","discarded","submitted"],"quality.suggestion":3,"quality.suggestion.agent":"gpt","quality.suggestion.score":0.7,"corrected.responses":["it is so"],"corrected.responses.users":["u1"],"spans.responses":[[{"start":0,"end":3,"label":"bad"}]]}"#,
    ),
    (
        "verl",
        r#"{"data_source":"openai/gsm8k","prompt":[{"role":"user","content":"1+1?"}],"ability":"math","reward_model":{"style":"rule","ground_truth":"2"},"extra_info":{"split":"train","index":7},"feedback":"kept"}"#,
    ),
    (
        "nemo-preference",
        r#"{"context":[{"role":"user","content":"hi"}],"completions":[{"rank":1,"completion":[{"role":"assistant","content":"no"}]},{"rank":0,"completion":[{"role":"assistant","content":"hello"}]},{"rank":1,"completion":[{"role":"assistant","content":"go"}]}],"task_name":"chat"}"#,
    ),
];

/// One line per format in its own words; reading, writing and reading again gives the same records, and the
/// format is found without being named.
#[test]
fn foreign_rows_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (format, text)) in SAMPLES.iter().enumerate() {
        let input = put(folder.path(), &format!("{index}.jsonl"), text);
        let reader = formats::open(&input, &Options::default()).unwrap();
        assert_eq!(reader.format().name, *format, "{text}");
        let (records, problems) = read_all(&input, None);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        assert_eq!(records.len(), 1, "{text}");
        for ending in ["jsonl", "parquet", "json.gz"] {
            let output = folder.path().join(format!("{index}-again.{ending}"));
            write_all(&output, format, &records);
            let (again, problems) = read_all(&output, Some(format));
            assert_eq!(problems, Vec::<String>::new(), "{text}");
            assert_eq!(again.len(), 1, "{text}");
            let (a, mut b) = (records[0].clone(), again[0].clone());
            if a.id.starts_with('#') {
                // Made up from the line, which a list counts differently.
                b.id = a.id.clone();
            }
            if *format == "argilla" {
                // Each answer is a column of its own there, which also moves its question's name.
                assert_eq!(kinds(&a), kinds(&b), "{text}");
                continue;
            }
            // Langfuse and LangSmith hold a place for what was never there.
            b.extra.retain(|key, value| a.extra.contains_key(key) || !value.is_null() && *key != "run_type");
            assert_eq!(sorted(&b), sorted(&a), "{format} through {ending}");
        }
    }
}

fn kinds(record: &Record) -> Vec<(FormKind, Option<String>)> {
    let mut kinds: Vec<_> = record.feedback.iter().map(|item| (item.form.kind(), item.by.clone())).collect();
    kinds.sort();
    kinds
}

/// A record without regard to the order of its unknown fields.
fn sorted(record: &Record) -> serde_json::Value {
    fn sort(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(object) => {
                let mut fields: Vec<_> = object.into_iter().map(|(key, value)| (key, sort(value))).collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                serde_json::Value::Object(fields.into_iter().collect())
            }
            serde_json::Value::Array(items) => items.into_iter().map(sort).collect(),
            other => other,
        }
    }
    sort(serde_json::to_value(record).unwrap())
}

#[test]
fn what_a_target_cannot_hold_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let written = write_all(&path, "openai-preference", &[every_form()]);
    let lost = |reason: &str| written.losses.of(reason);
    // Comparison a>b; ranking a>b, a>c; ratings a>b; edit>a.
    assert_eq!(written.rows, 5);
    assert_eq!(lost("tied responses of a ranking"), 2);
    assert_eq!(lost("critique"), 1);
    assert_eq!(lost("who said it"), 1);
    assert_eq!(lost("aspect of the feedback"), 2);
    assert_eq!(lost("model of a response"), 1);
    assert_eq!(lost("id of a record"), 1);
    assert_eq!(lost("unknown field of a record"), 1);
    for format in FORMATS.iter().filter(|format| format.is_written()) {
        let path = folder.path().join(format!("{}.jsonl", format.name));
        let written = write_all(&path, format.name, &[every_form()]);
        let lossless = ["hone", "csv"].contains(&format.name);
        assert_eq!(written.losses.is_empty(), lossless, "{}: {:?}", format.name, written.losses);
        let (back, problems) = read_all(&path, Some(format.name));
        assert_eq!(problems, Vec::<String>::new(), "{}", format.name);
        // Only the third step is judged, which formats of first errors and of leading steps cannot say.
        let nothing = written.losses.of("record without anything the format holds") > 0;
        assert_eq!(nothing, ["prm", "trl-stepwise"].contains(&format.name), "{}", format.name);
        assert_eq!(back.is_empty(), nothing, "{}", format.name);
    }
    assert!(Writer::create(&path, formats::named("saf").unwrap()).is_err());
}

#[test]
fn scores_find_their_trace_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"[{"id":"s0","trace_id":"t2","name":"helpful","value":2,"data_type":"NUMERIC"},
      {"id":"t1","timestamp":"2026-05-01","input":"a?","output":"a"},
      {"id":"t2","timestamp":"2026-05-01","input":"b?","output":{"role":"assistant","content":"b"}},
      {"id":"s1","trace_id":"t9","name":"helpful","value":2,"data_type":"NUMERIC"}]"#;
    let (records, problems) = read_all(&put(folder.path(), "x.json", text), None);
    assert_eq!(
        records.iter().map(|r| (r.id.as_str(), r.feedback.len())).collect::<Vec<_>>(),
        [("t2", 1), ("t1", 0)]
    );
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains(":4: needed the trace or run that it is about"), "{}", problems[0]);
}

#[test]
fn tables_of_people() {
    let folder = tempfile::tempdir().unwrap();
    let text = "Question;Answer;Rating;Comment;User\nWhy?;\"be\nc\";4;ok;u1\nHow?;so;five;;u2\n";
    let path = put(folder.path(), "x.csv", text);
    let (records, problems) = read_all(&path, None);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].responses[0].content, Content::from("be\nc"));
    assert_eq!(
        kinds(&records[0]),
        [(FormKind::Rating, Some("u1".into())), (FormKind::Critique, Some("u1".into()))]
    );
    // The second row starts on line 4: the first holds a line end.
    assert_eq!(problems, [format!("{}:4: rating: needed a number, got \"five\"", path.display())]);
    let alpaca =
        r#"{"instruction":"do","input":"it","output_1":"a","output_2":"b","preference":2,"annotator":"x"}"#;
    let (records, _) = read_all(&put(folder.path(), "a.jsonl", alpaca), None);
    assert_eq!(records[0].feedback[0].form, Form::Comparison { better: "2".into(), worse: "1".into() });
}

#[test]
fn samples_of_lm_eval() {
    let folder = tempfile::tempdir().unwrap();
    let row = r#"{"doc_id":3,"doc":{"q":"1+1?"},"target":"2","arguments":{"gen_args_0":{"arg_0":"Q: 1+1?\nA:","arg_1":{"until":["\n"]}}},"resps":[[" 2 "]],"filtered_resps":["2"],"filter":"strict","metrics":["exact_match","bleu"],"exact_match":1.0,"bleu":0.25,"doc_hash":"x"}"#;
    let (records, problems) = read_all(&put(folder.path(), "samples.jsonl", row), None);
    assert_eq!(problems, Vec::<String>::new());
    let record = &records[0];
    assert_eq!((record.id.as_str(), record.prompt.text().as_ref()), ("doc-3:strict", "Q: 1+1?\nA:"));
    assert_eq!(record.responses[0].content, Content::from("2"));
    let passed = Form::Outcome { on: "a".into(), check: "exact_match".into(), passed: true };
    assert_eq!(record.feedback[0].form, passed);
    assert_eq!(record.feedback[1].aspect.as_deref(), Some("bleu"));
    assert_eq!(record.extra["target"], "2");
}

#[test]
fn results_of_promptfoo() {
    let folder = tempfile::tempdir().unwrap();
    let result = |success: bool, response: &str| {
        format!(
            r#"{{"success":{success},"prompt":{{"raw":"[{{\"role\":\"user\",\"content\":\"Say hi\"}}]","label":"x"}},"vars":{{"a":"b"}},"response":{response},"provider":{{"id":"openai:m"}},"gradingResult":{{"pass":{success},"reason":"not kind","componentResults":[{{"pass":true,"reason":"ok","assertion":{{"type":"contains","value":"hi"}}}},{{"pass":false,"reason":"rude","assertion":{{"type":"llm-rubric","metric":"tone"}}}}]}},"namedScores":{{"tone":0.25}},"error":"timeout"}}"#
        )
    };
    let (good, bad) = (result(false, r#"{"output":"hi you","cached":true}"#), result(false, "null"));
    let file = format!(
        "{{\"evalId\":\"e\",\"results\":{{\"version\":3,\"results\":[{good},{bad}]}},\"config\":{{}}}}"
    );
    // As one line, over several, and as lines of results.
    for (name, text) in [
        ("a.json", file.clone()),
        ("b.json", file.replacen('{', "{\n", 1)),
        ("c.jsonl", good.clone() + "\n" + &bad),
    ] {
        let (records, problems) = read_all(&put(folder.path(), name, &text), None);
        assert_eq!(records.len(), 1, "{name}: {problems:?}");
        assert!(
            problems[0].ends_with("response.output: needed what was answered, got timeout"),
            "{problems:?}"
        );
        let record = &records[0];
        assert_eq!(record.prompt, Prompt::from("Say hi"));
        assert_eq!(record.responses[0].model.as_deref(), Some("openai:m"));
        let outcomes: Vec<_> = record
            .feedback
            .iter()
            .filter_map(|item| match &item.form {
                Form::Outcome { check, passed, .. } => Some((check.as_str(), *passed, item.text.as_deref())),
                _ => None,
            })
            .collect();
        assert_eq!(
            outcomes,
            [
                ("success", false, Some("not kind")),
                ("contains", true, Some("ok")),
                ("tone", false, Some("rude"))
            ]
        );
        assert_eq!(record.feedback[3].form, Form::Rating { on: "a".into(), value: 0.25, scale: None });
        assert_eq!(record.extra["response"], serde_json::json!({"cached": true}));
    }
}

#[test]
fn samples_of_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let sample = r#"{"id":"s1","epoch":2,"input":"1+1?","target":"2","messages":[],"output":{"model":"m","choices":[{"message":{"id":"x","role":"assistant","content":"three"},"stop_reason":"stop"}]},"scores":{"match":{"value":"I","answer":"three","explanation":"not 2"},"half":{"value":"P"},"f1":{"value":0.4},"level":{"value":"B"}},"metadata":{}}"#;
    let log = format!(
        "{{\n\"version\":2,\"status\":\"success\",\"eval\":{{\"task\":\"t\"}},\"plan\":{{}},\"results\":{{}},\"samples\":[{sample}]}}"
    );
    let (records, problems) = read_all(&put(folder.path(), "log.json", &log), None);
    assert_eq!(problems, Vec::<String>::new());
    let record = &records[0];
    assert_eq!((record.id.as_str(), &record.responses[0].content), ("s1:2", &Content::from("three")));
    let on = || "a".to_owned();
    let forms: Vec<_> = record.feedback.iter().map(|item| item.form.clone()).collect();
    assert_eq!(
        forms,
        [
            Form::Outcome { on: on(), check: "match".into(), passed: false },
            Form::Rating { on: on(), value: 0.5, scale: Some([0.0, 1.0]) },
            Form::Rating { on: on(), value: 0.4, scale: None },
            Form::Critique { on: Some(on()), text: "level: B".into() },
        ]
    );
    assert_eq!(record.feedback[0].text.as_deref(), Some("not 2"));
    assert_eq!(record.feedback[0].extra["answer"], "three");
}

/// A foreign column may have the name of a field of Hone's own. Written as a record and read again it has to be
/// there, and it gets its name back in a foreign row.
#[test]
fn columns_that_hone_has_words_for() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        r#"{"prompt":"q","chosen":"x","rejected":"y","feedback":"none","responses":3,"split":7,"id":["n"]}"#;
    let (records, problems) = read_all(&put(folder.path(), "a.jsonl", text), Some("trl-preference"));
    assert_eq!(problems, Vec::<String>::new());
    let hone = folder.path().join("b.jsonl");
    write_all(&hone, "hone", &records);
    let (again, problems) = read_all(&hone, None);
    assert_eq!(problems, Vec::<String>::new());
    assert_eq!(again, records);
    assert_eq!(again[0].extra["feedback_"], "none");
    let back = folder.path().join("c.jsonl");
    assert!(write_all(&back, "trl-preference", &again).losses.is_empty());
    let row: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(back).unwrap()).unwrap();
    let first: serde_json::Value = serde_json::from_str(text).unwrap();
    for name in ["feedback", "responses", "split"] {
        assert_eq!(row[name], first[name], "{name}");
    }
}

#[test]
fn real_sets_survive_as_records() {
    for set in [
        "qa_feedback/dev_feedback_first250.jsonl",
        "defacto/val_300_no_article.jsonl",
        "saf/answers_training_german.jsonl",
    ] {
        let Some(path) = real(set) else { return };
        let folder = tempfile::tempdir().unwrap();
        let (records, _) = read_all(&path, None);
        let hone = folder.path().join("log.jsonl");
        write_all(&hone, "hone", &records);
        let (again, problems) = read_all(&hone, None);
        assert_eq!(problems, Vec::<String>::new(), "{set}");
        assert_eq!(again, records, "{set}");
    }
}

/// A document that goes on past the first bytes that are looked at is a document still.
#[test]
fn a_long_document_over_several_lines() {
    let folder = tempfile::tempdir().unwrap();
    let row = |n: usize| {
        format!(
            "  {{\"id\":\"t{n}\",\"timestamp\":\"2026-05-01\",\"input\":\"q{n}\",\"output\":\"{}\"}}",
            "a".repeat(900)
        )
    };
    let rows: Vec<String> = (0..400).map(row).collect();
    let text = format!("{{\n \"data\": [\n{}\n ],\n \"meta\": {{}}\n}}\n", rows.join(",\n"));
    assert!(text.len() > 300_000);
    assert_eq!(read_all(&put(folder.path(), "p.json", &text), None).0.len(), 400);
}

#[test]
fn pages_and_documents() {
    let folder = tempfile::tempdir().unwrap();
    let page = "{\n \"data\": [{\"id\":\"t1\",\"timestamp\":\"2026-05-01\",\"input\":\"a?\",\"output\":\"a\",\"scores\":[]}],\n \"meta\": {\"page\": 1}\n}";
    assert_eq!(read_all(&put(folder.path(), "p.json", page), None).0.len(), 1);
}

#[test]
fn real_sets_are_read_whole() {
    // Set, format found, records, problems, items per form that have to be there.
    let cases: &[(&str, &str, usize, usize, &[(FormKind, usize)])] = &[
        // Four chosen or rejected answers are blank.
        ("hh_helpful/hh_helpful.jsonl", "hh-turns", 1179, 4, &[(FormKind::Comparison, 1179)]),
        ("sparse_feedback/ratings_first60.csv", "sparse-ratings", 60, 0, &[(FormKind::Rating, 60)]),
        ("sparse_feedback/rankings_first70.csv", "sparse-rankings", 70, 0, &[]),
        ("qa_feedback/dev_feedback_first250.jsonl", "qa-feedback", 249, 0, &[(FormKind::Span, 698)]),
        // One answer is blank.
        ("saf/answers_unseen_answers_english.jsonl", "saf", 250, 1, &[(FormKind::Rating, 250)]),
        ("saf/answers_training_german.jsonl", "saf", 384, 0, &[(FormKind::Critique, 384)]),
        ("app_reviews/query_relevance.jsonl", "app-reviews", 544, 0, &[(FormKind::Thumb, 544)]),
        ("app_reviews/reviews_spotify.jsonl", "app-reviews", 700, 0, &[(FormKind::Critique, 700)]),
        ("app_reviews/sentences_with_features.jsonl", "app-reviews", 917, 0, &[]),
        (
            "defacto/val_300_no_article.jsonl",
            "defacto",
            300,
            0,
            &[(FormKind::Edit, 211), (FormKind::Thumb, 300)],
        ),
        (
            "preference_demo/dpo_en_first140.json",
            "sharegpt-preference",
            140,
            0,
            &[(FormKind::Comparison, 140)],
        ),
        ("processbench/gsm8k.jsonl", "prm", 400, 0, &[(FormKind::Outcome, 400)]),
    ];
    for (set, format, count, faults, forms) in cases {
        let Some(path) = real(set) else { return };
        let reader = formats::open(&path, &Options::default()).unwrap();
        assert_eq!(reader.format().name, *format, "{set}");
        let (records, problems) = read_all(&path, None);
        assert_eq!((records.len(), problems.len()), (*count, *faults), "{set}: {problems:#?}");
        for (kind, wanted) in *forms {
            let found =
                records.iter().flat_map(|record| &record.feedback).filter(|item| item.form.kind() == *kind);
            assert_eq!(found.count(), *wanted, "{set}: {kind}");
        }
    }
    let Some(path) = real("app_reviews/sentences_with_features.jsonl") else { return };
    let (records, _) = read_all(&path, None);
    let unfound = records
        .iter()
        .flat_map(|record| &record.feedback)
        .filter(|item| item.form.kind() == FormKind::Critique);
    // The set's own notes count 39 phrases that are not verbatim.
    assert_eq!(unfound.count(), 39);
    let Some(path) = real("saf/answers_training_english.jsonl") else { return };
    let (records, problems) = read_all(&path, None);
    // One answer is blank.
    assert_eq!((records.len(), problems.len()), (1475, 1));
    assert!(records[0].prompt.text().starts_with("State at least 4"));
    let pairs: usize =
        records.iter().map(|record| convert::pairs(record, &mut Losses::default()).len()).sum();
    assert_eq!(pairs, 0, "one answer per record gives no pair");
}

#[test]
fn qa_feedback_comes_back_as_it_was() {
    let Some(path) = real("qa_feedback/dev_feedback_first250.jsonl") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (records, _) = read_all(&path, None);
    let output = folder.path().join("again.jsonl");
    write_all(&output, "qa-feedback", &records);
    let lines = |path: &Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.split('\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    assert_eq!(lines(&output), lines(&path));
}
