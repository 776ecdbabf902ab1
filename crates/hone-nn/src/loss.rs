//! The pieces losses are built from: pure functions of log-probabilities, masks and plain numbers.
//!
//! Everything here is differentiable in its tensor arguments; masks, weights and counts are plain numbers, since no
//! method passes gradient through them. Sums come before means: what a mean divides by is the step's count, which
//! only the caller knows, so it is always an argument. A mean taken over each part would weigh tokens by the company
//! they happen to be packed in.

use candle_core::{DType, Tensor};

use crate::batch::Batch;
use crate::error::{Error, Result};

/// How far the policy has moved from a reference, estimated from sampled tokens alone. With `r = log π_ref − log π` of
/// a token sampled from the policy, each estimates KL(π ‖ π_ref) in nats (Schulman, "Approximating KL divergence").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kl {
    /// `−r`: unbiased, of either sign, and noisy. As a loss its expected gradient is zero; use it in rewards.
    K1,
    /// `r² / 2`: biased, little noise. As a loss its expected gradient is that of the true divergence.
    K2,
    /// `exp(r) − 1 − r`: unbiased, never negative. As a loss its expected gradient is that of KL(π_ref ‖ π).
    K3,
}

impl Kl {
    /// `[M]`: one estimate per token, in nats, from `[M]` log-probabilities under the policy and the reference.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in shape.
    pub fn estimate(self, logps: &Tensor, reference: &Tensor) -> Result<Tensor> {
        expect("reference log-probabilities", reference, logps.dims())?;
        let ratio = (reference - logps)?;
        Ok(match self {
            Kl::K1 => ratio.neg()?,
            Kl::K2 => (ratio.sqr()? * 0.5)?,
            Kl::K3 => ((ratio.exp()? - &ratio)? - 1.0)?,
        })
    }
}

/// `[M]`: KL(π ‖ π_ref) of each target's whole next-token distribution, in nats, from `[M, V]` log-probabilities.
///
/// # Errors
/// [`Error::Shape`] if the two differ in shape.
pub fn full_kl(logps: &Tensor, reference: &Tensor) -> Result<Tensor> {
    expect("reference distributions", reference, logps.dims())?;
    Ok((logps.exp()? * (logps - reference)?)?.sum(1)?)
}

/// `[B]`: log-probability of each sequence's targets together, in nats; 0 for a sequence without a target.
///
/// # Errors
/// [`Error::Shape`] if there is not one log-probability per target of `batch`.
pub fn seq_logps(logps: &Tensor, batch: &Batch) -> Result<Tensor> {
    sum_sequences(logps, batch)
}

/// `[B]`: sum of any per-target values over the targets of each sequence.
///
/// # Errors
/// [`Error::Shape`] if there is not one value per target of `batch`.
pub fn sum_sequences(values: &Tensor, batch: &Batch) -> Result<Tensor> {
    expect("values of targets", values, &[batch.targets().len()])?;
    let owners: Vec<u32> = (0..batch.len())
        .flat_map(|sequence| std::iter::repeat_n(sequence as u32, batch.target_range(sequence).len()))
        .collect();
    let zeros = Tensor::zeros(batch.len(), values.dtype(), values.device())?;
    if owners.is_empty() {
        return Ok(zeros);
    }
    let owners = Tensor::from_vec(owners, values.dims(), values.device())?;
    Ok(zeros.index_add(&owners, values, 0)?)
}

/// Scalar `Σ weight · value / count`, with `weights` of `[M]` (or whatever shape `values` has, row-major).
///
/// # Errors
/// [`Error::Shape`] if there is not one weight per value; [`Error::Argument`] if `count` is not above 0.
pub fn weighted_sum(values: &Tensor, weights: &[f32], count: f64) -> Result<Tensor> {
    if weights.len() != values.elem_count() {
        return Err(Error::Shape {
            what: "weights of values".into(),
            needed: values.dims().to_vec(),
            got: vec![weights.len()],
        });
    }
    check_count(count)?;
    let weights = Tensor::from_slice(weights, values.dims(), values.device())?.to_dtype(values.dtype())?;
    Ok(((values * weights)?.sum_all()? * (1.0 / count))?)
}

/// Scalar mean of the values whose `mask` is true.
///
/// # Errors
/// [`Error::Shape`] if there is not one flag per value; [`Error::Argument`] if no flag is set: the mean of nothing
/// would be NaN.
pub fn masked_mean(values: &Tensor, mask: &[bool]) -> Result<Tensor> {
    let count = mask.iter().filter(|&&kept| kept).count();
    let weights: Vec<f32> = mask.iter().map(|&kept| f32::from(u8::from(kept))).collect();
    weighted_sum(values, &weights, count as f64)
}

/// Scalar cross-entropy in nats: `−Σ weight · logp / count`. With weights of 1 and the number of all the step's targets
/// as `count`, the sum over the step's parts is the usual mean loss.
///
/// # Errors
/// As [`weighted_sum`].
pub fn cross_entropy(logps: &Tensor, weights: Option<&[f32]>, count: f64) -> Result<Tensor> {
    match weights {
        Some(weights) => Ok(weighted_sum(logps, weights, count)?.neg()?),
        None => {
            check_count(count)?;
            Ok((logps.sum_all()? * (-1.0 / count))?)
        }
    }
}

/// Scalar to add to a loss so that the policy stays undecided: `−coefficient · Σ weight · entropy / count`.
///
/// # Errors
/// As [`weighted_sum`].
pub fn entropy_bonus(entropies: &Tensor, weights: &[f32], count: f64, coefficient: f64) -> Result<Tensor> {
    Ok((weighted_sum(entropies, weights, count)? * -coefficient)?)
}

/// `log σ(x)`, exact for large `|x|` and with slope ½ at 0, where every preference loss starts.
///
/// # Errors
/// Those of the tensor library.
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let size = x.abs()?;
    // Not `min(x, 0) − log(1 + exp(−|x|))`: the tensor library's slopes of `min` and `|x|` at 0 are a matter of taste.
    // Here that of `|x|` cancels.
    let linear = ((x - &size)? * 0.5)?;
    Ok((linear - (size.neg()?.exp()? + 1.0)?.log()?)?)
}

fn check_count(count: f64) -> Result<()> {
    match count > 0.0 && count.is_finite() {
        true => Ok(()),
        false => Err(Error::argument("count", "a number above 0 to divide by", count)),
    }
}

fn expect(what: &str, tensor: &Tensor, shape: &[usize]) -> Result<()> {
    match tensor.dims() == shape {
        true => Ok(()),
        false => Err(Error::Shape { what: what.into(), needed: shape.to_vec(), got: tensor.dims().to_vec() }),
    }
}

/// The scalar in a tensor of one element.
///
/// # Errors
/// Those of the tensor library, for more than one element.
pub fn scalar(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.reshape(())?.to_scalar::<f64>()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (one, other) in got.iter().zip(expected) {
            assert!((one - other).abs() < 1e-9, "{got:?}, expected {expected:?}");
        }
    }

    /// Checks the gradient of a scalar function of `at` against central differences.
    fn assert_gradient(at: &[f64], shape: &[usize], function: impl Fn(&Tensor) -> Tensor) {
        let make = |values: &[f64]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        let variable = Var::from_tensor(&make(at)).unwrap();
        let gradients = function(&variable).backward().unwrap();
        let gradient = values(gradients.get(&variable).unwrap());
        for i in 0..at.len() {
            // f64 with a step of 1e-5: truncation and rounding are both near 1e-10.
            let moved = |by: f64| {
                let mut at = at.to_vec();
                at[i] += by;
                scalar(&function(&make(&at))).unwrap()
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((gradient[i] - slope).abs() < 1e-8, "element {i}: {} against {slope}", gradient[i]);
        }
    }

    fn batch() -> Batch {
        let mut batch = Batch::new();
        batch.push(&[1, 2, 3], 1..3);
        batch.push(&[4, 5], 0..0);
        batch.push(&[6, 7], 1..2);
        batch
    }

    #[test]
    fn sequences_sum_their_own_targets() {
        let logps = [-1.0, -0.5, -0.25];
        assert_close(&values(&seq_logps(&tensor(&logps), &batch()).unwrap()), &[-1.5, 0.0, -0.25]);
        let squares = |x: &Tensor| seq_logps(x, &batch()).unwrap().sqr().unwrap().sum_all().unwrap();
        assert_gradient(&logps, &[3], squares);
        assert!(seq_logps(&tensor(&[0.0]), &batch()).unwrap_err().to_string().contains("needs shape [3]"));
        assert_close(&values(&seq_logps(&tensor(&[]), &batch().slice(1..2)).unwrap()), &[0.0]);
    }

    #[test]
    fn cross_entropy_divides_by_the_count_of_the_step() {
        // −(1 · −1 + 0 · −0.5 + 2 · −0.25) / 4 = 1.5 / 4.
        let (logps, weights) = ([-1.0, -0.5, -0.25], [1.0, 0.0, 2.0]);
        let loss = |x: &Tensor| cross_entropy(x, Some(&weights), 4.0).unwrap();
        assert_close(&values(&loss(&tensor(&logps))), &[0.375]);
        assert_gradient(&logps, &[3], loss);
        // Unweighted: 1.75 / 7.
        let plain = |x: &Tensor| cross_entropy(x, None, 7.0).unwrap();
        assert_close(&values(&plain(&tensor(&logps))), &[0.25]);
        assert_gradient(&logps, &[3], plain);
        assert!(cross_entropy(&tensor(&logps), None, 0.0).is_err());
        assert!(cross_entropy(&tensor(&logps), Some(&[1.0]), 1.0).is_err());
    }

    #[test]
    fn masked_means_count_what_is_kept() {
        let mean = |x: &Tensor| masked_mean(x, &[true, false, true]).unwrap();
        assert_close(&values(&mean(&tensor(&[1.0, 100.0, 2.0]))), &[1.5]);
        assert_gradient(&[1.0, 100.0, 2.0], &[3], mean);
        let none = masked_mean(&tensor(&[1.0]), &[false]).unwrap_err();
        assert_eq!(none.to_string(), "`count`: needs a number above 0 to divide by, got 0");
    }

    #[test]
    fn estimators_of_divergence() {
        // log π = ln ½ and ln ¼, log π_ref = ln ¼ and ln ½: r = −ln 2 and ln 2, ln 2 = 0.693147.
        let (half, quarter) = (0.5f64.ln(), 0.25f64.ln());
        let (policy, reference) = ([half, quarter], tensor(&[quarter, half]));
        let ln2 = std::f64::consts::LN_2;
        let estimate = |kl: Kl| values(&kl.estimate(&tensor(&policy), &reference).unwrap());
        assert_close(&estimate(Kl::K1), &[ln2, -ln2]);
        assert_close(&estimate(Kl::K2), &[ln2 * ln2 / 2.0; 2]);
        // exp(−ln 2) − 1 + ln 2 = ln 2 − ½ and exp(ln 2) − 1 − ln 2 = 1 − ln 2.
        assert_close(&estimate(Kl::K3), &[ln2 - 0.5, 1.0 - ln2]);
        for kl in [Kl::K1, Kl::K2, Kl::K3] {
            assert_gradient(&policy, &[2], |x| kl.estimate(x, &reference).unwrap().sum_all().unwrap());
        }
        assert!(Kl::K1.estimate(&tensor(&policy), &tensor(&[0.0])).is_err());
    }

    #[test]
    fn full_divergence_and_the_mean_of_its_estimators() {
        let policy = [0.5f64, 0.25, 0.25].map(f64::ln);
        let reference = Tensor::from_slice(&[0.25f64, 0.25, 0.5].map(f64::ln), (1, 3), &Device::Cpu).unwrap();
        let full = |x: &Tensor| full_kl(x, &reference).unwrap().sum_all().unwrap();
        // ½ ln 2 + ¼ ln 1 + ¼ ln ½ = ¼ ln 2.
        let expected = 0.25 * std::f64::consts::LN_2;
        let row = Tensor::from_slice(&policy, (1, 3), &Device::Cpu).unwrap();
        assert_close(&values(&full(&row)), &[expected]);
        assert_gradient(&policy, &[1, 3], full);
        // Unbiased estimators average to it under the policy itself.
        for kl in [Kl::K1, Kl::K3] {
            let each = values(&kl.estimate(&row, &reference).unwrap());
            let mean: f64 = each.iter().zip(policy).map(|(value, logp)| value * logp.exp()).sum();
            assert_close(&[mean], &[expected]);
        }
    }

    #[test]
    fn entropy_is_rewarded() {
        // −0.1 · (1 · 2 + ½ · 4) / 2 = −0.2.
        let bonus = |x: &Tensor| entropy_bonus(x, &[1.0, 0.5], 2.0, 0.1).unwrap();
        assert_close(&values(&bonus(&tensor(&[2.0, 4.0]))), &[-0.2]);
        assert_gradient(&[2.0, 4.0], &[2], bonus);
    }

    #[test]
    fn log_sigmoid_is_exact_at_zero_and_far_from_it() {
        let got = values(&log_sigmoid(&tensor(&[0.0, 800.0, -800.0, 2.0])).unwrap());
        // log σ(2) = −ln(1 + e⁻²) = −0.126928.
        assert_close(&got, &[-std::f64::consts::LN_2, 0.0, -800.0, -(1.0 + (-2.0f64).exp()).ln()]);
        assert_gradient(&[0.0, 1.5, -1.5, 30.0, -30.0], &[5], |x| log_sigmoid(x).unwrap().sum_all().unwrap());
    }
}
