//! Search where the first query names a topic, and only the user knows which of its facets is meant.
//!
//! A [`Need`] is a topic and a facet. Its first query names the topic alone. The user answers clarifying questions
//! and comments on results from the need; a user without it ([`Need::blind_comment`]) is the baseline.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::seed::{pick, rng, shuffle};

/// Topics with four facets each.
pub const TOPICS: &[(&str, [&str; 4])] = &[
    ("apple", ["tree", "juice", "pie", "farm"]),
    ("bank", ["loan", "river", "card", "job"]),
    ("bass", ["guitar", "fish", "song", "lake"]),
    ("jaguar", ["cat", "car", "team", "forest"]),
    ("java", ["island", "coffee", "code", "course"]),
    ("mercury", ["planet", "metal", "singer", "god"]),
    ("mouse", ["pet", "pad", "trap", "film"]),
    ("python", ["snake", "code", "film", "zoo"]),
];

/// A passage of the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Its text.
    pub text: String,
    /// Index into [`TOPICS`].
    pub topic: usize,
    /// Index into the topic's facets, or `None` for a passage about the topic at large.
    pub facet: Option<usize>,
}

/// What a user wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Index into [`TOPICS`].
    pub topic: usize,
    /// Index into the topic's facets.
    pub facet: usize,
}

/// A clarifying question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The topic asked about; another than the need's makes it irrelevant.
    pub topic: usize,
    /// The facet asked about.
    pub facet: usize,
}

/// `count` passages per facet and topic, in random order.
pub fn collection(count: usize, seed: u64) -> Vec<Passage> {
    let mut rng = rng(seed, "lists/passages");
    let mut passages = Vec::new();
    for (topic, (name, facets)) in TOPICS.iter().enumerate() {
        for (facet, word) in facets.iter().enumerate() {
            for _ in 0..count {
                let text = format!("{} {name} {word} {}", filler(&mut rng), filler(&mut rng));
                passages.push(Passage { text, topic, facet: Some(facet) });
            }
        }
        for _ in 0..count {
            let text = format!("{} {name} {}", filler(&mut rng), filler(&mut rng));
            passages.push(Passage { text, topic, facet: None });
        }
    }
    shuffle(&mut rng, &mut passages);
    passages
}

fn filler(rng: &mut ChaCha8Rng) -> &'static str {
    pick(rng, &["about the", "all on the", "more on the", "a guide to the", "notes on the"])
}

impl Need {
    /// The need of this seed.
    pub fn drawn(seed: u64) -> Self {
        let mut rng = rng(seed, "lists/need");
        Need { topic: rng.random_range(0..TOPICS.len()), facet: rng.random_range(0..4) }
    }

    /// The first query: the topic alone.
    pub fn query(&self) -> &'static str {
        TOPICS[self.topic].0
    }

    /// The facet's word, which the query does not say.
    pub fn facet_word(&self) -> &'static str {
        TOPICS[self.topic].1[self.facet]
    }

    /// Grade of a passage: 2 for the facet, 1 for the topic at large, 0 otherwise.
    pub fn grade(&self, passage: &Passage) -> f64 {
        match passage.facet {
            _ if passage.topic != self.topic => 0.0,
            Some(facet) if facet == self.facet => 2.0,
            Some(_) => 0.0,
            None => 1.0,
        }
    }

    /// Answer to a clarifying question.
    pub fn reply(&self, question: Question) -> String {
        if question.topic != self.topic {
            "no, that is not what i ask".to_string()
        } else if question.facet == self.facet {
            "yes".to_string()
        } else {
            format!("no, i mean the {}", self.facet_word())
        }
    }

    /// Comment on a result, from the need.
    pub fn comment(&self, passage: &Passage) -> String {
        match (passage.topic == self.topic, passage.facet) {
            (true, Some(facet)) if facet == self.facet => "thanks, that is it".to_string(),
            (true, None) => format!("too vague, i mean the {}", self.facet_word()),
            (true, Some(facet)) => {
                format!("not about the {}, i mean the {}", TOPICS[self.topic].1[facet], self.facet_word())
            }
            (false, _) => format!("not about {}", self.query()),
        }
    }

    /// Comment of a simulator that does not know the need: pleased or not by chance.
    pub fn blind_comment(rng: &mut ChaCha8Rng) -> String {
        pick(rng, &["thanks, that is it", "not what i mean"]).to_string()
    }
}

impl Question {
    /// The question in words.
    pub fn text(&self) -> String {
        format!("do you mean the {} {}?", TOPICS[self.topic].0, TOPICS[self.topic].1[self.facet])
    }
}

/// Whether a comment is pleased: the stop rule that needs no oracle.
pub fn pleased(comment: &str) -> bool {
    comment.starts_with("thanks") || comment == "yes"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_agree_with_grades() {
        let passages = collection(2, 3);
        assert_eq!(passages.len(), TOPICS.len() * 5 * 2);
        for seed in 0..50 {
            let need = Need::drawn(seed);
            for passage in &passages {
                assert_eq!(pleased(&need.comment(passage)), need.grade(passage) == 2.0);
            }
            assert!(!need.query().contains(need.facet_word()));
        }
    }

    #[test]
    fn replies_tell_what_is_meant() {
        let need = Need { topic: 3, facet: 1 };
        let ask = |topic, facet| Question { topic, facet };
        assert_eq!(ask(3, 0).text(), "do you mean the jaguar cat?");
        assert_eq!(need.reply(ask(3, 0)), "no, i mean the car");
        assert_eq!(need.reply(ask(3, 1)), "yes");
        assert_eq!(need.reply(ask(0, 1)), "no, that is not what i ask");
    }

    #[test]
    fn a_blind_simulator_is_at_chance() {
        let mut rng = rng(1, "blind");
        let pleased = (0..1000).filter(|_| pleased(&Need::blind_comment(&mut rng))).count();
        // Standard error 0.0158; four of them.
        assert!((437..=563).contains(&pleased), "{pleased}");
    }
}
