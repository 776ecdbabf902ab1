//! SQLite: one file, write-ahead log, a commit is on the disk before it returns.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};

use crate::error::{Error, Result};
use crate::search::Terms;
use crate::sql::{Cell, Dialect, Row, Sql, Table, Value};

/// A connection to a file.
pub(crate) struct Sqlite {
    connection: Connection,
    path: PathBuf,
}

impl Sqlite {
    /// Opens the file, which is made if it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| Error::Unreachable {
            store: path.display().to_string(),
            why: error.to_string(),
        };
        let connection = Connection::open(path).map_err(failed)?;
        connection.busy_timeout(Duration::from_secs(30)).map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(64);
        // FULL: without it a commit may be lost with the power. The log is folded in every 16 MB.
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
                 PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 1073741824;",
            )
            .map_err(failed)?;
        Ok(Sqlite { connection, path: path.to_owned() })
    }

    fn store(&self) -> String {
        self.path.display().to_string()
    }

    fn refused(&self) -> impl Fn(rusqlite::Error) -> Error {
        let store = self.store();
        move |error| Error::Refused { store: store.clone(), why: error.to_string() }
    }
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

fn bind(statement: &mut Statement, args: &[Value]) -> rusqlite::Result<()> {
    for (index, value) in args.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value)?;
    }
    Ok(())
}

fn read(statement: &mut Statement, out: &mut Vec<Row>) -> rusqlite::Result<()> {
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(columns);
        for column in 0..columns {
            cells.push(match row.get_ref(column)? {
                ValueRef::Integer(value) => Cell::Int(value),
                ValueRef::Real(value) => Cell::Real(value),
                ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Null | ValueRef::Blob(_) => Cell::Null,
            });
        }
        out.push(Row(cells));
    }
    Ok(())
}

impl Sql for Sqlite {
    fn dialect(&self) -> Dialect {
        Dialect {
            int: "INTEGER",
            real: "REAL",
            clustered: "WITHOUT ROWID",
            words: "CREATE VIRTUAL TABLE words USING fts5(text, content = '', contentless_delete = 1,
                        tokenize = 'unicode61 remove_diacritics 0');",
        }
    }

    fn begin_write(&mut self) -> Result<()> {
        self.script("BEGIN IMMEDIATE")
    }

    fn begin_read(&mut self) -> Result<()> {
        self.script("BEGIN")
    }

    fn commit(&mut self) -> Result<()> {
        self.script("COMMIT")
    }

    fn rollback(&mut self) -> Result<()> {
        // Some failures, a full disk among them, have ended the transaction already.
        if self.connection.is_autocommit() { Ok(()) } else { self.script("ROLLBACK") }
    }

    fn script(&mut self, sql: &str) -> Result<()> {
        self.connection.execute_batch(sql).map_err(self.refused())
    }

    fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64> {
        let work = |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            bind(&mut statement, args)?;
            statement.raw_execute()
        };
        work(&self.connection).map(|count| count as u64).map_err(self.refused())
    }

    fn query(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        let work = |connection: &Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            bind(&mut statement, args)?;
            let mut out = Vec::new();
            read(&mut statement, &mut out)?;
            Ok(out)
        };
        work(&self.connection).map_err(self.refused())
    }

    fn find(&mut self, select: &str, keys: &[Value], tail: &str) -> Result<Vec<Row>> {
        let sql = format!("{select} = ?1 {tail}");
        let work = |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut out = Vec::new();
            for key in keys {
                statement.raw_bind_parameter(1, key)?;
                read(&mut statement, &mut out)?;
            }
            Ok(out)
        };
        work(&self.connection).map_err(self.refused())
    }

    fn insert(&mut self, table: &Table, rows: &[Vec<Value>]) -> Result<()> {
        let names: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let marks = vec!["?"; names.len()].join(",");
        let sql = format!("INSERT INTO {}({}) VALUES ({marks})", table.name, names.join(","));
        let work = |connection: &Connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            for row in rows {
                bind(&mut statement, row)?;
                statement.raw_execute()?;
            }
            Ok(())
        };
        work(&self.connection).map_err(self.refused())
    }

    fn index(&mut self, documents: &[(i64, String)]) -> Result<()> {
        for (document, words) in documents {
            self.execute(
                "INSERT OR REPLACE INTO words(rowid, text) VALUES ($1, $2)",
                &[Value::Int(*document), words.into()],
            )?;
        }
        Ok(())
    }

    fn unindex(&mut self, documents: &[i64]) -> Result<()> {
        for document in documents {
            self.execute("DELETE FROM words WHERE rowid = $1", &[Value::Int(*document)])?;
        }
        Ok(())
    }

    fn matches(&mut self, query: &Terms, before: i64, limit: i64) -> Result<Vec<i64>> {
        // Words hold letters and digits alone, so quotes need no escapes.
        let terms: Vec<String> = query
            .0
            .iter()
            .map(|term| format!("\"{}\"{}", term.words.join(" "), if term.prefix { "*" } else { "" }))
            .collect();
        let rows = self.query(
            "SELECT rowid FROM words WHERE words MATCH $1 AND rowid < $2 ORDER BY rowid DESC LIMIT $3",
            &[(&terms.join(" AND ")).into(), Value::Int(before), Value::Int(limit)],
        )?;
        Ok(rows.iter().map(|row| row.int(0)).collect())
    }

    fn wipe(&mut self, on: bool) -> Result<()> {
        if on {
            return self.script("PRAGMA secure_delete = ON");
        }
        // Deleted words stay in old parts of the index, and deleted pages in the log, until these are rewritten.
        self.script(
            "INSERT INTO words(words) VALUES ('optimize'); PRAGMA wal_checkpoint(TRUNCATE); PRAGMA secure_delete = OFF",
        )
    }

    fn is_sound(&mut self) -> bool {
        self.connection.is_autocommit()
    }
}
