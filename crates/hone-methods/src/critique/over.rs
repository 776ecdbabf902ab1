//! Criticising every response of a log, kept as it goes.

use hone_feedback::Record;
use serde::{Deserialize, Serialize};

use super::{Critic, Critique, Failure, Reply, Subject, Tally};
use crate::error::Result;
use crate::evaluate::journal::{Journal, Row, carry_out};
use crate::refine::Cost;

/// What was said of one response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Criticised {
    /// Id of the record.
    pub record: String,
    /// Id of the response.
    pub response: String,
    /// The critique.
    pub critique: Option<Critique>,
    /// Why there is none.
    pub failed: Option<Failure>,
    /// Calls and tokens.
    pub cost: Cost,
    /// Checks by an oracle.
    pub checks: u64,
}

impl Row for Criticised {
    fn key(&self) -> String {
        key(&self.record, &self.response)
    }

    fn lost(&self) -> bool {
        self.failed.as_ref().is_some_and(Failure::is_lost)
    }
}

fn key(record: &str, response: &str) -> String {
    format!("{record}/{response}")
}

/// Criticises every response of the records that the journal lacks, `wave` at a time; `on` hears how many are done and of
/// how many. Rows stand in the order of the log.
///
/// # Errors
/// Those of the critic and of the journal.
pub fn criticise(
    critic: &dyn Critic,
    records: &[Record],
    journal: &mut Journal,
    wave: usize,
    seed: u64,
    on: &mut dyn FnMut(usize, usize),
) -> Result<(Vec<Criticised>, Tally)> {
    let of = |record: &Record| (0..record.responses.len()).collect::<Vec<_>>();
    let all: Vec<(&Record, usize)> =
        records.iter().flat_map(|record| of(record).into_iter().map(move |at| (record, at))).collect();
    let keys: Vec<String> =
        all.iter().map(|(record, at)| key(&record.id, &record.responses[*at].id)).collect();
    let rows = carry_out(&keys, journal, wave, on, |wave| {
        let subjects: Vec<Subject<'_>> = wave
            .iter()
            .map(|&index| Subject::of_response(all[index].0, &all[index].0.responses[all[index].1]))
            .collect();
        let first = wave.first().copied().unwrap_or(0);
        let replies = critic.criticise(&subjects, hone_nn::train::seed::sub_seed(seed, &keys[first]))?;
        let row = |(&index, Reply { said, cost, checks }): (&usize, Reply)| {
            let (record, at) = all[index];
            let (critique, failed) = match said {
                Ok(critique) => (Some(critique), None),
                Err(failure) => (None, Some(failure)),
            };
            let response = record.responses[at].id.clone();
            Criticised { record: record.id.clone(), response, critique, failed, cost, checks }
        };
        Ok(wave.iter().zip(replies).map(row).collect())
    })?;
    let mut tally = Tally::default();
    for row in &rows {
        let said =
            row.critique.clone().ok_or_else(|| row.failed.clone().unwrap_or_else(super::logged::nothing));
        tally.add(&Reply { said, cost: row.cost, checks: row.checks });
    }
    Ok((rows, tally))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::critique::Logged;
    use hone_feedback::Form;

    #[test]
    fn an_interrupted_run_goes_on_and_ends_as_one_that_was_not() {
        let record = |id: &str| {
            let critique = Form::Critique { on: Some("a".into()), text: format!("of {id}") };
            Record::new(id, "p").respond("a", "x").respond("b", "y").say(critique)
        };
        let records = [record("1"), record("2"), record("3")];
        let run = |records: &[Record], folder: &std::path::Path, resume: bool| {
            let mut journal = Journal::open(folder, &json!({"critic": "log"}), resume).unwrap();
            let mut asked = vec![];
            let done =
                criticise(&Logged, records, &mut journal, 2, 1, &mut |done, _| asked.push(done)).unwrap();
            (done, asked)
        };
        let (whole, halves) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (expected, asked) = run(&records, whole.path(), false);
        assert_eq!(asked, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!((expected.1.critiques, expected.1.failures.values().sum::<usize>()), (3, 3));
        run(&records[..2], halves.path(), false);
        let (again, asked) = run(&records, halves.path(), true);
        assert_eq!(again, expected);
        assert_eq!(asked, [4, 5, 6]);
    }
}
