//! Text to words, and words to numbers.

use std::collections::HashMap;

/// Words that have a number. A term is a word or a pair of neighbours, as one key.
#[derive(Debug, Default)]
pub(super) struct Words {
    numbers: HashMap<Box<str>, u32>,
    names: Vec<Box<str>>,
}

/// Words that get a number; later ones count as [`OTHER`]. Some 100 MB, and more than any language has.
const MOST_WORDS: usize = 1_000_000;
/// Words of one text that are counted: what comes after is no comment any more.
const MOST_OF_A_TEXT: usize = 2000;
/// The number of every word that came too late.
const OTHER: u32 = u32::MAX - 1;
/// In place of the second word: the term is a single word.
const ALONE: u32 = u32::MAX;

impl Words {
    /// The terms of `text`: its words, and its pairs of neighbours within a sentence, in order.
    pub fn terms(&mut self, text: &str) -> Vec<u64> {
        let mut out = Vec::new();
        let mut before = None;
        let mut counted = 0;
        for_each_word(text, |word| {
            let Some(word) = word else {
                before = None;
                return true;
            };
            let number = self.number(word);
            // Words without a number have no name to show.
            if number != OTHER {
                out.push(key(number, ALONE));
                if let Some(before) = before {
                    out.push(key(before, number));
                }
            }
            before = (number != OTHER).then_some(number);
            counted += 1;
            counted < MOST_OF_A_TEXT
        });
        out
    }

    /// 0 for a word, 1 for a pair.
    pub fn order(key: u64) -> usize {
        usize::from(key as u32 != ALONE)
    }

    /// Whether `pair` is a pair of neighbours and `word` one of them.
    pub fn holds(pair: u64, word: u64) -> bool {
        let number = (word >> 32) as u32;
        Self::order(pair) == 1
            && Self::order(word) == 0
            && ((pair >> 32) as u32 == number || pair as u32 == number)
    }

    /// The term in words.
    pub fn name(&self, key: u64) -> String {
        let word = |number: u32| self.names.get(number as usize).map_or("", |name| name);
        match key as u32 {
            ALONE => word((key >> 32) as u32).to_owned(),
            second => format!("{} {}", word((key >> 32) as u32), word(second)),
        }
    }

    fn number(&mut self, word: &str) -> u32 {
        if let Some(number) = self.numbers.get(word) {
            return *number;
        }
        if self.names.len() == MOST_WORDS {
            return OTHER;
        }
        let number = self.names.len() as u32;
        self.names.push(word.into());
        self.numbers.insert(word.into(), number);
        number
    }
}

/// The words of `text` with one blank between them.
pub(super) fn folded(text: &str) -> String {
    let mut out = String::new();
    for_each_word(text, |word| {
        if let Some(word) = word {
            if !out.is_empty() {
                out.push(' ');
            }
            out += word;
        }
        true
    });
    out
}

fn key(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

/// Calls `take` with each word in lower case, and with None where a sentence ends, until it returns false.
///
/// A word is a run of letters and digits with apostrophes inside. Signs of scripts without blanks between words and
/// emoji stand alone.
fn for_each_word(text: &str, mut take: impl FnMut(Option<&str>) -> bool) {
    let mut word = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let inside = match c {
            '\'' | '’' => !word.is_empty() && chars.peek().is_some_and(|next| next.is_alphabetic()),
            _ => c.is_alphanumeric() && !stands_alone(c),
        };
        if inside {
            match c {
                '’' => word.push('\''),
                _ => word.extend(c.to_lowercase()),
            }
            continue;
        }
        if !word.is_empty() && !take(Some(&word)) {
            return;
        }
        word.clear();
        let go_on = match c {
            _ if stands_alone(c) => take(Some(c.encode_utf8(&mut [0; 4]))),
            '.' | ',' | ';' | ':' | '!' | '?' | '\n' | '(' | ')' | '"' | '。' | '、' | '，' => take(None),
            _ => true,
        };
        if !go_on {
            return;
        }
    }
    if !word.is_empty() {
        take(Some(&word));
    }
}

/// Kana, Han and emoji.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{2600}'..='\u{27bf}'
        | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_pairs_within_a_sentence() {
        let mut words = Words::default();
        let terms = words.terms("Don’t go. GO now!");
        let names: Vec<String> = terms.iter().map(|key| words.name(*key)).collect();
        assert_eq!(names, ["don't", "go", "don't go", "go", "now", "go now"]);
        assert!(Words::holds(terms[2], terms[0]) && Words::holds(terms[2], terms[1]));
        assert!(!Words::holds(terms[2], terms[4]) && !Words::holds(terms[0], terms[0]));
        assert_eq!(terms.iter().map(|key| Words::order(*key)).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn scripts_without_blanks_and_emoji() {
        assert_eq!(folded("好app👍👍 Straße"), "好 app 👍 👍 straße");
        assert_eq!(folded("'quoted' it's"), "quoted it's");
        assert_eq!(folded("… --- "), "");
    }

    #[test]
    fn a_gigantic_text_is_cut() {
        let terms = Words::default().terms(&"a ".repeat(100_000));
        // Each word once, each but the first as a pair too.
        assert_eq!(terms.len(), 2 * MOST_OF_A_TEXT - 1);
    }
}
