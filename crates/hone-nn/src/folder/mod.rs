//! Model folders and adapter folders in the layout of Hugging Face, in and out.
//!
//! What is read here loads there and the other way round. Reading trusts nothing: sizes come from the files' real
//! lengths, never from what a header or a configuration claims. Writing is atomic: a folder is the old checkpoint
//! or the new one, whenever the process dies.

mod peft;
mod read;
mod tensors;
#[cfg(test)]
mod tests;
mod weights;
mod write;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use peft::{merge, read_adapter, write_adapter};
pub use read::{Loaded, read, read_with_head};
pub use weights::Weights;
pub use write::{SaveOptions, atomically, write, write_files};

use crate::error::{Error, Result};

/// Largest JSON file that is read, in bytes: the index of a thousand shards stays far below it.
const MAX_JSON: u64 = 64 << 20;

/// How many problems of one folder are listed; the rest are counted.
const MAX_LISTED: usize = 20;

/// Reads a file that holds one JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let json = |message: String| Error::Json { path: path.into(), message };
    let file = open_file(path)?;
    let mut bytes = vec![];
    file.take(MAX_JSON + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(json(format!("needs at most {MAX_JSON} bytes")));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(json("needs a JSON object".into())),
        Err(error) => Err(json(error.to_string())),
    }
}

/// Opens an ordinary file; a pipe or a device would block or never end.
fn open_file(path: &Path) -> Result<File> {
    let kind = std::fs::metadata(path).map_err(Error::io(path))?;
    if !kind.is_file() {
        return Err(Error::io(path)(std::io::Error::other("not an ordinary file")));
    }
    File::open(path).map_err(Error::io(path))
}

/// Everything that is wrong with the tensors of one folder.
struct Problems {
    path: PathBuf,
    first: Vec<Error>,
    count: usize,
}

impl Problems {
    fn new(path: &Path) -> Problems {
        Problems { path: path.into(), first: vec![], count: 0 }
    }

    fn add(&mut self, file: &Path, tensor: &str, problem: impl Into<String>) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(tensor_error(file, tensor, problem));
        }
    }

    fn finish(mut self) -> Result<()> {
        match self.count {
            0 => Ok(()),
            1 => self.first.pop().map_or(Ok(()), Err),
            _ => Err(Error::Tensors { path: self.path, first: self.first, count: self.count }),
        }
    }
}

fn tensor_error(file: &Path, tensor: &str, problem: impl Into<String>) -> Error {
    Error::Tensor { file: file.display().to_string(), tensor: printable(tensor), problem: problem.into() }
}

/// A name from a file, short and without control characters.
fn printable(name: &str) -> String {
    let mut short: String = name.chars().take(200).flat_map(char::escape_debug).collect();
    if short.len() < name.len() && name.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}
