//! Ways to keep a step on sampled answers near the policy that sampled them.

use candle_core::Tensor;
use hone_nn::Batch;
use hone_nn::loss::sum_sequences;
use serde::{Deserialize, Serialize};

use crate::reinforce::clipped_surrogate;

/// What is done with a ratio that has left its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clipping {
    /// Each token's gain is cut (PPO, arXiv:1707.06347).
    Token,
    /// As `token`, and a bad token's loss is cut too, at the `dual` ratio (Ye et al., arXiv:1912.09729).
    Dual,
    /// One ratio for the whole answer, the mean over its tokens of the logarithm (GSPO, arXiv:2507.18071).
    Sequence,
    /// The ratio is a cut weight without gradient on the log-probability (CISPO, arXiv:2506.13585).
    Weight,
    /// Nothing is cut.
    None,
}

/// `[M]` losses in nats from `[M]` log-probabilities now and when sampled, and `[M]` advantages. Ratios may move within
/// `1 − low` and `1 + high`; `dual`, above 1, is used by [`Clipping::Dual`] alone.
///
/// # Errors
/// Those of the tensor library, for lengths that differ.
pub fn surrogate(
    clipping: Clipping,
    logps: &Tensor,
    old: &Tensor,
    advantages: &Tensor,
    batch: &Batch,
    (low, high, dual): (f64, f64, f64),
) -> hone_nn::Result<Tensor> {
    Ok(match clipping {
        Clipping::Token => clipped_surrogate(logps, old, advantages, low, high)?,
        Clipping::Dual => {
            let cut = clipped_surrogate(logps, old, advantages, low, high)?;
            // −c A is a ceiling for bad tokens; for good ones it is below the loss, where it must not bind.
            let ceiling = (advantages * -dual)?;
            let bad = advantages.lt(&advantages.zeros_like()?)?;
            bad.where_cond(&cut.minimum(&ceiling)?, &cut)?
        }
        Clipping::Sequence => {
            let of_answers = sequence_log_ratios(logps, old, batch)?;
            // The token's own gradient with the answer's value, as in the paper's token-level form.
            let moved = ((logps - logps.detach())? + of_answers.detach())?;
            clipped_surrogate(&moved, &moved.zeros_like()?, advantages, low, high)?
        }
        Clipping::Weight => {
            let weight = (logps - old)?.exp()?.clamp(1.0 - low, 1.0 + high)?.detach();
            ((weight * advantages)? * logps)?.neg()?
        }
        Clipping::None => ((logps - old)?.exp()? * advantages)?.neg()?,
    })
}

/// `[M]`: for each token, the mean over its answer's tokens of the logarithm of the ratio.
fn sequence_log_ratios(logps: &Tensor, old: &Tensor, batch: &Batch) -> hone_nn::Result<Tensor> {
    let sums = sum_sequences(&(logps - old)?, batch)?;
    let lengths = (0..batch.len()).map(|at| batch.target_range(at).len());
    let owners: Vec<u32> =
        lengths.clone().enumerate().flat_map(|(at, length)| std::iter::repeat_n(at as u32, length)).collect();
    let counts: Vec<f32> = lengths.map(|length| length.max(1) as f32).collect();
    let counts = Tensor::new(counts, logps.device())?.to_dtype(logps.dtype())?;
    Ok((sums / counts)?.index_select(&Tensor::new(owners, logps.device())?, 0)?)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::bench::{assert_close, tensor};

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], 1..3);
        batch.push(&[1, 2], 1..2);
        batch
    }

    fn of(clipping: Clipping, ratios: [f64; 3], advantages: [f64; 3]) -> (Tensor, Vec<f64>) {
        let now = Var::from_tensor(&tensor(&ratios.map(f64::ln))).unwrap();
        let range = (0.2, 0.2, 3.0);
        let losses =
            surrogate(clipping, &now, &tensor(&[0.0; 3]), &tensor(&advantages), &batch(), range).unwrap();
        let slopes = losses.sum_all().unwrap().backward().unwrap();
        (losses, slopes.get(&now).unwrap().to_vec1().unwrap())
    }

    #[test]
    fn tokens_by_hand() {
        // Good at 2: cut to −1.2, no slope. Bad at 4: 4, or 3 where losses are cut at 3. Good at ½: −½, slope −½.
        let (ratios, advantages) = ([2.0, 4.0, 0.5], [1.0, -1.0, 1.0]);
        let (losses, slopes) = of(Clipping::Token, ratios, advantages);
        assert_close(&losses, &[-1.2, 4.0, -0.5]);
        assert_close(&tensor(&slopes), &[0.0, 4.0, -0.5]);
        let (losses, slopes) = of(Clipping::Dual, ratios, advantages);
        assert_close(&losses, &[-1.2, 3.0, -0.5]);
        assert_close(&tensor(&slopes), &[0.0, 0.0, -0.5]);
        let (losses, _) = of(Clipping::None, ratios, advantages);
        assert_close(&losses, &[-2.0, 4.0, -0.5]);
    }

    #[test]
    fn one_ratio_for_an_answer() {
        // The first answer's ratio is √(2 · ½) = 1: each token has value −A and slope −A. The second's is 2: cut.
        let (losses, slopes) = of(Clipping::Sequence, [2.0, 0.5, 2.0], [1.0, 1.0, 1.0]);
        assert_close(&losses, &[-1.0, -1.0, -1.2]);
        assert_close(&tensor(&slopes), &[-1.0, -1.0, 0.0]);
    }

    #[test]
    fn a_cut_weight_still_teaches() {
        // Weight 1.2 on log 2: the loss −1.2 · ln 2 = −0.83178, slope −1.2, where PPO has none. At ½: 0.8 · ln 2.
        let (losses, slopes) = of(Clipping::Weight, [2.0, 0.5, 1.0], [1.0, 1.0, -1.0]);
        assert_close(&losses, &[-0.831777, 0.554518, 0.0]);
        assert_close(&tensor(&slopes), &[-1.2, -0.8, 1.0]);
    }
}
