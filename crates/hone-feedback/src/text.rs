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
    Folder::default().fold(text).hash
}

/// What one pass over a text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Folded {
    /// See [`folded_hash`].
    pub hash: u64,
    /// See [`words`].
    pub words: usize,
    /// See [`length`].
    pub length: usize,
}

/// Folds texts, one after the other, into the same memory.
#[derive(Default)]
pub(crate) struct Folder(Vec<u8>);

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

impl Folder {
    /// Lower case, one space between words, none around them; and counts what it passes.
    pub fn fold(&mut self, text: &str) -> Folded {
        let out = &mut self.0;
        out.clear();
        out.reserve(text.len() + 8);
        let bytes = text.as_bytes();
        let (mut at, mut words, mut length) = (0, 0, 0);
        // Nothing but white space since the last word.
        let mut blank = true;
        while at < bytes.len() {
            // A check of a log spends most of its time here, so eight bytes are done at once where they are
            // ASCII without white space other than single spaces.
            if let Some(chunk) = bytes[at..].first_chunk::<8>()
                && let Some((plain, spaces)) = plain(u64::from_le_bytes(*chunk), blank)
            {
                let starts = !spaces & eight(0x80) & (spaces << 8 | u64::from(blank) << 7);
                words += starts.count_ones() as usize;
                blank = spaces >> 63 == 1;
                out.extend_from_slice(&plain.to_le_bytes());
                at += 8;
                length += 8;
                continue;
            }
            let stop = at + 8;
            while at < bytes.len().min(stop) {
                length += 1;
                let byte = bytes[at];
                let one = match byte.is_ascii() {
                    true => char::from(byte),
                    // A whole text: `at` is always the start of a character.
                    false => text[at..].chars().next().unwrap_or_default(),
                };
                at += one.len_utf8();
                if one.is_whitespace() {
                    if !blank {
                        out.push(b' ');
                    }
                    blank = true;
                    continue;
                }
                words += usize::from(blank);
                blank = false;
                if one.is_ascii() {
                    out.push(byte.to_ascii_lowercase());
                } else {
                    let mut buffer = [0; 4];
                    one.to_lowercase()
                        .for_each(|low| out.extend_from_slice(low.encode_utf8(&mut buffer).as_bytes()));
                }
            }
        }
        if blank {
            out.pop();
        }
        Folded { hash: hash(out), words, length }
    }
}

/// Eight ASCII bytes in lower case, and the high bit of each that is a space. None where one is not ASCII, is
/// another control character, or is a space after a space; `blank` says what came before.
fn plain(bytes: u64, blank: bool) -> Option<(u64, u64)> {
    const HIGH: u64 = eight(0x80);
    if bytes & HIGH != 0 {
        return None;
    }
    // Below 0x80 a sum with less than 0x80 stays within its byte, and sets the high bit from a bound on.
    let below = |bound: u8| !(bytes + eight(0x80 - bound)) & HIGH;
    let spaces = !((bytes ^ eight(b' ')) + eight(0x7f)) & HIGH;
    let doubled = spaces & (spaces << 8 | u64::from(blank) << 7);
    if below(b'!') != spaces || doubled != 0 {
        return None;
    }
    let upper = !below(b'A') & below(b'Z' + 1);
    Some((bytes | (upper & HIGH) >> 2, spaces))
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

    /// The definition, word by word.
    fn fold_plainly(text: &str) -> Folded {
        let folded: Vec<String> =
            text.split_whitespace().map(|word| word.chars().flat_map(char::to_lowercase).collect()).collect();
        Folded { hash: hash(folded.join(" ").as_bytes()), words: words(text), length: length(text) }
    }

    proptest::proptest! {
        #[test]
        fn one_pass_folds_as_the_definition_does(text in "[ -~]{0,40}|[A-Z a-z\t\n]{0,40}|[ A-Zé\u{130}\u{85}\u{a0}\u{1c}ß🦀\n]{0,24}|\\PC{0,24}") {
            // The memory of an earlier text must not show.
            let mut folder = Folder::default();
            folder.fold("Something  longer than all that comes after it, with UPPER case");
            assert_eq!(folder.fold(&text), fold_plainly(&text), "{text:?}");
        }
    }
}
