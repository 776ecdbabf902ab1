//! A request of the OpenAI API, as far as the service itself looks at it.

use std::time::Instant;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde_json::{Map, Value};

use crate::auth::Caller;
use crate::body::{Object, kind};
use crate::error::{ApiError, Result};

/// Which part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completions,
    Embeddings,
}

impl Endpoint {
    /// Below the base address.
    pub fn path(self) -> &'static str {
        match self {
            Endpoint::Chat => "chat/completions",
            Endpoint::Completions => "completions",
            Endpoint::Embeddings => "embeddings",
        }
    }

    /// The field that holds what is asked.
    pub fn asks(self) -> &'static str {
        match self {
            Endpoint::Chat => "messages",
            Endpoint::Completions => "prompt",
            Endpoint::Embeddings => "input",
        }
    }
}

/// A request under way.
pub(crate) struct Call {
    pub endpoint: Endpoint,
    /// As it came, for upstreams.
    pub bytes: Bytes,
    pub fields: Map<String, Value>,
    /// The model that was asked for, or the one of the caller's variant.
    pub model: String,
    pub stream: bool,
    /// Whom the answer is shown to.
    pub user: Option<String>,
    pub session: Option<String>,
    pub tags: Vec<String>,
    /// The caller's own key of an upstream, while the service has no keys.
    pub passed_key: Option<HeaderValue>,
    pub started: Instant,
    /// When it came.
    pub at: jiff::Timestamp,
}

impl Call {
    /// Looks at a request.
    ///
    /// # Errors
    /// A field that the service needs and that is not as it must be. All others are for the backend to judge.
    pub fn new(endpoint: Endpoint, caller: &Caller, headers: &HeaderMap, body: Object) -> Result<Self> {
        let Object { bytes, fields } = body;
        let model = text(&fields, "model")?.ok_or_else(|| ApiError::field("model", "text", "nothing"))?;
        let asked = fields.get(endpoint.asks()).unwrap_or(&Value::Null);
        let (fits, needed) = match endpoint {
            Endpoint::Chat => (asked.as_array().is_some_and(|list| !list.is_empty()), "a list of messages"),
            _ => (asked.is_string() || asked.is_array(), "text or a list"),
        };
        if !fits {
            let got = if asked.is_null() { "nothing".into() } else { kind(asked) };
            return Err(ApiError::field(endpoint.asks(), needed, got));
        }
        let stream = match fields.get("stream") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(stream)) => *stream,
            Some(other) => return Err(ApiError::field("stream", "true or false", kind(other))),
        };
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let metadata = |name: &str| Some(fields.get("metadata")?.get(name)?.as_str()?.to_owned());
        let plain = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let tags = header("x-hone-tags").unwrap_or_default();
        let passed_key = caller.key.is_none().then(|| headers.get(AUTHORIZATION).cloned()).flatten();
        Ok(Call {
            endpoint,
            model: model.to_owned(),
            stream: stream && endpoint != Endpoint::Embeddings,
            user: header("x-hone-user")
                .or_else(|| plain("user"))
                .or_else(|| plain("safety_identifier"))
                .or_else(|| metadata("user_id")),
            session: header("x-hone-session").or_else(|| metadata("session_id")),
            tags: tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            passed_key: passed_key.map(|mut key| {
                key.set_sensitive(true);
                key
            }),
            started: Instant::now(),
            at: jiff::Timestamp::now(),
            bytes,
            fields,
        })
    }

    /// The same call, for work that goes on after its handler. The bytes are shared, the fields copied.
    pub fn copy(&self) -> Call {
        Call {
            endpoint: self.endpoint,
            bytes: self.bytes.clone(),
            fields: self.fields.clone(),
            model: self.model.clone(),
            stream: self.stream,
            user: self.user.clone(),
            session: self.session.clone(),
            tags: self.tags.clone(),
            passed_key: None,
            started: self.started,
            at: self.at,
        }
    }

    /// The body with the backend's own name of the model; the very bytes that came where that is the same.
    pub fn body_for(&self, model: &str) -> Bytes {
        if self.fields.get("model").and_then(Value::as_str) == Some(model) {
            return self.bytes.clone();
        }
        let mut fields = self.fields.clone();
        fields.insert("model".into(), model.into());
        Bytes::from(Value::Object(fields).to_string())
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(other) => Err(ApiError::field(name, "text", kind(other))),
    }
}
