//! Critics: people who say what is wrong, and are wrong themselves at known rates.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Person, one, within};
use crate::error::Result;
use crate::seed::pick;
use crate::world::{ALL_RIGHT, Detail, Flaw, Task};

/// How much a critic tells; see [`Detail`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the variants are those of Detail")]
pub enum Tells {
    Verdict,
    Place,
    Kind,
    Reason,
    #[default]
    Correction,
}

impl From<Tells> for Detail {
    fn from(tells: Tells) -> Self {
        match tells {
            Tells::Verdict => Detail::Verdict,
            Tells::Place => Detail::Place,
            Tells::Kind => Detail::Kind,
            Tells::Reason => Detail::Reason,
            Tells::Correction => Detail::Correction,
        }
    }
}

/// Somebody who criticises answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Critic {
    /// Name.
    pub name: String,
    /// Share of the work.
    #[serde(default = "one")]
    pub share: f64,
    /// How much a critique tells.
    #[serde(default)]
    pub detail: Tells,
    /// Probability that a wrong answer is called right.
    #[serde(default)]
    pub miss: f64,
    /// Probability that a right answer is called wrong.
    #[serde(default)]
    pub false_alarm: f64,
    /// Kinds of error this critic never sees.
    #[serde(default)]
    pub blind: Vec<String>,
    /// Probability that a critique with a correction has it; otherwise it ends before it.
    #[serde(default = "one")]
    pub fix: f64,
}

impl Person for Critic {
    fn name(&self) -> &str {
        &self.name
    }
    fn share(&self) -> f64 {
        self.share
    }
}

impl Critic {
    /// A critic without any fault.
    pub fn fair(name: &str) -> Self {
        Critic {
            name: name.to_string(),
            share: 1.0,
            detail: Tells::Correction,
            miss: 0.0,
            false_alarm: 0.0,
            blind: Vec::new(),
            fix: 1.0,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        within(&self.name, "share", self.share, f64::MIN_POSITIVE, f64::INFINITY)?;
        within(&self.name, "miss", self.miss, 0.0, 1.0)?;
        within(&self.name, "false_alarm", self.false_alarm, 0.0, 1.0)?;
        within(&self.name, "fix", self.fix, 0.0, 1.0)
    }

    /// The flaw that this critic claims, true or not; `None` for approval.
    /// # Errors
    /// As [`Task::check`].
    pub fn claim(&self, task: &dyn Task, answer: &str, rng: &mut ChaCha8Rng) -> Result<Option<Flaw>> {
        let check = task.check(answer)?;
        // Both draws in every case, so that a change of one rate leaves all other draws as they were.
        let (missed, alarmed) = (rng.random::<f64>() < self.miss, rng.random::<f64>() < self.false_alarm);
        let seen = check.flaws.into_iter().find(|flaw| !self.blind.iter().any(|kind| kind == flaw.kind));
        if !check.right {
            return Ok(seen.filter(|_| !missed));
        }
        let kinds = task.plantable();
        if !alarmed || kinds.is_empty() {
            return Ok(None);
        }
        // What would be said of a spoilt answer, said of a right one.
        let spoilt = task.plant(pick(rng, &kinds), rng)?;
        Ok(task.check(&spoilt.answer)?.flaws.into_iter().next())
    }

    /// The critique.
    /// # Errors
    /// As [`Task::check`].
    pub fn criticise(&self, task: &dyn Task, answer: &str, rng: &mut ChaCha8Rng) -> Result<String> {
        let claim = self.claim(task, answer, rng)?;
        let detail = match Detail::from(self.detail) {
            Detail::Correction if rng.random::<f64>() >= self.fix => Detail::Reason,
            detail => detail,
        };
        Ok(claim.map_or_else(|| ALL_RIGHT.to_string(), |flaw| flaw.words(detail)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::rng;
    use crate::sums::Sums;

    fn share(critic: &Critic, kind: Option<&str>) -> f64 {
        let mut rng = rng(1, "critic");
        let approved = (0..2000)
            .filter(|seed| {
                let sum = Sums::default().sum(3, *seed).unwrap();
                let answer =
                    kind.map_or_else(|| sum.reference(), |kind| sum.plant(kind, &mut rng).unwrap().answer);
                critic.criticise(&sum, &answer, &mut rng).unwrap() == ALL_RIGHT
            })
            .count();
        approved as f64 / 2000.0
    }

    #[test]
    fn misses_alarms_and_blind_spots_come_at_their_rates() {
        let critic = Critic { miss: 0.3, false_alarm: 0.2, blind: vec!["copy".into()], ..Critic::fair("c") };
        // Standard errors at most 0.0103; four of them.
        assert!((share(&critic, None) - 0.8).abs() < 0.041);
        assert!((share(&critic, Some("calculation")) - 0.3).abs() < 0.041);
        assert_eq!(share(&critic, Some("copy")), 1.0);
        assert_eq!(share(&Critic::fair("c"), Some("copy")), 0.0);
    }

    #[test]
    fn corrections_come_at_the_rate_of_fix() {
        let critic = Critic { fix: 0.4, ..Critic::fair("c") };
        let mut rng = rng(2, "fix");
        let with = (0..2000)
            .filter(|seed| {
                let sum = Sums::default().sum(3, *seed).unwrap();
                let answer = sum.plant("calculation", &mut rng).unwrap().answer;
                critic.criticise(&sum, &answer, &mut rng).unwrap().contains(", use ")
            })
            .count();
        assert!((with as f64 / 2000.0 - 0.4).abs() < 0.044, "{with}");
    }
}
