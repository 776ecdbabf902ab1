//! What used what, and the deletion of a person's part in it.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::search::document;
use crate::sql::{Row, Value};
use crate::store::{Forgotten, Run};
use crate::tally;
use crate::write::Tx;

/// What is needed of feedback to delete it.
const COLUMNS: &str = "SELECT exchange, day, model, form, value, body, seq, place FROM feedback WHERE";

impl Tx<'_> {
    /// [`crate::Store::record_run`].
    pub fn record_run(&mut self, run: &Run, items: &[String]) -> Result<()> {
        for text in items.iter().chain([&run.id]) {
            crate::rows::name("id", text).map_err(|fault| Error::unsound("run", fault))?;
        }
        let known = self.sql.query("SELECT model FROM run WHERE id = $1", &[(&run.id).into()])?;
        match known.into_iter().next().map(|mut row| row.text(0)) {
            Some(model) if model != run.model => {
                return Err(Error::Conflict { what: format!("run {:?}", run.id), field: "model".into() });
            }
            Some(_) => {}
            None => {
                let row = [(&run.id).into(), (&run.model).into(), Value::Int(crate::rows::now())];
                self.sql.execute("INSERT INTO run(id, model, at) VALUES ($1, $2, $3)", &row)?;
            }
        }
        for item in items {
            self.sql.execute(
                "INSERT INTO run_item(item, run) VALUES ($1, $2) ON CONFLICT(item, run) DO NOTHING",
                &[item.into(), (&run.id).into()],
            )?;
        }
        Ok(())
    }

    /// [`crate::Store::forget`].
    pub fn forget(&mut self, person: &str) -> Result<Forgotten> {
        let shown = self.sql.query("SELECT seq FROM exchange WHERE shown = $1", &[person.into()])?;
        let wrote =
            self.sql.query("SELECT DISTINCT exchange FROM response WHERE model = $1", &[person.into()])?;
        let mut exchanges: HashSet<i64> = shown.iter().chain(&wrote).map(|row| row.int(0)).collect();
        let mut said = self.sql.query(&format!("{COLUMNS} person = $1"), &[person.into()])?;
        let spoken_on: HashSet<i64> = said.iter().filter_map(|row| row.maybe_int(0)).collect();
        // Runs are asked for before what they used is gone.
        let touched: Vec<Value> = exchanges.union(&spoken_on).map(|seq| Value::Int(*seq)).collect();
        let mut ids = self.sql.find("SELECT id FROM exchange WHERE seq", &touched, "")?;
        let mut names: Vec<String> = ids.iter_mut().map(|row| row.text(0)).collect();
        exchanges.extend(self.empty_rules(&said)?);
        let keys: Vec<Value> = exchanges.iter().map(|seq| Value::Int(*seq)).collect();
        said.extend(self.sql.find(&format!("{COLUMNS} exchange"), &keys, "")?);
        let mut seen = HashSet::new();
        said.retain(|row| seen.insert(row.int(6)));
        names.extend(said.iter().map(|row| format!("fb-{}", row.int(6))));
        let runs = self.runs_of(&names)?;

        let count = said.len();
        let deleted = self.delete(said, exchanges)?;
        Ok(Forgotten { feedback: count, exchanges: deleted, runs })
    }

    /// [`crate::Store::unsay`].
    pub fn unsay(&mut self, keys: &[String]) -> Result<usize> {
        let keys: Vec<Value> = keys.iter().map(Value::from).collect();
        let said = self.sql.find(&format!("{COLUMNS} key"), &keys, "")?;
        let exchanges = self.empty_rules(&said)?.into_iter().collect();
        let count = said.len();
        self.delete(said, exchanges)?;
        Ok(count)
    }

    /// Deletes rows of [`COLUMNS`], and exchanges without feedback beside them. Gives the names of the exchanges.
    fn delete(&mut self, mut said: Vec<Row>, exchanges: HashSet<i64>) -> Result<Vec<String>> {
        let mut documents: Vec<i64> = exchanges.iter().filter_map(|seq| document(*seq, 0)).collect();
        for row in &mut said {
            if let Some(exchange) = row.maybe_int(0) {
                documents.extend(document(exchange, row.int(7)));
                tally::count_row(&mut self.tally, row, -1);
            }
            self.sql.execute("DELETE FROM feedback WHERE seq = $1", &[Value::Int(row.int(6))])?;
        }
        self.sql.unindex(&documents)?;
        let mut deleted = Vec::new();
        let mut ordered: Vec<i64> = exchanges.into_iter().collect();
        ordered.sort_unstable();
        for seq in ordered {
            let seq = [Value::Int(seq)];
            let Some(mut row) = self.sql.query("SELECT id, day FROM exchange WHERE seq = $1", &seq)?.pop()
            else {
                continue;
            };
            deleted.push(row.text(0));
            let day = row.int(1);
            self.tally.add(day, None, "exchange", None, -1);
            let select = "SELECT model, prompt_tokens, completion_tokens, latency_ms FROM response WHERE exchange = $1";
            for mut row in self.sql.query(select, &seq)? {
                let model = row.maybe_text(0);
                let sizes = [row.maybe_real(1), row.maybe_real(2), row.maybe_real(3)];
                self.tally.response(day, model.as_deref(), sizes, -1);
            }
            for table in ["response", "tag"] {
                self.sql.execute(&format!("DELETE FROM {table} WHERE exchange = $1"), &seq)?;
            }
            self.sql.execute("DELETE FROM exchange WHERE seq = $1", &seq)?;
        }
        Ok(deleted)
    }

    /// Exchanges that held nothing but a rule of those said.
    fn empty_rules(&mut self, said: &[Row]) -> Result<Vec<i64>> {
        let mut out = Vec::new();
        for row in said {
            let Some(seq) = row.maybe_int(0) else { continue };
            let left = self.sql.query(
                "SELECT 1 FROM exchange e WHERE e.seq = $1 AND e.prompt = '[]' AND e.id LIKE 'rule-%'
                 AND NOT EXISTS(SELECT 1 FROM response r WHERE r.exchange = e.seq)
                 AND NOT EXISTS(SELECT 1 FROM feedback f WHERE f.exchange = e.seq AND f.seq <> $2)",
                &[Value::Int(seq), Value::Int(row.int(6))],
            )?;
            if !left.is_empty() {
                out.push(seq);
            }
        }
        Ok(out)
    }

    fn runs_of(&mut self, names: &[String]) -> Result<Vec<Run>> {
        let keys: Vec<Value> = names.iter().map(Value::from).collect();
        runs(self.sql, &keys)
    }
}

/// The runs that used any of these items, by id.
pub(crate) fn runs(sql: &mut dyn crate::sql::Sql, items: &[Value]) -> Result<Vec<Run>> {
    let select = "SELECT r.id, r.model FROM run_item i JOIN run r ON r.id = i.run WHERE i.item";
    let mut runs: Vec<Run> = sql
        .find(select, items, "")?
        .into_iter()
        .map(|mut row| Run { id: row.text(0), model: row.text(1) })
        .collect();
    runs.sort_by(|a, b| a.id.cmp(&b.id));
    runs.dedup();
    Ok(runs)
}
