//! `GET /v1/models`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Infer};
use crate::error::{ApiError, ErrorBody, Result};

use super::backend::Kind;

/// Every model that is known by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<Value>,
}

/// The models of all backends. What an upstream says of a model is passed on.
#[utoipa::path(get, path = "/v1/models", tag = "gateway",
    responses((status = 200, body = ModelList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn models(State(app): State<App>, _: Allowed<Infer>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: known(&app).await.into_values().collect() })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "gateway", params(("model" = String, Path)),
    responses((status = 200, body = Value), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn model(
    State(app): State<App>,
    _: Allowed<Infer>,
    Path(model): Path<String>,
) -> Result<Json<Value>> {
    let found = known(&app).await.remove(&model);
    found.map(Json).ok_or_else(|| ApiError::missing("model", &model))
}

async fn known(app: &App) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for backend in &app.backends {
        if let Kind::Upstream(upstream) = &backend.kind {
            // An upstream that does not answer has no models now; the others' are still worth knowing.
            let listed = upstream.models(&backend.config).await.unwrap_or_default();
            for model in listed {
                if let Some(id) = model.get("id").and_then(Value::as_str)
                    && backend.serves(id)
                {
                    all.entry(id.to_owned()).or_insert(model);
                }
            }
        }
        for name in backend.models() {
            let entry = || serde_json::json!({"id": name, "object": "model", "created": 0, "owned_by": backend.config.name});
            all.entry(name.clone()).or_insert_with(entry);
        }
    }
    all
}
