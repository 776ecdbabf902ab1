//! Calls to an OpenAI-compatible upstream.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::response::IntoResponse;
use bytes::{Bytes, BytesMut};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::Value;

use crate::config::{BackendConfig, seconds};
use crate::error::ApiError;
use crate::start::StartError;

use super::call::Call;
use super::proxy::{Failure, Help, pass_headers};

/// A longer answer is taken for a fault.
const LONGEST_ANSWER: usize = 64 << 20;

/// An upstream: its address, its key, a pool of connections.
pub(crate) struct Upstream {
    http: reqwest::Client,
    base: String,
    /// Marked as sensitive, so that no log prints it.
    key: Option<HeaderValue>,
}

impl Upstream {
    /// Makes the client; nothing is sent yet.
    pub fn new(config: &BackendConfig) -> Result<Self, StartError> {
        let fail = |text: String| StartError::Config(format!("backend {}: {text}", config.name));
        let base = config.url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base).map_err(|error| fail(format!("url: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(fail("url: needed an address without a key in it; use key_env".into()));
        }
        let key = match &config.key_env {
            None => None,
            Some(variable) => {
                let needed = || {
                    fail(format!("key_env: needed a key in the environment variable {variable}, got none"))
                };
                let key = std::env::var(variable).map_err(|_| needed())?;
                let mut value =
                    HeaderValue::from_str(&format!("Bearer {}", key.trim())).map_err(|_| needed())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        // Only the first installation in a process counts; a provider that is already there serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(seconds(config.connect_s))
            .pool_max_idle_per_host(1024)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| fail(error.to_string()))?;
        Ok(Upstream { http, base, key })
    }

    /// Posts a call and waits for the head of the answer. Anything but a success is a failure.
    pub async fn post(
        &self,
        config: &BackendConfig,
        call: &Call,
        body: Bytes,
        until: Instant,
    ) -> Result<reqwest::Response, Failure> {
        let url = format!("{}/{}", self.base, call.endpoint.path());
        let mut request = self.http.post(url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = self.key.as_ref().or(call.passed_key.as_ref()) {
            request = request.header(AUTHORIZATION, key);
        }
        let limit = seconds(config.first_s).min(until.saturating_duration_since(Instant::now()));
        let response = match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.broken(config, &error)),
            Err(_) => {
                let message = format!("the upstream {} gave no answer within {limit:.1?}", config.name);
                return Err(Failure::passing(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message));
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refused(config, response, until).await)
    }

    fn broken(&self, config: &BackendConfig, error: &reqwest::Error) -> Failure {
        // The address may be nobody's business, and causes name it.
        let why = if error.is_connect() { "could not be reached" } else { "broke off" };
        tracing::warn!(backend = config.name, %error, "an upstream failed");
        let message = format!("the upstream {} {why}", config.name);
        Failure::passing(StatusCode::BAD_GATEWAY, "upstream_unreachable", message)
    }

    /// A refusal, passed on as it came where it is JSON.
    async fn refused(&self, config: &BackendConfig, response: reqwest::Response, until: Instant) -> Failure {
        let status = response.status();
        let headers = response.headers().clone();
        let body = self.whole(response, until).await.unwrap_or_default();
        let is_json = serde_json::from_slice::<Value>(&body).is_ok_and(|body| body.is_object());
        let mut answer = if is_json {
            let mut answer = (status, body).into_response();
            pass_headers(&headers, answer.headers_mut());
            answer
        } else {
            let shown = if status.is_redirection() || status.is_informational() {
                StatusCode::BAD_GATEWAY
            } else {
                status
            };
            let message = format!("the upstream {} refused with status {}", config.name, status.as_u16());
            ApiError::new(shown, "upstream_refused", message).into_response()
        };
        let again = headers.get(RETRY_AFTER).and_then(retry_after);
        if let Some(value) = headers.get(RETRY_AFTER) {
            answer.headers_mut().insert(RETRY_AFTER, value.clone());
        }
        let help = match status.as_u16() {
            408 | 409 | 425 | 429 | 500.. => Help::Again(again),
            // The model may be another backend's.
            404 => Help::Other,
            _ => Help::Nothing,
        };
        Failure::new(answer, help)
    }

    /// The whole body.
    pub async fn whole(&self, mut response: reqwest::Response, until: Instant) -> Result<Bytes, Failure> {
        let fail = |code, message: &str| Failure::passing(StatusCode::BAD_GATEWAY, code, message.to_owned());
        let mut out = BytesMut::new();
        loop {
            let limit = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(limit, response.chunk()).await {
                Ok(Ok(Some(chunk))) if out.len() + chunk.len() <= LONGEST_ANSWER => {
                    out.extend_from_slice(&chunk)
                }
                Ok(Ok(Some(_))) => {
                    return Err(fail("upstream_malformed", "the upstream's answer had no end"));
                }
                Ok(Ok(None)) => return Ok(out.freeze()),
                Ok(Err(_)) => {
                    return Err(fail("upstream_unreachable", "the upstream broke off in its answer"));
                }
                Err(_) => {
                    let message = "the upstream's answer took too long".to_owned();
                    return Err(Failure::passing(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message));
                }
            }
        }
    }

    /// What the upstream lists.
    pub async fn models(&self, config: &BackendConfig) -> Option<Vec<Value>> {
        let mut request = self.http.get(format!("{}/models", self.base));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, key);
        }
        let limit = seconds(config.first_s).min(Duration::from_secs(10));
        let response = tokio::time::timeout(limit, request.send()).await.ok()?.ok()?;
        let body = self.whole(response, Instant::now() + limit).await.ok()?;
        let mut list: Value = serde_json::from_slice(&body).ok()?;
        match list.get_mut("data")?.take() {
            Value::Array(models) => Some(models),
            _ => None,
        }
    }
}

/// Seconds, or a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let left = date.as_millisecond() - jiff::Timestamp::now().as_millisecond();
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again() {
        let after = |text: &str| retry_after(&HeaderValue::from_str(text).expect("header"));
        assert_eq!(after("2"), Some(Duration::from_secs(2)));
        assert_eq!(after("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-1"), None);
    }

    #[test]
    fn addresses_hold_no_keys() {
        for url in ["https://user:secret@h/v1", "https://h/v1?key=secret"] {
            let config =
                BackendConfig { name: "b".into(), url: Some(url.into()), ..BackendConfig::default() };
            let error = Upstream::new(&config).err().expect(url).to_string();
            assert!(error.contains("key_env") && !error.contains("secret"), "{error}");
        }
    }
}
