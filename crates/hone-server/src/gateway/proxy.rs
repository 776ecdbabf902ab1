//! Which backends are asked, in which order, and what is made of their answers.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use rand::Rng;
use serde_json::Value;

use crate::app::App;
use crate::config::seconds;
use crate::error::{ApiError, Result};
use crate::metrics::By;

use super::backend::{Backend, Kind};
use super::call::{Call, Endpoint};
use super::finish::{count, finish};
use super::record::Came;
use super::stream;
use super::upstream::Upstream;

/// Names the exchange for feedback.
pub(crate) const ID: HeaderName = HeaderName::from_static("x-hone-id");
/// Names what answered.
const BACKEND: HeaderName = HeaderName::from_static("x-hone-backend");
/// Names the variant that answered.
const VARIANT: HeaderName = HeaderName::from_static("x-hone-variant");
/// Longest `Retry-After` that is waited for; after a longer one the next backend is asked.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// First wait where the upstream names none; doubles, and a random half of it is taken off.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// How a try failed.
pub(crate) struct Failure {
    /// What the caller is told if nothing better comes.
    pub answer: Box<Response>,
    /// What may help.
    pub help: Help,
}

/// What may help after a failure.
pub(crate) enum Help {
    /// Trying again, not before this time has passed, or another backend.
    Again(Option<Duration>),
    /// Another backend.
    Other,
    /// Nothing: the request itself was refused.
    Nothing,
}

impl Failure {
    pub fn new(answer: Response, help: Help) -> Self {
        Failure { answer: Box::new(answer), help }
    }

    /// A failure that may pass.
    pub fn passing(status: StatusCode, code: &'static str, message: String) -> Self {
        Failure::new(ApiError::new(status, code, message).into_response(), Help::Again(None))
    }
}

/// Answers a call by the first backend that can, and sees to it that the exchange is stored.
pub(super) async fn answer(app: &App, mut call: Call) -> Result<Response> {
    if app.stopping.is_cancelled() {
        return Err(ApiError::unavailable("needed a service that goes on, got one that is stopping"));
    }
    let assigned = app.variants.assign(&*app.store, &call.model, call.user.as_deref()).await;
    let side = assigned.map(|(model, tag, side)| {
        call.model = model;
        call.tags.push(tag);
        side
    });
    let mut response = from_backends(app, call).await?;
    if let Some(side) = side {
        response.headers_mut().insert(VARIANT, HeaderValue::from_static(side.name()));
    }
    Ok(response)
}

async fn from_backends(app: &App, call: Call) -> Result<Response> {
    let able: Vec<&Backend> = app.backends.iter().filter(|backend| backend.serves(&call.model)).collect();
    let mut last = None;
    for (place, backend) in able.iter().enumerate() {
        if place > 0 {
            app.metrics.fallbacks.inc();
        }
        let tried = match &backend.kind {
            Kind::Upstream(upstream) => ask(app, &call, backend, upstream).await,
            Kind::Engine(engine) => engine.answer(app, &call, backend).await.map_err(|error| {
                let help = if error.status.is_server_error() { Help::Other } else { Help::Nothing };
                Failure::new(error.into_response(), help)
            }),
        };
        match tried {
            Ok(response) => return Ok(response),
            Err(Failure { answer, help: Help::Nothing }) => return Ok(*answer),
            Err(Failure { answer, .. }) => last = Some(answer),
        }
    }
    last.map(|answer| *answer).ok_or_else(|| {
        let message = format!("model: needed one that a backend serves, got {:?}", call.model);
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
    })
}

/// Asks an upstream, again where that may help.
async fn ask(app: &App, call: &Call, backend: &Backend, upstream: &Upstream) -> Result<Response, Failure> {
    let until = Instant::now() + seconds(backend.config.total_s);
    let by = By { backend: backend.config.name.clone() };
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match attempt(app, call, backend, upstream, until).await {
            Ok(response) => return Ok(response),
            Err(failure) => failure,
        };
        app.metrics.upstream_failures.get_or_create(&by).inc();
        let Help::Again(asked) = failure.help else { return Err(failure) };
        let usual = FIRST_WAIT * 2u32.saturating_pow(tries - 1).min(64);
        let wait = asked.unwrap_or_else(|| usual.mul_f64(rand::rng().random_range(0.5..=1.0)));
        if tries > backend.config.retries || wait > LONGEST_WAIT || Instant::now() + wait >= until {
            return Err(failure);
        }
        tracing::info!(backend = by.backend, tries, ?wait, "a try failed; tried again");
        app.metrics.retries.inc();
        tokio::time::sleep(wait).await;
    }
}

async fn attempt(
    app: &App,
    call: &Call,
    backend: &Backend,
    upstream: &Upstream,
    until: Instant,
) -> Result<Response, Failure> {
    let asked = Instant::now();
    let body = call.body_for(backend.own_name(&call.model));
    let response = upstream.post(&backend.config, call, body, until).await?;
    let labels = By { backend: backend.config.name.clone() };
    app.metrics.upstream_time.get_or_create(&labels).observe(asked.elapsed().as_secs_f64());
    let in_pieces = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if in_pieces {
        return stream::pass(app, call, backend, response, asked).await;
    }
    let headers = response.headers().clone();
    let status = response.status();
    let bytes = upstream.whole(response, until).await?;
    let waited = asked.elapsed();
    let answer: Value = match serde_json::from_slice(&bytes) {
        Ok(answer @ Value::Object(_)) => answer,
        _ => {
            let message =
                format!("the upstream {} gave an answer that is no JSON object", backend.config.name);
            return Err(Failure::passing(StatusCode::BAD_GATEWAY, "upstream_malformed", message));
        }
    };
    let (bytes, id) = name(app, call, answer, bytes, &backend.config.name).await;
    let mut response = (status, Body::from(bytes)).into_response();
    pass_headers(&headers, response.headers_mut());
    mark(response.headers_mut(), id.as_deref(), backend);
    let own = call.started.elapsed().saturating_sub(waited);
    app.metrics.overhead.observe(own.as_secs_f64());
    Ok(response)
}

/// Names a whole answer and sends it to the store. What comes back is to be given to the caller: the very bytes that
/// came, unless their id could not serve.
pub(super) async fn name(
    app: &App,
    call: &Call,
    mut answer: Value,
    bytes: Bytes,
    backend: &str,
) -> (Bytes, Option<String>) {
    if call.endpoint == Endpoint::Embeddings {
        count(app, &answer);
        return (bytes, None);
    }
    let theirs = answer.get("id").and_then(Value::as_str);
    let (id, new) = app.recorder.name(theirs, prefix(call.endpoint));
    let bytes = match answer.as_object_mut().filter(|_| new) {
        Some(fields) => {
            fields.insert("id".into(), id.clone().into());
            Bytes::from(answer.to_string())
        }
        None => bytes,
    };
    let latency_ms = call.started.elapsed().as_secs_f64() * 1e3;
    let came = Came { id: &id, backend, latency_ms, first_ms: None, cut: None };
    finish(app, call, &answer, &came).await;
    (bytes, Some(id))
}

pub(super) fn prefix(endpoint: Endpoint) -> &'static str {
    if endpoint == Endpoint::Chat { "chatcmpl-" } else { "cmpl-" }
}

/// What the upstream's headers say of the answer; not what they say of its connection.
pub(super) fn pass_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let own = name == CONTENT_LENGTH
            || name == SET_COOKIE
            || matches!(
                name.as_str(),
                "connection"
                    | "keep-alive"
                    | "transfer-encoding"
                    | "te"
                    | "trailer"
                    | "upgrade"
                    | "date"
                    | "server"
                    | "alt-svc"
                    | "x-request-id"
                    | "strict-transport-security"
                    | "proxy-authenticate"
            )
            || name.as_str().starts_with("access-control-");
        if !own {
            to.insert(name.clone(), value.clone());
        }
    }
}

/// Says which exchange it is and what answered.
pub(super) fn mark(headers: &mut HeaderMap, id: Option<&str>, backend: &Backend) {
    if let Some(Ok(id)) = id.map(HeaderValue::from_str) {
        headers.insert(ID, id);
    }
    if let Ok(name) = HeaderValue::from_str(&backend.config.name) {
        headers.insert(BACKEND, name);
    }
}
