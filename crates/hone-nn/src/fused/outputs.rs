//! Plain numbers to the tensors that a loss sees, and its gradients back to plain numbers.

use candle_core::backprop::GradStore;
use candle_core::{Device, Shape, Tensor, Var};

use super::head::Raw;
use crate::batch::Batch;
use crate::config::{Head, ModelConfig};
use crate::error::Result;
use crate::network::{Outputs, Top, Want};

/// The outputs as variables, so that a loss can be differentiated with respect to them.
pub struct Leaves {
    logps: Var,
    entropies: Option<Var>,
    distributions: Option<Var>,
    candidates: Option<Var>,
    scores: Option<Var>,
    hidden: Vec<Var>,
    top: Option<Top>,
}

/// Gradients of all outputs of a part; empty where the loss does not depend on one.
#[derive(Debug, Default)]
pub struct LeafGradients {
    pub logps: Vec<f32>,
    pub entropies: Vec<f32>,
    pub distributions: Vec<f32>,
    pub candidates: Vec<f32>,
    pub scores: Vec<f32>,
    pub hidden: Vec<Vec<f32>>,
}

fn var(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Var> {
    Ok(Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu)?)?)
}

impl Leaves {
    /// Gives the outputs of `batch` their shapes.
    pub fn new(config: &ModelConfig, batch: &Batch, want: &Want, raw: Raw) -> Result<Leaves> {
        let (n, m) = (batch.tokens().len(), batch.targets().len());
        let scored = match config.head {
            Head::Sequence { .. } => batch.len(),
            _ => n,
        };
        let k = want.candidates.as_ref().map_or(0, |candidates| candidates.per_target);
        let top = want.top.map(|k| Top {
            per_target: k.min(config.vocab_size),
            tokens: raw.top_tokens,
            logps: raw.top_logps,
        });
        Ok(Leaves {
            logps: var(raw.logps, m)?,
            entropies: want.entropies.then(|| var(raw.entropies, m)).transpose()?,
            distributions: want
                .distributions
                .then(|| var(raw.distributions, (m, config.vocab_size)))
                .transpose()?,
            candidates: want.candidates.as_ref().map(|_| var(raw.candidates, (m, k))).transpose()?,
            scores: want.scores.then(|| var(raw.scores, (scored, config.head.scores()))).transpose()?,
            hidden: raw
                .hidden
                .into_iter()
                .map(|values| var(values, (n, config.hidden_size)))
                .collect::<Result<_>>()?,
            top,
        })
    }

    /// What the loss sees.
    pub fn outputs(&self) -> Outputs {
        let tensor = |var: &Option<Var>| var.as_ref().map(|var| var.as_tensor().clone());
        Outputs {
            logps: self.logps.as_tensor().clone(),
            entropies: tensor(&self.entropies),
            distributions: tensor(&self.distributions),
            candidates: tensor(&self.candidates),
            top: self.top.clone(),
            scores: tensor(&self.scores),
            hidden: self.hidden.iter().map(|var| var.as_tensor().clone()).collect(),
        }
    }

    /// The same without the possibility to differentiate, for evaluation.
    pub fn detached(&self) -> Outputs {
        let mut outputs = self.outputs();
        outputs.logps = outputs.logps.detach();
        for tensor in
            [&mut outputs.entropies, &mut outputs.distributions, &mut outputs.candidates, &mut outputs.scores]
                .into_iter()
                .flatten()
                .chain(&mut outputs.hidden)
        {
            *tensor = tensor.detach();
        }
        outputs
    }

    /// Gradients of the loss with respect to each output.
    pub fn gradients(&self, store: &GradStore) -> Result<LeafGradients> {
        let of = |var: Option<&Var>| -> Result<Vec<f32>> {
            match var.and_then(|var| store.get(var.as_tensor())) {
                Some(gradient) => Ok(gradient.flatten_all()?.to_vec1()?),
                None => Ok(vec![]),
            }
        };
        Ok(LeafGradients {
            logps: of(Some(&self.logps))?,
            entropies: of(self.entropies.as_ref())?,
            distributions: of(self.distributions.as_ref())?,
            candidates: of(self.candidates.as_ref())?,
            scores: of(self.scores.as_ref())?,
            hidden: self.hidden.iter().map(|var| of(Some(var))).collect::<Result<_>>()?,
        })
    }
}
