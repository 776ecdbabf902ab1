//! Figures for Prometheus, with few labels: no user, no model, no key.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ErrorBody, Result};

/// What a request was for, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Request {
    /// The route's pattern, never the path itself.
    pub endpoint: String,
    pub status: u16,
}

/// A route's pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Endpoint {
    pub endpoint: String,
}

/// A backend by its configured name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct By {
    pub backend: String,
}

/// A form of feedback.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Of {
    pub form: &'static str,
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every figure. Counters are cheap: handlers add to them as they go.
pub(crate) struct Metrics {
    registry: Registry,
    pub requests: Family<Request, Counter>,
    pub request_time: Times<Endpoint>,
    pub in_flight: Gauge,
    /// Time of the service itself in a request that an upstream answered.
    pub overhead: Histogram,
    pub first_piece: Times<By>,
    pub upstream_time: Times<By>,
    pub upstream_failures: Family<By, Counter>,
    pub retries: Counter,
    pub fallbacks: Counter,
    pub prompt_tokens: Counter,
    pub completion_tokens: Counter,
    pub feedback: Family<Of, Counter>,
    pub stored: Counter,
    /// Exchanges that the store refused or could not take.
    pub unstored: Counter,
    pub webhooks: Counter,
    pub webhook_failures: Counter,
    pub spans_dropped: Counter,
}

fn times() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        300.0,
    ])
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("hone");
        let metrics = Metrics {
            requests: Family::default(),
            request_time: Family::new_with_constructor(times as fn() -> Histogram),
            in_flight: Gauge::default(),
            overhead: Histogram::new([0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 1.0]),
            first_piece: Family::new_with_constructor(times as fn() -> Histogram),
            upstream_time: Family::new_with_constructor(times as fn() -> Histogram),
            upstream_failures: Family::default(),
            retries: Counter::default(),
            fallbacks: Counter::default(),
            prompt_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            feedback: Family::default(),
            stored: Counter::default(),
            unstored: Counter::default(),
            webhooks: Counter::default(),
            webhook_failures: Counter::default(),
            spans_dropped: Counter::default(),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register("requests", "Requests by route and status", metrics.requests.clone());
        let seconds = || Unit::Seconds;
        r.register_with_unit("request", "Time to answer, by route", seconds(), metrics.request_time.clone());
        r.register("requests_in_flight", "Requests being answered", metrics.in_flight.clone());
        r.register_with_unit(
            "overhead",
            "Time of the service itself in proxied requests",
            seconds(),
            metrics.overhead.clone(),
        );
        r.register_with_unit(
            "time_to_first_token",
            "Time from a streamed request to its first piece",
            seconds(),
            metrics.first_piece.clone(),
        );
        r.register_with_unit(
            "upstream",
            "Time until a backend's answer starts",
            seconds(),
            metrics.upstream_time.clone(),
        );
        r.register("upstream_failures", "Failed tries by backend", metrics.upstream_failures.clone());
        r.register("retries", "Further tries at a backend", metrics.retries.clone());
        r.register("fallbacks", "Requests passed on to the next backend", metrics.fallbacks.clone());
        r.register("prompt_tokens", "Tokens of prompts", metrics.prompt_tokens.clone());
        r.register("completion_tokens", "Tokens of answers", metrics.completion_tokens.clone());
        r.register("feedback", "Items of feedback stored, by form", metrics.feedback.clone());
        r.register("exchanges_stored", "Exchanges stored", metrics.stored.clone());
        r.register("exchanges_unstored", "Exchanges that could not be stored", metrics.unstored.clone());
        r.register("webhooks", "Notes of feedback delivered", metrics.webhooks.clone());
        r.register("webhook_failures", "Notes of feedback given up", metrics.webhook_failures.clone());
        r.register("spans_dropped", "Traces that no collector took", metrics.spans_dropped.clone());
        Metrics { registry, ..metrics }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

/// Figures for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "OpenMetrics text", content_type = "application/openmetrics-text", body = String),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 429, body = ErrorBody))
)]
pub(crate) async fn metrics(State(app): State<App>, _: Allowed<Read>) -> Result<impl IntoResponse> {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], app.metrics.text()))
}
