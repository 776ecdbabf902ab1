//! LoRA adapters (arXiv:2106.09685): low-rank updates beside frozen weights.

use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::params::{Layout, Params, Projection};

/// Settings of a LoRA adapter. Defaults are those of PEFT.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank `r` of each update, at least 1.
    pub rank: usize,
    /// Numerator α of the scale.
    pub alpha: f32,
    /// Scale by `α / √r` instead of `α / r` (rank-stabilised, arXiv:2312.03732).
    pub rank_stabilized: bool,
    /// Which projections of every layer carry an update.
    pub targets: Vec<Projection>,
    /// Layers that carry updates; all if `None`.
    pub layers: Option<Vec<usize>>,
    /// Name or path of the base model, as written to `adapter_config.json`.
    pub base_model: Option<String>,
}

impl Default for LoraConfig {
    fn default() -> LoraConfig {
        LoraConfig {
            rank: 8,
            alpha: 8.0,
            rank_stabilized: false,
            targets: vec![Projection::Query, Projection::Value],
            layers: None,
            base_model: None,
        }
    }
}

/// Highest rank; far above any use, and low enough that sizes cannot overflow.
const MAX_RANK: usize = 1 << 16;

/// PEFT's name of a factor, `A` or `B`.
fn factor_name(layer: usize, projection: Projection, factor: &str) -> String {
    format!("base_model.model.model.layers.{layer}.{}.lora_{factor}.weight", projection.path())
}

/// Where the two factors of one update lie in the adapter's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// `A`, `[r, inputs]`.
    pub a: usize,
    /// `B`, `[outputs, r]`.
    pub b: usize,
}

/// An adapter: `W x` becomes `W x + scale · B A x` wherever there is a site.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Settings it was made with.
    pub config: LoraConfig,
    /// `A` and `B` of every site, named as PEFT names them.
    pub params: Params,
    sites: Vec<[Option<Site>; 7]>,
}

impl Adapter {
    /// A fresh adapter that changes nothing yet: `A` uniform as PEFT draws it (Kaiming with a = √5, so within
    /// `±1/√inputs`), `B` zero.
    ///
    /// # Errors
    /// [`Error::Argument`] for a rank of 0, no target, or a layer the model does not have.
    pub fn new(config: LoraConfig, model: &ModelConfig, seed: u64) -> Result<Adapter> {
        let layout = Adapter::layout(&config, model)?;
        let mut adapter = Adapter::of_params(config, model, Params::zeros(Arc::new(layout)));
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for entry in adapter.params.layout().clone().entries() {
            if entry.name.ends_with("lora_A.weight") {
                let bound = 1.0 / (entry.shape[1] as f32).sqrt();
                for value in &mut adapter.params.data[entry.range()] {
                    *value = rng.random_range(-bound..=bound);
                }
            }
        }
        Ok(adapter)
    }

    /// Names and shapes of an adapter's tensors.
    ///
    /// # Errors
    /// As [`Adapter::new`].
    pub(crate) fn layout(config: &LoraConfig, model: &ModelConfig) -> Result<Layout> {
        if config.rank == 0 || config.rank > MAX_RANK {
            return Err(Error::argument("rank", format!("a whole number from 1 to {MAX_RANK}"), config.rank));
        }
        if config.targets.is_empty() {
            return Err(Error::argument("target_modules", "at least one projection", "none"));
        }
        if let Some(layer) = config.layers.iter().flatten().find(|&&layer| layer >= model.layers) {
            return Err(Error::argument(
                "layers_to_transform",
                format!("layers below {}", model.layers),
                layer,
            ));
        }
        let mut tensors = vec![];
        for layer in 0..model.layers {
            if config.layers.as_ref().is_some_and(|layers| !layers.contains(&layer)) {
                continue;
            }
            for projection in Projection::ALL {
                if config.targets.contains(&projection) {
                    let (outputs, inputs) = projection.shape(model);
                    tensors.push((factor_name(layer, projection, "A"), vec![config.rank, inputs]));
                    tensors.push((factor_name(layer, projection, "B"), vec![outputs, config.rank]));
                }
            }
        }
        Ok(Layout::new(tensors))
    }

    /// An adapter of given weights, laid out by [`Adapter::layout`].
    pub(crate) fn of_params(config: LoraConfig, model: &ModelConfig, params: Params) -> Adapter {
        let place = |layer, projection, factor| {
            params.layout().get(&factor_name(layer, projection, factor)).map(|entry| entry.offset)
        };
        let site = |layer, projection| {
            Some(Site { a: place(layer, projection, "A")?, b: place(layer, projection, "B")? })
        };
        let sites = (0..model.layers).map(|layer| Projection::ALL.map(|p| site(layer, p))).collect();
        Adapter { config, params, sites }
    }

    /// Factor on every update.
    pub fn scale(&self) -> f32 {
        let rank = self.config.rank as f32;
        self.config.alpha / if self.config.rank_stabilized { rank.sqrt() } else { rank }
    }

    /// Where the update of one projection lies, if it carries one.
    pub fn site(&self, layer: usize, projection: Projection) -> Option<Site> {
        self.sites[layer][projection as usize]
    }
}
