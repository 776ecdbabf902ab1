//! What a method may see and change inside a forward pass.

use candle_core::Tensor;

use crate::error::Result;
use crate::network::{Outputs, Want};

/// What enters the first layer. Lengths and targets come from the batch in every case.
#[derive(Debug, Clone, Copy, Default)]
pub enum Inputs<'a> {
    /// The batch's tokens.
    #[default]
    Tokens,
    /// `[N, D]`, in place of the token embeddings; takes part in differentiation.
    Embeddings(&'a Tensor),
    /// `[N, V]`: a distribution over the vocabulary per token (a soft token), which enters as the mean of the
    /// embeddings under it; takes part in differentiation. One-hot rows are plain tokens.
    Distributions(&'a Tensor),
}

/// A place in the decoder whose activation can be read or replaced. Layers count from 0.
///
/// The input of a layer's first norm is the residual stream before it, [`HookPoint::Embedding`] or
/// [`HookPoint::Layer`] of the layer below; the input of its second norm is [`HookPoint::AttentionResidual`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HookPoint {
    /// The embedded input: the residual stream before the first layer.
    Embedding,
    /// Output of a layer's first norm (`input_layernorm`).
    AttentionNorm(usize),
    /// What a layer's attention adds to the residual stream, after the output projection.
    Attention(usize),
    /// The residual stream after a layer's attention.
    AttentionResidual(usize),
    /// Output of a layer's second norm (`post_attention_layernorm`).
    MlpNorm(usize),
    /// What a layer's feed-forward part adds to the residual stream.
    Mlp(usize),
    /// The residual stream after a layer.
    Layer(usize),
    /// Output of the last norm, which the heads read.
    FinalNorm,
}

/// Sees the activation `[N, D]` at every [`HookPoint`] in order and returns what takes its place: the same tensor, or
/// another of its shape.
pub type Hook<'a> = dyn Fn(HookPoint, &Tensor) -> Result<Tensor> + 'a;

/// How one forward pass differs from a plain one. The default is the plain one, without gradients to the weights.
#[derive(Clone, Default)]
pub struct Access<'a> {
    /// Which outputs are wanted.
    pub want: Want,
    /// What enters the first layer.
    pub inputs: Inputs<'a>,
    /// Called at every hook point.
    pub hook: Option<&'a Hook<'a>>,
    /// Layers whose attention probabilities are wanted.
    pub attention: Vec<usize>,
    /// Rows of the batch whose logits are wanted, before any temperature.
    pub logits: Vec<u32>,
    /// Stop after this many layers, without last norm and heads. Only for batches without targets, and with outputs
    /// that are known by then.
    pub layers: Option<usize>,
    /// Whether trained weights take part in differentiation. Leave it off where only inputs or hooks are
    /// differentiated: it saves the memory and time of the weights' gradients.
    pub weights: bool,
}

/// What a forward pass with [`Access`] gives back, on the decoder's device and attached to the graph.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The outputs that [`Want`] asks for.
    pub outputs: Outputs,
    /// For every layer asked for, in that order, and every sequence: `[H, T, T]`, head × query × key.
    pub attention: Vec<Vec<Tensor>>,
    /// `[R, V]`, if any row was asked for.
    pub logits: Option<Tensor>,
}
