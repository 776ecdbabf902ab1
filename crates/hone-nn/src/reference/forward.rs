//! The forward pass, of basic tensor operations only: each has a backward pass on every device.

use candle_core::{D, DType, Tensor};

use super::Decoder;
use super::access::{Access, HookPoint, Inputs, Trace};
use super::ragged::Ragged;
use crate::batch::Batch;
use crate::config::Head;
use crate::error::{Error, Result};
use crate::network::{Outputs, Top, Want};
use crate::params::Projection;

/// One forward pass over one batch.
struct Pass<'a> {
    decoder: &'a Decoder,
    access: &'a Access<'a>,
    batch: &'a Batch,
    ragged: Ragged,
    /// `[N, 1, head_dim / 2]`: cosines of each row's position.
    cos: Tensor,
    /// Sines likewise.
    sin: Tensor,
}

impl Decoder {
    /// A forward pass with a view inside: other inputs than tokens, activations read or replaced, attention
    /// probabilities, raw logits. Everything stays on the decoder's device and attached to the graph.
    ///
    /// # Errors
    /// [`Error::Batch`] for sequences the model cannot read; [`Error::Argument`] or [`Error::Shape`] for what is
    /// asked of a layer, row or head that is not there, or given in another shape; whatever the hook returns.
    pub fn forward_with(&self, batch: &Batch, access: &Access) -> Result<Trace> {
        self.check(batch, access)?;
        let half = self.config.head_dim / 2;
        let table = self.config.rope.table(self.config.head_dim, batch.longest());
        let spread = |values: &[f32]| -> Result<Tensor> {
            let rows: Vec<f32> =
                batch.sequences().flat_map(|rows| values[..rows.len() * half].iter().copied()).collect();
            let spread = Tensor::from_vec(rows, (batch.tokens().len(), 1, half), &self.device)?;
            Ok(spread.to_dtype(self.dtype)?)
        };
        let (cos, sin) = (spread(&table.cos)?, spread(&table.sin)?);
        let ragged = Ragged::new(batch, &self.config, &self.device, self.dtype)?;
        Pass { decoder: self, access, batch, ragged, cos, sin }.run()
    }

    /// Embeddings `[n, D]` of tokens, detached.
    ///
    /// # Errors
    /// [`Error::Batch`] for a token outside the vocabulary.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let vocab = self.config.vocab_size;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            let problem = format!("holds token {token}; the model's vocabulary ends at {}", vocab - 1);
            return Err(Error::Batch { sequence: 0, problem });
        }
        let tokens = Tensor::new(tokens, &self.device)?;
        Ok(self.tensor("model.embed_tokens.weight")?.detach().index_select(&tokens, 0)?)
    }

    fn check(&self, batch: &Batch, access: &Access) -> Result<()> {
        let (config, want, rows) = (&self.config, &access.want, batch.tokens().len());
        batch.check(config.vocab_size, config.max_positions)?;
        let refuse =
            |name: &str, needed: String, got: String| Err(Error::Argument { name: name.into(), needed, got });
        if batch.is_empty() {
            return refuse("batch", "at least 1 sequence".into(), "none".into());
        }
        if !(want.temperature > 0.0 && want.temperature.is_finite()) {
            return refuse("temperature", "a finite number above 0".into(), want.temperature.to_string());
        }
        let depth = access.layers.unwrap_or(config.layers);
        if depth > config.layers {
            return refuse("layers", format!("at most {}", config.layers), depth.to_string());
        }
        // The state after the last layer counts as reached only with the last norm.
        let known = if access.layers.is_some() { depth.min(config.layers - 1) } else { config.layers };
        if let Some(index) = want.hidden.iter().find(|&&index| index > known) {
            return refuse("hidden", format!("states up to {known}"), index.to_string());
        }
        if let Some(layer) = access.attention.iter().find(|&&layer| layer >= depth) {
            return refuse("attention", format!("layers below {depth}"), layer.to_string());
        }
        if let Some(row) = access.logits.iter().find(|&&row| row as usize >= rows) {
            return refuse("logits", format!("rows below {rows}"), row.to_string());
        }
        let asks_tokens = !batch.targets().is_empty() || !access.logits.is_empty();
        if asks_tokens && (!config.head.has_language() || access.layers.is_some()) {
            return refuse(
                "targets",
                "a whole pass through a language head".into(),
                "targets without one".into(),
            );
        }
        if want.scores && (config.head.scores() == 0 || access.layers.is_some()) {
            return refuse("scores", "a whole pass through a score head".into(), "none".into());
        }
        if let Some(candidates) = &want.candidates {
            let needed = vec![batch.targets().len(), candidates.per_target];
            if candidates.tokens.len() != needed[0] * needed[1] {
                let got = vec![candidates.tokens.len()];
                return Err(Error::Shape { what: "candidates".into(), needed, got });
            }
            if let Some(token) = candidates.tokens.iter().find(|&&token| token as usize >= config.vocab_size)
            {
                return refuse(
                    "candidates",
                    format!("tokens below {}", config.vocab_size),
                    token.to_string(),
                );
            }
        }
        let given = match access.inputs {
            Inputs::Tokens => return Ok(()),
            Inputs::Embeddings(given) => (given, vec![rows, config.hidden_size]),
            Inputs::Distributions(given) => (given, vec![rows, config.vocab_size]),
        };
        expect_shape("inputs", given.0, &given.1)
    }
}

fn expect_shape(what: &str, tensor: &Tensor, needed: &[usize]) -> Result<()> {
    if tensor.dims() == needed {
        return Ok(());
    }
    Err(Error::Shape { what: what.into(), needed: needed.to_vec(), got: tensor.dims().to_vec() })
}

impl Pass<'_> {
    fn run(&self) -> Result<Trace> {
        let config = &self.decoder.config;
        let want = &self.access.want;
        let table = self.weight("model.embed_tokens.weight")?;
        let embedded = match self.access.inputs {
            Inputs::Tokens => table.index_select(&self.indices(self.batch.tokens())?, 0)?,
            Inputs::Embeddings(given) => given.clone(),
            Inputs::Distributions(given) => given.matmul(&table)?,
        };
        let mut x = self.hook(HookPoint::Embedding, embedded)?;
        let mut states = vec![x.clone()];
        let mut attention = vec![vec![]; self.access.attention.len()];
        for layer in 0..self.access.layers.unwrap_or(config.layers) {
            let normed = self.norm(&x, &format!("model.layers.{layer}.input_layernorm.weight"))?;
            let normed = self.hook(HookPoint::AttentionNorm(layer), normed)?;
            let (attended, probabilities) = self.attention(layer, &normed)?;
            for (kept, _) in attention.iter_mut().zip(&self.access.attention).filter(|(_, l)| **l == layer) {
                *kept = probabilities.clone();
            }
            let attended = self.hook(HookPoint::Attention(layer), attended)?;
            x = self.hook(HookPoint::AttentionResidual(layer), (x + attended)?)?;
            let normed = self.norm(&x, &format!("model.layers.{layer}.post_attention_layernorm.weight"))?;
            let normed = self.hook(HookPoint::MlpNorm(layer), normed)?;
            let gate = self.linear(layer, Projection::Gate, &normed)?.silu()?;
            let up = self.linear(layer, Projection::Up, &normed)?;
            let fed = self.linear(layer, Projection::Down, &(gate * up)?)?;
            let fed = self.hook(HookPoint::Mlp(layer), fed)?;
            x = self.hook(HookPoint::Layer(layer), (x + fed)?)?;
            states.push(x.clone());
        }
        let mut outputs = Outputs {
            logps: Tensor::zeros(0, self.decoder.dtype, &self.decoder.device)?,
            entropies: None,
            distributions: None,
            candidates: None,
            top: None,
            scores: None,
            hidden: vec![],
        };
        let mut logits = None;
        if self.access.layers.is_none() {
            x = self.hook(HookPoint::FinalNorm, self.norm(&x, "model.norm.weight")?)?;
            states[config.layers] = x.clone();
            self.predict(&x, want, &mut outputs)?;
            if want.scores {
                outputs.scores = Some(self.scores(&x)?);
            }
            if !self.access.logits.is_empty() {
                logits = Some(self.logits(&x, &self.access.logits)?);
            }
        }
        outputs.hidden = want.hidden.iter().map(|&index| states[index].clone()).collect();
        Ok(Trace { outputs, attention, logits })
    }

    fn weight(&self, name: &str) -> Result<Tensor> {
        let weight = self.decoder.weight(name)?;
        let tracked = self.access.weights && weight.trained;
        Ok(if tracked { weight.var.as_tensor().clone() } else { weight.var.as_detached_tensor() })
    }

    fn indices(&self, indices: &[u32]) -> Result<Tensor> {
        Ok(Tensor::new(indices, &self.decoder.device)?)
    }

    fn hook(&self, point: HookPoint, x: Tensor) -> Result<Tensor> {
        let Some(hook) = self.access.hook else { return Ok(x) };
        let replaced = hook(point, &x)?;
        expect_shape(&format!("hook at {point:?}"), &replaced, x.dims())?;
        Ok(replaced)
    }

    /// RMS norm over the last dimension.
    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let power = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(self.decoder.config.norm_eps))?;
        Ok(x.broadcast_div(&power.sqrt()?)?.broadcast_mul(&self.weight(name)?)?)
    }

    /// One projection of a layer, with its bias and its adapter's update.
    fn linear(&self, layer: usize, projection: Projection, x: &Tensor) -> Result<Tensor> {
        let stem = format!("model.layers.{layer}.{}", projection.path());
        let mut y = x.matmul(&self.weight(&format!("{stem}.weight"))?.t()?)?;
        let bias = format!("{stem}.bias");
        if self.decoder.has(&bias) {
            y = y.broadcast_add(&self.weight(&bias)?)?;
        }
        let a = format!("base_model.model.{stem}.lora_A.weight");
        if self.access.want.adapter && self.decoder.has(&a) {
            let b = format!("base_model.model.{stem}.lora_B.weight");
            let update = x.matmul(&self.weight(&a)?.t()?)?.matmul(&self.weight(&b)?.t()?)?;
            y = (y + (update * self.decoder.adapter_scale())?)?;
        }
        Ok(y)
    }

    fn attention(&self, layer: usize, x: &Tensor) -> Result<(Tensor, Vec<Tensor>)> {
        let config = &self.decoder.config;
        let (rows, width) = (x.dim(0)?, config.head_dim);
        let heads = |projection, count: usize, norm: &str| -> Result<Tensor> {
            let mut y = self.linear(layer, projection, x)?.reshape((rows, count, width))?;
            if config.qk_norm {
                y = self.norm(&y, &format!("model.layers.{layer}.self_attn.{norm}.weight"))?;
            }
            if config.rope_layers[layer] { self.rotate(&y) } else { Ok(y) }
        };
        let q = heads(Projection::Query, config.heads, "q_norm")?;
        let k = heads(Projection::Key, config.kv_heads, "k_norm")?;
        let v = self.linear(layer, Projection::Value, x)?.reshape((rows, config.kv_heads, width))?;
        let wanted = self.access.attention.contains(&layer);
        let (attended, probabilities) = self.ragged.attend(&q, &k, &v, config.windows[layer], wanted)?;
        Ok((self.linear(layer, Projection::Output, &attended)?, probabilities))
    }

    /// Turns each pair (i, i + half) of a head by its row's angle; `x` is `[N, heads, head_dim]`.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let half = self.decoder.config.head_dim / 2;
        let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let turned = [
            (first.broadcast_mul(&self.cos)? - second.broadcast_mul(&self.sin)?)?,
            (second.broadcast_mul(&self.cos)? + first.broadcast_mul(&self.sin)?)?,
        ];
        Ok(Tensor::cat(&turned, 2)?)
    }

    /// Logits `[rows, V]` at rows of the last state.
    fn logits(&self, x: &Tensor, rows: &[u32]) -> Result<Tensor> {
        let tied = self.decoder.config.tied;
        let name = if tied { "model.embed_tokens.weight" } else { "lm_head.weight" };
        Ok(x.index_select(&self.indices(rows)?, 0)?.matmul(&self.weight(name)?.t()?)?)
    }

    fn predict(&self, x: &Tensor, want: &Want, outputs: &mut Outputs) -> Result<()> {
        let targets = self.batch.targets();
        let count = targets.len();
        let empty = |width: usize| Tensor::zeros((count, width), self.decoder.dtype, &self.decoder.device);
        if count == 0 {
            // No row to compute; what was asked for is there, with no element.
            outputs.entropies = if want.entropies { Some(outputs.logps.clone()) } else { None };
            let vocab = self.decoder.config.vocab_size;
            outputs.distributions = if want.distributions { Some(empty(vocab)?) } else { None };
            outputs.candidates = want.candidates.as_ref().map(|c| empty(c.per_target)).transpose()?;
            outputs.top = want.top.map(|k| Top { per_target: k.min(vocab), tokens: vec![], logps: vec![] });
            return Ok(());
        }
        let rows: Vec<u32> = targets.iter().map(|target| target.row).collect();
        let tokens: Vec<u32> = targets.iter().map(|target| target.token).collect();
        let logits = (self.logits(x, &rows)? * (1.0 / f64::from(want.temperature)))?;
        let highest = logits.detach().max_keepdim(1)?;
        let total = (logits.broadcast_sub(&highest)?.exp()?.sum_keepdim(1)?.log()? + highest)?;
        let gather = |tokens: &[u32], k: usize| -> Result<Tensor> {
            let tokens = self.indices(tokens)?.reshape((count, k))?;
            Ok(logits.gather(&tokens, 1)?.broadcast_sub(&total)?)
        };
        outputs.logps = gather(&tokens, 1)?.squeeze(1)?;
        if let Some(candidates) = &want.candidates {
            outputs.candidates = Some(match candidates.per_target {
                0 => empty(0)?,
                k => gather(&candidates.tokens, k)?,
            });
        }
        if want.entropies || want.distributions || want.top.is_some() {
            let logps = logits.broadcast_sub(&total)?;
            if want.entropies {
                outputs.entropies = Some((logps.exp()? * &logps)?.sum(1)?.neg()?);
            }
            if let Some(k) = want.top {
                outputs.top = Some(top(&logps, k.min(logits.dim(1)?))?);
            }
            if want.distributions {
                outputs.distributions = Some(logps);
            }
        }
        Ok(())
    }

    fn scores(&self, x: &Tensor) -> Result<Tensor> {
        let head = self.decoder.config.head;
        let x = match head {
            Head::Sequence { .. } => {
                let last: Vec<u32> = self.batch.sequences().map(|rows| rows.end as u32 - 1).collect();
                x.index_select(&self.indices(&last)?, 0)?
            }
            _ => x.clone(),
        };
        let stem = head.tensor_stem().unwrap_or_default();
        let scores = x.matmul(&self.weight(&format!("{stem}.weight"))?.t()?)?;
        if !head.has_bias() {
            return Ok(scores);
        }
        Ok(scores.broadcast_add(&self.weight(&format!("{stem}.bias"))?)?)
    }
}

/// The `k` most likely tokens of each row of `[M, V]`; of equally likely ones the lower token first.
fn top(logps: &Tensor, k: usize) -> Result<Top> {
    let mut top = Top { per_target: k, tokens: vec![], logps: vec![] };
    for row in logps.detach().to_dtype(DType::F32)?.to_vec2::<f32>()? {
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        let better = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        if k < order.len() {
            order.select_nth_unstable_by(k, better);
            order.truncate(k);
        }
        order.sort_unstable_by(better);
        top.logps.extend(order.iter().map(|&token| row[token as usize]));
        top.tokens.extend(order);
    }
    Ok(top)
}
