//! The loop in production: a gateway that speaks the OpenAI API, the store that fills by itself, and what people and
//! programs say about the answers.
//!
//! [`Server::start`] opens the store and the backends and serves until told to stop. One file per resource; the
//! OpenAPI document is made from the same declarations as the routes. The crate knows no algorithm.

mod app;
mod auth;
mod body;
mod catalogue;
mod config;
mod dashboard;
mod error;
mod feedback;
mod fresh;
mod gateway;
mod health;
mod ids;
mod keys;
mod listen;
mod log;
mod metrics;
mod otlp;
mod pages;
mod queue;
mod read;
mod reask;
mod router;
mod sequential;
mod session;
mod start;
mod variants;
mod webhooks;

pub use app::MethodPage;
pub use auth::{NewKey, Scope, digest, new_key};
pub use config::{BackendConfig, Config, Limits, WebhookConfig};
pub use error::{ApiError, ErrorBody, ErrorDetail};
pub use router::openapi;
pub use start::{Server, StartError};
pub use variants::{ArmFigures, Experiment, Figures, Side};
