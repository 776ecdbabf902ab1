//! What answers: an upstream, or the built-in engine on a model folder.

use std::sync::Arc;

use hone_lm::{Local, LocalOptions};

use crate::config::BackendConfig;
use crate::start::StartError;

use super::engine::Engine;
use super::upstream::Upstream;

/// What answers, with its settings.
pub(crate) struct Backend {
    pub config: BackendConfig,
    pub kind: Kind,
}

/// The two kinds.
pub(crate) enum Kind {
    Upstream(Upstream),
    Engine(Engine),
}

impl Backend {
    /// Reads the model, or makes the client.
    pub async fn open(config: BackendConfig) -> Result<Self, StartError> {
        let kind = match &config.folder {
            Some(folder) => {
                let folder = folder.clone();
                let name = config.name.clone();
                let failed = |source| StartError::Model { name: name.clone(), source };
                let read = move || Local::from_folder(&folder, &LocalOptions::default());
                let local = tokio::task::spawn_blocking(read).await;
                let local = local.map_err(|error| failed(hone_lm::Error::Engine(error.to_string())))?;
                Kind::Engine(Engine::new(Arc::new(local.map_err(failed)?)))
            }
            None => Kind::Upstream(Upstream::new(&config)?),
        };
        Ok(Backend { config, kind })
    }

    /// Whether it is to be asked for a model.
    pub fn serves(&self, model: &str) -> bool {
        if self.config.models.is_empty() {
            return match &self.kind {
                Kind::Upstream(_) => true,
                Kind::Engine(engine) => {
                    model == self.config.name || model == engine.model.capabilities().name
                }
            };
        }
        self.config.models.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => model == pattern,
        })
    }

    /// The models that are known by name.
    pub fn models(&self) -> Vec<String> {
        let named: Vec<String> =
            self.config.models.iter().filter(|name| !name.ends_with('*')).cloned().collect();
        match &self.kind {
            Kind::Engine(_) if named.is_empty() => vec![self.config.name.clone()],
            _ => named,
        }
    }

    /// The backend's own name for a model.
    pub fn own_name<'a>(&'a self, model: &'a str) -> &'a str {
        self.config.rename.get(model).map_or(model, String::as_str)
    }
}
