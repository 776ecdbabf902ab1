//! The split into training and held-out data, by prompt.

use crate::record::{Prompt, Record};
use crate::text::{self, Folded, Folder};

/// Which side of the split a record is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// To train on.
    Train,
    /// To measure on.
    HeldOut,
}

/// The key of a prompt: a hash of its roles and texts without regard to case and white space.
///
/// Stable across machines, runs and versions, and independent of the record's id and place in the file.
pub fn prompt_key(prompt: &Prompt) -> u64 {
    survey(prompt, &mut Folder::default()).hash
}

/// [`prompt_key`] as the hash, with words and characters of [`Prompt::text`].
pub(crate) fn survey(prompt: &Prompt, folder: &mut Folder) -> Folded {
    match prompt {
        // A raw text and the one user message of the same text ask the same thing.
        Prompt::Text(text) => folder.fold(text),
        Prompt::Messages(messages) => match messages.as_slice() {
            [only] => folder.fold(&only.text()),
            _ => {
                let mut keys = Vec::with_capacity(16 * messages.len());
                // A line end lies between two messages.
                let mut all = Folded { hash: 0, words: 0, length: messages.len().saturating_sub(1) };
                for message in messages {
                    let one = folder.fold(&message.text());
                    keys.extend(text::hash(message.role.as_bytes()).to_le_bytes());
                    keys.extend(one.hash.to_le_bytes());
                    all.words += one.words;
                    all.length += one.length;
                }
                all.hash = text::hash(&keys);
                all
            }
        },
    }
}

/// The side of `record` when a share of `held_out` of all prompts is to be held out.
///
/// All records of one prompt fall on one side, and growing `held_out` or the log moves no prompt from the
/// held-out side to the training side. `seed` draws another split.
pub fn side(record: &Record, held_out: f64, seed: u64) -> Side {
    side_of_key(key_of(record), held_out, seed)
}

/// [`side`] of a known key.
pub fn side_of_key(key: u64, held_out: f64, seed: u64) -> Side {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..].copy_from_slice(&seed.to_le_bytes());
    // 53 bits are all that an f64 can tell apart.
    let draw = (text::hash(&bytes) >> 11) as f64 / (1u64 << 53) as f64;
    if draw < held_out { Side::HeldOut } else { Side::Train }
}

/// The key that decides the side: the prompt's, or the first response's where there is no prompt.
pub fn key_of(record: &Record) -> u64 {
    match record.responses.first() {
        Some(response) if record.prompt.is_empty() => text::folded_hash(&response.content.text()),
        _ => prompt_key(&record.prompt),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prompt_one_side() {
        let mut held_out = 0;
        for n in 0..4000 {
            let record = Record::new(format!("a{n}"), format!("What is {n} plus one?"));
            let again = Record::new(format!("b{n}"), format!("what is  {n} plus\none?")).respond("x", "y");
            let raw = Record::new("c", Prompt::Text(format!("What is {n} plus one?")));
            let first = side(&record, 0.1, 7);
            assert_eq!(first, side(&again, 0.1, 7));
            assert_eq!(first, side(&raw, 0.1, 7));
            if first == Side::HeldOut {
                held_out += 1;
                assert_eq!(side(&record, 0.3, 7), Side::HeldOut, "a larger share keeps what was held out");
            }
        }
        // Binomial(4000, 0.1): mean 400, standard deviation 19; five of them on either side.
        assert!((305..=495).contains(&held_out), "{held_out}");
    }

    #[test]
    fn the_key_is_stable() {
        // Fixed on purpose: a changed key would move prompts between the sides of existing runs.
        assert_eq!(prompt_key(&Prompt::from("Hello  World")), text::hash(b"hello world"));
        assert_eq!(text::hash(b"hello world"), 0xd447_b1ea_40e6_988b);
    }
}
