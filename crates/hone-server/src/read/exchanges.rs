//! Exchanges: a search, and one of them.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ApiError, ErrorBody, Result};
use crate::read::{Exchange, Filter};

/// Part of what was found, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExchangeList {
    data: Vec<Exchange>,
    /// Where to go on, as `before`; null at the end.
    next: Option<i64>,
}

/// A run that used an exchange.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsedBy {
    id: String,
    /// What it made.
    model: String,
}

/// An exchange with the runs that used it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeExchange {
    #[serde(flatten)]
    exchange: Exchange,
    /// The runs that used it.
    runs: Vec<UsedBy>,
    /// As it is stored: a line of a Hone log.
    #[schema(value_type = Object)]
    record: Value,
}

/// Exchanges that keep every condition, newest first.
#[utoipa::path(get, path = "/api/exchanges", tag = "log", params(Filter),
    responses((status = 200, body = ExchangeList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn list(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(filter): Query<Filter>,
) -> Result<Json<ExchangeList>> {
    let page = app.store.search(filter.query(50)?).await?;
    Ok(Json(ExchangeList { data: page.hits.iter().map(Exchange::from).collect(), next: page.next }))
}

/// One exchange, by its own id or by that of an answer.
#[utoipa::path(get, path = "/api/exchanges/{id}", tag = "log", params(("id" = String, Path)),
    responses((status = 200, body = WholeExchange), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn one(
    State(app): State<App>,
    _: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<WholeExchange>> {
    let record = app.store.get(&id).await?.ok_or_else(|| ApiError::missing("exchange", &id))?;
    let runs = app.store.runs_of(&record.id).await?;
    Ok(Json(WholeExchange {
        exchange: Exchange::from(&record),
        runs: runs.into_iter().map(|run| UsedBy { id: run.id, model: run.model }).collect(),
        record: serde_json::to_value(&record).unwrap_or_default(),
    }))
}
