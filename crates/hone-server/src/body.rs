//! The body of a request: read within limits of size and time, and never as something else than it says it is.

use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::{Map, Value};

use crate::app::App;
use crate::config::seconds;
use crate::error::{ApiError, Result};

/// A JSON object, and the bytes it came as.
pub(crate) struct Object {
    pub bytes: Bytes,
    pub fields: Map<String, Value>,
}

impl FromRequest<App> for Object {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self> {
        let bytes = read(request, app, app.config.limits.body_bytes, is_json, "application/json").await?;
        let fields = object(&bytes)?;
        Ok(Object { bytes, fields })
    }
}

/// A JSON object from its text.
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(ApiError::field("body", "a JSON object", kind(&other))),
        Err(error) => Err(ApiError::field("body", "JSON", error)),
    }
}

/// One word for what a value is.
pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() > 60 => "a long text".into(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}

/// Reads a body of the right type. A form that a web page posts blindly has another type, so it is never taken.
pub(crate) async fn read(
    request: Request,
    app: &App,
    limit: usize,
    fits: fn(&str) -> bool,
    needed: &str,
) -> Result<Bytes> {
    let kind = content_type(request.headers());
    if !fits(&kind) {
        let got = if kind.is_empty() { "none".to_owned() } else { format!("{kind:?}") };
        let message = format!("Content-Type: needed {needed}, got {got}");
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type", message));
    }
    let large = || {
        let message = format!("body: needed at most {limit} bytes, got more");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let told = request.headers().get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    if told.is_some_and(|told: usize| told > limit) {
        return Err(large());
    }
    let time = app.config.limits.body_s;
    let mut body = request.into_body();
    let work = async {
        let mut out = BytesMut::with_capacity(told.unwrap_or_default().min(limit).min(1 << 20));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ApiError::field("body", "to come whole", error))?;
            if let Ok(data) = frame.into_data() {
                if out.len() + data.len() > limit {
                    return Err(large());
                }
                out.extend_from_slice(&data);
            }
        }
        Ok(out.freeze())
    };
    match tokio::time::timeout(seconds(time), work).await {
        Ok(done) => done,
        Err(_) => {
            let message = format!("body: needed all of it within {time} s, got a part");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", message))
        }
    }
}

/// The type without parameters, in small letters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(crate) fn is_json(kind: &str) -> bool {
    kind == "application/json"
}

/// A line of JSON each.
pub(crate) fn is_lines(kind: &str) -> bool {
    matches!(kind, "application/x-ndjson" | "application/jsonl" | "application/x-jsonlines")
}
