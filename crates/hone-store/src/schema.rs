//! The tables, as numbered migrations, and the step from any version to the last.

use crate::error::{Error, Result};
use crate::sql::{Sql, Value};
use crate::tally;

/// A step from one version of the schema to the next.
struct Migration {
    /// What it brings.
    about: &'static str,
    /// Its statements, with the dialect's names in braces.
    sql: &'static str,
    /// What has to be computed from rows that are there.
    fill: Option<fn(&mut dyn Sql) -> Result<()>>,
}

/// Every migration; the first leads to version 1. Never changed once released: a later one corrects.
static MIGRATIONS: &[Migration] = &[
    Migration {
        about: "exchanges, responses, feedback, runs",
        sql: "
            CREATE TABLE counter(one {int} PRIMARY KEY, exchange {int} NOT NULL, feedback {int} NOT NULL);
            INSERT INTO counter VALUES (1, 1, 1);
            CREATE TABLE exchange(
                seq {int} PRIMARY KEY, id TEXT NOT NULL UNIQUE, prompt TEXT NOT NULL, split TEXT,
                extra TEXT NOT NULL, day {int} NOT NULL, at {int} NOT NULL, shown TEXT, session TEXT);
            CREATE INDEX exchange_shown ON exchange(shown, seq) WHERE shown IS NOT NULL;
            CREATE INDEX exchange_session ON exchange(session, seq) WHERE session IS NOT NULL;
            CREATE TABLE response(
                exchange {int} NOT NULL, place {int} NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, model TEXT,
                prompt_tokens {int}, completion_tokens {int}, latency_ms {real},
                PRIMARY KEY(exchange, place)) {clustered};
            CREATE INDEX response_id ON response(id, exchange);
            CREATE INDEX response_model ON response(model, exchange) WHERE model IS NOT NULL;
            CREATE TABLE tag(
                tag TEXT NOT NULL, exchange {int} NOT NULL, PRIMARY KEY(tag, exchange)) {clustered};
            CREATE INDEX tag_exchange ON tag(exchange);
            CREATE TABLE feedback(
                seq {int} PRIMARY KEY, exchange {int}, place {int}, waits TEXT, key TEXT, form TEXT NOT NULL,
                person TEXT, model TEXT, value {real}, day {int} NOT NULL, received {int} NOT NULL,
                body TEXT NOT NULL, fault TEXT);
            CREATE UNIQUE INDEX feedback_exchange ON feedback(exchange, place) WHERE exchange IS NOT NULL;
            CREATE INDEX feedback_person ON feedback(person, exchange) WHERE person IS NOT NULL;
            CREATE UNIQUE INDEX feedback_key ON feedback(key) WHERE key IS NOT NULL;
            CREATE INDEX feedback_waits ON feedback(waits) WHERE waits IS NOT NULL;
            CREATE TABLE run(
                id TEXT PRIMARY KEY, model TEXT NOT NULL, method TEXT, at {int} NOT NULL) {clustered};
            CREATE TABLE run_item(item TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY(item, run)) {clustered};
            CREATE INDEX run_item_run ON run_item(run, item);",
        fill: None,
    },
    Migration {
        about: "sums per day and the full-text index",
        sql: "
            CREATE TABLE tally(
                day {int} NOT NULL, model TEXT NOT NULL, what TEXT NOT NULL, count {int} NOT NULL,
                sum {real} NOT NULL, squares {real} NOT NULL, PRIMARY KEY(day, model, what)) {clustered};
            CREATE TABLE indexed(one {int} PRIMARY KEY, exchange {int} NOT NULL, feedback {int} NOT NULL);
            INSERT INTO indexed VALUES (1, 0, 0);
            {words}",
        fill: Some(tally::fill),
    },
    Migration {
        about: "keys and settings of the service",
        sql: "
            CREATE TABLE api_key(
                id TEXT PRIMARY KEY, name TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL,
                per_minute {int}, created {int} NOT NULL, revoked {int}) {clustered};
            CREATE TABLE setting(name TEXT PRIMARY KEY, body TEXT NOT NULL) {clustered};",
        fill: None,
    },
];

/// The version that this program writes.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Brings the database to [`VERSION`].
///
/// # Errors
/// [`Error::Newer`] if a later program wrote it; nothing is changed then.
pub(crate) fn migrate(sql: &mut dyn Sql, store: &str) -> Result<()> {
    migrate_to(sql, store, VERSION)
}

/// Brings the database to `version`, all steps in one transaction: a half-migrated database cannot be.
pub(crate) fn migrate_to(sql: &mut dyn Sql, store: &str, version: i64) -> Result<()> {
    let dialect = sql.dialect();
    sql.begin_write()?;
    let done = steps(sql, store, version, |text| {
        text.replace("{int}", dialect.int)
            .replace("{real}", dialect.real)
            .replace("{clustered}", dialect.clustered)
            .replace("{words}", dialect.words)
    });
    match done {
        Ok(()) => sql.commit(),
        Err(error) => {
            sql.rollback()?;
            Err(error)
        }
    }
}

fn steps(sql: &mut dyn Sql, store: &str, version: i64, say: impl Fn(&str) -> String) -> Result<()> {
    sql.script(&say(
        "CREATE TABLE IF NOT EXISTS migration(version {int} PRIMARY KEY, about TEXT NOT NULL, at {int} NOT NULL);",
    ))?;
    let rows = sql.query("SELECT max(version) FROM migration", &[])?;
    let found = rows.first().map_or(0, |row| row.int(0));
    if found > VERSION {
        return Err(Error::Newer { store: store.to_owned(), known: VERSION, found });
    }
    for (migration, number) in MIGRATIONS.iter().zip(1..=version) {
        if number <= found {
            continue;
        }
        sql.script(&say(migration.sql))?;
        if let Some(fill) = migration.fill {
            fill(sql)?;
        }
        let row = [Value::Int(number), migration.about.into(), Value::Int(crate::rows::now())];
        sql.execute("INSERT INTO migration(version, about, at) VALUES ($1, $2, $3)", &row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::Sqlite;

    #[test]
    fn from_version_1_up() {
        let folder = tempfile::tempdir().expect("folder");
        let mut sql = Sqlite::open(&folder.path().join("old.db")).expect("open");
        migrate_to(&mut sql, "old", 1).expect("version 1");
        sql.script(
            r#"INSERT INTO exchange VALUES (1, 'r1', '"raw"', NULL, '{}', 9, 0, NULL, NULL);
               INSERT INTO response VALUES (1, 0, 'a', '{"id":"a","content":"hello"}', 'm', NULL, 5, NULL);
               INSERT INTO feedback(seq, exchange, place, form, model, value, day, received, body)
                 VALUES (1, 1, 1, 'thumb', 'm', 1.0, 9, 0, '{"form":"thumb","on":"a","value":true}');
               UPDATE counter SET exchange = 2, feedback = 2;"#,
        )
        .expect("rows of version 1");
        migrate(&mut sql, "old").expect("the last version");
        // Again changes nothing.
        migrate(&mut sql, "old").expect("the last version");
        let done = sql.query("SELECT version FROM migration ORDER BY version", &[]).expect("versions");
        assert_eq!(done.iter().map(|row| row.int(0)).collect::<Vec<_>>(), (1..=VERSION).collect::<Vec<_>>());
        let sums: Vec<(String, String, i64, f64)> = crate::read::tallies(&mut sql, 9, 9)
            .expect("sums")
            .into_iter()
            .map(|tally| (tally.model, tally.what, tally.count, tally.sum))
            .collect();
        let sum = |model: &str, what: &str, sum: f64| (model.to_owned(), what.to_owned(), 1, sum);
        assert_eq!(
            sums,
            [
                sum("", "exchange", 0.0),
                sum("m", "completion_tokens", 5.0),
                sum("m", "response", 0.0),
                sum("m", "thumb", 1.0),
            ]
        );
        assert!(crate::write::index_some(&mut sql).expect("index"));
        let query = crate::Query { text: Some("hello".into()), ..crate::Query::default() };
        assert_eq!(crate::search::search(&mut sql, &query).expect("search").hits.len(), 1);

        sql.script("INSERT INTO migration VALUES (99, 'of tomorrow', 0)").expect("a later version");
        let error = migrate(&mut sql, "old").expect_err("newer").to_string();
        assert!(error.starts_with("old: needed a schema of version"), "{error}");
    }
}
