//! Hand-made bad logs: each gets its error with file and line, none panics, nothing is dropped.

#![allow(clippy::type_complexity, reason = "tables of cases")]

use std::path::Path;

use hone_feedback::doctor::{self, Settings};
use hone_feedback::formats::{self, Options};

const GOOD: &str = r#"{"id":"ok","prompt":"q","responses":[{"id":"a","content":"x y"},{"id":"b","content":"z"}],"feedback":[{"form":"thumb","on":"a","value":true}]}"#;

/// A log of one sound record and one bad line after it: name, the bad line, the field, what was needed (a part).
fn bad_hone_lines() -> Vec<(&'static str, String, &'static str, &'static str)> {
    let item = |item: &str| {
        format!(
            r#"{{"id":"r","prompt":"q","responses":[{{"id":"a","content":"abcdé"}},{{"id":"b","content":"z"}}],"feedback":[{item}]}}"#
        )
    };
    let case = |name, line: &str, field, needed| (name, line.to_owned(), field, needed);
    vec![
        case("truncated", r#"{"id":"r","prompt":"q""#, "", "a whole JSON object"),
        case("cut inside text", r#"{"id":"r","prompt":"q"#, "", "a whole JSON object"),
        case("cut inside an escape", r#"{"id":"r","prompt":"\u00"#, "", "a whole JSON object"),
        case("trailing comma", r#"{"id":"r","prompt":"q",}"#, "", "a whole JSON object"),
        case(
            "two objects on a line",
            r#"{"id":"r","prompt":"q"}{"id":"s","prompt":"q"}"#,
            "",
            "a whole JSON object",
        ),
        case("single quotes", "{'id':'r','prompt':'q'}", "", "a whole JSON object"),
        case("a comment", "// the next one is good", "", "a whole JSON object"),
        case("a list", "[1,2]", "", "a JSON object"),
        case("a number", "42", "", "a JSON object"),
        case("text", r#""hello""#, "", "a JSON object"),
        case("null", "null", "", "a JSON object"),
        case("NaN", &item(r#"{"form":"rating","on":"a","value":NaN}"#), "", "a whole JSON object"),
        case("Infinity", &item(r#"{"form":"rating","on":"a","value":-Infinity}"#), "", "a whole JSON object"),
        case(
            "a number without end",
            &item(r#"{"form":"rating","on":"a","value":1e999}"#),
            "",
            "a whole JSON object",
        ),
        case("a lone surrogate", r#"{"id":"r","prompt":"\ud800"}"#, "", "a whole JSON object"),
        case("a raw control character", "{\"id\":\"r\",\"prompt\":\"a\u{1}b\"}", "", "a whole JSON object"),
        case(
            "deep nesting",
            &format!(r#"{{"id":"r","prompt":"q","x":{}{}}}"#, "[".repeat(500), "]".repeat(500)),
            "",
            "a whole JSON object",
        ),
        case("no id", r#"{"prompt":"q","responses":[]}"#, "id", "a value"),
        case("a number for id", r#"{"id":7,"prompt":"q","responses":[]}"#, "id", "a string"),
        case("null for id", r#"{"id":null,"prompt":"q","responses":[]}"#, "id", "a string"),
        case("blank id", r#"{"id":" ","prompt":"q","responses":[]}"#, "id", "a name"),
        case("id twice in one object", r#"{"id":"r","id":"s","prompt":"q"}"#, "id", "one value"),
        case("duplicate id", GOOD, "id", "an id of its own"),
        case("no prompt", r#"{"id":"r","responses":[{"id":"a","content":"x"}]}"#, "prompt", "a value"),
        case(
            "a number for prompt",
            r#"{"id":"r","prompt":3,"responses":[]}"#,
            "prompt",
            "text or a list of messages",
        ),
        case(
            "an object for prompt",
            r#"{"id":"r","prompt":{"role":"user"},"responses":[]}"#,
            "prompt",
            "text or a list of messages",
        ),
        case(
            "a prompt and nothing in it",
            r#"{"id":"r","prompt":"","responses":[]}"#,
            "prompt",
            "a prompt, a response or a rule",
        ),
        case(
            "a message without role",
            r#"{"id":"r","prompt":[{"content":"q"}],"responses":[]}"#,
            "prompt[0].role",
            "a value",
        ),
        case(
            "a message with blank role",
            r#"{"id":"r","prompt":[{"role":"","content":"q"}],"responses":[]}"#,
            "prompt[0].role",
            "a role",
        ),
        case(
            "a message without content",
            r#"{"id":"r","prompt":[{"role":"user"}],"responses":[]}"#,
            "prompt[0].content",
            "text, parts or a tool call",
        ),
        case(
            "a number for content",
            r#"{"id":"r","prompt":[{"role":"user","content":1}],"responses":[]}"#,
            "prompt[0].content",
            "text, a list",
        ),
        case(
            "parts that are texts",
            r#"{"id":"r","prompt":[{"role":"user","content":["x"]}],"responses":[]}"#,
            "prompt[0].content",
            "text, a list",
        ),
        case(
            "an object for responses",
            r#"{"id":"r","prompt":"q","responses":{"a":"x"}}"#,
            "responses",
            "a sequence",
        ),
        case(
            "a text for a response",
            r#"{"id":"r","prompt":"q","responses":["x"]}"#,
            "responses[0]",
            "struct Response",
        ),
        case(
            "a response without id",
            r#"{"id":"r","prompt":"q","responses":[{"content":"x"}]}"#,
            "responses[0].id",
            "a value",
        ),
        case(
            "a response without content",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a"}]}"#,
            "responses[0].content",
            "a value",
        ),
        case(
            "an empty response",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a","content":""}]}"#,
            "responses[0].content",
            "an answer",
        ),
        case(
            "a blank response",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a","content":" \n"}]}"#,
            "responses[0].content",
            "an answer",
        ),
        case(
            "two responses of one id",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a","content":"x"},{"id":"a","content":"y"}]}"#,
            "responses[1].id",
            "an id of its own",
        ),
        case(
            "no steps",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a","content":"x","steps":[]}]}"#,
            "responses[0].steps",
            "at least one step",
        ),
        case(
            "steps that are numbers",
            r#"{"id":"r","prompt":"q","responses":[{"id":"a","content":"x","steps":[1]}]}"#,
            "responses[0].steps[0]",
            "a string",
        ),
        case("feedback that is text", &item(r#""good""#), "feedback[0]", "a map"),
        case("feedback without form", &item(r#"{"on":"a","value":true}"#), "feedback[0].form", "text"),
        case("an unknown form", &item(r#"{"form":"emoji","on":"a"}"#), "feedback[0].form", "one of thumb"),
        case(
            "a form in capitals",
            &item(r#"{"form":"Thumb","on":"a","value":true}"#),
            "feedback[0].form",
            "one of thumb",
        ),
        case("a thumb on nothing", &item(r#"{"form":"thumb","value":true}"#), "feedback[0].on", "text"),
        case(
            "a thumb on a stranger",
            &item(r#"{"form":"thumb","on":"z","value":true}"#),
            "feedback[0].on",
            "the id of a response",
        ),
        case(
            "a thumb that is a number",
            &item(r#"{"form":"thumb","on":"a","value":1}"#),
            "feedback[0].value",
            "true or false",
        ),
        case(
            "a rating that is text",
            &item(r#"{"form":"rating","on":"a","value":"4"}"#),
            "feedback[0].value",
            "a number",
        ),
        case(
            "a rating off its scale",
            &item(r#"{"form":"rating","on":"a","value":6,"scale":[1,5]}"#),
            "feedback[0].value",
            "a mark from 1 to 5",
        ),
        case(
            "a scale upside down",
            &item(r#"{"form":"rating","on":"a","value":2,"scale":[5,1]}"#),
            "feedback[0].scale",
            "the lower first",
        ),
        case(
            "a scale without width",
            &item(r#"{"form":"rating","on":"a","value":2,"scale":[2,2]}"#),
            "feedback[0].scale",
            "the lower first",
        ),
        case(
            "a scale of three",
            &item(r#"{"form":"rating","on":"a","value":2,"scale":[1,2,3]}"#),
            "feedback[0].scale",
            "a list of two numbers",
        ),
        case(
            "a comparison with itself",
            &item(r#"{"form":"comparison","better":"a","worse":"a"}"#),
            "feedback[0].worse",
            "another response",
        ),
        case(
            "a comparison with a stranger",
            &item(r#"{"form":"comparison","better":"a","worse":"q"}"#),
            "feedback[0].worse",
            "the id of a response",
        ),
        case(
            "half a comparison",
            &item(r#"{"form":"comparison","better":"a"}"#),
            "feedback[0].worse",
            "text",
        ),
        case(
            "a ranking of one",
            &item(r#"{"form":"ranking","order":[["a"]]}"#),
            "feedback[0].order",
            "at least 2",
        ),
        case(
            "a ranking of nothing",
            &item(r#"{"form":"ranking","order":[]}"#),
            "feedback[0].order",
            "at least 2",
        ),
        case(
            "a ranking with an empty place",
            &item(r#"{"form":"ranking","order":[["a"],[],["b"]]}"#),
            "feedback[0].order[1]",
            "at least one",
        ),
        case(
            "a response ranked twice",
            &item(r#"{"form":"ranking","order":[["a"],["b","a"]]}"#),
            "feedback[0].order[1][1]",
            "each response once",
        ),
        case(
            "a flat ranking",
            &item(r#"{"form":"ranking","order":["a","b"]}"#),
            "feedback[0].order",
            "a list of lists",
        ),
        case(
            "a wordless critique",
            &item(r#"{"form":"critique","on":"a","text":"  "}"#),
            "feedback[0].text",
            "words",
        ),
        case(
            "an empty edit",
            &item(r#"{"form":"edit","on":"a","content":""}"#),
            "feedback[0].content",
            "the corrected answer",
        ),
        case(
            "a span past the end",
            &item(r#"{"form":"span","on":"a","start":0,"end":6}"#),
            "feedback[0].end",
            "at most 5",
        ),
        case(
            "an empty span",
            &item(r#"{"form":"span","on":"a","start":2,"end":2}"#),
            "feedback[0].start",
            "below end",
        ),
        case(
            "a span backwards",
            &item(r#"{"form":"span","on":"a","start":4,"end":2}"#),
            "feedback[0].start",
            "below end",
        ),
        case(
            "a negative offset",
            &item(r#"{"form":"span","on":"a","start":-1,"end":2}"#),
            "feedback[0].start",
            "a whole number",
        ),
        case(
            "a fractional offset",
            &item(r#"{"form":"span","on":"a","start":0.5,"end":2}"#),
            "feedback[0].start",
            "a whole number",
        ),
        case(
            "a step too far",
            &item(r#"{"form":"step","on":"a","index":1,"correct":true}"#),
            "feedback[0].index",
            "a step below 1",
        ),
        case(
            "a verdict that is text",
            &item(r#"{"form":"step","on":"a","index":0,"correct":"yes"}"#),
            "feedback[0].correct",
            "true or false",
        ),
        case(
            "an outcome of nothing",
            &item(r#"{"form":"outcome","on":"a","passed":true}"#),
            "feedback[0].check",
            "text",
        ),
        case(
            "a nameless event",
            &item(r#"{"form":"event","on":"a","event":""}"#),
            "feedback[0].event",
            "the name of an event",
        ),
        case("an empty rule", &item(r#"{"form":"rule","text":""}"#), "feedback[0].text", "a rule"),
        case(
            "a time that is none",
            &item(r#"{"form":"thumb","on":"a","value":true,"at":"yesterday"}"#),
            "feedback[0].at",
            "a time",
        ),
        case(
            "a source that is a number",
            &item(r#"{"form":"thumb","on":"a","value":true,"by":7}"#),
            "feedback[0].by",
            "text",
        ),
        case(
            "a row of another format",
            r#"{"prompt":"q","chosen":"a","rejected":"b"}"#,
            "",
            "a row of the format hone",
        ),
    ]
}

fn problems(path: &Path) -> (u64, u64, Vec<(u64, String, String, String)>) {
    let settings = Settings::default();
    let report = doctor::check(&[path.to_owned()], &settings).unwrap();
    let shown = report.problems.first.iter();
    let shown =
        shown.map(|one| (one.line, one.fault.field.clone(), one.fault.needed.clone(), one.to_string()));
    (report.records, report.refused, shown.collect())
}

#[test]
fn every_kind_of_bad_line_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cases = bad_hone_lines();
    assert!(cases.len() >= 60, "{}", cases.len());
    for (name, line, field, needed) in &cases {
        let path = folder.path().join("log.jsonl");
        // Blank lines count, and nothing after the bad line is lost.
        let after = GOOD.replace("\"ok\"", "\"after\"");
        let text = format!("{GOOD}\n\n{line}\n{after}\n");
        crate::doctor::agrees(text.as_bytes(), None);
        std::fs::write(&path, text).unwrap();
        let (records, refused, found) = problems(&path);
        assert_eq!((records, refused), (2, 1), "{name}: {found:?}");
        let (at, found_field, found_needed, shown) = &found[0];
        assert_eq!(*at, 3, "{name}: {shown}");
        assert_eq!(found_field, field, "{name}: {shown}");
        assert!(found_needed.contains(needed), "{name}: {shown}");
        assert!(shown.starts_with(&format!("{}:3: ", path.display())), "{name}: {shown}");
    }
}

/// Bytes of whole files: name, bytes, records, refused, the first problem (a part).
#[test]
fn every_kind_of_bad_file_is_named() {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for n in 0..50_000 {
        writeln!(gzip, "{}", GOOD.replace("ok", &format!("r{n}"))).unwrap();
    }
    let gzip = gzip.finish().unwrap();
    let long = format!(
        "{GOOD}\n{{\"id\":\"r\",\"prompt\":\"{}\"}}\n{}\n",
        "x".repeat(20 << 20),
        GOOD.replace("ok", "b")
    );
    let binary: Vec<u8> = [GOOD.as_bytes(), b"\n{\"id\":\"\xff\xfe\",\"prompt\":\"q\"}\n"].concat();
    let cases: Vec<(&str, &str, Vec<u8>, Option<u64>, &str)> = vec![
        ("empty", "a.jsonl", vec![], Some(0), ""),
        ("only blank lines", "a.jsonl", b"\n \n\n".to_vec(), Some(0), ""),
        ("not UTF-8", "a.jsonl", binary, Some(1), "a.jsonl:2: needed UTF-8 text"),
        ("random bytes", "a.jsonl", (0..2000u32).map(|n| (n * 7919 % 251) as u8).collect(), Some(0), "a.jsonl:1: needed"),
        ("a gigantic line", "a.jsonl", long.into_bytes(), Some(2), "a.jsonl:2: needed a line of at most 16777216 bytes"),
        ("a cut gzip", "a.jsonl.gz", gzip[..gzip.len() / 2].to_vec(), None, "a compressed file that ends too early"),
        ("a cut list", "a.json", format!("[{GOOD},").into_bytes(), Some(1), "a.json:1: needed ] at the end of the list"),
        ("a list cut inside an object", "a.json", format!("[{GOOD},\n{{\"id\"").into_bytes(), Some(1), "a.json:2: needed a whole JSON object"),
        ("a list of numbers", "a.json", b"[1,2]".to_vec(), Some(0), "needed a JSON object, got a number"),
        ("a row too short", "a.csv", b"prompt,chosen,rejected\na,b,c\na,b\n".to_vec(), Some(1), "a.csv:3: needed 3 cells, as the header has, got 2 cells"),
        ("a quote that never closes", "a.csv", [b"prompt,chosen,rejected\na,b,c\n\"".to_vec(), vec![b'x'; 20 << 20]].concat(), Some(1), "a row of at most 16777216 bytes"),
        ("a cell that is not UTF-8", "a.csv", b"prompt,chosen,rejected\na,\xff,c\na,b,c\n".to_vec(), Some(1), "a.csv:2: chosen: needed UTF-8 text"),
        ("labels that miss one", "a.jsonl", br#"{"prompt":"q","completions":["a","b"],"labels":[true]}"#.to_vec(), Some(0), "a.jsonl:1: labels: needed 2 labels, one per completion, got 1"),
        ("a label that is none", "a.jsonl", br#"{"prompt":"q","completion":"a","label":"perhaps"}"#.to_vec(), Some(0), "a.jsonl:1: label: needed true or false"),
        ("a pair of one text", "a.jsonl", br#"{"prompt":"q","chosen":"","rejected":"b"}"#.to_vec(), Some(0), "responses[0].content: needed an answer"),
        ("a transcript of the human alone", "a.jsonl", br#"{"chosen":"\n\nHuman: a","rejected":"\n\nHuman: b"}"#.to_vec(), Some(0), "chosen: needed a transcript that ends with Assistant:"),
        ("a first error past the end", "a.jsonl", br#"{"problem":"q","steps":["a"],"label":1}"#.to_vec(), Some(0), "label: needed -1 or a step below 1, got 1"),
        ("five preferences", "a.jsonl", br#"{"question":"q","prediction 1":"a","preference":[0,0,0,0,0]}"#.to_vec(), Some(0), "preference: needed 6 numbers, got 5"),
        ("a score of no kind", "a.jsonl", br#"{"id":"t","timestamp":"2026-01-01","input":"q","output":"a","scores":[{"name":"n","value":1,"dataType":"MOOD"}]}"#.to_vec(), Some(0), "scores[0].dataType: needed NUMERIC"),
        ("feedback that says nothing", "a.jsonl", br#"{"run_id":"r","key":"k"}"#.to_vec(), Some(0), "score: needed a score, value, comment or correction"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, file, bytes, records, shown) in cases {
        let path = folder.path().join(file);
        std::fs::write(&path, bytes).unwrap();
        let (found, _, all) = problems(&path);
        if let Some(records) = records {
            assert_eq!(found, records, "{name}: {all:?}");
        }
        let text = all.first().map(|one| one.3.clone()).unwrap_or_default();
        assert!(text.contains(shown), "{name}: {text}");
        assert_eq!(shown.is_empty(), all.is_empty(), "{name}");
    }
    for (name, bytes, shown) in [
        ("a Parquet file of its name only", b"PAR1".to_vec(), "a sound Parquet file"),
        (
            "a damaged Parquet file",
            [b"PAR1".to_vec(), vec![7; 500], b"PAR1".to_vec()].concat(),
            "a sound Parquet file",
        ),
        (
            "rows of no known format",
            b"{\"colour\":\"red\"}\n".to_vec(),
            "needed rows of a known format (name it with --from), got fields colour",
        ),
    ] {
        let path = folder.path().join("x.bin");
        std::fs::write(&path, bytes).unwrap();
        let error = formats::open(&path, &Options::default())
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains(shown), "{name}: {error}");
    }
    assert!(formats::open(&folder.path().join("none"), &Options::default()).is_err());
    let unknown = Options { from: Some("spss".into()), ..Options::default() };
    let error = formats::open(&folder.path().join("a.csv"), &unknown).err().unwrap().to_string();
    assert!(error.starts_with("--from spss: needed one of hone, csv, "), "{error}");
}
