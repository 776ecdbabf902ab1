//! Answers on disk.
//!
//! One file per request, `<folder>/<first two hex digits>/<hex>.json`, named by the SHA-256 of everything that was sent
//! but the key. It holds the request beside the answer, so that a file is never taken for another's, and is written to
//! the side and renamed, so that a kill leaves no half file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// A folder of answers.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    folder: PathBuf,
}

/// What an answer is kept under: address, body, and which of several equal requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key {
    request: Value,
    hex: String,
}

impl Key {
    /// `draw` is what the caller tells equal requests apart by, `repeat` counts equal ones of one batch: each stands for
    /// a sample of its own.
    pub(super) fn new(url: &str, body: &Value, draw: u64, repeat: u64) -> Self {
        let request = sorted(&json!({"url": url, "body": body, "draw": draw, "repeat": repeat}));
        let hash = Sha256::digest(request.to_string().as_bytes());
        Key { request, hex: hash.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The hash, in hex.
    pub(super) fn hex(&self) -> &str {
        &self.hex
    }
}

impl Cache {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .map_err(|source| Error::Write { path: folder.to_path_buf(), source })?;
        Ok(Cache { folder: folder.to_path_buf() })
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.folder.join(&key.hex[..2]).join(format!("{}.json", key.hex))
    }

    /// The answer, if there is a whole one to exactly this request.
    pub(super) fn get(&self, key: &Key) -> Option<Value> {
        let bytes = std::fs::read(self.path(key)).ok()?;
        let mut entry: Map<String, Value> = serde_json::from_slice(&bytes).ok()?;
        if entry.get("request") != Some(&key.request) {
            return None;
        }
        entry.remove("answer")
    }

    /// Keeps an answer.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(super) fn put(&self, key: &Key, answer: &Value) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        let failed = |source| Error::Write { path: path.clone(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let entry = json!({"request": key.request, "answer": answer});
        file.write_all(entry.to_string().as_bytes()).map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }
}

/// The value with the keys of all objects in order, so that equal requests are equal text.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut pairs: Vec<(&String, &Value)> = fields.iter().collect();
            pairs.sort_by_key(|(name, _)| name.as_str());
            Value::Object(pairs.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_whole_request() {
        let key = |body: Value, draw| Key::new("http://h/v1/x", &body, draw, 0);
        let base = key(json!({"a": 1, "b": [{"c": 2, "d": 3}]}), 0);
        assert_eq!(base, key(json!({"b": [{"d": 3, "c": 2}], "a": 1}), 0));
        assert_ne!(base.hex, key(json!({"a": 1, "b": [{"c": 2, "d": 4}]}), 0).hex);
        assert_ne!(base.hex, key(json!({"a": 1, "b": [{"c": 2, "d": 3}]}), 1).hex);
        assert_ne!(base.hex, Key::new("http://h/v1/y", &json!({"a": 1, "b": [{"c": 2, "d": 3}]}), 0, 0).hex);
        assert_ne!(base.hex, Key::new("http://h/v1/x", &json!({"a": 1, "b": [{"c": 2, "d": 3}]}), 0, 1).hex);
    }

    #[test]
    fn broken_and_foreign_files_are_no_answers() {
        let folder = tempfile::tempdir().expect("folder");
        let cache = Cache::new(folder.path()).expect("cache");
        let key = Key::new("u", &json!({"a": 1}), 0, 0);
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &json!({"x": [1, 2]})).expect("put");
        assert_eq!(cache.get(&key), Some(json!({"x": [1, 2]})));
        let path = cache.path(&key);
        std::fs::write(&path, "{\"request\": {\"a\"").expect("cut");
        assert_eq!(cache.get(&key), None);
        std::fs::write(&path, json!({"request": {"a": 2}, "answer": 3}).to_string()).expect("foreign");
        assert_eq!(cache.get(&key), None);
        cache.put(&key, &json!(4)).expect("put again");
        assert_eq!(cache.get(&key), Some(json!(4)));
    }
}
