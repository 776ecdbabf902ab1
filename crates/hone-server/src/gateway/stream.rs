//! Answers in pieces: passed on as they come, put together on the side, stored also when either end goes away.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::poll_fn;
use hone_lm::endpoint::stream::{Assembly, EventReader};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::app::App;
use crate::config::seconds;
use crate::error::ApiError;
use crate::metrics::By;

use super::backend::Backend;
use super::call::Call;
use super::finish::finish;
use super::proxy::{Failure, mark, pass_headers, prefix};
use super::record::Came;

/// Pieces that may wait for a slow reader.
const AHEAD: usize = 64;
/// Of a longer answer only this much is put together and stored.
const LONGEST: usize = 64 << 20;

/// What becomes of a streamed answer.
pub(super) struct Taken {
    id: String,
    /// The upstream's id does not serve, so each piece gets this one.
    renamed: bool,
    reader: EventReader,
    assembly: Assembly,
    bytes: usize,
    done: bool,
    first: Option<Duration>,
}

impl Taken {
    pub fn new(id: String, renamed: bool) -> Self {
        Taken {
            id,
            renamed,
            reader: EventReader::default(),
            assembly: Assembly::default(),
            bytes: 0,
            done: false,
            first: None,
        }
    }

    /// Takes note of the data of an event; gives what is to be sent in its place, if anything.
    pub fn event(&mut self, data: &str, started: Instant) -> Option<Bytes> {
        if data.trim() == "[DONE]" {
            self.done = true;
            return self.renamed.then(|| sse(data));
        }
        self.bytes += data.len();
        let Ok(mut chunk) = serde_json::from_str::<Value>(data) else {
            return self.renamed.then(|| sse(data));
        };
        self.first.get_or_insert_with(|| started.elapsed());
        if let Some(fields) = chunk.as_object_mut().filter(|_| self.renamed) {
            fields.insert("id".into(), self.id.clone().into());
        }
        if self.bytes <= LONGEST {
            self.assembly.push(&chunk);
        }
        self.renamed.then(|| sse(&chunk.to_string()))
    }

    /// Takes bytes of the upstream; gives what is to be sent.
    fn take(&mut self, chunk: Bytes, started: Instant) -> Bytes {
        let mut changed = Vec::new();
        for data in self.reader.push(&chunk) {
            changed.extend(self.event(&data, started).into_iter().flatten());
        }
        if self.renamed { changed.into() } else { chunk }
    }

    /// Whether the answer came to its end.
    pub fn is_whole(&self) -> bool {
        self.done || self.assembly.is_complete()
    }

    /// Stores what came.
    pub async fn keep(self, app: &App, call: &Call, backend: &str, cut: Option<&'static str>) {
        let answer = self.assembly.finish();
        if let Some(first) = self.first {
            let labels = By { backend: backend.to_owned() };
            app.metrics.first_piece.get_or_create(&labels).observe(first.as_secs_f64());
        }
        let came = Came {
            id: &self.id,
            backend,
            latency_ms: call.started.elapsed().as_secs_f64() * 1e3,
            first_ms: self.first.map(|first| first.as_secs_f64() * 1e3),
            cut,
        };
        finish(app, call, &answer, &came).await;
    }
}

/// An event of a stream.
pub(super) fn sse(data: &str) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// The last event of a stream that was cut.
pub(super) fn sse_error(error: &ApiError) -> Bytes {
    sse(&serde_json::to_string(&error.body()).unwrap_or_default())
}

/// A response whose body is what comes through the channel.
pub(super) fn response(mut pieces: mpsc::Receiver<Bytes>) -> Response {
    let stream = poll_fn(move |cx| pieces.poll_recv(cx).map(|piece| piece.map(Ok::<_, Infallible>)));
    let headers =
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
    (StatusCode::OK, headers, Body::from_stream(stream)).into_response()
}

/// Passes a stream on. The first event is waited for: until then another try can still answer.
pub(super) async fn pass(
    app: &App,
    call: &Call,
    backend: &Backend,
    mut upstream: reqwest::Response,
    asked: Instant,
) -> Result<Response, Failure> {
    let name = &backend.config.name;
    let mut held = Vec::new();
    let mut reader = EventReader::default();
    let limit = seconds(backend.config.first_s);
    let first = loop {
        let next = tokio::time::timeout(limit.saturating_sub(asked.elapsed()), upstream.chunk()).await;
        match next {
            Ok(Ok(Some(chunk))) => {
                let events = reader.push(&chunk);
                held.push(chunk);
                if let Some(first) = events.into_iter().next() {
                    break first;
                }
            }
            Ok(_) => {
                let message = format!("the upstream {name} broke off before its answer began");
                return Err(Failure::passing(StatusCode::BAD_GATEWAY, "upstream_unreachable", message));
            }
            Err(_) => {
                let message = format!("the upstream {name} gave no answer within {limit:.1?}");
                return Err(Failure::passing(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message));
            }
        }
    };
    let first: Value = serde_json::from_str(&first).unwrap_or_default();
    if first.get("error").is_some_and(|error| !error.is_null()) {
        let message = format!("the upstream {name} failed before its answer began");
        return Err(Failure::passing(StatusCode::BAD_GATEWAY, "upstream_failed", message));
    }
    let (id, renamed) = app.recorder.name(first.get("id").and_then(Value::as_str), prefix(call.endpoint));
    let (sender, pieces) = mpsc::channel(AHEAD);
    let mut answer = response(pieces);
    pass_headers(upstream.headers(), answer.headers_mut());
    mark(answer.headers_mut(), Some(&id), backend);
    let pump = Pump {
        app: app.clone(),
        call: call.copy(),
        backend: name.clone(),
        idle: seconds(backend.config.idle_s),
        sender,
        taken: Taken::new(id, renamed),
    };
    app.tasks.spawn(pump.run(held, upstream));
    Ok(answer)
}

/// Moves pieces from the upstream to the caller.
struct Pump {
    app: App,
    call: Call,
    backend: String,
    idle: Duration,
    sender: mpsc::Sender<Bytes>,
    taken: Taken,
}

impl Pump {
    async fn run(mut self, held: Vec<Bytes>, mut upstream: reqwest::Response) {
        let mut cut = None;
        for chunk in held {
            let piece = self.taken.take(chunk, self.call.started);
            cut = cut.or(self.send(piece).await);
        }
        while cut.is_none() {
            let next = tokio::select! {
                // A caller that goes away ends the upstream's work too, and what it costs.
                () = self.sender.closed() => {
                    cut = Some("client");
                    break;
                }
                () = self.app.ending.cancelled() => {
                    cut = Some("service");
                    break;
                }
                next = tokio::time::timeout(self.idle, upstream.chunk()) => next,
            };
            match next {
                Ok(Ok(Some(chunk))) => {
                    let piece = self.taken.take(chunk, self.call.started);
                    cut = self.send(piece).await;
                }
                Ok(Ok(None)) if self.taken.is_whole() => break,
                Ok(Ok(None)) | Ok(Err(_)) => cut = Some("upstream"),
                Err(_) => cut = Some("upstream_idle"),
            }
        }
        if matches!(cut, Some("upstream" | "upstream_idle")) && !self.taken.done {
            let message = format!("the upstream {} broke off in the middle of its answer", self.backend);
            let error = ApiError::new(StatusCode::BAD_GATEWAY, "upstream_cut", message);
            let _ = self.sender.send(sse_error(&error)).await;
        }
        let Pump { app, call, backend, sender, taken, .. } = self;
        // The caller's connection is free before the store is asked.
        drop(sender);
        taken.keep(&app, &call, &backend, cut).await;
    }

    async fn send(&self, piece: Bytes) -> Option<&'static str> {
        if piece.is_empty() {
            return None;
        }
        self.sender.send(piece).await.err().map(|_| "client")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"data: {\"id\":\"a\",\"odd\": 1.50,\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\"}}]}\n\n\
        : note\n\ndata: not json\n\ndata: {\"id\":\"a\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"i\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

    fn through(renamed: bool, size: usize) -> (Vec<u8>, Value) {
        let mut taken = Taken::new("b".into(), renamed);
        let mut out = Vec::new();
        for piece in STREAM.chunks(size) {
            out.extend(taken.take(Bytes::from_static(piece), Instant::now()));
        }
        assert!(taken.is_whole());
        (out, taken.assembly.finish())
    }

    #[test]
    fn pieces_pass_untouched_however_they_are_cut() {
        for size in [1, 7, 1000] {
            let (out, answer) = through(false, size);
            assert_eq!(out, STREAM, "{size}");
            assert_eq!(answer["choices"][0]["message"]["content"], "hi");
        }
    }

    #[test]
    fn an_id_that_cannot_serve_is_replaced_in_every_piece() {
        let (out, answer) = through(true, 5);
        let text = String::from_utf8(out).expect("UTF-8");
        assert_eq!(text.matches("\"id\":\"b\"").count(), 2);
        assert!(
            !text.contains("\"id\":\"a\"")
                && text.contains("\"odd\":1.5")
                && text.ends_with("data: [DONE]\n\n")
        );
        assert_eq!(answer["id"], "b");
    }
}
