//! The small vocabulary of notes, and finding its words in any text.

/// What a note can be asked to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A day of the week.
    Day,
    /// Where.
    Place,
    /// What to bring.
    Thing,
    /// When.
    Time,
}

impl Slot {
    /// All slots, in the order in which a note says them.
    pub const ALL: [Slot; 4] = [Slot::Day, Slot::Time, Slot::Place, Slot::Thing];

    /// The slot's name in prompts and critiques.
    pub fn name(self) -> &'static str {
        match self {
            Slot::Day => "day",
            Slot::Place => "place",
            Slot::Thing => "thing",
            Slot::Time => "time",
        }
    }

    /// Every value of the slot.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Slot::Day => &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
            Slot::Place => &["park", "lake", "barn", "hill", "shop", "dock", "mill", "camp"],
            Slot::Thing => &["cake", "tea", "soup", "maps", "books", "kites", "bread", "rope"],
            Slot::Time => &["noon", "dawn", "dusk", "six", "nine", "ten"],
        }
    }

    /// The value with its little word in front: `on monday`.
    pub fn phrase(self, value: &str) -> String {
        match self {
            Slot::Day => format!("on {value}"),
            Slot::Place => format!("at the {value}"),
            Slot::Thing => format!("with {value}"),
            Slot::Time => format!("at {value}"),
        }
    }
}

/// People a note is written to.
pub const NAMES: &[&str] = &["ann", "bob", "dan", "eve", "finn", "gus", "hana", "ida", "leo", "mia"];
/// Words that greet.
pub const GREETINGS: &[&str] = &["hi", "hello", "dear"];
/// Words that make a note warm.
pub const WARM: &[&str] = &["thanks", "please", "glad", "cheers"];
/// Words that say goodbye.
pub const FAREWELLS: &[&str] = &["bye", "farewell"];
/// Rude words. They are made up, so that a model which says them learnt it here and nowhere else.
pub const RUDE: &[&str] = &["blorp", "snerk", "grub", "fozzle", "wugget", "dratz"];
/// Emoji that notes are written with. [`emoji_spans`] finds the pictures of Unicode too.
pub const EMOJI: &[&str] = &[":)", ":D", ";)", "<3"];
/// Words that say nothing.
pub const FILLER: &[&str] = &["well", "you", "know", "as", "i", "said", "before", "so", "it", "goes"];

/// One word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// First Unicode scalar value.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// The word in lower case, without what stands around it.
    pub text: String,
}

/// The words of a text: runs of letters, digits, `'` and `-`, counted in Unicode scalar values.
pub fn words(text: &str) -> Vec<Word> {
    let mut found: Vec<Word> = Vec::new();
    let emoji = emoji_spans(text);
    let mut open: Option<Word> = None;
    for (at, letter) in text.chars().enumerate() {
        let inside = emoji.iter().any(|(start, end)| (*start..*end).contains(&at));
        if !inside && (letter.is_alphanumeric() || matches!(letter, '\'' | '-')) {
            let word = open.get_or_insert_with(|| Word { start: at, end: at, text: String::new() });
            word.text.extend(letter.to_lowercase());
            word.end = at + 1;
        } else {
            found.extend(open.take());
        }
    }
    found.extend(open);
    found
}

/// Every emoji of a text: written ones, and characters of the picture blocks of Unicode.
pub fn emoji_spans(text: &str) -> Vec<(usize, usize)> {
    let letters: Vec<char> = text.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        let written = EMOJI.iter().find(|emoji| emoji.chars().eq(letters[at..].iter().copied().take(2)));
        let picture = matches!(u32::from(letters[at]), 0x1F300..=0x1FAFF | 0x2600..=0x27BF);
        let length = if written.is_some() { 2 } else { usize::from(picture) };
        if length > 0 {
            found.push((at, at + length));
        }
        at += length.max(1);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_emoji_count_scalar_values() {
        let text = "Héllo ann:) 🙂 it's <3 Bye";
        let found: Vec<_> = words(text).into_iter().map(|word| (word.start, word.end, word.text)).collect();
        let expected = [(0, 5, "héllo"), (6, 9, "ann"), (14, 18, "it's"), (22, 25, "bye")];
        assert_eq!(found, expected.map(|(start, end, text)| (start, end, text.to_string())));
        assert_eq!(emoji_spans(text), [(9, 11), (12, 13), (19, 21)]);
    }

    #[test]
    fn no_word_means_two_things() {
        let mut all: Vec<&str> = Slot::ALL.iter().flat_map(|slot| slot.values()).copied().collect();
        all.extend([NAMES, GREETINGS, WARM, FAREWELLS, RUDE, FILLER].concat());
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
