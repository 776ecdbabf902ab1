//! Settings of the service, as its file has them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::start::StartError;

/// Settings of the service.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: String,
    /// Where the log is kept: a path, `sqlite:PATH` or `postgres://…`.
    pub store: String,
    /// What answers, in the order in which they are tried.
    #[serde(rename = "backend")]
    pub backends: Vec<BackendConfig>,
    /// Serve without keys on an address that others can reach.
    pub open: bool,
    /// Limits on callers.
    pub limits: Limits,
    /// Who is told of new feedback.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<WebhookConfig>,
    /// Base address of an OTLP/HTTP collector, such as `http://localhost:4318`; traces are sent to `/v1/traces`.
    pub otlp: Option<String>,
    /// Folder of run folders, whose curves the pages show.
    pub runs: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            listen: "127.0.0.1:8080".into(),
            store: "hone.db".into(),
            backends: Vec::new(),
            open: false,
            limits: Limits::default(),
            webhooks: Vec::new(),
            otlp: None,
            runs: None,
        }
    }
}

/// What answers: an OpenAI-compatible upstream (`url`) or a model folder (`folder`).
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackendConfig {
    /// Names it in logs, metrics and records.
    pub name: String,
    /// Base address, such as `https://api.openai.com/v1`.
    pub url: Option<String>,
    /// Model folder in Hugging Face layout.
    pub folder: Option<PathBuf>,
    /// Environment variable that holds the upstream's key. Without, a caller's own key is passed on while the
    /// service has no keys itself.
    pub key_env: Option<String>,
    /// Models it serves; a name may end in `*`. Empty: every one for an upstream, its own name for a folder.
    pub models: Vec<String>,
    /// The upstream's names for models, where they differ.
    pub rename: BTreeMap<String, String>,
    /// Further tries after a failure that may pass.
    pub retries: u32,
    /// Seconds to connect.
    pub connect_s: f64,
    /// Seconds until the answer starts.
    pub first_s: f64,
    /// Seconds between two pieces of an answer.
    pub idle_s: f64,
    /// Seconds for all tries together, and for a whole answer that does not stream.
    pub total_s: f64,
}

impl Default for BackendConfig {
    fn default() -> Self {
        BackendConfig {
            name: String::new(),
            url: None,
            folder: None,
            key_env: None,
            models: Vec::new(),
            rename: BTreeMap::new(),
            retries: 2,
            connect_s: 5.0,
            first_s: 120.0,
            idle_s: 60.0,
            total_s: 600.0,
        }
    }
}

/// Limits on callers.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of a batch of feedback.
    pub batch_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Seconds for a request's head.
    pub header_s: f64,
    /// Seconds for a request's body.
    pub body_s: f64,
    /// Seconds that a caller may leave a piece of an answer unread.
    pub unread_s: f64,
    /// Open connections.
    pub connections: usize,
    /// Requests per minute of a key that sets no limit of its own, and of a service without keys all together.
    pub requests_per_minute: Option<u32>,
    /// Seconds that running requests get when the service stops.
    pub drain_s: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_bytes: 20 << 20,
            batch_bytes: 256 << 20,
            headers: 100,
            header_bytes: 64 << 10,
            header_s: 30.0,
            body_s: 60.0,
            unread_s: 60.0,
            connections: 10_000,
            requests_per_minute: None,
            drain_s: 30.0,
        }
    }
}

/// Who is told of new feedback.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it is posted.
    pub url: String,
    /// Environment variable that holds the secret of the signature.
    pub secret_env: Option<String>,
    /// Forms of feedback that are told; empty: all.
    #[serde(default)]
    pub forms: Vec<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or holds something unknown.
    pub fn from_file(path: &Path) -> Result<Self, StartError> {
        let failed = |why: String| StartError::Config(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        toml::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// Names what has none, and refuses what cannot be.
    ///
    /// # Errors
    /// Says which setting needed what.
    pub fn settle(&mut self) -> Result<(), StartError> {
        let fail = |text: String| Err(StartError::Config(text));
        for (index, backend) in self.backends.iter_mut().enumerate() {
            let named = match (&backend.url, &backend.folder) {
                (Some(url), None) => match reqwest::Url::parse(url) {
                    Ok(url) if matches!(url.scheme(), "http" | "https") => {
                        url.host_str().unwrap_or("upstream").to_owned()
                    }
                    _ => {
                        return fail(format!(
                            "backend {index}: url: needed http://… or https://…, got {url:?}"
                        ));
                    }
                },
                (None, Some(folder)) => folder
                    .file_name()
                    .map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned()),
                _ => return fail(format!("backend {index}: needed either url or folder")),
            };
            if backend.name.is_empty() {
                backend.name = named;
            }
            for (field, value) in [
                ("connect_s", backend.connect_s),
                ("first_s", backend.first_s),
                ("idle_s", backend.idle_s),
                ("total_s", backend.total_s),
            ] {
                above_zero(&format!("backend {index}: {field}"), value)?;
            }
        }
        let names: std::collections::BTreeSet<&str> = self.backends.iter().map(|b| b.name.as_str()).collect();
        if names.len() < self.backends.len() {
            // Same host twice: numbered, since records and metrics tell them apart by name.
            for (index, backend) in self.backends.iter_mut().enumerate().skip(1) {
                backend.name = format!("{}-{}", backend.name, index + 1);
            }
        }
        let limits = &self.limits;
        for (field, value) in [
            ("header_s", limits.header_s),
            ("body_s", limits.body_s),
            ("unread_s", limits.unread_s),
            ("drain_s", limits.drain_s),
        ] {
            above_zero(&format!("limits.{field}"), value)?;
        }
        for (field, value, least) in [
            ("body_bytes", limits.body_bytes, 1),
            ("batch_bytes", limits.batch_bytes, 1),
            ("headers", limits.headers, 1),
            // Less would refuse what browsers send.
            ("header_bytes", limits.header_bytes, 8192),
            ("connections", limits.connections, 1),
        ] {
            if value < least {
                return fail(format!("limits.{field}: needed at least {least}, got {value}"));
            }
        }
        Ok(())
    }
}

fn above_zero(field: &str, value: f64) -> Result<(), StartError> {
    if value > 0.0 && value < 1e9 {
        return Ok(());
    }
    Err(StartError::Config(format!("{field}: needed seconds above 0, got {value}")))
}

/// Seconds that [`Config::settle`] has looked at.
pub(crate) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str) -> Result<Config, String> {
        let mut config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.settle().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let names = |config: Config| config.backends.into_iter().map(|b| b.name).collect::<Vec<_>>();
        let two = "[[backend]]\nurl = 'http://h/v1'\n[[backend]]\nfolder = 'a/tiny'\n";
        assert_eq!(settled(two).map(names), Ok(vec!["h".to_owned(), "tiny".to_owned()]));
        for (text, words) in [
            ("[[backend]]\nurl = 'ftp://h'", "backend 0: url: needed http://"),
            ("[[backend]]\nname = 'x'", "backend 0: needed either url or folder"),
            (
                "[[backend]]\nurl = 'http://h'\nfirst_s = 0",
                "backend 0: first_s: needed seconds above 0, got 0",
            ),
            ("[limits]\nheaders = 0", "limits.headers: needed at least 1, got 0"),
            ("lisen = 'x'", "unknown field `lisen`"),
        ] {
            let error = settled(text).expect_err(text);
            assert!(error.contains(words), "{error}");
        }
    }
}
