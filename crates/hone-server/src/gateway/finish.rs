//! What follows an answer: its tokens are counted, its trace is sent, its exchange is stored.

use serde_json::Value;

use crate::app::App;
use crate::otlp::Span;

use super::call::{Call, Endpoint};
use super::record::{Came, records};

/// Sees to all of it. `answer` is a whole answer of the API, also where it came in pieces.
pub(super) async fn finish(app: &App, call: &Call, answer: &Value, came: &Came<'_>) {
    count(app, answer);
    app.traces.add(app, || span(call, answer, came));
    app.recorder.keep(app, records(call, answer, came)).await;
}

fn tokens(answer: &Value, name: &str) -> Option<u64> {
    answer.get("usage")?.get(name)?.as_u64()
}

/// Counts the tokens of an answer.
pub(super) fn count(app: &App, answer: &Value) {
    app.metrics.prompt_tokens.inc_by(tokens(answer, "prompt_tokens").unwrap_or_default());
    app.metrics.completion_tokens.inc_by(tokens(answer, "completion_tokens").unwrap_or_default());
}

fn span(call: &Call, answer: &Value, came: &Came) -> Span {
    let choices = answer.get("choices").and_then(Value::as_array);
    let reasons = choices.into_iter().flatten().filter_map(|choice| choice.get("finish_reason")?.as_str());
    let start_us = call.at.as_microsecond();
    Span {
        operation: if call.endpoint == Endpoint::Chat { "chat" } else { "text_completion" },
        backend: came.backend.to_owned(),
        request_model: call.model.clone(),
        response_model: answer.get("model").and_then(Value::as_str).unwrap_or(&call.model).to_owned(),
        id: came.id.to_owned(),
        session: call.session.clone(),
        temperature: call.fields.get("temperature").and_then(Value::as_f64),
        seed: call.fields.get("seed").and_then(Value::as_i64),
        finish_reasons: reasons.map(str::to_owned).collect(),
        input_tokens: tokens(answer, "prompt_tokens"),
        output_tokens: tokens(answer, "completion_tokens"),
        first_s: came.first_ms.map(|ms| ms / 1e3),
        start_us,
        end_us: start_us + (came.latency_ms * 1e3) as i64,
        cut: came.cut,
    }
}
