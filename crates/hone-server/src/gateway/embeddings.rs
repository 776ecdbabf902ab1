//! `POST /v1/embeddings`. Vectors are not stored: nobody says anything about them.

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

/// Texts to turn into vectors, as the OpenAI API has it. Fields that are not listed are passed on as they are.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is passed on")]
pub(crate) struct EmbeddingRequest {
    /// The model.
    model: String,
    /// Text, several texts, or tokens.
    input: Value,
}

/// Turns texts into vectors.
#[utoipa::path(post, path = "/v1/embeddings", tag = "gateway", request_body = EmbeddingRequest,
    responses(
        (status = 200, description = "The vectors as the backend gave them", body = Value),
        (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 415, body = ErrorBody), (status = 429, body = ErrorBody),
        (status = 502, body = ErrorBody), (status = 503, body = ErrorBody), (status = 504, body = ErrorBody)))]
pub(crate) async fn embeddings(
    State(app): State<App>,
    allowed: Allowed<Infer>,
    headers: HeaderMap,
    body: Object,
) -> Result<Response> {
    proxy::answer(&app, Call::new(Endpoint::Embeddings, &allowed.0, &headers, body)?).await
}
