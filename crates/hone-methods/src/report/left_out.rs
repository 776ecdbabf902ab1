//! What was left out of a run, and why.

use hone_feedback::convert::Losses;
use hone_feedback::doctor;
use serde::{Deserialize, Serialize};

/// One reason for which something of the log was not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// At which point of the run.
    pub at: Stage,
    /// Why, as in `ties of a ranking` or `prompt longer than 512 tokens`.
    pub reason: String,
    /// How many.
    pub count: u64,
    /// Where or what the first ones are: `log.jsonl:41: …`. A few suffice.
    #[serde(default)]
    pub first: Vec<String>,
}

/// The points of a run at which something can drop out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A line that gave no sound record.
    Reading,
    /// Something that a record holds and the shape of the training example cannot.
    Converting,
    /// A sound example that the trainer did not take: too long, without a target, past the budget.
    Training,
    /// A held-out item that could not be measured.
    Measuring,
}

impl Stage {
    /// Every stage, in the order of a run.
    pub const ALL: [Stage; 4] = [Stage::Reading, Stage::Converting, Stage::Training, Stage::Measuring];

    /// What the stage is called in a report.
    pub fn title(self) -> &'static str {
        match self {
            Stage::Reading => "Reading the log",
            Stage::Converting => "Converting feedback to examples",
            Stage::Training => "Training",
            Stage::Measuring => "Measuring",
        }
    }
}

impl LeftOut {
    /// `count` things left out at `at` because of `reason`.
    pub fn new(at: Stage, reason: impl Into<String>, count: u64) -> Self {
        LeftOut { at, reason: reason.into(), count, first: Vec::new() }
    }

    /// The same with one more example.
    #[must_use]
    pub fn example(mut self, first: impl Into<String>) -> Self {
        self.first.push(first.into());
        self
    }

    /// The lines of a log that gave no record: one entry per faulty field, each with its first lines.
    pub fn from_doctor(report: &doctor::Report) -> Vec<LeftOut> {
        let faults = report.problems.by_field.iter().map(|(field, count)| {
            let reason = if field.is_empty() { "the line as a whole" } else { field };
            let mut entry = LeftOut::new(Stage::Reading, reason, *count);
            let here = report.problems.first.iter().filter(|p| without_digits(&p.fault.field) == *field);
            entry.first = here.map(ToString::to_string).collect();
            entry
        });
        let mut out: Vec<LeftOut> = faults.collect();
        out.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
        out
    }

    /// What the conversion for `method` could not carry over, most frequent first.
    pub fn from_losses(method: &str, losses: &Losses) -> Vec<LeftOut> {
        let mut out: Vec<LeftOut> = losses
            .iter()
            .map(|(reason, count)| LeftOut::new(Stage::Converting, format!("{method}: {reason}"), count))
            .collect();
        out.sort_by_key(|entry| std::cmp::Reverse(entry.count));
        out
    }
}

/// A field without the positions in its lists, as [`hone_feedback::Problems`] counts them.
fn without_digits(field: &str) -> String {
    let mut inside = false;
    let outside = |c: &char| {
        inside = *c == '[' || inside && *c != ']';
        !(inside && c.is_ascii_digit())
    };
    field.chars().filter(outside).collect()
}

#[cfg(test)]
mod tests {
    use hone_feedback::Fault;

    use super::*;

    #[test]
    fn refused_lines_are_grouped_by_field() {
        let mut report = doctor::Report::default();
        for line in [3, 9] {
            report
                .problems
                .push(Fault::new(format!("feedback[{line}].start"), "a number", "text").at("log", line));
        }
        report.problems.push(Fault::new("", "a whole JSON object", "EOF").at("log", 5));
        let out = LeftOut::from_doctor(&report);
        assert_eq!(out.len(), 2);
        assert_eq!((out[0].reason.as_str(), out[0].count), ("feedback[].start", 2));
        assert_eq!(out[0].first[1], "log:9: feedback[9].start: needed a number, got text");
        assert_eq!((out[1].reason.as_str(), out[1].first.len()), ("the line as a whole", 1));
    }

    #[test]
    fn losses_come_with_their_method() {
        let mut losses = Losses::default();
        losses.add_many("ties", 2);
        losses.add_many("words", 7);
        let out = LeftOut::from_losses("dpo", &losses);
        assert_eq!(out[0], LeftOut::new(Stage::Converting, "dpo: words", 7));
        assert_eq!(out[1], LeftOut::new(Stage::Converting, "dpo: ties", 2));
    }
}
