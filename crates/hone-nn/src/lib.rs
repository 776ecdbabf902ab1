//! Language models on the CPU, exactly and fast: weights, training, sampling and scoring.
//!
//! Knows tensors and tokens; knows nothing of prompts, feedback or methods.

pub mod adapter;
pub mod batch;
pub mod config;
pub mod encoder;
pub mod error;
pub mod folder;
mod fused;
pub mod loss;
pub mod model;
pub mod network;
pub mod params;
pub mod reference;
pub mod sample;
pub mod train;

pub use adapter::{Adapter, LoraConfig};
pub use batch::{Batch, Target};
pub use config::ModelConfig;
pub use error::{Error, Result};
pub use model::Model;
pub use network::{Candidates, Loss, LossFn, LossValue, Network, Outputs, Top, Want};
pub use params::Params;
