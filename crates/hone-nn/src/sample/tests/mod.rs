mod choice;
mod exact;

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::*;
use crate::config::{Head, ModelConfig};
use crate::model::Model;
use crate::params::fill_normal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn options(threads: usize) -> Options {
    Options { threads, ..Options::default() }
}

/// A model whose every weight matters.
fn model(config: ModelConfig) -> Model {
    let mut model = Model::random(config, 1);
    let mut noise = vec![0.0; model.params.data.len()];
    fill_normal(&mut noise, 0.3, &mut ChaCha8Rng::seed_from_u64(2));
    model.params.data.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
    model
}

fn small() -> Model {
    model(ModelConfig { max_positions: 200, ..ModelConfig::llama(61, 24, 2, 4, 2, 40) })
}

/// Small models that between them turn every switch, with widths that fill no vector and contexts over several
/// blocks.
fn variants() -> Vec<(&'static str, Model)> {
    let base = ModelConfig { max_positions: 100, ..ModelConfig::llama(61, 24, 2, 4, 2, 40) };
    [
        ("plain", base.clone()),
        ("untied, one key head", ModelConfig { tied: false, kv_heads: 1, ..base.clone() }),
        (
            "as many key heads, biases",
            ModelConfig { qkv_bias: true, out_bias: true, mlp_bias: true, kv_heads: 4, ..base.clone() },
        ),
        ("wide heads with norms", ModelConfig { head_dim: 40, qk_norm: true, ..base.clone() }),
        (
            "windows, a layer without rotation",
            ModelConfig { windows: vec![Some(9), None], rope_layers: vec![true, false], ..base.clone() },
        ),
        ("windows over blocks", ModelConfig { windows: vec![Some(33), Some(40)], ..base.clone() }),
        ("nine queries to a key", ModelConfig { heads: 18, kv_heads: 2, head_dim: 4, ..base }),
    ]
    .into_iter()
    .map(|(name, config)| (name, model(config)))
    .collect()
}

/// Requests of many kinds: lengths, seeds, several samples, filters, greedy.
fn mixture() -> Vec<Request> {
    let sampling = |index: usize| match index % 4 {
        0 => Sampling::default(),
        1 => Sampling::greedy(),
        2 => Sampling { temperature: 0.7, top_k: 20, top_p: 0.9, ..Sampling::default() },
        _ => Sampling { repetition_penalty: 1.3, presence_penalty: 0.4, min_p: 0.02, ..Sampling::default() },
    };
    (0..13)
        .map(|index| Request {
            n: 1 + index % 3,
            seed: index as u64 / 2,
            sampling: sampling(index),
            ..Request::new((0..1 + index * 7 % 60).map(|t| (t * t + index) as u32 % 61).collect(), 20 + index)
        })
        .collect()
}

#[test]
fn a_text_depends_on_its_request_alone() {
    let requests = mixture();
    let bits = |completions: &[Completion]| -> Vec<_> {
        let bits = |logps: &[f32]| logps.iter().map(|logp| logp.to_bits()).collect::<Vec<_>>();
        completions.iter().map(|c| (c.tokens.clone(), bits(&c.logps), bits(&c.raw_logps))).collect()
    };
    for (name, model) in variants().into_iter().chain([("small", small())]) {
        let together = Engine::new(&model, options(1)).unwrap().generate(&requests).unwrap();
        assert_eq!(together.len(), requests.iter().map(|request| request.n).sum::<usize>());
        // Other numbers of threads, other pieces of the prompts, a batch too small for all.
        for (threads, step_tokens, max_running) in [(2, 256, 256), (3, 7, 256), (2, 40, 4)] {
            let engine =
                Engine::new(&model, Options { threads, step_tokens, max_running, ..Options::default() })
                    .unwrap();
            let again = engine.generate(&requests).unwrap();
            assert_eq!(bits(&together), bits(&again), "{name}: {threads} threads, {step_tokens} at once");
        }
        // Each one alone, with two threads on its products.
        let engine = Engine::new(&model, options(2)).unwrap();
        let mut alone = vec![];
        for request in &requests {
            alone.extend(engine.generate(std::slice::from_ref(request)).unwrap());
        }
        assert_eq!(bits(&together), bits(&alone), "{name}: alone");
    }
}

#[test]
fn samples_of_a_prompt_differ_and_seeds_repeat() {
    let engine = Engine::new(&small(), options(2)).unwrap();
    let request = Request { n: 4, seed: 9, ..Request::new(vec![3, 4, 5], 30) };
    let completions = engine.generate(&[request.clone(), Request { seed: 10, ..request.clone() }]).unwrap();
    for (index, completion) in completions.iter().enumerate() {
        assert_eq!((completion.request, completion.sample), (index / 4, index % 4));
        let same = completions.iter().filter(|other| other.tokens == completion.tokens).count();
        assert_eq!(same, 1);
    }
    let first = engine.generate(&[Request { n: 1, ..request }]).unwrap();
    assert_eq!(first[0].tokens, completions[0].tokens);
}

#[test]
fn texts_end_for_the_stated_reasons() {
    let model = small();
    // Tokens are the characters from 'A' on.
    let detokenize = Detokenize::new(|tokens| {
        tokens.iter().map(|&token| char::from_u32(65 + token).unwrap_or('?')).collect()
    });
    let engine = |eos: Vec<u32>| {
        let options =
            Options { eos_tokens: Some(eos), detokenize: Some(detokenize.clone()), ..Options::default() };
        Engine::new(&model, options).unwrap()
    };
    let one = |eos: Vec<u32>, request: &Request| {
        engine(eos).generate(std::slice::from_ref(request)).unwrap().remove(0)
    };
    let request = Request { sampling: Sampling::greedy(), ..Request::new(vec![7, 8], 25) };
    let free = one(vec![], &request);
    assert_eq!((free.tokens.len(), &free.finish), (25, &Finish::Length));
    let text = free.text.clone().unwrap();
    assert_eq!(text.chars().count(), 25);

    let eos = free.tokens[6];
    let first = free.tokens.iter().position(|&token| token == eos).unwrap();
    let ended = one(vec![eos], &request);
    assert_eq!(ended.finish, Finish::StopToken(eos));
    assert_eq!(ended.tokens, free.tokens[..=first]);
    assert_eq!(ended.text.unwrap(), text.chars().take(first).collect::<String>());
    let stopped = Request { stop_tokens: vec![eos], ..request.clone() };
    assert_eq!(one(vec![], &stopped).tokens, free.tokens[..=first]);
    let ignored = Request { ignore_eos: true, ..request.clone() };
    assert_eq!(one(vec![eos], &ignored).tokens, free.tokens);
    let longer = Request { min_tokens: 20, ..request.clone() };
    let longer = one(vec![eos], &longer);
    assert!(longer.tokens.len() >= 20 && !longer.tokens[..20].contains(&eos));

    let stop: String = text.chars().skip(10).take(2).collect();
    let cut = Request { stop_strings: vec!["??".into(), stop.clone()], ..request.clone() };
    let mut streamed = String::new();
    let cut = engine(vec![])
        .generate_streaming(&[cut], &mut |event| {
            if let Event::Token { text, .. } = event {
                streamed += text;
            }
            ControlFlow::Continue(())
        })
        .unwrap()
        .remove(0);
    let place = text.find(&stop).unwrap();
    assert_eq!(cut.finish, Finish::StopString(stop));
    assert_eq!(cut.text.as_deref(), Some(&text[..place]));
    assert_eq!(streamed, text[..place]);
    assert_eq!(cut.tokens, free.tokens[..text[..place].chars().count() + 2]);

    // The context of 200 is full after 3 tokens.
    let long = one(vec![], &Request::new(vec![1; 197], 25));
    assert_eq!((long.tokens.len(), long.finish), (3, Finish::Length));
}

/// Allows one sequence of tokens only.
#[derive(Clone)]
struct Script {
    tokens: Vec<u32>,
    place: usize,
}

impl Constraint for Script {
    fn allowed(&mut self, allowed: &mut TokenMask) -> Result<(), String> {
        let token = *self.tokens.get(self.place).ok_or("asked past the end")?;
        if token < 61 {
            allowed.allow(token);
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        assert_eq!(token, self.tokens[self.place]);
        self.place += 1;
        Ok(())
    }

    fn finished(&self) -> bool {
        self.place == self.tokens.len()
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn constraints_decide_what_is_said() {
    let engine = Engine::new(&small(), options(2)).unwrap();
    let script = |tokens: &[u32]| Request {
        n: 2,
        constraint: Some(Box::new(Script { tokens: tokens.to_vec(), place: 0 })),
        ..Request::new(vec![1, 2], 10)
    };
    for completion in engine.generate(&[script(&[9, 60, 9, 33])]).unwrap() {
        assert_eq!((completion.tokens, completion.finish), (vec![9, 60, 9, 33], Finish::Constraint));
        assert!(completion.logps.iter().all(|&logp| logp == 0.0), "one choice has probability 1");
        assert!(completion.raw_logps.iter().all(|&logp| logp < 0.0));
    }
    assert_eq!(engine.generate(&[script(&[])]).unwrap()[1].finish, Finish::Constraint);
    let error = engine.generate(&[Request::new(vec![1], 3), script(&[5, 99])]).unwrap_err();
    assert!(matches!(error, SampleError::Constraint { request: 1, .. }), "{error}");
    // The engine goes on.
    assert_eq!(engine.generate(&[Request::new(vec![1], 3)]).unwrap()[0].tokens.len(), 3);
}

#[test]
fn bad_requests_name_themselves_and_their_field() {
    let engine = Engine::new(&small(), options(1)).unwrap();
    let good = || Request::new(vec![1, 2], 4);
    let sampled = |sampling: Sampling| Request { sampling, ..good() };
    let default = Sampling::default;
    let cases: Vec<(Request, &str)> = vec![
        (Request { prompt: vec![], ..good() }, "request 1: `prompt`: needs at least 1 token, got none"),
        (
            Request { prompt: vec![1; 200], ..good() },
            "request 1: `prompt`: needs at most 199 tokens, so that the context of 200 has room for one more, got 200",
        ),
        (
            Request { prompt: vec![1, 61], ..good() },
            "request 1: `prompt`: needs token ids below 61, got 61 at 1",
        ),
        (Request { max_tokens: 0, ..good() }, "request 1: `max_tokens`: needs at least 1, got 0"),
        (Request { n: 0, ..good() }, "request 1: `n`: needs at least 1, got 0"),
        (
            Request { min_tokens: 5, ..good() },
            "request 1: `min_tokens`: needs at most `max_tokens`, which is 4, got 5",
        ),
        (
            Request { stop_tokens: vec![70], ..good() },
            "request 1: `stop_tokens`: needs token ids below 61, got 70",
        ),
        (
            Request { stop_strings: vec!["x".into()], ..good() },
            "request 1: `stop_strings`: needs an engine that can turn tokens into text, got one without",
        ),
        (Request { top_logps: 62, ..good() }, "request 1: `top_logps`: needs at most 61, got 62"),
        (
            sampled(Sampling { temperature: -1.0, ..default() }),
            "request 1: `temperature`: needs a number of at least 0, got -1",
        ),
        (
            sampled(Sampling { temperature: f32::NAN, ..default() }),
            "request 1: `temperature`: needs a number of at least 0, got NaN",
        ),
        (
            sampled(Sampling { top_p: 0.0, ..default() }),
            "request 1: `top_p`: needs a number above 0 and at most 1, got 0",
        ),
        (
            sampled(Sampling { min_p: 1.5, ..default() }),
            "request 1: `min_p`: needs a number from 0 to 1, got 1.5",
        ),
        (
            sampled(Sampling { repetition_penalty: 0.0, ..default() }),
            "request 1: `repetition_penalty`: needs a number above 0, got 0",
        ),
        (
            sampled(Sampling { frequency_penalty: 3.0, ..default() }),
            "request 1: `frequency_penalty`: needs a number from -2 to 2, got 3",
        ),
        (
            sampled(Sampling { logit_bias: vec![(61, 1.0)], ..default() }),
            "request 1: `logit_bias`: needs token ids below 61, got 61",
        ),
        (
            sampled(Sampling { logit_bias: vec![(6, f32::INFINITY)], ..default() }),
            "request 1: `logit_bias`: needs a number, or -∞ to forbid a token, got inf for token 6",
        ),
    ];
    for (request, message) in cases {
        assert_eq!(engine.generate(&[good(), request]).unwrap_err().to_string(), message);
    }
    let reward = Model::random(
        ModelConfig { head: Head::Sequence { labels: 1 }, ..ModelConfig::llama(9, 8, 1, 2, 1, 8) },
        0,
    );
    assert!(matches!(Engine::new(&reward, options(1)), Err(SampleError::NoLanguageHead(_))));
    assert!(matches!(Engine::new(&small(), options(0)), Err(SampleError::Option { field: "threads", .. })));
}

#[test]
fn broken_weights_name_the_request() {
    let mut model = small();
    // Only token 50 is broken: the request that never reads it succeeds.
    let width = model.config().hidden_size;
    model.params.data[50 * width + 3] = f32::NAN;
    let sampling = Sampling { logit_bias: vec![(50, f32::NEG_INFINITY)], ..Sampling::default() };
    let engine = Engine::new(&model, options(2)).unwrap();
    let error = engine.generate(&[Request { sampling, ..Request::new(vec![1, 50, 2], 4) }]).unwrap_err();
    let SampleError::NotFinite { request: 0, sample: 0, tokens: 3, .. } = error else { panic!("{error}") };
}

#[test]
fn memory_is_bounded() {
    let model = small();
    // A block of 32 positions: 2 key heads of 6 + 32 rows of 128 bytes; 2 layers. 40 tokens need two blocks each.
    let block = 2 * (6 + 32) * 128;
    let engine = |cache_bytes: usize| Engine::new(&model, Options { cache_bytes, ..options(2) }).unwrap();
    let request = |n: usize| Request { n, ..Request::new(vec![5; 10], 30) };
    let error = engine(3 * block).generate(&[request(1)]).unwrap_err();
    assert_eq!(error, SampleError::Memory { request: 0, needed: 4 * block, limit: 3 * block });
    let free = engine(2 << 30).generate(&vec![request(2); 5]).unwrap();
    // Room for one request at a time: they take turns and say the same.
    let narrow = engine(9 * block);
    assert_eq!(narrow.generate(&vec![request(2); 5]).unwrap(), free);
    let start = Instant::now();
    while narrow.cache_bytes_used() > 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{} bytes are still set aside",
            narrow.cache_bytes_used()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    // 64 tokens of prompt in whole blocks are shared by the samples: 2 layers × 2 blocks, and one more each.
    let shared = Request { n: 3, ..Request::new(vec![5; 64], 30) };
    let error = engine(1).generate(&[shared]).unwrap_err();
    assert_eq!(error, SampleError::Memory { request: 0, needed: (4 + 3 * 2) * block, limit: 1 });
}

#[test]
fn requests_come_and_go_while_others_run() {
    let engine = Engine::new(&small(), Options { max_running: 2, ..options(1) }).unwrap();
    let expected = engine.generate(&[Request::new(vec![4, 5], 150)]).unwrap().remove(0);
    // The only thread waits inside the news of the first token, so that what follows happens within one step.
    let ((started, has_started), (go, may_go)) = (channel(), channel::<()>());
    let (news, all_news) = channel();
    let gate = Mutex::new((started, may_go));
    let endless = engine
        .submit_to(Request { seed: 3, ..Request::new(vec![6], 199) }, move |event| {
            if matches!(event, Event::Token { .. }) {
                let gate = gate.lock().unwrap();
                gate.0.send(()).unwrap();
                let _ = gate.1.recv();
            }
            news.send(event).unwrap();
        })
        .unwrap();
    has_started.recv().unwrap();
    let mut joins = engine.submit(Request::new(vec![4, 5], 150)).unwrap();
    let waits = engine.submit(Request { n: 2, ..Request::new(vec![7], 199) }).unwrap();
    // What waits is gone at once, what runs at the end of the step.
    waits.cancel();
    for completion in waits.wait().unwrap() {
        assert_eq!((completion.finish, completion.tokens.len()), (Finish::Cancelled, 0));
    }
    endless.cancel();
    drop(go);
    let events: Vec<Event> = all_news.iter().collect();
    let [Event::Token { .. }, Event::Done(completion)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&completion.finish, completion.tokens.len()), (&Finish::Cancelled, 1));
    let Some(Event::Token { sampled, .. }) = joins.next_event() else { panic!("a token comes first") };
    assert_eq!(sampled.token, expected.tokens[0]);
    let id = joins.id();
    assert_eq!(joins.wait().unwrap(), [Completion { request: id, ..expected }]);
}

#[test]
fn what_is_left_is_called_off() {
    // A slow tokenizer: 190 tokens take a second.
    let detokenize = Detokenize::new(|_| {
        std::thread::sleep(Duration::from_millis(5));
        String::new()
    });
    let engine = Engine::new(&small(), Options { detokenize: Some(detokenize), ..options(2) }).unwrap();
    let mut tokens = 0;
    let completions = engine
        .generate_streaming(&vec![Request::new(vec![1], 190); 3], &mut |event| {
            tokens += usize::from(matches!(event, Event::Token { .. }));
            if tokens > 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(completions.len(), 3);
    assert!(completions.iter().all(|c| c.finish == Finish::Cancelled && c.tokens.len() < 190));
    let orphan = engine.submit(Request::new(vec![6], 190)).unwrap();
    drop(engine);
    assert!(matches!(orphan.wait(), Err(SampleError::Stopped { .. })));
}
