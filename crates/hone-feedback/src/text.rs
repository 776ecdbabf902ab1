//! Offsets, words and hashes of text.

use xxhash_rust::xxh3::xxh3_64;

/// The part of `text` from scalar value `start` up to `end`, or None where it ends earlier.
///
/// Files count Unicode scalar values, Rust counts bytes; this is the only place that converts them.
pub fn slice(text: &str, start: usize, end: usize) -> Option<&str> {
    if end < start {
        return None;
    }
    let from = byte_offset(text, start)?;
    let len = byte_offset(&text[from..], end - start)?;
    Some(&text[from..from + len])
}

/// The byte at which scalar value `index` of `text` starts; its length in bytes for the index one past the end.
pub fn byte_offset(text: &str, index: usize) -> Option<usize> {
    if text.is_ascii() {
        return (index <= text.len()).then_some(index);
    }
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

/// How many Unicode scalar values `text` has: the unit of every offset in a record.
pub fn length(text: &str) -> usize {
    text.chars().count()
}

/// The scalar-value offset of the first place where `part` occurs in `text`.
pub fn find(text: &str, part: &str) -> Option<usize> {
    text.find(part).map(|at| length(&text[..at]))
}

/// Words of `text`: runs without white space.
pub fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// A 64-bit XXH3 hash: the same on every machine and in every version, so splits stay as they are.
pub fn hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// The hash of `text` without regard to case and white space, so that trivial variants count as the same.
pub fn folded_hash(text: &str) -> u64 {
    let mut folded = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !folded.is_empty() {
            folded.push(' ');
        }
        if word.is_ascii() {
            let start = folded.len();
            folded.push_str(word);
            folded[start..].make_ascii_lowercase();
        } else {
            folded.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
    hash(folded.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_scalar_values() {
        // "é" is two bytes, "🦀" four, and each is one scalar value.
        let text = "é🦀ab";
        assert_eq!(length(text), 4);
        assert_eq!(slice(text, 1, 3), Some("🦀a"));
        assert_eq!(slice(text, 0, 4), Some(text));
        assert_eq!(slice(text, 4, 4), Some(""));
        assert_eq!(slice(text, 2, 5), None);
        assert_eq!(slice(text, 3, 2), None);
        assert_eq!(slice("abc", 1, 4), None);
        assert_eq!(find(text, "ab"), Some(2));
    }

    #[test]
    fn folding_ignores_case_and_blanks() {
        assert_eq!(folded_hash("How  ARE\nyou"), folded_hash("how are you"));
        assert_ne!(folded_hash("how are you"), folded_hash("howare you"));
        assert_eq!(folded_hash("ÄRGER"), folded_hash("ärger"));
    }
}
