//! One call to an endpoint: tries, waits, time limits, streams.

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use super::config::{ApiKey, EndpointConfig, Retry, TimeLimits, seconds};
use super::rate::Rate;
use super::stream::{Assembly, EventReader};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Answers longer than this are taken for a fault.
const LONGEST_ANSWER: usize = 256 << 20;
/// Characters of a refusal that are kept.
const LONGEST_REFUSAL: usize = 2000;

/// Makes calls.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) base: String,
    key: Option<ApiKey>,
    retry: Retry,
    limits: TimeLimits,
    requests: Option<Rate>,
    tokens: Option<Rate>,
}

/// A call to make.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// `chat/completions`, …, below the base address.
    pub(super) path: &'static str,
    /// What is sent; nothing for a GET.
    pub(super) body: Option<Value>,
    /// Whether the answer comes in pieces.
    pub(super) stream: bool,
    /// Tokens that it may cost, for the limit per minute.
    pub(super) estimate: f64,
    /// Stops it.
    pub(super) cancel: Cancel,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) answer: Value,
    /// Calls made.
    pub(super) attempts: u32,
    /// From the start of the last try to the first piece.
    pub(super) first_piece: Option<Duration>,
}

/// What happens during a call.
#[derive(Debug)]
pub(super) enum News {
    Piece(usize, String),
    Retry { attempt: u32, wait: Duration, why: String },
}

/// How a try failed.
enum Failure {
    /// Another may succeed, not before this time has passed.
    Again(String, Option<Duration>),
    Final(Error),
}

impl Client {
    pub(super) fn new(config: &EndpointConfig) -> Result<Self> {
        let base = config.base()?;
        let key = match &config.api_key_env {
            Some(variable) => Some(ApiKey::from_env(variable, &base)?),
            None => None,
        };
        let failed = |message: String| Error::Endpoint { url: base.clone(), message };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &key {
            let value =
                key.header().ok_or_else(|| failed("api_key_env: needs a key of plain characters".into()))?;
            headers.insert(AUTHORIZATION, value);
        }
        // Only the first installation in a process counts; a provider that is already there serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(seconds(config.limits.connect_s))
            .read_timeout(seconds(config.limits.idle_s))
            .pool_max_idle_per_host(config.concurrency)
            .tcp_nodelay(true)
            .redirect(reqwest::redirect::Policy::none());
        if is_local(&base) {
            builder = builder.no_proxy();
        }
        Ok(Client {
            http: builder.build().map_err(|e| failed(describe(&e)))?,
            key,
            retry: config.retry.clone(),
            limits: config.limits.clone(),
            requests: config.requests_per_minute.map(Rate::per_minute),
            tokens: config.tokens_per_minute.map(Rate::per_minute),
            base,
        })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Makes a call, again where that may help.
    ///
    /// # Errors
    /// [`Error::Status`] for a refusal, [`Error::GaveUp`] after the last try, [`Error::Cancelled`].
    pub(super) async fn call(&self, call: &Call, news: &(dyn Fn(News) + Send + Sync)) -> Result<Reply> {
        let url = self.url(call.path);
        let mut attempt = 0;
        loop {
            attempt += 1;
            self.wait_for_rate(call).await?;
            let mut assembly = Assembly::default();
            let mut first_piece = None;
            let tried = {
                let work = self.attempt(call, &url, &mut assembly, &mut first_piece, news);
                let work = tokio::time::timeout(seconds(self.limits.total_s), work);
                tokio::select! {
                    biased;
                    () = call.cancel.cancelled() => None,
                    tried = work => Some(tried),
                }
            };
            let failure = match tried {
                None => return cancelled(assembly, attempt, first_piece),
                Some(Ok(Ok(answer))) => {
                    self.correct_tokens(call, &answer);
                    return Ok(Reply { answer, attempts: attempt, first_piece });
                }
                Some(Ok(Err(failure))) => failure,
                Some(Err(_)) => Failure::Again(format!("no end after {} s", self.limits.total_s), None),
            };
            let (why, after) = match failure {
                Failure::Final(error) => return Err(error),
                Failure::Again(why, after) => (why, after),
            };
            let patience = seconds(self.retry.longest_retry_after_s);
            let too_long = after.is_some_and(|after| after > patience);
            if attempt >= self.retry.attempts || too_long {
                let last = match after {
                    Some(after) if too_long => format!("{why}; asked to wait {} s", after.as_secs_f64()),
                    _ => why,
                };
                return Err(Error::GaveUp { url, attempts: attempt, last });
            }
            let wait = backoff(&self.retry, attempt).max(after.unwrap_or_default());
            news(News::Retry { attempt, wait, why });
            tokio::select! {
                biased;
                () = call.cancel.cancelled() => return Err(Error::Cancelled),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn wait_for_rate(&self, call: &Call) -> Result<()> {
        let now = Instant::now();
        let requests = self.requests.as_ref().map_or(Duration::ZERO, |rate| rate.take(1.0, now));
        let tokens = self.tokens.as_ref().map_or(Duration::ZERO, |rate| rate.take(call.estimate, now));
        let wait = requests.max(tokens);
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => Err(Error::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    fn correct_tokens(&self, call: &Call, answer: &Value) {
        let used = answer.pointer("/usage/total_tokens").and_then(Value::as_f64);
        if let (Some(rate), Some(used)) = (&self.tokens, used) {
            rate.correct(call.estimate, used);
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        url: &str,
        assembly: &mut Assembly,
        first_piece: &mut Option<Duration>,
        news: &(dyn Fn(News) + Send + Sync),
    ) -> Result<Value, Failure> {
        let started = Instant::now();
        let method = if call.body.is_some() { Method::POST } else { Method::GET };
        let mut request = self.http.request(method, url);
        if let Some(body) = &call.body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.map_err(|e| Failure::Again(describe(&e), None))?;
        let status = response.status();
        if !status.is_success() {
            return Err(self.refusal(url, status, response).await);
        }
        if call.stream && is_event_stream(&response) {
            return self.streamed(response, assembly, started, first_piece, news).await;
        }
        let bytes = body(response).await?;
        let answer: Value = serde_json::from_slice(&bytes).map_err(|e| {
            Failure::Again(format!("an answer of {} bytes that is not JSON: {e}", bytes.len()), None)
        })?;
        match answer.get("error").filter(|e| !e.is_null()) {
            Some(error) => Err(Failure::Again(
                format!("an error in the answer: {}", self.shown(&error.to_string())),
                None,
            )),
            None => Ok(answer),
        }
    }

    async fn streamed(
        &self,
        mut response: Response,
        assembly: &mut Assembly,
        started: Instant,
        first_piece: &mut Option<Duration>,
        news: &(dyn Fn(News) + Send + Sync),
    ) -> Result<Value, Failure> {
        let mut reader = EventReader::default();
        let mut size = 0;
        let mut done = false;
        while let Some(bytes) = response.chunk().await.map_err(|e| Failure::Again(describe(&e), None))? {
            size += bytes.len();
            if size > LONGEST_ANSWER {
                return Err(Failure::Again(format!("an answer of more than {LONGEST_ANSWER} bytes"), None));
            }
            for data in reader.push(&bytes) {
                if data.trim() == "[DONE]" {
                    done = true;
                    continue;
                }
                let chunk: Value = serde_json::from_str(&data).map_err(|e| {
                    Failure::Again(format!("a piece of the answer that is not JSON: {e}"), None)
                })?;
                if let Some(error) = chunk.get("error").filter(|e| !e.is_null()) {
                    let shown = self.shown(&error.to_string());
                    return Err(Failure::Again(format!("an error in the answer: {shown}"), None));
                }
                for (choice, text) in assembly.push(&chunk) {
                    first_piece.get_or_insert_with(|| started.elapsed());
                    news(News::Piece(choice, text));
                }
            }
        }
        // Some servers leave out the last line; a choice that did not say why it ended was cut off.
        if !assembly.is_complete() {
            let end = if done { "without a finish_reason" } else { "in the middle" };
            return Err(Failure::Again(format!("an answer that ended {end} after {size} bytes"), None));
        }
        Ok(std::mem::take(assembly).finish())
    }

    async fn refusal(&self, url: &str, status: StatusCode, response: Response) -> Failure {
        let after = retry_after(response.headers());
        let body = match body(response).await {
            Ok(bytes) => self.shown(&String::from_utf8_lossy(&bytes)),
            Err(_) => "(no body)".to_owned(),
        };
        let again = matches!(status.as_u16(), 408 | 409 | 425 | 429)
            || (status.is_server_error() && !matches!(status.as_u16(), 501 | 505));
        if again {
            Failure::Again(format!("status {}: {body}", status.as_u16()), after)
        } else {
            Failure::Final(Error::Status { url: url.to_owned(), status: status.as_u16(), body })
        }
    }

    /// The start of a server's text, without the key.
    fn shown(&self, text: &str) -> String {
        let text = match &self.key {
            Some(key) => key.scrub(text),
            None => text.to_owned(),
        };
        text.chars().take(LONGEST_REFUSAL).collect()
    }
}

/// What there is of a cancelled stream, or the error.
fn cancelled(assembly: Assembly, attempts: u32, first_piece: Option<Duration>) -> Result<Reply> {
    let mut answer = assembly.finish();
    let choices = answer.get_mut("choices").and_then(Value::as_array_mut);
    let mut any = false;
    for choice in choices.into_iter().flatten() {
        any = true;
        if choice["finish_reason"].is_null() {
            choice["finish_reason"] = "cancelled".into();
        }
    }
    if any { Ok(Reply { answer, attempts, first_piece }) } else { Err(Error::Cancelled) }
}

async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|e| Failure::Again(describe(&e), None))? {
        bytes.extend_from_slice(&part);
        if bytes.len() > LONGEST_ANSWER {
            return Err(Failure::Again(format!("an answer of more than {LONGEST_ANSWER} bytes"), None));
        }
    }
    Ok(bytes)
}

fn is_event_stream(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    !kind.starts_with("application/json")
}

fn is_local(base: &str) -> bool {
    let host =
        reqwest::Url::parse(base).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

/// An error of the HTTP library with its causes, which it leaves to its source.
fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "no connection"
    } else {
        "broken connection"
    };
    let mut text = kind.to_owned();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// The wait that a server asks for: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|t| t.parse::<f64>().ok()) {
        return Some(seconds(ms / 1000.0));
    }
    let value = text(RETRY_AFTER.as_str())?;
    if let Ok(s) = value.parse::<f64>() {
        return Some(seconds(s));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    let left = date.timestamp().as_second() - jiff::Timestamp::now().as_second();
    Some(seconds(left as f64))
}

/// The wait after a failed try: doubling, capped, with a random half taken off so that many clients do not come back
/// at once.
fn backoff(retry: &Retry, attempt: u32) -> Duration {
    let doubled = retry.first_wait_s * 2f64.powi(attempt.saturating_sub(1).min(60) as i32);
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let share = 0.5 + 0.5 * (random >> 11) as f64 / (1u64 << 53) as f64;
    seconds(doubled.min(retry.longest_wait_s) * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry { first_wait_s: 1.0, longest_wait_s: 5.0, ..Retry::default() };
        for (attempt, full) in [(1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (100, 5.0)] {
            let waits: Vec<f64> = (0..50).map(|_| backoff(&retry, attempt).as_secs_f64()).collect();
            assert!(waits.iter().all(|w| (full / 2.0..=full).contains(w)), "{attempt}: {waits:?}");
            assert!(waits.iter().any(|w| w != &waits[0]), "no jitter");
        }
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let after = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).expect("value"));
            retry_after(&headers).map(|d| d.as_secs_f64())
        };
        assert_eq!(after("retry-after", "7"), Some(7.0));
        assert_eq!(after("retry-after-ms", "250"), Some(0.25));
        assert_eq!(after("retry-after", "-1"), Some(0.0));
        assert_eq!(after("retry-after", "soon"), None);
        assert_eq!(after("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), Some(0.0));
        let far = after("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT").expect("a date");
        assert!(far > 1e6, "{far}");
    }
}
