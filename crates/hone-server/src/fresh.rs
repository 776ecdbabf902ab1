//! Something small of the store that other processes may change, read anew from time to time.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::error::Result;

/// How long a change by another process may go unnoticed.
const FRESH: Duration = Duration::from_secs(2);

/// The value as it was last read.
pub(crate) struct Fresh<T> {
    known: RwLock<Option<(Instant, Arc<T>)>>,
    reading: tokio::sync::Mutex<()>,
}

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Fresh { known: RwLock::new(None), reading: tokio::sync::Mutex::default() }
    }
}

impl<T> Fresh<T> {
    fn known(&self) -> Option<(Instant, Arc<T>)> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn young(&self) -> Option<Arc<T>> {
        self.known().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, value)| value)
    }

    /// The value, read by `read` where it is old. While the store is away, the old value goes on counting.
    pub async fn get<R: Future<Output = Result<T>>>(&self, read: impl FnOnce() -> R) -> Result<Arc<T>> {
        if let Some(value) = self.young() {
            return Ok(value);
        }
        let _turn = self.reading.lock().await;
        if let Some(value) = self.young() {
            return Ok(value);
        }
        match (read().await, self.known()) {
            (Ok(value), _) => Ok(self.put(value)),
            (Err(error), None) => Err(error),
            (Err(error), Some((_, old))) => {
                tracing::warn!(%error, "what the store has could not be read again");
                Ok(old)
            }
        }
    }

    /// Takes a value that was just read or written.
    pub fn put(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        let new = Some((Instant::now(), value.clone()));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = new;
        value
    }
}
