//! Ranked lists and pairs of notes from a hidden utility.
//!
//! A [`Utility`] weighs the traits of an answer ([`Task::traits`]); nobody who learns from its lists and pairs sees
//! the weights. It serves methods that rank (lists with labels in `[0, 1]`), that compare (pairs with a chosen and
//! a rejected answer), and that condition on quality.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::seed::normal;
use crate::world::Task;

/// Weights of named traits; a trait that is not named counts nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Utility {
    /// Weight by name of trait.
    pub weights: BTreeMap<String, f64>,
}

impl Utility {
    /// A utility from pairs of name and weight.
    pub fn new<'a>(weights: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        Utility { weights: weights.into_iter().map(|(name, weight)| (name.to_string(), weight)).collect() }
    }

    /// What most people would want of a note: the facts above all, some warmth, no rudeness, few words.
    pub fn common() -> Self {
        Utility::new([("score", 4.0), ("facts", 2.0), ("warmth", 0.5), ("rude", -2.0), ("length", -0.05)])
    }

    /// Utility of an answer, in units of its own weights.
    /// # Errors
    /// As [`Task::check`].
    pub fn of(&self, task: &dyn Task, answer: &str) -> Result<f64> {
        let weigh =
            |(name, value): &(&str, f64)| self.weights.get(*name).map_or(0.0, |weight| weight * value);
        Ok(task.traits(answer)?.iter().map(weigh).sum())
    }
}

/// Answers of one prompt with their labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Graded {
    /// Distinct answers.
    pub answers: Vec<String>,
    /// One label per answer in `[0, 1]`: the logistic function of the centred utility.
    pub labels: Vec<f64>,
}

/// Up to `count` distinct answers of mixed skill, labelled by the utility plus normal noise.
///
/// Labels are `1 / (1 + exp(-(u - mean u)))`, so only differences within a prompt count, as in a pairwise judge.
/// Fewer answers come back only if the task has not enough different ones in `8 × count` attempts.
/// # Errors
/// As [`Task::check`].
pub fn graded(
    task: &dyn Task,
    count: usize,
    utility: &Utility,
    noise: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Graded> {
    let mut answers: Vec<String> = Vec::with_capacity(count);
    for attempt in 0..8 * count {
        if answers.len() == count {
            break;
        }
        // Skills from poor to good, so that a list has something to rank.
        let skill = 0.2 + 0.7 * (attempt % count.max(1)) as f64 / count.max(1) as f64;
        let answer = task.attempt(skill, rng);
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    let utilities = answers
        .iter()
        .map(|answer| Ok(utility.of(task, answer)? + noise * normal(rng)))
        .collect::<Result<Vec<f64>>>()?;
    let mean = utilities.iter().sum::<f64>() / utilities.len().max(1) as f64;
    let labels = utilities.iter().map(|utility| 1.0 / (1.0 + (mean - utility).exp())).collect();
    Ok(Graded { answers, labels })
}

/// A chosen and a rejected answer whose utilities differ by at least `margin`, or `None` after 32 attempts.
/// # Errors
/// As [`Task::check`].
pub fn pair(
    task: &dyn Task,
    utility: &Utility,
    margin: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Option<(String, String)>> {
    for _ in 0..32 {
        let (first, second) = (task.attempt(0.6, rng), task.attempt(0.4, rng));
        let gap = utility.of(task, &first)? - utility.of(task, &second)?;
        if gap.abs() >= margin && first != second {
            return Ok(Some(if gap > 0.0 { (first, second) } else { (second, first) }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Notes;
    use crate::seed::rng;

    #[test]
    fn labels_follow_the_utility() {
        let (utility, mut rng) = (Utility::common(), rng(5, "graded"));
        for seed in 0..50 {
            let note = Notes.note(4, seed).unwrap();
            let list = graded(&note, 6, &utility, 0.0, &mut rng).unwrap();
            assert!(list.answers.len() >= 4, "{list:?}");
            for (one, a) in list.answers.iter().enumerate() {
                for (two, b) in list.answers.iter().enumerate() {
                    let (first, second) = (utility.of(&note, a).unwrap(), utility.of(&note, b).unwrap());
                    let labelled = list.labels[one].total_cmp(&list.labels[two]);
                    assert!(first.total_cmp(&second) == labelled || (first - second).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn pairs_keep_their_margin() {
        let (utility, mut rng) = (Utility::common(), rng(6, "pairs"));
        let mut found = 0;
        for seed in 0..100 {
            let note = Notes.note(3, seed).unwrap();
            if let Some((chosen, rejected)) = pair(&note, &utility, 0.5, &mut rng).unwrap() {
                assert!(utility.of(&note, &chosen).unwrap() >= utility.of(&note, &rejected).unwrap() + 0.5);
                found += 1;
            }
        }
        assert!(found > 90, "{found} of 100 prompts gave a pair");
    }
}
