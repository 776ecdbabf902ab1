//! Which tokens of a conversation the assistant wrote.

use std::ops::Range;

use super::{ChatTemplate, RenderOptions};
use crate::error::{Error, Result};
use crate::message::Message;
use crate::tokenizer::Tokenizer;

/// Which of the assistant's turns a mask covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskScope {
    /// All of them.
    #[default]
    All,
    /// The last message only, which must be the assistant's. Serves templates that drop reasoning from earlier turns.
    Last,
}

/// A rendered conversation with its tokens and the mask over them.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedTokens {
    /// The rendered text.
    pub text: String,
    /// Its token ids, `[T]`.
    pub ids: Vec<u32>,
    /// `[T]`: whether the assistant wrote the token, its stop token included.
    pub mask: Vec<bool>,
}

impl ChatTemplate {
    /// The mask by the template's `{% generation %}` tag: every token that overlaps the marked text.
    ///
    /// # Errors
    /// [`Error::GenerationMoved`] where a filter changes marked text, and those of [`ChatTemplate::render`].
    pub fn mask_by_tag(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        tokenizer: &Tokenizer,
    ) -> Result<MaskedTokens> {
        let (text, name) = self.render_with(messages, options, None)?;
        let markers = markers(&text);
        let (marked, _) = self.render_with(messages, options, Some(markers))?;
        let mut spans: Vec<Range<usize>> = Vec::new();
        let mut plain = String::with_capacity(text.len());
        let mut open = None;
        for c in marked.chars() {
            if c == markers.0 {
                open.get_or_insert(plain.len());
            } else if c == markers.1 {
                if let Some(start) = open.take() {
                    spans.push(start..plain.len());
                }
            } else {
                plain.push(c);
            }
        }
        // Marked text that is trimmed or cut after it was rendered would put the spans elsewhere.
        if plain != text || open.is_some() {
            return Err(Error::GenerationMoved { name: name.to_owned() });
        }
        masked(text, &spans, tokenizer)
    }

    /// The mask by rendering ever longer prefixes of the conversation: what a message of the assistant adds after the
    /// generation prompt is the assistant's, up to the last stop token in it. For templates without the tag.
    ///
    /// # Errors
    /// [`Error::NotIncremental`] names the message where the template's text is not a prefix of the later one, and those
    /// of [`ChatTemplate::render`].
    pub fn mask_by_prefix(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        scope: MaskScope,
        tokenizer: &Tokenizer,
    ) -> Result<MaskedTokens> {
        let plain =
            RenderOptions { add_generation_prompt: false, continue_final_message: false, ..options.clone() };
        let prompt = RenderOptions { add_generation_prompt: true, ..plain.clone() };
        let (text, name) = self.render_with(messages, &plain, None)?;
        let stops: Vec<String> =
            tokenizer.stop_tokens().iter().filter_map(|&id| tokenizer.token(id)).collect();
        let mut spans = Vec::new();
        for (i, message) in messages.iter().enumerate() {
            let last = i + 1 == messages.len();
            if message.role() != "assistant" || (scope == MaskScope::Last && !last) {
                continue;
            }
            let not_incremental = || Error::NotIncremental { name: name.to_owned(), message: i };
            let upto = if last { text.clone() } else { self.render(&messages[..=i], &plain)? };
            if !text.starts_with(&upto) {
                return Err(not_incremental());
            }
            let start =
                self.start_of_turn(&messages[..i], &prompt, &plain, &upto).ok_or_else(not_incremental)?;
            spans.push(start..end_of_turn(&upto, start, &stops));
        }
        masked(text, &spans, tokenizer)
    }

    /// Where an answer starts in `upto`: after the prompt that asks for it.
    fn start_of_turn(
        &self,
        before: &[Message],
        prompt: &RenderOptions,
        plain: &RenderOptions,
        upto: &str,
    ) -> Option<usize> {
        if before.is_empty() {
            return Some(0);
        }
        // A template without a generation prompt renders both alike.
        [prompt, plain].into_iter().find_map(|options| {
            let text = self.render(before, options).ok()?;
            upto.starts_with(&text).then_some(text.len())
        })
    }
}

/// The end of an answer: after its last stop token if only white space follows, else the end of the text.
fn end_of_turn(text: &str, start: usize, stops: &[String]) -> usize {
    let turn = &text[start..];
    let end = stops.iter().filter_map(|stop| turn.rfind(stop.as_str()).map(|at| at + stop.len())).max();
    match end {
        Some(end) if turn[end..].trim().is_empty() => start + end,
        _ => text.len(),
    }
}

/// Two characters that the text does not contain. Unicode keeps U+FDD0 to U+FDEF out of texts for such uses.
fn markers(text: &str) -> (char, char) {
    let mut free = ('\u{fdd0}'..='\u{fdef}').chain('\u{f0000}'..='\u{ffffd}').filter(|&c| !text.contains(c));
    (free.next().unwrap_or('\u{fdd0}'), free.next().unwrap_or('\u{fdd1}'))
}

fn masked(text: String, spans: &[Range<usize>], tokenizer: &Tokenizer) -> Result<MaskedTokens> {
    let tokens = tokenizer.encode_spans(&text, false)?;
    let mask = tokens.iter().map(|t| spans.iter().any(|s| t.start < s.end && t.end > s.start)).collect();
    Ok(MaskedTokens { ids: tokens.iter().map(|t| t.id).collect(), mask, text })
}

/// Checks that there is something to learn and that every turn in the mask ends with a stop token.
///
/// `ids` and `mask` are `[T]`; `stops` are the tokens at which sampling ends.
///
/// # Errors
/// [`Error::EmptyMask`], or [`Error::StopOutsideMask`] for the first turn that ends otherwise.
pub fn check_stop_in_mask(ids: &[u32], mask: &[bool], stops: &[u32], tokenizer: &Tokenizer) -> Result<()> {
    if !mask.contains(&true) {
        return Err(Error::EmptyMask { tokens: ids.len() });
    }
    let name = |id: u32| tokenizer.token(id).unwrap_or_else(|| id.to_string());
    let ends =
        (0..ids.len().min(mask.len())).filter(|&i| mask[i] && !mask.get(i + 1).copied().unwrap_or(false));
    for (turn, end) in ends.enumerate() {
        // White space after the stop token may lie inside a generation tag.
        let last =
            (0..=end).rev().take_while(|&i| mask[i]).find(|&i| !name(ids[i]).trim_matches(WHITE).is_empty());
        let last = last.unwrap_or(end);
        if !stops.contains(&ids[last]) {
            return Err(Error::StopOutsideMask {
                turn,
                last: ids[last],
                last_text: name(ids[last]),
                stops: stops.iter().map(|&id| name(id)).collect(),
            });
        }
    }
    Ok(())
}

/// White space, and how vocabularies spell it: byte-level `Ġ Ċ`, metaspace.
const WHITE: [char; 6] = [' ', '\n', '\t', 'Ġ', 'Ċ', '▁'];
