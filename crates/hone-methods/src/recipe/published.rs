//! A model by what was published of it: enough to plan a run before its weights are here.

use hone_nn::config::ModelConfig;
use hone_nn::params::Layout;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// Families whose checkpoints the engine reads.
const OWN: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "smollm3"];

/// Family of a model behind an endpoint: nothing of it is here, so it has no sizes.
pub const ENDPOINT: &str = "endpoint";

/// How far a published count of weights may lie from the counted one; most are rounded.
const ROUNDING: f64 = 0.03;

/// Sizes of a published model, named as in its `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// Its name; a folder of this name is read if it is there.
    pub name: String,
    /// `model_type`; `endpoint` for a model that is only served.
    pub family: String,
    /// Weights in all. Needed for families that the engine does not read; checked for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<f64>,
    /// Layers; of an encoder-decoder, both together.
    #[serde(default)]
    pub layers: usize,
    /// Width of the residual stream.
    #[serde(default)]
    pub hidden_size: usize,
    /// Width of the feed-forward layer.
    #[serde(default)]
    pub intermediate_size: usize,
    /// Query heads.
    #[serde(default)]
    pub heads: usize,
    /// Key and value heads; as many as query heads if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<usize>,
    /// Width of a head; the heads share the residual stream if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Rows of the embedding table.
    #[serde(default)]
    pub vocab_size: usize,
    /// Longest context, tokens.
    #[serde(default)]
    pub max_positions: usize,
    /// Whether output embeddings are the input embeddings.
    #[serde(default)]
    pub tied: bool,
}

impl Published {
    /// Whether checkpoints of its family can be read.
    pub fn readable(&self) -> bool {
        OWN.contains(&self.family.as_str())
    }

    /// The decoder of these sizes; of a family that cannot be read, the Llama decoder of the same widths. `None` behind
    /// an endpoint.
    ///
    /// # Errors
    /// [`Error::File`] for sizes that make no decoder.
    pub fn config(&self) -> Result<Option<ModelConfig>> {
        if self.family == ENDPOINT {
            return Ok(None);
        }
        let family = if self.readable() { self.family.as_str() } else { "llama" };
        let mut map = Map::new();
        for (key, value) in [
            ("model_type", json!(family)),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("num_hidden_layers", json!(self.layers)),
            ("num_attention_heads", json!(self.heads)),
            ("num_key_value_heads", json!(self.kv_heads.unwrap_or(self.heads))),
            ("head_dim", self.head_dim.map_or(Value::Null, |width| json!(width))),
            ("max_position_embeddings", json!(self.max_positions)),
            ("tie_word_embeddings", json!(self.tied)),
        ] {
            map.insert(key.into(), value);
        }
        Ok(Some(ModelConfig::from_json(&format!("model {}", self.name), map)?))
    }

    /// Weights in all: as published, else counted; 0 behind an endpoint.
    ///
    /// # Errors
    /// As [`Published::config`].
    pub fn weights(&self) -> Result<u64> {
        let Some(config) = self.config()? else { return Ok(0) };
        Ok(self.parameters.map_or_else(|| Layout::decoder(&config).0.total() as u64, |count| count as u64))
    }

    /// Refuses sizes that make no decoder, or that are not those of the published count.
    ///
    /// # Errors
    /// [`Error::File`], and those of the configuration.
    pub fn check(&self) -> Result<()> {
        let fault = |problem: String| Err(Error::File { path: format!("model {}", self.name), problem });
        let Some(config) = self.config()? else {
            let sizes = self.layers + self.hidden_size + self.heads + self.vocab_size;
            return match sizes == 0 && self.parameters.is_none() {
                true => Ok(()),
                false => fault("family `endpoint`: needs no sizes, got some".into()),
            };
        };
        let counted = Layout::decoder(&config).0.total() as f64;
        match self.parameters {
            None if !self.readable() => {
                fault(format!("`parameters`: needed, since family `{}` is not counted here", self.family))
            }
            Some(count) if !(count.is_finite() && count >= 1.0) => {
                fault(format!("`parameters`: needs a number of weights, got {count}"))
            }
            Some(count) if self.readable() && (count / counted - 1.0).abs() > ROUNDING => fault(format!(
                "`parameters`: needs the {:.0} M that these sizes make, got {:.0} M",
                counted / 1e6,
                count / 1e6
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn llama() -> Published {
        Published {
            name: "a/b".into(),
            family: "llama".into(),
            layers: 2,
            hidden_size: 8,
            intermediate_size: 16,
            heads: 2,
            vocab_size: 10,
            max_positions: 64,
            ..Published::default()
        }
    }

    #[test]
    fn weights_are_counted_and_compared() {
        // Two tables of 10 · 8; a layer: norms 16, four of 8 · 8, three of 8 · 16; last norm 8.
        let counted = 160 + 2 * (16 + 4 * 64 + 3 * 128) + 8;
        assert_eq!(llama().weights().unwrap(), counted);
        let with = |parameters| Published { parameters: Some(parameters), ..llama() };
        with(1500.0).check().unwrap();
        let refused = with(2000.0).check().unwrap_err().to_string();
        assert!(refused.contains("model a/b: `parameters`: needs the 0 M"), "{refused}");
        let other = Published { family: "t5".into(), ..llama() };
        assert!(other.check().unwrap_err().to_string().contains("`parameters`: needed"));
        let other = Published { parameters: Some(7e8), ..other };
        other.check().unwrap();
        assert_eq!(other.weights().unwrap(), 700_000_000);
        assert!(
            Published { layers: 0, ..llama() }.check().unwrap_err().to_string().contains("num_hidden_layers")
        );
    }

    #[test]
    fn an_endpoint_has_no_sizes() {
        let served = Published { name: "x".into(), family: ENDPOINT.into(), ..Published::default() };
        served.check().unwrap();
        assert_eq!((served.config().unwrap(), served.weights().unwrap()), (None, 0));
        assert!(Published { layers: 3, ..served }.check().is_err());
    }
}
