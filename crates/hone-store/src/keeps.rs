//! What the service keeps of itself beside the log: who may call it, and its settings.

use crate::error::{Error, Result};
use crate::sql::{Row, Sql, Value};
use crate::store::{Key, Mean};

/// Adds a key.
pub(crate) fn add_key(sql: &mut dyn Sql, key: &Key) -> Result<()> {
    for (field, text) in [("id", &key.id), ("name", &key.name), ("hash", &key.hash)] {
        crate::rows::name(field, text).map_err(|fault| Error::unsound("key", fault))?;
    }
    let known = sql.query("SELECT 1 FROM api_key WHERE id = $1", &[(&key.id).into()])?;
    if !known.is_empty() {
        return Err(Error::Conflict { what: format!("key {:?}", key.id), field: "id".into() });
    }
    sql.execute(
        "INSERT INTO api_key(id, name, hash, scopes, per_minute, created, revoked)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            (&key.id).into(),
            (&key.name).into(),
            (&key.hash).into(),
            (&key.scopes.join(" ")).into(),
            key.per_minute.into(),
            Value::Int(key.created),
            key.revoked.into(),
        ],
    )?;
    Ok(())
}

/// Every key, the oldest first.
pub(crate) fn keys(sql: &mut dyn Sql) -> Result<Vec<Key>> {
    let select =
        "SELECT id, name, hash, scopes, per_minute, created, revoked FROM api_key ORDER BY created, id";
    let key = |mut row: Row| Key {
        id: row.text(0),
        name: row.text(1),
        hash: row.text(2),
        scopes: row.text(3).split_whitespace().map(str::to_owned).collect(),
        per_minute: row.maybe_int(4),
        created: row.int(5),
        revoked: row.maybe_int(6),
    };
    Ok(sql.query(select, &[])?.into_iter().map(key).collect())
}

/// Ends a key.
pub(crate) fn revoke_key(sql: &mut dyn Sql, id: &str) -> Result<()> {
    let now = Value::Int(crate::rows::now());
    let update = "UPDATE api_key SET revoked = $1 WHERE id = $2 AND revoked IS NULL";
    if sql.execute(update, &[now, id.into()])? == 0
        && sql.query("SELECT 1 FROM api_key WHERE id = $1", &[id.into()])?.is_empty()
    {
        return Err(Error::Unknown { what: "key", name: id.to_owned() });
    }
    Ok(())
}

/// The text kept under a name.
pub(crate) fn setting(sql: &mut dyn Sql, name: &str) -> Result<Option<String>> {
    let rows = sql.query("SELECT body FROM setting WHERE name = $1", &[name.into()])?;
    Ok(rows.into_iter().next().map(|mut row| row.text(0)))
}

/// Keeps a text under a name, or none.
pub(crate) fn set(sql: &mut dyn Sql, name: &str, body: Option<&str>) -> Result<()> {
    crate::rows::name("name", name).map_err(|fault| Error::unsound("setting", fault))?;
    match body {
        Some(body) => sql.execute(
            "INSERT INTO setting(name, body) VALUES ($1, $2) ON CONFLICT(name) DO UPDATE SET body = excluded.body",
            &[name.into(), body.into()],
        )?,
        None => sql.execute("DELETE FROM setting WHERE name = $1", &[name.into()])?,
    };
    Ok(())
}

/// What people thought, person by person, of exchanges with a tag.
pub(crate) fn means(sql: &mut dyn Sql, tag: &str) -> Result<Vec<Mean>> {
    // Of a comparison or an event nothing is known of how good the answer is, so these have no value.
    let rows = sql.query(
        "SELECT COALESCE(e.shown, e.id), min(f.seq), count(f.value), sum(f.value)
         FROM tag t JOIN exchange e ON e.seq = t.exchange JOIN feedback f ON f.exchange = e.seq
         WHERE t.tag = $1 AND f.value IS NOT NULL GROUP BY COALESCE(e.shown, e.id) ORDER BY min(f.seq)",
        &[tag.into()],
    )?;
    let mean = |mut row: Row| {
        let (count, sum) = (row.int(2), row.maybe_real(3).unwrap_or_default());
        Mean { user: row.text(0), first: row.int(1), count, mean: sum / (count.max(1) as f64) }
    };
    Ok(rows.into_iter().map(mean).collect())
}

/// Every run, by id.
pub(crate) fn runs(sql: &mut dyn Sql) -> Result<Vec<crate::store::Run>> {
    let rows = sql.query("SELECT id, model FROM run ORDER BY id", &[])?;
    Ok(rows.into_iter().map(|mut row| crate::store::Run { id: row.text(0), model: row.text(1) }).collect())
}
