//! Words to condition on.

use super::{Losses, Origin, note_other};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record};

/// Words said about a response, and the corrected version where there is one.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The response the words are about; None: the whole exchange, or a rule for later ones.
    pub response: Option<&'a Content>,
    /// The words.
    pub words: &'a str,
    /// The first edit of that response.
    pub revised: Option<&'a Content>,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// All words of a record: critiques, rules, and what came with marks, checks, spans and steps.
///
/// # Loses
/// The place a span or step comment points at; a rule's scope; items without words.
pub fn conditions<'a>(record: &'a Record, losses: &mut Losses) -> Vec<Condition<'a>> {
    let mut out = Vec::new();
    for (index, item) in record.feedback.iter().enumerate() {
        let Some(words) = item.words().filter(|words| !words.trim().is_empty()) else {
            if !matches!(item.form, Form::Edit { .. }) {
                note_other(item, losses);
            }
            continue;
        };
        match &item.form {
            Form::Span { .. } => losses.add("place of a span"),
            Form::Step { .. } => losses.add("place of a step"),
            Form::Rule { scope: Some(_), .. } => losses.add("scope of a rule"),
            _ => {}
        }
        let on = item.form.on();
        let revised = on.and_then(|on| {
            record.feedback.iter().find_map(|other| match &other.form {
                Form::Edit { on: edited, content } if edited == on => Some(content),
                _ => None,
            })
        });
        out.push(Condition {
            prompt: &record.prompt,
            response: on.and_then(|on| record.response(on)).map(|response| &response.content),
            words,
            revised,
            origin: Origin::of(index, item),
        });
    }
    out
}
