//! Postgres: one writer at a time across all programs that use the database, by a lock of the transaction.

use postgres::types::{IsNull, ToSql, Type, private::BytesMut, to_sql_checked};
use postgres::{Client, NoTls};

use crate::error::{Error, Result};
use crate::search::Terms;
use crate::sql::{Cell, Dialect, Kind, Row, Sql, Table, Value};

/// Names the lock among those of other programs.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7018141438172001)";

/// A connection to a server.
pub(crate) struct Postgres {
    client: Client,
    /// The address without the password, for messages.
    store: String,
}

impl Postgres {
    /// Connects.
    pub fn open(url: &str, store: &str) -> Result<Self> {
        let client = Client::connect(url, NoTls)
            .map_err(|error| Error::Unreachable { store: store.to_owned(), why: describe(&error) })?;
        Ok(Postgres { client, store: store.to_owned() })
    }

    fn failed(&self, error: postgres::Error) -> Error {
        let (store, why) = (self.store.clone(), describe(&error));
        // Class 57 is the server going down; without a code it is the connection.
        match error.code() {
            Some(code) if !code.code().starts_with("57") => Error::Refused { store, why },
            _ => Error::Unreachable { store, why },
        }
    }
}

/// An error with its causes, which the library leaves out of its message.
fn describe(error: &postgres::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => value.to_sql(ty, out),
            Value::Real(value) => value.to_sql(ty, out),
            Value::Text(text) => text.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        [Type::INT8, Type::FLOAT8, Type::TEXT].contains(ty)
    }

    to_sql_checked!();
}

fn args<'a>(values: &'a [Value<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

fn cells(row: &postgres::Row) -> Row {
    let cell = |column: usize, ty: &Type| match *ty {
        Type::INT8 => row.get::<_, Option<i64>>(column).map(Cell::Int),
        Type::INT4 => row.get::<_, Option<i32>>(column).map(|value| Cell::Int(value.into())),
        Type::FLOAT8 => row.get::<_, Option<f64>>(column).map(Cell::Real),
        Type::TEXT => row.get::<_, Option<String>>(column).map(Cell::Text),
        _ => None,
    };
    let columns = row.columns().iter().enumerate();
    Row(columns.map(|(at, column)| cell(at, column.type_()).unwrap_or(Cell::Null)).collect())
}

impl Sql for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect {
            int: "BIGINT",
            real: "DOUBLE PRECISION",
            clustered: "",
            words: "CREATE TABLE words(doc BIGINT PRIMARY KEY, words tsvector NOT NULL);
                    CREATE INDEX words_index ON words USING gin(words);",
        }
    }

    fn begin_write(&mut self) -> Result<()> {
        self.script(&format!("BEGIN; {LOCK};"))
    }

    fn begin_read(&mut self) -> Result<()> {
        self.script("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    }

    fn commit(&mut self) -> Result<()> {
        self.script("COMMIT")
    }

    fn rollback(&mut self) -> Result<()> {
        self.script("ROLLBACK")
    }

    fn script(&mut self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).map_err(|error| self.failed(error))
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64> {
        self.client.execute(sql, &args(values)).map_err(|error| self.failed(error))
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>> {
        // Such text cannot be stored, and all that is asked for is to equal it.
        if values.iter().any(holds_nul) {
            return Ok(Vec::new());
        }
        let rows = self.client.query(sql, &args(values)).map_err(|error| self.failed(error))?;
        Ok(rows.iter().map(cells).collect())
    }

    fn find(&mut self, select: &str, keys: &[Value], tail: &str) -> Result<Vec<Row>> {
        let sql = format!("{select} = ANY($1) {tail}");
        let rows = match keys.first() {
            None => return Ok(Vec::new()),
            Some(Value::Int(_)) => self.client.query(&sql, &[&ints(keys.iter())]),
            Some(_) => self.client.query(&sql, &[&texts(keys.iter().filter(|key| !holds_nul(key)))]),
        };
        Ok(rows.map_err(|error| self.failed(error))?.iter().map(cells).collect())
    }

    fn insert(&mut self, table: &Table, rows: &[Vec<Value>]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let mut marks = Vec::new();
        let mut lists: Vec<Box<dyn ToSql + Sync + '_>> = Vec::new();
        for (column, (_, kind)) in table.columns.iter().enumerate() {
            let cells = rows.iter().map(|row| row.get(column).unwrap_or(&Value::Null));
            let (kind, list): (_, Box<dyn ToSql + Sync>) = match kind {
                Kind::Int => ("bigint", Box::new(ints(cells))),
                Kind::Real => ("float8", Box::new(reals(cells))),
                Kind::Text => ("text", Box::new(texts(cells))),
            };
            marks.push(format!("${}::{kind}[]", column + 1));
            lists.push(list);
        }
        let sql = format!(
            "INSERT INTO {}({}) SELECT * FROM unnest({})",
            table.name,
            names.join(","),
            marks.join(",")
        );
        let lists: Vec<&(dyn ToSql + Sync)> = lists.iter().map(|list| &**list as _).collect();
        self.client.execute(&sql, &lists).map(drop).map_err(|error| self.failed(error))
    }

    fn index(&mut self, documents: &[(i64, String)]) -> Result<()> {
        for (document, words) in documents {
            // The list of words with their places is written out, so that no parser splits it otherwise.
            let vector: Vec<String> = words
                .split_whitespace()
                .zip(1..)
                .map(|(word, at): (_, usize)| format!("'{word}':{at}"))
                .collect();
            self.execute(
                "INSERT INTO words(doc, words) VALUES ($1, $2::text::tsvector)
                 ON CONFLICT(doc) DO UPDATE SET words = excluded.words",
                &[Value::Int(*document), (&vector.join(" ")).into()],
            )?;
        }
        Ok(())
    }

    fn unindex(&mut self, documents: &[i64]) -> Result<()> {
        let sql = "DELETE FROM words WHERE doc = ANY($1)";
        self.client.execute(sql, &[&documents]).map(drop).map_err(|error| self.failed(error))
    }

    fn matches(&mut self, query: &Terms, before: i64, limit: i64) -> Result<Vec<i64>> {
        let terms: Vec<String> = query
            .0
            .iter()
            .map(|term| {
                let words: Vec<String> = term.words.iter().map(|word| format!("'{word}'")).collect();
                format!("({}{})", words.join(" <-> "), if term.prefix { ":*" } else { "" })
            })
            .collect();
        let rows = self.query(
            "SELECT doc FROM words WHERE words @@ $1::text::tsquery AND doc < $2 ORDER BY doc DESC LIMIT $3",
            &[(&terms.join(" & ")).into(), Value::Int(before), Value::Int(limit)],
        )?;
        Ok(rows.iter().map(|row| row.int(0)).collect())
    }

    fn wipe(&mut self, _: bool) -> Result<()> {
        // Files are the server's; a vacuum, which it does by itself, frees what was deleted.
        Ok(())
    }

    fn is_sound(&mut self) -> bool {
        !self.client.is_closed()
    }
}

/// Whether a value is text with the character 0, which Postgres refuses to read.
fn holds_nul(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.contains('\0'))
}

fn ints<'a>(values: impl Iterator<Item = &'a Value<'a>>) -> Vec<Option<i64>> {
    values.map(|value| if let Value::Int(value) = value { Some(*value) } else { None }).collect()
}

fn reals<'a>(values: impl Iterator<Item = &'a Value<'a>>) -> Vec<Option<f64>> {
    values.map(|value| if let Value::Real(value) = value { Some(*value) } else { None }).collect()
}

fn texts<'a>(values: impl Iterator<Item = &'a Value<'a>>) -> Vec<Option<&'a str>> {
    values.map(|value| if let Value::Text(text) = value { Some(*text) } else { None }).collect()
}
