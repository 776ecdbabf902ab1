//! Labels below the whole response: spans, tokens, steps.

use std::borrow::Cow;

use super::{Losses, Origin, note_other, note_words};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record, Response};

/// A judged part of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanLabel<'a> {
    /// What the response answers.
    pub prompt: &'a Prompt,
    /// The response.
    pub content: &'a Content,
    /// First Unicode scalar value of the part.
    pub start: usize,
    /// One past its last.
    pub end: usize,
    /// What kind of part it is.
    pub label: Option<&'a str>,
    /// How good it is; -1 where only a label was given, since people mark what is wrong.
    pub value: f64,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// The judged steps of one response by one judge.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLabels<'a> {
    /// What the response answers.
    pub prompt: &'a Prompt,
    /// The steps, `[S]`.
    pub steps: Vec<Cow<'a, str>>,
    /// Right or wrong per step, `[S]`; None: not judged.
    pub correct: Vec<Option<bool>>,
    /// Where it comes from: the first of its items.
    pub origin: Origin<'a>,
}

/// All judged parts of the responses of a record.
///
/// # Loses
/// Words; all other forms.
pub fn span_labels<'a>(record: &'a Record, losses: &mut Losses) -> Vec<SpanLabel<'a>> {
    let mut out = Vec::new();
    for (index, item) in record.feedback.iter().enumerate() {
        let Form::Span { on, start, end, label, value } = &item.form else {
            note_other(item, losses);
            continue;
        };
        note_words(item, losses);
        match record.response(on) {
            Some(response) => out.push(SpanLabel {
                prompt: &record.prompt,
                content: &response.content,
                start: *start,
                end: *end,
                label: label.as_deref(),
                value: value.unwrap_or(-1.0),
                origin: Origin::of(index, item),
            }),
            None => losses.add("reference to a response that is not there"),
        }
    }
    out
}

/// One value per token of one response: that of the spans it touches, 0 outside of all.
///
/// `tokens` is `[T]`: start and end of each token in Unicode scalar values of the response's text. Returns `[T]`.
///
/// # Loses
/// Where spans overlap, the value farthest from 0 stays, the worse of two as far. Spans that touch no token.
pub fn token_labels(spans: &[SpanLabel<'_>], tokens: &[(usize, usize)], losses: &mut Losses) -> Vec<f64> {
    let mut values: Vec<Option<f64>> = vec![None; tokens.len()];
    for span in spans {
        let mut touched = false;
        for (value, &(start, end)) in values.iter_mut().zip(tokens) {
            if start < span.end && span.start < end {
                touched = true;
                *value = Some(match *value {
                    None => span.value,
                    Some(old) => {
                        if old != span.value {
                            losses.add("overlapping spans on one token");
                        }
                        stronger(old, span.value)
                    }
                });
            }
        }
        if !touched {
            losses.add("span that touches no token");
        }
    }
    values.into_iter().map(Option::unwrap_or_default).collect()
}

fn stronger(a: f64, b: f64) -> f64 {
    match a.abs().total_cmp(&b.abs()) {
        std::cmp::Ordering::Greater => a,
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal => a.min(b),
    }
}

/// All judged steps of a record, one list per response and judge.
///
/// # Loses
/// Words; a second verdict of the same judge on the same step; all other forms.
pub fn step_labels<'a>(record: &'a Record, losses: &mut Losses) -> Vec<StepLabels<'a>> {
    let mut out: Vec<(&'a Response, StepLabels<'a>)> = Vec::new();
    for (position, item) in record.feedback.iter().enumerate() {
        let Form::Step { on, index, correct } = &item.form else {
            note_other(item, losses);
            continue;
        };
        note_words(item, losses);
        let Some(response) = record.response(on) else {
            losses.add("reference to a response that is not there");
            continue;
        };
        let by = item.by.as_deref();
        let at = out.iter().position(|(of, labels)| std::ptr::eq(*of, response) && labels.origin.by == by);
        let at = at.unwrap_or_else(|| {
            let steps = response.steps();
            let correct = vec![None; steps.len()];
            let origin = Origin::of(position, item);
            out.push((response, StepLabels { prompt: &record.prompt, steps, correct, origin }));
            out.len() - 1
        });
        match out[at].1.correct.get_mut(*index) {
            Some(verdict @ None) => *verdict = Some(*correct),
            Some(Some(_)) => losses.add("second verdict on one step"),
            None => losses.add("step that the response does not have"),
        }
    }
    out.into_iter().map(|(_, labels)| labels).collect()
}
