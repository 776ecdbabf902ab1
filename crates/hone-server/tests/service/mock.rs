//! An upstream that answers at once, and fails as it is told.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde_json::{Value, json};

/// How the next request fails.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// 429 with `Retry-After` in seconds.
    Limited(&'static str),
    /// A status with a JSON error.
    Status(u16),
    /// Never answers.
    Hang,
    /// Closes a whole answer, or a stream, in the middle.
    Cut,
    /// A stream that says nothing more after its first piece.
    Stall,
    /// Text that is no JSON.
    Malformed,
    /// The same id as every other of these.
    SameId,
}

/// What the mock has and what it saw.
#[derive(Default)]
pub struct Seen {
    pub faults: VecDeque<Fault>,
    pub bodies: Vec<Bytes>,
    pub headers: Vec<HeaderMap>,
    /// Streams that were read to their end, or dropped before.
    pub finished: usize,
}

pub struct Mock {
    pub url: String,
    pub seen: Arc<Mutex<Seen>>,
}

type Shared = Arc<Mutex<Seen>>;

impl Mock {
    pub async fn start(faults: &[Fault]) -> Mock {
        let seen: Shared = Arc::default();
        seen.lock().expect("lock").faults.extend(faults);
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(completions))
            .route("/v1/embeddings", post(embeddings))
            .route("/v1/models", get(async || axum::Json(json!({"data": [{"id": "m", "odd": 1}]}))))
            .with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1", listener.local_addr().expect("address"));
        tokio::spawn(async move { axum::serve(listener, router).await.expect("mock") });
        Mock { url, seen }
    }

    pub fn calls(&self) -> usize {
        self.seen.lock().expect("lock").bodies.len()
    }
}

/// Notes a request; gives its number and the fault that it meets.
fn note(seen: &Shared, headers: HeaderMap, body: &Bytes) -> (usize, Option<Fault>) {
    let mut seen = seen.lock().expect("lock");
    seen.bodies.push(body.clone());
    seen.headers.push(headers);
    (seen.bodies.len(), seen.faults.pop_front())
}

async fn refusal(fault: Option<Fault>) -> Option<Response> {
    let error = |code: &str| axum::Json(json!({"error": {"message": "as told", "code": code, "odd": 1}}));
    match fault? {
        Fault::Limited(after) => {
            Some((StatusCode::TOO_MANY_REQUESTS, [("retry-after", after)], error("limited")).into_response())
        }
        Fault::Status(status) => {
            Some((StatusCode::from_u16(status).expect("status"), error("as_told")).into_response())
        }
        Fault::Hang => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            None
        }
        Fault::Malformed => Some("<html>not JSON</html>".into_response()),
        Fault::Cut | Fault::Stall | Fault::SameId => None,
    }
}

/// The answer, with fields that no client knows and numbers that a careless proxy would print otherwise.
pub fn answer(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","object":"chat.completion","model":"m-1","odd":{{"z":1,"a":1.50}},"choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello."}},"logprobs":{{"content":[{{"token":"Hello.","logprob":-0.10,"bytes":null,"top_logprobs":[]}}]}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}}}"#
    )
}

/// The pieces of the same answer.
pub fn pieces(id: &str) -> Vec<String> {
    let piece = |rest: &str| format!("data: {{\"id\":\"{id}\",\"model\":\"m-1\",\"odd\":1.50,{rest}}}\n\n");
    vec![
        piece(r#""choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]"#),
        ": keep-alive\n\n".to_owned(),
        piece(r#""choices":[{"index":0,"delta":{"content":"lo."}}]"#),
        piece(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#),
        piece(r#""choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}"#),
        "data: [DONE]\n\n".to_owned(),
    ]
}

async fn chat(State(seen): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (number, fault) = note(&seen, headers, &body);
    if let Some(refused) = refusal(fault).await {
        return refused;
    }
    let id = if matches!(fault, Some(Fault::SameId)) {
        "chatcmpl-same".into()
    } else {
        format!("chatcmpl-{number}")
    };
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    if request["stream"] == true {
        return stream(seen, pieces(&id), fault);
    }
    let whole = answer(&id);
    if matches!(fault, Some(Fault::Cut)) {
        return cut(whole);
    }
    ([("content-type", "application/json"), ("x-ratelimit-remaining-requests", "9")], whole).into_response()
}

/// A body that breaks off: a part of it, then an error.
fn cut(whole: String) -> Response {
    let half = Bytes::from(whole[..whole.len() / 2].to_owned());
    let parts = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("cut"))]);
    ([("content-type", "application/json")], Body::from_stream(parts)).into_response()
}

fn stream(seen: Shared, pieces: Vec<String>, fault: Option<Fault>) -> Response {
    struct Drops(Shared);
    impl Drop for Drops {
        fn drop(&mut self) {
            self.0.lock().expect("lock").finished += 1;
        }
    }
    let guard = Drops(seen);
    let parts = futures_util::stream::unfold(
        (pieces.into_iter(), guard, 0),
        move |(mut pieces, guard, sent)| async move {
            match fault {
                Some(Fault::Cut) if sent == 3 => return None,
                Some(Fault::Stall) if sent == 1 => tokio::time::sleep(Duration::from_secs(3600)).await,
                // The first piece is on its way before the second.
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            let piece = pieces.next()?;
            Some((Ok::<_, Infallible>(Bytes::from(piece)), (pieces, guard, sent + 1)))
        },
    );
    ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(parts)).into_response()
}

async fn completions(State(seen): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (number, fault) = note(&seen, headers, &body);
    if let Some(refused) = refusal(fault).await {
        return refused;
    }
    let text = |index: usize| json!({"index": index, "text": format!("t{index}"), "finish_reason": "length"});
    let request: Value = serde_json::from_slice(&body).expect("JSON");
    let prompts = request["prompt"].as_array().map_or(1, Vec::len);
    let choices: Vec<Value> = (0..prompts).map(text).collect();
    axum::Json(json!({"id": format!("cmpl-{number}"), "model": "m-1", "choices": choices})).into_response()
}

async fn embeddings(State(seen): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let (_, fault) = note(&seen, headers, &body);
    if let Some(refused) = refusal(fault).await {
        return refused;
    }
    let data = json!([{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]);
    axum::Json(json!({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}))
        .into_response()
}
