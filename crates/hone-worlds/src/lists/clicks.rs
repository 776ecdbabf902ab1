//! Users who look from the top, click what they like, and sometimes click anything.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The position-based click model, with noise.
///
/// A user looks at rank `r` (from 1) with probability `r^-bias`. An item that is looked at is clicked with the
/// probability of its grade, lowered by `redundancy` for each earlier item of the same category. With probability
/// `noise` the click is the opposite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clicks {
    /// Exponent of the position bias, at least 0; 0 means that every rank is looked at.
    pub bias: f64,
    /// Probability of a click on an item of grade 0, 1, 2 that is looked at.
    pub attraction: [f64; 3],
    /// Factor in `[0, 1]` taken off per earlier item of the same category; 0 for none.
    pub redundancy: f64,
    /// Probability in `[0, 1]` that a click is turned round.
    pub noise: f64,
}

impl Default for Clicks {
    fn default() -> Self {
        Clicks { bias: 1.0, attraction: [0.05, 0.4, 0.8], redundancy: 0.0, noise: 0.0 }
    }
}

impl Clicks {
    /// The model if its numbers are possible.
    /// # Errors
    /// [`Error::Setting`] names the first that is not.
    pub fn validate(self) -> Result<Self> {
        let unit = |setting, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(Error::setting("lists", setting, "0 to 1", value))
            }
        };
        if self.bias.is_nan() || self.bias < 0.0 {
            return Err(Error::setting("lists", "bias", "at least 0", self.bias));
        }
        self.attraction.iter().try_for_each(|value| unit("attraction", *value))?;
        unit("redundancy", self.redundancy)?;
        unit("noise", self.noise)?;
        Ok(self)
    }

    /// Probability that a rank, counted from 0, is looked at.
    pub fn examined(&self, rank: usize) -> f64 {
        (rank as f64 + 1.0).powf(-self.bias)
    }

    /// Clicks on a list shown in this order: one per item.
    ///
    /// `grades` and `categories` have one entry per item; grades are rounded to 0, 1 or 2.
    pub fn click<T: PartialEq>(&self, grades: &[f64], categories: &[T], rng: &mut ChaCha8Rng) -> Vec<bool> {
        let probability = |rank: usize| {
            let grade = (grades[rank].round().clamp(0.0, 2.0)) as usize;
            let seen = categories.get(rank).map_or(0, |category| {
                categories[..rank].iter().filter(|earlier| *earlier == category).count()
            });
            self.examined(rank) * self.attraction[grade] * (1.0 - self.redundancy).powi(seen as i32)
        };
        (0..grades.len())
            .map(|rank| {
                let clicked = rng.random::<f64>() < probability(rank);
                clicked != (rng.random::<f64>() < self.noise)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::rng;

    fn rates(clicks: &Clicks, grades: &[f64]) -> Vec<f64> {
        let (mut rng, rounds) = (rng(1, "clicks"), 20_000);
        let mut counts = vec![0.0; grades.len()];
        for _ in 0..rounds {
            for (count, clicked) in counts.iter_mut().zip(clicks.click(grades, &["x"; 3], &mut rng)) {
                *count += f64::from(u8::from(clicked));
            }
        }
        counts.iter().map(|count| count / f64::from(rounds)).collect()
    }

    #[test]
    fn rates_are_those_of_the_model() {
        // Grade 2 at ranks 1 to 3 with bias 1: 0.8, 0.4, 0.2667; standard error at most 0.0035, four of them 0.014.
        let got = rates(&Clicks::default(), &[2.0; 3]);
        for (got, expected) in got.iter().zip([0.8, 0.4, 0.8 / 3.0]) {
            assert!((got - expected).abs() < 0.014, "{got} {expected}");
        }
        // Noise 0.2 turns 0.8 into 0.8 * 0.8 + 0.2 * 0.2 = 0.68; redundancy 0.5 halves the second: 0.2 and 0.32.
        let noisy = Clicks { noise: 0.2, redundancy: 0.5, ..Clicks::default() };
        let got = rates(&noisy, &[2.0; 3]);
        assert!((got[0] - 0.68).abs() < 0.014 && (got[1] - 0.32).abs() < 0.014, "{got:?}");
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let said = Clicks { noise: 2.0, ..Clicks::default() }.validate().unwrap_err().to_string();
        assert_eq!(said, "world lists: setting noise: needs 0 to 1, got 2");
    }
}
