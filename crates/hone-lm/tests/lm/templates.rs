//! Chat templates against what `apply_chat_template` made of them (`tests/reference/make_templates.py`).

use std::collections::BTreeMap;

use hone_lm::template::{Clock, MaskScope, check_stop_in_mask};
use hone_lm::{ChatTemplate, Error, Message, RenderOptions, Tokenizer};
use serde_json::{Value, json};

use crate::{fixture, read_json};

fn tokenizer() -> Tokenizer {
    Tokenizer::from_folder(fixture("tokenizers/byte_level")).unwrap()
}

fn template(name: &str) -> ChatTemplate {
    let source = std::fs::read_to_string(fixture(&format!("templates/{name}.jinja"))).unwrap();
    let tokenizer = tokenizer();
    let special = tokenizer.special_tokens().map(|(n, t)| (n.to_owned(), t.to_owned())).collect();
    let clock = Clock::Fixed(read_json("templates/expected.json")["clock"].as_i64().unwrap());
    ChatTemplate::new(BTreeMap::from([("default".into(), source)]), special, clock).unwrap()
}

fn messages(value: &Value) -> Vec<Message> {
    serde_json::from_value(value.clone()).unwrap()
}

fn options(value: &Value) -> RenderOptions {
    let mut options = RenderOptions::default();
    for (name, value) in value.as_object().unwrap() {
        match name.as_str() {
            "tools" => options.tools = value.as_array().cloned(),
            "documents" => options.documents = value.as_array().cloned(),
            "add_generation_prompt" => options.add_generation_prompt = value.as_bool().unwrap(),
            "continue_final_message" => options.continue_final_message = value.as_bool().unwrap(),
            _ => {
                options.arguments.insert(name.clone(), value.clone());
            }
        }
    }
    options
}

#[test]
fn byte_identical_to_apply_chat_template() {
    let expected = read_json("templates/expected.json");
    let names: std::collections::BTreeSet<&str> =
        expected["cases"].as_array().unwrap().iter().map(|c| c["template"].as_str().unwrap()).collect();
    assert!(names.len() >= 15, "{names:?}");
    let templates: BTreeMap<&str, ChatTemplate> = names.iter().map(|&n| (n, template(n))).collect();
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in expected["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let conversation = case["conversation"].as_str().unwrap();
        let option = case["options"].as_str().unwrap();
        let at = format!("{name}, {conversation}, {option}");
        let result = templates[name].render(
            &messages(&expected["conversations"][conversation]),
            &options(&expected["options"][option]),
        );
        match (case.get("text").and_then(Value::as_str), result) {
            (Some(text), Ok(ours)) if ours == text => same += 1,
            (Some(text), Ok(ours)) => {
                let same = text.chars().zip(ours.chars()).take_while(|(a, b)| a == b).count();
                let near = |s: &str| s.chars().skip(same.saturating_sub(30)).take(90).collect::<String>();
                wrong.push(format!(
                    "{at}, character {same}:\n theirs {:?}\n ours   {:?}",
                    near(text),
                    near(&ours)
                ));
            }
            (Some(text), Err(e)) => wrong.push(format!("{at}:\n theirs {text:?}\n ours   error {e}")),
            (None, Err(ours)) => {
                let theirs = case["error"].as_str().unwrap();
                // A refusal must carry the template's own words.
                if let Some(words) = theirs.strip_prefix("TemplateError: ") {
                    assert!(
                        matches!(&ours, Error::TemplateRefused { message, .. } if message == words),
                        "{at}: theirs {words:?}, ours {ours}"
                    );
                }
                refused += 1;
            }
            (None, Ok(ours)) => {
                wrong.push(format!("{at}:\n theirs error {}\n ours   {ours:?}", case["error"]))
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        same + refused + wrong.len(),
        wrong.join("\n")
    );
    assert!(same > 600 && refused > 80, "{same} {refused}");
}

#[test]
fn masks_by_tag_equal_those_of_transformers() {
    let expected = read_json("templates/expected.json");
    let tokenizer = tokenizer();
    let cases = expected["masks"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let template = template(case["template"].as_str().unwrap());
        let conversation = case["conversation"].as_str().unwrap();
        let ours = template
            .mask_by_tag(
                &messages(&expected["conversations"][conversation]),
                &RenderOptions::default(),
                &tokenizer,
            )
            .unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let mask: Vec<u8> = serde_json::from_value(case["mask"].clone()).unwrap();
        assert_eq!(ours.ids, ids, "{case}");
        assert_eq!(ours.mask.iter().map(|&m| u8::from(m)).collect::<Vec<_>>(), mask, "{case}");
        assert!(mask.contains(&1) && mask.contains(&0));
    }
}

fn masked_text(masked: &hone_lm::template::MaskedTokens, tokenizer: &Tokenizer) -> String {
    let ids: Vec<u32> = masked.ids.iter().zip(&masked.mask).filter(|(_, m)| **m).map(|(id, _)| *id).collect();
    tokenizer.decode(&ids, false).unwrap()
}

#[test]
fn masks_by_prefix() {
    let expected = read_json("templates/expected.json");
    let tokenizer = tokenizer();
    let turns = messages(&expected["conversations"]["turns"]);
    let masked = template("chatml")
        .mask_by_prefix(&turns, &RenderOptions::default(), MaskScope::All, &tokenizer)
        .unwrap();
    assert_eq!(masked_text(&masked, &tokenizer), "4<|im_end|>Nine: \"9\".<|im_end|>");
    check_stop_in_mask(&masked.ids, &masked.mask, tokenizer.stop_tokens(), &tokenizer).unwrap();

    // Both ways agree where the template has the tag.
    let tagged = template("chatml_generation");
    assert!(tagged.marks_generation(&RenderOptions::default()));
    assert!(!template("chatml").marks_generation(&RenderOptions::default()));
    let by_tag = tagged.mask_by_tag(&turns, &RenderOptions::default(), &tokenizer).unwrap();
    let by_prefix =
        tagged.mask_by_prefix(&turns, &RenderOptions::default(), MaskScope::All, &tokenizer).unwrap();
    assert_eq!(by_tag, by_prefix);

    // A template without a generation prompt.
    let llama2 = template("llama2")
        .mask_by_prefix(&turns, &RenderOptions::default(), MaskScope::All, &tokenizer)
        .unwrap();
    assert_eq!(masked_text(&llama2, &tokenizer), " 4 <|im_end|> Nine: \"9\". <|im_end|>");
}

#[test]
fn reasoning_that_later_turns_drop_is_reported() {
    let expected = read_json("templates/expected.json");
    let tokenizer = tokenizer();
    let thinking = messages(&expected["conversations"]["thinking"]);
    let qwen = template("qwen3");
    let error =
        qwen.mask_by_prefix(&thinking, &RenderOptions::default(), MaskScope::All, &tokenizer).unwrap_err();
    assert!(matches!(error, Error::NotIncremental { message: 1, .. }), "{error}");
    let last =
        qwen.mask_by_prefix(&thinking, &RenderOptions::default(), MaskScope::Last, &tokenizer).unwrap();
    assert_eq!(masked_text(&last, &tokenizer), "<think>\nsecond\n</think>\n\nYes.<|im_end|>");
}

#[test]
fn a_stop_token_outside_the_mask_is_refused() {
    let tokenizer = tokenizer();
    let chat = vec![Message::new("user", "hi"), Message::new("assistant", "yes")];
    // The end token stands after the tag: the loss would never see it.
    let source = "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}{% endfor %}";
    let template = ChatTemplate::from_source(source, &[("eos_token", "<|im_end|>")]).unwrap();
    let masked = template.mask_by_tag(&chat, &RenderOptions::default(), &tokenizer).unwrap();
    let error =
        check_stop_in_mask(&masked.ids, &masked.mask, tokenizer.stop_tokens(), &tokenizer).unwrap_err();
    assert!(matches!(error, Error::StopOutsideMask { turn: 0, .. }), "{error}");
    let error =
        check_stop_in_mask(&masked.ids, &vec![false; masked.ids.len()], &[1], &tokenizer).unwrap_err();
    assert!(matches!(error, Error::EmptyMask { .. }), "{error}");

    // White space after the stop token, inside the tag, is no fault.
    let source = "{% for m in messages %}{% generation %}{{ m.content + eos_token + '\\n' }}{% endgeneration %}\n{% endfor %}";
    let template = ChatTemplate::from_source(source, &[("eos_token", "<|im_end|>")]).unwrap();
    let masked = template.mask_by_tag(&chat, &RenderOptions::default(), &tokenizer).unwrap();
    check_stop_in_mask(&masked.ids, &masked.mask, tokenizer.stop_tokens(), &tokenizer).unwrap();
}

#[test]
fn marked_text_that_a_filter_changes_is_refused() {
    let source =
        "{% set x %}{% generation %} {{ messages[0].content }} {% endgeneration %}{% endset %}{{ x | trim }}";
    let template = ChatTemplate::from_source(source, &[]).unwrap();
    let error = template
        .mask_by_tag(&[Message::new("user", "hi")], &RenderOptions::default(), &tokenizer())
        .unwrap_err();
    assert!(matches!(error, Error::GenerationMoved { .. }), "{error}");
}

#[test]
fn where_templates_come_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::copy(fixture("tokenizers/byte_level/tokenizer.json"), path.join("tokenizer.json")).unwrap();
    let config =
        |value: Value| std::fs::write(path.join("tokenizer_config.json"), value.to_string()).unwrap();
    let load = || ChatTemplate::from_folder(path, &Tokenizer::from_folder(path).unwrap());
    let chat = [Message::new("user", "hi")];
    let plain = RenderOptions::default();

    config(json!({}));
    assert!(load().unwrap().is_none());
    config(json!({"chat_template": "{{ eos_token }}!", "eos_token": {"content": "</s>"}}));
    assert_eq!(load().unwrap().unwrap().render(&chat, &plain).unwrap(), "</s>!");
    config(json!({"chat_template": [
        {"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}
    ]}));
    let named = load().unwrap().unwrap();
    assert_eq!(named.render(&chat, &plain).unwrap(), "D");
    assert_eq!(named.render(&chat, &RenderOptions { tools: Some(vec![]), ..plain.clone() }).unwrap(), "T");
    assert_eq!(
        named.render(&chat, &RenderOptions { template: Some("rag".into()), ..plain.clone() }).unwrap(),
        "R"
    );
    let error =
        named.render(&chat, &RenderOptions { template: Some("x".into()), ..plain.clone() }).unwrap_err();
    assert!(error.to_string().contains("rag"), "{error}");
    // The file wins over the configuration.
    std::fs::write(path.join("chat_template.jinja"), "F\n").unwrap();
    assert_eq!(load().unwrap().unwrap().render(&chat, &plain).unwrap(), "F");
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    config(json!({"chat_template": 3}));
    assert!(matches!(load(), Err(Error::Config { field, .. }) if field == "chat_template"));
    config(json!({"chat_template": "a\n{% if %}"}));
    assert!(matches!(load(), Err(Error::Template { line: 2, .. })), "{:?}", load());
}

#[test]
fn bad_templates_and_messages_never_panic() {
    let chat = [Message::new("user", "hi")];
    let render =
        |source: &str| ChatTemplate::from_source(source, &[])?.render(&chat, &RenderOptions::default());
    // Endless work is cut off.
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless), Err(Error::Template { .. })));
    for source in [
        "{% generation %}",
        "{% endgeneration %}",
        "{% generation",
        "{{ messages[5].content.x }}",
        "{{ messages | tojson(indent='x', separators=[1]) }}",
        "{{ undefined() }}",
        "{{ strftime_now('%!') }}",
        "{{ nothing | tojson }}",
        "{%",
        "{{ 1 / 0 }}",
    ] {
        let result = render(source);
        assert!(matches!(result, Err(Error::Template { .. })), "{source}: {result:?}");
    }
    let template = ChatTemplate::from_source("{{ messages[0].content }}", &[]).unwrap();
    assert!(matches!(template.render(&[], &RenderOptions::default()), Err(Error::Empty { .. })));
    assert!(serde_json::from_value::<Message>(json!({"content": "x"})).is_err());
    assert!(serde_json::from_value::<Message>(json!({"role": 1})).is_err());
}
