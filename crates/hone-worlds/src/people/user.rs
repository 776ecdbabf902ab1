//! Users: people who react to few of the answers they see.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Person, one, within};
use crate::error::Result;
use crate::notes::graded::Utility;
use crate::world::Task;

/// Somebody who reacts, or does not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Name.
    pub name: String,
    /// Share of the work.
    #[serde(default = "one")]
    pub share: f64,
    /// Log-odds of a reaction to an answer without any trait; −4.6 is one in a hundred.
    #[serde(default = "rare")]
    pub bias: f64,
    /// What makes a reaction more likely, in log-odds per unit of a trait.
    #[serde(default)]
    pub weights: Utility,
    /// How the weights change from the beginning to the end of a log.
    #[serde(default)]
    pub drift: Utility,
    /// Probability that a reaction has nothing to do with the answer: then it comes half of the time.
    #[serde(default)]
    pub random: f64,
}

fn rare() -> f64 {
    -4.6
}

impl Person for User {
    fn name(&self) -> &str {
        &self.name
    }
    fn share(&self) -> f64 {
        self.share
    }
}

impl User {
    pub(super) fn validate(&self) -> Result<()> {
        within(&self.name, "share", self.share, f64::MIN_POSITIVE, f64::INFINITY)?;
        within(&self.name, "bias", self.bias, -50.0, 50.0)?;
        within(&self.name, "random", self.random, 0.0, 1.0)
    }

    /// Probability of a reaction at a time in `[0, 1]` of the log.
    /// # Errors
    /// As [`Task::check`].
    pub fn probability(&self, task: &dyn Task, answer: &str, time: f64) -> Result<f64> {
        let likes = self.weights.of(task, answer)? + time * self.drift.of(task, answer)?;
        let willing = 1.0 / (1.0 + (-(self.bias + likes)).exp());
        Ok((1.0 - self.random) * willing + self.random * 0.5)
    }

    /// Whether the user reacts.
    /// # Errors
    /// As [`Task::check`].
    pub fn reacts(&self, task: &dyn Task, answer: &str, time: f64, rng: &mut ChaCha8Rng) -> Result<bool> {
        Ok(rng.random::<f64>() < self.probability(task, answer, time)?)
    }
}

/// What a user is really left with: the score, less half a point for each goodbye that nobody asked for.
/// # Errors
/// As [`Task::check`].
pub fn satisfaction(task: &dyn Task, answer: &str) -> Result<f64> {
    Utility::new([("score", 1.0), ("farewell", -0.5)]).of(task, answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Notes;
    use crate::seed::rng;

    fn user() -> User {
        let weights = Utility::new([("warmth", 2.0), ("farewell", 1.0)]);
        User { name: "u".into(), share: 1.0, bias: -4.0, weights, drift: Utility::default(), random: 0.0 }
    }

    #[test]
    fn reactions_are_as_rare_as_said() {
        let note = Notes.note(1, 3).unwrap();
        let mut rng = rng(1, "react");
        // No warmth, no goodbye: 1 / (1 + e^4) = 0.01799.
        assert!((user().probability(&note, "meet", 0.0).unwrap() - 0.017_986).abs() < 1e-5);
        let seen = (0..20_000).filter(|_| user().reacts(&note, "meet", 0.0, &mut rng).unwrap()).count();
        // Standard error sqrt(0.018 * 0.982 / 20000) = 0.00094; four of them are 75 of 360.
        assert!((285..=435).contains(&seen), "{seen}");
        // One warm word: 1 / (1 + e^2) = 0.1192.
        assert!((user().probability(&note, "meet thanks", 0.0).unwrap() - 0.119_203).abs() < 1e-5);
    }

    #[test]
    fn taste_drifts_and_goodbyes_satisfy_nobody() {
        let drifting = User { drift: Utility::new([("warmth", -2.0)]), ..user() };
        let note = Notes.note(1, 3).unwrap();
        let early = drifting.probability(&note, "meet thanks", 0.0).unwrap();
        let late = drifting.probability(&note, "meet thanks", 1.0).unwrap();
        assert!(early > 0.11 && (late - 0.017_986).abs() < 1e-5);
        let (plain, goodbye) = (note.reference(), format!("{} bye", note.reference()));
        assert!(
            user().probability(&note, &goodbye, 0.0).unwrap()
                > user().probability(&note, &plain, 0.0).unwrap()
        );
        assert!(satisfaction(&note, &goodbye).unwrap() < satisfaction(&note, &plain).unwrap());
    }
}
