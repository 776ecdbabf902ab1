//! Stopping work that was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A switch that stops the requests that carry it. Clones share it; once thrown it stays.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Inner>);

impl PartialEq for Cancel {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug, Default)]
struct Inner {
    thrown: AtomicBool,
    wake: Notify,
}

impl Cancel {
    /// A switch that is not thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the requests: sampling ends after the current token, calls are dropped.
    pub fn cancel(&self) {
        self.0.thrown.store(true, Ordering::SeqCst);
        self.0.wake.notify_waiters();
    }

    /// Whether it was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// Returns once it is thrown.
    pub(crate) async fn cancelled(&self) {
        // Registered before the flag is read, or a throw in between would be missed.
        let wake = self.0.wake.notified();
        if !self.is_cancelled() {
            wake.await;
        }
    }
}
