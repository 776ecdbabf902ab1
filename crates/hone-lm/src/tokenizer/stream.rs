//! Decoding as tokens arrive.

use super::Tokenizer;
use crate::error::Result;

/// Turns ids that arrive one by one into text, never handing out half a character.
///
/// The pieces joined equal the decoding of all ids at once (for byte-fallback tokenizers: of ids that make up text;
/// there an invalid byte token turns the valid ones before it into U+FFFD, too late for a stream). Decoders look at neighbours (a leading space, a run of
/// byte tokens), so each step decodes a short window twice, without and with the new token, and hands out the
/// difference.
#[derive(Debug, Clone)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    skip_special_tokens: bool,
    ids: Vec<u32>,
    /// Start of the window; `done..` is what was not handed out yet.
    window: usize,
    done: usize,
}

impl<'t> TextStream<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, skip_special_tokens: bool) -> Self {
        TextStream { tokenizer, skip_special_tokens, ids: Vec::new(), window: 0, done: 0 }
    }

    /// Takes one id and returns the text that is now certain; empty while a character is incomplete.
    ///
    /// # Errors
    /// [`crate::Error::Tokenize`] for an id that the tokenizer lacks.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let before = self.tokenizer.decode(&self.ids[self.window..self.done], self.skip_special_tokens)?;
        let after = self.tokenizer.decode(&self.ids[self.window..], self.skip_special_tokens)?;
        // U+FFFD at the end: a character may be incomplete. Nothing new: a token without text of its own.
        if after.ends_with('\u{fffd}') || after.len() <= before.len() {
            return Ok(String::new());
        }
        let piece = match after.strip_prefix(before.as_str()) {
            Some(piece) => piece.to_owned(),
            // Byte tokens that are no UTF-8 take back the text of valid ones before them; what was handed out stays.
            None => self.tokenizer.decode(&self.ids[self.done..], self.skip_special_tokens)?,
        };
        // What was just handed out becomes the context of the next piece.
        self.window = self.done;
        self.done = self.ids.len();
        Ok(piece)
    }

    /// Ends the text: returns what was held back, with U+FFFD for bytes that never became a character.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(&mut self) -> Result<String> {
        let before = self.tokenizer.decode(&self.ids[self.window..self.done], self.skip_special_tokens)?;
        let after = self.tokenizer.decode(&self.ids[self.window..], self.skip_special_tokens)?;
        let piece = match after.strip_prefix(before.as_str()) {
            Some(piece) => piece.to_owned(),
            None => self.tokenizer.decode(&self.ids[self.done..], self.skip_special_tokens)?,
        };
        self.window = self.done;
        self.done = self.ids.len();
        Ok(piece)
    }

    /// The ids taken so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}
