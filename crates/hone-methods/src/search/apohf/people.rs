//! People who are simulated: one who follows a hidden utility, and those of a people file.

use std::collections::HashMap;

use hone_feedback::Record;
use hone_feedback::metrics::mean;
use hone_nn::train::seed::{rng, shuffle};
use hone_worlds::people::{Choice, People, draw};
use rand::Rng;

use super::Person;
use super::network::sigmoid;
use super::session::{Chooser, Meeting, Said};
use crate::error::{Error, Result};
use crate::oracle::Checks;

/// Candidates whose utilities give the mean and the deviation that all are scaled by, as in the released code.
const SCALED_BY: usize = 50;

/// Somebody with a utility for every candidate who chooses by Bradley-Terry-Luce: the left one with probability
/// `σ((u₁ − u₂) / temperature)`.
///
/// The utility of a candidate is asked for once and kept. It is less the mean of 50 candidates, over their deviation, times
/// the magnitude.
pub struct Taste<'a> {
    person: Person,
    seed: u64,
    arms: usize,
    utility: Box<dyn FnMut(usize) -> Result<f64> + 'a>,
    known: HashMap<usize, f64>,
    scale: Option<f64>,
}

impl std::fmt::Debug for Taste<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Taste")
            .field("person", &self.person)
            .field("arms", &self.arms)
            .finish_non_exhaustive()
    }
}

impl<'a> Taste<'a> {
    /// Somebody with this utility for each of so many candidates.
    pub fn new(
        person: Person,
        arms: usize,
        seed: u64,
        utility: impl FnMut(usize) -> Result<f64> + 'a,
    ) -> Taste<'a> {
        Taste { person, seed, arms, utility: Box::new(utility), known: HashMap::new(), scale: None }
    }

    fn utility(&mut self, arm: usize) -> Result<f64> {
        if let Some(known) = self.known.get(&arm) {
            return Ok(*known);
        }
        let utility = (self.utility)(arm)?;
        self.known.insert(arm, utility);
        Ok(utility)
    }

    /// What a difference of utilities is multiplied by; 0 where all are equal.
    fn scale(&mut self) -> Result<f64> {
        if let Some(scale) = self.scale {
            return Ok(scale);
        }
        let mut drawn: Vec<usize> = (0..self.arms).collect();
        shuffle(&mut drawn, &mut rng(self.seed, "scaled by"));
        let of =
            drawn.into_iter().take(SCALED_BY).map(|arm| self.utility(arm)).collect::<Result<Vec<_>>>()?;
        let middle = mean(&of);
        let deviation = mean(&of.iter().map(|u| (u - middle).powi(2)).collect::<Vec<_>>()).sqrt();
        let scale = if deviation > 0.0 { self.person.magnitude / deviation } else { 0.0 };
        self.scale = Some(scale);
        Ok(scale)
    }
}

impl Chooser for Taste<'_> {
    fn name(&self) -> String {
        "simulated".into()
    }

    fn choose(&mut self, meeting: &Meeting<'_>) -> Result<Said> {
        let [left, right] = meeting.arms;
        let gap = (self.utility(left)? - self.utility(right)?) * self.scale()? / self.person.temperature;
        let chance = match self.person.certain {
            false => sigmoid(gap),
            true if gap == 0.0 => 0.5,
            true => f64::from(u8::from(gap > 0.0)),
        };
        let drawn: f64 = rng(self.seed, &format!("bit {}", meeting.asked)).random();
        Ok(if drawn < chance { Said::Left } else { Said::Right })
    }
}

/// The annotators of a people file, one drawn for each pair. They judge answers to tasks of a world.
#[derive(Debug)]
pub struct Annotators<'a> {
    /// Who they are.
    pub people: &'a People,
    /// The questions, with their tasks.
    pub records: &'a [Record],
    /// What knows the tasks.
    pub checks: &'a Checks,
    /// Governs who is drawn and their noise.
    pub seed: u64,
}

impl Chooser for Annotators<'_> {
    fn name(&self) -> String {
        "simulated".into()
    }

    fn choose(&mut self, meeting: &Meeting<'_>) -> Result<Said> {
        let refuse = |needed: &str, got: &str| Error::Data {
            method: "apohf".into(),
            needed: needed.into(),
            got: got.into(),
        };
        let record = meeting.record.and_then(|at| self.records.get(at));
        let record =
            record.ok_or_else(|| refuse("a question for simulated people to judge answers to", "none"))?;
        let task = self.checks.task(record)?;
        let task =
            task.ok_or_else(|| refuse("records with a task of a world", &format!("record {}", record.id)))?;
        let label = format!("judge {}", meeting.asked);
        let judge = draw(&self.people.annotator, self.seed, &label);
        let judge = judge.ok_or_else(|| refuse("annotators in the people file", "none"))?;
        let [left, right] = meeting.texts;
        Ok(match judge.compare(task.as_ref(), left, right, &mut rng(self.seed, &label))? {
            Choice::First => Said::Left,
            Choice::Second => Said::Right,
            Choice::Tie => Said::Tie,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_left(person: Person, utilities: [f64; 2]) -> f64 {
        let mut taste = Taste::new(person, 2, 3, |arm| Ok(utilities[arm]));
        let left = |asked: usize| {
            let meeting = Meeting {
                asked,
                bits: 0,
                rounds: 0,
                arms: [0, 1],
                question: None,
                record: None,
                texts: ["", ""],
                best: None,
            };
            f64::from(u8::from(taste.choose(&meeting).unwrap() == Said::Left))
        };
        mean(&(0..4000).map(left).collect::<Vec<_>>())
    }

    #[test]
    fn bits_are_drawn_by_the_scaled_difference() {
        // Utilities 3 and 1: mean 2, deviation 1; scaled by ½ the gap is 1: σ(1) = 0.7311; standard error 0.007.
        let person = Person { magnitude: 0.5, temperature: 1.0, certain: false };
        assert!((share_left(person, [3.0, 1.0]) - 0.7311).abs() < 0.028);
        // At temperature 2, σ(½) = 0.6225.
        let warm = Person { temperature: 2.0, ..person };
        assert!((share_left(warm, [3.0, 1.0]) - 0.6225).abs() < 0.031);
        assert_eq!(share_left(Person { certain: true, ..person }, [3.0, 1.0]), 1.0);
        assert!((share_left(person, [1.0, 1.0]) - 0.5).abs() < 0.032);
    }

    #[test]
    fn annotators_prefer_right_answers() {
        let (people, checks) = (People::sample().unwrap(), Checks::default());
        let task = hone_worlds::world("sums").unwrap().task(2, 7).unwrap();
        let mut record = Record::new("r", task.prompt());
        record.extra = serde_json::json!({"task": {"world": "sums", "level": 2, "seed": 7}})
            .as_object()
            .unwrap()
            .clone();
        let records = [record];
        let right = task.reference();
        let mut judges = Annotators { people: &people, records: &records, checks: &checks, seed: 1 };
        let mut lefts = 0;
        for asked in 0..40 {
            let said = judges
                .choose(&Meeting {
                    asked,
                    bits: 0,
                    rounds: 0,
                    arms: [0, 1],
                    question: Some("q"),
                    record: Some(0),
                    texts: [&right, "no idea"],
                    best: None,
                })
                .unwrap();
            lefts += usize::from(said == Said::Left);
        }
        assert!(lefts > 25, "{lefts} of 40");
    }
}
