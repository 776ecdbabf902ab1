//! Sentence encoders of the BERT family, equal to sentence-transformers.
//!
//! Takes token ids, special tokens included; cutting words into tokens is the caller's business.

mod config;
mod gelu;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::{layer_norm, softmax_last_dim};
use rayon::prelude::*;

use crate::error::{Error, Result};
use config::Modules;
pub use config::{EncoderConfig, Pooling};

/// Tokens computed at once, padding included: as many as keep the widest activation within a few megabytes.
const PART_TOKENS: usize = 2048;

/// A linear map `[in, out]` with its bias `[out]`.
struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// A layer norm.
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Norm {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.epsilon)
    }
}

struct Layer {
    /// Query, key and value side by side, the query already divided by √head width.
    qkv: Linear,
    out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    mlp_norm: Norm,
}

/// A sentence encoder: token ids in, one vector per sequence out. For inference only.
pub struct Encoder {
    config: EncoderConfig,
    modules: Modules,
    max_tokens: usize,
    device: Device,
    words: Tensor,
    /// Position embeddings plus the embedding of segment 0.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

impl Encoder {
    /// Reads an encoder as sentence-transformers saves it: `config.json`, `model.safetensors`, and, if there,
    /// `modules.json` with `1_Pooling/config.json`, and `sentence_bert_config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] and [`Error::Config`] for the JSON files, [`Error::Weights`] for a broken weights
    /// file, [`Error::Tensor`] for a tensor that is missing, misshapen or not finite.
    pub fn from_folder(folder: &Path, device: &Device) -> Result<Encoder> {
        let config = EncoderConfig::from_folder(folder)?;
        let modules = config::read_modules(folder)?;
        let max_tokens = config::read_max_tokens(folder, &config)?;
        let weights = Weights::open(folder, device)?;
        let (d, f) = (config.hidden_size, config.intermediate_size);
        let norm = |stem: &str| -> Result<Norm> {
            let weight = weights.get(&format!("{stem}.weight"), &[d])?;
            let bias = weights.get(&format!("{stem}.bias"), &[d])?;
            Ok(Norm { weight, bias, epsilon: config.layer_norm_eps as f32 })
        };
        let linear = |stem: &str, outputs: usize, inputs: usize, scale: f64| -> Result<Linear> {
            let weight = weights.get(&format!("{stem}.weight"), &[outputs, inputs])?;
            let bias = weights.get(&format!("{stem}.bias"), &[outputs])?;
            Ok(Linear { weight: (weight.t()? * scale)?, bias: (bias * scale)? })
        };
        let layers = (0..config.layers)
            .map(|layer| {
                let stem = |rest: &str| format!("encoder.layer.{layer}.{rest}");
                let scale = 1.0 / ((d / config.heads) as f64).sqrt();
                let q = linear(&stem("attention.self.query"), d, d, scale)?;
                let k = linear(&stem("attention.self.key"), d, d, 1.0)?;
                let v = linear(&stem("attention.self.value"), d, d, 1.0)?;
                Ok(Layer {
                    qkv: Linear {
                        weight: Tensor::cat(&[q.weight, k.weight, v.weight], 1)?,
                        bias: Tensor::cat(&[q.bias, k.bias, v.bias], 0)?,
                    },
                    out: linear(&stem("attention.output.dense"), d, d, 1.0)?,
                    attention_norm: norm(&stem("attention.output.LayerNorm"))?,
                    up: linear(&stem("intermediate.dense"), f, d, 1.0)?,
                    down: linear(&stem("output.dense"), d, f, 1.0)?,
                    mlp_norm: norm(&stem("output.LayerNorm"))?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let positions =
            weights.get("embeddings.position_embeddings.weight", &[config.max_position_embeddings, d])?;
        let segments =
            weights.get("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, d])?;
        Ok(Encoder {
            words: weights.get("embeddings.word_embeddings.weight", &[config.vocab_size, d])?,
            positions: positions.broadcast_add(&segments.get(0)?)?,
            norm: norm("embeddings.LayerNorm")?,
            layers,
            config,
            modules,
            max_tokens,
            device: device.clone(),
        })
    }

    /// Sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Longest sequence the encoder was made for, in tokens. Longer text has to be cut by the caller.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// One vector of [`EncoderConfig::hidden_size`] numbers per sequence, in order.
    ///
    /// # Errors
    /// [`Error::Batch`] for a sequence that is empty, longer than [`Encoder::max_tokens`], or holds an unknown token.
    pub fn embed(&self, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        let mut order: Vec<usize> = (0..sequences.len()).collect();
        for &sequence in &order {
            let (tokens, vocab) = (&sequences[sequence], self.config.vocab_size);
            let problem = if tokens.is_empty() {
                "has no token; needs at least 1".to_string()
            } else if tokens.len() > self.max_tokens {
                format!("has {} tokens; the encoder takes {}", tokens.len(), self.max_tokens)
            } else if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
                format!("holds token {token}; the encoder's vocabulary ends at {}", vocab - 1)
            } else {
                continue;
            };
            return Err(Error::Batch { sequence, problem });
        }
        // Neighbours of like length waste little on padding.
        order.sort_by_key(|&sequence| std::cmp::Reverse(sequences[sequence].len()));
        let mut parts = vec![];
        let mut rest = &order[..];
        while let Some(&first) = rest.first() {
            let count = (PART_TOKENS / sequences[first].len()).clamp(1, rest.len());
            let (part, others) = rest.split_at(count);
            parts.push(part);
            rest = others;
        }
        let run = |part: &&[usize]| -> Result<Vec<Vec<f32>>> {
            let part: Vec<&[u32]> = part.iter().map(|&sequence| &sequences[sequence][..]).collect();
            Ok(self.embed_part(&part)?.to_vec2::<f32>()?)
        };
        // Threads that each work on a part wait less for each other than threads that share every operation.
        let embedded = match self.device.is_cpu() {
            true => parts.par_iter().map(run).collect::<Result<Vec<_>>>()?,
            false => parts.iter().map(run).collect::<Result<Vec<_>>>()?,
        };
        let mut vectors = vec![vec![]; sequences.len()];
        for (&sequence, vector) in parts.iter().copied().flatten().zip(embedded.into_iter().flatten()) {
            vectors[sequence] = vector;
        }
        Ok(vectors)
    }

    /// Vectors `[B, D]` of sequences that fit in memory together, padded to the first, which is the longest.
    fn embed_part(&self, sequences: &[&[u32]]) -> Result<Tensor> {
        let (count, longest) = (sequences.len(), sequences.first().map_or(0, |sequence| sequence.len()));
        let (heads, d) = (self.config.heads, self.config.hidden_size);
        let mut tokens = vec![0u32; count * longest];
        let mut mask = vec![f32::NEG_INFINITY; count * longest];
        let mut pooling = vec![0.0f32; count * longest];
        for (place, sequence) in sequences.iter().enumerate() {
            let range = place * longest..place * longest + sequence.len();
            tokens[range.clone()].copy_from_slice(sequence);
            mask[range.clone()].fill(0.0);
            pooling[range].copy_from_slice(&self.modules.pooling.weights(sequence.len()));
        }
        let padded = mask.iter().any(|&value| value != 0.0);
        let tokens = Tensor::from_vec(tokens, count * longest, &self.device)?;
        let mask = Tensor::from_vec(mask, (count, 1, 1, longest), &self.device)?;
        let pooling = Tensor::from_vec(pooling, (count, 1, longest), &self.device)?;

        let embedded = self.words.index_select(&tokens, 0)?.reshape((count, longest, d))?;
        let embedded = embedded.broadcast_add(&self.positions.narrow(0, 0, longest)?)?;
        let mut x = self.norm.apply(&embedded.reshape((count * longest, d))?)?;
        for layer in &self.layers {
            let qkv = layer.qkv.apply(&x)?.reshape((count, longest, 3, heads, d / heads))?;
            let qkv = qkv.permute((2, 0, 3, 1, 4))?.contiguous()?;
            let (q, k, v) = (qkv.get(0)?, qkv.get(1)?, qkv.get(2)?);
            let mut scores = q.matmul(&k.t()?)?;
            if padded {
                scores = scores.broadcast_add(&mask)?;
            }
            let attended = softmax_last_dim(&scores)?.matmul(&v)?;
            let attended = attended.transpose(1, 2)?.reshape((count * longest, d))?;
            x = layer.attention_norm.apply(&(layer.out.apply(&attended)? + x)?)?;
            let fed = layer.down.apply(&gelu(&layer.up, &x)?)?;
            x = layer.mlp_norm.apply(&(fed + x)?)?;
        }
        let pooled = pooling.matmul(&x.reshape((count, longest, d))?)?.squeeze(1)?;
        if !self.modules.normalise {
            return Ok(pooled);
        }
        // PyTorch's guard against a vector of zeros.
        let length = pooled.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
        Ok(pooled.broadcast_div(&length)?)
    }
}

/// `gelu(up(x))`, the exact one.
fn gelu(up: &Linear, x: &Tensor) -> candle_core::Result<Tensor> {
    if x.device().is_cpu() {
        // The tensor library's takes a sixth of all time.
        return x.matmul(&up.weight)?.apply_op2_no_bwd(&up.bias, &gelu::BiasGelu);
    }
    up.apply(x)?.gelu_erf()
}

/// The tensors of a folder, by name without the prefix that some classes put before all of them.
struct Weights {
    file: String,
    tensors: HashMap<String, Tensor>,
}

impl Weights {
    fn open(folder: &Path, device: &Device) -> Result<Weights> {
        let path = folder.join("model.safetensors");
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, device)
            .map_err(|error| Error::Weights { path: path.clone(), problem: error.to_string() })?;
        let plain = |name: String| name.strip_prefix("bert.").map(str::to_string).unwrap_or(name);
        let tensors = tensors.into_iter().map(|(name, tensor)| (plain(name), tensor)).collect();
        Ok(Weights { file: path.display().to_string(), tensors })
    }

    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let refuse =
            |problem: String| Err(Error::Tensor { file: self.file.clone(), tensor: name.into(), problem });
        let Some(tensor) = self.tensors.get(name) else {
            return refuse(format!("missing; needs shape {shape:?}"));
        };
        if tensor.dims() != shape {
            return refuse(format!("needs shape {shape:?}, got {:?}", tensor.dims()));
        }
        if !tensor.dtype().is_float() {
            return refuse(format!("needs a floating-point type, got {:?}", tensor.dtype()));
        }
        let tensor = tensor.to_dtype(DType::F32)?;
        // A sum over absolute values is finite only if every one of them is.
        if !tensor.abs()?.sum_all()?.to_scalar::<f32>()?.is_finite() {
            return refuse("holds a value that is not finite".into());
        }
        Ok(tensor)
    }
}
