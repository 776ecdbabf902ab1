//! The pages: a few files in the binary, which read and write through the API like any other program.
//!
//! Nothing that was stored is ever part of a page: scripts fetch it as JSON and put it in as text. The policy that
//! goes with every page forbids the rest: no script but these files, and no text made into markup.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;
use crate::auth::digest;
use crate::error::ApiError;

/// What a page may load and do. With Trusted Types no text can become markup, whatever a script does.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../pages/", $name)))),*]
    };
}

/// Every file by its name. The first is the page itself, whose scripts tell by the address what is shown.
static FILES: &[(&str, &str)] = files![
    "index.html",
    "style.css",
    "icon.svg",
    "api.js",
    "app.js",
    "browse.js",
    "chart.js",
    "dashboard.js",
    "dom.js",
    "draft.js",
    "label.js",
    "markdown.js",
    "methods.js",
    "panels.js",
    "rank.js",
    "runs.js",
    "signin.js",
];

/// The addresses that show the page.
const ADDRESSES: [&str; 10] = [
    "/",
    "/exchanges",
    "/exchanges/{id}",
    "/label",
    "/dashboard",
    "/runs",
    "/runs/{id}",
    "/methods",
    "/methods/{id}",
    "/signin",
];

/// The routes of the pages. They are for people, and stand in no document.
pub(crate) fn routes() -> Router<App> {
    let router = Router::new().route("/assets/{name}", get(asset));
    ADDRESSES.iter().fold(router, |router, path| router.route(path, get(page)))
}

async fn page(headers: HeaderMap) -> Response {
    let mut answer = file("index.html", &headers);
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    answer
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let mut answer = file(&name, &headers);
    // An image that is opened by itself is a page too.
    answer.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY);
    answer
}

fn file(name: &str, headers: &HeaderMap) -> Response {
    let Some((_, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        return ApiError::missing("asset", name).into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    let tag = format!("\"{}\"", &digest(text)[..16]);
    let known = headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let mut answer = if known { StatusCode::NOT_MODIFIED.into_response() } else { (*text).into_response() };
    let lines: [(HeaderName, HeaderValue); 3] = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        // Asked for each time, sent only when another version of the service runs.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))),
    ];
    for (name, value) in lines {
        answer.headers_mut().insert(name, value);
    }
    answer
}
