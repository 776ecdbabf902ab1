//! Exact match, token F1, chrF.

use super::grams::{Grams, Packed, Words, common};

/// The text as the SQuAD evaluation compares it: lower case, no ASCII punctuation, no articles, single blanks.
pub fn normalised(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut start = 0;
    let end_word = |kept: &mut String, start: &mut usize| {
        match kept.get(*start..) {
            Some("a" | "an" | "the") => kept.truncate(*start),
            Some("") | None => {}
            Some(_) => kept.push(' '),
        }
        *start = kept.len();
    };
    for c in lower(text).chars() {
        if c.is_whitespace() {
            end_word(&mut kept, &mut start);
        } else if !c.is_ascii_punctuation() {
            kept.push(c);
        }
    }
    end_word(&mut kept, &mut start);
    kept.truncate(kept.trim_end().len());
    kept
}

/// The text in lower case.
pub(super) fn lower(text: &str) -> String {
    // Most texts are plain, and their lower case takes no tables.
    if text.is_ascii() { text.to_ascii_lowercase() } else { text.to_lowercase() }
}

/// Whether the two are the same after [`normalised`].
pub fn exact_match(candidate: &str, reference: &str) -> bool {
    normalised(candidate) == normalised(reference)
}

/// The F1 of the words that both have, after [`normalised`], in `[0, 1]`. Two empty texts are the same.
pub fn token_f1(candidate: &str, reference: &str) -> f64 {
    let (candidate, reference) = (normalised(candidate), normalised(reference));
    let mut words = Words::default();
    let [a, b] = [&candidate, &reference].map(|text| words.number(text.split_ascii_whitespace()));
    if a.is_empty() || b.is_empty() {
        return f64::from(u8::from(a.is_empty() && b.is_empty()));
    }
    f1(common(&a, &b, 1), a.len(), b.len())
}

/// The harmonic mean of `common / a` and `common / b`.
pub(super) fn f1(common: usize, a: usize, b: usize) -> f64 {
    if common == 0 {
        return 0.0;
    }
    let (precision, recall) = (common as f64 / a as f64, common as f64 / b as f64);
    2.0 * precision * recall / (precision + recall)
}

/// Character n-gram F-score over a corpus, in `[0, 100]`: sacrebleu's chrF2 at its defaults (n to 6, β = 2, white
/// space left out, effective order).
///
/// `pairs` holds candidates with their references, at least one each; of several the best one counts.
/// Source: Popović 2015.
pub fn chrf(pairs: &[(&str, &[&str])]) -> f64 {
    let mut total = Stats::default();
    for (candidate, references) in pairs {
        let plain = candidate.is_ascii() && references.iter().all(|reference| reference.is_ascii());
        let best = if plain {
            best_stats::<u64>(candidate, references)
        } else {
            best_stats::<u128>(candidate, references)
        };
        for (total, stats) in total.iter_mut().flatten().zip(best.iter().flatten()) {
            *total += stats;
        }
    }
    f_score(&total)
}

/// For each order the n-grams of the candidate, of the reference, and of both.
type Stats = [[usize; 3]; 6];

/// The counts against the reference that scores best, the first of several.
fn best_stats<P: Packed>(candidate: &str, references: &[&str]) -> Stats {
    let candidate = char_grams::<P>(candidate);
    let mut best: Option<(f64, Stats)> = None;
    for reference in references {
        let reference = [char_grams::<P>(reference)];
        let shared = candidate.shared(&reference);
        let stats = std::array::from_fn(|index| {
            let [a, b] = [&candidate, &reference[0]].map(|grams| grams.count(index + 1));
            // An order that the reference is too short for says nothing about the candidate.
            [if b > 0 { a } else { 0 }, b, shared[index]]
        });
        let score = f_score(&stats);
        if best.is_none_or(|(high, _)| score > high) {
            best = Some((score, stats));
        }
    }
    best.map(|(_, stats)| stats).unwrap_or_default()
}

fn char_grams<P: Packed>(text: &str) -> Grams<P, 6> {
    let chars = text.chars().filter(|c| !c.is_whitespace());
    Grams::new(&chars.map(|c| u32::from(c) + 1).collect::<Vec<_>>())
}

fn f_score(stats: &Stats) -> f64 {
    const BETA: f64 = 2.0;
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for [candidate, reference, both] in stats {
        if *candidate > 0 && *reference > 0 {
            precision += *both as f64 / *candidate as f64;
            recall += *both as f64 / *reference as f64;
            orders += 1.0;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    100.0 * (1.0 + BETA * BETA) * precision * recall / (BETA * BETA * precision + recall)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squad_style() {
        assert!(exact_match("The  Cat!", "cat"));
        assert!(!exact_match("cats", "cat"));
        assert_eq!(normalised(" An  A.B,\tthe a ÉTÉ than--a the"), "ab été thana");
        assert_eq!((normalised("the"), normalised(" . ")), (String::new(), String::new()));
        // Common: cat, sat. Precision 2/3, recall 2/2: F1 = 0.8.
        assert!((token_f1("the cat sat down", "a cat sat.") - 0.8).abs() < 1e-12);
        assert_eq!(token_f1("", ""), 1.0);
        assert_eq!(token_f1("x", ""), 0.0);
    }
}
