//! `POST /v1/completions`

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Infer};
use crate::body::Object;
use crate::error::{ErrorBody, Result};

use super::call::{Call, Endpoint};
use super::proxy;

/// Text to continue, as the OpenAI API has it. Fields that are not listed are passed on as they are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is passed on")]
pub(crate) struct CompletionRequest {
    /// The model.
    model: String,
    /// Text, several texts, or tokens.
    prompt: Value,
    /// The text in pieces, as server-sent events.
    stream: Option<bool>,
    /// Whom it is shown to.
    user: Option<String>,
}

/// Continues text.
#[utoipa::path(post, path = "/v1/completions", tag = "gateway", request_body = CompletionRequest,
    responses(
        (status = 200, description = "The answer as the backend gave it", body = Value),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 415, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 502, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(crate) async fn completions(
    State(app): State<App>,
    allowed: Allowed<Infer>,
    headers: HeaderMap,
    body: Object,
) -> Result<Response> {
    proxy::answer(&app, Call::new(Endpoint::Completions, &allowed.0, &headers, body)?).await
}
