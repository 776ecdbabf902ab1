//! Constraints on what may be sampled: grammars, schemas, expressions. They are implemented elsewhere.

use std::fmt;

/// A set of tokens, one bit each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    len: usize,
    words: Vec<u32>,
}

impl TokenMask {
    /// The empty set over `len` tokens.
    pub fn none(len: usize) -> TokenMask {
        TokenMask { len, words: vec![0; len.div_ceil(32)] }
    }

    /// Number of tokens in the vocabulary.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the vocabulary has no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a token; one outside the vocabulary is ignored.
    pub fn allow(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }

    /// Whether a token is in the set.
    pub fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    /// Takes every token out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// The bits: token `t` is bit `t % 32` of word `t / 32`.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// Puts -∞ in the place of every number whose token is not in the set.
    pub(super) fn apply(&self, logits: &mut [f32]) {
        for (logits, &word) in logits.chunks_mut(32).zip(&self.words) {
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in logits.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// What a sequence may say next, decided token by token. An error is a text for people; the request fails with it.
pub trait Constraint: Send + Sync {
    /// Adds the tokens that may come next to `allowed`, which arrives empty. Leaving it empty is an error unless
    /// [`Constraint::finished`].
    fn allowed(&mut self, allowed: &mut TokenMask) -> Result<(), String>;

    /// Notes the token that was sampled.
    fn accept(&mut self, token: u32) -> Result<(), String>;

    /// Whether nothing can follow. Asked before the first token and after every one; ends the sequence.
    fn finished(&self) -> bool;

    /// The constraint in its present state, for another sequence.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Box<dyn Constraint> {
        self.fork()
    }
}

impl fmt::Debug for dyn Constraint {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Constraint")
    }
}
