//! The service as its callers meet it: a live server on a free port, and an upstream that can fail in every way.

mod client;
mod engine;
mod feedback;
mod gateway;
mod log;
mod mock;
mod operations;
mod python;
mod variants;
