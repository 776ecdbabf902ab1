//! What can go wrong between a log and a better model.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure says where, what was needed and what came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] hone_nn::Error),
    /// The language model refused.
    #[error(transparent)]
    Model(#[from] hone_lm::Error),
    /// The world refused.
    #[error(transparent)]
    World(#[from] hone_worlds::Error),
    /// The tensor library refused.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    /// No method has this id.
    #[error("method `{id}`: unknown; the nearest is `{nearest}`")]
    UnknownMethod {
        /// What was asked for.
        id: String,
        /// The id that differs least.
        nearest: String,
    },
    /// A settings table does not hold what is taken.
    #[error("settings of `{method}`: {message}")]
    Settings {
        /// Whose settings.
        method: String,
        /// Key, reason, and the nearest known key where one is unknown.
        message: String,
    },
    /// A setting is outside its range.
    #[error("settings of `{method}`: `{key}`: needs {needed}, got {got}")]
    Range {
        /// Whose settings.
        method: String,
        /// The setting.
        key: String,
        /// What is accepted.
        needed: String,
        /// What came.
        got: String,
    },
    /// There is too little of what a method needs.
    #[error("method `{method}`: needs {needed}, got {got}")]
    Data {
        /// Id of the method.
        method: String,
        /// What it takes, and how much of it.
        needed: String,
        /// What the log gives.
        got: String,
    },
    /// A log that cannot be read, or that may not be trained on.
    #[error("{0}")]
    Log(String),
    /// A method made something else than was asked for.
    #[error("needs a method that makes {needed}, got one that makes {got}")]
    Product {
        /// What the caller needs.
        needed: &'static str,
        /// What the method makes.
        got: &'static str,
    },
    /// A run that was asked for its first batch only has come to it.
    #[error("the first batch was asked for, not the run")]
    Previewed,
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: String,
        /// What was needed and what came.
        problem: String,
    },
}

impl Error {
    /// Refuses to go on without an example, saying what the records hold instead.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub fn expect_examples(
        method: &str,
        needed: &str,
        examples: &crate::data::Examples,
        records: &[hone_feedback::Record],
    ) -> Result<()> {
        if !examples.is_empty() {
            return Ok(());
        }
        let forms: std::collections::BTreeSet<&str> =
            records.iter().flat_map(|r| &r.feedback).map(|item| item.form.kind().name()).collect();
        let forms = forms.into_iter().collect::<Vec<_>>().join(", ");
        let got = match forms.as_str() {
            "" => format!("none in {} records, which hold no feedback", records.len()),
            _ => format!("none in {} records, which hold {forms}", records.len()),
        };
        Err(Error::Data { method: method.into(), needed: needed.into(), got })
    }

    /// A setting outside its range.
    pub fn range(method: &str, key: &str, needed: &str, got: impl ToString) -> Error {
        Error::Range { method: method.into(), key: key.into(), needed: needed.into(), got: got.to_string() }
    }

    /// For `map_err` on what the system refuses about `path`.
    pub fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.display().to_string();
        move |source| Error::Io { path, source }
    }
}
