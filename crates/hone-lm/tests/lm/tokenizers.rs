//! Tokenisation against what transformers made of the same texts (`tests/reference/make_tokenizers.py`).

use hone_lm::{Error, Tokenizer};
use serde_json::Value;

use crate::{fixture, read_json};

const KINDS: [&str; 4] = ["byte_level", "byte_fallback", "word_piece", "unigram"];

fn load(kind: &str) -> Tokenizer {
    Tokenizer::from_folder(fixture("tokenizers").join(kind)).unwrap_or_else(|e| panic!("{kind}: {e}"))
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("ids")
}

#[test]
fn same_ids_and_texts_as_transformers() {
    let expected = read_json("tokenizers/expected.json");
    let mut compared = 0;
    for kind in KINDS {
        let tokenizer = load(kind);
        let expected = &expected[kind];
        assert_eq!(tokenizer.size() as u64, expected["size"].as_u64().unwrap(), "{kind}");
        for case in expected["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let with = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text, true).unwrap(), with, "{kind}: {text:?}");
            let bare = tokenizer.encode(text, false).unwrap();
            assert_eq!(bare, ids(&case["bare"]), "{kind}: {text:?}");
            assert_eq!(
                tokenizer.decode(&with, false).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{kind}: {text:?}"
            );
            assert_eq!(
                tokenizer.decode(&with, true).unwrap(),
                case["skipped"].as_str().unwrap(),
                "{kind}: {text:?}"
            );
            same_offsets(&tokenizer, text, &case["offsets"], kind);
            compared += 1;
        }
        for case in expected["noise"].as_array().unwrap() {
            let ids = ids(&case["ids"]);
            assert_eq!(
                tokenizer.decode(&ids, false).unwrap(),
                case["decoded"].as_str().unwrap(),
                "{kind}: {ids:?}"
            );
        }
    }
    assert_eq!(compared, 60);
}

/// Offsets count characters there and bytes here; a token may also be a part of a character here.
fn same_offsets(tokenizer: &Tokenizer, text: &str, offsets: &Value, kind: &str) {
    let spans = tokenizer.encode_spans(text, false).unwrap();
    let chars = |byte: usize| text.char_indices().take_while(|(i, _)| *i < byte).count();
    for (span, offset) in spans.iter().zip(offsets.as_array().unwrap()) {
        let (start, end) = (offset[0].as_u64().unwrap() as usize, offset[1].as_u64().unwrap() as usize);
        if text.is_char_boundary(span.start) && text.is_char_boundary(span.end) {
            assert_eq!((chars(span.start), chars(span.end)), (start, end), "{kind}: {text:?}");
        }
    }
}

#[test]
fn streams_in_whole_characters() {
    let expected = read_json("tokenizers/expected.json");
    for kind in KINDS {
        let tokenizer = load(kind);
        let cases = expected[kind]["cases"]
            .as_array()
            .unwrap()
            .iter()
            .chain(expected[kind]["noise"].as_array().unwrap());
        for case in cases {
            let ids = ids(&case["ids"]);
            let mut stream = tokenizer.stream(false);
            let mut joined = String::new();
            for &id in &ids {
                let piece = stream.push(id).unwrap();
                // A half character would show as U+FFFD at the end of a piece.
                assert!(!piece.ends_with('\u{fffd}'), "{kind}: {piece:?}");
                joined.push_str(&piece);
            }
            joined.push_str(&stream.finish().unwrap());
            let whole = tokenizer.decode(&ids, false).unwrap();
            if kind == "byte_fallback" && case.get("text").is_none() {
                // Random byte tokens: a later invalid byte takes back valid ones, which a stream has handed out.
                let words = |s: &str| s.split('\u{fffd}').next_back().unwrap().to_owned();
                assert!(joined.ends_with(&words(&whole)), "{joined:?} {whole:?}");
                continue;
            }
            assert_eq!(joined, whole, "{kind}: {ids:?}");
        }
    }
}

#[test]
fn a_character_of_many_tokens_comes_out_once_whole() {
    let tokenizer = load("byte_level");
    // Four bytes, no merges for them in this vocabulary.
    let ids = tokenizer.encode("🦀", false).unwrap();
    assert!(ids.len() > 1);
    let mut stream = tokenizer.stream(true);
    let pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert!(pieces[..ids.len() - 1].iter().all(String::is_empty), "{pieces:?}");
    assert_eq!(pieces[ids.len() - 1], "🦀");
    // Cut off in the middle, the rest is said, not lost.
    let mut cut = tokenizer.stream(true);
    assert_eq!(cut.push(ids[0]).unwrap(), "");
    assert!(cut.finish().unwrap().contains('\u{fffd}'));
}

#[test]
fn special_and_stop_tokens() {
    let tokenizer = load("byte_level");
    let end = tokenizer.id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.special("eos_token"), Some(("<|im_end|>", end)));
    assert_eq!(tokenizer.stop_tokens(), [end]);
    assert!(tokenizer.is_special(end));
    assert_eq!(tokenizer.special("mask_token"), None);

    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("tokenizers/byte_level").join(file), folder.path().join(file)).unwrap();
    }
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("generation_config.json", r#"{"eos_token_id": [3, 1]}"#);
    // Those of the generation config first, each once: 1 is the tokenizer's own.
    assert_eq!(end, 1);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().stop_tokens(), [3, 1]);

    write("generation_config.json", r#"{"eos_token_id": 100000}"#);
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("generation_config.json: eos_token_id: needs the id of a token"), "{error}");
    write("generation_config.json", "{");
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("generation_config.json: line 1"), "{error}");
    write("generation_config.json", "{}");
    write("tokenizer_config.json", r#"{"eos_token": "<nowhere>"}"#);
    assert!(matches!(
        Tokenizer::from_folder(folder.path()),
        Err(Error::UnknownSpecialToken { token, .. }) if token == "<nowhere>"
    ));
    // The map fills what the config leaves out.
    write("tokenizer_config.json", "{}");
    write("special_tokens_map.json", r#"{"eos_token": {"content": "</s>", "lstrip": false}}"#);
    assert_eq!(Tokenizer::from_folder(folder.path()).unwrap().special("eos_token").unwrap().0, "</s>");
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let tokenizer = load("byte_level");
    tokenizer.check_fits(tokenizer.size()).unwrap();
    tokenizer.check_fits(tokenizer.size() + 60).unwrap();
    match tokenizer.check_fits(tokenizer.size() - 1) {
        Err(Error::Vocabulary { id, vocab_size, .. }) => assert_eq!((id as usize, vocab_size), (419, 419)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(tokenizer.decode(&[5, 100_000], false), Err(Error::Tokenize(_))));
}

#[test]
fn bad_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Tokenizer::from_folder(folder.path()), Err(Error::Read { .. })));
    std::fs::write(folder.path().join("tokenizer.json"), "{\"model\": 3}").unwrap();
    assert!(matches!(Tokenizer::from_folder(folder.path()), Err(Error::Tokenizer { .. })));
}

#[test]
fn bytes_of_tokens() {
    for kind in ["byte_level", "byte_fallback", "unigram"] {
        let tokenizer = load(kind);
        let table = tokenizer.token_bytes().unwrap().bytes;
        for text in ["def f(x): return 3", "the cat sat"] {
            let bytes: Vec<u8> = tokenizer
                .encode(text, false)
                .unwrap()
                .iter()
                .flat_map(|&id| table[id as usize].clone())
                .collect();
            assert_eq!(String::from_utf8(bytes).unwrap().trim_start(), text, "{kind}");
        }
        assert!(table[tokenizer.id("</s>").unwrap() as usize].is_empty());
    }
    assert!(matches!(load("word_piece").token_bytes(), Err(Error::Constraint(_))));
}
