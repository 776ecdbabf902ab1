//! Equality with `transformers` on the checkpoints under `tests/fixtures`, and with the code that trains.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::batch::Batch;
use crate::folder;
use crate::network::{Network, Want};
use crate::reference::Decoder;

const FAMILIES: [&str; 11] = [
    "llama",
    "llama_bias",
    "llama3_rope",
    "linear_rope",
    "yarn_rope",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "bf16",
    "sharded_f16",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Every fixture that predicts tokens, with the adapters of `peft`.
fn fixtures() -> Vec<(&'static str, Model, HashMap<String, Tensor>)> {
    let expected = |name: &str| {
        candle_core::safetensors::load(fixture(name).join("expected.safetensors"), &Device::Cpu).unwrap()
    };
    let mut all: Vec<_> = FAMILIES
        .into_iter()
        .map(|name| (name, folder::read(&fixture(name)).unwrap(), expected(name)))
        .collect();
    for (name, base) in [("lora", "llama"), ("lora_rs", "qwen3"), ("lora_regex", "llama")] {
        let mut model = folder::read(&fixture(base)).unwrap();
        model.attach(folder::read_adapter(&fixture(name), model.config()).unwrap());
        all.push((name, model, expected(name)));
    }
    all
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_dtype(DType::F32).unwrap().to_vec1().unwrap()
}

fn prompts(expected: &HashMap<String, Tensor>) -> Vec<Vec<u32>> {
    let tokens: Vec<u32> = numbers(&expected["tokens"]).iter().map(|&token| token as u32).collect();
    let mut rest = &tokens[..];
    let mut prompts = vec![];
    for length in numbers(&expected["lengths"]) {
        let (prompt, others) = rest.split_at(length as usize);
        prompts.push(prompt.to_vec());
        rest = others;
    }
    prompts
}

#[test]
fn logits_are_those_of_transformers() {
    for (name, model, expected) in fixtures() {
        let vocab = model.config().vocab_size;
        let engine = Engine::new(&model, options(2)).unwrap();
        // Every prefix of every sequence, so that every row of logits is compared, all in one batch.
        let requests: Vec<Request> = prompts(&expected)
            .iter()
            .flat_map(|prompt| (1..=prompt.len()).map(|end| prompt[..end].to_vec()))
            .map(|prompt| Request { top_logps: vocab, ..Request::new(prompt, 1) })
            .collect();
        let completions = engine.generate(&requests).unwrap();
        let logits = numbers(&expected["logits"]);
        assert_eq!(logits.len(), completions.len() * vocab);
        for (row, completion) in logits.chunks(vocab).zip(&completions) {
            let top = row.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(f64::from(x)));
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - top).exp()).sum();
            for &(token, logp) in &completion.top[0] {
                let want = f64::from(row[token as usize]) - top - sum.ln();
                assert!((f64::from(logp) - want).abs() < 1e-4, "{name}: token {token}: {logp} not {want}");
            }
        }
    }
}

#[test]
fn greedy_text_is_that_of_transformers() {
    let mut compared = 0;
    for (name, model, expected) in fixtures() {
        let Some(greedy) = expected.get("greedy") else { continue };
        let engine = Engine::new(&model, options(2)).unwrap();
        let length = greedy.dims()[1];
        let greedy: Vec<u32> = numbers(greedy).iter().map(|&token| token as u32).collect();
        let requests: Vec<Request> = prompts(&expected)
            .into_iter()
            .map(|prompt| Request {
                sampling: Sampling::greedy(),
                ignore_eos: true,
                ..Request::new(prompt, length)
            })
            .collect();
        for (want, got) in greedy.chunks(length).zip(engine.generate(&requests).unwrap()) {
            assert_eq!(got.tokens, want, "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 3 * FAMILIES.len(), "{compared}");
}

#[test]
fn sampled_tokens_score_the_same_in_training() {
    let mut models = variants();
    models.extend(fixtures().into_iter().map(|(name, model, _)| (name, model)));
    for (name, model) in models {
        let reference = Decoder::from_model(&model, &Device::Cpu).unwrap();
        let engine = Engine::new(&model, Options { step_tokens: 5, ..options(2) }).unwrap();
        let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
        let requests: Vec<Request> = [1, 7, 12]
            .into_iter()
            .map(|length| Request {
                n: 2,
                seed: length,
                sampling: sampling.clone(),
                ignore_eos: true,
                ..Request::new((0..length as u32).map(|t| t * 5 % 11).collect(), 50)
            })
            .collect();
        let completions = engine.generate(&requests).unwrap();
        let mut batch = Batch::new();
        for completion in &completions {
            let prompt = &requests[completion.request].prompt;
            batch.push(&[&prompt[..], &completion.tokens].concat(), prompt.len()..usize::MAX);
        }
        for temperature in [1.0, 0.8] {
            let want = Want { temperature, ..Want::default() };
            let trained = numbers(&reference.evaluate(&batch, &want).unwrap().logps);
            let logps =
                completions.iter().flat_map(|c| if temperature == 1.0 { &c.raw_logps } else { &c.logps });
            let sampled: Vec<f32> = logps.copied().collect();
            assert_eq!(sampled.len(), trained.len(), "{name}");
            for (sampled, trained) in sampled.iter().zip(&trained) {
                assert!((sampled - trained).abs() < 1e-4, "{name}, {temperature}: {sampled} not {trained}");
            }
        }
    }
}

#[test]
fn every_instruction_set_computes_the_same() {
    let tokens: Vec<u32> = (0..70).map(|t| t * t % 61).collect();
    for (name, model) in variants() {
        let mut decoder = decode::Decoder::new(&model, true).unwrap();
        // The last logits after a prompt in two pieces, beside a shorter sequence.
        let mut run = |arch| {
            decoder.arch = arch;
            let mut scratch = decode::Scratch::default();
            let mut caches = [cache::Cache::new(model.config()), cache::Cache::new(model.config())];
            let mut last = vec![];
            for (start, end) in [(0, 41), (41, 70)] {
                let [first, second] = &mut caches;
                let mut feeds = [
                    decode::Feed { cache: first, tokens: &tokens[start..end], logits: end == 70 },
                    decode::Feed { cache: second, tokens: &tokens[start..start + 3], logits: end == 70 },
                ];
                let crew = crew::Crew { parts: 1 };
                decoder.step(&mut scratch, crew, &mut feeds, |_, logits| last.extend_from_slice(logits));
            }
            last
        };
        let mut sets = simd::instruction_sets().into_iter();
        let expected = run(sets.next().unwrap());
        assert_eq!(expected.len(), 2 * 61);
        for arch in sets {
            for (a, b) in expected.iter().zip(run(arch)) {
                assert!((a - b).abs() < 1e-4, "{name}, {arch:?}: {a} {b}");
            }
        }
    }
}
