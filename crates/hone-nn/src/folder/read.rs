//! A model folder into flat weights.

use std::path::Path;
use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::tensors::{Stored, TensorFiles};
use super::{Problems, tensor_error};
use crate::config::{Head, ModelConfig};
use crate::error::Result;
use crate::model::Model;
use crate::params::{Layout, Params, fill_normal};

const EMBEDDING: &str = "model.embed_tokens.weight";
const LM_HEAD: &str = "lm_head.weight";

/// Ends of names that older files carry and no model needs: tables that follow from the configuration.
const HARMLESS: [&str; 4] =
    ["rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"];

/// A model, and which of its tensors were not in the folder.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// Names of tensors that were freshly drawn: those of a head that the folder did not have.
    pub new: Vec<String>,
}

/// Reads a model with the heads that its folder holds. A language model with `v_head.summary` tensors gets its value
/// head too.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io), [`Error::Json`](crate::Error::Json), [`Error::Config`](crate::Error::Config) and
/// [`Error::Weights`](crate::Error::Weights) for files that cannot be used;
/// [`Error::Tensor`](crate::Error::Tensor) or [`Error::Tensors`](crate::Error::Tensors) for tensors that are missing, unexpected, misshapen, of another type than
/// f32, bf16 or f16, or not finite.
pub fn read(folder: &Path) -> Result<Model> {
    let (config, files) = open(folder)?;
    Ok(load(folder, config, &files, None)?.model)
}

/// Reads a model and puts `head` on it: the folder's own where it is of that kind, else one drawn from
/// N(0, `initializer_range`) by `seed`. Tensors of other heads in the folder are left out.
///
/// # Errors
/// As [`read`].
pub fn read_with_head(folder: &Path, head: Head, seed: u64) -> Result<Loaded> {
    let (mut config, files) = open(folder)?;
    let stored = std::mem::replace(&mut config.head, head);
    load(folder, config, &files, Some((stored, seed)))
}

/// Configuration and headers of a folder, the head being the one it holds.
fn open(folder: &Path) -> Result<(ModelConfig, TensorFiles)> {
    let mut config = ModelConfig::from_folder(folder)?;
    let files = TensorFiles::open(folder, "model")?;
    if config.head == Head::Language && files.get("v_head.summary.weight").is_some() {
        config.head = Head::LanguageAndValue;
    }
    Ok((config, files))
}

/// Loads weights; `change` holds the folder's own head and a seed where the configuration's may differ from it.
fn load(
    folder: &Path,
    config: ModelConfig,
    files: &TensorFiles,
    change: Option<(Head, u64)>,
) -> Result<Loaded> {
    let (layout, _) = Layout::decoder(&config);
    // The folder of a bare decoder (`LlamaModel`) names its tensors without the prefix.
    let bare = files.get(EMBEDDING).is_none() && files.get("embed_tokens.weight").is_some();
    let stored_name = |name: &'_ str| -> String {
        name.strip_prefix("model.").filter(|_| bare).unwrap_or(name).to_string()
    };
    let mut problems = Problems::new(folder);
    let mut new = vec![];
    for entry in layout.entries() {
        let name = stored_name(&entry.name);
        let drawn = is_head(&entry.name)
            && change.is_some_and(|(stored, _)| {
                files.get(&name).is_none() || !same_kind(stored, config.head, &entry.name)
            });
        if drawn {
            new.push(entry.name.clone());
        } else {
            files.check(&name, &entry.shape, &mut problems);
        }
    }
    let tied_copy = config.head.has_language() && config.tied;
    for (name, stored) in files.iter() {
        let model_name = if bare && !is_head(name) { format!("model.{name}") } else { name.to_string() };
        let known = layout.get(&model_name).is_some()
            || (name == LM_HEAD && tied_copy)
            || (is_head(name) && change.is_some())
            || HARMLESS.iter().any(|end| name.ends_with(end));
        if !known {
            let problem = format!("unexpected; a {} model has no such tensor", config.family.model_type());
            problems.add(files.path(stored), name, problem);
        }
    }
    problems.finish()?;

    // Every size has now been found in files that are really that long.
    let mut params = Params::zeros(Arc::new(layout));
    let layout = params.layout().clone();
    let mut rng = ChaCha8Rng::seed_from_u64(change.map_or(0, |(_, seed)| seed));
    for entry in layout.entries() {
        let target = &mut params.data[entry.range()];
        if !new.contains(&entry.name) {
            files.read_into(&stored_name(&entry.name), target)?;
        } else if entry.is_matrix() {
            fill_normal(target, config.initializer_range, &mut rng);
        }
    }
    if tied_copy && let Some(stored) = files.get(LM_HEAD) {
        check_tied(files, stored, &[config.vocab_size, config.hidden_size], params.tensor(EMBEDDING)?)?;
    }
    Ok(Loaded { model: Model::new(config, params)?, new })
}

/// Whether a tensor belongs to a head and not to the decoder.
fn is_head(name: &str) -> bool {
    name == LM_HEAD || name.starts_with("score.") || name.starts_with("v_head.summary.")
}

/// Whether a head tensor of the folder means the same under the wanted head: `score` is used for sequences and for
/// tokens.
fn same_kind(stored: Head, wanted: Head, name: &str) -> bool {
    let sequence = |head: Head| matches!(head, Head::Sequence { .. });
    !name.starts_with("score.") || sequence(stored) == sequence(wanted)
}

/// A tied model may carry its output embeddings a second time, but not different ones.
fn check_tied(files: &TensorFiles, stored: &Stored, shape: &[usize], embedding: &[f32]) -> Result<()> {
    let mut equal = stored.shape == shape;
    if equal {
        files.visit(LM_HEAD, |start, values| equal &= embedding[start..start + values.len()] == *values)?;
    }
    if equal {
        return Ok(());
    }
    let problem = format!("differs from {EMBEDDING} although tie_word_embeddings is true");
    Err(tensor_error(files.path(stored), LM_HEAD, problem))
}
