//! One seed governs a run; a label keeps its uses apart.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A seed derived from the run's seed and the name of its use, such as `"adapter"` or `"order"`, by FNV-1a over both.
pub fn sub_seed(seed: u64, label: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(label.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A generator for one use. ChaCha, because its stream is fixed by its specification: a run must draw the same
/// numbers on every machine and after every upgrade of `rand`.
pub fn rng(seed: u64, label: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(sub_seed(seed, label))
}

/// Fisher-Yates shuffle, own so that the order does not depend on the version of `rand`.
pub fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        // 64 bits whatever the platform, and a draw whose bias (below 2⁻³²) no data set can show.
        let draw = (u128::from(rng.random::<u64>()) * (last as u128 + 1)) >> 64;
        items.swap(last, draw as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_uses_of_one_seed_apart() {
        assert_eq!(sub_seed(1, "order"), sub_seed(1, "order"));
        assert_ne!(sub_seed(1, "order"), sub_seed(1, "adapter"));
        assert_ne!(sub_seed(1, "order"), sub_seed(2, "order"));
    }

    #[test]
    fn every_order_of_three_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        let mut rng = rng(3, "shuffle");
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut items, &mut rng);
            *counts.entry(items).or_insert(0) += 1;
        }
        // 1000 expected in each of 6 cells, standard deviation √(6000 · 1/6 · 5/6) = 29; five of them.
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&count: &i32| (count - 1000).abs() < 145), "{counts:?}");
    }
}
