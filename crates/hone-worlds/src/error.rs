//! What can go wrong between a setting, a file and an answer.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure says where it happened, what was needed and what came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A world id that no world has.
    #[error("world: needs one of {allowed}, got `{got}`")]
    UnknownWorld {
        /// Ids of all worlds, separated by commas.
        allowed: String,
        /// The id asked for.
        got: String,
    },

    /// A setting outside what its world can make tasks from.
    #[error("world {world}: setting {setting}: needs {needed}, got {got}")]
    Setting {
        /// Id of the world.
        world: &'static str,
        /// Name of the setting.
        setting: &'static str,
        /// What is allowed.
        needed: String,
        /// What was asked for.
        got: String,
    },

    /// A kind of error that a world does not plant, or not in this task.
    #[error("world {world}: cannot plant `{kind}` here: needs {needed}")]
    Plant {
        /// Id of the world.
        world: &'static str,
        /// The kind asked for.
        kind: String,
        /// What is allowed, or what the task lacks.
        needed: String,
    },

    /// A row of a data file that does not have the fields it must have.
    #[error("{file}: line {line}: field {field}: {problem}")]
    Row {
        /// Path of the file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// Name of the field, or `row`.
        field: &'static str,
        /// What was needed and what came.
        problem: String,
    },

    /// A program that could not be run.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),

    /// A people file with a value that no simulated person can have.
    #[error("people: {name}: {field}: needs {needed}, got {got}")]
    People {
        /// Name of the person in the file.
        name: String,
        /// The field.
        field: &'static str,
        /// What is allowed.
        needed: String,
        /// What came.
        got: String,
    },

    /// A people file that is not valid TOML or has unknown fields.
    #[error("people: {0}")]
    PeopleFile(#[from] toml::de::Error),

    /// A file that could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Path of the file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// A [`Error::Setting`] in fewer words.
    pub(crate) fn setting(
        world: &'static str,
        setting: &'static str,
        needed: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Error::Setting { world, setting, needed: needed.into(), got: got.to_string() }
    }

    /// A [`Error::Plant`] in fewer words.
    pub(crate) fn plant(world: &'static str, kind: &str, needed: impl Into<String>) -> Self {
        Error::Plant { world, kind: kind.to_string(), needed: needed.into() }
    }
}
