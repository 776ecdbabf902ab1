//! Whether two systems differ on the same items.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::resample::{Interval, quantile};

/// What a paired comparison finds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Comparison {
    /// Mean of `b − a`, with its 95 % interval.
    pub difference: Interval,
    /// Two-sided p-value of no difference.
    pub p: f64,
}

/// The paired bootstrap: items are drawn, both systems' scores of an item stay together.
///
/// The p-value doubles the smaller share of draws on one side of 0, with one added to either count so that it is
/// never 0. None where the lengths differ or are 0.
pub fn paired_bootstrap(a: &[f64], b: &[f64], rounds: usize, seed: u64) -> Option<Comparison> {
    if a.is_empty() || a.len() != b.len() || rounds == 0 {
        return None;
    }
    let gaps: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = gaps.len();
    let draw = |_| (0..n).map(|_| gaps[rng.random_range(0..n)]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..rounds).map(draw).collect();
    means.sort_by(f64::total_cmp);
    let below = means.iter().filter(|mean| **mean <= 0.0).count() + 1;
    let above = means.iter().filter(|mean| **mean >= 0.0).count() + 1;
    let p = (2.0 * below.min(above) as f64 / (rounds + 1) as f64).min(1.0);
    let difference = Interval {
        estimate: super::mean(&gaps),
        low: quantile(&means, 0.025),
        high: quantile(&means, 0.975),
    };
    Some(Comparison { difference, p })
}

/// The sign test on `b − a`: two-sided p-value of as many gains as losses; ties are left out.
pub fn sign_test(a: &[f64], b: &[f64]) -> f64 {
    let wins = a.iter().zip(b).filter(|(a, b)| b > a).count() as u64;
    let losses = a.iter().zip(b).filter(|(a, b)| b < a).count() as u64;
    binomial_two_sided(wins, losses)
}

/// McNemar's exact test on two systems that were right or wrong on the same items: two-sided p-value.
pub fn mcnemar(a: &[bool], b: &[bool]) -> f64 {
    let only_b = a.iter().zip(b).filter(|(a, b)| !**a && **b).count() as u64;
    let only_a = a.iter().zip(b).filter(|(a, b)| **a && !**b).count() as u64;
    binomial_two_sided(only_b, only_a)
}

/// Twice the smaller tail of a fair coin, at most 1.
fn binomial_two_sided(x: u64, y: u64) -> f64 {
    let n = x + y;
    if n == 0 {
        return 1.0;
    }
    // Terms by ratio, in logs: 0.5^n underflows past a thousand flips.
    let mut log = n as f64 * 0.5f64.ln();
    let mut tail = 0.0;
    for k in 0..=x.min(y) {
        tail += log.exp();
        log += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Wilcoxon's signed-rank test on `b − a`: two-sided p-value; zero differences are left out, ties share ranks.
///
/// Exact for up to 25 differences without ties, else the normal approximation with corrections for ties and
/// continuity. None where nothing differs or the lengths do.
pub fn wilcoxon(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let gaps: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).filter(|gap| *gap != 0.0).collect();
    if gaps.is_empty() {
        return None;
    }
    let sizes: Vec<f64> = gaps.iter().map(|gap| gap.abs()).collect();
    let ranks = super::ranking::ranks(&sizes);
    let up: f64 = ranks.iter().zip(&gaps).filter(|(_, gap)| **gap > 0.0).map(|(rank, _)| rank).sum();
    let n = gaps.len();
    let total = (n * (n + 1)) as f64 / 2.0;
    let less = up.min(total - up);
    let tied = ranks.iter().any(|rank| rank.fract() != 0.0) || {
        let mut sorted = ranks.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.windows(2).any(|two| two[0] == two[1])
    };
    if n <= 25 && !tied {
        // How many subsets of the ranks 1..n have each sum.
        let mut ways = vec![0.0f64; total as usize + 1];
        ways[0] = 1.0;
        for rank in 1..=n {
            for sum in (rank..ways.len()).rev() {
                ways[sum] += ways[sum - rank];
            }
        }
        let tail: f64 = ways[..=less as usize].iter().sum();
        return Some((2.0 * tail / (n as f64).exp2()).min(1.0));
    }
    let mut sorted = sizes;
    sorted.sort_by(f64::total_cmp);
    let ties: f64 =
        sorted.chunk_by(|a, b| a == b).map(|group| (group.len() as f64).powi(3) - group.len() as f64).sum();
    let n = n as f64;
    let variance = n * (n + 1.0) * (2.0 * n + 1.0) / 24.0 - ties / 48.0;
    if variance <= 0.0 {
        return Some(1.0);
    }
    let z = (less - total / 2.0 + 0.5).min(0.0) / variance.sqrt();
    Some((2.0 * normal_below(z)).min(1.0))
}

/// The standard normal distribution function, to 1e-7. Source: Abramowitz & Stegun 7.1.26 is too coarse; this sums
/// the series near 0 and the continued fraction in the tails.
pub fn normal_below(z: f64) -> f64 {
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if z.abs() < 4.0 {
        // Φ(z) = 1/2 + φ(z) · (z + z³/3 + z⁵/(3·5) + …)
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= z * z / (2 * n + 1) as f64;
            sum += term;
        }
        return 0.5 + density * sum;
    }
    // 1 − Φ(z) = φ(z) / (z + 1/(z + 2/(z + …)))
    let x = z.abs();
    let fraction = (1..=60).rev().fold(x, |rest, n| x + n as f64 / rest);
    let tail = density / fraction;
    if z < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // 8 gains, 1 loss: 2 · (1 + 9) / 512.
        let a = [0.0; 9];
        let mut b = [1.0; 9];
        b[0] = -1.0;
        assert!((sign_test(&a, &b) - 20.0 / 512.0).abs() < 1e-12);
        assert_eq!(sign_test(&[1.0], &[1.0]), 1.0);
        assert!((mcnemar(&[false; 9], &[true; 9]) - 2.0 / 512.0).abs() < 1e-12);
        // Differences 1, 2, 3, 4 all up: the least sum 0, 2 · 1/16.
        assert!((wilcoxon(&[0.0; 4], &[1.0, 2.0, 3.0, 4.0]).unwrap() - 0.125).abs() < 1e-12);
        // One down of rank 1: subsets of sum 0 or 1: 2 · 2/16.
        assert!((wilcoxon(&[0.0; 4], &[-1.0, 2.0, 3.0, 4.0]).unwrap() - 0.25).abs() < 1e-12);
        assert!((normal_below(-1.959_963_985) - 0.025).abs() < 1e-9);
        assert!((normal_below(-5.0) - 2.866_515_7e-7).abs() < 1e-13);
    }

    #[test]
    fn a_clear_gain_is_seen_and_none_is_not() {
        let a: Vec<f64> = (0..100).map(|n| f64::from(n % 7)).collect();
        let up: Vec<f64> =
            a.iter().enumerate().map(|(n, a)| a + if n % 4 == 0 { -0.5 } else { 1.0 }).collect();
        let found = paired_bootstrap(&a, &up, 2000, 1).unwrap();
        // 25 times −0.5 and 75 times +1.
        assert!((found.difference.estimate - 0.625).abs() < 1e-12);
        assert!(found.difference.excludes(0.0) && found.p < 0.01);
        let around: Vec<f64> =
            a.iter().enumerate().map(|(n, a)| a + if n % 2 == 0 { -1.0 } else { 1.0 }).collect();
        let found = paired_bootstrap(&a, &around, 2000, 1).unwrap();
        assert!(!found.difference.excludes(0.0) && found.p > 0.5);
    }
}
