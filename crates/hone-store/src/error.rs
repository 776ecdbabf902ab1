//! What can go wrong, each message with what was needed and what came.

use hone_feedback::Fault;

/// The crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the store did not do what it was asked. Cloned freely: one failed commit answers many writers.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Something given is not sound; the caller must change it.
    #[error("{what}: {fault}")]
    Unsound {
        /// What was given, as in `record r1`.
        what: String,
        /// The field, what it needed and what came.
        fault: Fault,
    },
    /// Something of this name is there already and is different.
    #[error("{what}: {field}: needed what is stored under this name, got something else")]
    Conflict {
        /// What was given, as in `record r1`.
        what: String,
        /// The first field that differs.
        field: String,
    },
    /// An idempotency key that other feedback used before.
    #[error("key {key:?}: needed the feedback that it was first used for, got other feedback")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// A response id that several exchanges have.
    #[error("on: needed the id of one response, got {on:?}, which {count} exchanges have; name the exchange")]
    Ambiguous {
        /// The response id.
        on: String,
        /// How many exchanges have one.
        count: usize,
    },
    /// Feedback that names neither a response nor an exchange.
    #[error("on: needed a response or an exchange for feedback of the form {form}, got neither")]
    NoTarget {
        /// The form of the feedback.
        form: &'static str,
    },
    /// No such thing.
    #[error("{what}: needed one that is stored, got {name:?}")]
    Unknown {
        /// The kind of thing.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A store address that names no backend.
    #[error("store: needed a path, sqlite:PATH or postgres://…, got {got:?}")]
    Address {
        /// What was given, without a password.
        got: String,
    },
    /// A database written by a later version.
    #[error("{store}: needed a schema of version {known} or below, got version {found}; use a newer hone")]
    Newer {
        /// The store.
        store: String,
        /// The last version this program knows.
        known: i64,
        /// The version found.
        found: i64,
    },
    /// The database cannot be reached now, or the connection broke. A write that met this error may have been
    /// stored; written again under its id or key, it is stored once.
    #[error("{store}: needed a database that answers, got: {why}")]
    Unreachable {
        /// The store.
        store: String,
        /// What the database or the system said.
        why: String,
    },
    /// The database refused a statement: a full disk, a damaged file, missing rights.
    #[error("{store}: needed the database to carry out a statement, got: {why}")]
    Refused {
        /// The store.
        store: String,
        /// What the database said.
        why: String,
    },
    /// The store was closed.
    #[error("store: needed an open store, got one that was closed")]
    Closed,
    /// A file that an import or an export needs.
    #[error("{0}")]
    File(String),
}

impl Error {
    /// Whether the caller gave something wrong, as opposed to a store that failed.
    pub fn is_callers(&self) -> bool {
        !matches!(
            self,
            Error::Unreachable { .. }
                | Error::Refused { .. }
                | Error::Closed
                | Error::Newer { .. }
                | Error::File(_)
        )
    }

    pub(crate) fn unsound(what: impl Into<String>, fault: Fault) -> Self {
        Error::Unsound { what: what.into(), fault }
    }
}
