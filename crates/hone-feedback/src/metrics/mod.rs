//! Text metrics and statistics that the whole project shares.
//!
//! [`text`] compares texts, [`agreement`] judges, [`ranking`] orders, [`raters`] weighs sources, [`resample`] says
//! how sure a number is, [`significance`] whether two differ. All are pure functions of plain numbers.

pub mod agreement;
pub mod bleu;
mod grams;
pub mod ranking;
pub mod raters;
pub mod resample;
pub mod rouge;
pub mod significance;
pub mod text;

/// The mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample standard deviation (divisor `n − 1`); NaN of fewer than two values.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 2 { f64::NAN } else { (squares / (values.len() - 1) as f64).sqrt() }
}

/// The unbiased estimate of pass@k from `n` samples of which `c` passed: `1 − C(n−c, k) / C(n, k)`.
///
/// None where `k > n`, `c > n` or `k = 0`. Source: Chen et al. 2021, arXiv:2107.03374.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    // The product form of the quotient of binomials: no factorial overflows.
    Some(1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>())
}

/// The expected calibration error over `bins` equal bins of confidence: the mean gap between confidence and
/// share of hits, weighted by the size of the bin. `confidence` in `[0, 1]`. None where nothing can be computed.
pub fn calibration_error(confidence: &[f64], hit: &[bool], bins: usize) -> Option<f64> {
    if confidence.is_empty() || confidence.len() != hit.len() || bins == 0 {
        return None;
    }
    let mut sums = vec![(0.0, 0.0, 0usize); bins];
    for (confidence, hit) in confidence.iter().zip(hit) {
        if !(0.0..=1.0).contains(confidence) {
            return None;
        }
        // Bins are half-open on the left, as in Guo et al. 2017; a confidence of 0 falls into the first.
        let bin = ((confidence * bins as f64).ceil() as usize).clamp(1, bins) - 1;
        sums[bin].0 += confidence;
        sums[bin].1 += f64::from(u8::from(*hit));
        sums[bin].2 += 1;
    }
    let gaps = sums.iter().map(|(confidence, hits, _)| (confidence - hits).abs());
    Some(gaps.sum::<f64>() / confidence.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_at_k() {
        // 1 − C(3,2)/C(5,2) = 1 − 3/10.
        assert!((pass_at_k(5, 2, 2).unwrap() - 0.7).abs() < 1e-12);
        assert!((pass_at_k(10, 3, 1).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(pass_at_k(4, 3, 2), Some(1.0));
        assert_eq!(pass_at_k(4, 0, 2), Some(0.0));
        assert_eq!(pass_at_k(4, 1, 5), None);
        assert!(pass_at_k(100_000, 7, 1000).unwrap().is_finite());
    }

    #[test]
    fn calibration() {
        // Two bins: (0.2, 0.4) with one hit, sums 0.6 and 1: gap 0.4; (0.9, 0.7) with two hits, 1.6 and 2: gap 0.4.
        let error = calibration_error(&[0.2, 0.4, 0.9, 0.7], &[true, false, true, true], 2).unwrap();
        assert!((error - 0.2).abs() < 1e-12, "{error}");
        assert_eq!(calibration_error(&[1.5], &[true], 2), None);
    }

    #[test]
    fn spread() {
        // Mean 5, squares 9+1+1+1+0+0+4+16 = 32 over 7.
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&values), 5.0);
        assert!((standard_deviation(&values) - (32.0f64 / 7.0).sqrt()).abs() < 1e-12);
    }
}
