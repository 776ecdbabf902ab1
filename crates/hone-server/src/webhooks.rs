//! Notes of new feedback to other programs: signed, tried again, in the order in which it was stored.
//!
//! The signature is HMAC-SHA256 (RFC 2104) over the time in `x-hone-timestamp`, a full stop, and the body; the time is
//! under it so that a note that somebody caught cannot be sent again later.

use std::time::Duration;

use hmac::{Hmac, Mac};
use hone_feedback::Feedback;
use hone_store::Receipt;
use serde_json::json;
use sha2::Sha256;
use tokio::sync::mpsc;

use crate::app::App;
use crate::auth::hex;
use crate::config::WebhookConfig;
use crate::start::StartError;

/// Notes that wait for one receiver; beyond, they are dropped and counted.
const WAITING: usize = 10_000;
/// Waits between tries, in seconds.
const WAITS: [u64; 5] = [1, 2, 5, 15, 60];
/// Time for one try.
const LIMIT: Duration = Duration::from_secs(10);

/// Everyone who is told.
pub(crate) struct Webhooks(Vec<Hook>);

struct Hook {
    forms: Vec<String>,
    queue: mpsc::Sender<String>,
}

/// A receiver with what is on its way to it.
pub(crate) struct Carrier {
    url: String,
    secret: Option<String>,
    http: reqwest::Client,
    queue: mpsc::Receiver<String>,
}

impl Webhooks {
    /// The queues, and those who empty them, to be started once there is an [`App`].
    ///
    /// # Errors
    /// An address or a secret that cannot be.
    pub fn new(configs: &[WebhookConfig]) -> Result<(Self, Vec<Carrier>), StartError> {
        let mut hooks = Vec::new();
        let mut carriers = Vec::new();
        for (index, config) in configs.iter().enumerate() {
            let fail = |text: String| StartError::Config(format!("webhook {index}: {text}"));
            match reqwest::Url::parse(&config.url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") => {}
                _ => return Err(fail("url: needed http://… or https://…".into())),
            }
            if let Some(form) =
                config.forms.iter().find(|form| hone_feedback::FormKind::named(form).is_none())
            {
                return Err(fail(format!("forms: needed forms of feedback, got {form:?}")));
            }
            let secret = match &config.secret_env {
                None => None,
                Some(variable) => Some(std::env::var(variable).map_err(|_| {
                    fail(format!(
                        "secret_env: needed a secret in the environment variable {variable}, got none"
                    ))
                })?),
            };
            let _ = rustls::crypto::ring::default_provider().install_default();
            let builder =
                reqwest::Client::builder().timeout(LIMIT).redirect(reqwest::redirect::Policy::none());
            let http = builder.build().map_err(|error| fail(error.to_string()))?;
            let (sender, queue) = mpsc::channel(WAITING);
            hooks.push(Hook { forms: config.forms.clone(), queue: sender });
            carriers.push(Carrier { url: config.url.clone(), secret, http, queue });
        }
        Ok((Webhooks(hooks), carriers))
    }

    /// Tells of stored feedback. Never waits.
    pub fn tell(&self, app: &App, receipt: &Receipt, feedback: &Feedback) {
        let form = feedback.form.kind().name();
        let wanted = |hook: &&Hook| hook.forms.is_empty() || hook.forms.iter().any(|wanted| wanted == form);
        let mut note = None;
        for hook in self.0.iter().filter(wanted) {
            let text = note.get_or_insert_with(|| {
                json!({"type": "feedback", "id": receipt.id, "state": receipt.state, "feedback": feedback}).to_string()
            });
            if hook.queue.try_send(text.clone()).is_err() {
                app.metrics.webhook_failures.inc();
            }
        }
    }
}

impl Carrier {
    /// Delivers notes until the service stops, then what is left.
    pub async fn work(mut self, app: App) {
        loop {
            let note = tokio::select! {
                biased;
                note = self.queue.recv() => note,
                () = app.stopping.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(note) = note else { return };
            self.deliver(&app, &note).await;
        }
    }

    async fn deliver(&self, app: &App, note: &str) {
        for wait in WAITS.iter().map(Some).chain([None]) {
            let time = jiff::Timestamp::now().as_second();
            let mut request = self.http.post(&self.url).header("content-type", "application/json");
            request = request.header("x-hone-timestamp", time.to_string());
            if let Some(secret) = &self.secret {
                request = request.header("x-hone-signature", format!("sha256={}", sign(secret, time, note)));
            }
            let why = match request.body(note.to_owned()).send().await {
                Ok(answer) if answer.status().is_success() => {
                    app.metrics.webhooks.inc();
                    return;
                }
                Ok(answer) => format!("status {}", answer.status().as_u16()),
                Err(error) => error.without_url().to_string(),
            };
            match wait {
                Some(_) if app.stopping.is_cancelled() => {}
                Some(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
                None => {
                    tracing::warn!(why, "a note of feedback could not be delivered");
                    app.metrics.webhook_failures.inc();
                }
            }
        }
    }
}

/// The signature of a note.
fn sign(secret: &str, time: i64, note: &str) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(time.to_string().as_bytes());
    mac.update(b".");
    mac.update(note.as_bytes());
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        // python3 -c "import hmac; print(hmac.new(b'Jefe', b'7.what do ya want for nothing?', 'sha256').hexdigest())"
        let expected = "239f4b39fd23f4376db46b239fae471e7c6824b3931bc60f4c0b745bef8de34f";
        assert_eq!(sign("Jefe", 7, "what do ya want for nothing?"), expected);
    }
}
