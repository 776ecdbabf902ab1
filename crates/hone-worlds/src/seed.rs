//! One seed governs everything; a label keeps two uses of one seed apart.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Generator for one purpose.
///
/// ChaCha, because its stream is fixed by its specification: a task must be the same on every machine and after
/// every upgrade of `rand`.
pub fn rng(seed: u64, label: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(mix(seed, label))
}

/// A seed derived from another and a label, by FNV-1a over both.
pub fn mix(seed: u64, label: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(label.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// One element of a slice that is never empty.
pub(crate) fn pick<T: Copy>(rng: &mut impl Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// Fisher-Yates shuffle, own so that the order does not depend on the version of `rand`.
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// A draw from the standard normal distribution, by Box and Muller.
pub(crate) fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_separate_streams_and_repeat() {
        let draw = |seed, label| rng(seed, label).random::<u64>();
        assert_eq!(draw(1, "task"), draw(1, "task"));
        assert_ne!(draw(1, "task"), draw(1, "noise"));
        assert_ne!(draw(1, "task"), draw(2, "task"));
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut rng = rng(7, "normal");
        let draws: Vec<f64> = (0..20_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Standard errors: 1/sqrt(20000) = 0.0071 and sqrt(2/20000) = 0.01; four of each.
        assert!(mean.abs() < 0.029 && (variance - 1.0).abs() < 0.04, "{mean} {variance}");
    }
}
