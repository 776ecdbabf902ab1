//! Annotators: ratings, comparisons and rankings with known noise and bias.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Person, one, within};
use crate::error::{Error, Result};
use crate::notes::graded::Utility;
use crate::seed::normal;
use crate::world::Task;

/// Somebody who judges answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotator {
    /// Name.
    pub name: String,
    /// Share of the work.
    #[serde(default = "one")]
    pub share: f64,
    /// What counts when one answer is rated on its own.
    pub ratings: Utility,
    /// What counts when answers are compared; as for ratings if left out.
    #[serde(default)]
    pub rankings: Option<Utility>,
    /// Probability in `[0, 0.5]` that a label is wrong: with twice this probability a fair coin decides.
    #[serde(default)]
    pub flip: f64,
    /// Standard deviation of what a judgement is off by, in units of utility.
    #[serde(default)]
    pub spread: f64,
    /// What the answer shown first gains, in units of utility.
    #[serde(default)]
    pub position: f64,
    /// What each word adds, beyond its true worth, in units of utility.
    #[serde(default)]
    pub length: f64,
    /// Differences of utility below this are ties.
    #[serde(default)]
    pub tie: f64,
    /// Lowest and highest rating.
    #[serde(default = "five")]
    pub scale: [i64; 2],
    /// Utility that is worth the middle of the scale.
    #[serde(default = "two")]
    pub middle: f64,
}

fn five() -> [i64; 2] {
    [1, 5]
}

fn two() -> f64 {
    2.0
}

/// Which of two answers is better, in the order in which they were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The first.
    First,
    /// The second.
    Second,
    /// Neither.
    Tie,
}

impl Choice {
    /// The same choice when the answers had been shown the other way round.
    pub fn swapped(self) -> Self {
        match self {
            Choice::First => Choice::Second,
            Choice::Second => Choice::First,
            Choice::Tie => Choice::Tie,
        }
    }
}

impl Person for Annotator {
    fn name(&self) -> &str {
        &self.name
    }
    fn share(&self) -> f64 {
        self.share
    }
}

impl Annotator {
    /// An annotator without any fault.
    pub fn fair(name: &str, utility: Utility) -> Self {
        Annotator {
            name: name.to_string(),
            share: 1.0,
            ratings: utility,
            rankings: None,
            flip: 0.0,
            spread: 0.0,
            position: 0.0,
            length: 0.0,
            tie: 0.0,
            scale: five(),
            middle: two(),
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let name = &self.name;
        within(name, "share", self.share, f64::MIN_POSITIVE, f64::INFINITY)?;
        within(name, "flip", self.flip, 0.0, 0.5)?;
        within(name, "spread", self.spread, 0.0, f64::INFINITY)?;
        within(name, "tie", self.tie, 0.0, f64::INFINITY)?;
        let [low, high] = self.scale;
        if low >= high || high - low > 100 {
            let needed = "two numbers, the first smaller, at most 100 apart".to_string();
            return Err(Error::People {
                name: name.clone(),
                field: "scale",
                needed,
                got: format!("{low}, {high}"),
            });
        }
        Ok(())
    }

    /// What an answer seems worth to this person at this moment.
    fn seems(&self, utility: &Utility, task: &dyn Task, answer: &str, rng: &mut ChaCha8Rng) -> Result<f64> {
        let words = answer.split_whitespace().count() as f64;
        Ok(utility.of(task, answer)? + self.length * words + self.spread * normal(rng))
    }

    /// The better of two answers, shown in this order. Equal answers tie.
    /// # Errors
    /// As [`Task::check`].
    pub fn compare(
        &self,
        task: &dyn Task,
        first: &str,
        second: &str,
        rng: &mut ChaCha8Rng,
    ) -> Result<Choice> {
        if first == second {
            return Ok(Choice::Tie);
        }
        // Before the judgement, as published: a label that a coin decides costs no judgement.
        if rng.random::<f64>() < 2.0 * self.flip {
            return Ok(if rng.random_bool(0.5) { Choice::First } else { Choice::Second });
        }
        let utility = self.rankings.as_ref().unwrap_or(&self.ratings);
        let gap = self.seems(utility, task, first, rng)? + self.position
            - self.seems(utility, task, second, rng)?;
        Ok(if gap.abs() <= self.tie {
            Choice::Tie
        } else if gap > 0.0 {
            Choice::First
        } else {
            Choice::Second
        })
    }

    /// Asked twice with the order swapped: a tie unless both times the same answer wins.
    /// # Errors
    /// As [`Task::check`].
    pub fn compare_twice(
        &self,
        task: &dyn Task,
        one: &str,
        two: &str,
        rng: &mut ChaCha8Rng,
    ) -> Result<Choice> {
        let (there, back) =
            (self.compare(task, one, two, rng)?, self.compare(task, two, one, rng)?.swapped());
        Ok(if there == back { there } else { Choice::Tie })
    }

    /// A whole number of the person's scale: the logistic of the utility less `middle`, rounded.
    /// # Errors
    /// As [`Task::check`].
    pub fn rate(&self, task: &dyn Task, answer: &str, rng: &mut ChaCha8Rng) -> Result<i64> {
        let [low, high] = self.scale;
        if rng.random::<f64>() < 2.0 * self.flip {
            return Ok(rng.random_range(low..=high));
        }
        let seems = self.seems(&self.ratings, task, answer, rng)? - self.middle;
        Ok(low + ((high - low) as f64 / (1.0 + (-seems).exp())).round() as i64)
    }

    /// Thumb up or down: whether the rating is in the upper half of the scale.
    /// # Errors
    /// As [`Task::check`].
    pub fn thumb(&self, task: &dyn Task, answer: &str, rng: &mut ChaCha8Rng) -> Result<bool> {
        let [low, high] = self.scale;
        Ok(2 * self.rate(task, answer, rng)? > low + high)
    }

    /// Indices of answers from best to worst; those within `tie` of the one before stand together.
    /// # Errors
    /// As [`Task::check`].
    pub fn rank(&self, task: &dyn Task, answers: &[String], rng: &mut ChaCha8Rng) -> Result<Vec<Vec<usize>>> {
        let utility = self.rankings.as_ref().unwrap_or(&self.ratings);
        let mut seen: Vec<(usize, f64)> = Vec::with_capacity(answers.len());
        for (index, answer) in answers.iter().enumerate() {
            // The bias falls off over the list as it was shown.
            let place = self.position / (index as f64 + 1.0);
            let guess = rng.random::<f64>() < 2.0 * self.flip;
            let off = if guess { 3.0 * normal(rng) } else { 0.0 };
            seen.push((index, self.seems(utility, task, answer, rng)? + place + off));
        }
        seen.sort_by(|one, two| two.1.total_cmp(&one.1));
        let mut order: Vec<Vec<usize>> = Vec::new();
        let mut before = f64::INFINITY;
        for (index, worth) in seen {
            match order.last_mut() {
                Some(group) if before - worth <= self.tie => group.push(index),
                _ => order.push(vec![index]),
            }
            before = worth;
        }
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notes::Notes;
    use crate::seed::rng;

    /// Pairs of different worth by the score alone.
    fn pairs(count: u64) -> Vec<(crate::notes::Note, String, String)> {
        let mut rng = rng(1, "pairs");
        let mut pairs = Vec::new();
        for seed in 0..count {
            let note = Notes.note(3, seed).unwrap();
            let (good, bad) = (note.reference(), note.attempt(0.1, &mut rng));
            if note.check(&bad).unwrap().score < 0.95 {
                pairs.push((note, good, bad));
            }
        }
        pairs
    }

    #[test]
    fn agreement_is_one_less_the_flips() {
        let annotator = Annotator { flip: 0.25, ..Annotator::fair("a", Utility::new([("score", 1.0)])) };
        let (pairs, mut rng) = (pairs(3000), rng(2, "flips"));
        let right = pairs
            .iter()
            .filter(|(note, good, bad)| {
                annotator.compare(note, good, bad, &mut rng).unwrap() == Choice::First
            })
            .count() as f64
            / pairs.len() as f64;
        // Standard error sqrt(0.75 * 0.25 / 2700) = 0.0083; four of them.
        assert!((right - 0.75).abs() < 0.033, "{right} of {}", pairs.len());
    }

    #[test]
    fn position_bias_shows_once_and_becomes_ties_twice() {
        let biased = Annotator { position: 9.0, ..Annotator::fair("a", Utility::new([("score", 1.0)])) };
        let mut rng = rng(3, "position");
        for (note, good, bad) in pairs(100) {
            assert_eq!(biased.compare(&note, &bad, &good, &mut rng).unwrap(), Choice::First);
            assert_eq!(biased.compare(&note, &good, &bad, &mut rng).unwrap(), Choice::First);
            assert_eq!(biased.compare_twice(&note, &good, &bad, &mut rng).unwrap(), Choice::Tie);
        }
    }

    /// Labels of the same pairs by rating and by comparison, each asked twice.
    fn inconsistency(annotator: &Annotator) -> (f64, f64) {
        let mut rng = rng(4, "protocols");
        let (mut between, mut within, mut count) = (0.0, 0.0, 0.0);
        for seed in 0..1500 {
            let note = Notes.note(4, seed).unwrap();
            let (one, two) = (note.attempt(0.5, &mut rng), note.attempt(0.5, &mut rng));
            if one == two {
                continue;
            }
            let mut rated = || {
                let (a, b) = (annotator.rate(&note, &one, &mut rng)?, annotator.rate(&note, &two, &mut rng)?);
                Ok::<_, Error>(match a.cmp(&b) {
                    std::cmp::Ordering::Greater => Choice::First,
                    std::cmp::Ordering::Less => Choice::Second,
                    std::cmp::Ordering::Equal => Choice::Tie,
                })
            };
            let ratings = rated().unwrap();
            let compared = annotator.compare(&note, &one, &two, &mut rng).unwrap();
            let again = annotator.compare(&note, &one, &two, &mut rng).unwrap();
            between += f64::from(u8::from(ratings != compared));
            within += f64::from(u8::from(again != compared));
            count += 1.0;
        }
        (between / count, within / count)
    }

    #[test]
    fn protocols_disagree_more_than_one_protocol_with_itself() {
        let annotator = Annotator {
            rankings: Some(Utility::new([("facts", 4.0), ("rude", -1.0)])),
            spread: 0.2,
            flip: 0.02,
            ..Annotator::fair("a", Utility::new([("length", 0.3), ("warmth", 0.3), ("score", 1.0)]))
        };
        let (between, within) = inconsistency(&annotator);
        // About 1500 pairs: a standard error of a difference of shares is below 0.02.
        assert!(between > within + 0.08 && between > 0.35, "{between} {within}");
    }

    #[test]
    fn length_bias_prefers_words() {
        let wordy = Annotator { length: 5.0, ..Annotator::fair("a", Utility::new([("score", 1.0)])) };
        let note = Notes.note(3, 1).unwrap();
        let (short, long) = (note.reference(), format!("{} you know as i said", note.reference()));
        assert_eq!(wordy.compare(&note, &short, &long, &mut rng(1, "")).unwrap(), Choice::Second);
        let ranked = wordy.rank(&note, &[short, long], &mut rng(1, "")).unwrap();
        assert_eq!(ranked, [vec![1], vec![0]]);
    }

    #[test]
    fn near_answers_tie() {
        let coarse = Annotator { tie: 100.0, ..Annotator::fair("a", Utility::new([("score", 1.0)])) };
        let note = Notes.note(3, 1).unwrap();
        let answers = [note.reference(), "x".to_string(), "y".to_string()];
        assert_eq!(coarse.compare(&note, &answers[0], &answers[1], &mut rng(1, "")).unwrap(), Choice::Tie);
        assert_eq!(coarse.rank(&note, &answers, &mut rng(1, "")).unwrap().len(), 1);
    }
}
