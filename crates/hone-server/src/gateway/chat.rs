//! `POST /v1/chat/completions`

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Infer};
use crate::body::Object;
use crate::error::{ErrorBody, Result};

use super::call::{Call, Endpoint};
use super::proxy;

/// A conversation to answer, as the OpenAI API has it. Fields that are not listed are passed on as they are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is passed on")]
pub(crate) struct ChatRequest {
    /// The model.
    model: String,
    /// The conversation.
    #[schema(min_items = 1)]
    messages: Vec<Map<String, Value>>,
    /// The answer in pieces, as server-sent events.
    stream: Option<bool>,
    /// Whom the answer is shown to.
    user: Option<String>,
}

/// Answers a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "gateway", request_body = ChatRequest,
    params(
        ("x-hone-user" = Option<String>, Header, description = "Whom the answer is shown to"),
        ("x-hone-session" = Option<String>, Header, description = "The session that it belongs to"),
        ("x-hone-tags" = Option<String>, Header, description = "Tags, separated by commas"),
    ),
    responses(
        (status = 200, description = "The answer as the backend gave it; its `id`, also in the header `x-hone-id`, \
            names the exchange for feedback", body = Value),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 415, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 502, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(crate) async fn chat(
    State(app): State<App>,
    allowed: Allowed<Infer>,
    headers: HeaderMap,
    body: Object,
) -> Result<Response> {
    proxy::answer(&app, Call::new(Endpoint::Chat, &allowed.0, &headers, body)?).await
}
