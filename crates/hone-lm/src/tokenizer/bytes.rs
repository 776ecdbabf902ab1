//! The bytes that tokens stand for.

use tokenizers::decoders::DecoderWrapper;

use super::Tokenizer;
use crate::error::{Error, Result};

/// Bytes of every token, by id. Empty for ids that stand for no text: special tokens and gaps.
#[derive(Debug, Clone)]
pub struct TokenBytes {
    /// `[V]`, one entry per id.
    pub bytes: Vec<Vec<u8>>,
}

/// How a vocabulary spells bytes.
enum Spelling {
    /// Each character stands for one byte, by GPT-2's table.
    ByteLevel,
    /// `▁` stands for a space, `<0xAB>` for a byte.
    Fallback,
}

impl TokenBytes {
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self> {
        let inner = tokenizer.inner();
        let spelling = inner.get_decoder().and_then(spelling).ok_or_else(|| {
            Error::Constraint(
                "needs a byte-level, byte-fallback or metaspace tokenizer, got another decoder".into(),
            )
        })?;
        let table = char_bytes();
        let added = inner.get_added_tokens_decoder();
        let mut bytes = vec![Vec::new(); tokenizer.size()];
        for (token, id) in inner.get_vocab(true) {
            let slot = &mut bytes[id as usize];
            if let Some(added) = added.get(&id) {
                // Added tokens are spelled plainly.
                if !added.special {
                    *slot = added.content.clone().into_bytes();
                }
                continue;
            }
            *slot = match spelling {
                Spelling::ByteLevel => {
                    let spelled: Option<Vec<u8>> =
                        token.chars().map(|c| table.get(c as usize).copied()?).collect();
                    spelled.unwrap_or_default()
                }
                Spelling::Fallback => match byte_token(&token) {
                    Some(byte) => vec![byte],
                    None => token.replace('▁', " ").into_bytes(),
                },
            };
        }
        Ok(TokenBytes { bytes })
    }
}

fn spelling(decoder: &DecoderWrapper) -> Option<Spelling> {
    match decoder {
        DecoderWrapper::ByteLevel(_) => Some(Spelling::ByteLevel),
        DecoderWrapper::ByteFallback(_) | DecoderWrapper::Metaspace(_) => Some(Spelling::Fallback),
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().find_map(spelling),
        _ => None,
    }
}

/// `<0xAB>` as a byte.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// GPT-2's table read backwards: the byte that each character stands for. Printable bytes stand for themselves, the
/// others take the characters from U+0100 on, in order.
fn char_bytes() -> Vec<Option<u8>> {
    let mut table = vec![None; 0x144];
    let mut next = 0x100;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let at = if printable {
            usize::from(byte)
        } else {
            next += 1;
            next - 1
        };
        table[at] = Some(byte);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_every_byte_once() {
        let mut seen: Vec<u8> = char_bytes().into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
        // Space is the 33rd unprintable byte: U+0100 + 32 = Ġ.
        assert_eq!(char_bytes()['Ġ' as usize], Some(b' '));
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0x0>"), None);
        assert_eq!(byte_token("<s>"), None);
    }
}
