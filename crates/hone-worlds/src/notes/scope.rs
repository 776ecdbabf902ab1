//! Rules that hold for some prompts only: "no emoji in notes to my boss".
//!
//! A rule has a scope and an effect. Prompts come in three kinds: in scope (notes to the boss), near it (notes to
//! others, and notes that only mention the boss), and out of it (other worlds). A method that follows the rule
//! everywhere fails on the last two.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::words::{self, FAREWELLS, GREETINGS, NAMES, Slot, WARM};
use super::{Card, Note};
use crate::error::Result;
use crate::seed::{pick, rng};
use crate::sums::Sums;
use crate::world::Task;

/// What a rule changes in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// No emoji at all.
    NoEmoji,
    /// At least one emoji.
    Emoji,
    /// No greeting.
    NoGreeting,
    /// A warm word.
    Warm,
    /// End with `bye`.
    SayBye,
}

impl Effect {
    /// All effects.
    pub const ALL: [Effect; 5] =
        [Effect::NoEmoji, Effect::Emoji, Effect::NoGreeting, Effect::Warm, Effect::SayBye];

    fn words(self) -> &'static str {
        match self {
            Effect::NoEmoji => "no emoji",
            Effect::Emoji => "use emoji",
            Effect::NoGreeting => "no hello",
            Effect::Warm => "be warm",
            Effect::SayBye => "say bye",
        }
    }

    /// Whether an answer is as the effect wants it.
    pub fn holds(self, answer: &str) -> bool {
        let said = words::words(answer);
        let has = |of: &[&str]| said.iter().any(|word| of.contains(&word.text.as_str()));
        match self {
            Effect::NoEmoji => words::emoji_spans(answer).is_empty(),
            Effect::Emoji => !words::emoji_spans(answer).is_empty(),
            Effect::NoGreeting => !has(GREETINGS),
            Effect::Warm => has(WARM),
            Effect::SayBye => said.last().is_some_and(|word| FAREWELLS.contains(&word.text.as_str())),
        }
    }
}

/// How a prompt lies to a rule's scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nearness {
    /// The rule applies.
    In,
    /// It looks as if it might, and does not.
    Near,
    /// Nothing to do with it.
    Out,
}

/// People a rule can be about. None is among [`NAMES`], so that no other prompt is in scope by chance.
pub const ROLES: &[&str] = &["boss", "mum", "coach", "doctor", "landlord"];

/// A rule: an effect on notes to one person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What changes.
    pub effect: Effect,
    /// One of [`ROLES`].
    pub to: &'static str,
}

impl Rule {
    /// The rule of this seed.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = rng(seed, "notes/rule");
        Rule { effect: pick(&mut rng, &Effect::ALL), to: pick(&mut rng, ROLES) }
    }

    /// The rule as a person says it.
    pub fn text(&self) -> String {
        format!("{} in {}", self.effect.words(), self.scope())
    }

    /// Where it holds, as a person says it.
    pub fn scope(&self) -> String {
        format!("notes to my {}", self.to)
    }

    /// Whether a prompt is in scope.
    pub fn applies(&self, prompt: &str) -> bool {
        prompt.lines().next().is_some_and(|line| line == format!("note to my {}", self.to))
    }

    /// The prompt of this nearness and seed. In and near prompts leave the rule's feature free.
    /// # Errors
    /// None for the seeds and levels used here; the type is that of [`crate::World::task`].
    pub fn prompt(&self, nearness: Nearness, seed: u64) -> Result<Scoped> {
        let mut rng = rng(seed, &format!("notes/scope/{nearness:?}"));
        if nearness == Nearness::Out {
            let sum = Sums::default().sum(rng.random_range(1..=3), seed)?;
            let follow = format!("{} :)", sum.reference());
            return Ok(Scoped { prompt: sum.prompt(), usual: sum.reference(), changed: follow, nearness });
        }
        let facts: Vec<(Slot, &'static str)> =
            Slot::ALL[..3].iter().map(|slot| (*slot, pick(&mut rng, slot.values()))).collect();
        let card = Card { name: "x", facts, greeting: None, warm: None, emoji: None, limit: None };
        let note = Note::new(card, false, &mut rng);
        let others: Vec<&str> = ROLES.iter().copied().filter(|role| *role != self.to).collect();
        let (to, about) = match (nearness, rng.random_range(0..3)) {
            (Nearness::In, _) => (format!("my {}", self.to), None),
            (_, 0) => (format!("my {}", pick(&mut rng, &others)), None),
            (_, 1) => (pick(&mut rng, NAMES).to_string(), Some(self.to)),
            _ => (pick(&mut rng, NAMES).to_string(), None),
        };
        let about = about.map(|role| format!("\nabout my {role}")).unwrap_or_default();
        let (_, says) =
            note.prompt().split_once('\n').map(|(a, b)| (a.to_string(), b.to_string())).unwrap_or_default();
        let prompt = format!("note to {to}{about}\n{says}");
        let (usual, changed) = self.answers(&note.reference(), &mut rng);
        Ok(Scoped { prompt, usual, changed, nearness })
    }

    /// An answer that does not follow the rule and the same answer following it.
    fn answers(&self, plain: &str, rng: &mut ChaCha8Rng) -> (String, String) {
        match self.effect {
            Effect::NoEmoji => (format!("{plain} {}", pick(rng, words::EMOJI)), plain.to_string()),
            Effect::Emoji => (plain.to_string(), format!("{plain} {}", pick(rng, words::EMOJI))),
            Effect::NoGreeting => (format!("{}, {plain}", pick(rng, GREETINGS)), plain.to_string()),
            Effect::Warm => (plain.to_string(), format!("{plain} {}", pick(rng, WARM))),
            Effect::SayBye => (plain.to_string(), format!("{plain} bye")),
        }
    }
}

/// A prompt with two answers that differ in the rule's feature alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scoped {
    /// What is asked.
    pub prompt: String,
    /// The answer before the feedback.
    pub usual: String,
    /// The answer changed as the rule wants; right in scope, an overreach elsewhere.
    pub changed: String,
    /// How the prompt lies to the rule.
    pub nearness: Nearness,
}

impl Scoped {
    /// The answer that is right for this prompt.
    pub fn right(&self) -> &str {
        if self.nearness == Nearness::In { &self.changed } else { &self.usual }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_decides_which_answer_is_right() {
        for seed in 0..300 {
            let rule = Rule::drawn(seed);
            for nearness in [Nearness::In, Nearness::Near, Nearness::Out] {
                let scoped = rule.prompt(nearness, seed).unwrap();
                assert_eq!(rule.applies(&scoped.prompt), nearness == Nearness::In, "{scoped:?}");
                assert_ne!(scoped.usual, scoped.changed);
                if nearness != Nearness::Out {
                    assert!(rule.effect.holds(&scoped.changed), "{rule:?} {scoped:?}");
                    assert!(!rule.effect.holds(&scoped.usual), "{rule:?} {scoped:?}");
                }
            }
        }
    }

    #[test]
    fn rules_read_as_people_say_them() {
        let rule = Rule { effect: Effect::NoEmoji, to: "boss" };
        assert_eq!(rule.text(), "no emoji in notes to my boss");
        assert!(rule.applies("note to my boss\nsay friday"));
        assert!(!rule.applies("note to ann\nabout my boss\nsay friday"));
    }
}
