//! The report of a run: plain data in, one self-contained HTML file out.
//!
//! [`Report`] holds one structure per section; [`Report::to_html`] renders it, and [`Outcome`] displays as the table
//! for the terminal. Everything that comes from a log is taken for hostile and escaped in one place, the formatter in
//! `page.rs`. Knows nothing of how a run is made.

mod axis;
mod chart;
mod head;
mod interval_plot;
mod left_out;
mod log;
mod number;
mod outcome;
mod page;
mod plan;
mod samples;
mod text;
mod themes;
mod words;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use chart::{Chart, Point, Series};
pub use head::{Head, ModelLine};
pub use left_out::{LeftOut, Stage};
pub use log::{Agreement, Finding, Lengths, LogSection, Source, Usable};
pub use outcome::{Baseline, Better, Change, Estimate, Measure, Outcome, Unit, Verdict};
pub use plan::{NotChosen, Plan, Step};
pub use samples::{Said, Sample, Samples, Score, Turn};
pub use themes::{Contrast, Quote, Side, Term, ThemeCounter, ThemeSettings, Themes, log_odds_ratio};

/// All that is told about one run. Every section may be empty; the page says so in its place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// What was run.
    pub head: Head,
    /// Start against result on held-out prompts.
    pub outcome: Outcome,
    /// What was in the log.
    pub log: LogSection,
    /// What people write about.
    pub themes: Themes,
    /// What was done, and what was not.
    pub plan: Plan,
    /// Training curves; those of one step stand together.
    pub charts: Vec<Chart>,
    /// Both answers to the same held-out prompts.
    pub samples: Samples,
    /// What was left out, and why.
    pub left_out: Vec<LeftOut>,
}
