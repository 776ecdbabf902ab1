//! The built-in model, carried in the program itself.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::policy::Policy;

/// Folder of the built-in model in the source tree.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/hone-tiny")
}

/// The folder of the built-in model.
///
/// # Errors
/// [`crate::Error::Io`] if it cannot be unpacked.
pub fn folder() -> Result<PathBuf> {
    Ok(source())
}

/// The built-in model.
///
/// # Errors
/// As [`folder`] and [`Policy::from_folder`].
pub fn policy() -> Result<Policy> {
    Policy::from_folder(&folder()?)
}
