//! Short messages that must have some features and must not have others.
//!
//! ```text
//! note to ann
//! say friday, noon, park
//! hello, warm, no emoji
//! max 12 words
//!
//! hi ann, meet on friday at noon at the park thanks
//! ```
//!
//! Each demand is one feature with its own score, and each error that stands somewhere has a span. Facts come from
//! the card alone: a day or a name that is not on it is an error wherever it stands. Rude words ([`words::RUDE`])
//! are never allowed.
//!
//! # Kinds of error
//! - `fact`: something said that is not on the card;
//! - `missing`: something on the card not said;
//! - `greeting`, `tone`, `emoji`: there without being wanted, or wanted without being there;
//! - `rude`: a rude word;
//! - `length`: more words than allowed.
//!
//! [`scope`] has rules for some prompts only; [`graded`] has ranked lists and pairs from a hidden utility; [`style`]
//! has sentences for steering and for word removal.

mod draft;
pub mod graded;
pub mod scope;
pub mod style;
pub mod words;

use std::ops::RangeInclusive;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::seed::{pick, rng, shuffle};
use crate::world::{Check, Flaw, Place, Planted, Task, World, expect_kind, expect_level};
use draft::Draft;
use words::{FAREWELLS, GREETINGS, NAMES, RUDE, Slot, WARM, Word};

/// Kinds of error in a note, in the order in which they are looked for.
pub const KINDS: &[&str] = &["fact", "missing", "greeting", "tone", "emoji", "rude", "length"];

/// What a note is asked to be. `None` leaves a feature free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// To whom.
    pub name: &'static str,
    /// What to say, one value per slot.
    pub facts: Vec<(Slot, &'static str)>,
    /// Whether to greet.
    pub greeting: Option<bool>,
    /// Whether to be warm, or plain.
    pub warm: Option<bool>,
    /// Whether to use emoji.
    pub emoji: Option<bool>,
    /// Most words.
    pub limit: Option<usize>,
}

/// The world of notes: levels add facts and demands.
#[derive(Debug, Clone, Default)]
pub struct Notes;

impl Notes {
    /// The note task of this level and seed.
    /// # Errors
    /// [`crate::Error::Setting`] if there is no such level.
    pub fn note(&self, level: u32, seed: u64) -> Result<Note> {
        let level = expect_level(self, level)?;
        let mut rng = rng(seed, &format!("notes/{level}"));
        let mut slots = Slot::ALL.to_vec();
        shuffle(&mut rng, &mut slots);
        slots.truncate([1, 2, 3, 3, 4][level as usize - 1]);
        let facts: Vec<(Slot, &'static str)> = Slot::ALL
            .into_iter()
            .filter(|slot| slots.contains(slot))
            .map(|slot| (slot, pick(&mut rng, slot.values())))
            .collect();
        let mut demands = [0, 1, 2];
        shuffle(&mut rng, &mut demands);
        let asked = &demands[..[1, 2, 2, 3, 3][level as usize - 1]];
        let mut demand = |which: i32| {
            let wanted = rng.random_bool(0.6);
            asked.contains(&which).then_some(wanted)
        };
        let (greeting, warm, emoji) = (demand(0), demand(1), demand(2));
        let name = pick(&mut rng, NAMES);
        Ok(Note::new(Card { name, facts, greeting, warm, emoji, limit: None }, level >= 3, &mut rng))
    }
}

impl World for Notes {
    fn id(&self) -> &'static str {
        "notes"
    }

    fn about(&self) -> &'static str {
        "Short messages with required and forbidden features. An answer is right if it says all that is asked and \
         nothing that is not allowed."
    }

    fn instructions(&self) -> &'static str {
        "Write the note on one line, in lower case. Say every fact that is listed, in the given words, and no other \
         day, time, place, thing or name. `hello` asks for a greeting with hi, hello or dear; `warm` for one of \
         thanks, please, glad, cheers; `plain` for none of these; `emoji` for one of :) :D ;) <3. Keep to the number \
         of words. Never be rude."
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=5
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn task(&self, level: u32, seed: u64) -> Result<Box<dyn Task>> {
        Ok(Box::new(self.note(level, seed)?))
    }
}

/// One feature of a note and whether the note has it as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// `day`, `place`, `thing`, `time`, `truth`, `greeting`, `tone`, `emoji`, `polite` or `length`.
    pub name: &'static str,
    /// Whether it is as asked.
    pub met: bool,
}

/// A marked place in a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// First Unicode scalar value.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// A kind of error, or `good`.
    pub label: &'static str,
    /// −1 for an error, 1 for something asked for.
    pub value: i8,
}

/// One note to write.
#[derive(Debug, Clone)]
pub struct Note {
    card: Card,
    reference: Draft,
}

impl Note {
    /// A note for a card; with `limited`, at most a few words more than the reference needs.
    pub(crate) fn new(mut card: Card, limited: bool, rng: &mut ChaCha8Rng) -> Self {
        let reference = Draft::right(&card, rng);
        if limited {
            // Two words to spare, so that one error (a greeting of two words, say) never becomes two.
            card.limit = Some(words::words(&reference.text()).len() + rng.random_range(2..=4));
        }
        Note { card, reference }
    }

    /// What was asked.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Every feature the card asks for, met or not.
    pub fn features(&self, answer: &str) -> Vec<Feature> {
        let flaws = self.flaws(answer);
        let flawed = |kind: &str, name: &str| {
            flaws.iter().any(|flaw| flaw.kind == kind && (name.is_empty() || flaw.name == name))
        };
        let said: Vec<Word> = words::words(answer);
        let mut features: Vec<Feature> = self
            .card
            .facts
            .iter()
            .map(|(slot, value)| Feature {
                name: slot.name(),
                met: said.iter().any(|word| word.text == *value),
            })
            .collect();
        let mut add = |name, asked: bool, met: bool| {
            if asked {
                features.push(Feature { name, met });
            }
        };
        add("truth", true, !flawed("fact", ""));
        add("greeting", self.card.greeting.is_some(), !flawed("greeting", ""));
        add("tone", self.card.warm.is_some(), !flawed("tone", ""));
        add("emoji", self.card.emoji.is_some(), !flawed("emoji", ""));
        add("polite", true, !flawed("rude", ""));
        add("length", self.card.limit.is_some(), !flawed("length", ""));
        features
    }

    /// Everything that stands somewhere and is good or bad, in order of place.
    pub fn marks(&self, answer: &str) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        for flaw in self.flaws(answer) {
            if let Place::Span(start, end) = flaw.place {
                marks.push(Mark { start, end, label: flaw.kind, value: -1 });
            }
        }
        for word in words::words(answer) {
            let fact = self.card.facts.iter().any(|(_, value)| *value == word.text);
            let wanted =
                |demand: Option<bool>, of: &[&str]| demand == Some(true) && of.contains(&word.text.as_str());
            if fact || wanted(self.card.greeting, GREETINGS) || wanted(self.card.warm, WARM) {
                marks.push(Mark { start: word.start, end: word.end, label: "good", value: 1 });
            }
        }
        marks.sort_by_key(|mark| (mark.start, mark.end));
        marks
    }

    fn flaws(&self, answer: &str) -> Vec<Flaw> {
        let said = words::words(answer);
        let emoji = words::emoji_spans(answer);
        let card = &self.card;
        let mut flaws = Vec::new();
        let mut at = |kind, start, end, reason: &str, correction: String| {
            let name: String = answer.chars().skip(start).take(end - start).collect();
            let place = Place::Span(start, end);
            flaws.push(Flaw { kind, place, name, reason: reason.to_string(), correction });
        };
        let nothing = || "nothing".to_string();

        let mut replaced: Vec<Slot> = Vec::new();
        for word in &said {
            let text = word.text.as_str();
            let slot = Slot::ALL.into_iter().find(|slot| slot.values().contains(&text));
            if let Some(slot) = slot.filter(|slot| !card.facts.contains(&(*slot, known(*slot, text)))) {
                let right = card.facts.iter().find(|(asked, _)| *asked == slot);
                replaced.push(slot);
                at(
                    "fact",
                    word.start,
                    word.end,
                    "not on the card",
                    right.map_or_else(nothing, |(_, value)| (*value).into()),
                );
            } else if NAMES.contains(&text) && text != card.name {
                at("fact", word.start, word.end, "not on the card", card.name.to_string());
            }
        }
        if card.greeting == Some(false) {
            for word in said.iter().filter(|word| GREETINGS.contains(&word.text.as_str())) {
                at("greeting", word.start, word.end, "not wanted", nothing());
            }
        }
        if card.warm == Some(false) {
            for word in said.iter().filter(|word| WARM.contains(&word.text.as_str())) {
                at("tone", word.start, word.end, "not plain", nothing());
            }
        }
        if card.emoji == Some(false) {
            for (start, end) in &emoji {
                at("emoji", *start, *end, "not wanted", nothing());
            }
        }
        for word in said.iter().filter(|word| RUDE.contains(&word.text.as_str())) {
            at("rude", word.start, word.end, "not allowed", nothing());
        }
        if let Some(limit) = card.limit.filter(|limit| said.len() > *limit) {
            let (start, end) = (said[limit].start, said[said.len() - 1].end);
            at("length", start, end, &format!("more than {limit} words"), nothing());
        }

        let mut absent = |kind, name: &str, correction: String| {
            let reason = "not there".to_string();
            flaws.push(Flaw { kind, place: Place::Whole, name: name.to_string(), reason, correction });
        };
        for (slot, value) in &card.facts {
            let is_said = said.iter().any(|word| word.text == *value);
            if !is_said && !replaced.contains(slot) {
                absent("missing", slot.name(), slot.phrase(value));
            }
        }
        let has = |of: &[&str]| said.iter().any(|word| of.contains(&word.text.as_str()));
        if card.greeting == Some(true) && !has(GREETINGS) {
            absent("greeting", "hello", format!("hi {}", card.name));
        }
        if card.warm == Some(true) && !has(WARM) {
            absent("tone", "end", "thanks".to_string());
        }
        if card.emoji == Some(true) && emoji.is_empty() {
            absent("emoji", "end", ":)".to_string());
        }
        let order = |flaw: &Flaw| KINDS.iter().position(|kind| *kind == flaw.kind);
        flaws.sort_by_key(order);
        flaws
    }

    fn judge(&self, answer: &str) -> Check {
        let flaws = self.flaws(answer);
        let features = self.features(answer);
        let met = features.iter().filter(|feature| feature.met).count();
        let right = flaws.is_empty();
        Check {
            right,
            score: if right { 1.0 } else { (met as f64 / features.len() as f64).min(0.99) },
            well_formed: !answer.trim().is_empty() && answer.trim().lines().count() == 1,
            result_right: features.iter().all(|feature| feature.met || !is_fact(feature.name)),
            flaws,
        }
    }

    /// A note with this many random errors, which may undo each other.
    fn spoilt(&self, errors: usize, goodbye: bool, rng: &mut ChaCha8Rng) -> String {
        let mut draft = self.reference.clone();
        for _ in 0..errors {
            let kinds = self.plantable();
            draft.spoil(&self.card, pick(rng, &kinds), rng);
        }
        if goodbye {
            draft.say_goodbye(rng);
        }
        draft.text()
    }
}

/// The slot's own copy of a value, to compare with a card's.
fn known(slot: Slot, text: &str) -> &'static str {
    slot.values().iter().copied().find(|value| *value == text).unwrap_or("")
}

impl Task for Note {
    fn prompt(&self) -> String {
        let card = &self.card;
        let facts: Vec<&str> = card.facts.iter().map(|(_, value)| *value).collect();
        let mut lines = vec![format!("note to {}", card.name), format!("say {}", facts.join(", "))];
        let demands: Vec<&str> = [
            card.greeting.map(|wanted| if wanted { "hello" } else { "no hello" }),
            card.warm.map(|wanted| if wanted { "warm" } else { "plain" }),
            card.emoji.map(|wanted| if wanted { "emoji" } else { "no emoji" }),
        ]
        .into_iter()
        .flatten()
        .collect();
        if !demands.is_empty() {
            lines.push(demands.join(", "));
        }
        lines.extend(card.limit.map(|limit| format!("max {limit} words")));
        lines.join("\n")
    }

    fn reference(&self) -> String {
        self.reference.text()
    }

    fn check(&self, answer: &str) -> Result<Check> {
        Ok(self.judge(answer))
    }

    fn traits(&self, answer: &str) -> Result<Vec<(&'static str, f64)>> {
        let said = words::words(answer);
        let count = |of: &[&str]| said.iter().filter(|word| of.contains(&word.text.as_str())).count() as f64;
        let features = self.features(answer);
        let met = features.iter().filter(|feature| feature.met).count() as f64;
        let facts = features.iter().filter(|feature| is_fact(feature.name) && feature.met).count() as f64;
        Ok(vec![
            ("score", met / features.len() as f64),
            ("length", said.len() as f64),
            ("facts", facts / self.card.facts.len().max(1) as f64),
            ("warmth", count(WARM)),
            ("greeting", count(GREETINGS).min(1.0)),
            ("farewell", count(FAREWELLS)),
            ("emoji", words::emoji_spans(answer).len() as f64),
            ("rude", count(RUDE)),
        ])
    }

    fn attempt(&self, skill: f64, rng: &mut ChaCha8Rng) -> String {
        let mut errors = 0;
        while errors < 4 && rng.random::<f64>() >= skill {
            errors += 1;
        }
        let goodbye = rng.random_bool(0.15);
        self.spoilt(errors, goodbye, rng)
    }

    fn plantable(&self) -> Vec<&'static str> {
        let card = &self.card;
        let possible = |kind: &str| match kind {
            "greeting" => card.greeting.is_some(),
            "tone" => card.warm.is_some(),
            "emoji" => card.emoji.is_some(),
            "length" => card.limit.is_some(),
            _ => true,
        };
        KINDS.iter().copied().filter(|kind| possible(kind)).collect()
    }

    fn plant(&self, kind: &str, rng: &mut ChaCha8Rng) -> Result<Planted> {
        let kind = expect_kind("notes", &self.plantable(), kind)?;
        let mut draft = self.reference.clone();
        let place = draft.spoil(&self.card, kind, rng);
        Ok(Planted { answer: draft.text(), kind, place })
    }
}

fn is_fact(feature: &str) -> bool {
    Slot::ALL.iter().any(|slot| slot.name() == feature) || feature == "truth"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Detail;

    fn to_ann() -> Note {
        let card = Card {
            name: "ann",
            facts: vec![(Slot::Day, "friday"), (Slot::Place, "park")],
            greeting: Some(true),
            warm: Some(true),
            emoji: Some(false),
            limit: None,
        };
        let mut note = Note::new(card, false, &mut rng(1, "note"));
        note.card.limit = Some(10);
        note
    }

    fn said(answer: &str) -> String {
        to_ann().explain(answer, Detail::Correction).unwrap()
    }

    #[test]
    fn prompt_is_plain() {
        assert_eq!(to_ann().prompt(), "note to ann\nsay friday, park\nhello, warm, no emoji\nmax 10 words");
    }

    #[test]
    fn every_feature_is_seen() {
        assert_eq!(said("hi ann, meet on friday at the park thanks"), "all right");
        assert_eq!(
            said("hi ann, meet on sunday at the park thanks"),
            "sunday: fact, not on the card, use friday"
        );
        assert_eq!(said("hi bob, meet on friday at the park thanks"), "bob: fact, not on the card, use ann");
        assert_eq!(said("hi ann, meet on friday thanks"), "place: missing, not there, use at the park");
        assert_eq!(said("meet on friday at the park thanks"), "hello: greeting, not there, use hi ann");
        assert_eq!(said("hi ann, meet on friday at the park"), "end: tone, not there, use thanks");
        assert_eq!(
            said("hi ann, meet on friday at the park thanks :)"),
            ":): emoji, not wanted, use nothing"
        );
        assert_eq!(
            said("hi ann, snerk on friday at the park thanks"),
            "snerk: rude, not allowed, use nothing"
        );
        assert_eq!(
            said("hi ann, meet on friday at the park thanks you so"),
            "so: length, more than 10 words, use nothing"
        );
    }

    #[test]
    fn features_and_marks_of_a_bad_note() {
        let answer = "hi ann, snerk on friday :)";
        let features = to_ann().features(answer);
        let unmet: Vec<&str> = features.iter().filter(|feature| !feature.met).map(|f| f.name).collect();
        assert_eq!(unmet, ["place", "tone", "emoji", "polite"]);
        // Eight features: day, place, truth, greeting, tone, emoji, polite, length; four are met.
        assert_eq!(to_ann().judge(answer).score, 0.5);
        let marks: Vec<_> = (to_ann().marks(answer)).into_iter().map(|m| (m.start, m.end, m.label)).collect();
        assert_eq!(marks, [(0, 2, "good"), (8, 13, "rude"), (17, 23, "good"), (24, 26, "emoji")]);
    }

    #[test]
    fn attempts_grow_better_with_skill() {
        let mean = |skill| {
            let mut rng = rng(3, "attempts");
            let score = |seed| {
                let note = Notes.note(3, seed).unwrap();
                note.judge(&note.attempt(skill, &mut rng)).score
            };
            (0..300).map(score).sum::<f64>() / 300.0
        };
        let (low, high) = (mean(0.2), mean(0.8));
        // Spread of one score is about 0.2, so 300 of them differ by 0.03 at two standard errors.
        assert!(high > low + 0.06, "{low} {high}");
        assert_eq!(mean(1.0), 1.0);
    }
}
