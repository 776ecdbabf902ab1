//! Flat weights into a model folder, all or nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value, json};

use super::tensor_error;
use crate::config::{DType, ModelConfig};
use crate::error::{Error, Result};
use crate::params::{Entry, Params};

/// Files that belong to a model besides its weights, and are copied along: they do not change in training.
pub(super) const COMPANIONS: [&str; 15] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
];

/// How a model is saved.
#[derive(Debug, Clone, PartialEq)]
pub struct SaveOptions {
    /// Number format of the weights; the configuration's if `None`.
    pub dtype: Option<DType>,
    /// Largest size of one weights file, in bytes of weights. A larger model is split.
    pub shard_bytes: u64,
    /// Folder whose tokenizer, chat template, generation settings and licence are copied along.
    pub companions: Option<PathBuf>,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        SaveOptions { dtype: None, shard_bytes: 5_000_000_000, companions: None }
    }
}

/// Saves a model as a Hugging Face folder, replacing an earlier one in a single step.
///
/// # Errors
/// [`Error::Io`]; [`Error::Tensor`] for a weight that is not finite or too large for the number format;
/// [`Error::Argument`] if `folder` holds files that are no part of a model.
pub fn write(config: &ModelConfig, params: &Params, folder: &Path, options: &SaveOptions) -> Result<()> {
    atomically(folder, |partial| write_files(config, params, partial, options))
}

/// The files of [`write`], into a folder that exists. Meant for use inside [`atomically`], beside other files.
///
/// # Errors
/// As [`write`].
pub fn write_files(
    config: &ModelConfig,
    params: &Params,
    folder: &Path,
    options: &SaveOptions,
) -> Result<()> {
    let dtype = options.dtype.unwrap_or(config.dtype);
    let config = ModelConfig { dtype, ..config.clone() };
    write_object(&folder.join("config.json"), &config.to_json())?;
    if let Some(source) = &options.companions {
        for name in COMPANIONS {
            copy(&source.join(name), &folder.join(name))?;
        }
    }
    let generation = folder.join("generation_config.json");
    if !generation.exists() {
        let mut map = Map::new();
        map.insert("_from_model_config".into(), true.into());
        for field in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            if let Some(value) = config.to_json().get(field).filter(|value| !value.is_null()) {
                map.insert(field.into(), value.clone());
            }
        }
        write_object(&generation, &map)?;
    }

    let mut shards: Vec<Vec<&Entry>> = vec![];
    let mut room = 0;
    for entry in params.layout().entries() {
        let size = (entry.len() * dtype.size()) as u64;
        match shards.last_mut() {
            Some(shard) if size <= room => shard.push(entry),
            _ => {
                shards.push(vec![entry]);
                room = options.shard_bytes;
            }
        }
        room = room.saturating_sub(size);
    }
    if let [shard] = &shards[..] {
        return write_tensors(&folder.join("model.safetensors"), params, shard, dtype);
    }
    let mut weight_map = BTreeMap::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len());
        write_tensors(&folder.join(&name), params, shard, dtype)?;
        weight_map.extend(shard.iter().map(|entry| (entry.name.as_str(), name.clone())));
    }
    let total = params.data.len();
    let index = json!({
        "metadata": { "total_parameters": total, "total_size": total * dtype.size() },
        "weight_map": weight_map,
    });
    write_text(&folder.join("model.safetensors.index.json"), format!("{index:#}\n"))
}

/// Writes tensors of `params` into one safetensors file, a chunk at a time.
pub(super) fn write_tensors(path: &Path, params: &Params, entries: &[&Entry], dtype: DType) -> Result<()> {
    let mut end = 0;
    let tensors = entries.iter().map(|entry| {
        let start = end;
        end += entry.len() * dtype.size();
        let info = TensorInfo {
            dtype: match dtype {
                DType::F32 => Dtype::F32,
                DType::BF16 => Dtype::BF16,
                DType::F16 => Dtype::F16,
            },
            shape: entry.shape.clone(),
            data_offsets: (start, end),
        };
        (entry.name.clone(), info)
    });
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let header = Metadata::new(Some(format), tensors.collect())
        .map_err(std::io::Error::other)
        .and_then(|metadata| Ok(serde_json::to_vec(&metadata)?));
    let mut header = header.map_err(Error::io(path))?;
    // The format wants the data aligned.
    header.resize(header.len().next_multiple_of(8), b' ');

    let file = File::create(path).map_err(Error::io(path))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let mut put = |bytes: &[u8]| file.write_all(bytes).map_err(Error::io(path));
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for entry in entries {
        let values = &params.data[entry.range()];
        check_range(path, &entry.name, values, dtype)?;
        let mut bytes = vec![];
        for chunk in values.chunks(1 << 16) {
            bytes.clear();
            match dtype {
                DType::F32 => chunk.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
                DType::BF16 => chunk.iter().for_each(|&v| bytes.extend(bf16::from_f32(v).to_le_bytes())),
                DType::F16 => chunk.iter().for_each(|&v| bytes.extend(f16::from_f32(v).to_le_bytes())),
            }
            put(&bytes)?;
        }
    }
    file.flush().map_err(Error::io(path))
}

/// A saved checkpoint must be loadable: no NaN, and nothing beyond the number format.
fn check_range(path: &Path, name: &str, values: &[f32], dtype: DType) -> Result<()> {
    let fits = |value: &f32| match dtype {
        DType::F32 => value.is_finite(),
        DType::BF16 => bf16::from_f32(*value).is_finite(),
        DType::F16 => f16::from_f32(*value).is_finite(),
    };
    match values.iter().position(|value| !fits(value)) {
        None => Ok(()),
        Some(bad) => {
            let problem = format!("element {bad} is {}, which {} cannot hold", values[bad], dtype.name());
            Err(tensor_error(path, name, problem))
        }
    }
}

pub(super) fn write_object(path: &Path, map: &Map<String, Value>) -> Result<()> {
    let text = serde_json::to_string_pretty(map)
        .map_err(|error| Error::Json { path: path.into(), message: error.to_string() })?;
    write_text(path, text + "\n")
}

fn write_text(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).map_err(Error::io(path))
}

/// Copies a file, or a folder of files, if it is there.
pub(super) fn copy(source: &Path, target: &Path) -> Result<()> {
    if source.is_dir() {
        fs::create_dir_all(target).map_err(Error::io(target))?;
        for entry in fs::read_dir(source).map_err(Error::io(source))? {
            let entry = entry.map_err(Error::io(source))?;
            if entry.path().is_file() {
                copy(&entry.path(), &target.join(entry.file_name()))?;
            }
        }
    } else if source.is_file() {
        fs::copy(source, target).map_err(Error::io(source))?;
    }
    Ok(())
}

/// Makes `folder` hold what `fill` writes into the empty folder it is given, in one step: whenever the process or the
/// machine stops, `folder` is what it was or what it was to become.
///
/// The new folder is written beside the old one, brought to disk, and then the two are exchanged. A folder that holds
/// anything but files of a model and names that `fill` writes too is left alone. What an earlier run that was killed
/// left behind is removed.
///
/// # Errors
/// [`Error::Io`], [`Error::Argument`] for a folder with foreign files, and whatever `fill` returns.
pub fn atomically(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    // Through links, so that a link keeps pointing at the checkpoint and does not become one.
    let folder = if folder.exists() {
        fs::canonicalize(folder).map_err(Error::io(folder))?
    } else {
        folder.to_path_buf()
    };
    let Some(name) = folder.file_name() else {
        return Err(Error::argument("folder", "a path that ends in a name", folder.display()));
    };
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let prefix = format!(".{}.saving-", name.to_string_lossy());
    remove_abandoned(parent, &prefix);

    static SAVES: AtomicU64 = AtomicU64::new(0);
    let number = SAVES.fetch_add(1, Ordering::Relaxed);
    let partial = Partial::new(parent.join(format!("{prefix}{}-{number}", std::process::id())))?;
    fill(&partial.path)?;
    check_replaceable(&folder, &partial.path)?;
    sync(&partial.path)?;
    if folder.exists() {
        exchange(&partial.path, &folder)?;
    } else {
        fs::rename(&partial.path, &folder).map_err(Error::io(&folder))?;
    }
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(Error::io(parent))
    // Dropping `partial` removes what now lies at its path: the old folder, or nothing.
}

/// A folder under construction. Its lock tells other processes that someone is still at work on it.
struct Partial {
    path: PathBuf,
    _lock: File,
}

impl Partial {
    fn new(path: PathBuf) -> Result<Partial> {
        fs::create_dir(&path).map_err(Error::io(&path))?;
        let lock = File::open(&path).map_err(Error::io(&path))?;
        // Some network file systems have no locks. Abandoned folders then stay until someone deletes them.
        let _ = lock.try_lock();
        Ok(Partial { path, _lock: lock })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes folders of saves that were killed. Best effort: a failure costs disk space, not the checkpoint.
fn remove_abandoned(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let abandoned = File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_ok());
        if abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Refuses to replace a folder that holds something which is no part of a model and would be lost.
fn check_replaceable(folder: &Path, partial: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let name = entry.map_err(Error::io(folder))?.file_name();
        let text = name.to_string_lossy();
        let ours = partial.join(&name).exists()
            || COMPANIONS.contains(&text.as_ref())
            || ["config.json", "adapter_config.json", "model.safetensors.index.json"]
                .contains(&text.as_ref())
            || (text.ends_with(".safetensors")
                && (text.starts_with("model") || text.starts_with("adapter_model")));
        if !ours {
            let needed =
                format!("{} to hold nothing but a model, since it would be replaced", folder.display());
            return Err(Error::argument("folder", needed, text));
        }
    }
    Ok(())
}

/// Brings a folder and everything in it to disk.
fn sync(path: &Path) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io(path))? {
            sync(&entry.map_err(Error::io(path))?.path())?;
        }
    }
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io(path))
}

/// Swaps two folders in one step; where the file system cannot, in three, between which `folder` may be missing for a
/// moment while the old one lies beside it under `.<name>.previous`.
fn exchange(partial: &Path, folder: &Path) -> Result<()> {
    if renameat_with(CWD, partial, CWD, folder, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let previous = folder.with_file_name(format!(".{name}.previous"));
    fs::rename(folder, &previous).map_err(Error::io(folder))?;
    fs::rename(partial, folder).map_err(Error::io(folder))?;
    fs::rename(&previous, partial).map_err(Error::io(&previous))
}
