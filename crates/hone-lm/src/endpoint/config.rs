//! Where an endpoint is and how it may be used.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::price::PriceTable;
use crate::error::{Error, Result};
use crate::model::Capabilities;

/// Settings of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Base address, such as `https://api.example.com/v1`. Without credentials.
    pub url: String,
    /// Model to ask for.
    pub model: String,
    /// Environment variable that holds the key; without, none is sent.
    pub api_key_env: Option<String>,
    /// Which fields it knows beyond the common ones.
    pub dialect: Dialect,
    /// Folder with the model's tokenizer and chat template, so that continuations of conversations can be scored.
    pub template: Option<PathBuf>,
    /// What it can do. Without, it is asked at start by a few calls of one to eight tokens.
    pub capabilities: Option<Capabilities>,
    /// Calls in flight at most.
    pub concurrency: usize,
    /// Tries, delays, time limits.
    pub retry: Retry,
    /// Time limits of one call.
    pub limits: TimeLimits,
    /// Calls started per minute at most.
    pub requests_per_minute: Option<u32>,
    /// Tokens per minute at most; prompts are estimated at four bytes per token until their count is known.
    pub tokens_per_minute: Option<u32>,
    /// Folder for answers, so that the same request is not paid twice.
    pub cache: Option<PathBuf>,
    /// Prices by model.
    pub prices: PriceTable,
    /// Keeps the whole answer in [`crate::Generation::raw`].
    pub capture_raw: bool,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        EndpointConfig {
            url: String::new(),
            model: String::new(),
            api_key_env: None,
            dialect: Dialect::OpenAi,
            template: None,
            capabilities: None,
            concurrency: 64,
            retry: Retry::default(),
            limits: TimeLimits::default(),
            requests_per_minute: None,
            tokens_per_minute: None,
            cache: None,
            prices: PriceTable::default(),
            capture_raw: false,
        }
    }
}

impl EndpointConfig {
    /// An endpoint without a key.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        EndpointConfig { url: url.into(), model: model.into(), ..EndpointConfig::default() }
    }

    /// The base address without a slash at its end.
    ///
    /// # Errors
    /// [`Error::Endpoint`] for what is no HTTP address, or one that carries credentials.
    pub(super) fn base(&self) -> Result<String> {
        let wrong =
            |message: &str| Error::Endpoint { url: hide_credentials(&self.url), message: message.into() };
        let url = reqwest::Url::parse(&self.url)
            .map_err(|e| wrong(&format!("url: needs an address such as http://host:8000/v1, got {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("url: needs http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("url: needs no user, password or query; give the key by api_key_env"));
        }
        if self.concurrency == 0 {
            return Err(wrong("concurrency: needs at least 1, got 0"));
        }
        if self.retry.attempts == 0 {
            return Err(wrong("retry.attempts: needs at least 1, got 0"));
        }
        Ok(self.url.trim_end_matches('/').to_owned())
    }
}

/// The part of an address that may be shown.
fn hide_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let rest = rest.split('?').next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// Which server it is, as far as requests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The common API: JSON schemas by `response_format`, no top-k, min-p or repetition penalty.
    #[default]
    OpenAi,
    /// As `openai`, with `max_completion_tokens` in the place of `max_tokens`, which its reasoning models refuse.
    #[serde(rename = "openai-reasoning")]
    OpenAiReasoning,
    /// vLLM: expressions and grammars by `structured_outputs`, and the further sampling settings.
    Vllm,
    /// SGLang: expressions by `regex`, grammars by `ebnf`, and the further sampling settings.
    Sglang,
}

/// How often and when a failed call is made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Tries in all. At least 1.
    pub attempts: u32,
    /// Wait before the second try, in seconds; doubles with each, and a random half of it is taken off.
    pub first_wait_s: f64,
    /// Longest wait between tries, in seconds.
    pub longest_wait_s: f64,
    /// Longest `Retry-After` that is waited for, in seconds; a longer one ends the request.
    pub longest_retry_after_s: f64,
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: 6, first_wait_s: 0.5, longest_wait_s: 30.0, longest_retry_after_s: 120.0 }
    }
}

/// Time limits of one call, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeLimits {
    /// Until the connection stands.
    pub connect_s: f64,
    /// Between two parts of the answer, and until the first.
    pub idle_s: f64,
    /// In all.
    pub total_s: f64,
}

impl Default for TimeLimits {
    fn default() -> Self {
        TimeLimits { connect_s: 10.0, idle_s: 120.0, total_s: 600.0 }
    }
}

/// Seconds of a setting; never negative, never beyond a year.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(if value.is_nan() { 0.0 } else { value.clamp(0.0, 3.2e7) })
}

/// A key that is never printed.
#[derive(Clone)]
pub(super) struct ApiKey(String);

impl ApiKey {
    /// The key from an environment variable.
    pub(super) fn from_env(variable: &str, url: &str) -> Result<Self> {
        match std::env::var(variable) {
            Ok(key) if !key.trim().is_empty() => Ok(ApiKey(key.trim().to_owned())),
            _ => Err(Error::Endpoint {
                url: url.to_owned(),
                message: format!("api_key_env: the environment variable {variable} is not set"),
            }),
        }
    }

    pub(super) fn header(&self) -> Option<reqwest::header::HeaderValue> {
        let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The text without the key, should a server send it back.
    pub(super) fn scrub(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let base = |url: &str| EndpointConfig::new(url, "m").base().map_err(|e| e.to_string());
        assert_eq!(base("http://h:8000/v1/").as_deref(), Ok("http://h:8000/v1"));
        for url in ["", "h/v1", "ftp://h/v1", "https://user:secret@h/v1", "https://h/v1?key=secret"] {
            let error = base(url).expect_err(url);
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKey("sk-secret".into());
        assert_eq!(format!("{key:?}"), "ApiKey(***)");
        assert_eq!(key.scrub("bad key sk-secret!"), "bad key ***!");
        assert!(!format!("{:?}", key.header()).contains("secret"));
    }
}
