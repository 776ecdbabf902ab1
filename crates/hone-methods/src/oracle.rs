//! What can check an answer: a world's own rules, or whatever a caller brings.

use std::collections::HashMap;
use std::sync::Mutex;

use hone_feedback::Record;
use hone_worlds::{Detail, World};

use crate::error::{Error, Result};

/// The judgement of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Right in every respect.
    pub right: bool,
    /// How good, in `[0, 1]`.
    pub score: f64,
    /// Whether it has the shape that was asked for.
    pub well_formed: bool,
    /// What is first wrong, in words.
    pub words: String,
}

/// Checks answers to the prompts of records.
pub trait Oracle: std::fmt::Debug + Send + Sync {
    /// The verdict, or `None` where it does not know this record's task.
    ///
    /// # Errors
    /// Where a check cannot be run at all.
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>>;
}

/// The built-in worlds: for records that say in `task` which task they ask (`world`, `level`, `seed`).
#[derive(Debug, Default)]
pub struct Worlds {
    worlds: Mutex<HashMap<String, std::sync::Arc<dyn World>>>,
}

impl Worlds {
    /// Whether this record says which task it asks.
    pub fn knows(record: &Record) -> bool {
        record.extra.get("task").is_some_and(|task| task.get("world").is_some())
    }

    fn world(&self, id: &str) -> Result<std::sync::Arc<dyn World>> {
        let mut worlds = self.worlds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(world) = worlds.get(id) {
            return Ok(world.clone());
        }
        let world: std::sync::Arc<dyn World> = hone_worlds::world(id)?.into();
        worlds.insert(id.to_owned(), world.clone());
        Ok(world)
    }
}

impl Oracle for Worlds {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        let Some(task) = record.extra.get("task") else { return Ok(None) };
        let field = |name: &str| {
            task.get(name).ok_or_else(|| Error::File {
                path: format!("record {}", record.id),
                problem: format!("`task` needs `world`, `level` and `seed`; `{name}` is missing"),
            })
        };
        let number = |name: &str| {
            field(name)?.as_u64().ok_or_else(|| Error::File {
                path: format!("record {}", record.id),
                problem: format!("`task.{name}` needs a whole number"),
            })
        };
        let world = self.world(field("world")?.as_str().unwrap_or_default())?;
        let task = world.task(number("level")? as u32, number("seed")?)?;
        let check = task.check(answer)?;
        let words = check.first().map_or_else(String::new, |flaw| flaw.words(Detail::Correction));
        let (right, score, well_formed) = (check.right, check.score, check.well_formed);
        Ok(Some(Verdict { right, score, well_formed, words }))
    }
}
