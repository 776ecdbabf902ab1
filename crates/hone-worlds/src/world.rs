//! The two traits every world implements, and what a check says.

use std::fmt;
use std::ops::RangeInclusive;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::seed::pick;

/// A source of tasks with an exact oracle.
pub trait World: fmt::Debug + Send + Sync {
    /// Short name, as in `--world sums`.
    fn id(&self) -> &'static str;

    /// One paragraph: what is asked and what counts as right.
    fn about(&self) -> &'static str;

    /// What to tell a model that was not trained on this world, as a system message.
    fn instructions(&self) -> &'static str;

    /// Difficulties, easiest first. The middle one is what the built-in model is measured on.
    fn levels(&self) -> RangeInclusive<u32>;

    /// Kinds of error that [`Task::plant`] makes.
    fn kinds(&self) -> &'static [&'static str];

    /// The task of this level and seed.
    /// # Errors
    /// [`Error::Setting`] if the level is outside [`World::levels`].
    fn task(&self, level: u32, seed: u64) -> Result<Box<dyn Task>>;

    /// Whether checking an answer runs a program, which takes milliseconds, not microseconds.
    fn runs_programs(&self) -> bool {
        false
    }

    /// The level between the easiest and the hardest.
    fn middle(&self) -> u32 {
        let levels = self.levels();
        levels.start() + (levels.end() - levels.start()) / 2
    }
}

/// One prompt and everything its oracle knows about it.
pub trait Task: fmt::Debug + Send + Sync {
    /// What the model is asked.
    fn prompt(&self) -> String;

    /// A right answer.
    fn reference(&self) -> String;

    /// Judges an answer exactly. An answer of any shape gets a check.
    /// # Errors
    /// Only where a program is run and cannot be: [`Error::Sandbox`].
    fn check(&self, answer: &str) -> Result<Check>;

    /// What is first wrong in the answer, in words, or all errors that can be mended apart from each other, one per line,
    /// the first one first. Right answers get [`ALL_RIGHT`] at every level of detail.
    /// # Errors
    /// As [`Task::check`].
    fn explain(&self, answer: &str, detail: Detail) -> Result<String> {
        Ok(self.check(answer)?.first().map_or_else(|| ALL_RIGHT.to_string(), |flaw| flaw.words(detail)))
    }

    /// What an answer is like, as named numbers that a person may care about.
    ///
    /// Every world has `score` (in `[0, 1]`) and `length` (words); some have more.
    /// # Errors
    /// As [`Task::check`].
    fn traits(&self, answer: &str) -> Result<Vec<(&'static str, f64)>> {
        Ok(vec![("score", self.check(answer)?.score), ("length", answer.split_whitespace().count() as f64)])
    }

    /// What somebody of this skill in `[0, 1]` would answer: right at 1, mostly wrong at 0.
    fn attempt(&self, skill: f64, rng: &mut ChaCha8Rng) -> String {
        let kinds = self.plantable();
        if rng.random::<f64>() < skill || kinds.is_empty() {
            return self.reference();
        }
        let planted = self.plant(pick(rng, &kinds), rng);
        planted.map_or_else(|_| self.reference(), |planted| planted.answer)
    }

    /// Kinds of error that can be planted in this very task, a subset of [`World::kinds`].
    fn plantable(&self) -> Vec<&'static str>;

    /// A wrong answer whose first error is of this kind.
    /// # Errors
    /// [`Error::Plant`] if the kind is not among [`Task::plantable`].
    fn plant(&self, kind: &str, rng: &mut ChaCha8Rng) -> Result<Planted>;
}

/// The critique of an answer without an error.
pub const ALL_RIGHT: &str = "all right";

/// How much a critique tells, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Only that something is wrong.
    Verdict,
    /// And where.
    Place,
    /// And of which kind.
    Kind,
    /// And what came, without what would be right: for protocols that mask the answer.
    Reason,
    /// And what would be right.
    Correction,
}

impl Detail {
    /// All levels, least first.
    pub const ALL: [Detail; 5] =
        [Detail::Verdict, Detail::Place, Detail::Kind, Detail::Reason, Detail::Correction];
}

/// Where an error is. Everything is counted from 0; texts count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The answer as a whole.
    Whole,
    /// A step, one per line.
    Step(usize),
    /// A line of a program.
    Line(usize),
    /// A place in a ranking.
    Rank(usize),
    /// Unicode scalar values `start..end` of the answer.
    Span(usize, usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Whole => write!(f, "answer"),
            Place::Step(index) => write!(f, "step {}", index + 1),
            Place::Line(index) => write!(f, "line {}", index + 1),
            Place::Rank(index) => write!(f, "place {}", index + 1),
            Place::Span(start, end) => write!(f, "letters {} to {end}", start + 1),
        }
    }
}

/// One error in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// One of [`World::kinds`], or another that the world's documentation names.
    pub kind: &'static str,
    /// Where it is.
    pub place: Place,
    /// How the place is called in a critique; empty means as [`Place`] prints.
    pub name: String,
    /// What came, as a phrase after the place: `12-3 is not 8`.
    pub reason: String,
    /// What would be right, as a phrase: `12-3=9`.
    pub correction: String,
}

impl Flaw {
    /// The flaw in words, at one level of detail.
    pub fn words(&self, detail: Detail) -> String {
        let place = if self.name.is_empty() { self.place.to_string() } else { self.name.clone() };
        match detail {
            Detail::Verdict => "wrong".to_string(),
            Detail::Place => format!("{place} is wrong"),
            Detail::Kind => format!("{place}: {}", self.kind),
            Detail::Reason => format!("{place}: {}, {}", self.kind, self.reason),
            Detail::Correction => {
                format!("{place}: {}, {}, use {}", self.kind, self.reason, self.correction)
            }
        }
    }
}

/// The oracle's judgement of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Whether the answer is right in every respect the world asks for.
    pub right: bool,
    /// How good it is, in `[0, 1]`; 1 exactly when right.
    pub score: f64,
    /// Whether the answer has the shape that was asked for at all.
    pub well_formed: bool,
    /// Whether the end result is right, however it was reached.
    pub result_right: bool,
    /// Every error found, the first one first.
    pub flaws: Vec<Flaw>,
}

impl Check {
    /// The check of a right answer.
    pub fn all_right() -> Self {
        Check { right: true, score: 1.0, well_formed: true, result_right: true, flaws: Vec::new() }
    }

    /// The first error, if there is one.
    pub fn first(&self) -> Option<&Flaw> {
        self.flaws.first()
    }
}

/// A wrong answer made on purpose.
#[derive(Debug, Clone, PartialEq)]
pub struct Planted {
    /// The wrong answer.
    pub answer: String,
    /// The kind that was planted.
    pub kind: &'static str,
    /// Where it was planted.
    pub place: Place,
}

/// Every world at its default settings, in the order of the design's table.
pub fn worlds() -> Vec<Box<dyn World>> {
    vec![
        Box::new(crate::sums::Sums::default()),
        Box::new(crate::programs::Programs::default()),
        Box::new(crate::notes::Notes),
        Box::new(crate::lists::Lists),
    ]
}

/// The world with this id.
/// # Errors
/// [`Error::UnknownWorld`], which lists the ids there are.
pub fn world(id: &str) -> Result<Box<dyn World>> {
    let mut all = worlds();
    match all.iter().position(|world| world.id() == id) {
        Some(at) => Ok(all.swap_remove(at)),
        None => {
            let allowed = all.iter().map(|world| world.id()).collect::<Vec<_>>().join(", ");
            Err(Error::UnknownWorld { allowed, got: id.to_string() })
        }
    }
}

/// The level if the world has it.
pub(crate) fn expect_level(world: &dyn World, level: u32) -> Result<u32> {
    let levels = world.levels();
    if levels.contains(&level) {
        Ok(level)
    } else {
        let needed = format!("{} to {}", levels.start(), levels.end());
        Err(Error::setting(world.id(), "level", needed, level))
    }
}

/// The kind's static name if it is among those allowed.
pub(crate) fn expect_kind(world: &'static str, allowed: &[&'static str], kind: &str) -> Result<&'static str> {
    let found = allowed.iter().copied().find(|name| *name == kind);
    found.ok_or_else(|| Error::plant(world, kind, format!("one of {}", allowed.join(", "))))
}
