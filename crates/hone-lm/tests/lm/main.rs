//! Tests of the crate from outside, in one binary.

mod constrain;
mod endpoint;
mod local;
mod server;
mod templates;
mod tokenizers;

use std::path::PathBuf;

/// A file or folder beside the tests.
fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
}

fn read_json(path: &str) -> serde_json::Value {
    let path = fixture(path);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
