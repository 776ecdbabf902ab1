//! Methods that write feedback, and the one interface of everything that criticises: the oracle, a language model, several
//! critics together, the people in a log.
//!
//! A critique is one statement by one critic: its verdict, its labels of steps and spans, its words and its confidence
//! come from the same call, so that a text never explains another call's score. What cannot be read as a critique is a
//! failure with a reason, and is counted.

pub mod deep_critic;
mod degraded;
mod ensemble;
mod logged;
mod model;
pub mod over;
mod parse;
pub mod process;
mod verifier;

use std::borrow::Cow;
use std::collections::BTreeMap;

use hone_feedback::{Feedback, Form, Record, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::Result;
use crate::refine::{Attempt, Cost};

pub use degraded::Degraded;
pub use ensemble::{Ensemble, combine};
pub use logged::Logged;
pub use model::{ModelCritic, Reads, critique_templates};
pub use parse::{approves, first_error, of_boxed, of_json, of_words, of_world};
pub use verifier::Verifier;

/// What is criticised: one answer to a record's prompt.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The record, for its prompt and for what can be checked about it.
    pub record: &'a Record,
    /// The answer.
    pub answer: Cow<'a, str>,
    /// Its steps: as the source lists them, else its lines that hold something.
    pub steps: Vec<String>,
    /// Attempts before this one with what was said of them, oldest first.
    pub earlier: Vec<Attempt>,
}

impl<'a> Subject<'a> {
    /// An answer whose steps are its lines.
    pub fn new(record: &'a Record, answer: impl Into<Cow<'a, str>>) -> Subject<'a> {
        let answer = answer.into();
        let steps =
            answer.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        Subject { record, answer, steps, earlier: vec![] }
    }

    /// A response of the record.
    pub fn of_response(record: &'a Record, response: &'a Response) -> Subject<'a> {
        let subject = Subject::new(record, response.content.text());
        match &response.steps {
            Some(steps) => Subject { steps: steps.clone(), ..subject },
            None => subject,
        }
    }
}

/// What is said of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepLabel {
    /// The step, from 0.
    pub index: usize,
    /// Whether it is right.
    pub right: bool,
}

/// What is said of a part of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpanLabel {
    /// First Unicode scalar value, from 0.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// What kind of part it is.
    pub label: Option<String>,
    /// How good it is; below 0 is bad.
    pub value: Option<f64>,
}

/// One statement about one answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Critique {
    /// Who says it.
    pub by: String,
    /// Whether the answer is right; `None` where nothing is said of the whole.
    pub right: Option<bool>,
    /// How good the answer is, in `[0, 1]`, where it is graded.
    pub score: Option<f64>,
    /// Chance that the verdict is right, in `[0, 1]`, where the critic tells.
    pub confidence: Option<f64>,
    /// Steps, by index.
    pub steps: Vec<StepLabel>,
    /// Parts, by start.
    pub spans: Vec<SpanLabel>,
    /// The words.
    pub text: String,
}

impl Critique {
    /// Index of the first step that is called wrong.
    pub fn first_wrong(&self) -> Option<usize> {
        self.steps.iter().filter(|step| !step.right).map(|step| step.index).min()
    }

    /// The grade, or the verdict as 1 or 0.
    pub fn grade(&self) -> Option<f64> {
        self.score.or(self.right.map(|right| f64::from(u8::from(right))))
    }

    /// The critique as items of a log, about the response `on`.
    pub fn feedback(&self, on: &str) -> Vec<Feedback> {
        let on = || on.to_owned();
        let mut forms = vec![];
        if let Some(passed) = self.right {
            forms.push(Form::Outcome { on: on(), check: self.by.clone(), passed });
        }
        if let Some(value) = self.score {
            forms.push(Form::Rating { on: on(), value, scale: Some([0.0, 1.0]) });
        }
        let step = |step: &StepLabel| Form::Step { on: on(), index: step.index, correct: step.right };
        forms.extend(self.steps.iter().map(step));
        forms.extend(self.spans.iter().map(|span| Form::Span {
            on: on(),
            start: span.start,
            end: span.end,
            label: span.label.clone(),
            value: span.value,
        }));
        if !self.text.is_empty() {
            forms.push(Form::Critique { on: Some(on()), text: self.text.clone() });
        }
        let mut said: Vec<Feedback> =
            forms.into_iter().map(|form| Feedback::from(form).by(self.by.clone())).collect();
        if let (Some(first), Some(confidence)) = (said.first_mut(), self.confidence) {
            first.extra.insert("confidence".into(), json!(confidence));
        }
        said
    }
}

/// The reason of calls that did not come back.
const LOST: &str = "the call failed";

/// Why there is no critique.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The reason, in a few words that serve to count by.
    pub why: String,
    /// What came instead; empty where nothing came.
    pub text: String,
}

impl Failure {
    /// A failure for this reason.
    pub fn new(why: impl Into<String>, text: impl Into<String>) -> Failure {
        Failure { why: why.into(), text: text.into() }
    }

    /// The failure of a call that did not come back, for this reason.
    pub fn lost(text: impl Into<String>) -> Failure {
        Failure::new(LOST, text)
    }

    /// Whether the call itself failed: asked again it may succeed.
    pub fn is_lost(&self) -> bool {
        self.why == LOST
    }
}

/// What a critic replied, and what that cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The critique, or why there is none.
    pub said: std::result::Result<Critique, Failure>,
    /// Calls to language models and tokens written.
    pub cost: Cost,
    /// Checks by an oracle.
    pub checks: u64,
}

impl Reply {
    /// The reply as JSON: the critique's fields, or `failed` with the reason and the text.
    pub fn to_json(&self) -> Value {
        let mut value = match &self.said {
            Ok(critique) => json!(critique),
            Err(failure) => json!({"failed": failure.why, "text": failure.text}),
        };
        value["cost"] = json!({"calls": self.cost.calls, "tokens": self.cost.tokens, "checks": self.checks});
        value
    }
}

/// Something that criticises.
pub trait Critic: std::fmt::Debug + Send + Sync {
    /// Its name, as in the log.
    fn name(&self) -> &str;

    /// One reply per subject, in order, all asked at once. The seed governs all that is drawn.
    ///
    /// # Errors
    /// What stops the critic for all subjects alike; what is one subject's own is a [`Failure`].
    fn criticise(&self, subjects: &[Subject<'_>], seed: u64) -> Result<Vec<Reply>>;
}

/// How many critiques came, how many did not and why, and what all cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Critiques.
    pub critiques: usize,
    /// Failures, by reason.
    pub failures: BTreeMap<String, usize>,
    /// Calls and tokens.
    pub cost: Cost,
    /// Checks by an oracle.
    pub checks: u64,
}

impl Tally {
    /// Counts a reply.
    pub fn add(&mut self, reply: &Reply) {
        self.cost += reply.cost;
        self.checks += reply.checks;
        match &reply.said {
            Ok(_) => self.critiques += 1,
            Err(failure) => *self.failures.entry(failure.why.clone()).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_critique_becomes_sound_feedback_and_is_read_back_from_the_log() {
        let record = Record::new("r", "sum 1+1-1").respond("a", "1+1=3\n3-1=2");
        let critique = Critique {
            by: "model:m".into(),
            right: Some(false),
            score: Some(0.25),
            confidence: Some(0.75),
            steps: vec![StepLabel { index: 0, right: false }],
            spans: vec![SpanLabel { start: 4, end: 5, label: Some("sum".into()), value: Some(-1.0) }],
            text: "1+1 is 2".into(),
        };
        let log = critique.feedback("a").into_iter().fold(record, Record::say);
        assert_eq!(log.validate(), vec![]);
        let again = Record::from_json(log.to_json().as_bytes()).unwrap();
        let subject = Subject::of_response(&again, &again.responses[0]);
        let replies = Logged.criticise(&[subject], 1).unwrap();
        assert_eq!(replies[0].said, Ok(critique));
    }

    #[test]
    fn failures_are_counted_by_reason() {
        let mut tally = Tally::default();
        let cost = Cost { calls: 1, tokens: 5 };
        for why in ["not JSON", "not JSON", "empty"] {
            tally.add(&Reply { said: Err(Failure::new(why, "x")), cost, checks: 0 });
        }
        tally.add(&Reply { said: Ok(Critique::default()), cost, checks: 2 });
        assert_eq!((tally.critiques, tally.failures["not JSON"], tally.failures["empty"]), (1, 2, 1));
        assert_eq!((tally.cost, tally.checks), (Cost { calls: 4, tokens: 20 }, 2));
    }
}
