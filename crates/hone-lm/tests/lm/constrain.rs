//! Whatever the logits, the text follows the constraint.

use std::time::{Duration, Instant};

use hone_lm::constrain::{Constrainer, TokenConstraint};
use hone_lm::{Constraint, Error, Tokenizer};
use serde_json::{Value, json};

use crate::fixture;

fn tokenizer(kind: &str) -> Tokenizer {
    Tokenizer::from_folder(fixture("tokenizers").join(kind)).unwrap()
}

/// A sampler with random logits: any allowed token is as likely as any other.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea and Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The text, the tokens, and the time spent on masks. `None` if it has no end after `limit` tokens.
    fn write(
        &mut self,
        mut constraint: TokenConstraint,
        tokenizer: &Tokenizer,
        vocab_size: usize,
        limit: usize,
    ) -> Option<(String, usize, Duration)> {
        let mut words = vec![0u32; vocab_size.div_ceil(32)];
        let mut ids = Vec::new();
        let mut spent = Duration::ZERO;
        while !constraint.is_finished() {
            if ids.len() == limit {
                return None;
            }
            let started = Instant::now();
            constraint.mask(&mut words).unwrap();
            spent += started.elapsed();
            let allowed: Vec<u32> =
                (0..vocab_size as u32).filter(|t| words[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
            assert!(!allowed.is_empty(), "a dead end after {:?}", tokenizer.decode(&ids, true));
            assert!(allowed.iter().all(|&t| tokenizer.token(t).is_some()), "a spare row was allowed");
            let token = allowed[(self.next() % allowed.len() as u64) as usize];
            constraint.commit(token).unwrap();
            if tokenizer.stop_tokens().contains(&token) {
                break;
            }
            ids.push(token);
        }
        Some((tokenizer.decode(&ids, false).unwrap(), ids.len(), spent))
    }
}

/// What every text of a schema fulfils.
type Holds = fn(&Value) -> bool;

/// Schemas that a random text can finish: strings and lists have a longest length.
fn schemas() -> Vec<(Value, Holds)> {
    vec![
        (
            json!({
                "type": "object",
                "properties": {
                    "verdict": {"enum": ["good", "bad", "naïve 日本"]},
                    "score": {"type": "integer", "minimum": 1, "maximum": 5},
                    "why": {"type": "string", "maxLength": 20}
                },
                "required": ["verdict", "score", "why"],
                "additionalProperties": false
            }),
            |v| {
                ["good", "bad", "naïve 日本"].contains(&v["verdict"].as_str().unwrap())
                    && (1..=5).contains(&v["score"].as_i64().unwrap())
                    && v["why"].as_str().unwrap().chars().count() <= 20
            },
        ),
        (json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}), |v| {
            (2..=4).contains(&v.as_array().unwrap().len())
                && v.as_array().unwrap().iter().all(Value::is_boolean)
        }),
        (
            json!({
                "$defs": {"point": {
                    "type": "object",
                    "properties": {"x": {"type": "integer", "minimum": -99, "maximum": 99}, "y": {"type": "null"}},
                    "required": ["x"],
                    "additionalProperties": false
                }},
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/point"}, "b": {"anyOf": [{"$ref": "#/$defs/point"}, {"const": 7}]}},
                "required": ["a", "b"],
                "additionalProperties": false
            }),
            |v| v["a"]["x"].as_i64().unwrap().abs() <= 99 && (v["b"] == json!(7) || v["b"]["x"].is_i64()),
        ),
        (json!({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}), |v| {
            let text = v.as_str().unwrap();
            text.len() == 7 && text.as_bytes()[4] == b'-'
        }),
    ]
}

#[test]
fn random_logits_write_valid_json() {
    for kind in ["byte_level", "byte_fallback"] {
        let tokenizer = tokenizer(kind);
        // A model with spare rows, as most have.
        let vocab_size = tokenizer.size() + 37;
        let constrainer = Constrainer::new(&tokenizer, vocab_size).unwrap();
        for (schema, holds) in schemas() {
            let constraint = constrainer.compile(&Constraint::JsonSchema(schema.clone())).unwrap();
            for seed in 0..25 {
                let written = Random(seed).write(constraint.clone(), &tokenizer, vocab_size, 2000);
                let (text, ..) = written.unwrap_or_else(|| panic!("{kind}: no end: {schema}"));
                let value: Value =
                    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{kind}: {text:?}: {e}"));
                assert!(holds(&value), "{kind}: {schema}: {text}");
            }
        }
    }
}

#[test]
fn expressions_and_grammars() {
    let tokenizer = tokenizer("byte_level");
    let constrainer = Constrainer::new(&tokenizer, tokenizer.size()).unwrap();
    let regex = constrainer.compile(&Constraint::Regex("(yes|no), [0-9]{1,3}%".into())).unwrap();
    let lark = "start: sum\nsum: NUMBER (\"+\" NUMBER){1,3}\nNUMBER: /[1-9][0-9]?/";
    let grammar = constrainer.compile(&Constraint::Grammar(lark.into())).unwrap();
    for seed in 0..40 {
        let (text, ..) = Random(seed).write(regex.clone(), &tokenizer, tokenizer.size(), 100).unwrap();
        let (word, number) = text.split_once(", ").unwrap();
        assert!(["yes", "no"].contains(&word), "{text}");
        assert!(number.strip_suffix('%').unwrap().parse::<u32>().is_ok(), "{text}");
        let (text, ..) = Random(seed).write(grammar.clone(), &tokenizer, tokenizer.size(), 100).unwrap();
        let parts: Vec<u32> = text.split('+').map(|n| n.parse().unwrap()).collect();
        assert!((2..=4).contains(&parts.len()) && parts.iter().all(|n| (1..100).contains(n)), "{text}");
    }
}

#[test]
fn the_end_is_allowed_where_the_text_may_end() {
    let tokenizer = tokenizer("byte_level");
    let constrainer = Constrainer::new(&tokenizer, tokenizer.size()).unwrap();
    let mut constraint = constrainer.compile(&Constraint::Regex("ab*".into())).unwrap();
    let end = tokenizer.stop_tokens()[0];
    let mut words = vec![0; tokenizer.size().div_ceil(32)];
    let mut allows_end = |constraint: &mut TokenConstraint| {
        constraint.mask(&mut words).unwrap();
        words[end as usize / 32] >> (end % 32) & 1 == 1
    };
    assert!(!allows_end(&mut constraint) && !constraint.may_end().unwrap());
    let mut ahead = constraint.clone();
    ahead.commit(tokenizer.id("a").unwrap()).unwrap();
    assert!(allows_end(&mut ahead) && ahead.may_end().unwrap() && !ahead.is_finished());
    // The clone went ahead alone.
    assert!(!allows_end(&mut constraint));
    assert!(constraint.commit(tokenizer.id("b").unwrap()).is_err());
}

#[test]
fn what_cannot_constrain_is_an_error() {
    let tokenizer = tokenizer("byte_level");
    let constrainer = Constrainer::new(&tokenizer, tokenizer.size()).unwrap();
    for constraint in [
        Constraint::Regex("(".into()),
        Constraint::Grammar("start: missing".into()),
        Constraint::Grammar(String::new()),
        Constraint::JsonSchema(json!(3)),
        Constraint::JsonSchema(json!({"type": "nothing"})),
        Constraint::JsonSchema(json!({"type": "integer", "minimum": 5, "maximum": 4})),
        Constraint::JsonSchema(json!({"$ref": "#/$defs/none"})),
    ] {
        let result = constrainer.compile(&constraint);
        assert!(matches!(result, Err(Error::Constraint(_))), "{constraint:?}");
    }
    assert!(matches!(Constrainer::new(&tokenizer, 100), Err(Error::Vocabulary { .. })));
    let pieces = self::tokenizer("word_piece");
    assert!(matches!(Constrainer::new(&pieces, 1000), Err(Error::Constraint(_))));
}

#[test]
fn a_mask_costs_little() {
    let tokenizer = tokenizer("byte_level");
    let constrainer = Constrainer::new(&tokenizer, tokenizer.size()).unwrap();
    let (mut tokens, mut spent) = (0, Duration::ZERO);
    for (schema, _) in schemas() {
        let constraint = constrainer.compile(&Constraint::JsonSchema(schema)).unwrap();
        for seed in 0..50 {
            let (_, n, time) =
                Random(seed).write(constraint.clone(), &tokenizer, tokenizer.size(), 2000).unwrap();
            tokens += n;
            spent += time;
        }
    }
    let each = spent / tokens as u32;
    println!("mask: {each:?} per token over {tokens} tokens, vocabulary {}", tokenizer.size());
    // Some 10 µs on an idle machine; a token of the smallest model costs about 1 ms.
    assert!(each < Duration::from_millis(1), "{each:?}");
}
