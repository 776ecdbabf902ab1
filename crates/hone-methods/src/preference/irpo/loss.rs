//! The objective over the scores of one list, those it is compared with, and its gradient in plain numbers.

use candle_core::Tensor;
use hone_nn::loss;
use serde::{Deserialize, Serialize};

use crate::preference::lipo;

/// Which loss is taken over a list's scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Every item against all others, weighted.
    Irpo,
    /// One relevant against one less relevant item, drawn once per list.
    Dpo,
    /// Each relevant item against all that are not relevant.
    SDpo,
    /// LambdaLoss, its labels the relevance over the highest.
    Lipo,
    /// Likelihood of the relevant items.
    Sft,
}

/// How much an item counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// `(2^rel − 1) / log2(1 + τ)`.
    Ndcg,
    /// `1 / log2(1 + τ)`.
    Discount,
    /// `(2^rel − 1) / τ`.
    Reciprocal,
    /// `2^rel − 1`.
    Gain,
}

impl Weight {
    /// Weight of an item of this relevance and target rank, from 1. No unit.
    pub fn of(self, relevance: f64, target_rank: usize) -> f64 {
        let (gain, rank) = (relevance.exp2() - 1.0, target_rank as f64);
        match self {
            Weight::Ndcg => gain / (1.0 + rank).log2(),
            Weight::Discount => 1.0 / (1.0 + rank).log2(),
            Weight::Reciprocal => gain / rank,
            Weight::Gain => gain,
        }
    }
}

/// `[n]`: how far each item is behind its competitors, `log(1/(n − 1) Σ_{j ≠ i} exp(s_j − s_i))`, in nats.
///
/// # Errors
/// [`hone_nn::Error::Argument`] for fewer than two items; those of the tensor library.
pub fn margins(scores: &Tensor) -> hone_nn::Result<Tensor> {
    let n = scores.dims1()?;
    if n < 2 {
        return Err(hone_nn::Error::argument("scores", "at least 2 items", n));
    }
    // Gaps s_j − s_i in rows i; j = i is left out rather than masked, so that nothing infinite enters.
    let gaps = scores.unsqueeze(0)?.broadcast_sub(&scores.unsqueeze(1)?)?.flatten_all()?;
    let others = (0..n).flat_map(|i| (0..n).filter(move |&j| j != i).map(move |j| (i * n + j) as u32));
    let others = Tensor::new(others.collect::<Vec<u32>>(), scores.device())?;
    let gaps = gaps.index_select(&others, 0)?.reshape((n, n - 1))?;
    Ok((gaps.log_sum_exp(1)? - ((n - 1) as f64).ln())?)
}

/// `−(1/n) Σ w_i log σ(−z_i)` of one list, in nats; `scores` and `weights` are `[n]`.
///
/// # Errors
/// As [`margins`].
pub fn irpo_loss(scores: &Tensor, weights: &[f64]) -> hone_nn::Result<Tensor> {
    let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
    let each = loss::log_sigmoid(&margins(scores)?.neg()?)?;
    Ok(loss::weighted_sum(&each, &weights, weights.len() as f64)?.neg()?)
}

/// A list's pair for DPO: places of a more and a less relevant item.
pub type Pair = (usize, usize);

/// Loss of one list, in nats. `scores`, `relevance` and `target_ranks` are `[n]`.
///
/// # Errors
/// As [`margins`].
pub fn list_loss(
    objective: Objective,
    weight: Weight,
    scores: &Tensor,
    relevance: &[f64],
    target_ranks: &[usize],
    pair: Pair,
) -> hone_nn::Result<Tensor> {
    let relevant: Vec<usize> = (0..relevance.len()).filter(|&at| relevance[at] > 0.0).collect();
    match objective {
        Objective::Irpo => {
            let weights: Vec<f64> =
                relevance.iter().zip(target_ranks).map(|(&r, &t)| weight.of(r, t)).collect();
            irpo_loss(scores, &weights)
        }
        Objective::Dpo => Ok(loss::log_sigmoid(&(scores.get(pair.0)? - scores.get(pair.1)?)?)?.neg()?),
        Objective::SDpo => {
            let others: Vec<u32> =
                (0..relevance.len()).filter(|&at| relevance[at] <= 0.0).map(|at| at as u32).collect();
            let mut sum = Tensor::zeros((), scores.dtype(), scores.device())?;
            if others.is_empty() {
                return Ok(sum);
            }
            let rest = scores.index_select(&Tensor::new(others, scores.device())?, 0)?.log_sum_exp(0)?;
            for &at in &relevant {
                sum = (sum - loss::log_sigmoid(&(scores.get(at)? - &rest)?)?)?;
            }
            Ok((sum / relevant.len().max(1) as f64)?)
        }
        Objective::Lipo => {
            let top = relevance.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            let labels: Vec<f32> = relevance.iter().map(|r| (r / top) as f32).collect();
            // The order of the sequence is random already: it settles equal ranks.
            let order: Vec<usize> = (0..labels.len()).collect();
            lipo::list_loss(lipo::Objective::Lambda, scores, &labels, &order)
        }
        Objective::Sft => {
            let weights: Vec<f32> = relevance.iter().map(|&r| f32::from(u8::from(r > 0.0))).collect();
            Ok(loss::weighted_sum(scores, &weights, relevant.len().max(1) as f64)?.neg()?)
        }
    }
}

/// What each ordered pair of items `(i, j)` adds to the gradient of [`irpo_loss`], for plain scores: the loss moves by
/// `c (∂s_j − ∂s_i)` with `c = w_i σ(z_i) p_{j|i} / n`. `[(i, j, c)]` of all pairs with a weight above 0.
pub fn pair_coefficients(scores: &[f64], weights: &[f64]) -> Vec<(usize, usize, f64)> {
    let n = scores.len();
    let mut all = vec![];
    for i in (0..n).filter(|&i| weights[i] != 0.0) {
        // σ(z) = m / (1 + m) with m the mean of exp(s_j − s_i).
        let odds: Vec<f64> =
            (0..n).map(|j| if j == i { 0.0 } else { (scores[j] - scores[i]).exp() }).collect();
        let sum: f64 = odds.iter().sum();
        let mean = sum / (n as f64 - 1.0);
        let pull = weights[i] * (mean / (1.0 + mean)) / n as f64;
        all.extend((0..n).filter(|&j| j != i).map(|j| (i, j, pull * odds[j] / sum)));
    }
    all
}

/// `[n]`: gradient of [`irpo_loss`] by the scores.
pub fn gradient(scores: &[f64], weights: &[f64]) -> Vec<f64> {
    let mut slopes = vec![0.0; scores.len()];
    for (i, j, c) in pair_coefficients(scores, weights) {
        slopes[i] -= c;
        slopes[j] += c;
    }
    slopes
}
