//! What was run: the lines at the top of a report.

use serde::{Deserialize, Serialize};

use super::number::or_nan;

/// What was run, so that it can be run again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// The title of the report, as in `feedback.jsonl, improved`.
    pub title: String,
    /// The command exactly as it was given, ready to paste into a shell.
    pub command: String,
    /// When the run began, as the caller wants it read, as in `2026-11-25 14:03 UTC`.
    pub date: String,
    /// Wall time of the whole run, seconds.
    #[serde(deserialize_with = "or_nan")]
    pub seconds: f64,
    /// The one seed of the run.
    pub seed: u64,
    /// What ran, each with its version: `hone`, `candle`, the operating system, the processor.
    pub versions: Vec<(String, String)>,
    /// The model that the run began with.
    pub model: ModelLine,
    /// Anything else about the run worth knowing at once: stopped by the budget, resumed, a smaller batch taken.
    pub notes: Vec<String>,
}

/// A model in one line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelLine {
    /// Its name or folder.
    pub name: String,
    /// Parameters; 0: unknown, as of an endpoint.
    pub parameters: u64,
    /// Where the result lies, as in `out/model`. None: nothing was written.
    pub written_to: Option<String>,
}

impl Head {
    /// A head with a title and the command that was run.
    pub fn new(title: impl Into<String>, command: impl Into<String>) -> Self {
        Head { title: title.into(), command: command.into(), ..Head::default() }
    }

    /// The same head with one more version.
    #[must_use]
    pub fn version(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.versions.push((name.into(), version.into()));
        self
    }
}
