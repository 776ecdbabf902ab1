//! Methods that may take the place of a plain one: which of them a log feeds, what they cost, and when one wins.
//!
//! A rival begins where the plain step began and is measured by the same figure on the same validation prompts. It is
//! chosen only if it gains more.

use hone_feedback::convert::{Losses, Shape, lists};
use serde::{Deserialize, Serialize};

use super::plan::{LEAST, STEP_COST, WRITE_COST};
use super::read::Log;

/// A method that may do better than a plain one with what a log holds.
#[derive(Debug)]
pub(super) struct Rival {
    /// Its id.
    pub id: &'static str,
    /// Ids of the plain methods that it stands against; the first that is planned.
    pub plain: &'static [&'static str],
    /// What it needs of the log, in words.
    needs: &'static str,
    /// How many of those the training part holds.
    count: fn(&Log) -> usize,
}

/// All rivals, in the order in which they are tried.
pub(super) const RIVALS: &[Rival] = &[
    Rival { id: "ilf", plain: &["sft"], needs: "words about answers", count: words },
    Rival { id: "critique-grpo", plain: &["grpo"], needs: "words about answers", count: words },
    Rival { id: "lipo", plain: &["dpo"], needs: "lists of three or more graded answers", count: long_lists },
    Rival { id: "irpo", plain: &["dpo"], needs: "lists of three or more graded answers", count: long_lists },
    Rival {
        id: "a-lol",
        plain: &["kto", "dpo"],
        needs: "ratings, thumbs or outcomes",
        count: |log| log.examples(Shape::ScalarTargets),
    },
];

fn words(log: &Log) -> usize {
    log.examples(Shape::Conditions)
}

/// Lists that say more than a pair does.
fn long_lists(log: &Log) -> usize {
    let long = |record| lists(record, &mut Losses::default()).iter().filter(|l| l.contents.len() > 2).count();
    log.train.iter().map(long).sum()
}

impl Rival {
    /// Why it stands against one of the `planned`, and which; or why it is left aside.
    pub fn considered(&self, log: &Log, planned: &[&str]) -> Result<(&'static str, String), String> {
        let Some(plain) = self.plain.iter().copied().find(|plain| planned.contains(plain)) else {
            return Err(format!("stands against {}, which is not planned", self.plain.join(" or ")));
        };
        match (self.count)(log) {
            0 => Err(format!("stands against {plain}; the log has no {}", self.needs)),
            count if count < LEAST => {
                Err(format!("stands against {plain}; {count} {} are too few; {LEAST} are needed", self.needs))
            }
            count => Ok((
                plain,
                format!(
                    "{count} {}; takes the place of {plain} if it gains more from the same start",
                    self.needs
                ),
            )),
        }
    }
}

/// What a method reads and writes beside its descent, in texts of mean length that are scored, per example; 0 for what
/// only descends. `whole` are all its settings, `per_prompt` the examples of one prompt.
pub(super) fn beside(id: &str, whole: &toml::Table, per_prompt: f64) -> f64 {
    let number = |key: &str| match whole.get(key) {
        Some(toml::Value::Integer(value)) => *value as f64,
        Some(toml::Value::Float(value)) => *value,
        Some(toml::Value::Array(values)) => values.len() as f64,
        _ => 0.0,
    };
    match id {
        // A question holds prompt, answer, words and refinement. Asking again for what came out alike is left out: an
        // answer alone is shorter than a text, which makes up for it.
        "ilf" => number("refinements") * (WRITE_COST + 2.0 * number("questions")),
        // The reference, its log-probabilities, and greedy answers to its own validation prompts.
        "a-lol" => {
            let greedy = number("validation") * (number("evaluations") + 1.0) * WRITE_COST;
            number("reference_epochs") * STEP_COST + 1.0 + greedy / per_prompt.max(1.0)
        }
        _ => 0.0,
    }
}

/// What a rival was measured against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Against {
    /// Id of the best method before it.
    pub method: String,
    /// What that gained on validation prompts; `None` if it came to no figure.
    pub gain: Option<f64>,
}

/// Whether a rival of this gain takes the place of the best before it. A tie goes to what was there, and nothing that is
/// worse than the start is kept.
pub(super) fn wins(gain: Option<f64>, best: &Against) -> bool {
    gain.is_some_and(|gain| gain >= 0.0 && best.gain.is_none_or(|best| gain > best))
}

/// How a rival ended, in words.
pub(super) fn ended(gain: Option<f64>, best: &Against) -> String {
    let other = &best.method;
    match (gain, best.gain) {
        (None, _) => "not chosen; nothing to decide by".into(),
        (Some(gain), None) if wins(Some(gain), best) => {
            format!("kept: {gain:+.4} on validation prompts, where {other} came to no figure")
        }
        (Some(gain), None) => format!("not chosen: {gain:+.4} on validation prompts"),
        (Some(gain), Some(less)) if wins(Some(gain), best) => {
            format!("chosen over {other}: {gain:+.4} against {less:+.4} on validation prompts")
        }
        (Some(gain), Some(more)) => {
            format!("not chosen: {gain:+.4} against {more:+.4} of {other} on validation prompts")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_greater_gain_takes_the_place() {
        let best = |gain| Against { method: "dpo".into(), gain };
        assert!(wins(Some(0.02), &best(Some(0.01))));
        assert!(!wins(Some(0.01), &best(Some(0.02))));
        assert!(!wins(Some(0.01), &best(Some(0.01))));
        // Better than a harmful step is not yet good; where the plain step failed, the start is the measure.
        assert!(!wins(Some(-0.01), &best(Some(-0.02))));
        assert!(wins(Some(0.0), &best(Some(-0.02))) && wins(Some(0.0), &best(None)));
        assert!(!wins(Some(-0.01), &best(None)) && !wins(None, &best(Some(0.0))) && !wins(None, &best(None)));
        assert_eq!(
            ended(Some(0.02), &best(Some(0.01))),
            "chosen over dpo: +0.0200 against +0.0100 on validation prompts"
        );
        assert_eq!(
            ended(Some(0.01), &best(Some(0.01))),
            "not chosen: +0.0100 against +0.0100 of dpo on validation prompts"
        );
    }
}
