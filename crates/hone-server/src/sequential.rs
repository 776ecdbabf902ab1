//! Whether two variants differ, looked at as often as one likes.
//!
//! An interval that is right at one time only is wrong for who looks every day and stops when it pleases. This one
//! holds at all times together: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
//! "Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024,
//! arXiv:2103.06476, theorem 2.2, with the variance of a difference of two means.

/// Units for which the interval is at its tightest.
const TIGHTEST: f64 = 500.0;
/// Units of each variant below which nothing is said: the sequence is asymptotic.
pub(crate) const LEAST: u64 = 25;

/// What is known of one variant: its units are people, each with a mean value from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Arm {
    /// Units.
    pub count: u64,
    /// Mean of their values.
    pub mean: f64,
    /// Variance of their values.
    pub variance: f64,
}

/// A difference with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Difference {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

impl Arm {
    /// Of values.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        if values.is_empty() {
            return Arm::default();
        }
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Arm { count: values.len() as u64, mean, variance }
    }
}

/// The mean of `b` less that of `a`, with an interval that holds at all times together but for a share `alpha`. None
/// while there are too few.
pub(crate) fn difference(a: Arm, b: Arm, alpha: f64) -> Option<Difference> {
    if a.count < LEAST || b.count < LEAST {
        return None;
    }
    let t = (a.count + b.count) as f64;
    // Of pseudo-outcomes whose mean over all units is the difference: each arm's units weigh by its share.
    let variance = t * (a.variance / a.count as f64 + b.variance / b.count as f64);
    let log = -2.0 * alpha.ln();
    let rho2 = (log + log.ln() + 1.0) / TIGHTEST;
    let width = ((variance * 2.0 * (t * rho2 + 1.0) / (t * t * rho2))
        * ((t * rho2 + 1.0).sqrt() / alpha).ln())
    .sqrt();
    let estimate = b.mean - a.mean;
    Some(Difference { estimate, low: estimate - width, high: estimate + width })
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn by_hand() {
        // Means 0.5 and 0.75 of 100 each, variances 0.25 and 0.1875: per unit of all 200 · (0.0025 + 0.001875) = 0.875.
        // α = 0.05: −2 ln α = 5.99146, ρ² = (5.99146 + 1.79033 + 1) / 500 = 0.0175636, t ρ² + 1 = 4.51272;
        // width² = 0.875 · 2 · 4.51272 / (40000 · 0.0175636) · ln(2.12432 / 0.05) = 0.0112410 · 3.74918 = 0.0421446.
        let a = Arm { count: 100, mean: 0.5, variance: 0.25 };
        let b = Arm { count: 100, mean: 0.75, variance: 0.1875 };
        let found = difference(a, b, 0.05).expect("enough units");
        assert!((found.high - 0.25 - 0.0421446f64.sqrt()).abs() < 1e-4, "{found:?}");
        assert_eq!(found.estimate, 0.25);
        assert_eq!(difference(a, Arm { count: LEAST - 1, ..b }, 0.05), None);
        assert_eq!(Arm::of(&[0.0, 1.0, 1.0, 1.0]), Arm { count: 4, mean: 0.75, variance: 0.1875 });
    }

    /// How often a difference is claimed somewhere on the way to 2,000 units, by this interval and by the usual one.
    fn claimed(rates: [f64; 2], runs: u64) -> [f64; 2] {
        let mut claimed = [0.0; 2];
        for run in 0..runs {
            let mut rng = StdRng::seed_from_u64(run);
            let mut sums = [[0u64; 2]; 2];
            let mut found = [false; 2];
            for unit in 0..2000 {
                let arm = unit % 2;
                sums[arm][0] += 1;
                sums[arm][1] += u64::from(rng.random_bool(rates[arm]));
                let [a, b] = sums.map(|[count, sum]| {
                    let mean = sum as f64 / count.max(1) as f64;
                    Arm { count, mean, variance: mean * (1.0 - mean) }
                });
                if let Some(d) = difference(a, b, 0.05) {
                    found[0] |= d.low > 0.0 || d.high < 0.0;
                    let error = (a.variance / a.count as f64 + b.variance / b.count as f64).sqrt();
                    found[1] |= d.estimate.abs() > 1.96 * error;
                }
            }
            for (sum, found) in claimed.iter_mut().zip(found) {
                *sum += f64::from(u8::from(found)) / runs as f64;
            }
        }
        claimed
    }

    #[test]
    fn looking_all_the_time_finds_no_difference_that_is_not_there() {
        let [always, usual] = claimed([0.7, 0.7], 400);
        // At most 0.05; of 400 runs, two standard errors are 0.022. The usual interval is wrong far more often.
        assert!(always <= 0.05 + 0.022, "{always}");
        assert!(usual > 0.2, "{usual}");
    }

    #[test]
    fn it_finds_one_that_is_there() {
        let [always, _] = claimed([0.6, 0.75], 100);
        assert!(always > 0.9, "{always}");
    }
}
