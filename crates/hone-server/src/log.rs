//! What was stored: exchanges to search and read, the whole log out and in, and a person's part deleted.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hone_feedback::{FormKind, formats};
use hone_store::Query as Wanted;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Admin, Allowed, Read};
use crate::body;
use crate::error::{ApiError, ErrorBody, Result};

/// What to look for; every condition must hold.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Search {
    /// Words, `"phrases"` and `beginnings*`.
    text: Option<String>,
    /// The model of an answer.
    model: Option<String>,
    /// The session.
    session: Option<String>,
    /// A tag.
    tag: Option<String>,
    /// Whom it was shown to.
    user: Option<String>,
    /// Who said something about it.
    by: Option<String>,
    /// A form of feedback that it has.
    form: Option<String>,
    /// Not before this time (RFC 3339).
    since: Option<String>,
    /// Before this time (RFC 3339).
    until: Option<String>,
    /// Go on after a page: its `next`.
    before: Option<i64>,
    /// At most so many, from 1 to 1000. Without: 50.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Exchanges as the log has them, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExchangePage {
    /// Records of the log.
    data: Vec<Value>,
    /// Where to go on, as `before`. Null: there is no more.
    next: Option<i64>,
}

fn time(name: &str, text: &Option<String>) -> Result<Option<i64>> {
    let parse = |text: &String| {
        let time = text.parse::<jiff::Timestamp>();
        time.map(|time| time.as_millisecond())
            .map_err(|_| ApiError::field(name, "a time such as 2026-05-01T10:00:00Z", format!("{text:?}")))
    };
    text.as_ref().map(parse).transpose()
}

/// The form of this name.
pub(crate) fn form(name: &str) -> Result<FormKind> {
    FormKind::named(name).ok_or_else(|| {
        let names = FormKind::ALL.map(FormKind::name).join(", ");
        ApiError::field("form", &format!("one of {names}"), format!("{name:?}"))
    })
}

/// Searches exchanges.
#[utoipa::path(get, path = "/v1/exchanges", tag = "log", params(Search),
    responses((status = 200, body = ExchangePage), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn search(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(search): Query<Search>,
) -> Result<Json<ExchangePage>> {
    let limit = search.limit.unwrap_or(50);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::field("limit", "a number from 1 to 1000", limit));
    }
    let wanted = Wanted {
        form: search.form.as_deref().map(form).transpose()?,
        since: time("since", &search.since)?,
        until: time("until", &search.until)?,
        text: search.text,
        model: search.model,
        session: search.session,
        tag: search.tag,
        user: search.user,
        by: search.by,
        // Numbers of exchanges beyond this do not occur.
        before: search.before.map(|before| before.clamp(0, 1 << 40)),
        limit,
    };
    let page = app.store.search(wanted).await?;
    let data = page.hits.iter().map(|record| json!(record)).collect();
    Ok(Json(ExchangePage { data, next: page.next }))
}

/// One exchange, by its id or that of one of its answers, with all that was said about it.
#[utoipa::path(get, path = "/v1/exchanges/{id}", tag = "log", params(("id" = String, Path)),
    responses((status = 200, body = Value), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn exchange(
    State(app): State<App>,
    _: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<Value>> {
    let record = app.store.get(&id).await?;
    Ok(Json(json!(record.ok_or_else(|| ApiError::missing("exchange", &id))?)))
}

/// Feedback whose answer is not stored, or that did not fit the one that came.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WaitingItem {
    id: String,
    /// What it names.
    names: String,
    /// Why it did not fit. Null: nothing came yet.
    fault: Option<String>,
    feedback: Value,
}

/// Feedback that waits for its answer.
#[utoipa::path(get, path = "/v1/feedback/waiting", tag = "log",
    responses((status = 200, body = Vec<WaitingItem>), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn waiting(State(app): State<App>, _: Allowed<Read>) -> Result<Json<Vec<WaitingItem>>> {
    let items = app.store.waiting().await?.into_iter().map(|item| WaitingItem {
        id: item.id,
        names: item.names,
        fault: item.fault,
        feedback: json!(item.feedback),
    });
    Ok(Json(items.collect()))
}

/// The whole log, a record per line, in the order in which it was stored.
#[utoipa::path(get, path = "/v1/export", tag = "log",
    responses((status = 200, description = "A Hone log", content_type = "application/x-ndjson", body = String),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn export(State(app): State<App>, _: Allowed<Read>) -> Result<Response> {
    // The first part is read before the status is sent.
    let first = app.store.lines(0, 500).await?;
    let parts = futures_util::stream::unfold(Some(Ok(first)), move |part: Option<hone_store::Result<_>>| {
        let app = app.clone();
        async move {
            let part = match part? {
                Ok(part) => part,
                // A body that ends with an error is not taken for a whole log.
                Err(error) => return Some((Err(std::io::Error::other(error)), None)),
            };
            let hone_store::Lines { lines, next } = part;
            let text: String = lines.into_iter().map(|line| line + "\n").collect();
            let next = match next {
                Some(place) => Some(app.store.lines(place, 500).await),
                None => None,
            };
            Some((Ok(Bytes::from(text)), next))
        }
    });
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(parts)).into_response())
}

/// What an import stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportBody {
    /// Records that were not there.
    records: u64,
    /// Records that were there, to which was added what was new.
    merged: u64,
    /// Answers added.
    responses: u64,
    /// Items of feedback added.
    feedback: u64,
    /// Lines that were left out.
    refused: u64,
    /// The first of those, and why.
    errors: Vec<String>,
}

/// Stores a log: a record per line, in Hone's format or another that it knows by its fields.
#[utoipa::path(post, path = "/v1/import", tag = "log",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = ImportBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn import(
    State(app): State<App>,
    _: Allowed<Admin>,
    request: Request,
) -> Result<Json<ImportBody>> {
    let limit = app.config.limits.batch_bytes;
    let bytes = body::read(request, &app, limit, body::is_lines, "application/x-ndjson").await?;
    let stream = Box::new(std::io::Cursor::new(bytes));
    let reader = formats::open_stream("import.jsonl", stream, &formats::Options::default());
    let reader = reader.map_err(|error| ApiError::field("body", "a log", error))?;
    let done = hone_store::import(&*app.store, reader).await?;
    let errors = done.problems.first.iter().map(ToString::to_string).collect();
    Ok(Json(ImportBody {
        records: done.records,
        merged: done.merged,
        responses: done.responses,
        feedback: done.feedback,
        refused: done.problems.count,
        errors,
    }))
}

/// What was deleted of a person.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ForgottenBody {
    /// Items of feedback.
    feedback: usize,
    /// Exchanges.
    exchanges: Vec<String>,
    /// Runs that had used any of it, each with what it made.
    runs: Vec<Value>,
}

/// Deletes all that a person said or was shown, and says which runs had used any of it.
#[utoipa::path(delete, path = "/v1/people/{person}", tag = "log", params(("person" = String, Path)),
    responses((status = 200, body = ForgottenBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn forget(
    State(app): State<App>,
    _: Allowed<Admin>,
    Path(person): Path<String>,
) -> Result<Json<ForgottenBody>> {
    let gone = app.store.forget(&person).await?;
    let runs = gone.runs.iter().map(|run| json!(run)).collect();
    Ok(Json(ForgottenBody { feedback: gone.feedback, exchanges: gone.exchanges, runs }))
}

/// Runs of `hone improve` that used what is stored here.
#[utoipa::path(get, path = "/v1/runs", tag = "log",
    responses((status = 200, body = Vec<Value>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn runs(State(app): State<App>, _: Allowed<Read>) -> Result<Json<Vec<Value>>> {
    Ok(Json(app.store.runs().await?.iter().map(|run| json!(run)).collect()))
}

/// The items that a run used: exchanges, or items of feedback.
#[utoipa::path(get, path = "/v1/runs/{id}/items", tag = "log", params(("id" = String, Path)),
    responses((status = 200, body = Vec<String>), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn run_items(
    State(app): State<App>,
    _: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<Vec<String>>> {
    let items = app.store.items_of(&id).await?;
    if items.is_empty() && !app.store.runs().await?.iter().any(|run| run.id == id) {
        return Err(ApiError::missing("run", &id));
    }
    Ok(Json(items))
}

/// Notes that a run used items of this log, so that a deletion can name what it made.
#[utoipa::path(post, path = "/v1/runs", tag = "log", request_body = RunNote,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn note_run(
    State(app): State<App>,
    _: Allowed<Admin>,
    note: body::Object,
) -> Result<StatusCode> {
    let note: RunNote = serde_json::from_value(Value::Object(note.fields))
        .map_err(|error| ApiError::field("body", "an object of id, model and items", error))?;
    app.store.record_run(hone_store::Run { id: note.id, model: note.model }, note.items).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A run and what it used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunNote {
    /// The run.
    id: String,
    /// What it made.
    model: String,
    /// Ids of exchanges and of items of feedback.
    items: Vec<String>,
}
