//! The OpenAI API: requests to backends, answers back as they came, and every exchange to the store.

mod backend;
mod call;
mod chat;
mod completions;
mod embeddings;
mod engine;
mod finish;
mod models;
mod proxy;
mod record;
mod recorder;
mod stream;
mod upstream;

pub(crate) use backend::Backend;
pub(crate) use recorder::Recorder;

// With the names that their declarations for the OpenAPI document have.
pub(crate) use chat::*;
pub(crate) use completions::*;
pub(crate) use embeddings::*;
pub(crate) use models::*;
