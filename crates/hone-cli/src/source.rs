//! Which model a command talks to: a folder or an endpoint, by the same flags everywhere.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use hone_lm::{Endpoint, EndpointConfig, LanguageModel, Local, LocalOptions};

/// A model folder, or an OpenAI-compatible endpoint.
#[derive(Debug, Args)]
pub struct Source {
    /// Model folder in Hugging Face layout.
    #[arg(long, value_name = "DIR", conflicts_with = "endpoint")]
    pub model: Option<PathBuf>,
    /// Base address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1.
    #[arg(long, value_name = "URL", requires = "model_name")]
    pub endpoint: Option<String>,
    /// Model to ask the endpoint for.
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Environment variable that holds the endpoint's key.
    #[arg(long, value_name = "VARIABLE", requires = "endpoint")]
    pub api_key_env: Option<String>,
    /// Calls to the endpoint in flight at most.
    #[arg(long, default_value_t = 64, requires = "endpoint")]
    pub concurrency: usize,
    /// Folder that keeps the endpoint's answers, so that no request is paid twice.
    #[arg(long, value_name = "DIR", requires = "endpoint")]
    pub cache: Option<PathBuf>,
}

impl Source {
    /// Opens the model.
    pub fn open(&self) -> Result<Box<dyn LanguageModel>> {
        match (&self.model, &self.endpoint) {
            (Some(folder), _) => {
                let model = Local::from_folder(folder, &LocalOptions::default())?;
                Ok(Box::new(model))
            }
            (None, Some(url)) => {
                let name = self.model_name.clone().unwrap_or_default();
                let mut config = EndpointConfig::new(url, name);
                config.api_key_env = self.api_key_env.clone();
                config.concurrency = self.concurrency;
                config.cache = self.cache.clone();
                Ok(Box::new(Endpoint::connect(config)?))
            }
            (None, None) => bail!("needs --model DIR or --endpoint URL"),
        }
    }
}
