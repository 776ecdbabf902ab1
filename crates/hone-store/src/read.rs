//! Records put together from rows.

use std::collections::HashMap;

use hone_feedback::Record;

use crate::error::{Error, Result};
use crate::rows::line;
use crate::sql::{Sql, Value};
use crate::store::{Lines, Tally, Waiting};

/// The pieces of an exchange as they are stored.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    pub seq: i64,
    pub id: String,
    pub prompt: String,
    pub split: Option<String>,
    pub extra: String,
    pub responses: Vec<String>,
    pub feedback: Vec<String>,
}

/// The exchanges of these numbers, in their order; those that are gone are left out.
pub(crate) fn pieces(sql: &mut dyn Sql, seqs: &[i64]) -> Result<Vec<Pieces>> {
    let keys: Vec<Value> = seqs.iter().map(|seq| Value::Int(*seq)).collect();
    let mut all: HashMap<i64, Pieces> = HashMap::new();
    for mut row in sql.find("SELECT seq, id, prompt, split, extra FROM exchange WHERE seq", &keys, "")? {
        let (seq, id, prompt) = (row.int(0), row.text(1), row.text(2));
        let (split, extra) = (row.maybe_text(3), row.text(4));
        all.insert(seq, Pieces { seq, id, prompt, split, extra, ..Pieces::default() });
    }
    let mut rows = sql.find("SELECT exchange, place, body FROM response WHERE exchange", &keys, "")?;
    rows.sort_by_key(|row| (row.int(0), row.int(1)));
    for mut row in rows {
        if let Some(pieces) = all.get_mut(&row.int(0)) {
            pieces.responses.push(row.text(2));
        }
    }
    let mut rows = sql.find("SELECT exchange, place, body FROM feedback WHERE exchange", &keys, "")?;
    rows.sort_by_key(|row| (row.int(0), row.int(1)));
    for mut row in rows {
        if let Some(pieces) = all.get_mut(&row.int(0)) {
            pieces.feedback.push(row.text(2));
        }
    }
    Ok(seqs.iter().filter_map(|seq| all.remove(seq)).collect())
}

impl Pieces {
    /// The line of a Hone log.
    pub fn line(&self) -> String {
        line(&self.id, &self.prompt, &self.responses, &self.feedback, self.split.as_deref(), &self.extra)
    }

    /// The record.
    pub fn record(&self) -> Result<Record> {
        Record::from_json(self.line().as_bytes())
            .map_err(|fault| Error::unsound(format!("stored record {:?}", self.id), fault))
    }
}

/// The records of these numbers.
pub(crate) fn records(sql: &mut dyn Sql, seqs: &[i64]) -> Result<Vec<Record>> {
    pieces(sql, seqs)?.iter().map(Pieces::record).collect()
}

/// The record of this id, or with a response of this id.
pub(crate) fn get(sql: &mut dyn Sql, id: &str) -> Result<Option<Record>> {
    let mut rows = sql.query("SELECT seq FROM exchange WHERE id = $1", &[id.into()])?;
    if rows.is_empty() {
        rows = sql.query("SELECT DISTINCT exchange FROM response WHERE id = $1 LIMIT 2", &[id.into()])?;
    }
    match rows.as_slice() {
        [only] => Ok(records(sql, &[only.int(0)])?.pop()),
        _ => Ok(None),
    }
}

/// A part of the log.
pub(crate) fn lines(sql: &mut dyn Sql, after: i64, limit: usize) -> Result<Lines> {
    let limit = limit.clamp(1, 10_000);
    let rows = sql.query(
        "SELECT seq FROM exchange WHERE seq > $1 ORDER BY seq LIMIT $2",
        &[Value::Int(after), Value::Int(limit as i64)],
    )?;
    let seqs: Vec<i64> = rows.iter().map(|row| row.int(0)).collect();
    let next = if seqs.len() == limit { seqs.last().copied() } else { None };
    Ok(Lines { lines: pieces(sql, &seqs)?.iter().map(Pieces::line).collect(), next })
}

/// Sums of days.
pub(crate) fn tallies(sql: &mut dyn Sql, first: i64, last: i64) -> Result<Vec<Tally>> {
    let rows = sql.query(
        "SELECT day, model, what, count, sum, squares FROM tally WHERE day >= $1 AND day <= $2 AND count > 0
         ORDER BY day, model, what",
        &[Value::Int(first), Value::Int(last)],
    )?;
    let tally = |mut row: crate::sql::Row| Tally {
        day: row.int(0),
        model: row.text(1),
        what: row.text(2),
        count: row.int(3),
        sum: row.maybe_real(4).unwrap_or_default(),
        squares: row.maybe_real(5).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(tally).collect())
}

/// Feedback that is not joined.
pub(crate) fn waiting(sql: &mut dyn Sql) -> Result<Vec<Waiting>> {
    let rows =
        sql.query("SELECT seq, waits, fault, body FROM feedback WHERE waits IS NOT NULL ORDER BY seq", &[])?;
    let mut out = Vec::with_capacity(rows.len());
    for mut row in rows {
        let id = format!("fb-{}", row.int(0));
        let feedback = crate::rows::feedback(&row.text(3))
            .map_err(|fault| Error::unsound(format!("stored feedback {id:?}"), fault))?;
        out.push(Waiting { id, names: row.text(1), fault: row.maybe_text(2), feedback });
    }
    Ok(out)
}
