//! What can go wrong between a model folder and a loss.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure names the file, field or tensor, what was needed and what came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file is not JSON, or not of the expected form.
    #[error("{}: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// A field of a configuration holds something this crate does not support.
    #[error("{file}: field `{field}`: needs {needed}, got {got}")]
    Config {
        /// File or struct the field belongs to.
        file: String,
        /// Name of the field, dotted when nested.
        field: String,
        /// What would have been accepted.
        needed: String,
        /// What was there.
        got: String,
    },
    /// A tensor is missing, unexpected, of the wrong shape or type, or holds a value that cannot be used.
    #[error("{file}: tensor `{tensor}`: {problem}")]
    Tensor {
        /// File or folder that should hold it.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Several tensors of a folder cannot be used.
    #[error("{}: {count} tensors cannot be used:{}", path.display(), listed(first, *count))]
    Tensors {
        /// The folder, or the file that all of them concern.
        path: PathBuf,
        /// The first of them, each an [`Error::Tensor`].
        first: Vec<Error>,
        /// How many there are.
        count: usize,
    },
    /// A weights file is not a whole safetensors file.
    #[error("{}: not a valid safetensors file: {problem}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A batch cannot be computed with this model.
    #[error("sequence {sequence}: {problem}")]
    Batch {
        /// Index of the sequence in its batch.
        sequence: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// An argument is outside its range.
    #[error("`{name}`: needs {needed}, got {got}")]
    Argument {
        /// Name of the setting.
        name: String,
        /// What would have been accepted.
        needed: String,
        /// What came.
        got: String,
    },
    /// Two shapes that must agree do not.
    #[error("{what}: needs shape {needed:?}, got {got:?}")]
    Shape {
        /// Which value.
        what: String,
        /// Expected shape.
        needed: Vec<usize>,
        /// Actual shape.
        got: Vec<usize>,
    },
    /// A number stopped being finite.
    #[error("{what} is {value} at step {step}")]
    NotFinite {
        /// The loss, or the gradient norm.
        what: String,
        /// The value.
        value: f64,
        /// Optimiser step, from 1.
        step: u64,
    },
    /// The work was called off.
    #[error("cancelled")]
    Cancelled,
    /// The tensor library refused an operation.
    #[error("tensor library: {0}")]
    Candle(#[from] candle_core::Error),
}

/// One line per error, and how many are not shown.
fn listed(first: &[Error], count: usize) -> String {
    let mut text: String = first.iter().map(|error| format!("\n  {error}")).collect();
    if count > first.len() {
        text += &format!("\n  and {} more", count - first.len());
    }
    text
}

impl Error {
    /// Wraps a system error with its file; meant for `map_err(Error::io(path))`.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::Argument`].
    pub fn argument(name: &str, needed: impl Into<String>, got: impl std::fmt::Display) -> Error {
        Error::Argument { name: name.into(), needed: needed.into(), got: got.to_string() }
    }
}
