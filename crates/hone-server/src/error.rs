//! What goes wrong, and the one place that says which status and body that has.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Results of handlers.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A refusal or a failure, as clients of the OpenAI API read it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    /// For people: what was needed and what came.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

/// The body of every error.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For people: what was needed and what came.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `permission_error`, `rate_limit_error`, `api_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A stable word for programs.
    pub code: Option<String>,
}

impl ApiError {
    /// An error of this status.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), param: None, retry_after: None }
    }

    /// 400: a field that is not as it must be.
    pub fn field(field: &str, needed: &str, got: impl std::fmt::Display) -> Self {
        let message = format!("{field}: needed {needed}, got {got}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message).at(field)
    }

    /// 404: no such thing.
    pub fn missing(what: &str, name: &str) -> Self {
        let message = format!("{what}: needed one that is there, got {name:?}");
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 503: the server is stopping, or a backend cannot be reached.
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// The same error about a field.
    #[must_use]
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "api_error",
            _ => "invalid_request_error",
        };
        ErrorBody {
            error: ErrorDetail {
                message: self.message.clone(),
                kind: kind.into(),
                param: self.param.clone(),
                code: Some(self.code.into()),
            },
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<hone_store::Error> for ApiError {
    fn from(error: hone_store::Error) -> Self {
        use hone_store::Error as Store;
        let message = error.to_string();
        let (status, code, param) = match &error {
            Store::Unsound { fault, .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unsound", Some(fault.field.clone()))
            }
            Store::Conflict { field, .. } => (StatusCode::CONFLICT, "conflict", Some(field.clone())),
            Store::KeyReused { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", Some("Idempotency-Key".into()))
            }
            Store::Ambiguous { .. } => (StatusCode::CONFLICT, "ambiguous", Some("on".into())),
            Store::NoTarget { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no_target", Some("on".into())),
            Store::Unknown { .. } => (StatusCode::NOT_FOUND, "not_found", None),
            Store::Unreachable { .. } | Store::Closed => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", None)
            }
            Store::Address { .. } | Store::Newer { .. } | Store::Refused { .. } | Store::File(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "store_failed", None)
            }
        };
        // What the database said may quote what it was given, and is the operator's to read.
        let message = if error.is_callers() {
            message
        } else {
            tracing::error!(error = %message, "the store failed");
            "the store did not carry out the request; nothing was acknowledged".to_owned()
        };
        ApiError { status, code, message, param, retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_fails_is_not_quoted() {
        let error =
            hone_store::Error::Refused { store: "hone.db".into(), why: "disk full near 'secret'".into() };
        let answer = ApiError::from(error);
        assert_eq!(answer.status, 500);
        assert!(!answer.message.contains("secret"), "{answer}");
    }

    #[test]
    fn what_the_caller_did_is_said() {
        let answer = ApiError::from(hone_store::Error::NoTarget { form: "critique" });
        assert_eq!((answer.status.as_u16(), answer.code), (422, "no_target"));
        let body = serde_json::to_value(answer.body()).expect("JSON");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["param"], "on");
    }
}
