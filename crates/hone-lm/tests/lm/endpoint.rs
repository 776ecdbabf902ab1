//! The endpoint against a live server that fails as servers do.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hone_lm::endpoint::{Dialect, Price, PriceTable, Retry, TimeLimits};
use hone_lm::model::Constraint;
use hone_lm::{
    Capabilities, Continuation, Endpoint, EndpointConfig, Error, Event, FinishReason, GenerateRequest,
    Generation, LanguageModel, Message, Prompt, ScoreRequest,
};
use serde_json::json;

use crate::fixture;
use crate::server::Server;

/// What the full server can do.
fn able() -> Capabilities {
    Capabilities {
        text: true,
        logprobs: true,
        top_logprobs: 20,
        seeds: true,
        scoring: true,
        embeddings: true,
        json_schema: true,
        extra: true,
        ..Capabilities::default()
    }
}

fn config(server: &Server) -> EndpointConfig {
    EndpointConfig {
        capabilities: Some(able()),
        retry: Retry { attempts: 4, first_wait_s: 0.02, longest_wait_s: 0.1, longest_retry_after_s: 5.0 },
        limits: TimeLimits { connect_s: 2.0, idle_s: 0.5, total_s: 5.0 },
        ..EndpointConfig::new(server.url("full"), "m")
    }
}

fn ask(text: impl Into<String>) -> GenerateRequest {
    GenerateRequest::new(Prompt::chat(vec![Message::new("user", text)]))
}

fn text(result: &Result<Generation, Error>) -> &str {
    match result {
        Ok(generation) => &generation.samples[0].text,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn faults_lose_and_double_nothing() {
    let server = Server::start();
    let endpoint = Endpoint::connect(EndpointConfig { concurrency: 16, ..config(&server) }).unwrap();
    let faults = ["none", "429", "500", "hang", "json", "error200", "cut"];
    for stream in [false, true] {
        let mut requests = Vec::new();
        for i in 0..70 {
            // Up to three failures, then an answer: within the four tries.
            let mut request = ask(format!("{stream}{i}|{}|{}", faults[i % 7], i % 4));
            request.stream = stream;
            request.logprobs = true;
            requests.push(request);
        }
        let mut heard: Vec<String> = vec![String::new(); 70];
        let mut retries = vec![0; 70];
        let mut finished = vec![0; 70];
        let results = endpoint
            .generate(&requests, &mut |event| match event {
                Event::Piece { request, sample: 0, text } => heard[request].push_str(&text),
                Event::Retry { request, attempt, .. } => {
                    retries[request] += 1;
                    assert_eq!(attempt, retries[request]);
                    heard[request].clear();
                }
                Event::Finished { request, reason, .. } => {
                    assert_eq!(reason, FinishReason::Stop);
                    finished[request] += 1;
                }
                other => panic!("{other:?}"),
            })
            .unwrap();
        assert_eq!(results.len(), 70);
        for (i, result) in results.iter().enumerate() {
            let failures = if i % 7 == 0 { 0 } else { i % 4 };
            let want = format!("answer to {stream}{i}");
            assert_eq!(text(result), want, "results in order");
            assert_eq!(heard[i], want, "pieces make up the text");
            assert_eq!((retries[i] as usize, finished[i]), (failures, 1));
            assert_eq!(server.state.calls_for(&format!("{stream}{i}")), failures + 1, "no call too many");
            let generation = result.as_ref().unwrap();
            assert_eq!(generation.attempts as usize, failures + 1);
            // Three words, each at -0.25.
            let tokens = generation.samples[0].tokens.as_ref().unwrap();
            assert_eq!(tokens.iter().map(|t| t.logprob.unwrap()).sum::<f32>(), -0.75);
            assert_eq!(generation.timings.first_piece.is_some(), stream);
        }
    }
    // Sum of i % 4 over 0..70 is 17 × 6 + 0 + 1 = 103, less those with i % 7 = 0: 0, 3, 2, 1, 0, 3, 2, 1, 0, 3 = 15.
    assert_eq!(endpoint.totals().retries, 2 * (103 - 15));
    assert_eq!(endpoint.totals().calls, 140);
}

#[test]
fn hopeless_requests_fail_alone_with_their_reason() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let requests = [
        ask("a|none|0"),
        ask("b|400|9"),
        ask("c|500|9"),
        ask("d|hang|9"),
        ask("e|429-long|9"),
        ask("f|none|0"),
    ];
    let started = Instant::now();
    let results = endpoint.generate(&requests, &mut |_| {}).unwrap();
    assert_eq!((text(&results[0]), text(&results[5])), ("answer to a", "answer to f"));
    assert!(
        matches!(&results[1], Err(Error::Status { status: 400, body, .. }) if body.contains("no such thing"))
    );
    assert_eq!(server.state.calls_for("b"), 1, "a refusal is not asked again");
    assert!(
        matches!(&results[2], Err(Error::GaveUp { attempts: 4, last, .. }) if last.contains("status 500: oops"))
    );
    assert!(
        matches!(&results[3], Err(Error::GaveUp { attempts: 4, last, .. }) if last.contains("timed out")),
        "{:?}",
        results[3]
    );
    // An hour is longer than the patience of 5 s: given up at once.
    assert!(
        matches!(&results[4], Err(Error::GaveUp { attempts: 1, last, .. }) if last.contains("3600")),
        "{:?}",
        results[4]
    );
    // Four idle limits of 0.5 s and the waits between; not the server's 30 s.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[test]
fn retry_after_is_waited_for() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let started = Instant::now();
    let mut waits = Vec::new();
    let results = endpoint
        .generate(&[ask("a|429-1s|1")], &mut |event| {
            if let Event::Retry { wait, .. } = event {
                waits.push(wait);
            }
        })
        .unwrap();
    assert_eq!(text(&results[0]), "answer to a");
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(waits, [Duration::from_secs(1)]);
}

#[test]
fn a_slow_drip_is_no_timeout_but_has_an_end() {
    let server = Server::start();
    let mut request = ask("a|drip|0");
    request.stream = true;
    // Six events 40 ms apart: longer than the idle limit in all, shorter between two.
    let limits = TimeLimits { connect_s: 1.0, idle_s: 0.15, total_s: 5.0 };
    let endpoint = Endpoint::connect(EndpointConfig { limits, ..config(&server) }).unwrap();
    assert_eq!(
        text(&endpoint.generate(std::slice::from_ref(&request), &mut |_| {}).unwrap()[0]),
        "answer to a"
    );
    let limits = TimeLimits { connect_s: 1.0, idle_s: 0.15, total_s: 0.1 };
    let retry = Retry { attempts: 2, first_wait_s: 0.01, ..Retry::default() };
    let endpoint = Endpoint::connect(EndpointConfig { limits, retry, ..config(&server) }).unwrap();
    let results = endpoint.generate(&[request], &mut |_| {}).unwrap();
    assert!(
        matches!(&results[0], Err(Error::GaveUp { attempts: 2, last, .. }) if last.contains("no end after 0.1 s")),
        "{results:?}"
    );
}

#[test]
fn nobody_there_is_said() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let retry = Retry { attempts: 2, first_wait_s: 0.01, ..Retry::default() };
    let config = EndpointConfig { retry, ..EndpointConfig::new(format!("http://{address}/v1"), "m") };
    let error = Endpoint::connect(config).unwrap_err();
    assert!(
        matches!(&error, Error::GaveUp { attempts: 2, last, .. } if last.starts_with("no connection")),
        "{error}"
    );
}

#[test]
fn missing_logprobs_are_an_error_not_a_zero() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let mut request = ask("a|nologprobs|9");
    request.logprobs = true;
    let results = endpoint.generate(&[request], &mut |_| {}).unwrap();
    assert!(matches!(&results[0], Err(Error::Answer { field: "choices.logprobs", .. })), "{results:?}");
    assert_eq!(server.state.calls_for("a"), 1);
}

#[test]
fn what_an_endpoint_can_do_is_found_out() {
    let server = Server::start();
    let full =
        Endpoint::connect(EndpointConfig { capabilities: None, dialect: Dialect::Vllm, ..config(&server) })
            .unwrap();
    let name = format!("m at {}", server.url("full"));
    let want = Capabilities {
        name,
        context: Some(4096),
        regex: true,
        grammar: true,
        extended_sampling: true,
        ..able()
    };
    assert_eq!(full.capabilities(), &want);

    let poor_config = EndpointConfig { capabilities: None, url: server.url("poor"), ..config(&server) };
    let poor = Endpoint::connect(poor_config).unwrap();
    let name = format!("m at {}", server.url("poor"));
    assert_eq!(
        poor.capabilities(),
        &Capabilities { name, chat: true, extra: true, ..Capabilities::default() }
    );

    // What it cannot do is refused before any call.
    let calls = server.state.total();
    let mut with_logprobs = ask("a|none|0");
    with_logprobs.logprobs = true;
    let mut seeded = ask("b|none|0");
    seeded.sampling.seed = Some(1);
    let mut schema = ask("c|none|0");
    schema.constraint = Some(Constraint::JsonSchema(json!({"type": "object"})));
    for request in [with_logprobs, seeded, schema, GenerateRequest::new(Prompt::Text("x".into()))] {
        assert!(matches!(poor.generate(&[request], &mut |_| {}), Err(Error::Unsupported { .. })));
    }
    let score =
        ScoreRequest { prompt: Prompt::Text("a".into()), continuation: Continuation::Text("b".into()) };
    assert!(matches!(poor.score(&[score]), Err(Error::Unsupported { .. })));
    assert!(matches!(poor.embed(&["a".into()]), Err(Error::Unsupported { .. })));
    assert_eq!(server.state.total(), calls);

    let nothing = EndpointConfig { capabilities: None, url: server.url("nowhere"), ..config(&server) };
    let error = Endpoint::connect(nothing).unwrap_err().to_string();
    assert!(error.contains("answers neither"), "{error}");
}

#[test]
fn continuations_are_scored_by_echo() {
    let server = Server::start();
    let template = fixture("tokenizers/byte_level");
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let request = |prompt: Prompt, continuation: &str| ScoreRequest {
        prompt,
        continuation: Continuation::Text(continuation.into()),
    };
    let requests = [
        request(Prompt::Text("The cat".into()), " sat down"),
        request(Prompt::Text("Über".into()), " ähnlich"),
        request(Prompt::Text("no bound".into()), "ary here"),
    ];
    let scored = endpoint.score(&requests).unwrap();
    // The server gives minus a tenth of a token's characters: " sat" -0.4, " down" -0.5.
    let first = scored[0].as_ref().unwrap();
    assert_eq!(first.tokens.iter().map(|t| t.text.as_str()).collect::<Vec<_>>(), [" sat", " down"]);
    assert!((first.logp + 0.9).abs() < 1e-6, "{}", first.logp);
    assert!((scored[1].as_ref().unwrap().logp + 0.8).abs() < 1e-6);
    // " boundary" spans both: no score, not a wrong one.
    assert!(matches!(&scored[2], Err(Error::Answer { .. })), "{:?}", scored[2]);

    // A conversation needs a template.
    let chat = || request(Prompt::chat(vec![Message::new("user", "hi")]), " there");
    assert!(matches!(endpoint.score(&[chat()]), Err(Error::Unsupported { .. })));
    assert!(matches!(
        Endpoint::connect(EndpointConfig { template: Some(template.clone()), ..config(&server) }),
        Err(Error::NoTemplate { .. })
    ));
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(template.join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<bot>:{% endif %}").unwrap();
    let endpoint =
        Endpoint::connect(EndpointConfig { template: Some(folder.path().into()), ..config(&server) })
            .unwrap();
    let scored = endpoint.score(&[chat()]).unwrap();
    assert!((scored[0].as_ref().unwrap().logp + 0.6).abs() < 1e-6);
    let bodies = server.state.bodies.lock().unwrap();
    assert_eq!(bodies.last().unwrap()["prompt"], "<user> hi\n<bot>: there");
}

#[test]
fn embeddings_come_in_order() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let texts: Vec<String> = (1..=150).map(|i| "x".repeat(i)).collect();
    let vectors = endpoint.embed(&texts).unwrap();
    let want: Vec<Vec<f32>> = (1..=150).map(|i| vec![i as f32, 1.5]).collect();
    assert_eq!(vectors, want);
    assert_eq!(server.state.total(), 3, "64 + 64 + 22 texts");
    assert!(matches!(endpoint.embed(&["a".into(), String::new()]), Err(Error::Empty { index: 1, .. })));
}

#[test]
fn the_cache_answers_the_same_request_once() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let prices =
        PriceTable([("m".to_owned(), Price { input: 1.0, cached_input: Some(0.5), output: 2.0 })].into());
    let config = EndpointConfig { cache: Some(folder.path().join("cache")), prices, ..config(&server) };
    let endpoint = Endpoint::connect(config.clone()).unwrap();
    // Two equal requests of one batch are two draws.
    let mut other = ask("pick");
    other.draw = 1;
    let requests = [ask("pick"), ask("pick"), other, ask("b|none|0")];
    let first = endpoint.generate(&requests, &mut |_| {}).unwrap();
    let texts: Vec<&str> = first.iter().map(text).collect();
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2], "{texts:?}");
    assert_eq!(server.state.total(), 4);
    // 4 fresh at 1, 6 cached at 0.5, 4 written at 2: 15 per million.
    assert_eq!(first[0].as_ref().unwrap().cost, Some(15e-6));
    assert!((endpoint.totals().cost - 60e-6).abs() < 1e-12);

    // A new process finds them again, pieces included, and pays nothing.
    let again = Endpoint::connect(config.clone()).unwrap();
    let mut heard = vec![String::new(); 4];
    let second = again
        .generate(&requests, &mut |event| {
            if let Event::Piece { request, text, .. } = event {
                heard[request].push_str(&text);
            }
        })
        .unwrap();
    assert_eq!(second.iter().map(text).collect::<Vec<_>>(), texts);
    assert_eq!(heard, texts);
    assert_eq!(server.state.total(), 4);
    assert_eq!((again.totals().cached, again.totals().calls, again.totals().cost), (4, 0, 0.0));
    assert_eq!((second[0].as_ref().unwrap().attempts, second[0].as_ref().unwrap().cost), (0, Some(0.0)));

    // An answer without what is now asked for does not serve; nor does a failure get kept.
    let mut more = ask("pick");
    more.logprobs = true;
    assert!(again.generate(&[more], &mut |_| {}).unwrap()[0].is_ok());
    assert!(again.generate(&[ask("c|400|1")], &mut |_| {}).unwrap()[0].is_err());
    assert!(again.generate(&[ask("c|400|1")], &mut |_| {}).unwrap()[0].is_ok());
    let score = ScoreRequest {
        prompt: Prompt::Text("The cat".into()),
        continuation: Continuation::Text(" sat".into()),
    };
    let before = server.state.total();
    let scores: Vec<f64> = (0..2)
        .map(|_| again.score(std::slice::from_ref(&score)).unwrap()[0].as_ref().unwrap().logp)
        .collect();
    assert_eq!(scores[0], scores[1]);
    assert_eq!(server.state.total(), before + 1);
}

#[test]
fn never_more_calls_than_slots() {
    let server = Server::start();
    let endpoint = Endpoint::connect(EndpointConfig { concurrency: 10, ..config(&server) }).unwrap();
    let requests: Vec<_> = (0..60).map(|i| ask(format!("{i}|slow|0"))).collect();
    // Two batches at once share the slots.
    std::thread::scope(|scope| {
        for half in requests.chunks(30) {
            let endpoint = &endpoint;
            scope.spawn(move || {
                assert!(endpoint.generate(half, &mut |_| {}).unwrap().iter().all(Result::is_ok))
            });
        }
    });
    assert_eq!(server.state.most_in_flight.load(Ordering::SeqCst), 10);
}

#[test]
fn limits_per_minute_are_kept() {
    let server = Server::start();
    // 600 a minute: 10 at once, the last of 20 after another second.
    let endpoint =
        Endpoint::connect(EndpointConfig { requests_per_minute: Some(600), ..config(&server) }).unwrap();
    let requests: Vec<_> = (0..20).map(|i| ask(format!("{i}|none|0"))).collect();
    let started = Instant::now();
    assert!(endpoint.generate(&requests, &mut |_| {}).unwrap().iter().all(Result::is_ok));
    let took = started.elapsed().as_secs_f64();
    assert!((0.9..3.0).contains(&took), "{took}");

    // 6,000 tokens a minute, 100 a second; each is estimated at some 50 + 10 and costs 14.
    let endpoint =
        Endpoint::connect(EndpointConfig { tokens_per_minute: Some(6000), ..config(&server) }).unwrap();
    let requests: Vec<_> = (0..4)
        .map(|i| {
            let mut request = ask(format!("t{i}|none|0"));
            request.sampling.max_tokens = Some(50);
            request
        })
        .collect();
    let started = Instant::now();
    assert!(endpoint.generate(&requests, &mut |_| {}).unwrap().iter().all(Result::is_ok));
    let took = started.elapsed().as_secs_f64();
    assert!((0.8..3.0).contains(&took), "{took}");
}

#[test]
fn a_cancelled_request_keeps_what_it_has() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let mut slow = ask("a|drip|0");
    slow.stream = true;
    let hanging = ask("b|hang|9");
    let requests = [slow, hanging, ask("c|none|0")];
    let (first, second) = (requests[0].cancel.clone(), requests[1].cancel.clone());
    let started = Instant::now();
    let results = endpoint
        .generate(&requests, &mut |event| {
            if let Event::Piece { request: 0, .. } = event {
                first.cancel();
                second.cancel();
            }
        })
        .unwrap();
    let cancelled = results[0].as_ref().unwrap();
    assert_eq!(cancelled.samples[0].finish, FinishReason::Cancelled);
    assert!("answer to a".starts_with(&cancelled.samples[0].text) && !cancelled.samples[0].text.is_empty());
    assert!(matches!(results[1], Err(Error::Cancelled)));
    assert_eq!(text(&results[2]), "answer to c");
    assert!(started.elapsed() < Duration::from_millis(450), "{:?}", started.elapsed());
}

#[test]
fn keys_stay_out_of_errors() {
    let server = Server::start();
    // Cargo sets this variable for tests; its value serves as the key.
    let variable = "CARGO_MANIFEST_DIR";
    let key = std::env::var(variable).unwrap();
    let locked =
        EndpointConfig { api_key_env: Some(variable.into()), url: server.url("locked"), ..config(&server) };
    let endpoint = Endpoint::connect(locked.clone()).unwrap();
    let error = endpoint.generate(&[ask("a")], &mut |_| {}).unwrap().remove(0).unwrap_err();
    assert!(
        matches!(&error, Error::Status { status: 401, body, .. } if body == "bad credentials: Bearer ***"),
        "{error}"
    );
    let probed = Endpoint::connect(EndpointConfig { capabilities: None, ..locked }).unwrap_err();
    for shown in [format!("{error} {error:?}"), format!("{endpoint:?}"), format!("{probed} {probed:?}")] {
        assert!(!shown.contains(&key), "{shown}");
    }
    assert!(probed.to_string().contains("access refused"), "{probed}");
    let unset = EndpointConfig { api_key_env: Some("HONE_NO_SUCH_KEY".into()), ..config(&server) };
    let error = Endpoint::connect(unset).unwrap_err().to_string();
    assert!(error.contains("HONE_NO_SUCH_KEY is not set"), "{error}");
}

#[test]
fn several_answers_further_fields_and_the_raw_answer() {
    let server = Server::start();
    let endpoint = Endpoint::connect(EndpointConfig { capture_raw: true, ..config(&server) }).unwrap();
    let mut request = ask("a|none|0");
    request.n = 3;
    request.logprobs = true;
    request.top_logprobs = 2;
    request.extra.insert("reasoning_effort".into(), json!("low"));
    let generation = endpoint.generate(&[request], &mut |_| {}).unwrap().remove(0).unwrap();
    let texts: Vec<&str> = generation.samples.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, ["answer to a", "answer to a (1)", "answer to a (2)"]);
    assert_eq!(generation.samples[1].tokens.as_ref().unwrap()[0].top.len(), 2);
    assert_eq!(generation.model, "m-2026");
    assert_eq!((generation.usage.prompt_tokens, generation.usage.cached_tokens), (10, 6));
    assert_eq!(generation.raw.unwrap()["id"], "x");
    assert_eq!(server.state.bodies.lock().unwrap()[0]["reasoning_effort"], "low");
    let raw_text = GenerateRequest::new(Prompt::Text("Once".into()));
    assert_eq!(text(&endpoint.generate(&[raw_text], &mut |_| {}).unwrap()[0]), " end");
}

#[test]
fn calls_from_inside_another_runtime() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = Endpoint::connect(EndpointConfig { capabilities: None, ..config(&server) }).unwrap();
        assert_eq!(text(&endpoint.generate(&[ask("a|none|0")], &mut |_| {}).unwrap()[0]), "answer to a");
    });
}

#[test]
fn a_caller_that_panics_stops_its_calls() {
    let server = Server::start();
    let endpoint = Endpoint::connect(config(&server)).unwrap();
    let requests = [ask("a|none|0"), ask("b|slow|0")];
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = endpoint.generate(&requests, &mut |_| panic!("caller"));
    }));
    assert!(result.is_err());
    assert_eq!(text(&endpoint.generate(&[ask("c|none|0")], &mut |_| {}).unwrap()[0]), "answer to c");
}
