//! A live server with planned faults.
//!
//! A message `id|fault|times` makes the first `times` calls for `id` fail in the given way; after that the answer is
//! `answer to id`. Any other message is answered with a number that depends on the seed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

/// A server on its own thread, stopped with the test.
pub struct Server {
    pub state: Arc<Watch>,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

/// What the server saw.
#[derive(Default)]
pub struct Watch {
    /// Calls per id.
    pub calls: Mutex<HashMap<String, usize>>,
    /// Bodies, as they came.
    pub bodies: Mutex<Vec<Value>>,
    pub in_flight: AtomicUsize,
    pub most_in_flight: AtomicUsize,
    pub total: AtomicUsize,
}

impl Watch {
    pub fn calls_for(&self, id: &str) -> usize {
        self.calls.lock().unwrap().get(id).copied().unwrap_or(0)
    }

    pub fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }
}

impl Server {
    pub fn start() -> Server {
        let state = Arc::new(Watch::default());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/full/v1/models", get(models))
            .route("/full/v1/chat/completions", post(chat))
            .route("/full/v1/completions", post(completions))
            .route("/full/v1/embeddings", post(embeddings))
            .route("/poor/v1/chat/completions", post(poor_chat))
            .route("/locked/v1/chat/completions", post(locked))
            .with_state(state.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Server { state, address, _runtime: runtime }
    }

    pub fn url(&self, kind: &str) -> String {
        format!("http://{}/{kind}/v1", self.address)
    }
}

fn reply(body: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn models() -> Response {
    reply(&json!({"data": [{"id": "other"}, {"id": "m", "max_model_len": 4096}]}))
}

/// Counts a call as in flight until it is answered or dropped.
struct InFlight(Arc<Watch>);

impl InFlight {
    fn new(state: &Arc<Watch>) -> InFlight {
        state.total.fetch_add(1, Ordering::SeqCst);
        let now = state.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        state.most_in_flight.fetch_max(now, Ordering::SeqCst);
        InFlight(state.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn chat(State(state): State<Arc<Watch>>, bytes: Bytes) -> Response {
    let _in_flight = InFlight::new(&state);
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    state.bodies.lock().unwrap().push(body.clone());
    let content =
        body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap_or("").to_owned();
    let mut parts = content.splitn(3, '|');
    let (id, fault) = (parts.next().unwrap_or(""), parts.next().unwrap_or("none"));
    let times: usize = parts.next().and_then(|t| t.parse().ok()).unwrap_or(0);
    let call = {
        let mut calls = state.calls.lock().unwrap();
        let call = calls.entry(id.to_owned()).or_insert(0);
        *call += 1;
        *call
    };
    let text = if body.get("response_format").is_some() {
        "{\"ok\": true}".to_owned()
    } else if body.get("structured_outputs").is_some() {
        "x5y".to_owned()
    } else if content.contains('|') {
        format!("answer to {id}")
    } else {
        let seed = body["seed"].as_u64().unwrap_or(call as u64 * 7919);
        format!("{}", seed.wrapping_mul(2_654_435_761) % 1_000_000)
    };
    if call <= times && fault != "none" {
        match fault {
            "429" => {
                return (StatusCode::TOO_MANY_REQUESTS, [("retry-after-ms", "30")], "slow down")
                    .into_response();
            }
            "429-1s" => {
                return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")], "slow down").into_response();
            }
            "429-long" => {
                return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")], "later").into_response();
            }
            "500" => return (StatusCode::INTERNAL_SERVER_ERROR, "oops").into_response(),
            "400" => return (StatusCode::BAD_REQUEST, "{\"error\": \"no such thing\"}").into_response(),
            "hang" => tokio::time::sleep(Duration::from_secs(30)).await,
            "json" => {
                return ([(header::CONTENT_TYPE, "application/json")], "{\"choices\": [{\"ind")
                    .into_response();
            }
            "error200" => return reply(&json!({"error": {"message": "overloaded"}})),
            "cut" => return cut(&text, body["stream"] == json!(true)),
            "nologprobs" => return reply(&answer(&text, &json!({}))),
            other => panic!("unknown fault {other}"),
        }
    }
    if fault == "slow" {
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    if body["stream"] == json!(true) {
        let wait = if fault == "drip" { 40 } else { 0 };
        return streamed(&text, &body, wait);
    }
    reply(&answer(&text, &body))
}

fn answer(text: &str, body: &Value) -> Value {
    let n = body["n"].as_u64().unwrap_or(1);
    let choices: Vec<Value> = (0..n)
        .map(|i| {
            let text = if i == 0 { text.to_owned() } else { format!("{text} ({i})") };
            let logprobs = (body["logprobs"] == json!(true)).then(|| {
                let top = if body["top_logprobs"].as_u64().unwrap_or(0) > 0 {
                    json!([{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3.0}])
                } else {
                    json!([])
                };
                let tokens: Vec<Value> = words(&text)
                    .map(|w| json!({"token": w, "logprob": -0.25, "bytes": w.as_bytes(), "top_logprobs": top}))
                    .collect();
                json!({"content": tokens})
            });
            json!({"index": i, "message": {"role": "assistant", "content": text}, "logprobs": logprobs, "finish_reason": "stop"})
        })
        .collect();
    json!({
        "id": "x", "model": "m-2026", "choices": choices,
        "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_tokens_details": {"cached_tokens": 6}},
    })
}

/// Words, each with the space before it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().skip(1).find(|(_, c)| *c == ' ').map_or(rest.len(), |(i, _)| i);
        let (word, tail) = rest.split_at(end);
        rest = tail;
        Some(word)
    })
}

fn event(value: &Value) -> Bytes {
    Bytes::from(format!("data: {value}\n\n"))
}

fn streamed(text: &str, body: &Value, wait_ms: u64) -> Response {
    let mut events: Vec<Bytes> = words(text)
        .map(|word| {
            let logprobs = (body["logprobs"] == json!(true))
                .then(|| json!({"content": [{"token": word, "logprob": -0.25, "bytes": null, "top_logprobs": []}]}));
            event(&json!({"id": "x", "model": "m-2026", "choices": [{"index": 0, "delta": {"content": word}, "logprobs": logprobs}]}))
        })
        .collect();
    events.push(event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})));
    if body["stream_options"]["include_usage"] == json!(true) {
        events.push(event(&json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}})));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    let stream = stream::iter(events).then(move |event| async move {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        Ok::<_, Infallible>(event)
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
}

/// An answer that breaks off: as a stream after one piece, else in the middle of the body.
fn cut(text: &str, as_stream: bool) -> Response {
    if as_stream {
        let first = event(&json!({"choices": [{"index": 0, "delta": {"content": &text[..3]}}]}));
        return (
            [(header::CONTENT_TYPE, "text/event-stream")],
            Body::from_stream(stream::iter([Ok::<_, Infallible>(first)])),
        )
            .into_response();
    }
    let parts = [Ok(Bytes::from_static(b"{\"choices\": [")), Err(std::io::Error::other("cut"))];
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream::iter(parts))).into_response()
}

async fn completions(State(state): State<Arc<Watch>>, bytes: Bytes) -> Response {
    let _in_flight = InFlight::new(&state);
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    state.bodies.lock().unwrap().push(body.clone());
    let prompt = body["prompt"].as_str().unwrap_or("").to_owned();
    let written = " end";
    let text = if body["echo"] == json!(true) { format!("{prompt}{written}") } else { written.to_owned() };
    let mut offset = 0;
    let (mut tokens, mut logprobs, mut offsets) = (vec![], vec![], vec![]);
    for word in words(&text) {
        // A made-up but checkable number: minus a tenth of the length in characters.
        let first = tokens.is_empty() && body["echo"] == json!(true);
        logprobs.push(if first { Value::Null } else { json!(-(word.chars().count() as f64) / 10.0) });
        tokens.push(word.to_owned());
        offsets.push(offset);
        offset += word.chars().count();
    }
    let logprobs = body.get("logprobs").map(|_| json!({"tokens": tokens, "token_logprobs": logprobs, "text_offset": offsets, "top_logprobs": null}));
    reply(&json!({
        "model": "m-2026",
        "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}],
        "usage": {"prompt_tokens": offsets.len() - 1, "completion_tokens": 1, "total_tokens": offsets.len()},
    }))
}

async fn embeddings(State(state): State<Arc<Watch>>, bytes: Bytes) -> Response {
    let _in_flight = InFlight::new(&state);
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let mut data: Vec<Value> = body["input"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, text)| json!({"index": i, "embedding": [text.as_str().unwrap().len(), 1.5]}))
        .collect();
    data.reverse();
    reply(&json!({"data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}))
}

/// Chat and nothing else: no log-probabilities, no seeds.
async fn poor_chat(State(state): State<Arc<Watch>>, bytes: Bytes) -> Response {
    let mut body: Value = serde_json::from_slice(&bytes).unwrap();
    for field in ["logprobs", "seed", "response_format", "structured_outputs"] {
        body.as_object_mut().unwrap().remove(field);
    }
    chat(State(state), Bytes::from(body.to_string())).await
}

/// Refuses every key, and repeats it.
async fn locked(headers: HeaderMap) -> Response {
    let sent = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    (StatusCode::UNAUTHORIZED, format!("bad credentials: {sent}")).into_response()
}
