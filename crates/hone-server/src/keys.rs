//! Keys over HTTP; `hone serve keys` does the same on the store itself.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use hone_store::Key;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Admin, Allowed, Scope, new_key};
use crate::body::{Object, kind};
use crate::error::{ApiError, ErrorBody, Result};

/// A key without its secret, of which only a digest is kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyEntry {
    id: String,
    name: String,
    scopes: Vec<String>,
    /// Requests per minute, where limited.
    per_minute: Option<i64>,
    /// Milliseconds since 1970.
    created: i64,
    /// Milliseconds since 1970; null while it counts.
    revoked: Option<i64>,
}

/// All keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    data: Vec<KeyEntry>,
}

/// A key just made. The secret is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKey {
    secret: String,
    #[serde(flatten)]
    key: KeyEntry,
}

/// What a new key is to be.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "the fields are read one by one, so that errors name them")]
pub(crate) struct KeyOrder {
    /// What it is for.
    name: String,
    /// What it may do.
    scopes: Vec<Scope>,
    /// Requests per minute.
    #[schema(minimum = 1)]
    per_minute: Option<u32>,
}

impl From<Key> for KeyEntry {
    fn from(key: Key) -> Self {
        let Key { id, name, hash: _, scopes, per_minute, created, revoked } = key;
        KeyEntry { id, name, scopes, per_minute, created, revoked }
    }
}

/// Every key, also those that ended.
#[utoipa::path(get, path = "/v1/keys", tag = "keys",
    responses((status = 200, body = KeyList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn list(State(app): State<App>, _: Allowed<Admin>) -> Result<Json<KeyList>> {
    let data = app.store.keys().await?.into_iter().map(KeyEntry::from).collect();
    Ok(Json(KeyList { data }))
}

/// Makes a key. From the first one on, every caller needs one.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = KeyOrder,
    responses((status = 201, body = MadeKey), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 409, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 422, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn add(
    State(app): State<App>,
    _: Allowed<Admin>,
    order: Object,
) -> Result<(StatusCode, Json<MadeKey>)> {
    let (name, scopes, per_minute) = parse(&order)?;
    // The first key closes the service; without the right to make others nobody could open it again but by command.
    if !app.keys.needed().await? && !scopes.contains(&Scope::Admin) {
        let message = "scopes: needed admin for the first key, got a key that could make no other";
        return Err(ApiError::new(StatusCode::CONFLICT, "first_key", message).at("scopes"));
    }
    let made = new_key(&name, &scopes, per_minute);
    app.store.add_key(made.stored.clone()).await?;
    app.keys.reread().await?;
    Ok((StatusCode::CREATED, Json(MadeKey { secret: made.secret, key: made.stored.into() })))
}

fn parse(order: &Object) -> Result<(String, Vec<Scope>, Option<u32>)> {
    let nothing = Value::Null;
    let field = |name: &str| order.fields.get(name).unwrap_or(&nothing);
    let got = |value: &Value| if value.is_null() { "nothing".into() } else { kind(value) };
    let name = field("name").as_str().filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| ApiError::field("name", "text", got(field("name"))))?;
    let needed = "a list of some of infer, feedback, read, admin";
    let wrong = || ApiError::field("scopes", needed, got(field("scopes")));
    let mut scopes = Vec::new();
    for scope in field("scopes").as_array().ok_or_else(wrong)? {
        let named = scope.as_str().and_then(Scope::named);
        scopes.push(named.ok_or_else(|| ApiError::field("scopes", needed, kind(scope)))?);
    }
    if scopes.is_empty() {
        return Err(wrong());
    }
    let per_minute = match field("per_minute") {
        Value::Null => None,
        value => {
            let limit = value.as_u64().and_then(|limit| u32::try_from(limit).ok()).filter(|limit| *limit > 0);
            Some(limit.ok_or_else(|| ApiError::field("per_minute", "a whole number from 1", kind(value)))?)
        }
    };
    Ok((name.to_owned(), scopes, per_minute))
}

/// Ends a key at once.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "keys", params(("id" = String, Path)),
    responses((status = 204), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    _: Allowed<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode> {
    app.store.revoke_key(&id).await?;
    app.keys.reread().await?;
    Ok(StatusCode::NO_CONTENT)
}
