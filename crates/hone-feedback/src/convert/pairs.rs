//! Preference pairs.

use rustc_hash::FxHashSet;

use super::{Losses, Origin, note_other, note_words, share};
use crate::feedback::{Form, FormKind};
use crate::record::{Content, Prompt, Record};

/// A better and a worse response to one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair<'a> {
    /// What both answer.
    pub prompt: &'a Prompt,
    /// The better response.
    pub chosen: &'a Content,
    /// The worse response.
    pub rejected: &'a Content,
    /// How far apart the two marks are as a share of the scale, in (0, 1]; in marks where no scale is known.
    /// Only of pairs made of ratings.
    pub margin: Option<f64>,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// All pairs of a record.
///
/// A comparison gives one pair; a ranking one for every two responses in different places; marks, thumbs and
/// outcomes one for every two responses that the same judge marked differently on the same aspect, scale or
/// check; an edit is better than what it corrects. The same two texts from the same form and judge count once.
///
/// # Loses
/// Ties give no pair. Words, spans, steps, events and rules say nothing about two responses. Two responses of
/// the same text give none.
pub fn pairs<'a>(record: &'a Record, losses: &mut Losses) -> Vec<Pair<'a>> {
    let mut found = Found { record, pairs: Vec::new(), seen: FxHashSet::default() };
    for (index, item) in record.feedback.iter().enumerate() {
        let origin = Origin::of(index, item);
        match &item.form {
            Form::Comparison { better, worse } => {
                found.add(better, worse, None, origin, losses);
                note_words(item, losses);
            }
            Form::Ranking { order } => {
                for (place, better) in order.iter().enumerate() {
                    if better.len() > 1 {
                        losses.add_many("tied responses of a ranking", better.len() as u64);
                    }
                    for worse in order[place + 1..].iter().flatten() {
                        better.iter().for_each(|better| found.add(better, worse, None, origin, losses));
                    }
                }
                note_words(item, losses);
            }
            Form::Edit { on, content } => {
                match record.response(on) {
                    Some(original) => {
                        found.add_contents(content, &original.content, None, origin, losses);
                    }
                    None => losses.add("reference to a response that is not there"),
                }
                note_words(item, losses);
            }
            Form::Rating { on, value, scale } => {
                let mut partner = false;
                for (other_on, other, other_scale, other_origin) in ratings(record) {
                    if other_on == on || (other_origin.by, other_origin.aspect) != (origin.by, origin.aspect)
                    {
                        continue;
                    }
                    partner = true;
                    if other_scale != *scale {
                        losses.add("ratings on different scales");
                    } else if value > &other {
                        let margin = match (share(*value, *scale), share(other, *scale)) {
                            (Some(high), Some(low)) => high - low,
                            _ => value - other,
                        };
                        found.add(on, other_on, Some(margin), origin, losses);
                    } else if *value == other && index < other_origin.index {
                        losses.add("equal ratings");
                    }
                }
                if !partner {
                    losses.add("rating without a second one to compare with");
                }
                note_words(item, losses);
            }
            Form::Thumb { on, value } => {
                let worse = record
                    .feedback
                    .iter()
                    .filter(|other| (&other.by, &other.aspect) == (&item.by, &item.aspect));
                let worse = worse.filter_map(|other| match &other.form {
                    Form::Thumb { on: worse, value: false } if worse != on => Some(worse),
                    _ => None,
                });
                if *value {
                    worse.for_each(|worse| found.add(on, worse, None, origin, losses));
                }
                note_words(item, losses);
            }
            Form::Outcome { on, check, passed } => {
                let failed = record
                    .feedback
                    .iter()
                    .filter(|other| (&other.by, &other.aspect) == (&item.by, &item.aspect));
                let failed = failed.filter_map(|other| match &other.form {
                    Form::Outcome { on: failed, check: same, passed: false }
                        if failed != on && same == check =>
                    {
                        Some(failed)
                    }
                    _ => None,
                });
                if *passed {
                    failed.for_each(|failed| found.add(on, failed, None, origin, losses));
                }
                note_words(item, losses);
            }
            Form::Critique { .. }
            | Form::Span { .. }
            | Form::Step { .. }
            | Form::Event { .. }
            | Form::Rule { .. } => {
                note_other(item, losses);
            }
        }
    }
    found.pairs
}

fn ratings(record: &Record) -> impl Iterator<Item = (&str, f64, Option<[f64; 2]>, Origin<'_>)> {
    record.feedback.iter().enumerate().filter_map(|(index, item)| match &item.form {
        Form::Rating { on, value, scale } => Some((on.as_str(), *value, *scale, Origin::of(index, item))),
        _ => None,
    })
}

/// Two texts by address, and who said what of them.
type Key<'a> = (*const Content, *const Content, FormKind, Option<&'a str>, Option<&'a str>);

struct Found<'a> {
    record: &'a Record,
    pairs: Vec<Pair<'a>>,
    seen: FxHashSet<Key<'a>>,
}

impl<'a> Found<'a> {
    fn add(
        &mut self,
        better: &str,
        worse: &str,
        margin: Option<f64>,
        origin: Origin<'a>,
        losses: &mut Losses,
    ) {
        match (self.record.response(better), self.record.response(worse)) {
            (Some(better), Some(worse)) => {
                self.add_contents(&better.content, &worse.content, margin, origin, losses);
            }
            _ => losses.add("reference to a response that is not there"),
        }
    }

    fn add_contents(
        &mut self,
        chosen: &'a Content,
        rejected: &'a Content,
        margin: Option<f64>,
        origin: Origin<'a>,
        losses: &mut Losses,
    ) {
        if chosen == rejected {
            losses.add("pair of two equal texts");
        } else if self.seen.insert((chosen, rejected, origin.form, origin.by, origin.aspect)) {
            self.pairs.push(Pair { prompt: &self.record.prompt, chosen, rejected, margin, origin });
        } else {
            losses.add("the same pair again");
        }
    }
}
