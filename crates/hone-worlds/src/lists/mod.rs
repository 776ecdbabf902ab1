//! Ranking items for a user, recommending, and search with facets.
//!
//! ```text
//! rank for who likes tea, calm
//! - red tea, loud: a
//! - blue cake, wild: b
//! - red tea, calm: c
//!
//! a tea 1
//! b 0
//! c tea calm 2
//! c a b
//! ```
//!
//! An item's grade is the number of things the user likes about it, or 0 if it has something the user does not
//! want. The last line of an answer ranks; lines before it grade the items, in the order of the prompt, and may be
//! left out. An answer is right if its grades are, and the ranked items' grades never rise from one place to the
//! next; items of one grade may stand in any order.
//!
//! # Kinds of error
//! - `grade`: a grade that the item does not have, or of another item than the next (a critique names each wrong
//!   grade on a line of its own);
//! - `format`: something that is not a letter, or a line before the last that does not end in a grade;
//! - `unknown`: a letter no item has;
//! - `repeat`: an item that stands there already;
//! - `missing`: an item not ranked;
//! - `order`: an item before one that fits better.
//!
//! [`market`] has many users and items with latent tastes and graded candidate lists, [`clicks`] the users who click
//! on them, [`facets`] queries that name a topic but not its facet, [`metrics`] the measures.

pub mod clicks;
pub mod facets;
pub mod market;
pub mod metrics;

use std::ops::RangeInclusive;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::Result;
use crate::seed::{pick, rng, shuffle};
use crate::world::{ALL_RIGHT, Check, Detail, Flaw, Place, Planted, Task, World, expect_kind, expect_level};

/// Kinds of error in a ranking, in the order in which they are looked for.
pub const KINDS: &[&str] = &["grade", "format", "unknown", "repeat", "missing", "order"];

const COLOURS: &[&str] = &["red", "blue", "green", "grey"];
const THINGS: &[&str] = &["tea", "cake", "soup", "bread", "book", "song", "game", "lamp"];
const MOODS: &[&str] = &["calm", "loud", "wild", "soft"];

/// The world of rankings: levels add items and tastes.
#[derive(Debug, Clone, Default)]
pub struct Lists;

/// One item: a colour, a thing and a mood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its letter in the prompt.
    pub letter: char,
    /// Colour, thing and mood.
    pub traits: [&'static str; 3],
}

/// One list to rank.
#[derive(Debug, Clone)]
pub struct List {
    likes: Vec<&'static str>,
    unwanted: Option<&'static str>,
    items: Vec<Item>,
}

impl Lists {
    /// The list of this level and seed. At least two items differ in grade.
    /// # Errors
    /// [`crate::Error::Setting`] if there is no such level.
    pub fn list(&self, level: u32, seed: u64) -> Result<List> {
        let level = expect_level(self, level)? as usize - 1;
        let mut rng = rng(seed, &format!("lists/{}", level + 1));
        let (count, likes, unwanted) =
            [(3, 1, false), (3, 2, false), (4, 2, false), (5, 2, true), (6, 3, true)][level];
        loop {
            let mut wishes = [pick(&mut rng, COLOURS), pick(&mut rng, THINGS), pick(&mut rng, MOODS)];
            shuffle(&mut rng, &mut wishes);
            let liked = wishes[..likes].to_vec();
            let mut others: Vec<&str> = [COLOURS, MOODS].concat();
            others.retain(|word| !liked.contains(word));
            let unwanted = unwanted.then(|| pick(&mut rng, &others));
            let item = |index: usize, rng: &mut ChaCha8Rng| {
                let mut word = |of: &[&'static str]| {
                    // Every second word is one the user cares about, where there is one: grades then differ.
                    let known = of.iter().copied().find(|word| liked.contains(word));
                    known.filter(|_| rng.random_bool(0.5)).unwrap_or_else(|| pick(rng, of))
                };
                Item {
                    letter: char::from(b'a' + index as u8),
                    traits: [word(COLOURS), word(THINGS), word(MOODS)],
                }
            };
            let items: Vec<Item> = (0..count).map(|index| item(index, &mut rng)).collect();
            let list = List { likes: liked, unwanted, items };
            let grades = list.grades();
            if grades.iter().any(|grade| *grade != grades[0]) {
                return Ok(list);
            }
        }
    }
}

impl List {
    /// Grade of each item in the order of the prompt, larger is better.
    pub fn grades(&self) -> Vec<f64> {
        self.items.iter().map(|item| self.grade(item)).collect()
    }

    /// The items in the order of the prompt.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    fn grade(&self, item: &Item) -> f64 {
        if self.unwanted_in(item).is_some() { 0.0 } else { self.liked_in(item).count() as f64 }
    }

    fn unwanted_in(&self, item: &Item) -> Option<&'static str> {
        self.unwanted.filter(|word| item.traits.contains(word))
    }

    fn liked_in<'a>(&'a self, item: &'a Item) -> impl Iterator<Item = &'static str> + 'a {
        item.traits.iter().copied().filter(|word| self.likes.contains(word))
    }

    /// The line that grades an item, with the words that speak for the grade.
    fn graded(&self, item: &Item) -> String {
        let why: Vec<&str> = match self.unwanted_in(item) {
            Some(word) => vec!["not", word],
            None => self.liked_in(item).collect(),
        };
        grade_line(item.letter, &why, self.grade(item) as usize)
    }

    /// The lines that grade all items, and the line that ranks.
    fn write(&self, ranking: &str) -> String {
        let mut lines: Vec<String> = self.items.iter().map(|item| self.graded(item)).collect();
        lines.push(ranking.to_string());
        lines.join("\n")
    }

    fn item(&self, letter: char) -> Option<&Item> {
        self.items.iter().find(|item| item.letter == letter)
    }

    /// Letters from best to worst, ties in the order of the prompt.
    fn best(&self) -> Vec<char> {
        let mut order: Vec<&Item> = self.items.iter().collect();
        order.sort_by(|a, b| self.grade(b).total_cmp(&self.grade(a)));
        order.iter().map(|item| item.letter).collect()
    }

    /// A grade that the item does not have, and the words that speak for it: one too many or one too few.
    fn misread(&self, item: &Item, rng: &mut ChaCha8Rng) -> (Vec<&'static str>, usize) {
        let right = self.grade(item) as usize;
        let wrong = match right {
            0 => 1,
            _ if right < self.likes.len() && rng.random_bool(0.5) => right + 1,
            _ => right - 1,
        };
        let mut why = item.traits.to_vec();
        why.sort_by_key(|word| !self.likes.contains(word));
        why.truncate(wrong);
        why.sort_by_key(|word| item.traits.iter().position(|other| other == word));
        (why, wrong)
    }

    /// An answer that misreads these items and ranks by the grades that it gave.
    fn misgraded(&self, misread: &[usize], rng: &mut ChaCha8Rng) -> String {
        let mut lines: Vec<String> = self.items.iter().map(|item| self.graded(item)).collect();
        let mut order: Vec<(usize, char)> =
            self.items.iter().map(|item| (self.grade(item) as usize, item.letter)).collect();
        for &index in misread {
            let (why, wrong) = self.misread(&self.items[index], rng);
            lines[index] = grade_line(self.items[index].letter, &why, wrong);
            order[index].0 = wrong;
        }
        order.sort_by_key(|(grade, _)| std::cmp::Reverse(*grade));
        lines.push(join(&order.iter().map(|(_, letter)| *letter).collect::<Vec<_>>()));
        lines.join("\n")
    }

    /// The items an answer ranks, each once; everything else left out.
    fn ranked(&self, answer: &str) -> Vec<&Item> {
        let mut ranked: Vec<&Item> = Vec::new();
        let (_, ranking) = parts(answer);
        for item in words(ranking).filter_map(|word| self.item(single(word)?)) {
            if !ranked.iter().any(|other| other.letter == item.letter) {
                ranked.push(item);
            }
        }
        ranked
    }

    fn judge(&self, answer: &str) -> Check {
        let flaws = self.flaws(answer);
        let Some(first) = flaws.first() else { return Check::all_right() };
        let ranked: Vec<f64> = self.ranked(answer).iter().map(|item| self.grade(item)).collect();
        let ndcg = metrics::ndcg(&ranked, &self.grades(), self.items.len());
        let best = self.grades().into_iter().fold(0.0, f64::max);
        Check {
            right: false,
            score: ndcg.min(0.99),
            well_formed: words(parts(answer).1).next().is_some() && first.kind != "format",
            result_right: ranked.first().is_some_and(|grade| *grade == best),
            flaws,
        }
    }

    /// Every wrong grade, for each can be mended alone; without one the first flaw of the ranking, since how it is
    /// mended decides on the later ones.
    fn flaws(&self, answer: &str) -> Vec<Flaw> {
        let (graded, ranking) = parts(answer);
        let mut wrong = Vec::new();
        for (index, line) in graded.iter().enumerate() {
            let step = |kind, reason: &str, correction: String| {
                let (name, reason) = (String::new(), reason.to_string());
                Flaw { kind, place: Place::Step(index), name, reason, correction }
            };
            let Some(item) = self.items.get(index) else {
                wrong.push(step("format", "no more items", "nothing".into()));
                return wrong;
            };
            match read_grade(line) {
                None => wrong.push(step("format", "not a grade", self.graded(item))),
                // Lines after one that is missing or too many all name another item than the next.
                Some((letter, _)) if letter != item.letter => {
                    wrong.push(step("grade", &format!("{} is next", item.letter), self.graded(item)));
                    return wrong;
                }
                Some((letter, grade)) if grade != self.grade(item) as usize => {
                    wrong.push(step("grade", &format!("{letter} is not {grade}"), self.graded(item)));
                }
                Some(_) => {}
            }
        }
        if wrong.is_empty() { self.flaw_of_ranking(ranking).into_iter().collect() } else { wrong }
    }

    fn flaw_of_ranking(&self, ranking: &str) -> Option<Flaw> {
        let flaw = |kind, index, name: String, reason: &str, correction: String| {
            Some(Flaw { kind, place: Place::Rank(index), name, reason: reason.to_string(), correction })
        };
        let mut seen: Vec<&Item> = Vec::new();
        for (index, word) in words(ranking).enumerate() {
            let Some(letter) = single(word) else {
                return flaw("format", index, short(word), "not a letter", "letters".into());
            };
            let Some(item) = self.item(letter) else {
                return flaw("unknown", index, letter.into(), "not on the list", "nothing".into());
            };
            if seen.iter().any(|other| other.letter == letter) {
                return flaw("repeat", index, letter.into(), "there already", "nothing".into());
            }
            seen.push(item);
        }
        let absent = |item: &&Item| !seen.iter().any(|other| other.letter == item.letter);
        if let Some(item) = self.items.iter().find(absent) {
            return flaw("missing", seen.len(), item.letter.into(), "not ranked", item.letter.into());
        }
        for (index, item) in seen.iter().enumerate() {
            let rest = &seen[index + 1..];
            let better = rest.iter().max_by(|a, b| self.grade(a).total_cmp(&self.grade(b)));
            if let Some(better) = better.filter(|better| self.grade(better) > self.grade(item)) {
                return flaw("order", index, item.letter.into(), "fits less", better.letter.into());
            }
        }
        None
    }
}

/// The lines that grade, and the line that ranks: the last.
fn parts(answer: &str) -> (Vec<&str>, &str) {
    let mut lines: Vec<&str> = answer.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let ranking = lines.pop().unwrap_or_default();
    (lines, ranking)
}

fn grade_line(letter: char, why: &[&str], grade: usize) -> String {
    let mut line = letter.to_string();
    for word in why {
        line += &format!(" {word}");
    }
    format!("{line} {grade}")
}

/// The letter that a line begins with, and the grade that it ends with. The words between are not read.
fn read_grade(line: &str) -> Option<(char, usize)> {
    let (letter, rest) = line.split_once(char::is_whitespace)?;
    let grade = rest.split_whitespace().last()?;
    Some((single(letter.trim_end_matches(':'))?, grade.parse().ok()?))
}

/// What a ranking puts in places: words, commas and full stops aside.
fn words(ranking: &str) -> impl Iterator<Item = &str> {
    ranking.split(|c: char| c.is_whitespace() || matches!(c, ',' | '.' | '>')).filter(|word| !word.is_empty())
}

/// The letter, if the word is one lower-case letter.
fn single(word: &str) -> Option<char> {
    let mut letters = word.chars();
    let letter = letters.next()?;
    (letters.next().is_none() && letter.is_ascii_lowercase()).then_some(letter)
}

/// The first letters of a word: a critique quotes, but does not repeat a page.
fn short(word: &str) -> String {
    word.chars().take(12).collect()
}

impl World for Lists {
    fn id(&self) -> &'static str {
        "lists"
    }

    fn about(&self) -> &'static str {
        "Items to rank for a user. An answer is right if it has every item once and none stands before a better one."
    }

    fn instructions(&self) -> &'static str {
        "Rank the items for the user. Count for each item how many of the things the user likes it has; an item with \
         something the user does not want counts 0. Write one line per item, in the order given: its letter, the words \
         that count, and the count, as in `a tea 1`. Then write the letters of all items on one last line, highest \
         count first, with single spaces and nothing else."
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=5
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn task(&self, level: u32, seed: u64) -> Result<Box<dyn Task>> {
        Ok(Box::new(self.list(level, seed)?))
    }
}

impl Task for List {
    fn prompt(&self) -> String {
        let mut lines = vec![format!("rank for who likes {}", self.likes.join(", "))];
        if let Some(word) = self.unwanted {
            lines[0] += &format!(", not {word}");
        }
        for Item { letter, traits: [colour, thing, mood] } in &self.items {
            // The letter comes last: a small model reads from left to right, and knows there what the item is.
            lines.push(format!("- {colour} {thing}, {mood}: {letter}"));
        }
        lines.join("\n")
    }

    fn reference(&self) -> String {
        self.write(&join(&self.best()))
    }

    fn check(&self, answer: &str) -> Result<Check> {
        Ok(self.judge(answer))
    }

    fn explain(&self, answer: &str, detail: Detail) -> Result<String> {
        let check = self.judge(answer);
        let said: Vec<String> = match detail {
            Detail::Verdict => check.first().map(|flaw| flaw.words(detail)).into_iter().collect(),
            _ => check.flaws.iter().map(|flaw| flaw.words(detail)).collect(),
        };
        Ok(if said.is_empty() { ALL_RIGHT.to_string() } else { said.join("\n") })
    }

    fn traits(&self, answer: &str) -> Result<Vec<(&'static str, f64)>> {
        let ranked = self.ranked(answer);
        let grades: Vec<f64> = ranked.iter().map(|item| self.grade(item)).collect();
        let things: Vec<&str> = ranked.iter().map(|item| item.traits[1]).collect();
        let all = self.grades();
        Ok(vec![
            ("score", metrics::ndcg(&grades, &all, all.len())),
            ("length", words(parts(answer).1).count() as f64),
            ("recall", metrics::recall(&grades, &all, 2)),
            ("first", metrics::ndcg(&grades, &all, 1)),
            ("diversity", metrics::diversity(&things, 2)),
        ])
    }

    fn attempt(&self, skill: f64, rng: &mut ChaCha8Rng) -> String {
        // Whoever misreads items goes on to rank by what was read; at times the ranking slips though the grades are right.
        let fault = 1.0 - skill.clamp(0.0, 1.0);
        let misread: Vec<usize> = (0..self.items.len()).filter(|_| rng.random_bool(fault * 0.5)).collect();
        if !misread.is_empty() {
            return self.misgraded(&misread, rng);
        }
        let mut order = self.best();
        for at in 1..order.len() {
            if rng.random_bool(fault * 0.4) {
                order.swap(at - 1, at);
            }
        }
        self.write(&join(&order))
    }

    fn plantable(&self) -> Vec<&'static str> {
        KINDS.to_vec()
    }

    fn plant(&self, kind: &str, rng: &mut ChaCha8Rng) -> Result<Planted> {
        let kind = expect_kind("lists", KINDS, kind)?;
        if kind == "grade" {
            let index = rng.random_range(0..self.items.len());
            return Ok(Planted { answer: self.misgraded(&[index], rng), kind, place: Place::Step(index) });
        }
        let best = self.best();
        let mut words: Vec<String> = best.iter().map(char::to_string).collect();
        let index = rng.random_range(0..best.len());
        let index = match kind {
            "format" => {
                words[index] = pick(rng, &["first", "best", "?", "1"]).to_string();
                index
            }
            "unknown" => {
                let letter = char::from(b'a' + best.len() as u8 + rng.random_range(0..6));
                words.insert(index, letter.to_string());
                index
            }
            "repeat" => {
                words.insert(index + 1, words[rng.random_range(0..=index)].clone());
                index + 1
            }
            "missing" => {
                words.remove(index);
                words.len()
            }
            _ => {
                // Grades fall somewhere, because not all are the same: swap across a fall.
                let grade = |letter: char| self.item(letter).map_or(0.0, |item| self.grade(item));
                let falls: Vec<(usize, usize)> = (0..best.len())
                    .flat_map(|one| (one + 1..best.len()).map(move |two| (one, two)))
                    .filter(|(one, two)| grade(best[*one]) > grade(best[*two]))
                    .collect();
                let (one, two) = pick(rng, &falls);
                words.swap(one, two);
                one
            }
        };
        Ok(Planted { answer: self.write(&words.join(" ")), kind, place: Place::Rank(index) })
    }
}

fn join(letters: &[char]) -> String {
    letters.iter().map(char::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> List {
        let item = |letter, traits| Item { letter, traits };
        List {
            likes: vec!["tea", "calm"],
            unwanted: None,
            items: vec![
                item('a', ["red", "tea", "loud"]),
                item('b', ["blue", "cake", "wild"]),
                item('c', ["red", "tea", "calm"]),
            ],
        }
    }

    #[test]
    fn prompt_reference_and_critiques() {
        let list = three();
        assert_eq!(
            list.prompt(),
            "rank for who likes tea, calm\n- red tea, loud: a\n- blue cake, wild: b\n- red tea, calm: c"
        );
        assert_eq!(list.grades(), [1.0, 0.0, 2.0]);
        assert_eq!(list.reference(), "a tea 1\nb 0\nc tea calm 2\nc a b");
        let said = |answer| list.explain(answer, Detail::Correction).unwrap();
        assert_eq!(said("c, a, b."), "all right");
        assert_eq!(said("c b a"), "b: order, fits less, use a");
        assert_eq!(said("c a"), "b: missing, not ranked, use b");
        assert_eq!(said("c c a b"), "c: repeat, there already, use nothing");
        assert_eq!(said("c x a b"), "x: unknown, not on the list, use nothing");
        assert_eq!(said("first c"), "first: format, not a letter, use letters");
        assert_eq!(said("a tea 1\nb 0\nc tea calm 2\nc a b"), "all right");
        assert_eq!(said("a: tea 1\n\nc a b"), "all right");
        assert_eq!(said("a tea 1\nb 1\nc tea calm 2\nc a b"), "step 2: grade, b is not 1, use b 0");
        assert_eq!(
            said("a 0\nb 1\nc tea calm 2\nb c a"),
            "step 1: grade, a is not 0, use a tea 1\nstep 2: grade, b is not 1, use b 0"
        );
        assert_eq!(list.explain("a 0\nb 1\nc 2\nc b a", Detail::Verdict).unwrap(), "wrong");
        assert_eq!(said("a tea 1\nc tea calm 2\nc a b"), "step 2: grade, b is next, use b 0");
        assert_eq!(said("a tea\nc a b"), "step 1: format, not a grade, use a tea 1");
        assert_eq!(said("a tea 1\nb 0\nc tea calm 2"), "tea: format, not a letter, use letters");
        assert_eq!(said("a 1\nb 0\nc 2\nd 0\nc a b"), "step 4: format, no more items, use nothing");
        // Gains 3, 0, 1: DCG 3 + 1/2; ideal 3 + 1/log2 3.
        let expected = 3.5 / (3.0 + 1.0 / 3f64.log2());
        assert!((list.judge("c b a").score - expected).abs() < 1e-12);
        assert!(list.judge("c b a").result_right && !list.judge("a c b").result_right);
    }

    #[test]
    fn an_unwanted_trait_outweighs_all_others() {
        let list = List { unwanted: Some("red"), ..three() };
        assert_eq!(list.grades(), [0.0, 0.0, 0.0]);
        assert!(list.prompt().starts_with("rank for who likes tea, calm, not red\n"));
    }
}
