//! A note in parts, before it is text: what is said, in which order, and where each part comes to stand.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::Card;
use super::words::{EMOJI, FAREWELLS, FILLER, RUDE, Slot, WARM};
use crate::seed::pick;
use crate::world::Place;

/// What a part of a note is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Greeting,
    Verb,
    Fact(Slot),
    Rude,
    Filler,
    Warm,
    Farewell,
    Emoji,
}

/// Parts in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) parts: Vec<(Part, String)>,
}

impl Draft {
    /// A draft that does what the card asks, in one of several wordings.
    pub(super) fn right(card: &Card, rng: &mut ChaCha8Rng) -> Self {
        let mut draft = Draft { parts: Vec::new() };
        if card.greeting == Some(true) {
            draft.add(Part::Greeting, format!("hi {}", card.name));
        }
        draft.add(Part::Verb, pick(rng, &["meet", "come", "join us"]).to_string());
        for (slot, value) in &card.facts {
            draft.add(Part::Fact(*slot), slot.phrase(value));
        }
        if card.warm == Some(true) {
            draft.add(Part::Warm, pick(rng, WARM).to_string());
        }
        if card.emoji == Some(true) {
            draft.add(Part::Emoji, pick(rng, EMOJI).to_string());
        }
        draft
    }

    fn add(&mut self, part: Part, text: String) {
        self.parts.push((part, text));
    }

    fn remove(&mut self, part: Part) {
        self.parts.retain(|(other, _)| *other != part);
    }

    fn has(&self, part: Part) -> bool {
        self.parts.iter().any(|(other, _)| *other == part)
    }

    /// Puts a part where it belongs: greetings first, emoji last, goodbyes and thanks before them.
    fn insert(&mut self, part: Part, text: String, rng: &mut ChaCha8Rng) {
        let after_verb = self.parts.iter().position(|(part, _)| *part == Part::Verb).map_or(0, |at| at + 1);
        let before_emoji =
            self.parts.iter().position(|(part, _)| *part == Part::Emoji).unwrap_or(self.parts.len());
        let at = match part {
            Part::Greeting => 0,
            Part::Emoji => self.parts.len(),
            Part::Rude => rng.random_range(after_verb..=before_emoji.max(after_verb)),
            _ => before_emoji,
        };
        self.parts.insert(at, (part, text));
    }

    /// The text.
    pub(super) fn text(&self) -> String {
        self.spans().0
    }

    /// The text, and the span of each part in Unicode scalar values.
    fn spans(&self) -> (String, Vec<(usize, usize)>) {
        let (mut text, mut spans) = (String::new(), Vec::new());
        let mut length = 0;
        for (index, (part, words)) in self.parts.iter().enumerate() {
            // A comma keeps the greeting apart; nothing else needs punctuation.
            let after_greeting = index > 0 && self.parts[index - 1].0 == Part::Greeting;
            let gap = if index == 0 || *part == Part::Filler && words.is_empty() {
                ""
            } else if after_greeting {
                ", "
            } else {
                " "
            };
            text.push_str(gap);
            length += gap.len();
            spans.push((length, length + words.chars().count()));
            text.push_str(words);
            length += words.chars().count();
        }
        (text, spans)
    }

    /// The span of the last word of the last part of this kind.
    fn last_word(&self, part: Part) -> Place {
        let (_, spans) = self.spans();
        let at = self.parts.iter().rposition(|(other, _)| *other == part);
        at.map_or(Place::Whole, |at| {
            let last = self.parts[at].1.rsplit(' ').next().unwrap_or("").chars().count();
            Place::Span(spans[at].1 - last, spans[at].1)
        })
    }

    /// Spoils the draft in one way and says where; the caller knows that the card allows this kind.
    pub(super) fn spoil(&mut self, card: &Card, kind: &str, rng: &mut ChaCha8Rng) -> Place {
        match kind {
            "fact" => {
                let (slot, value) = pick(rng, &card.facts);
                let others: Vec<&str> =
                    slot.values().iter().copied().filter(|other| *other != value).collect();
                let wrong = slot.phrase(pick(rng, &others));
                for (part, text) in &mut self.parts {
                    if *part == Part::Fact(slot) {
                        text.clone_from(&wrong);
                    }
                }
                self.last_word(Part::Fact(slot))
            }
            "missing" => {
                let (slot, _) = pick(rng, &card.facts);
                self.remove(Part::Fact(slot));
                Place::Whole
            }
            "greeting" if self.has(Part::Greeting) => {
                self.remove(Part::Greeting);
                Place::Whole
            }
            "greeting" => {
                self.insert(Part::Greeting, format!("hi {}", card.name), rng);
                Place::Span(0, 2)
            }
            "tone" if self.has(Part::Warm) => {
                self.remove(Part::Warm);
                Place::Whole
            }
            "tone" => {
                self.insert(Part::Warm, pick(rng, WARM).to_string(), rng);
                self.last_word(Part::Warm)
            }
            "emoji" if self.has(Part::Emoji) => {
                self.remove(Part::Emoji);
                Place::Whole
            }
            "emoji" => {
                self.insert(Part::Emoji, pick(rng, EMOJI).to_string(), rng);
                self.last_word(Part::Emoji)
            }
            "rude" => {
                self.insert(Part::Rude, pick(rng, RUDE).to_string(), rng);
                self.last_word(Part::Rude)
            }
            _ => self.lengthen(card, rng),
        }
    }

    /// Adds words that say nothing until the limit is passed by one to three.
    fn lengthen(&mut self, card: &Card, rng: &mut ChaCha8Rng) -> Place {
        let limit = card.limit.unwrap_or(0);
        let wanted = limit + rng.random_range(1..=3);
        let now = super::words::words(&self.text()).len();
        let filler: Vec<&str> = FILLER.iter().copied().cycle().take(wanted.saturating_sub(now)).collect();
        self.insert(Part::Filler, filler.join(" "), rng);
        let found = super::words::words(&self.text());
        match (found.get(limit), found.last()) {
            (Some(first), Some(last)) => Place::Span(first.start, last.end),
            _ => Place::Whole,
        }
    }

    /// Adds a goodbye nobody asked for.
    pub(super) fn say_goodbye(&mut self, rng: &mut ChaCha8Rng) {
        self.insert(Part::Farewell, pick(rng, FAREWELLS).to_string(), rng);
    }
}
