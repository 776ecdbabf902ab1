//! Records as JSON, and what makes them sound.

use hone_feedback::{Content, Feedback, Form, FormKind, Prompt, Record, Response};
use serde_json::Value;

/// One record with every form, keys in the order in which Hone writes them.
pub const EVERY_FORM: &str = r#"{"id":"r1","prompt":[{"role":"user","content":"Why is the sky blue?"}],"responses":[{"id":"a","content":"Because of Rayleigh scattering.\n\nShort waves scatter more.\n\nSo it is blue.","model":"v3"},{"id":"b","content":"Müde 🦀"},{"id":"c","content":"No idea."}],"feedback":[{"form":"thumb","on":"a","value":true,"by":"user:42","at":"2026-05-01T10:00:00Z"},{"form":"rating","on":"a","value":4,"scale":[1,5],"aspect":"helpful"},{"form":"rating","on":"b","value":2.5,"scale":[1,5],"aspect":"helpful"},{"form":"comparison","better":"a","worse":"b"},{"form":"ranking","order":[["a"],["b","c"]]},{"form":"critique","on":"a","text":"Too short."},{"form":"edit","on":"a","content":"Because air scatters short waves more."},{"form":"span","on":"a","start":12,"end":31,"label":"unsupported","value":-1,"text":"says who?"},{"form":"step","on":"a","index":2,"correct":false,"text":"does not follow"},{"form":"outcome","on":"a","check":"tests","passed":false,"text":"Traceback …"},{"form":"event","on":"a","event":"accepted","value":1},{"form":"rule","text":"no emojis in mail to my boss","scope":"mail to my boss"}],"split":"train","source":{"page":7}}"#;

pub fn every_form() -> Record {
    Record::from_json(EVERY_FORM.as_bytes()).expect("the record is sound")
}

#[test]
fn every_form_survives_to_the_byte() {
    let record = every_form();
    assert_eq!(record.validate(), []);
    assert_eq!(record.to_json(), EVERY_FORM);
    let kinds: Vec<FormKind> = record.feedback.iter().map(|item| item.form.kind()).collect();
    for kind in FormKind::ALL {
        assert!(kinds.contains(&kind), "{kind} is not in the example");
    }
    let through_value = Record::from_object(match serde_json::from_str(EVERY_FORM).unwrap() {
        Value::Object(object) => object,
        _ => unreachable!(),
    });
    assert_eq!(through_value, Ok(record));
}

#[test]
fn unknown_fields_survive_everywhere() {
    let line = r#"{"id":"r","prompt":[{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"3","name":"f"},{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"x.png"}}]}],"responses":[{"id":"a","content":[{"role":"assistant","content":"one"},{"role":"assistant","content":"two"}],"logprobs":[0.5]}],"feedback":[{"form":"thumb","on":"a","value":true,"start":3,"queue":{"id":1}}],"tags":["x"],"n":12345678901234567890}"#;
    let record = Record::from_json(line.as_bytes()).unwrap();
    assert_eq!(record.to_json(), line);
    assert_eq!(record.responses[0].content.text(), "one\ntwo");
    assert_eq!(record.prompt.last_user().unwrap(), "look");
    // `start` belongs to spans; on a thumb it is an unknown field like any other.
    assert_eq!(record.feedback[0].extra["start"], 3);
}

#[test]
fn raw_prompts_stay_raw() {
    let line = r#"{"id":"r","prompt":"Once upon a time","responses":[{"id":"a","content":" there was"}]}"#;
    let record = Record::from_json(line.as_bytes()).unwrap();
    assert_eq!(record.prompt, Prompt::Text("Once upon a time".into()));
    assert_eq!(record.to_json(), line);
}

/// Refused while parsing: field, needed, got.
#[test]
fn parse_faults_name_the_field() {
    let cases = [
        (r#"{"id":1,"prompt":"x"}"#, "id: needed a string, got integer `1`"),
        (r#"{"prompt":"x"}"#, "id: needed a value, got nothing"),
        (r#"{"id":"a","id":"b","prompt":"x"}"#, "id: needed one value, got the key twice"),
        (r#"{"id":"a","prompt":7}"#, "prompt: needed text or a list of messages, got integer `7`"),
        (r#"{"id":"a","prompt":[{"content":"x"}]}"#, "prompt[0].role: needed a value, got nothing"),
        (
            r#"{"id":"a","prompt":"x","responses":[{"id":"a"}]}"#,
            "responses[0].content: needed a value, got nothing",
        ),
        (
            r#"{"id":"a","prompt":"x","feedback":[{"form":"rule","text":"y"},{"form":"thumb","on":"a","value":1}]}"#,
            "feedback[1].value: needed true or false, got 1",
        ),
        (
            r#"{"id":"a","prompt":"x","feedback":[{"form":"span","on":"a","start":-1,"end":2}]}"#,
            "feedback[0].start: needed a whole number from 0, got -1",
        ),
        (r#"{"id":"a","prompt":"x","feedback":["good"]}"#, "feedback[0]: needed a map, got string \"good\""),
        (r#"[1]"#, ": needed a JSON object, got a list"),
    ];
    for (line, expected) in cases {
        assert_eq!(Record::from_json(line.as_bytes()).unwrap_err().to_string(), expected, "{line}");
    }
    let unknown = r#"{"id":"a","prompt":"x","feedback":[{"form":"smile","on":"a"}]}"#;
    let fault = Record::from_json(unknown.as_bytes()).unwrap_err();
    assert_eq!((fault.field.as_str(), fault.got.as_str()), ("feedback[0].form", "\"smile\""));
    let cut = Record::from_json(br#"{"id":"a","prompt":"x"#).unwrap_err();
    assert_eq!(cut.needed, "a whole JSON object");
    let bytes = Record::from_json(b"{\"id\":\"\xff\",\"prompt\":\"x\"}").unwrap_err();
    assert_eq!(bytes.needed, "UTF-8 text");
}

fn faults(item: Form) -> Vec<String> {
    let mut record =
        Record::new("r", "q").respond("a", "é🦀abc").respond("b", "one\ntwo").say(Feedback::from(item));
    record.responses[0].steps = Some(vec!["é🦀".into(), "abc".into()]);
    record.validate().iter().map(ToString::to_string).collect()
}

#[test]
fn soundness_across_fields() {
    let on = || "a".to_owned();
    let span = |start, end| Form::Span { on: on(), start, end, label: None, value: None };
    let step = |index| Form::Step { on: on(), index, correct: true };
    let rating = |value, scale| Form::Rating { on: on(), value, scale };
    let ranking = |order: &[&[&str]]| Form::Ranking {
        order: order.iter().map(|place| place.iter().map(ToString::to_string).collect()).collect(),
    };
    let sound = [
        span(0, 5),
        span(4, 5),
        step(1),
        rating(5.0, Some([1.0, 5.0])),
        rating(-3.0, None),
        ranking(&[&["a", "b"]]),
        ranking(&[&["b"], &["a"]]),
        Form::Critique { on: None, text: "fine".into() },
    ];
    for item in sound {
        assert_eq!(faults(item.clone()), Vec::<String>::new(), "{item:?}");
    }
    let bad = [
        // The text has 5 scalar values and 9 bytes: an offset of 6 is inside the bytes and past the text.
        (span(0, 6), "feedback[0].end: needed at most 5, the characters of the response, got 6"),
        (span(2, 2), "feedback[0].start: needed below end, 2, got 2"),
        (step(2), "feedback[0].index: needed a step below 2, got 2"),
        (rating(f64::NAN, None), "feedback[0].value: needed a finite number, got NaN"),
        (rating(6.0, Some([1.0, 5.0])), "feedback[0].value: needed a mark from 1 to 5, got 6"),
        (
            rating(3.0, Some([5.0, 1.0])),
            "feedback[0].scale: needed two finite numbers, the lower first, got [5, 1]",
        ),
        (ranking(&[&["a"]]), "feedback[0].order: needed at least 2 responses, got 1"),
        (
            ranking(&[&["a"], &["b", "a"]]),
            "feedback[0].order[1][1]: needed each response once, got \"a\" a second time",
        ),
        (
            Form::Comparison { better: "a".into(), worse: "z".into() },
            "feedback[0].worse: needed the id of a response of this record, got \"z\"",
        ),
        (
            Form::Comparison { better: "a".into(), worse: "a".into() },
            "feedback[0].worse: needed another response than better, got \"a\" for both",
        ),
        (Form::Critique { on: None, text: " ".into() }, "feedback[0].text: needed words, got empty text"),
        (
            Form::Edit { on: on(), content: Content::Null },
            "feedback[0].content: needed the corrected answer, got empty content",
        ),
    ];
    for (item, expected) in bad {
        assert_eq!(faults(item.clone()), [expected], "{item:?}");
    }
}

#[test]
fn soundness_of_the_record() {
    let mut record = Record::new(" ", Prompt::Messages(vec![])).respond("a", "x").respond("a", "  ");
    record.responses.push(Response::new("", ""));
    let shown: Vec<String> = record.validate().iter().map(|fault| fault.field.clone()).collect();
    assert_eq!(
        shown,
        ["id", "responses[1].id", "responses[1].content", "responses[2].id", "responses[2].content"]
    );
    let empty = Record::new("r", Prompt::Text(String::new()));
    assert_eq!(
        empty.validate()[0].to_string(),
        "prompt: needed a prompt, a response or a rule, got none of them"
    );
    let rule = empty.say(Form::Rule { text: "be brief".into(), scope: None });
    assert_eq!(rule.validate(), []);
}
