//! Sums per day and model, kept up in the transaction of each write, so that a dashboard reads few rows.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::rows::{Exchange, Item};
use crate::sql::{Row, Sql, Value};

/// Changes to the sums that a transaction has made. Ordered, so that all writers lock rows in one order.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<(i64, String, String), (i64, f64, f64)>);

impl Tally {
    /// Counts `sign` things of a day; `value` is summed where there is one.
    pub fn add(&mut self, day: i64, model: Option<&str>, what: &str, value: Option<f64>, sign: i64) {
        let key = (day, model.unwrap_or_default().to_owned(), what.to_owned());
        let sums = self.0.entry(key).or_default();
        let value = value.unwrap_or_default();
        sums.0 += sign;
        sums.1 += sign as f64 * value;
        sums.2 += sign as f64 * value * value;
    }

    /// Counts an exchange with its responses; its feedback is counted apart.
    pub fn exchange(&mut self, exchange: &Exchange) {
        self.add(exchange.day, None, "exchange", None, 1);
        for answer in &exchange.responses {
            let model = answer.model.as_deref();
            self.response(
                exchange.day,
                model,
                [
                    answer.prompt_tokens.map(|n| n as f64),
                    answer.completion_tokens.map(|n| n as f64),
                    answer.latency_ms,
                ],
                1,
            );
        }
    }

    /// Counts a response: its tokens in, tokens out and milliseconds.
    pub fn response(&mut self, day: i64, model: Option<&str>, sizes: [Option<f64>; 3], sign: i64) {
        self.add(day, model, "response", None, sign);
        for (what, size) in ["prompt_tokens", "completion_tokens", "latency_ms"].into_iter().zip(sizes) {
            if size.is_some() {
                self.add(day, model, what, size, sign);
            }
        }
    }

    /// Counts feedback on a response of `model`. What says how good a response is counts as such only with a value.
    pub fn feedback(&mut self, item: &Item) {
        self.said(item.day, item.model.as_deref(), &item.what, item.value, 1);
    }

    /// Counts feedback by its parts.
    pub fn said(&mut self, day: i64, model: Option<&str>, what: &str, value: Option<f64>, sign: i64) {
        // A rating without a scale has no place between 0 and 1.
        let what = if what == "rating" && value.is_none() { "rating without scale" } else { what };
        self.add(day, model, what, value, sign);
    }

    /// Writes the changes.
    pub fn write(&mut self, sql: &mut dyn Sql) -> Result<()> {
        for ((day, model, what), (count, sum, squares)) in std::mem::take(&mut self.0) {
            if count == 0 && sum == 0.0 {
                continue;
            }
            sql.execute(
                "INSERT INTO tally(day, model, what, count, sum, squares) VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT(day, model, what) DO UPDATE SET count = tally.count + excluded.count,
                    sum = tally.sum + excluded.sum, squares = tally.squares + excluded.squares",
                &[
                    Value::Int(day),
                    (&model).into(),
                    (&what).into(),
                    Value::Int(count),
                    Value::Real(sum),
                    Value::Real(squares),
                ],
            )?;
        }
        Ok(())
    }
}

/// The event in a stored item, for [`Item::what`].
pub(crate) fn what_of(form: &str, body: &str) -> String {
    if form != "event" {
        return form.to_owned();
    }
    let event = serde_json::from_str::<hone_feedback::Feedback>(body).ok();
    let item = event.and_then(|feedback| Item::new(&feedback, None, 0).ok());
    item.map_or_else(|| form.to_owned(), |item| item.what)
}

/// Computes every sum anew from the rows.
pub(crate) fn fill(sql: &mut dyn Sql) -> Result<()> {
    let mut tally = Tally::default();
    for row in sql.query("SELECT day, count(*) FROM exchange GROUP BY day", &[])? {
        for _ in 0..row.int(1) {
            tally.add(row.int(0), None, "exchange", None, 1);
        }
    }
    let mut after = 0;
    loop {
        let rows = sql.query(
            "SELECT e.seq, e.day, r.model, r.prompt_tokens, r.completion_tokens, r.latency_ms
             FROM exchange e JOIN response r ON r.exchange = e.seq WHERE e.seq > $1 AND e.seq <= $2",
            &[Value::Int(after), Value::Int(after + 1000)],
        )?;
        let feedback = sql.query(
            "SELECT exchange, day, model, form, value, body FROM feedback WHERE exchange > $1 AND exchange <= $2",
            &[Value::Int(after), Value::Int(after + 1000)],
        )?;
        for mut row in rows {
            let model = row.maybe_text(2);
            let sizes = [row.maybe_real(3), row.maybe_real(4), row.maybe_real(5)];
            tally.response(row.int(1), model.as_deref(), sizes, 1);
        }
        for mut row in feedback {
            count_row(&mut tally, &mut row, 1);
        }
        after += 1000;
        let last = sql.query("SELECT max(seq) FROM exchange", &[])?;
        if last.first().is_none_or(|row| row.int(0) <= after) {
            break;
        }
    }
    tally.write(sql)
}

/// Counts a row of (exchange, day, model, form, value, body).
pub(crate) fn count_row(tally: &mut Tally, row: &mut Row, sign: i64) {
    let (model, form, body) = (row.maybe_text(2), row.text(3), row.text(5));
    tally.said(row.int(1), model.as_deref(), &what_of(&form, &body), row.maybe_real(4), sign);
}
