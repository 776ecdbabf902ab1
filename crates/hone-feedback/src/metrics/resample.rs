//! How sure a number is: bootstrap intervals, from a seed.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// An estimate and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Interval {
    /// The value on all of the data.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// The interval leaves out `value`.
    pub fn excludes(&self, value: f64) -> bool {
        value < self.low || value > self.high
    }
}

/// The percentile bootstrap of any statistic of `items`.
///
/// `level` is the coverage, as 0.95. The same seed gives the same interval. None for no items, no `rounds`, or a
/// level outside (0, 1). Source: Efron 1979.
pub fn bootstrap<T>(
    items: &[T],
    statistic: impl Fn(&[&T]) -> f64,
    rounds: usize,
    level: f64,
    seed: u64,
) -> Option<Interval> {
    if items.is_empty() || rounds == 0 || !(0.0..1.0).contains(&level) || level == 0.0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let all: Vec<&T> = items.iter().collect();
    let estimate = statistic(&all);
    let mut drawn = all.clone();
    let mut values: Vec<f64> = (0..rounds)
        .map(|_| {
            drawn.iter_mut().for_each(|slot| *slot = &items[rng.random_range(0..items.len())]);
            statistic(&drawn)
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Some(Interval { estimate, low: quantile(&values, tail), high: quantile(&values, 1.0 - tail) })
}

/// [`bootstrap`] of the mean at 95 %, 2000 rounds.
pub fn mean_interval(values: &[f64], seed: u64) -> Option<Interval> {
    bootstrap(values, |drawn| drawn.iter().copied().sum::<f64>() / drawn.len() as f64, 2000, 0.95, seed)
}

/// The quantile of sorted values, `share` in `[0, 1]`, linear between neighbours. NaN of nothing.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    sorted[low] + (sorted[(low + 1).min(last)] - sorted[low]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_cover_and_repeat() {
        let values: Vec<f64> = (0..200).map(|n| f64::from(n % 10)).collect();
        let interval = mean_interval(&values, 3).unwrap();
        assert_eq!(interval.estimate, 4.5);
        // Standard deviation 2.88 of 200 values: 1.96 · 2.88 / √200 = 0.40 on either side.
        assert!((interval.high - interval.low - 0.8).abs() < 0.08, "{interval:?}");
        assert_eq!(mean_interval(&values, 3), Some(interval));
        assert_ne!(mean_interval(&values, 4), Some(interval));
        assert!(interval.excludes(3.9) && !interval.excludes(4.5));
        assert_eq!(mean_interval(&[], 1), None);
        assert_eq!(quantile(&[0.0, 10.0], 0.25), 2.5);
    }
}
