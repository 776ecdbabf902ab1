//! Every route, and the OpenAPI document, from one list.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics::{Endpoint, Request as RequestLabels};
use crate::{
    catalogue, dashboard, feedback, gateway, health, ids, keys, log, metrics, pages, queue, read, session,
    variants,
};

/// Carries the name that the service gave a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(OpenApi)]
#[openapi(
    info(title = "Hone", description = "An OpenAI-compatible gateway that keeps what was asked and answered, and \
        takes feedback on it in every form."),
    tags(
        (name = "gateway", description = "The OpenAI API"),
        (name = "feedback", description = "What people and programs say about answers"),
        (name = "log", description = "What was stored"),
        (name = "labels", description = "What to label next, and how far people agree"),
        (name = "variants", description = "Two models side by side"),
        (name = "keys", description = "Who may call"),
        (name = "operations", description = "Health and figures"),
    ),
    components(schemas(crate::error::ErrorBody))
)]
struct Document;

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(gateway::chat))
        .routes(routes!(gateway::completions))
        .routes(routes!(gateway::embeddings))
        .routes(routes!(gateway::models))
        .routes(routes!(gateway::model))
        .routes(routes!(feedback::give))
        .routes(routes!(feedback::give_many))
        .routes(routes!(queue::show))
        .routes(routes!(log::waiting))
        .routes(routes!(log::search))
        .routes(routes!(log::exchange))
        .routes(routes!(log::export))
        .routes(routes!(log::import))
        .routes(routes!(log::forget))
        .routes(routes!(log::runs, log::note_run))
        .routes(routes!(log::run_items))
        .routes(routes!(dashboard::show))
        .routes(routes!(catalogue::methods))
        .routes(routes!(catalogue::method))
        .routes(routes!(variants::show, variants::compare, variants::end))
        .routes(routes!(variants::promote))
        .routes(routes!(session::sign_in, session::who, session::sign_out))
        .routes(routes!(keys::list, keys::add))
        .routes(routes!(keys::revoke))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(document))
        .merge(read::routes())
}

/// The OpenAPI document, as `/openapi.json` serves it.
pub fn openapi() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| routes().into_openapi().to_json().unwrap_or_default())
}

/// The OpenAPI document of this service.
#[utoipa::path(get, path = "/openapi.json", tag = "operations", responses((status = 200, body = serde_json::Value)))]
async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], openapi())
}

/// The service.
pub(crate) fn router(app: &App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .merge(pages::routes())
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "unknown_url", "needed a path of this service")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "needed a method of this path",
            )
        })
        .layer(from_fn_with_state(app.clone(), around))
        .with_state(app.clone())
}

/// What is done around every request: a name, figures, a line in the log without any text of the request, a defect
/// turned into a status, errors in one shape.
async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = ids::new("req-");
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", |path| path.as_str()).to_owned();
    let method = request.method().clone();
    app.metrics.in_flight.inc();
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    app.metrics.in_flight.dec();
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(request = %id, endpoint, "a defect: the handler panicked");
        let message = format!("a defect of the service; its log names it {id}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "defect", message).into_response()
    });
    response = in_one_shape(response).await;
    let status = response.status();
    let took = started.elapsed();
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    for (name, value) in [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    let labels = RequestLabels { endpoint: endpoint.clone(), status: status.as_u16() };
    app.metrics.requests.get_or_create(&labels).inc();
    let labels = Endpoint { endpoint: endpoint.clone() };
    app.metrics.request_time.get_or_create(&labels).observe(took.as_secs_f64());
    let ms = took.as_secs_f64() * 1e3;
    tracing::info!(target: "hone::access", request = %id, %method, endpoint, status = status.as_u16(), ms, "answered");
    response
}

/// The framework refuses some requests with plain text before a handler sees them.
async fn in_one_shape(response: Response) -> Response {
    let status = response.status();
    let plain =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !status.is_client_error() || !plain {
        return response;
    }
    let text = match axum::body::to_bytes(response.into_body(), 4096).await {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(_) => "needed a sound request".to_owned(),
    };
    ApiError::new(status, "invalid_request", text).into_response()
}
