//! A critic made worse on purpose.

use hone_nn::train::seed::{rng, sub_seed};
use rand::Rng;

use super::{Critic, Critique, Reply, Subject};
use crate::error::Result;

/// Another critic whose score gets noise, or is cut to 0 and 1. Words, labels and verdict are withheld: they would give
/// away what the noise hides.
#[derive(Debug)]
pub struct Degraded<'a> {
    /// The critic.
    pub critic: Box<dyn Critic + 'a>,
    /// Standard deviation of normal noise on the score, in units of the score.
    pub noise: f64,
    /// Scores of at least this become 1, others 0, after the noise; `None` leaves them.
    pub threshold: Option<f64>,
}

impl Critic for Degraded<'_> {
    fn name(&self) -> &str {
        self.critic.name()
    }

    fn criticise(&self, subjects: &[Subject<'_>], seed: u64) -> Result<Vec<Reply>> {
        let mut replies = self.critic.criticise(subjects, seed)?;
        let mut rng = rng(sub_seed(seed, "degraded"), "noise");
        for reply in &mut replies {
            // Drawn for failures too, so that one reply's fate moves no other's noise.
            let (u, v): (f64, f64) = (rng.random(), rng.random());
            let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            let Ok(critique) = &reply.said else { continue };
            let noisy = critique.grade().map(|score| score + self.noise * normal);
            let cut = |score: f64| self.threshold.map_or(score, |least| f64::from(u8::from(score >= least)));
            reply.said =
                Ok(Critique { by: critique.by.clone(), score: noisy.map(cut), ..Critique::default() });
        }
        Ok(replies)
    }
}

#[cfg(test)]
mod tests {
    use hone_feedback::Record;
    use hone_feedback::metrics::{mean, standard_deviation};

    use super::*;
    use crate::bench::Bench;
    use crate::critique::Verifier;

    #[test]
    fn noise_has_its_size_and_a_threshold_leaves_two_scores() {
        let bench = Bench::new(1).unwrap();
        let record = Record::new("r", "say w1");
        let subjects = vec![Subject::new(&record, "w1"); 2000];
        let scores = |noise, threshold| -> Vec<f64> {
            let critic = Box::new(Verifier { oracle: &bench, detail: hone_worlds::Detail::Correction });
            let replies = Degraded { critic, noise, threshold }.criticise(&subjects, 3).unwrap();
            assert!(replies.iter().all(|reply| reply.checks == 1));
            replies.into_iter().filter_map(|reply| reply.said.ok()?.score).collect()
        };
        let truth = scores(0.0, None)[0];
        let noisy = scores(0.3, None);
        // Standard errors 0.3/√2000 = 0.0067 of the mean and 0.0047 of the deviation; four of them.
        assert!((mean(&noisy) - truth).abs() < 0.027 && (standard_deviation(&noisy) - 0.3).abs() < 0.019);
        assert!(scores(0.3, Some(truth)).iter().all(|&score| score == 0.0 || score == 1.0));
        assert!(scores(0.0, Some(truth)).iter().all(|&score| score == 1.0));
    }
}
