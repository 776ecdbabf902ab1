//! Text of a growing list of tokens, and the stop strings in it.

use std::fmt;
use std::sync::Arc;

type TextOf = dyn Fn(&[u32]) -> String + Send + Sync;

/// Turns tokens into text.
#[derive(Clone)]
pub struct Detokenize(Arc<TextOf>);

impl Detokenize {
    /// Wraps the function of a tokenizer. It is called often, with the last few tokens of a text, and must not fail.
    pub fn new(detokenize: impl Fn(&[u32]) -> String + Send + Sync + 'static) -> Detokenize {
        Detokenize(Arc::new(detokenize))
    }

    /// The text of some tokens.
    pub fn text(&self, tokens: &[u32]) -> String {
        (self.0)(tokens)
    }
}

impl fmt::Debug for Detokenize {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Detokenize")
    }
}

/// The text sampled so far.
#[derive(Debug)]
pub(super) struct Text {
    detokenize: Detokenize,
    stops: Vec<String>,
    text: String,
    /// Bytes of `text` already handed out.
    sent: usize,
    /// Tokens before `read` are in `text`; those from `prefix` on are decoded again with the next ones, because a
    /// token's text may depend on the one before it.
    prefix: usize,
    read: usize,
}

impl Text {
    pub fn new(detokenize: Detokenize, stops: Vec<String>) -> Text {
        Text { detokenize, stops, text: String::new(), sent: 0, prefix: 0, read: 0 }
    }

    /// Takes up the last of `tokens`. Returns the text that is now certain and, with `look`, the stop string that it
    /// completes; the text then ends before it.
    pub fn push(&mut self, tokens: &[u32], look: bool) -> (String, Option<String>) {
        let old = self.text.len();
        self.decode(tokens, false);
        if look && let Some((place, stop)) = self.find(old) {
            self.text.truncate(place);
            return (self.release(self.text.len()), Some(stop));
        }
        (self.release(self.text.len() - self.held_back()), None)
    }

    /// Everything that was held back, once no more tokens come.
    pub fn finish(&mut self, tokens: &[u32]) -> String {
        self.decode(tokens, true);
        self.release(self.text.len())
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn decode(&mut self, tokens: &[u32], all: bool) {
        if self.read == tokens.len() {
            return;
        }
        let before = self.detokenize.text(&tokens[self.prefix..self.read]);
        let after = self.detokenize.text(&tokens[self.prefix..]);
        // A replacement character at the end is most often a character whose bytes are not all there yet.
        if let Some(new) = after.get(before.len()..)
            && (all || !new.is_empty() && !new.ends_with('\u{FFFD}'))
        {
            self.text.push_str(new);
            (self.prefix, self.read) = (self.read, tokens.len());
        }
    }

    /// First stop string that ends after `old` bytes.
    fn find(&self, old: usize) -> Option<(usize, String)> {
        let place = |stop: &String| {
            let mut from = old.saturating_sub(stop.len() - 1);
            while !self.text.is_char_boundary(from) {
                from -= 1;
            }
            Some((from + self.text[from..].find(stop.as_str())?, stop.clone()))
        };
        self.stops.iter().filter_map(place).min_by_key(|(place, _)| *place)
    }

    /// Bytes at the end of the text that may be the start of a stop string.
    fn held_back(&self) -> usize {
        let starts = |stop: &String| {
            let ends = (1..stop.len()).rev().filter(|&end| stop.is_char_boundary(end));
            ends.into_iter().find(|&end| self.text.ends_with(&stop[..end])).unwrap_or(0)
        };
        self.stops.iter().map(starts).max().unwrap_or(0)
    }

    fn release(&mut self, end: usize) -> String {
        let start = self.sent.min(end);
        self.sent = end.max(self.sent);
        self.text[start..end].to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens are bytes.
    fn bytes() -> Detokenize {
        Detokenize::new(|tokens| {
            String::from_utf8_lossy(&tokens.iter().map(|&t| t as u8).collect::<Vec<_>>()).into_owned()
        })
    }

    fn feed(stops: &[&str], text: &str) -> (Vec<String>, Option<String>, Text) {
        let mut tail = Text::new(bytes(), stops.iter().map(|s| s.to_string()).collect());
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let mut pieces = vec![];
        for end in 1..=tokens.len() {
            let (piece, stop) = tail.push(&tokens[..end], true);
            pieces.push(piece);
            if stop.is_some() {
                return (pieces, stop, tail);
            }
        }
        pieces.push(tail.finish(&tokens));
        (pieces, None, tail)
    }

    #[test]
    fn what_may_become_a_stop_string_is_held_back() {
        let (pieces, stop, tail) = feed(&["END", "Nx"], "aENb END");
        assert_eq!(pieces, ["a", "", "", "ENb", " ", "", "", ""]);
        assert_eq!(stop.as_deref(), Some("END"));
        assert_eq!(tail.text(), "aENb ");
        let (pieces, stop, _) = feed(&["END"], "EN");
        assert_eq!((pieces.concat().as_str(), stop), ("EN", None));
    }

    #[test]
    fn characters_come_whole() {
        let (pieces, _, _) = feed(&[], "aé→");
        assert_eq!(pieces, ["a", "", "é", "", "", "→", ""]);
        let (_, stop, tail) = feed(&["→b"], "é→→bc");
        assert_eq!((stop.as_deref(), tail.text()), (Some("→b"), "é→"));
    }

    #[test]
    fn the_first_of_several_stop_strings_counts() {
        let (_, stop, tail) = feed(&["bc", "abc"], "xxabc");
        assert_eq!((stop.as_deref(), tail.text()), (Some("abc"), "xx"));
    }
}
