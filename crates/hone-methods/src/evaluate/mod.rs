//! Protocols that measure feedback and what comes of it, each a method whose product is named figures.
//!
//! A protocol runs against any [`hone_lm::LanguageModel`]. What it finds is [`Measures`]; its items are kept in a
//! [`journal::Journal`] as they are done, so that an interrupted run goes on where it stopped.

pub mod calculate;
pub mod journal;
mod measures;
pub mod mint;
pub mod realcritic;
pub mod say;
pub mod sparse_feedback;

pub use measures::{Figure, Measures};

use std::path::Path;

use hone_feedback::Record;
use hone_lm::LanguageModel;
use hone_worlds::Task;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::method::Method;
use journal::Journal;

/// A protocol as the command runs it.
#[derive(Debug)]
pub struct Protocol {
    /// Its method.
    pub method: &'static Method,
    /// Runs it on data.
    pub run: fn(&mut Terms<'_>) -> Result<Measures>,
}

/// Every protocol, by id.
pub static PROTOCOLS: &[Protocol] = &[
    Protocol { method: &mint::MINT, run: mint::evaluate },
    Protocol { method: &realcritic::REALCRITIC, run: realcritic::evaluate },
    Protocol { method: &sparse_feedback::SPARSE_FEEDBACK, run: sparse_feedback::evaluate },
];

/// What a protocol is run with.
pub struct Terms<'a> {
    /// The model that is measured.
    pub model: &'a dyn LanguageModel,
    /// Another model that comments, judges or is compared with, where the protocol has one.
    pub other: Option<&'a dyn LanguageModel>,
    /// The folder of the protocol's data.
    pub data: &'a Path,
    /// Items of each set at most.
    pub most: usize,
    /// Settings of the method, where they differ from the defaults.
    pub settings: &'a toml::Table,
    /// Governs all that is drawn.
    pub seed: u64,
    /// Where items are kept.
    pub journal: Journal,
    /// Hears how many items are done and of how many.
    pub on: &'a mut dyn FnMut(usize, usize),
}

/// A task of a world that a record asks.
#[derive(Debug)]
pub struct WorldTask {
    /// The world's id.
    pub world: String,
    /// The record's id.
    pub id: String,
    /// The task.
    pub task: Box<dyn Task>,
}

/// The tasks of worlds that records ask. Records of others are left out.
///
/// # Errors
/// [`Error::Data`] if none is left; those of the worlds.
pub fn world_tasks(method: &str, records: &[Record]) -> Result<Vec<WorldTask>> {
    let mut tasks = vec![];
    for record in records {
        let Some(task) = record.extra.get("task") else { continue };
        let number = |name: &str| task.get(name).and_then(Value::as_u64);
        let Some((world, level, seed)) = task
            .get("world")
            .and_then(Value::as_str)
            .and_then(|world| Some((world, u32::try_from(number("level")?).ok()?, number("seed")?)))
        else {
            continue;
        };
        tasks.push(WorldTask {
            world: world.to_string(),
            id: record.id.clone(),
            task: hone_worlds::world(world)?.task(level, seed)?,
        });
    }
    match tasks.is_empty() {
        true => Err(Error::Data {
            method: method.into(),
            needed: "records that ask a task of a built-in world".into(),
            got: format!("none in {} records", records.len()),
        }),
        false => Ok(tasks),
    }
}

/// The JSON objects of a file, one a line. Lines end at LF alone.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] with the line at fault.
pub fn rows(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|e| Error::File {
                path: path.display().to_string(),
                problem: format!("line {}: {e}", index + 1),
            })
        })
        .collect()
}

/// Makes a language model of a type with `can`, its capabilities, and `reply`, which writes the one sample of a request:
/// drawn solvers, critics and annotators of the claims.
macro_rules! drawn_model {
    ($model:ty) => {
        impl hone_lm::LanguageModel for $model {
            fn capabilities(&self) -> &hone_lm::Capabilities {
                &self.can
            }

            fn generate(
                &self,
                requests: &[hone_lm::GenerateRequest],
                _: &mut dyn FnMut(hone_lm::model::Event),
            ) -> hone_lm::Result<Vec<hone_lm::Result<hone_lm::Generation>>> {
                let answer = |request: &hone_lm::GenerateRequest| {
                    let sample = hone_lm::Sample {
                        text: self.reply(request),
                        message: None,
                        tokens: None,
                        finish: hone_lm::model::FinishReason::Stop,
                    };
                    Ok(hone_lm::Generation {
                        samples: vec![sample],
                        usage: hone_lm::model::Usage::default(),
                        cost: None,
                        timings: hone_lm::model::Timings::default(),
                        model: String::new(),
                        attempts: 1,
                        raw: None,
                    })
                };
                Ok(requests.iter().map(answer).collect())
            }

            fn score(
                &self,
                _: &[hone_lm::ScoreRequest],
            ) -> hone_lm::Result<Vec<hone_lm::Result<hone_lm::Scored>>> {
                Ok(vec![])
            }

            fn embed(&self, _: &[String]) -> hone_lm::Result<Vec<Vec<f32>>> {
                Ok(vec![])
            }
        }
    };
}
use drawn_model;
