//! ROUGE-1, ROUGE-2 and ROUGE-L as the `rouge_score` package computes them, without stemming.

use super::grams::{Words, common};
use super::text::{f1, lower};

/// Precision, recall and F1, each in `[0, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rouge {
    /// Share of the candidate that is in the reference.
    pub precision: f64,
    /// Share of the reference that is in the candidate.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

impl Rouge {
    fn of(common: usize, candidate: usize, reference: usize) -> Self {
        if candidate == 0 || reference == 0 {
            return Rouge { precision: 0.0, recall: 0.0, f1: 0.0 };
        }
        let share = |of: usize| common as f64 / of as f64;
        Rouge { precision: share(candidate), recall: share(reference), f1: f1(common, candidate, reference) }
    }
}

/// Lower-case runs of ASCII letters and digits; everything else separates.
pub fn tokens(text: &str) -> Vec<String> {
    words(&lower(text)).map(str::to_owned).collect()
}

fn words(lower: &str) -> impl Iterator<Item = &str> {
    let words = lower.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
    words.filter(|word| !word.is_empty())
}

/// Numbers for the tokens of both texts.
fn numbered(candidate: &str, reference: &str) -> [Vec<u32>; 2] {
    let [candidate, reference] = [candidate, reference].map(lower);
    let mut known = Words::default();
    [&candidate, &reference].map(|text| known.number(words(text)))
}

/// ROUGE-N: shared n-grams.
pub fn rouge_n(candidate: &str, reference: &str, n: usize) -> Rouge {
    let [candidate, reference] = numbered(candidate, reference);
    let n = n.max(1);
    let count = |tokens: &[u32]| (tokens.len() + 1).saturating_sub(n);
    Rouge::of(common(&candidate, &reference, n), count(&candidate), count(&reference))
}

/// ROUGE-L: the longest common subsequence of the whole texts.
pub fn rouge_l(candidate: &str, reference: &str) -> Rouge {
    let [candidate, reference] = numbered(candidate, reference);
    Rouge::of(common_subsequence(&candidate, &reference), candidate.len(), reference.len())
}

/// The length of the longest common subsequence. Holds two rows of the table.
pub fn common_subsequence<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (at, y) in b.iter().enumerate() {
            let above = row[at + 1];
            row[at + 1] = if x == y { diagonal + 1 } else { above.max(row[at]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Candidate: the cat sat; reference: the cat ate the rat. Shared words: the, cat. 2/3, 2/5, F1 = 0.5.
        let rouge = rouge_n("The cat sat.", "the cat ate the rat", 1);
        assert!((rouge.precision - 2.0 / 3.0).abs() < 1e-12 && (rouge.recall - 0.4).abs() < 1e-12);
        assert!((rouge.f1 - 0.5).abs() < 1e-12);
        // Bigrams: "the cat" of 2 and of 4.
        assert!((rouge_n("The cat sat.", "the cat ate the rat", 2).recall - 0.25).abs() < 1e-12);
        assert_eq!(common_subsequence(&["a", "b", "c", "d"], &["b", "d", "a"]), 2);
        assert_eq!(rouge_l("", "x").f1, 0.0);
    }
}
