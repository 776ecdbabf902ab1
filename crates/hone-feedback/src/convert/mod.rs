//! From what people say to what a trainer takes: one function per shape.
//!
//! | shape | taken from | what is lost |
//! |---|---|---|
//! | [`pairs`] | comparisons, rankings, ratings, thumbs, edits, outcomes | ties; how far apart (kept as a margin for ratings only); words |
//! | [`lists`] | rankings, ratings, comparisons | distances within a ranking; who said what; words |
//! | [`binary_labels`] | thumbs, outcomes, ratings, comparisons | degrees; marks at the middle; which two were compared; words |
//! | [`scalar_targets`] | ratings, thumbs, outcomes, events | the scale after normalising; words |
//! | [`demonstrations`] | edits, accepted or demonstrated responses | what was wrong before the edit |
//! | [`span_labels`], [`token_labels`] | spans | words; overlaps when labelling tokens |
//! | [`step_labels`] | steps | words |
//! | [`conditions`] | critiques, rules, and words on any form | who said it |
//!
//! Every function borrows from the record and adds to [`Losses`] each thing that the shape could not hold.

mod demonstrations;
mod fine;
mod labels;
mod lists;
mod pairs;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use demonstrations::{Demonstration, IMITATED, demonstrations};
pub use fine::{SpanLabel, StepLabels, span_labels, step_labels, token_labels};
pub use labels::{BinaryLabel, ScalarTarget, binary_labels, scalar_targets};
pub use lists::{List, lists};
pub use pairs::{Pair, pairs};
pub use words::{Condition, conditions};

use crate::feedback::{Feedback, FormKind};
use crate::record::Record;

/// The shapes that trainers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A better and a worse response: reward models, DPO and its kin.
    Pairs,
    /// Several responses with one label each: listwise preference tuning.
    Lists,
    /// A response and good or bad: KTO.
    BinaryLabels,
    /// A response and a number: regression reward models.
    ScalarTargets,
    /// A prompt and the answer to imitate: supervised tuning.
    Demonstrations,
    /// Labelled parts of a response: token-level reward models.
    SpanLabels,
    /// Right or wrong per step: process reward models.
    StepLabels,
    /// Words to condition on: critique methods.
    Conditions,
}

impl Shape {
    /// Every shape, in the order of the table above.
    pub const ALL: [Shape; 8] = [
        Shape::Pairs,
        Shape::Lists,
        Shape::BinaryLabels,
        Shape::ScalarTargets,
        Shape::Demonstrations,
        Shape::SpanLabels,
        Shape::StepLabels,
        Shape::Conditions,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Pairs => "pairs",
            Shape::Lists => "lists",
            Shape::BinaryLabels => "binary-labels",
            Shape::ScalarTargets => "scalar-targets",
            Shape::Demonstrations => "demonstrations",
            Shape::SpanLabels => "span-labels",
            Shape::StepLabels => "step-labels",
            Shape::Conditions => "conditions",
        }
    }

    /// How many examples of this shape `record` gives.
    pub fn count(self, record: &Record) -> usize {
        let mut losses = Losses::ignored();
        match self {
            Shape::Pairs => pairs(record, &mut losses).len(),
            Shape::Lists => lists(record, &mut losses).len(),
            Shape::BinaryLabels => binary_labels(record, &mut losses).len(),
            Shape::ScalarTargets => scalar_targets(record, &mut losses).len(),
            Shape::Demonstrations => demonstrations(record, &mut losses).len(),
            Shape::SpanLabels => span_labels(record, &mut losses).len(),
            Shape::StepLabels => step_labels(record, &mut losses).len(),
            Shape::Conditions => conditions(record, &mut losses).len(),
        }
    }
}

/// What a conversion could not carry over, counted by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Losses(BTreeMap<String, u64>, #[serde(skip)] bool);

impl Losses {
    /// Keeps nothing: for counting what a record gives, a million times.
    pub(crate) fn ignored() -> Self {
        Losses(BTreeMap::new(), true)
    }

    /// Adds one loss.
    pub fn add(&mut self, reason: &str) {
        self.add_many(reason, 1);
    }

    /// Adds `count` losses of one reason; none for 0.
    pub fn add_many(&mut self, reason: &str, count: u64) {
        if count == 0 || self.1 {
            return;
        }
        // The key is only allocated the first time.
        match self.0.get_mut(reason) {
            Some(old) => *old += count,
            None => {
                self.0.insert(reason.to_owned(), count);
            }
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Losses) {
        for (reason, count) in other.iter() {
            self.add_many(reason, count);
        }
    }

    /// Reasons and how often each occurred.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(reason, count)| (reason.as_str(), *count))
    }

    /// How often `reason` occurred.
    pub fn of(&self, reason: &str) -> u64 {
        self.0.get(reason).copied().unwrap_or_default()
    }

    /// Nothing was lost.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a training example comes from: enough to trace it, weigh it or delete it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The form it was made of.
    pub form: FormKind,
    /// The item in the record's feedback list, from 0; the first one where it was made of several.
    pub index: usize,
    /// Who said it.
    pub by: Option<&'a str>,
    /// Which quality it is about.
    pub aspect: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn of(index: usize, item: &'a Feedback) -> Self {
        Origin { form: item.form.kind(), index, by: item.by.as_deref(), aspect: item.aspect.as_deref() }
    }
}

/// A mark as a share of its scale: 0 at the lowest, 1 at the highest. None where no scale is known.
pub(crate) fn share(value: f64, scale: Option<[f64; 2]>) -> Option<f64> {
    let [low, high] = scale?;
    (high > low).then(|| (value - low) / (high - low))
}

/// Notes the words that a wordless shape leaves behind.
fn note_words(item: &Feedback, losses: &mut Losses) {
    if item.text.is_some() {
        losses.add("words that came with the feedback");
    }
}

/// Notes items of forms that a shape cannot take.
fn note_other(item: &Feedback, losses: &mut Losses) {
    losses.add(match item.form.kind() {
        FormKind::Thumb => "thumb",
        FormKind::Rating => "rating",
        FormKind::Comparison => "comparison",
        FormKind::Ranking => "ranking",
        FormKind::Critique => "critique",
        FormKind::Edit => "edit",
        FormKind::Span => "span",
        FormKind::Step => "step",
        FormKind::Outcome => "outcome",
        FormKind::Event => "event",
        FormKind::Rule => "rule",
    });
}
