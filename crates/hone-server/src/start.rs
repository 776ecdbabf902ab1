//! A running service, from opening what it needs to the last write.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{App, Inner, MethodPage};
use crate::auth::Keys;
use crate::config::{Config, seconds};
use crate::gateway::{Backend, Recorder};
use crate::metrics::Metrics;
use crate::otlp::Traces;
use crate::read::Holds;
use crate::reask::Reasks;
use crate::session::Sessions;
use crate::variants::Variants;
use crate::webhooks::Webhooks;
use crate::{listen, router};

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error("{0}")]
    Config(String),
    /// The store.
    #[error("{0}")]
    Store(#[from] hone_store::Error),
    /// A model that cannot be read.
    #[error("backend {name}: {source}")]
    Model {
        /// The backend.
        name: String,
        /// Why.
        source: hone_lm::Error,
    },
    /// The address.
    #[error("listen: needed an address that is free, got {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running service.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stopping: CancellationToken,
    running: JoinHandle<()>,
}

impl Server {
    /// Opens the store and the backends, and serves. `methods` is the catalogue that pages show.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(mut config: Config, methods: Vec<MethodPage>) -> Result<Server, StartError> {
        config.settle()?;
        let store = hone_store::open(&config.store).await?;
        let failed = |source| StartError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let local = address.ip().is_loopback();
        let keys = Keys::new(store.clone(), config.limits.requests_per_minute, local && !config.open);
        if !local && !config.open && store.keys().await?.is_empty() {
            return Err(StartError::Config(format!(
                "listen: needed a key (`hone serve keys add`) or --open on an address that others can reach, got \
                 neither for {address}"
            )));
        }
        let mut backends = Vec::with_capacity(config.backends.len());
        for backend in &config.backends {
            backends.push(Backend::open(backend.clone()).await?);
        }
        let (webhooks, carriers) = Webhooks::new(&config.webhooks)?;
        let (traces, exporter) = Traces::new(config.otlp.as_deref())?;
        let stopping = CancellationToken::new();
        let app = App::new(Inner {
            store,
            backends,
            keys,
            sessions: Sessions::default(),
            metrics: Metrics::new(),
            recorder: Recorder::new(),
            reasks: Reasks::default(),
            variants: Variants::default(),
            webhooks,
            traces,
            methods,
            holds: Holds::default(),
            stopping: stopping.clone(),
            ending: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        });
        for carrier in carriers {
            app.tasks.spawn(carrier.work(app.clone()));
        }
        if let Some(exporter) = exporter {
            app.tasks.spawn(exporter.work(app.clone()));
        }
        let running = tokio::spawn(run(listener, app));
        Ok(Server { address, stopping, running })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells it to stop: nothing new is taken on, what runs may end.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Returns when it has stopped and everything is stored.
    pub async fn ended(self) {
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the service ended by a defect");
        }
    }
}

async fn run(listener: TcpListener, app: App) {
    let router = router::router(&app);
    listen::serve(listener, router, app.config.limits.clone(), app.stopping.clone()).await;
    app.ending.cancel();
    app.tasks.close();
    if tokio::time::timeout(seconds(app.config.limits.drain_s), app.tasks.wait()).await.is_err() {
        tracing::warn!(tasks = app.tasks.len(), "work was still under way when its time was over");
    }
    // The store writes what is queued when it goes.
    drop(app);
}
