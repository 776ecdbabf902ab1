//! The built-in model, carried in the program itself.

use std::path::{Path, PathBuf};

use hone_feedback::text::hash;
use include_dir::{Dir, include_dir};

use crate::error::{Error, Result};
use crate::policy::Policy;

static FILES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../assets/hone-tiny");

/// The folder of the built-in model, unpacked into the user's cache the first time.
///
/// # Errors
/// [`Error::Io`] if it cannot be written.
pub fn folder() -> Result<PathBuf> {
    let digests = FILES.files().flat_map(|file| hash(file.contents()).to_le_bytes());
    let version = hash(&digests.collect::<Vec<u8>>());
    unpack(&cache().join(format!("{version:016x}")))
}

/// The built-in model.
///
/// # Errors
/// As [`folder`] and [`Policy::from_folder`].
pub fn policy() -> Result<Policy> {
    Policy::from_folder(&folder()?)
}

/// `$XDG_CACHE_HOME/hone`, `~/.cache/hone`, or a temporary folder where there is neither.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".cache"));
    set("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("hone")
}

/// Writes the files to `place/hone-tiny` unless they are there; whole or not at all.
fn unpack(place: &Path) -> Result<PathBuf> {
    let folder = place.join("hone-tiny");
    if folder.exists() {
        return Ok(folder);
    }
    // Several processes may unpack at once; the first to finish names the folder.
    let partial = place.join(format!(".unpacking-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&partial).map_err(Error::io(&partial))?;
    for file in FILES.files() {
        let path = partial.join(file.path());
        std::fs::write(&path, file.contents()).map_err(Error::io(&path))?;
    }
    if let Err(error) = std::fs::rename(&partial, &folder) {
        // What is left of a race is no use to anyone.
        let _ = std::fs::remove_dir_all(&partial);
        if !folder.exists() {
            return Err(Error::io(&folder)(error));
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_unpacked_once_and_whole() {
        let place = tempfile::tempdir().unwrap();
        let folder = unpack(place.path()).unwrap();
        let names: Vec<_> = FILES.files().map(|file| file.path().to_path_buf()).collect();
        assert!(
            names.contains(&PathBuf::from("config.json")) && names.contains(&PathBuf::from("tokenizer.json"))
        );
        for file in FILES.files() {
            assert_eq!(std::fs::read(folder.join(file.path())).unwrap(), file.contents());
        }
        std::fs::write(folder.join("mark"), "").unwrap();
        assert!(unpack(place.path()).unwrap().join("mark").exists(), "unpacked again");
        assert!(Policy::from_folder(&folder).is_ok());
    }
}
