//! Sequences laid end to end, and the tokens in them whose probability is asked for.
//!
//! There is no padding anywhere: a batch is the concatenation of its sequences, each attending to itself only, so
//! packing several documents into one batch is the normal case and costs nothing.

use std::ops::Range;

use crate::error::{Error, Result};

/// One token whose probability is wanted: `token` predicted from the hidden state at `row`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Row in the batch whose state makes the prediction.
    pub row: u32,
    /// Token that it should predict.
    pub token: u32,
}

/// `B` sequences of `N` tokens together, with `M` targets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    starts: Vec<usize>,
    targets: Vec<Target>,
    target_starts: Vec<usize>,
    /// `[N]`, or empty if no row is hidden.
    hidden: Vec<bool>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch { tokens: vec![], starts: vec![0], targets: vec![], target_starts: vec![0], hidden: vec![] }
    }

    /// Adds a sequence whose tokens in `scored` are targets. The first token of a sequence has nothing before it and
    /// is never a target.
    pub fn push(&mut self, tokens: &[u32], scored: Range<usize>) {
        let row = self.tokens.len() as u32;
        let scored = scored.start.max(1)..scored.end.min(tokens.len());
        let targets = scored.map(|t| Target { row: row + t as u32 - 1, token: tokens[t] }).collect();
        self.push_targets(tokens, targets);
    }

    /// Adds a sequence whose tokens with a true `mask` are targets; `mask` is `[tokens.len()]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two lengths differ.
    pub fn push_masked(&mut self, tokens: &[u32], mask: &[bool]) -> Result<()> {
        if mask.len() != tokens.len() {
            return Err(Error::Shape {
                what: "target mask".into(),
                needed: vec![tokens.len()],
                got: vec![mask.len()],
            });
        }
        let row = self.tokens.len() as u32;
        let targets = (1..tokens.len())
            .filter(|&t| mask[t])
            .map(|t| Target { row: row + t as u32 - 1, token: tokens[t] })
            .collect();
        self.push_targets(tokens, targets);
        Ok(())
    }

    fn push_targets(&mut self, tokens: &[u32], targets: Vec<Target>) {
        self.tokens.extend_from_slice(tokens);
        if !self.hidden.is_empty() {
            self.hidden.resize(self.tokens.len(), false);
        }
        self.starts.push(self.tokens.len());
        self.targets.extend(targets);
        self.target_starts.push(self.targets.len());
    }

    /// Hides a row from all later rows of its sequence, in every layer and head: it still sees what is before it and
    /// itself, and still makes its own prediction. A sequence's first row is never hidden, so that every row has
    /// something to see; neither is a row that the batch does not have.
    pub fn hide(&mut self, row: usize) {
        if row < self.tokens.len() && self.starts.binary_search(&row).is_err() {
            self.hidden.resize(self.tokens.len(), false);
            self.hidden[row] = true;
        }
    }

    /// `[N]`: which rows are hidden from later ones; empty if none is.
    pub fn hidden(&self) -> &[bool] {
        &self.hidden
    }

    /// `[N]`: all tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// `[M]`: all targets, by row.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Number of sequences, `B`.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows of one sequence.
    pub fn rows(&self, sequence: usize) -> Range<usize> {
        self.starts[sequence]..self.starts[sequence + 1]
    }

    /// Indices into [`Batch::targets`] that belong to one sequence.
    pub fn target_range(&self, sequence: usize) -> Range<usize> {
        self.target_starts[sequence]..self.target_starts[sequence + 1]
    }

    /// Rows of every sequence, in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.len()).map(|sequence| self.rows(sequence))
    }

    /// Length of the longest sequence, in tokens.
    pub fn longest(&self) -> usize {
        self.sequences().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// Copies the sequences in `range`, targets included, into a batch of their own.
    pub fn slice(&self, range: Range<usize>) -> Batch {
        let mut part = Batch::new();
        for sequence in range {
            let rows = self.rows(sequence);
            let shift = (rows.start - part.tokens.len()) as u32;
            let targets = &self.targets[self.target_range(sequence)];
            let targets = targets.iter().map(|t| Target { row: t.row - shift, token: t.token }).collect();
            part.push_targets(&self.tokens[rows.clone()], targets);
            for (row, _) in rows.clone().zip(self.hidden.get(rows).unwrap_or_default()).filter(|(_, h)| **h) {
                part.hide(row - shift as usize);
            }
        }
        part
    }

    /// Splits into runs of whole sequences of at most `max_tokens` tokens; a longer sequence gets a run of its own.
    pub fn split(&self, max_tokens: usize) -> Vec<Range<usize>> {
        let mut parts = vec![];
        let mut first = 0;
        for sequence in 0..self.len() {
            if sequence > first && self.starts[sequence + 1] - self.starts[first] > max_tokens {
                parts.push(first..sequence);
                first = sequence;
            }
        }
        if first < self.len() {
            parts.push(first..self.len());
        }
        parts
    }

    /// Checks that a model with `vocab_size` tokens and `max_positions` positions can read the batch.
    ///
    /// # Errors
    /// [`Error::Batch`] naming the first sequence that is empty, too long, or holds an unknown token.
    pub fn check(&self, vocab_size: usize, max_positions: usize) -> Result<()> {
        for sequence in 0..self.len() {
            let tokens = &self.tokens[self.rows(sequence)];
            let problem = if tokens.is_empty() {
                "has no token; needs at least 1".to_string()
            } else if tokens.len() > max_positions {
                format!("has {} tokens; the model's context holds {max_positions}", tokens.len())
            } else if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                format!("holds token {token}; the model's vocabulary ends at {}", vocab_size - 1)
            } else {
                continue;
            };
            return Err(Error::Batch { sequence, problem });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_tokens_after_their_rows() {
        let mut batch = Batch::new();
        batch.push(&[5, 6, 7], 0..3);
        batch.push(&[8, 9], 1..2);
        batch.push_masked(&[1, 2, 3], &[true, false, true]).unwrap();
        let pairs: Vec<_> = batch.targets().iter().map(|t| (t.row, t.token)).collect();
        assert_eq!(pairs, [(0, 6), (1, 7), (3, 9), (6, 3)]);
        assert_eq!(batch.target_range(0), 0..2);
        assert_eq!(batch.rows(2), 5..8);
    }

    #[test]
    fn a_slice_keeps_targets_with_their_sequences() {
        let mut batch = Batch::new();
        batch.push(&[5, 6, 7], 0..3);
        batch.push(&[8, 9], 0..2);
        let mut expected = Batch::new();
        expected.push(&[8, 9], 0..2);
        assert_eq!(batch.slice(1..2), expected);
        assert_eq!(batch.split(4), [0..1, 1..2]);
        assert_eq!(batch.split(5).len(), 1);
        assert_eq!(batch.split(1), [0..1, 1..2]);
    }

    #[test]
    fn hidden_rows_go_with_their_sequences() {
        let mut batch = Batch::new();
        batch.push(&[5, 6, 7], 0..3);
        batch.push(&[8, 9, 4], 0..2);
        assert!(batch.hidden().is_empty());
        // The first rows, 0 and 3, stay; row 9 does not exist.
        [0, 3, 4, 9].into_iter().for_each(|row| batch.hide(row));
        assert_eq!(batch.hidden(), [false, false, false, false, true, false]);
        assert_eq!(batch.slice(1..2).hidden(), [false, true, false]);
        assert!(batch.slice(0..1).hidden().is_empty());
        batch.push(&[1], 0..0);
        assert_eq!(batch.hidden().len(), 7);
    }

    #[test]
    fn unreadable_sequences_are_named() {
        let mut batch = Batch::new();
        batch.push(&[1], 0..1);
        batch.push(&[1, 9], 0..2);
        assert_eq!(
            batch.check(9, 8).unwrap_err().to_string(),
            "sequence 1: holds token 9; the model's vocabulary ends at 8"
        );
        batch.check(10, 8).unwrap();
        assert!(batch.check(10, 1).unwrap_err().to_string().contains("context holds 1"));
        batch.push(&[], 0..0);
        assert!(batch.check(10, 8).unwrap_err().to_string().contains("sequence 2: has no token"));
    }
}
