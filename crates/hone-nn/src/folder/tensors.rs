//! The safetensors files of a folder: one, or shards through an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde_json::Value;

use super::{Problems, open_file, printable, read_object, tensor_error};
use crate::error::{Error, Result};

/// The format's own limit on headers, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// Numbers converted at a time.
const CHUNK: usize = 1 << 16;

/// Where one stored tensor lies.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub file: usize,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte in its file.
    pub start: u64,
}

impl Stored {
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// All tensors of a folder, by name. Only headers have been read.
#[derive(Debug)]
pub(super) struct TensorFiles {
    /// The one file, or the index: where a tensor that is nowhere should be.
    origin: PathBuf,
    paths: Vec<PathBuf>,
    files: Vec<File>,
    tensors: BTreeMap<String, Stored>,
}

impl TensorFiles {
    /// Opens `<stem>.safetensors`, or the shards that `<stem>.safetensors.index.json` names.
    pub fn open(folder: &Path, stem: &str) -> Result<TensorFiles> {
        let single = folder.join(format!("{stem}.safetensors"));
        let index = folder.join(format!("{stem}.safetensors.index.json"));
        let sharded = index.exists() && !single.exists();
        let origin = if sharded { index.clone() } else { single };
        let mut files = TensorFiles { origin, paths: vec![], files: vec![], tensors: BTreeMap::new() };
        if !sharded {
            files.add(&files.origin.clone())?;
            return Ok(files);
        }
        let weight_map = read_weight_map(&index)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        for shard in shards {
            files.add(&folder.join(shard))?;
        }
        let mut problems = Problems::new(&index);
        for (name, shard) in &weight_map {
            match files.tensors.get(name) {
                Some(stored) if files.paths[stored.file].ends_with(shard) => {}
                Some(stored) => {
                    let place = files.paths[stored.file].display();
                    problems.add(&index, name, format!("the index places it in {shard}, it lies in {place}"));
                }
                None => problems.add(&index, name, format!("the index places it in {shard}, which lacks it")),
            }
        }
        for (name, stored) in &files.tensors {
            if !weight_map.contains_key(name) {
                problems.add(&files.paths[stored.file], name, "not in the index");
            }
        }
        problems.finish()?;
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = open_file(path)?;
        let index = self.files.len();
        let mut problems = Problems::new(path);
        for (name, stored) in read_header(path, &file, index)? {
            if let Some(other) = self.tensors.get(&name) {
                let place = self.paths[other.file].display();
                problems.add(path, &name, format!("already in {place}"));
                continue;
            }
            self.tensors.insert(name, stored);
        }
        self.files.push(file);
        self.paths.push(path.into());
        problems.finish()
    }

    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.tensors.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The files, one or shards.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// The file a tensor lies in.
    pub fn path(&self, stored: &Stored) -> &Path {
        &self.paths[stored.file]
    }

    /// Checks one tensor against what a model needs.
    pub fn check(&self, name: &str, shape: &[usize], problems: &mut Problems) {
        let Some(stored) = self.get(name) else {
            return problems.add(&self.origin, name, format!("missing; needs shape {shape:?}"));
        };
        let path = self.path(stored);
        if stored.shape != shape {
            problems.add(path, name, format!("needs shape {shape:?}, got {:?}", stored.shape));
        } else if !matches!(stored.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
            problems.add(path, name, format!("needs type F32, BF16 or F16, got {:?}", stored.dtype));
        }
    }

    /// Calls `visit` with runs of consecutive elements, as f32, and the index of each run's first element.
    ///
    /// Positional reads rather than a memory map: a file that shrinks meanwhile is an error here, and would be a
    /// fatal signal there.
    pub fn visit(&self, name: &str, mut visit: impl FnMut(usize, &[f32])) -> Result<()> {
        let missing = || tensor_error(&self.origin, name, "missing");
        let stored = self.get(name).ok_or_else(missing)?;
        let path = self.path(stored);
        let size = if stored.dtype == Dtype::F32 { 4 } else { 2 };
        let mut file = &self.files[stored.file];
        file.seek(SeekFrom::Start(stored.start)).map_err(Error::io(path))?;
        let (mut bytes, mut values) = (vec![0; CHUNK * size], Vec::with_capacity(CHUNK));
        let total = stored.len();
        let mut done = 0;
        while done < total {
            let count = CHUNK.min(total - done);
            let bytes = &mut bytes[..count * size];
            file.read_exact(bytes).map_err(Error::io(path))?;
            values.clear();
            match stored.dtype {
                Dtype::F32 => {
                    values
                        .extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
                }
                Dtype::BF16 => {
                    values.extend(bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()));
                }
                Dtype::F16 => {
                    values.extend(bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()));
                }
                other => {
                    let problem = format!("needs type F32, BF16 or F16, got {other:?}");
                    return Err(tensor_error(path, name, problem));
                }
            }
            if let Some(bad) = values.iter().position(|value| !value.is_finite()) {
                let problem =
                    format!("element {} is {}; every weight must be finite", done + bad, values[bad]);
                return Err(tensor_error(path, name, problem));
            }
            visit(done, &values);
            done += count;
        }
        Ok(())
    }

    /// Reads one tensor into `target`, which has its length.
    pub fn read_into(&self, name: &str, target: &mut [f32]) -> Result<()> {
        self.visit(name, |start, values| target[start..start + values.len()].copy_from_slice(values))
    }
}

fn read_weight_map(index: &Path) -> Result<BTreeMap<String, String>> {
    let error = |field: String, needed: &str, got: String| Error::Config {
        file: index.display().to_string(),
        field,
        needed: needed.into(),
        got,
    };
    let map = read_object(index)?;
    let Some(Value::Object(entries)) = map.get("weight_map") else {
        let got = map.get("weight_map").map_or("nothing".into(), |value| printable(&value.to_string()));
        return Err(error("weight_map".into(), "an object from tensor to file", got));
    };
    if entries.is_empty() {
        return Err(error("weight_map".into(), "at least one tensor", "none".into()));
    }
    let mut files = BTreeMap::new();
    for (name, file) in entries {
        // Only a plain file name: anything else would reach outside the folder.
        let plain = file.as_str().filter(|file| {
            file.ends_with(".safetensors") && !file.starts_with('.') && !file.contains(['/', '\\', ':', '\0'])
        });
        let Some(plain) = plain else {
            let needed = "the name of a .safetensors file in the same folder";
            let field = format!("weight_map.{}", printable(name));
            return Err(error(field, needed, printable(&file.to_string())));
        };
        files.insert(name.clone(), plain.to_string());
    }
    Ok(files)
}

/// Reads and checks the header: what it says must add up to exactly the length of the file.
fn read_header(path: &Path, file: &File, index: usize) -> Result<Vec<(String, Stored)>> {
    let broken = |problem: String| Error::Weights { path: path.into(), problem };
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length < 8 {
        return Err(broken(format!("has {length} bytes; the header's length alone takes 8")));
    }
    let mut reader = BufReader::new(file);
    let mut size = [0; 8];
    reader.read_exact(&mut size).map_err(Error::io(path))?;
    let header = u64::from_le_bytes(size);
    if header > MAX_HEADER || header > length - 8 {
        return Err(broken(format!(
            "says that its header has {header} bytes; needs at most {}",
            MAX_HEADER.min(length - 8)
        )));
    }
    let mut text = vec![0; header as usize];
    reader.read_exact(&mut text).map_err(Error::io(path))?;
    // The library checks that the tensors' offsets follow each other without gap or overlap and fit their shapes.
    let metadata: Metadata =
        serde_json::from_slice(&text).map_err(|error| broken(printable(&error.to_string())))?;
    let data = length - 8 - header;
    if metadata.data_len() as u64 != data {
        return Err(broken(format!(
            "its header describes {} bytes of data, the file holds {data}",
            metadata.data_len()
        )));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let start = 8 + header + info.data_offsets.0 as u64;
        (name, Stored { file: index, dtype: info.dtype, shape: info.shape.clone(), start })
    });
    Ok(tensors.collect())
}
