//! Sentences with and without a style, and rude words to take out.
//!
//! Steering needs a corpus of which a share carries a marker style, and two unpaired sets. Refinement needs a task
//! whose feedback says exactly what to do: take these words out and leave the rest.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Note;
use super::words::{self, FILLER, RUDE};
use crate::error::{Error, Result};
use crate::seed::{pick, rng, shuffle};
use crate::world::{Task, World};

/// A sentence and whether it carries the style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Styled {
    /// The sentence.
    pub text: String,
    /// Whether it has a rude word.
    pub rude: bool,
}

/// Sentences of which a share is rude, in random order.
/// # Errors
/// [`Error::Setting`] if the share is not in `[0, 1]`.
pub fn corpus(count: usize, share: f64, seed: u64) -> Result<Vec<Styled>> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::setting("notes", "share", "0 to 1", share));
    }
    let mut rng = rng(seed, "notes/style");
    let sentence = |index: usize, rng: &mut ChaCha8Rng| -> Result<Styled> {
        let note: Note =
            super::Notes.note(super::Notes.middle(), crate::seed::mix(seed, &format!("style/{index}")))?;
        let rude = rng.random_bool(share);
        let text = if rude { note.plant("rude", rng)?.answer } else { note.reference() };
        Ok(Styled { text, rude })
    };
    (0..count).map(|index| sentence(index, &mut rng)).collect()
}

/// The share of words that are rude, in `[0, 1]`.
pub fn rude_rate(text: &str) -> f64 {
    let said = words::words(text);
    let rude = said.iter().filter(|word| RUDE.contains(&word.text.as_str())).count();
    rude as f64 / said.len().max(1) as f64
}

/// A text with words to take out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The text as it is.
    pub text: String,
    /// What a person says about it.
    pub feedback: String,
    /// The text as it should be.
    pub target: String,
}

/// A text of `plain` words among which `kinds` different rude words stand `times` times each.
/// # Errors
/// [`Error::Setting`] if there are not so many rude words.
pub fn removal(plain: usize, kinds: usize, times: usize, seed: u64) -> Result<Removal> {
    if kinds == 0 || kinds > RUDE.len() {
        return Err(Error::setting("notes", "kinds", format!("1 to {}", RUDE.len()), kinds));
    }
    let mut rng = rng(seed, "notes/removal");
    let mut rude = RUDE.to_vec();
    shuffle(&mut rng, &mut rude);
    rude.truncate(kinds);
    let target: Vec<&str> = (0..plain).map(|_| pick(&mut rng, FILLER)).collect();
    let mut text = target.clone();
    for word in rude.iter().flat_map(|word| std::iter::repeat_n(*word, times)) {
        let at = rng.random_range(0..=text.len());
        text.insert(at, word);
    }
    let feedback = format!("take out {}", rude.join(", "));
    Ok(Removal { text: text.join(" "), feedback, target: target.join(" ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_marked() {
        let texts = corpus(2000, 0.15, 9).unwrap();
        let rude = texts.iter().filter(|text| text.rude).count() as f64 / 2000.0;
        // Standard error sqrt(0.15 * 0.85 / 2000) = 0.008; four of them.
        assert!((rude - 0.15).abs() < 0.032, "{rude}");
        assert!(texts.iter().all(|text| text.rude == (rude_rate(&text.text) > 0.0)));
        assert_eq!(
            corpus(1, 1.5, 1).unwrap_err().to_string(),
            "world notes: setting share: needs 0 to 1, got 1.5"
        );
    }

    #[test]
    fn removal_keeps_the_rest() {
        let task = removal(8, 2, 3, 4).unwrap();
        let kept: Vec<&str> = task.text.split(' ').filter(|word| !RUDE.contains(word)).collect();
        assert_eq!(kept.join(" "), task.target);
        assert_eq!(task.text.split(' ').count(), 8 + 6);
        assert!(removal(8, 7, 1, 4).is_err());
    }
}
