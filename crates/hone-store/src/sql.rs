//! What the store asks of a database. Two of them answer, [`crate::sqlite`] and [`crate::postgres`]; everything
//! else is written once, above this seam.
//!
//! Statements number their arguments `$1`, `$2`, … in the order of their first appearance, which both databases
//! read. They use what both share; where they cannot, the trait has a function.

use crate::error::Result;

/// An argument of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(&'a str),
}

/// A cell of a row that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Real,
    Text,
}

/// A table with the columns that rows are written to.
#[derive(Debug)]
pub(crate) struct Table {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
}

/// A row that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row(pub Vec<Cell>);

/// The names that the dialects have for the same things, for `schema.rs`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    /// 64-bit whole numbers.
    pub int: &'static str,
    /// 64-bit floating point.
    pub real: &'static str,
    /// After a table whose rows lie in the order of the primary key.
    pub clustered: &'static str,
    /// Makes the table `words` of the full-text index.
    pub words: &'static str,
}

/// One connection to a database.
pub(crate) trait Sql: Send {
    /// The dialect's words.
    fn dialect(&self) -> Dialect;

    /// Starts a transaction that writes. There is one at a time, in all processes together.
    fn begin_write(&mut self) -> Result<()>;

    /// Starts a transaction that sees one state of the database.
    fn begin_read(&mut self) -> Result<()>;

    /// Ends it. When this returns from a write, what was written survives a loss of power.
    fn commit(&mut self) -> Result<()>;

    /// Ends it without effect.
    fn rollback(&mut self) -> Result<()>;

    /// Several statements without arguments.
    fn script(&mut self, sql: &str) -> Result<()>;

    /// Carries out a statement. Returns the number of rows it changed.
    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64>;

    /// The rows that a statement gives.
    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>>;

    /// The rows for each of many keys: `select` ends in the column that has to equal one of them, `tail` follows.
    /// No order is promised.
    fn find(&mut self, select: &str, keys: &[Value], tail: &str) -> Result<Vec<Row>>;

    /// Writes rows.
    fn insert(&mut self, table: &Table, rows: &[Vec<Value>]) -> Result<()>;

    /// Puts documents into the full-text index, in place of those with the same numbers. Each is a list of words.
    fn index(&mut self, documents: &[(i64, String)]) -> Result<()>;

    /// Takes documents out of it.
    fn unindex(&mut self, documents: &[i64]) -> Result<()>;

    /// The numbers of documents below `before` that `query` matches, from the highest down.
    fn matches(&mut self, query: &crate::search::Terms, before: i64, limit: i64) -> Result<Vec<i64>>;

    /// Told before and after a deletion that must leave no trace in the files.
    fn wipe(&mut self, on: bool) -> Result<()>;

    /// Whether the connection can serve on after an error.
    fn is_sound(&mut self) -> bool;
}

impl Row {
    /// The whole number at `column`; 0 where there is none.
    pub fn int(&self, column: usize) -> i64 {
        match self.0.get(column) {
            Some(Cell::Int(value)) => *value,
            Some(Cell::Real(value)) => *value as i64,
            _ => 0,
        }
    }

    /// The number at `column`, if there is one.
    pub fn maybe_int(&self, column: usize) -> Option<i64> {
        match self.0.get(column) {
            Some(Cell::Int(value)) => Some(*value),
            _ => None,
        }
    }

    /// The number at `column`, if there is one.
    pub fn maybe_real(&self, column: usize) -> Option<f64> {
        match self.0.get(column) {
            Some(Cell::Real(value)) => Some(*value),
            Some(Cell::Int(value)) => Some(*value as f64),
            _ => None,
        }
    }

    /// The text at `column`, taken out; empty where there is none.
    pub fn text(&mut self, column: usize) -> String {
        self.maybe_text(column).unwrap_or_default()
    }

    /// The text at `column`, taken out, if there is one.
    pub fn maybe_text(&mut self, column: usize) -> Option<String> {
        match self.0.get_mut(column) {
            Some(Cell::Text(text)) => Some(std::mem::take(text)),
            _ => None,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Value::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<f64> for Value<'_> {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}
