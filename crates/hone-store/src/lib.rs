//! What was asked, answered, and said about it: one trait, [`Store`], over SQLite and Postgres.
//!
//! [`open`] makes the store that an address names. Writers of all threads and tasks share commits, and a write that
//! returned is on the disk. Feedback refers to responses by id and may come before them; a key makes sending it again
//! harmless. [`export`] and [`import`] speak the Hone log. [`Store::forget`] deletes a person's part and says what
//! had been made of it.
//!
//! The crate knows nothing of tensors, methods or HTTP.

mod database;
mod error;
mod forget;
mod keeps;
mod postgres;
mod read;
mod rows;
mod schema;
mod search;
mod sql;
mod sqlite;
mod store;
mod tally;
mod transfer;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::{Error, Result};
pub use store::{
    Forgotten, Key, Lines, Mean, Page, Put, Query, Receipt, Run, Said, State, Store, Tally, Waiting,
};
pub use transfer::{Exported, Imported, export, import};

use database::{Connect, Database};

/// Opens the store at an address: a path or `sqlite:PATH`, or `postgres://…`. Its tables are made or brought up to
/// date.
///
/// # Errors
/// The address names no backend, the database cannot be reached, or a later version wrote it.
pub async fn open(address: &str) -> Result<Arc<dyn Store>> {
    let (name, connect) = connection(address)?;
    let opened = tokio::task::spawn_blocking(move || Database::open(name, connect)).await;
    match opened {
        Ok(database) => Ok(Arc::new(database?)),
        Err(error) => Err(Error::Refused { store: "store".into(), why: error.to_string() }),
    }
}

/// What makes connections to an address, and its name without a password.
fn connection(address: &str) -> Result<(String, Connect)> {
    if address.starts_with("postgres://") || address.starts_with("postgresql://") {
        let name = without_password(address);
        let (url, store) = (address.to_owned(), name.clone());
        let connect: Connect = Arc::new(move || Ok(Box::new(postgres::Postgres::open(&url, &store)?)));
        return Ok((name, connect));
    }
    let path = match address.strip_prefix("sqlite:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None if address.contains("://") => return Err(Error::Address { got: without_password(address) }),
        None => address,
    };
    if path.is_empty() {
        return Err(Error::Address { got: address.to_owned() });
    }
    let path = PathBuf::from(path);
    let name = path.display().to_string();
    let connect: Connect = Arc::new(move || Ok(Box::new(sqlite::Sqlite::open(&path)?)));
    Ok((name, connect))
}

/// The address with `***` for a password.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (user, host) = match rest.rsplit_once('@') {
        Some((user, host)) => (user, host),
        None => return address.to_owned(),
    };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let name =
            |address: &str| connection(address).map(|(name, _)| name).map_err(|error| error.to_string());
        assert_eq!(name("sqlite:a/b.db").as_deref(), Ok("a/b.db"));
        assert_eq!(name("sqlite:///a/b.db").as_deref(), Ok("/a/b.db"));
        assert_eq!(name("a.db").as_deref(), Ok("a.db"));
        assert_eq!(name("postgres://u:p@ss@h/d").as_deref(), Ok("postgres://u:***@h/d"));
        let error = name("mysql://u:secret@h/d").expect_err("no backend");
        assert!(error.starts_with("store: needed a path") && !error.contains("secret"), "{error}");
        assert!(name("sqlite:").is_err());
    }
}
