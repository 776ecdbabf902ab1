//! What handlers share.

use std::sync::Arc;

use hone_store::Store;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use crate::auth::Keys;
use crate::config::Config;
use crate::gateway::{Backend, Recorder};
use crate::metrics::Metrics;
use crate::otlp::Traces;
use crate::read::Holds;
use crate::reask::Reasks;
use crate::session::Sessions;
use crate::variants::Variants;
use crate::webhooks::Webhooks;

/// A method of the catalogue, as pages show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MethodPage {
    /// Its id, such as `dpo`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it does with feedback.
    pub family: String,
    /// One line.
    pub summary: String,
    /// Its page, in Markdown.
    pub page: String,
}

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

/// What [`App`] points to.
pub(crate) struct Inner {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub backends: Vec<Backend>,
    pub keys: Keys,
    pub sessions: Sessions,
    pub metrics: Metrics,
    pub recorder: Recorder,
    pub reasks: Reasks,
    pub variants: Variants,
    pub webhooks: Webhooks,
    pub traces: Traces,
    pub methods: Vec<MethodPage>,
    pub holds: Holds,
    /// Thrown when the service stops: nothing new is taken on.
    pub stopping: CancellationToken,
    /// Thrown when the time of running requests is over: what streams still go on are cut and stored.
    pub ending: CancellationToken,
    /// Work that outlives its request and is waited for at the end.
    pub tasks: TaskTracker,
}

impl App {
    pub fn new(inner: Inner) -> Self {
        App(Arc::new(inner))
    }
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}
