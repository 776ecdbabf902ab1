//! The decoder defined once in basic tensor operations, for any device.
//!
//! It is what the fused CPU code is tested against, what trains on a GPU, and what methods use that look inside a
//! model: other inputs than tokens, hooks on activations, attention probabilities ([`Decoder::forward_with`]). Every
//! operation has a backward pass; candle's own fused norm, rotary and softmax operations do not.
//!
//! On the CPU it is several times slower than the fused code and holds all logits of a part at once. Attention holds
//! all scores of a layer, so memory grows with the square of the longest sequence; and candle computes gradients of
//! frozen weights too before dropping them, so training an adapter here saves optimiser state rather than time.
//!
//! # CUDA
//! The feature `cuda` lets [`device`] name a GPU; nothing else changes. Building it needs the CUDA toolkit: the build
//! scripts of candle-kernels and cudarc call nvcc. Without the toolkit the Rust code still type-checks in whole, by
//! `crates/hone-nn/cuda-check.sh`, which puts a stand-in for nvcc in its place.

mod access;
mod adamw;
mod forward;
mod ragged;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};

pub use access::{Access, Hook, HookPoint, Inputs, Trace};
pub use adamw::AdamW;

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::network::{LossFn, LossValue, Network, Outputs, Want};
use crate::params::Params;

/// Tokens evaluated at once; bounds what one part holds in memory.
const PART_TOKENS: usize = 4096;

/// A device by its name: `cpu`, or `cuda` for the first GPU and `cuda:N` for the one numbered N.
///
/// # Errors
/// [`Error::Argument`] for another name or where this build has no CUDA; [`Error::Candle`] if the GPU cannot be used.
pub fn device(name: &str) -> Result<Device> {
    let refuse = |needed: &str| Error::argument("device", needed, name);
    let index = match name.split_once(':') {
        None if name == "cpu" => return Ok(Device::Cpu),
        None if name == "cuda" => 0,
        Some(("cuda", index)) => index.parse().map_err(|_| refuse("a whole number after `cuda:`"))?,
        _ => return Err(refuse("cpu, cuda or cuda:N")),
    };
    if !cfg!(feature = "cuda") {
        return Err(refuse("cpu: this build has no CUDA, which the feature `cuda` adds"));
    }
    Ok(Device::new_cuda(index)?)
}

/// One tensor of the model on the device.
#[derive(Debug)]
struct Weight {
    var: Var,
    trained: bool,
    matrix: bool,
}

/// A decoder on one device, of every variant that [`ModelConfig`] describes, with or without an adapter.
#[derive(Debug)]
pub struct Decoder {
    config: Arc<ModelConfig>,
    device: Device,
    dtype: DType,
    /// By name in the layouts of the model and of its adapter.
    weights: BTreeMap<String, Weight>,
    /// Factor on the adapter's updates; 0 without an adapter.
    adapter_scale: f64,
    gradients: BTreeMap<String, Tensor>,
}

impl Decoder {
    /// Copies a model to a device, adapter included, in f32. What the model trains is trained here.
    ///
    /// # Errors
    /// [`Error::Candle`] if the device cannot hold it.
    pub fn from_model(model: &Model, device: &Device) -> Result<Decoder> {
        Decoder::from_model_as(model, device, DType::F32)
    }

    /// As [`Decoder::from_model`], computing in another number format: f64 where differences of close numbers are
    /// taken, bf16 where memory is short. Outputs come in it too.
    ///
    /// # Errors
    /// As [`Decoder::from_model`].
    pub fn from_model_as(model: &Model, device: &Device, dtype: DType) -> Result<Decoder> {
        let mut weights = BTreeMap::new();
        for params in [Some(&model.params), model.adapter.as_ref().map(|adapter| &adapter.params)] {
            for entry in params.iter().flat_map(|params| params.layout().entries()) {
                let data = params.map_or(&[][..], |params| &params.data[entry.range()]);
                let tensor = Tensor::from_slice(data, entry.shape.as_slice(), device)?.to_dtype(dtype)?;
                let var = Var::from_tensor(&tensor)?;
                let trained = model.segments().iter().any(|segment| segment.name == entry.name);
                weights.insert(entry.name.clone(), Weight { var, trained, matrix: entry.is_matrix() });
            }
        }
        Ok(Decoder {
            config: model.config().clone(),
            device: device.clone(),
            dtype,
            weights,
            adapter_scale: model.adapter.as_ref().map_or(0.0, |adapter| f64::from(adapter.scale())),
            gradients: BTreeMap::new(),
        })
    }

    /// Copies the weights back into the model they came from, or one laid out alike.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming a tensor that only one of the two has.
    pub fn sync_to(&self, model: &mut Model) -> Result<()> {
        let copy = |params: &mut Params| -> Result<()> {
            for entry in params.layout().clone().entries() {
                let values = self.tensor(&entry.name)?.detach().flatten_all()?.to_dtype(DType::F32)?;
                let values = values.to_vec1::<f32>()?;
                params.tensor_mut(&entry.name)?.copy_from_slice(&values);
            }
            Ok(())
        };
        copy(&mut model.params)?;
        model.adapter.as_mut().map_or(Ok(()), |adapter| copy(&mut adapter.params))
    }

    /// The device that holds the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A weight by its name in the layout of the model or its adapter; differentiable as a variable.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of that name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        Ok(self.weight(name)?.var.as_tensor())
    }

    /// Gradients of trained tensors by name, summed since they were last cleared. A tensor that no loss reached has
    /// none.
    pub fn gradients(&self) -> &BTreeMap<String, Tensor> {
        &self.gradients
    }

    /// Root of the sum of squares of all gradients.
    ///
    /// # Errors
    /// [`Error::Candle`] if the device refuses.
    pub fn gradient_norm(&self) -> Result<f64> {
        let mut total = 0.0;
        for gradient in self.gradients.values() {
            total += scalar(&gradient.sqr()?.sum_all()?)?;
        }
        Ok(total.sqrt())
    }

    /// Drops the gradients.
    pub fn clear_gradients(&mut self) {
        self.gradients.clear();
    }

    fn take_gradients(&mut self) -> BTreeMap<String, Tensor> {
        std::mem::take(&mut self.gradients)
    }

    fn weight(&self, name: &str) -> Result<&Weight> {
        self.weights.get(name).ok_or_else(|| Error::Tensor {
            file: "model".into(),
            tensor: name.into(),
            problem: "this decoder has no such tensor".into(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.weights.contains_key(name)
    }

    fn adapter_scale(&self) -> f64 {
        self.adapter_scale
    }
}

impl Network for Decoder {
    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn evaluate(&self, batch: &Batch, want: &Want) -> Result<Outputs> {
        let parts = batch.split(PART_TOKENS);
        if parts.len() < 2 {
            return on_host(self.forward_with(batch, &access(want.clone(), false))?.outputs);
        }
        let mut outputs = vec![];
        for part in parts {
            let targets = batch.target_range(part.start).start..batch.target_range(part.end - 1).end;
            let access = access(narrow(want, targets), false);
            outputs.push(on_host(self.forward_with(&batch.slice(part), &access)?.outputs)?);
        }
        join(outputs)
    }

    /// The outputs that the loss sees lie on the CPU, whatever the device, so that a loss is the same code
    /// everywhere; what they hold is small beside the pass itself.
    fn accumulate(&mut self, parts: &[Batch], want: &Want, loss: &LossFn) -> Result<Vec<LossValue>> {
        let mut values = vec![];
        let mut targets = 0..0;
        for (index, part) in parts.iter().enumerate() {
            targets = targets.end..targets.end + part.targets().len();
            let access = access(narrow(want, targets.clone()), true);
            let outputs = on_host(self.forward_with(part, &access)?.outputs)?;
            let loss = loss(index, &outputs)?;
            let gradients = loss.value.backward()?;
            for (name, weight) in self.weights.iter().filter(|(_, weight)| weight.trained) {
                let Some(gradient) = gradients.get(weight.var.as_tensor()) else { continue };
                let sum = match self.gradients.get(name) {
                    Some(sum) => (sum + gradient)?,
                    None => gradient.clone(),
                };
                self.gradients.insert(name.clone(), sum);
            }
            values.push(LossValue { value: scalar(&loss.value)?, metrics: loss.metrics });
        }
        Ok(values)
    }
}

fn scalar(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// The wishes for a run of targets out of all that `want` speaks of.
fn narrow(want: &Want, targets: Range<usize>) -> Want {
    let mut want = want.clone();
    if let Some(candidates) = &mut want.candidates {
        let range = targets.start * candidates.per_target..targets.end * candidates.per_target;
        candidates.tokens = candidates.tokens.get(range).unwrap_or_default().to_vec();
    }
    want
}

fn access(want: Want, weights: bool) -> Access<'static> {
    Access { want, weights, ..Access::default() }
}

/// Moves outputs to the CPU, still attached to the graph.
fn on_host(outputs: Outputs) -> Result<Outputs> {
    let host = |tensor: Tensor| tensor.to_device(&Device::Cpu);
    Ok(Outputs {
        logps: host(outputs.logps)?,
        entropies: outputs.entropies.map(host).transpose()?,
        distributions: outputs.distributions.map(host).transpose()?,
        candidates: outputs.candidates.map(host).transpose()?,
        top: outputs.top,
        scores: outputs.scores.map(host).transpose()?,
        hidden: outputs.hidden.into_iter().map(host).collect::<candle_core::Result<_>>()?,
    })
}

/// Lays the outputs of consecutive parts end to end.
fn join(parts: Vec<Outputs>) -> Result<Outputs> {
    let join = |pick: &dyn Fn(&Outputs) -> Option<Tensor>| -> Result<Option<Tensor>> {
        let tensors: Vec<Tensor> = parts.iter().filter_map(pick).collect();
        Ok(if tensors.is_empty() { None } else { Some(Tensor::cat(&tensors, 0)?) })
    };
    let states = parts.first().map_or(0, |part| part.hidden.len());
    let hidden = (0..states).map(|index| join(&|part| part.hidden.get(index).cloned()));
    let hidden = hidden.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    let tops = parts.iter().filter_map(|part| part.top.as_ref());
    let top = tops.cloned().reduce(|mut all, part| {
        all.tokens.extend(part.tokens);
        all.logps.extend(part.logps);
        all
    });
    let logps = join(&|part| Some(part.logps.clone()))?;
    Ok(Outputs {
        logps: logps.ok_or_else(|| Error::argument("batch", "at least 1 sequence", "none"))?,
        entropies: join(&|part| part.entropies.clone())?,
        distributions: join(&|part| part.distributions.clone())?,
        candidates: join(&|part| part.candidates.clone())?,
        top,
        scores: join(&|part| part.scores.clone())?,
        hidden,
    })
}
