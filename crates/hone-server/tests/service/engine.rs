//! The built-in engine as the backend.

use std::path::PathBuf;

use hone_server::BackendConfig;
use serde_json::{Value, json};

use crate::client::{Service, json_of};

async fn service() -> Service {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/hone-tiny");
    Service::with(&[], |config| {
        config.backends = vec![BackendConfig { folder: Some(folder), ..BackendConfig::default() }];
    })
    .await
}

fn ask(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({"model": "hone-tiny", "messages": [{"role": "user", "content": "What is 2 + 3?"}], "max_tokens": 12, "seed": 7});
    change(&mut body);
    body
}

/// The chunks of a stream.
async fn chunks(service: &Service, path: &str, body: Value) -> Vec<Value> {
    let text = service.post(path, body).await.text().await.expect("stream");
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(data.last(), Some(&"[DONE]"), "{text}");
    data[..data.len() - 1].iter().map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_whole_and_in_pieces_are_the_same() {
    let mut service = service().await;
    assert_eq!(json_of(service.get("/v1/models").await).await.1["data"][0]["id"], "hone-tiny");
    let body = ask(|body| {
        body["n"] = 2.into();
        body["temperature"] = json!(0.8);
        body["logprobs"] = true.into();
        body["top_logprobs"] = 2.into();
    });
    let (status, whole) = json_of(service.post("/v1/chat/completions", body.clone()).await).await;
    assert_eq!(status, 200, "{whole}");
    let text =
        |index: usize| whole["choices"][index]["message"]["content"].as_str().expect("text").to_owned();
    assert_eq!(whole["object"], "chat.completion");
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().expect("logprobs");
    assert!(tokens[0]["logprob"].as_f64().is_some_and(|logp| logp <= 0.0));
    assert_eq!(tokens[0]["top_logprobs"].as_array().map(Vec::len), Some(2));
    let used = whole["usage"]["completion_tokens"].as_u64().expect("usage");
    assert!(used >= tokens.len() as u64 && used <= 24, "{used}");

    let mut streamed = body;
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let chunks = chunks(&service, "/v1/chat/completions", streamed).await;
    for index in 0..2 {
        let said = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().cloned().unwrap_or_default());
        let said: String = said
            .filter(|c| c["index"] == index)
            .filter_map(|c| c["delta"]["content"].as_str().map(str::to_owned))
            .collect();
        assert_eq!(said, text(index), "choice {index}");
    }
    assert_eq!(chunks.last().expect("usage")["usage"], whole["usage"]);
    let records = service.records().await;
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(
            record.responses.iter().map(|r| r.content.text().into_owned()).collect::<Vec<_>>(),
            [text(0), text(1)]
        );
        assert_eq!(record.responses[0].extra["usage"], whole["usage"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_side_by_side_get_what_they_would_get_alone() {
    let service = service().await;
    let asks: Vec<Value> = (0..8)
        .map(|i| {
            ask(|body| {
                body["seed"] = i.into();
                body["temperature"] = 1.into();
                body["messages"][0]["content"] = format!("What is {i} + 3?").into();
            })
        })
        .collect();
    let mut alone = Vec::new();
    for body in &asks {
        alone.push(
            json_of(service.post("/v1/chat/completions", body.clone()).await).await.1["choices"].clone(),
        );
    }
    let together = futures_util::future::join_all(asks.iter().map(|body| async {
        json_of(service.post("/v1/chat/completions", body.clone()).await).await.1["choices"].clone()
    }));
    assert_eq!(together.await, alone);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_what_it_does() {
    let service = service().await;
    let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}}});
    let (_, answer) = json_of(
        service
            .post(
                "/v1/chat/completions",
                ask(|body| {
                    body["response_format"] = format;
                    body["max_tokens"] = 60.into();
                }),
            )
            .await,
    )
    .await;
    let choice = &answer["choices"][0];
    if choice["finish_reason"] == "stop" {
        let said: Value =
            serde_json::from_str(choice["message"]["content"].as_str().expect("text")).expect("JSON");
        assert!(said["a"].is_i64(), "{said}");
    } else {
        assert!(choice["message"]["content"].as_str().is_some_and(|text| text.starts_with('{')), "{choice}");
    }
    let prompts = json!({"model": "hone-tiny", "prompt": ["one two", "three"], "max_tokens": 4, "temperature": 0, "echo": true});
    let (_, answer) = json_of(service.post("/v1/completions", prompts).await).await;
    assert!(answer["choices"][1]["text"].as_str().is_some_and(|text| text.starts_with("three")), "{answer}");
    let stop = answer["choices"][0]["text"].as_str().expect("text")["one two".len()..].chars().next();
    if let Some(stop) = stop {
        let body = json!({"model": "hone-tiny", "prompt": "one two", "max_tokens": 4, "temperature": 0, "stop": stop.to_string()});
        let (_, answer) = json_of(service.post("/v1/completions", body).await).await;
        assert_eq!(
            (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
            (&"".into(), &"stop".into())
        );
    }
    let (_, answer) =
        json_of(service.post("/v1/embeddings", json!({"model": "hone-tiny", "input": ["a", "b"]})).await)
            .await;
    let vector: Vec<f64> =
        answer["data"][1]["embedding"].as_array().expect("vector").iter().filter_map(Value::as_f64).collect();
    let length: f64 = vector.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_do_is_refused_by_field() {
    let service = service().await;
    type Change = fn(&mut Value);
    for (change, param) in [
        ((|body| body["tools"] = json!([{"type": "function"}])) as Change, "tools"),
        (|body| body["temperature"] = (-1).into(), "temperature"),
        (|body| body["n"] = 0.into(), "n"),
        (|body| body["n"] = 1000.into(), "n"),
        (|body| body["stop"] = 5.into(), "stop"),
        (|body| body["max_tokens"] = 0.into(), "max_tokens"),
        (|body| body["top_logprobs"] = 3.into(), "top_logprobs"),
        (|body| body["response_format"] = json!({"type": "xml"}), "response_format.type"),
        (|body| body["messages"] = json!([{"content": "x"}]), "messages[0]"),
    ] {
        for stream in [false, true] {
            let (status, answer) = json_of(
                service
                    .post(
                        "/v1/chat/completions",
                        ask(|body| {
                            change(body);
                            body["stream"] = stream.into();
                        }),
                    )
                    .await,
            )
            .await;
            assert_eq!((status, &answer["error"]["param"]), (400, &param.into()), "{answer}");
        }
    }
    let long = "word ".repeat(20_000);
    let (status, answer) = json_of(
        service.post("/v1/chat/completions", ask(|body| body["messages"][0]["content"] = long.into())).await,
    )
    .await;
    assert_eq!((status, &answer["error"]["code"]), (400, &"context_length_exceeded".into()), "{answer}");
}
