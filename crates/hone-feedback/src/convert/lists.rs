//! Lists of responses with graded labels.

use std::collections::BTreeMap;

use super::{Losses, Origin, note_other, note_words, share};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record};

/// At least two responses to one prompt, with one label each.
#[derive(Debug, Clone, PartialEq)]
pub struct List<'a> {
    /// What all of them answer.
    pub prompt: &'a Prompt,
    /// The responses, `[K]`, `K >= 2`.
    pub contents: Vec<&'a Content>,
    /// How good each is, `[K]`, in `[0, 1]`, larger is better.
    pub labels: Vec<f64>,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// All lists of a record: one per ranking, one per aspect of the ratings (marks with and without a scale apart),
/// one of all comparisons.
///
/// A ranking's label falls evenly from 1 at the first place to 0 at the last; tied responses share one. A
/// rated response's label is the mean of its marks as shares of their scales, or of the marks stretched to
/// `[0, 1]` over the list where no scale is known. A compared response's label is the share of its comparisons
/// that it won.
///
/// # Loses
/// The distance between places; who gave which mark; which two met in a comparison; lists whose labels are all
/// the same; all other forms.
pub fn lists<'a>(record: &'a Record, losses: &mut Losses) -> Vec<List<'a>> {
    let mut out = Vec::new();
    // Per aspect, and whether the scale is known: a share of a scale and a bare mark have no common measure.
    let mut rated: BTreeMap<(Option<&str>, bool), Group<'a>> = BTreeMap::new();
    let mut compared: Option<Group<'a>> = None;
    for (index, item) in record.feedback.iter().enumerate() {
        let origin = Origin::of(index, item);
        match &item.form {
            Form::Ranking { order } => {
                let last = order.len().saturating_sub(1).max(1) as f64;
                let placed =
                    order.iter().enumerate().flat_map(|(place, ids)| ids.iter().map(move |id| (place, id)));
                let labels = placed.map(|(place, id)| (id.as_str(), 1.0 - place as f64 / last)).collect();
                push(record, labels, origin, &mut out, losses);
                note_words(item, losses);
            }
            Form::Rating { on, value, scale } => {
                let label = share(*value, *scale);
                let group = rated.entry((origin.aspect, label.is_some()));
                let group = group.or_insert_with(|| Group { scaled: label.is_some(), ..Group::new(origin) });
                group.add(on, label.unwrap_or(*value));
                note_words(item, losses);
            }
            Form::Comparison { better, worse } => {
                let group = compared.get_or_insert_with(|| Group::new(origin));
                group.add(better, 1.0);
                group.add(worse, 0.0);
                note_words(item, losses);
            }
            _ => note_other(item, losses),
        }
    }
    for group in rated.into_values().chain(compared) {
        let raters = group.marks.iter().map(|(_, _, count)| count.saturating_sub(1)).sum();
        losses.add_many("several marks averaged into one label", raters);
        let origin = group.origin;
        push(record, group.labels(), origin, &mut out, losses);
    }
    out
}

struct Group<'a> {
    origin: Origin<'a>,
    /// Response, sum of marks, number of marks, in the order of the log.
    marks: Vec<(&'a str, f64, u64)>,
    /// The marks came with a scale.
    scaled: bool,
}

impl<'a> Group<'a> {
    fn new(origin: Origin<'a>) -> Self {
        Group { origin, marks: Vec::new(), scaled: true }
    }

    fn add(&mut self, on: &'a str, mark: f64) {
        match self.marks.iter_mut().find(|(id, _, _)| *id == on) {
            Some((_, sum, count)) => {
                *sum += mark;
                *count += 1;
            }
            None => self.marks.push((on, mark, 1)),
        }
    }

    fn labels(self) -> Vec<(&'a str, f64)> {
        let mut means: Vec<(&str, f64)> =
            self.marks.iter().map(|(id, sum, count)| (*id, sum / *count as f64)).collect();
        if !self.scaled {
            let low = means.iter().map(|(_, mean)| *mean).fold(f64::INFINITY, f64::min);
            let high = means.iter().map(|(_, mean)| *mean).fold(f64::NEG_INFINITY, f64::max);
            for (_, mean) in &mut means {
                *mean = if high > low { (*mean - low) / (high - low) } else { 0.5 };
            }
        }
        means
    }
}

fn push<'a>(
    record: &'a Record,
    labels: Vec<(&str, f64)>,
    origin: Origin<'a>,
    out: &mut Vec<List<'a>>,
    losses: &mut Losses,
) {
    let mut list = List { prompt: &record.prompt, contents: Vec::new(), labels: Vec::new(), origin };
    for (id, label) in labels {
        match record.response(id) {
            Some(response) => {
                list.contents.push(&response.content);
                list.labels.push(label);
            }
            None => losses.add("reference to a response that is not there"),
        }
    }
    if list.contents.len() < 2 {
        losses.add("fewer than 2 labelled responses");
    } else if list.labels.windows(2).all(|two| two[0] == two[1]) {
        losses.add("list whose labels are all the same");
    } else {
        out.push(list);
    }
}
