//! Sessions of people on pages: a key is given once and stands behind a cookie that no script reads. What changes
//! something needs a second token in a header, which a page of another site cannot know.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use rand::RngCore;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, digest, hex, refuse_other_origins};
use crate::body::{Object, kind};
use crate::error::{ApiError, ErrorBody, Result};

/// The cookie.
const NAME: &str = "hone_session";
/// How long a session lasts without use.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// Sessions at once; beyond, the one that was not used for longest ends.
const MOST: usize = 10_000;

/// Everyone who is signed in, by a digest of the cookie. A restart ends all sessions.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    /// The digest of the key.
    key: String,
    csrf: String,
    used: Instant,
}

fn random() -> String {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes)
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == NAME).map(|(_, value)| value).next()
}

impl Sessions {
    fn start(&self, key: String) -> (String, String) {
        let (name, csrf) = (random(), random());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, session| session.used.elapsed() < LASTS);
        if all.len() >= MOST
            && let Some(oldest) =
                all.iter().min_by_key(|(_, session)| session.used).map(|(name, _)| name.clone())
        {
            all.remove(&oldest);
        }
        all.insert(digest(&name), Session { key, csrf: csrf.clone(), used: Instant::now() });
        (name, csrf)
    }

    fn end(&self, headers: &HeaderMap) {
        if let Some(name) = cookie(headers) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest(name));
        }
    }

    /// The digest of the key behind the request's cookie, if there is a session.
    ///
    /// # Errors
    /// A request that changes something without the session's token, or from another site.
    pub fn key(&self, method: &Method, headers: &HeaderMap) -> Result<Option<String>> {
        let Some(name) = cookie(headers) else { return Ok(None) };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = all.get_mut(&digest(name)).filter(|session| session.used.elapsed() < LASTS)
        else {
            return Ok(None);
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            refuse_other_origins(headers, false)?;
            let token = headers.get("x-csrf-token").and_then(|value| value.to_str().ok());
            // Digests are compared, so that the time it takes says nothing of the token.
            if token.map(digest) != Some(digest(&session.csrf)) {
                let message = "x-csrf-token: needed the session's token, got another or none";
                return Err(ApiError::new(StatusCode::FORBIDDEN, "csrf", message).at("x-csrf-token"));
            }
        }
        session.used = Instant::now();
        Ok(Some(session.key.clone()))
    }

    fn csrf(&self, headers: &HeaderMap) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(all.get(&digest(cookie(headers)?))?.csrf.clone())
    }
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionBody {
    /// Whether the service has no keys, so that nobody needs one.
    open: bool,
    /// What the key is for.
    name: Option<String>,
    /// What it may do.
    scopes: Vec<String>,
    /// To be sent as `x-csrf-token` with everything that changes something.
    csrf: Option<String>,
}

impl SessionBody {
    fn of(caller: &Caller, csrf: Option<String>) -> Self {
        let key = caller.key.as_ref();
        SessionBody {
            open: key.is_none(),
            name: key.map(|key| key.name.clone()),
            scopes: key.map(|key| key.scopes.clone()).unwrap_or_default(),
            csrf,
        }
    }
}

/// A key to sign in with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "read by name, so that errors name it")]
pub(crate) struct SignIn {
    /// The key.
    key: String,
}

/// Signs in: the key is checked and stands behind a cookie from then on.
#[utoipa::path(post, path = "/v1/session", tag = "keys", request_body = SignIn,
    responses((status = 200, body = SessionBody), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 415, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn sign_in(State(app): State<App>, headers: HeaderMap, body: Object) -> Result<Response> {
    refuse_other_origins(&headers, false)?;
    let given = body.fields.get("key").unwrap_or(&serde_json::Value::Null);
    let secret = given.as_str().ok_or_else(|| ApiError::field("key", "a key", kind(given)))?;
    let caller = app.keys.caller_of(&digest(secret)).await?;
    if caller.key.is_none() {
        return Ok(Json(SessionBody::of(&caller, None)).into_response());
    }
    let (name, csrf) = app.sessions.start(digest(secret));
    let https = headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
    let secure = if https { "; Secure" } else { "" };
    let set =
        format!("{NAME}={name}; HttpOnly; SameSite=Strict; Path=/; Max-Age={}{secure}", LASTS.as_secs());
    Ok(([(SET_COOKIE, set)], Json(SessionBody::of(&caller, Some(csrf)))).into_response())
}

/// Who is signed in.
#[utoipa::path(get, path = "/v1/session", tag = "keys",
    responses((status = 200, body = SessionBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn who(
    State(app): State<App>,
    method: Method,
    headers: HeaderMap,
) -> Result<Json<SessionBody>> {
    let caller = app.keys.caller(&app.sessions, &method, &headers).await?;
    Ok(Json(SessionBody::of(&caller, app.sessions.csrf(&headers))))
}

/// Signs out.
#[utoipa::path(delete, path = "/v1/session", tag = "keys",
    responses((status = 204), (status = 403, body = ErrorBody)))]
pub(crate) async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response> {
    refuse_other_origins(&headers, false)?;
    app.sessions.end(&headers);
    let gone = format!("{NAME}=; HttpOnly; SameSite=Strict; Path=/; Max-Age=0");
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, gone)]).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &str, csrf: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, format!("a=b; {NAME}={name}").parse().expect("cookie"));
        if let Some(csrf) = csrf {
            headers.insert("x-csrf-token", csrf.parse().expect("token"));
        }
        headers
    }

    #[test]
    fn what_changes_something_needs_the_token() {
        let sessions = Sessions::default();
        let (name, csrf) = sessions.start("k".into());
        let key = |method: &Method, csrf: Option<&str>| sessions.key(method, &headers(&name, csrf));
        assert_eq!(key(&Method::GET, None), Ok(Some("k".into())));
        assert_eq!(key(&Method::POST, Some(&csrf)), Ok(Some("k".into())));
        assert_eq!(key(&Method::POST, None).map_err(|error| error.code), Err("csrf"));
        assert_eq!(key(&Method::DELETE, Some("x")).map_err(|error| error.code), Err("csrf"));
        assert_eq!(sessions.key(&Method::GET, &headers("other", None)), Ok(None));
        sessions.end(&headers(&name, None));
        assert_eq!(sessions.key(&Method::GET, &headers(&name, None)), Ok(None));
    }
}
