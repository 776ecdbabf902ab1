//! The built-in engine as a language model, on tiny random checkpoints.

use hone_lm::{
    Cancel, Constraint, Continuation, Error, Event, FinishReason, GenerateRequest, LanguageModel, Local,
    LocalOptions, Message, Prompt, RenderOptions, Sampling, ScoreRequest,
};
use hone_nn::folder::{SaveOptions, write};
use hone_nn::{Model, ModelConfig};
use serde_json::json;
use tempfile::TempDir;

use crate::fixture;

/// A folder with a random model of two layers, the byte-level tokenizer and a chat template.
fn folder(vocab_size: usize, positions: usize) -> TempDir {
    let mut config = ModelConfig::llama(vocab_size, 32, 2, 4, 2, 64);
    config.max_positions = positions;
    // Wide weights, so that distributions are far from flat.
    config.initializer_range = 0.3;
    let model = Model::random(config.clone(), 7);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    write(&config, &model.params, &path, &SaveOptions::default()).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("tokenizers/byte_level").join(file), path.join(file)).unwrap();
    }
    std::fs::copy(fixture("templates/chatml.jinja"), path.join("chat_template.jinja")).unwrap();
    folder
}

/// The tokenizer has 420 tokens; the model has spare rows, as most have.
fn local() -> (TempDir, Local) {
    let folder = folder(448, 256);
    let model = Local::from_folder(folder.path().join("model"), &LocalOptions::default()).unwrap();
    (folder, model)
}

fn ask(text: &str, seed: u64) -> GenerateRequest {
    GenerateRequest {
        sampling: Sampling { seed: Some(seed), max_tokens: Some(24), ..Sampling::default() },
        ..GenerateRequest::new(Prompt::chat(vec![Message::new("user", text)]))
    }
}

fn quiet(model: &Local, requests: &[GenerateRequest]) -> Vec<hone_lm::Generation> {
    model.generate(requests, &mut |_| {}).unwrap().into_iter().map(|r| r.unwrap()).collect()
}

#[test]
fn what_was_sampled_scores_the_same() {
    let (_folder, model) = local();
    let mut request = ask("What is 2 + 2?", 3);
    request.n = 4;
    request.logprobs = true;
    request.top_logprobs = 3;
    request.sampling.temperature = Some(0.8);
    let generation = quiet(&model, std::slice::from_ref(&request)).remove(0);
    let prompt = model.prompt_tokens(0, &request.prompt).unwrap();
    assert_eq!(generation.usage.prompt_tokens as usize, prompt.len());
    // The prompt is the template's, ending with the header of an answer.
    let text = model.tokenizer().decode(&prompt, false).unwrap();
    assert!(text.ends_with("<|im_start|>assistant\n"), "{text}");
    assert_eq!(generation.samples.len(), 4);
    let ids = |i: usize| -> Vec<u32> {
        generation.samples[i].tokens.as_ref().unwrap().iter().map(|t| t.id.unwrap()).collect()
    };
    assert!((1..4).all(|i| ids(i) != ids(0)), "samples have streams of their own");
    let written: usize = (0..4).map(|i| ids(i).len()).sum();
    assert_eq!(generation.usage.completion_tokens as usize, written);

    let requests: Vec<ScoreRequest> = (0..4)
        .map(|i| ScoreRequest {
            prompt: Prompt::Tokens(prompt.clone()),
            continuation: Continuation::Tokens(ids(i)),
        })
        .collect();
    for (sample, scored) in generation.samples.iter().zip(model.score(&requests).unwrap()) {
        let scored = scored.unwrap();
        let tokens = sample.tokens.as_ref().unwrap();
        assert_eq!(scored.tokens.len(), tokens.len());
        for (sampled, scored) in tokens.iter().zip(&scored.tokens) {
            // Two decoders, one model: equal to the rounding of f32 sums.
            assert!(
                (sampled.logprob.unwrap() - scored.logprob.unwrap()).abs() < 1e-4,
                "{sampled:?} {scored:?}"
            );
            assert_eq!(sampled.top.len(), 3);
            assert!(sampled.top[0].logprob >= sampled.logprob.unwrap() - 1e-6);
            // At temperature 0.8 the distribution sampled from is another.
            assert!(sampled.sampling_logprob.unwrap() <= 0.0);
        }
        assert!(tokens.iter().any(|t| (t.sampling_logprob.unwrap() - t.logprob.unwrap()).abs() > 1e-3));
    }
}

#[test]
fn many_texts_score_as_each_does_alone() {
    let (_folder, model) = local();
    // 80 texts of 206 to 245 tokens: more than the 16,384 that are scored at once.
    let request = |i: u32| ScoreRequest {
        prompt: Prompt::Tokens((0..200 + i % 40).map(|at| 5 + (at * 7 + i) % 400).collect()),
        continuation: Continuation::Tokens((0..6).map(|at| 9 + (at * 31 + i) % 400).collect()),
    };
    let requests: Vec<ScoreRequest> = (0..80).map(request).collect();
    let logp = |scored: hone_lm::Result<hone_lm::Scored>| scored.unwrap().logp;
    let together: Vec<f64> = model.score(&requests).unwrap().into_iter().map(logp).collect();
    for at in [0, 39, 72, 73, 74, 79] {
        let alone = logp(model.score(&requests[at..=at]).unwrap().remove(0));
        assert!((together[at] - alone).abs() < 1e-4, "{at}: {} {alone}", together[at]);
    }
    assert!(together.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn the_same_seed_gives_the_same_text_in_any_company() {
    let (_folder, model) = local();
    let alone = quiet(&model, &[ask("a", 1)]).remove(0);
    let company: Vec<_> =
        (0..20).map(|i| ask(if i == 9 { "a" } else { "other words" }, if i == 9 { 1 } else { i })).collect();
    let together = quiet(&model, &company);
    assert_eq!(alone.samples, together[9].samples);
    assert_ne!(quiet(&model, &[ask("a", 2)])[0].samples[0].text, alone.samples[0].text);
    let free = || GenerateRequest {
        sampling: Sampling { max_tokens: Some(24), ..Sampling::default() },
        ..ask("a", 0)
    };
    let free = quiet(&model, &[free(), free()]);
    assert_ne!(free[0].samples[0].text, free[1].samples[0].text, "requests without a seed differ");
}

#[test]
fn pieces_make_up_the_text_and_stop_strings_end_it() {
    let (_folder, model) = local();
    let mut plain: Vec<GenerateRequest> = (0..12).map(|i| ask("Tell me", i)).collect();
    let whole = quiet(&model, &plain);
    for request in &mut plain {
        request.stream = true;
    }
    let mut heard = vec![String::new(); 12];
    let mut pieces = 0;
    let mut finished = 0;
    let results = model
        .generate(&plain, &mut |event| match event {
            Event::Piece { request, text, .. } => {
                pieces += 1;
                heard[request].push_str(&text);
            }
            Event::Finished { .. } => finished += 1,
            Event::Retry { .. } => panic!("nothing to retry"),
        })
        .unwrap();
    assert_eq!(finished, 12);
    assert!(pieces > 60, "{pieces}");
    for ((whole, streamed), heard) in whole.iter().zip(results).zip(heard) {
        let streamed = streamed.unwrap();
        assert_eq!(whole.samples, streamed.samples);
        assert_eq!(heard, whole.samples[0].text);
        assert!(streamed.timings.first_piece.unwrap() <= streamed.timings.total);
    }
    // A character from the middle of a text as stop string: the same text, cut before it.
    let text = &whole[0].samples[0].text;
    let stop: String = text.chars().skip(5).take(2).collect();
    let mut request = ask("Tell me", 0);
    request.sampling.stop = vec![stop.clone()];
    let stopped = quiet(&model, &[request]).remove(0);
    assert_eq!(stopped.samples[0].text, text[..text.find(&stop).unwrap()]);
    assert_eq!(stopped.samples[0].finish, FinishReason::Stop);
}

#[test]
fn a_cancelled_request_stops_alone() {
    // A long context, so that there is time to cancel.
    let folder = folder(448, 4096);
    let model = Local::from_folder(folder.path().join("model"), &LocalOptions::default()).unwrap();
    let cancel = Cancel::new();
    let mut long = ask("Go on", 5);
    long.sampling.max_tokens = None;
    // Never ends by itself: anything but the end of the text.
    long.constraint = Some(Constraint::Regex("[a-z ]{9000}".into()));
    long.stream = true;
    long.cancel = cancel.clone();
    let requests = [long, ask("short", 1)];
    let results = model
        .generate(&requests, &mut |event| {
            if let Event::Piece { request: 0, .. } = event {
                cancel.cancel();
            }
        })
        .unwrap();
    let cancelled = results[0].as_ref().unwrap();
    assert_eq!(cancelled.samples[0].finish, FinishReason::Cancelled);
    assert!(!cancelled.samples[0].text.is_empty());
    assert_eq!(results[1].as_ref().unwrap().samples, quiet(&model, &[ask("short", 1)])[0].samples);
    assert!(matches!(model.generate(&requests[..1], &mut |_| {}).unwrap()[0], Err(Error::Cancelled)));
}

#[test]
fn constraints_hold_whatever_the_weights() {
    let (_folder, model) = local();
    let schema = json!({
        "type": "object",
        "properties": {"verdict": {"enum": ["good", "bad"]}, "score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["verdict", "score"],
        "additionalProperties": false
    });
    let mut requests = Vec::new();
    for seed in 0..10 {
        let mut request = ask("Judge this", seed);
        request.constraint = Some(Constraint::JsonSchema(schema.clone()));
        request.sampling.max_tokens = Some(180);
        request.n = 2;
        requests.push(request);
    }
    for generation in quiet(&model, &requests) {
        for sample in &generation.samples {
            let value: serde_json::Value =
                serde_json::from_str(&sample.text).unwrap_or_else(|e| panic!("{}: {e}", sample.text));
            assert!((1..=5).contains(&value["score"].as_i64().unwrap()));
            assert_eq!(sample.finish, FinishReason::Stop);
        }
    }
    let mut bad = ask("x", 0);
    bad.constraint = Some(Constraint::Regex("(".into()));
    let results = model.generate(&[bad, ask("y", 0)], &mut |_| {}).unwrap();
    assert!(matches!(results[0], Err(Error::Constraint(_))));
    assert!(results[1].is_ok());
}

#[test]
fn vectors_of_texts() {
    let (_folder, model) = local();
    let texts: Vec<String> =
        ["the cat sat", "the cat sat on the mat", "日本"].iter().map(|s| s.to_string()).collect();
    let vectors = model.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&vectors) {
        assert_eq!(vector.len(), 32);
        assert!((vector.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-5);
        let alone = model.embed(std::slice::from_ref(text)).unwrap().remove(0);
        assert!(alone.iter().zip(vector).all(|(a, b)| (a - b).abs() < 1e-5), "{text}");
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    assert!(dot(&vectors[0], &vectors[1]) > dot(&vectors[0], &vectors[2]));
}

#[test]
fn what_does_not_fit_is_said() {
    let (folder, model) = local();
    let long = GenerateRequest::new(Prompt::Tokens(vec![10; 256]));
    let results = model.generate(&[long, ask("fits", 0)], &mut |_| {}).unwrap();
    assert!(matches!(results[0], Err(Error::TooLong { index: 0, tokens: 256, context: 256 })));
    assert!(results[1].is_ok());
    let unknown = GenerateRequest::new(Prompt::Tokens(vec![10, 448]));
    let error = model.generate(&[unknown], &mut |_| {}).unwrap().remove(0).unwrap_err().to_string();
    assert!(error.contains("448"), "{error}");
    let score = |continuation| ScoreRequest { prompt: Prompt::Tokens(vec![5]), continuation };
    let requests = [
        score(Continuation::Tokens(vec![6; 256])),
        score(Continuation::Text("ok".into())),
        score(Continuation::Tokens(vec![9999])),
    ];
    let scored = model.score(&requests).unwrap();
    assert!(matches!(scored[0], Err(Error::TooLong { tokens: 257, .. })));
    assert!(scored[1].as_ref().unwrap().logp < 0.0);
    assert!(matches!(scored[2], Err(Error::Tokenize(_))));
    assert!(matches!(
        model.generate(&[GenerateRequest::new(Prompt::Text(String::new()))], &mut |_| {}),
        Err(Error::Empty { index: 0, .. })
    ));
    let mut extra = ask("x", 0);
    extra.extra.insert("reasoning_effort".into(), json!("low"));
    assert!(matches!(model.generate(&[extra], &mut |_| {}), Err(Error::Unsupported { .. })));

    // Without a template, conversations are refused at the start; text still goes.
    let path = folder.path().join("model");
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    let bare = Local::from_folder(&path, &LocalOptions::default()).unwrap();
    assert!(matches!(bare.generate(&[ask("x", 0)], &mut |_| {}), Err(Error::Unsupported { .. })));
    let text = GenerateRequest {
        sampling: Sampling { max_tokens: Some(3), ..Sampling::default() },
        ..GenerateRequest::new(Prompt::Text("once".into()))
    };
    assert_eq!(quiet(&bare, &[text])[0].samples[0].finish, FinishReason::Length);

    // A model with fewer rows than the tokenizer has tokens.
    let small = self::folder(400, 256);
    assert!(matches!(
        Local::from_folder(small.path().join("model"), &LocalOptions::default()),
        Err(Error::Vocabulary { id: 419, vocab_size: 400, .. })
    ));
}

#[test]
fn a_last_message_can_be_continued() {
    let (_folder, model) = local();
    let chat = vec![Message::new("user", "hi"), Message::new("assistant", "Well, I")];
    let options = Box::new(RenderOptions { continue_final_message: true, ..RenderOptions::default() });
    let prompt = model.prompt_tokens(0, &Prompt::Messages { messages: chat, options }).unwrap();
    assert!(model.tokenizer().decode(&prompt, false).unwrap().ends_with("<|im_start|>assistant\nWell, I"));
}
