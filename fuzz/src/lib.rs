//! The promises of `hone-feedback`'s readers, run by `cargo fuzz` with any bytes. The function is the one that
//! the crate's own tests run.

#[path = "../../crates/hone-feedback/tests/feedback/harness.rs"]
mod harness;

pub use harness::{exercise, exercise_family};
