//! Methods that learn which responses are better: policies from preferences, and reward models.

pub mod c3po;
pub mod dpo;
pub mod ipo;
pub mod irpo;
pub mod kto;
pub mod lipo;
pub mod orpo;
pub mod reward_lists;
pub mod reward_pairs;
pub mod reward_ratings;
pub mod reward_spans;
pub mod reward_steps;
pub mod slic;

use candle_core::Tensor;

use crate::train::Part;

/// Metrics of a part that every pairwise method reports, as shares of the step: mean rewards of both sides, how often
/// the chosen one's is higher, and by how much. `chosen` and `rejected` are `[P]` rewards.
pub(crate) fn reward_metrics(
    part: &Part<'_>,
    chosen: &Tensor,
    rejected: &Tensor,
) -> hone_nn::Result<Vec<(&'static str, f64)>> {
    let (chosen, rejected) = (chosen.to_vec1::<f32>()?, rejected.to_vec1::<f32>()?);
    let mean = |values: f64| values / part.step_examples as f64;
    let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>();
    let right = chosen.iter().zip(&rejected).filter(|(c, r)| c > r).count() as f64;
    Ok(vec![
        ("rewards/chosen", mean(sum(&chosen))),
        ("rewards/rejected", mean(sum(&rejected))),
        ("rewards/accuracies", mean(right)),
        ("rewards/margins", mean(sum(&chosen) - sum(&rejected))),
    ])
}
