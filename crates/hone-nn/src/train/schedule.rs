//! Learning-rate schedules, as `transformers.get_scheduler` computes them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Steps over which the rate rises from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// A number of steps.
    Steps(u64),
    /// A share of all steps, in `[0, 1]`, rounded up.
    Share(f64),
}

/// How the rate of [`Shape::WarmupStableDecay`] falls at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// In a straight line.
    Linear,
    /// Along half a cosine.
    Cosine,
    /// As `1 − √progress`.
    Sqrt,
}

/// What the rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Stays.
    Constant,
    /// Falls to 0 in a straight line.
    Linear,
    /// Falls to `floor` of its peak along half a cosine.
    Cosine {
        /// Share of the peak that is left at the end, in `[0, 1]`.
        floor: f64,
    },
    /// Falls as `1 / √step`.
    InverseSqrt {
        /// Steps after which half the square is lost; the warm-up's length if `None`, 10,000 if that is 0.
        timescale: Option<u64>,
    },
    /// Stays, then falls over the last `decay` steps (arXiv:2404.06395).
    WarmupStableDecay {
        /// Steps of the fall, within the total.
        decay: WarmUp,
        /// How it falls.
        decline: Decline,
        /// Share of the peak that is left at the end, in `[0, 1]`.
        floor: f64,
    },
}

/// A schedule of so many steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Rise at the start.
    pub warm_up: WarmUp,
    /// What follows.
    pub shape: Shape,
}

impl Default for Schedule {
    /// Constant from the first step.
    fn default() -> Schedule {
        Schedule { warm_up: WarmUp::Steps(0), shape: Shape::Constant }
    }
}

impl Schedule {
    /// Checks the ranges against the length of the run.
    ///
    /// # Errors
    /// [`Error::Argument`] for a share outside `[0, 1]`, or warm-up and decay that together pass `total` steps.
    pub fn check(&self, total: u64) -> Result<()> {
        let share = |name: &str, share: f64| match (0.0..=1.0).contains(&share) {
            true => Ok(()),
            false => Err(Error::argument(name, "a share in [0, 1]", share)),
        };
        let length = |name: &str, length: WarmUp| match length {
            WarmUp::Share(value) => share(name, value),
            WarmUp::Steps(_) => Ok(()),
        };
        length("warm_up", self.warm_up)?;
        let mut used = steps(self.warm_up, total);
        match self.shape {
            Shape::Cosine { floor } => share("floor", floor)?,
            Shape::WarmupStableDecay { decay, floor, .. } => {
                length("decay", decay)?;
                share("floor", floor)?;
                used += steps(decay, total);
            }
            Shape::InverseSqrt { timescale: Some(0) } => {
                return Err(Error::argument("timescale", "at least 1 step", 0));
            }
            _ => {}
        }
        if used > total {
            return Err(Error::argument("warm_up", format!("warm-up and decay within {total} steps"), used));
        }
        Ok(())
    }

    /// Share of the peak rate after `done` of `total` steps. The first step is taken at `done = 0`, so a warm-up
    /// starts with a step of rate 0, as in `transformers`.
    pub fn factor(&self, done: u64, total: u64) -> f64 {
        let warm = steps(self.warm_up, total);
        let (at, warm_f) = (done as f64, warm as f64);
        if done < warm {
            return at / warm_f;
        }
        // Progress in [0, 1] through what follows the warm-up; stays at 1 past the end.
        let progress = ((at - warm_f) / (total as f64 - warm_f).max(1.0)).min(1.0);
        match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - progress,
            Shape::Cosine { floor } => floor + (1.0 - floor) * half_cosine(progress),
            Shape::InverseSqrt { timescale } => {
                let scale = timescale.unwrap_or(if warm == 0 { 10_000 } else { warm }) as f64;
                1.0 / ((at + scale - warm_f) / scale).sqrt()
            }
            Shape::WarmupStableDecay { decay, decline, floor } => {
                let fall = steps(decay, total).min(total.saturating_sub(warm));
                let stable = total.saturating_sub(fall);
                if done < stable {
                    return 1.0;
                }
                if done >= total {
                    return floor;
                }
                let progress = (done - stable) as f64 / fall as f64;
                let left = match decline {
                    Decline::Linear => 1.0 - progress,
                    Decline::Cosine => half_cosine(progress),
                    Decline::Sqrt => 1.0 - progress.sqrt(),
                };
                floor + (1.0 - floor) * left
            }
        }
    }
}

fn steps(length: WarmUp, total: u64) -> u64 {
    match length {
        WarmUp::Steps(steps) => steps,
        WarmUp::Share(share) => (share * total as f64).ceil() as u64,
    }
}

fn half_cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(warm_up: WarmUp, shape: Shape, total: u64, at: &[u64]) -> Vec<f64> {
        let schedule = Schedule { warm_up, shape };
        schedule.check(total).unwrap();
        at.iter().map(|&done| schedule.factor(done, total)).collect()
    }

    fn assert_close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (got_one, expected_one) in got.iter().zip(expected) {
            assert!((got_one - expected_one).abs() < 1e-12, "{got:?}, expected {expected:?}");
        }
    }

    #[test]
    fn warm_up_rises_from_zero_in_a_line() {
        // A share of 0.15 of 10 steps is 1.5, rounded up: 2.
        let got = factors(WarmUp::Share(0.15), Shape::Constant, 10, &[0, 1, 2, 9]);
        assert_close(&got, &[0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn linear_ends_at_zero() {
        // After 2 of 10 steps 8 are left: (10 − 4) / 8 = 0.75.
        let got = factors(WarmUp::Steps(2), Shape::Linear, 10, &[1, 2, 4, 10, 11]);
        assert_close(&got, &[0.5, 1.0, 0.75, 0.0, 0.0]);
    }

    #[test]
    fn cosine_passes_its_middle_at_half() {
        // A third of the way ½ (1 + cos 60°) = 0.75, in the middle ½; with a floor of 0.1: 0.1 + 0.9 · ½ = 0.55.
        let at = [0, 2, 3, 6];
        assert_close(
            &factors(WarmUp::Steps(0), Shape::Cosine { floor: 0.0 }, 6, &at),
            &[1.0, 0.75, 0.5, 0.0],
        );
        assert_close(
            &factors(WarmUp::Steps(0), Shape::Cosine { floor: 0.1 }, 6, &at),
            &[1.0, 0.1 + 0.9 * 0.75, 0.55, 0.1],
        );
    }

    #[test]
    fn inverse_sqrt_halves_at_four_timescales() {
        // Warm-up 4 is the timescale: after 16 steps 1/√(16/4) = ½.
        let shape = Shape::InverseSqrt { timescale: None };
        assert_close(&factors(WarmUp::Steps(4), shape, 100, &[2, 4, 16]), &[0.5, 1.0, 0.5]);
        // Without warm-up the timescale is 10,000: after 30,000 steps 1/√4.
        assert_close(&factors(WarmUp::Steps(0), shape, 50_000, &[0, 30_000]), &[1.0, 0.5]);
        // Timescale 9 after warm-up 5, shift 4: after 32 steps 1/√((32 + 4)/9) = ½.
        let shape = Shape::InverseSqrt { timescale: Some(9) };
        assert_close(&factors(WarmUp::Steps(5), shape, 100, &[5, 32]), &[1.0, 0.5]);
    }

    #[test]
    fn stable_rate_falls_in_the_last_steps() {
        let shape = |decline| Shape::WarmupStableDecay { decay: WarmUp::Share(0.4), decline, floor: 0.2 };
        let at = [1, 2, 5, 6, 7, 10, 12];
        // Warm-up 2, stable to 6, decay over 4. After 7 steps progress is ¼: linear ¾, root ½, cosine (1 + √½)/2.
        let expected = |left: f64| [0.5, 1.0, 1.0, 1.0, 0.2 + 0.8 * left, 0.2, 0.2];
        assert_close(&factors(WarmUp::Steps(2), shape(Decline::Linear), 10, &at), &expected(0.75));
        assert_close(&factors(WarmUp::Steps(2), shape(Decline::Sqrt), 10, &at), &expected(0.5));
        let cosine = 0.5 * (1.0 + 0.5f64.sqrt());
        assert_close(&factors(WarmUp::Steps(2), shape(Decline::Cosine), 10, &at), &expected(cosine));
    }

    #[test]
    fn impossible_schedules_are_refused() {
        let refused = |warm_up, shape| Schedule { warm_up, shape }.check(10).unwrap_err().to_string();
        assert_eq!(
            refused(WarmUp::Share(1.5), Shape::Constant),
            "`warm_up`: needs a share in [0, 1], got 1.5"
        );
        assert_eq!(
            refused(WarmUp::Steps(11), Shape::Linear),
            "`warm_up`: needs warm-up and decay within 10 steps, got 11"
        );
        let shape =
            Shape::WarmupStableDecay { decay: WarmUp::Steps(8), decline: Decline::Linear, floor: 0.0 };
        assert!(refused(WarmUp::Steps(3), shape).contains("got 11"));
    }
}
