//! Good or bad, and how good.

use super::{Losses, Origin, note_other, note_words, share};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record};

/// A response and whether it is good.
#[derive(Debug, Clone, PartialEq)]
pub struct BinaryLabel<'a> {
    /// What it answers.
    pub prompt: &'a Prompt,
    /// The response.
    pub content: &'a Content,
    /// Good.
    pub good: bool,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// A response and a number.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarTarget<'a> {
    /// What it answers.
    pub prompt: &'a Prompt,
    /// The response.
    pub content: &'a Content,
    /// How good it is: in `[0, 1]` where `scaled`, else the mark as it came.
    pub value: f64,
    /// The value is a share of a known scale.
    pub scaled: bool,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// All good-or-bad labels of a record.
///
/// A thumb and an outcome give their own; a rating is good above the middle of its scale and bad below; of a
/// comparison the better response is good, the worse bad.
///
/// # Loses
/// How good; marks at the middle or without a scale; which two responses were compared, and so that a "good"
/// one may be bad in itself; words; all other forms.
pub fn binary_labels<'a>(record: &'a Record, losses: &mut Losses) -> Vec<BinaryLabel<'a>> {
    let mut out = Vec::new();
    for (index, item) in record.feedback.iter().enumerate() {
        let origin = Origin::of(index, item);
        let mut label = |id: &str, good: bool, losses: &mut Losses| match record.response(id) {
            Some(response) => {
                out.push(BinaryLabel { prompt: &record.prompt, content: &response.content, good, origin });
            }
            None => losses.add("reference to a response that is not there"),
        };
        match &item.form {
            Form::Thumb { on, value } => label(on, *value, losses),
            Form::Outcome { on, passed, .. } => label(on, *passed, losses),
            Form::Rating { on, value, scale } => match share(*value, *scale) {
                None => losses.add("rating without a scale"),
                Some(0.5) => losses.add("rating at the middle of its scale"),
                Some(share) => {
                    losses.add("degree of a rating");
                    label(on, share > 0.5, losses);
                }
            },
            Form::Comparison { better, worse } => {
                losses.add("comparison taken apart into two labels");
                label(better, true, losses);
                label(worse, false, losses);
            }
            _ => {
                note_other(item, losses);
                continue;
            }
        }
        note_words(item, losses);
    }
    out
}

/// All numbers said about the responses of a record.
///
/// A rating gives its share of the scale, or the mark itself where no scale is known; a thumb and an outcome
/// give 1 or 0; an event on a response gives its value.
///
/// # Loses
/// The scale; words; events without a value; all other forms.
pub fn scalar_targets<'a>(record: &'a Record, losses: &mut Losses) -> Vec<ScalarTarget<'a>> {
    let mut out = Vec::new();
    for (index, item) in record.feedback.iter().enumerate() {
        let (on, value, scaled) = match &item.form {
            Form::Rating { on, value, scale } => match share(*value, *scale) {
                Some(share) => (on, share, true),
                None => (on, *value, false),
            },
            Form::Thumb { on, value } => (on, f64::from(u8::from(*value)), true),
            Form::Outcome { on, passed, .. } => (on, f64::from(u8::from(*passed)), true),
            Form::Event { on: Some(on), value: Some(value), .. } => (on, *value, false),
            _ => {
                note_other(item, losses);
                continue;
            }
        };
        note_words(item, losses);
        match record.response(on) {
            Some(response) => out.push(ScalarTarget {
                prompt: &record.prompt,
                content: &response.content,
                value,
                scaled,
                origin: Origin::of(index, item),
            }),
            None => losses.add("reference to a response that is not there"),
        }
    }
    out
}
