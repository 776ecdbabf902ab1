//! What a method asks of a model, and what it gets: the seam between losses and decoders.
//!
//! A loss is a function of [`Outputs`]: small tensors (a log-probability per target, a score per token …) that take
//! part in automatic differentiation. The decoder behind them may be the fused CPU code or the reference on any
//! device; neither knows the loss, and the loss knows neither.

use candle_core::Tensor;

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;

/// Which outputs are wanted. Log-probabilities of the batch's targets always come.
#[derive(Debug, Clone, PartialEq)]
pub struct Want {
    /// Entropy of the next-token distribution at each target's row.
    pub entropies: bool,
    /// The whole next-token distribution at each target's row. Holds `M × V` numbers: for small batches.
    pub distributions: bool,
    /// Log-probabilities of `k` given tokens at each target's row, `[M, k]` row-major.
    pub candidates: Option<Candidates>,
    /// The `k` most likely tokens at each target's row, without gradient.
    pub top: Option<usize>,
    /// Scores of the value, reward or classification head.
    pub scores: bool,
    /// Hidden states by index: 0 is the embedding, `l` the output of layer `l`, and `L` (the number of layers) the
    /// last layer's output after the last norm, as `output_hidden_states` of transformers counts.
    pub hidden: Vec<usize>,
    /// Logits are divided by it before any of the above. No unit, above 0.
    pub temperature: f32,
    /// Whether the adapter takes part; `false` gives the frozen reference under a LoRA model.
    pub adapter: bool,
}

impl Default for Want {
    fn default() -> Want {
        Want {
            entropies: false,
            distributions: false,
            candidates: None,
            top: None,
            scores: false,
            hidden: vec![],
            temperature: 1.0,
            adapter: true,
        }
    }
}

/// Tokens whose log-probabilities are wanted at every target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// Tokens per target, `k`.
    pub per_target: usize,
    /// `[M, k]`, row-major. In [`Network::accumulate`], `M` counts the targets of all parts, in their order.
    pub tokens: Vec<u32>,
}

/// What a model says about a batch of `B` sequences, `N` tokens and `M` targets.
#[derive(Debug, Clone)]
pub struct Outputs {
    /// `[M]`: log-probability of each target, in nats.
    pub logps: Tensor,
    /// `[M]`: entropy at each target's row, in nats.
    pub entropies: Option<Tensor>,
    /// `[M, V]`: log-probabilities of all tokens at each target's row.
    pub distributions: Option<Tensor>,
    /// `[M, k]`: log-probabilities of the candidates.
    pub candidates: Option<Tensor>,
    /// The most likely tokens, best first; carries no gradient.
    pub top: Option<Top>,
    /// `[N, K]` scores of each token, or `[B, K]` for a sequence head.
    pub scores: Option<Tensor>,
    /// `[N, D]` each, in the order they were asked for.
    pub hidden: Vec<Tensor>,
}

/// The `k` most likely tokens at each target's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Top {
    /// `k`.
    pub per_target: usize,
    /// `[M, k]`, best first.
    pub tokens: Vec<u32>,
    /// `[M, k]` log-probabilities, in nats.
    pub logps: Vec<f32>,
}

/// A loss and what is worth reporting beside it.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Scalar whose gradient is added. Already scaled: the losses of all parts of a step are summed, so a mean over
    /// the step divides by the step's count, not the part's.
    pub value: Tensor,
    /// Names and values to report, summed over the parts of a step.
    pub metrics: Vec<(&'static str, f64)>,
}

impl From<Tensor> for Loss {
    fn from(value: Tensor) -> Loss {
        Loss { value, metrics: vec![] }
    }
}

/// A loss of one part of a step, given the part's index. Called from several threads at once.
pub type LossFn<'a> = dyn Fn(usize, &Outputs) -> Result<Loss> + Sync + 'a;

/// The value of a loss once computed.
#[derive(Debug, Clone, PartialEq)]
pub struct LossValue {
    /// The scalar.
    pub value: f64,
    /// As in [`Loss`].
    pub metrics: Vec<(&'static str, f64)>,
}

/// A decoder that can be evaluated and trained.
pub trait Network {
    /// Sizes and switches.
    fn config(&self) -> &ModelConfig;

    /// Outputs without gradient. Large batches are computed in parts; the outputs are those of the whole.
    ///
    /// # Errors
    /// [`crate::Error::Batch`] for sequences the model cannot read.
    fn evaluate(&self, batch: &Batch, want: &Want) -> Result<Outputs>;

    /// Runs each part forward, its loss, and backward, and adds the gradients of all parts to the accumulated ones.
    /// The sum is the same whatever the number of threads. Returns the loss of each part, in order.
    ///
    /// # Errors
    /// As [`Network::evaluate`], and whatever `loss` returns. After an error the accumulated gradient is not usable.
    fn accumulate(&mut self, parts: &[Batch], want: &Want, loss: &LossFn) -> Result<Vec<LossValue>>;
}
