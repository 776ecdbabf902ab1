//! BLEU as sacrebleu computes it: 13a tokens, exponential smoothing, 4-grams, brevity penalty.

use std::borrow::Cow;

use super::grams::{Grams, Packed, Words};

/// The 13a tokens of a text: those of the WMT evaluation script `mteval-v13a`.
pub fn tokens_13a(text: &str) -> Vec<String> {
    spaced_13a(text).split_whitespace().map(str::to_owned).collect()
}

/// The text with white space between its 13a tokens.
fn spaced_13a(text: &str) -> String {
    let mut line = Cow::Borrowed(text);
    for (from, to) in [
        ("<skipped>", ""),
        ("-\n", ""),
        ("\n", " "),
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ] {
        if line.contains(from) {
            line = Cow::Owned(line.replace(from, to));
        }
    }
    // The script's rules in its order, each over the whole line: symbols stand alone; a full stop or comma stands
    // alone unless between digits; a dash after a digit stands alone.
    let symbol = |c: char| matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/');
    let mut spaced = Vec::with_capacity(line.len() * 2 + 2);
    spaced.push(' ');
    for c in line.chars() {
        if symbol(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    spaced.push(' ');
    let digit = |c: char| c.is_ascii_digit();
    let spaced = rule(&spaced, |a, b| matches!(b, '.' | ',') && !digit(a), |a, b| [a, ' ', b, ' ']);
    let spaced = rule(&spaced, |a, b| matches!(a, '.' | ',') && !digit(b), |a, b| [' ', a, ' ', b]);
    let spaced = rule(&spaced, |a, b| b == '-' && digit(a), |a, b| [a, ' ', b, ' ']);
    spaced.into_iter().collect()
}

/// Rewrites every two characters that match, left to right, without overlaps: what a regular expression does.
fn rule(
    chars: &[char],
    matches: impl Fn(char, char) -> bool,
    rewrite: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() + 32);
    let mut at = 0;
    while let Some(&first) = chars.get(at) {
        match chars.get(at + 1) {
            Some(&second) if matches(first, second) => {
                out.extend(rewrite(first, second));
                at += 2;
            }
            _ => {
                out.push(first);
                at += 1;
            }
        }
    }
    out
}

/// Corpus BLEU in `[0, 100]` of candidates with their references.
///
/// Source: Papineni et al. 2002; smoothing and tokens as sacrebleu's defaults (Post 2018).
pub fn bleu(pairs: &[(&str, &[&str])]) -> f64 {
    score(pairs, false)
}

/// BLEU of one sentence in `[0, 100]`: orders that the sentence is too short for are left out, as sacrebleu's
/// `sentence_bleu` does.
pub fn sentence_bleu(candidate: &str, references: &[&str]) -> f64 {
    score(&[(candidate, references)], true)
}

fn score(pairs: &[(&str, &[&str])], effective_order: bool) -> f64 {
    let (mut correct, mut total) = ([0usize; 4], [0usize; 4]);
    let (mut length, mut reference_length) = (0usize, 0usize);
    for (candidate, references) in pairs {
        let candidate = spaced_13a(candidate);
        let references: Vec<String> = references.iter().map(|reference| spaced_13a(reference)).collect();
        let mut words = Words::default();
        let candidate = words.number(candidate.split_whitespace());
        let references: Vec<Vec<u32>> =
            references.iter().map(|reference| words.number(reference.split_whitespace())).collect();
        length += candidate.len();
        // The closest length counts; of two as close the shorter.
        let closest = references.iter().map(Vec::len).min_by_key(|len| (len.abs_diff(candidate.len()), *len));
        reference_length += closest.unwrap_or_default();
        let shared = match Grams::<u64, 4>::hold(words.largest()) {
            true => shared::<u64>(&candidate, &references),
            false => shared::<u128>(&candidate, &references),
        };
        for index in 0..4 {
            correct[index] += shared[index];
            total[index] += candidate.len().saturating_sub(index);
        }
    }
    if correct.iter().all(|count| *count == 0) {
        return 0.0;
    }
    let (mut logs, mut orders, mut smooth) = (0.0, 0, 1.0);
    for order in 0..4 {
        if total[order] == 0 {
            break;
        }
        orders = order + 1;
        let precision = if correct[order] == 0 {
            smooth *= 2.0;
            100.0 / (smooth * total[order] as f64)
        } else {
            100.0 * correct[order] as f64 / total[order] as f64
        };
        logs += precision.ln();
    }
    if !effective_order && orders < 4 {
        // A precision that does not exist counts as 0, and so does the geometric mean.
        return 0.0;
    }
    let brevity = match length < reference_length {
        true if length > 0 => (1.0 - reference_length as f64 / length as f64).exp(),
        true => 0.0,
        false => 1.0,
    };
    brevity * (logs / orders as f64).exp()
}

fn shared<P: Packed>(candidate: &[u32], references: &[Vec<u32>]) -> [usize; 4] {
    let references: Vec<Grams<P, 4>> = references.iter().map(|reference| Grams::new(reference)).collect();
    Grams::<P, 4>::new(candidate).shared(&references)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let tokens = |text| tokens_13a(text).join("|");
        assert_eq!(
            tokens("Hello, world! It costs 1,000.50 (net)."),
            "Hello|,|world|!|It|costs|1,000.50|(|net|)|."
        );
        assert_eq!(tokens("a 2-way &amp; it's"), "a|2|-|way|&|it's");
    }

    #[test]
    fn by_hand() {
        // 6 of 6 unigrams, 5/5, 4/4, 3/3, same length.
        assert!((bleu(&[("a b c d e f", &["a b c d e f"])]) - 100.0).abs() < 1e-9);
        // Unigrams 4/5, bigrams 3/4, trigrams 2/3, 4-grams 1/2: (0.8·0.75·0.6667·0.5)^(1/4) = 0.2^(1/4).
        let value = bleu(&[("a b c d x", &["a b c d e"])]);
        assert!((value - 100.0 * 0.2f64.powf(0.25)).abs() < 1e-9, "{value}");
        assert_eq!(bleu(&[("x", &["y"])]), 0.0);
    }
}
