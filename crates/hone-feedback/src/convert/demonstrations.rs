//! Answers to imitate.

use super::{Losses, Origin, note_other, note_words};
use crate::feedback::Form;
use crate::record::{Content, Prompt, Record};

/// A prompt and the answer to imitate.
#[derive(Debug, Clone, PartialEq)]
pub struct Demonstration<'a> {
    /// What it answers.
    pub prompt: &'a Prompt,
    /// The answer to imitate.
    pub content: &'a Content,
    /// Where it comes from.
    pub origin: Origin<'a>,
}

/// The events that mark a response as one to imitate. With a value they count only above 0.
pub const IMITATED: [&str; 2] = ["demonstration", "accepted"];

/// All demonstrations of a record: corrected versions, and responses marked by an event of [`IMITATED`].
///
/// # Loses
/// What was wrong before an edit; edits that changed nothing; all other forms. A good response is not taken for
/// a demonstration: a thumb says that it was liked, not that it should be copied.
pub fn demonstrations<'a>(record: &'a Record, losses: &mut Losses) -> Vec<Demonstration<'a>> {
    let mut out = Vec::new();
    for (index, item) in record.feedback.iter().enumerate() {
        let content = match &item.form {
            Form::Edit { on, content } => match record.response(on) {
                Some(original) if original.content == *content => {
                    losses.add("edit that changed nothing");
                    continue;
                }
                _ => content,
            },
            Form::Event { on: Some(on), event, value } if imitated(event, *value) => {
                match record.response(on) {
                    Some(response) => &response.content,
                    None => {
                        losses.add("reference to a response that is not there");
                        continue;
                    }
                }
            }
            _ => {
                note_other(item, losses);
                continue;
            }
        };
        note_words(item, losses);
        out.push(Demonstration { prompt: &record.prompt, content, origin: Origin::of(index, item) });
    }
    out
}

fn imitated(event: &str, value: Option<f64>) -> bool {
    IMITATED.contains(&event) && value.is_none_or(|value| value > 0.0)
}
