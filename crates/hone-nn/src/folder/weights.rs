//! The tensors of any model folder, whatever its architecture: read one at a time, and written changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::tensors::{Stored, TensorFiles};
use super::write::{COMPANIONS, copy};
use super::{atomically, tensor_error};
use crate::error::{Error, Result};

/// A folder's tensors by name. Only headers are in memory.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    files: TensorFiles,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards that its index names.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Weights`], [`Error::Config`] for an index that does not fit its files.
    pub fn open(folder: &Path) -> Result<Weights> {
        Ok(Weights { folder: folder.into(), files: TensorFiles::open(folder, "model")? })
    }

    /// Where they lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Names and shapes of the tensors of numbers that can be trained (F32, BF16, F16), by name. Counters, masks and
    /// quantised tensors are not among them.
    pub fn trainable(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.files.iter().filter(|(_, t)| is_float(t.dtype)).map(|(name, t)| (name, t.shape.as_slice()))
    }

    /// One tensor as f32, row-major.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it is missing, not of numbers that can be trained, or holds one that is not finite.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let length = self.files.get(name).map_or(0, Stored::len);
        let mut values = vec![0.0; length];
        self.files.read_into(name, &mut values)?;
        Ok(values)
    }

    /// Writes the folder again as `out`, every trainable tensor as `edit` leaves it: same files, names, shapes, number
    /// formats, configuration and tokenizer. One tensor is in memory at a time.
    ///
    /// # Errors
    /// As [`atomically`]; [`Error::Tensor`] for a number that its format cannot hold; those of `edit`, as text.
    pub fn rewrite(&self, out: &Path, mut edit: impl FnMut(&str, &mut [f32]) -> Result<()>) -> Result<()> {
        atomically(out, |partial| {
            let index = "model.safetensors.index.json";
            for name in COMPANIONS.iter().chain(&["config.json", index]) {
                copy(&self.folder.join(name), &partial.join(name))?;
            }
            for (at, path) in self.files.paths().iter().enumerate() {
                let name = path.file_name().unwrap_or_default();
                self.rewrite_file(at, &partial.join(name), &mut edit)?;
            }
            Ok(())
        })
    }

    fn rewrite_file(
        &self,
        file: usize,
        path: &Path,
        edit: &mut impl FnMut(&str, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let mut tensors: Vec<(&str, &Stored)> = self.files.iter().filter(|(_, t)| t.file == file).collect();
        tensors.sort_by_key(|(_, stored)| stored.start);
        let mut end = 0;
        let infos = tensors.iter().map(|(name, stored)| {
            let start = end;
            end += bytes_of(stored);
            let info =
                TensorInfo { dtype: stored.dtype, shape: stored.shape.clone(), data_offsets: (start, end) };
            (name.to_string(), info)
        });
        let format = HashMap::from([("format".to_string(), "pt".to_string())]);
        let header = Metadata::new(Some(format), infos.collect())
            .map_err(std::io::Error::other)
            .and_then(|metadata| Ok(serde_json::to_vec(&metadata)?));
        let mut header = header.map_err(Error::io(path))?;
        // The format wants the data aligned.
        header.resize(header.len().next_multiple_of(8), b' ');
        let out = File::create(path).map_err(Error::io(path))?;
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(Error::io(path));
        put(&(header.len() as u64).to_le_bytes())?;
        put(&header)?;
        for (name, stored) in tensors {
            if is_float(stored.dtype) {
                let mut values = self.read(name)?;
                edit(name, &mut values)?;
                put(&encoded(path, name, stored.dtype, &values)?)?;
            } else {
                put(&self.raw(stored)?)?;
            }
        }
        out.flush().map_err(Error::io(path))
    }

    fn raw(&self, stored: &Stored) -> Result<Vec<u8>> {
        let path = self.files.path(stored);
        let mut file = File::open(path).map_err(Error::io(path))?;
        file.seek(SeekFrom::Start(stored.start)).map_err(Error::io(path))?;
        let mut bytes = vec![0; bytes_of(stored)];
        file.read_exact(&mut bytes).map_err(Error::io(path))?;
        Ok(bytes)
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

fn bytes_of(stored: &Stored) -> usize {
    stored.len() * stored.dtype.bitsize() / 8
}

fn encoded(path: &Path, name: &str, dtype: Dtype, values: &[f32]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.bitsize() / 8);
    for (at, &value) in values.iter().enumerate() {
        let held = match dtype {
            Dtype::BF16 => {
                bytes.extend(bf16::from_f32(value).to_le_bytes());
                bf16::from_f32(value).is_finite()
            }
            Dtype::F16 => {
                bytes.extend(f16::from_f32(value).to_le_bytes());
                f16::from_f32(value).is_finite()
            }
            _ => {
                bytes.extend(value.to_le_bytes());
                value.is_finite()
            }
        };
        if !held {
            let problem = format!("element {at} is {value}, which {dtype:?} cannot hold");
            return Err(tensor_error(path, name, problem));
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::folder::{SaveOptions, read, write};
    use crate::model::Model;

    #[test]
    fn a_folder_is_written_changed_in_the_same_files() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        let model = Model::random(ModelConfig::llama(50, 16, 2, 2, 1, 32), 3);
        // Small shards, so that there is an index to keep.
        let options = SaveOptions { shard_bytes: 4000, ..SaveOptions::default() };
        write(model.config(), &model.params, &from, &options).unwrap();
        let weights = Weights::open(&from).unwrap();
        assert_eq!(weights.trainable().count(), model.params.layout().entries().len());
        weights
            .rewrite(&to, |name, values| {
                if name.contains("layers.1.") {
                    values.iter_mut().for_each(|value| *value *= 2.0);
                }
                Ok(())
            })
            .unwrap();
        let (old, new) = (read(&from).unwrap(), read(&to).unwrap());
        for entry in old.params.layout().entries() {
            let factor = if entry.name.contains("layers.1.") { 2.0 } else { 1.0 };
            let (a, b) = (&old.params.data[entry.range()], &new.params.data[entry.range()]);
            assert!(a.iter().zip(b).all(|(a, b)| a * factor == *b), "{}", entry.name);
        }
        let too_large = weights.rewrite(&place.path().join("bad"), |_, values| {
            values.fill(f32::MAX * 2.0);
            Ok(())
        });
        assert!(too_large.unwrap_err().to_string().contains("cannot hold"));
        assert!(!place.path().join("bad").exists());
    }
}
