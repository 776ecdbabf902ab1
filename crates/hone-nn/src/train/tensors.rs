//! Flat f32 slices in one safetensors file, streamed out and checked in, for the state of a run.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use memmap2::Mmap;
use pulp::bytemuck;
use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};
use xxhash_rust::xxh3::Xxh3Default;

use crate::error::{Error, Result};

/// Writes named tensors; returns a checksum of their contents in the order given.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, tensors: &[(String, &[f32])]) -> Result<u64> {
    let mut end = 0;
    let infos = tensors.iter().map(|(name, values)| {
        let start = end;
        end += 4 * values.len();
        let info = TensorInfo { dtype: Dtype::F32, shape: vec![values.len()], data_offsets: (start, end) };
        (name.clone(), info)
    });
    let header = Metadata::new(None, infos.collect())
        .map_err(std::io::Error::other)
        .and_then(|metadata| Ok(serde_json::to_vec(&metadata)?));
    let mut header = header.map_err(Error::io(path))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let file = File::create(path).map_err(Error::io(path))?;
    let mut file = BufWriter::new(file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut checksum = Xxh3Default::new();
    for (_, values) in tensors {
        if cfg!(target_endian = "little") {
            put(bytemuck::cast_slice(values))?;
        } else {
            values.iter().try_for_each(|value| put(&value.to_le_bytes()))?;
        }
        checksum.update(bytemuck::cast_slice(values));
    }
    file.flush().map_err(Error::io(path))?;
    Ok(checksum.digest())
}

/// Reads exactly these tensors, whatever their shapes are as long as the lengths agree; returns the checksum of their
/// contents in the order given.
///
/// # Errors
/// [`Error::Io`]; [`Error::Weights`] for a file that is not whole; [`Error::Tensor`] for one that is missing, too
/// many, or of another length or type.
pub fn read(path: &Path, tensors: Vec<(String, &mut [f32])>) -> Result<u64> {
    let file = File::open(path).map_err(Error::io(path))?;
    // SAFETY: checkpoints are never written to once they have their name. Someone who changes one meanwhile gets wrong
    // numbers, found by the checksum, or a bus error if the file is cut.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
    let stored = SafeTensors::deserialize(&map)
        .map_err(|error| Error::Weights { path: path.into(), problem: error.to_string() })?;
    let problem = |tensor: &str, problem: String| Error::Tensor {
        file: path.display().to_string(),
        tensor: tensor.into(),
        problem,
    };
    let mut found: HashMap<_, _> = stored.iter().collect();
    let mut checksum = Xxh3Default::new();
    for (name, values) in tensors {
        let view = found.remove(name.as_str());
        let view =
            view.ok_or_else(|| problem(&name, "is missing: the checkpoint is of another run".into()))?;
        if view.dtype() != Dtype::F32 || view.data().len() != size_of_val::<[f32]>(values) {
            let needed = format!("needs {} numbers of F32", values.len());
            let got = format!("got shape {:?} of {:?}", view.shape(), view.dtype());
            return Err(problem(&name, format!("{needed}, {got}: the checkpoint is of another run")));
        }
        for (value, bytes) in values.iter_mut().zip(view.data().as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        checksum.update(bytemuck::cast_slice(values));
    }
    match found.keys().next() {
        Some(extra) => Err(problem(extra, "is not part of this run: the checkpoint is of another".into())),
        None => Ok(checksum.digest()),
    }
}

/// Checksum of one buffer, as [`write()`] computes it.
pub fn checksum(values: &[f32]) -> u64 {
    let mut checksum = Xxh3Default::new();
    checksum.update(bytemuck::cast_slice(values));
    checksum.digest()
}
