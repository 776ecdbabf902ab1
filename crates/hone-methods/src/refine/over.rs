//! Refining the answers to every prompt of a log, kept as it goes.

use std::collections::BTreeMap;

use hone_feedback::Record;
use hone_nn::train::seed::sub_seed;
use serde::{Deserialize, Serialize};

use super::trace::{Point, Trace, curve};
use crate::error::Result;
use crate::evaluate::journal::{Journal, Row, carry_out};
use crate::oracle::{Checks, Oracle};

/// What came of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refined {
    /// Id of the record.
    pub record: String,
    /// The answer; `None` for a prompt that could not be asked.
    pub answer: Option<String>,
    /// How it came about; the index of its record is that within the file.
    pub trace: Option<Trace>,
    /// `[rounds]`: the true score of each attempt, apart from what the critic made of it; empty where nothing knows it.
    pub truth: Vec<f64>,
    /// Whether a call failed; it is made again when the run goes on.
    pub failed: bool,
}

impl Row for Refined {
    fn key(&self) -> String {
        self.record.clone()
    }

    fn lost(&self) -> bool {
        self.failed
    }
}

/// Runs `method` on the records that the journal lacks, `wave` at a time. It is given some records and a seed, and returns
/// traces whose `record` counts within them.
///
/// # Errors
/// Those of the method, of the checks and of the journal.
pub fn refine(
    records: &[Record],
    journal: &mut Journal,
    wave: usize,
    seed: u64,
    on: &mut dyn FnMut(usize, usize),
    mut method: impl FnMut(&[Record], u64) -> Result<Vec<Trace>>,
) -> Result<Vec<Refined>> {
    let keys: Vec<String> = records.iter().map(|record| record.id.clone()).collect();
    let checks = Checks::default();
    carry_out(&keys, journal, wave, on, |wave| {
        let asked: Vec<Record> = wave.iter().map(|&index| records[index].clone()).collect();
        let first = wave.first().copied().unwrap_or(0);
        let mut rows: Vec<Refined> = wave
            .iter()
            .map(|&index| {
                let record = records[index].id.clone();
                Refined { record, answer: None, trace: None, truth: vec![], failed: false }
            })
            .collect();
        for mut trace in method(&asked, sub_seed(seed, &keys[first]))? {
            let at = trace.record;
            let mut truth = vec![];
            for round in &trace.rounds {
                truth.extend(checks.check(&asked[at], &round.text)?.map(|verdict| verdict.score));
            }
            let lost = |round: &super::trace::Round| {
                round
                    .critique
                    .as_ref()
                    .is_some_and(|c| c.as_ref().is_err_and(crate::critique::Failure::is_lost))
            };
            let failed = trace.rounds.iter().any(lost);
            trace.record = wave[at];
            let answer = Some(trace.text().to_owned());
            rows[at] = Refined { answer, truth, failed, trace: Some(trace), ..rows[at].clone() };
        }
        Ok(rows)
    })
}

/// Quality against budget over all rows: the true score where it is known of every row that has a trace, else what the
/// critic made of the attempts, with the name of which it is; `None` where neither is known.
///
/// # Errors
/// None that rows of [`refine`] can meet.
pub fn quality(rows: &[Refined]) -> Result<Option<(&'static str, Vec<Point>)>> {
    let done: Vec<(&Refined, &Trace)> =
        rows.iter().filter_map(|row| Some((row, row.trace.as_ref()?))).collect();
    let true_of_all = done.iter().all(|(row, trace)| row.truth.len() == trace.rounds.len());
    let scored = done.iter().all(|(_, trace)| trace.rounds.iter().all(|round| round.score.is_some()));
    if done.is_empty() || !(true_of_all || scored) {
        return Ok(None);
    }
    let mut levels: BTreeMap<(usize, &str), f64> = BTreeMap::new();
    for (row, trace) in &done {
        for (at, round) in trace.rounds.iter().enumerate() {
            let level = if true_of_all { Some(row.truth[at]) } else { round.score };
            levels.insert((trace.record, &round.text), level.unwrap_or(0.0));
        }
    }
    let traces: Vec<Trace> = done.iter().map(|(_, trace)| (*trace).clone()).collect();
    let points = curve(&traces, |record, text| Ok(levels.get(&(record, text)).copied().unwrap_or(0.0)))?;
    Ok(Some((if true_of_all { "true score" } else { "critic's score" }, points)))
}
