//! The catalogue of methods, as pages show it.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::app::{App, MethodPage};
use crate::auth::{Allowed, Read};
use crate::error::{ApiError, ErrorBody, Result};

/// Which methods.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Find {
    /// Words, all of which the page must hold.
    text: Option<String>,
}

/// Every method whose page holds the words.
#[utoipa::path(get, path = "/v1/methods", tag = "log", params(Find),
    responses((status = 200, body = Vec<MethodPage>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn methods(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(find): Query<Find>,
) -> Json<Vec<MethodPage>> {
    let words = find.text.unwrap_or_default().to_lowercase();
    let holds = |method: &&MethodPage| {
        let page = format!("{} {} {} {}", method.id, method.name, method.family, method.page).to_lowercase();
        words.split_whitespace().all(|word| page.contains(word))
    };
    Json(app.methods.iter().filter(holds).cloned().collect())
}

/// One method.
#[utoipa::path(get, path = "/v1/methods/{id}", tag = "log", params(("id" = String, Path)),
    responses((status = 200, body = MethodPage), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn method(
    State(app): State<App>,
    _: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<MethodPage>> {
    let found = app.methods.iter().find(|method| method.id == id).cloned();
    found.map(Json).ok_or_else(|| ApiError::missing("method", &id))
}
