//! Traces of model calls for an OpenTelemetry collector, over HTTP in OTLP's JSON encoding.
//!
//! A span per call that a backend answered, with the attribute names of the GenAI semantic conventions. Neither prompts
//! nor answers are in them. Encoding: opentelemetry-proto, `docs/specification.md`, OTLP/HTTP with JSON (ids in hex,
//! 64-bit numbers as text).

use std::time::Duration;

use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::app::App;
use crate::start::StartError;

/// Spans that wait; beyond, they are dropped and counted.
const WAITING: usize = 8192;
/// Spans of one post.
const TOGETHER: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// Time for one post.
const LIMIT: Duration = Duration::from_secs(10);

/// A call that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// `chat` or `text_completion`.
    pub operation: &'static str,
    pub backend: String,
    pub request_model: String,
    pub response_model: String,
    pub id: String,
    pub session: Option<String>,
    pub temperature: Option<f64>,
    pub seed: Option<i64>,
    pub finish_reasons: Vec<String>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    /// Seconds to the first piece of a streamed answer.
    pub first_s: Option<f64>,
    /// Microseconds since 1970.
    pub start_us: i64,
    pub end_us: i64,
    /// Who ended it early.
    pub cut: Option<&'static str>,
}

/// Where spans go; nowhere without a collector.
pub(crate) struct Traces(Option<mpsc::Sender<Span>>);

/// Carries spans to the collector.
pub(crate) struct Exporter {
    url: String,
    http: reqwest::Client,
    queue: mpsc::Receiver<Span>,
}

impl Traces {
    /// The queue, and who empties it.
    ///
    /// # Errors
    /// An address that cannot be.
    pub fn new(base: Option<&str>) -> Result<(Self, Option<Exporter>), StartError> {
        let Some(base) = base else { return Ok((Traces(None), None)) };
        let fail = |text: String| StartError::Config(format!("otlp: {text}"));
        match reqwest::Url::parse(base) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            _ => return Err(fail(format!("needed http://… or https://…, got {base:?}"))),
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            reqwest::Client::builder().timeout(LIMIT).build().map_err(|error| fail(error.to_string()))?;
        let (sender, queue) = mpsc::channel(WAITING);
        let url = format!("{}/v1/traces", base.trim_end_matches('/'));
        Ok((Traces(Some(sender)), Some(Exporter { url, http, queue })))
    }

    /// Takes a span. Never waits.
    pub fn add(&self, app: &App, span: impl FnOnce() -> Span) {
        if let Some(sender) = &self.0
            && sender.try_send(span()).is_err()
        {
            app.metrics.spans_dropped.inc();
        }
    }
}

impl Exporter {
    /// Posts spans until the service stops, then what is left.
    pub async fn work(mut self, app: App) {
        loop {
            let first = tokio::select! {
                biased;
                span = self.queue.recv() => span,
                () = app.stopping.cancelled() => self.queue.try_recv().ok(),
            };
            let Some(first) = first else { return };
            let mut spans = vec![first];
            let gather =
                tokio::time::sleep(if app.stopping.is_cancelled() { Duration::ZERO } else { GATHER });
            tokio::pin!(gather);
            while spans.len() < TOGETHER {
                tokio::select! {
                    biased;
                    span = self.queue.recv() => match span {
                        Some(span) => spans.push(span),
                        None => break,
                    },
                    () = &mut gather => break,
                }
            }
            self.post(&app, &spans).await;
        }
    }

    async fn post(&self, app: &App, spans: &[Span]) {
        let body = encode(spans).to_string();
        // One more try: a collector that restarts is back in a moment.
        for _ in 0..2 {
            let request = self.http.post(&self.url).header("content-type", "application/json");
            match request.body(body.clone()).send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => {
                    tracing::warn!(status = answer.status().as_u16(), "the collector refused spans")
                }
                Err(error) => {
                    tracing::warn!(error = %error.without_url(), "the collector did not take spans")
                }
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        app.metrics.spans_dropped.inc_by(spans.len() as u64);
    }
}

fn encode(spans: &[Span]) -> Value {
    let text = |value: &str| json!({"stringValue": value});
    let resource = json!({"attributes": [
        {"key": "service.name", "value": text("hone")},
        {"key": "service.version", "value": text(env!("CARGO_PKG_VERSION"))},
    ]});
    let scope = json!({"name": "hone-server", "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Value> = spans.iter().map(Span::encode).collect();
    json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]})
}

impl Span {
    fn encode(&self) -> Value {
        let text = |value: &str| json!({"stringValue": value});
        let whole = |value: i64| json!({"intValue": value.to_string()});
        let mut attributes = Vec::new();
        let mut add = |key: &str, value: Option<Value>| {
            attributes.extend(value.map(|value| json!({"key": key, "value": value})));
        };
        add("gen_ai.operation.name", Some(text(self.operation)));
        add("gen_ai.provider.name", Some(text(&self.backend)));
        add("gen_ai.request.model", Some(text(&self.request_model)));
        add("gen_ai.request.temperature", self.temperature.map(|value| json!({"doubleValue": value})));
        add("gen_ai.request.seed", self.seed.map(whole));
        add("gen_ai.response.id", Some(text(&self.id)));
        add("gen_ai.response.model", Some(text(&self.response_model)));
        let reasons: Vec<Value> = self.finish_reasons.iter().map(|reason| text(reason)).collect();
        let any = !reasons.is_empty();
        add("gen_ai.response.finish_reasons", any.then(|| json!({"arrayValue": {"values": reasons}})));
        add("gen_ai.usage.input_tokens", self.input_tokens.map(|tokens| whole(tokens as i64)));
        add("gen_ai.usage.output_tokens", self.output_tokens.map(|tokens| whole(tokens as i64)));
        add("gen_ai.conversation.id", self.session.as_deref().map(text));
        add("gen_ai.server.time_to_first_token", self.first_s.map(|value| json!({"doubleValue": value})));
        add("error.type", self.cut.map(text));
        let nanos = |us: i64| format!("{us}000");
        let mut rng = rand::rng();
        json!({
            "traceId": format!("{:032x}", rng.random::<u128>()),
            "spanId": format!("{:016x}", rng.random::<u64>()),
            "name": format!("{} {}", self.operation, self.request_model),
            // A client's span: it calls the model.
            "kind": 3,
            "startTimeUnixNano": nanos(self.start_us),
            "endTimeUnixNano": nanos(self.end_us),
            "attributes": attributes,
            "status": {"code": if self.cut.is_some() { 2 } else { 1 }},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_as_collectors_read_it() {
        let span = Span {
            operation: "chat",
            backend: "up".into(),
            request_model: "m".into(),
            response_model: "m-1".into(),
            id: "x".into(),
            session: None,
            temperature: Some(0.5),
            seed: None,
            finish_reasons: vec!["stop".into()],
            input_tokens: Some(3),
            output_tokens: None,
            first_s: None,
            start_us: 1_700_000_000_000_001,
            end_us: 1_700_000_000_500_000,
            cut: None,
        };
        let body = encode(&[span]);
        let span = &body["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(
            (&span["name"], &span["kind"], &span["status"]["code"]),
            (&"chat m".into(), &3.into(), &1.into())
        );
        assert_eq!(span["startTimeUnixNano"], "1700000000000001000");
        assert_eq!(span["traceId"].as_str().map(str::len), Some(32));
        let found: Vec<(&str, &Value)> = span["attributes"]
            .as_array()
            .expect("attributes")
            .iter()
            .map(|pair| (pair["key"].as_str().expect("key"), &pair["value"]))
            .collect();
        let expected = [
            ("gen_ai.operation.name", json!({"stringValue": "chat"})),
            ("gen_ai.provider.name", json!({"stringValue": "up"})),
            ("gen_ai.request.model", json!({"stringValue": "m"})),
            ("gen_ai.request.temperature", json!({"doubleValue": 0.5})),
            ("gen_ai.response.id", json!({"stringValue": "x"})),
            ("gen_ai.response.model", json!({"stringValue": "m-1"})),
            ("gen_ai.response.finish_reasons", json!({"arrayValue": {"values": [{"stringValue": "stop"}]}})),
            ("gen_ai.usage.input_tokens", json!({"intValue": "3"})),
        ];
        assert_eq!(found, expected.iter().map(|(key, value)| (*key, value)).collect::<Vec<_>>());
    }
}
