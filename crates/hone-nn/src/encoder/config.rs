//! What the JSON files of a sentence encoder's folder say.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// `config.json` of a BERT model, as far as it is used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EncoderConfig {
    /// Must be `bert`.
    model_type: String,
    /// Rows of the word embedding table.
    pub vocab_size: usize,
    /// Width of the embeddings, `D`.
    pub hidden_size: usize,
    /// Number of layers.
    #[serde(rename = "num_hidden_layers")]
    pub layers: usize,
    /// Attention heads, a divisor of `hidden_size`.
    #[serde(rename = "num_attention_heads")]
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the segment table; the first is used.
    pub type_vocab_size: usize,
    /// ε of every layer norm.
    pub layer_norm_eps: f64,
    /// Must be `gelu`, the exact one.
    hidden_act: String,
    /// Must be `absolute` or absent.
    position_embedding_type: Option<String>,
}

/// How the states of a sequence become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The state of the first token.
    Cls,
    /// The mean over all tokens.
    Mean,
    /// The sum over all tokens by the root of their number.
    MeanSqrtLength,
    /// The mean weighted by position, counted from 1.
    WeightedMean,
    /// The state of the last token.
    LastToken,
}

impl Pooling {
    const ALL: [(&'static str, &'static str, Pooling); 5] = [
        ("cls", "pooling_mode_cls_token", Pooling::Cls),
        ("mean", "pooling_mode_mean_tokens", Pooling::Mean),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", Pooling::MeanSqrtLength),
        ("weightedmean", "pooling_mode_weightedmean_tokens", Pooling::WeightedMean),
        ("lasttoken", "pooling_mode_lasttoken", Pooling::LastToken),
    ];

    /// Weight of each of `length` tokens.
    pub(super) fn weights(self, length: usize) -> Vec<f32> {
        let n = length as f32;
        let total = n * (n + 1.0) / 2.0;
        (0..length)
            .map(|position| match self {
                Pooling::Cls => f32::from(position == 0),
                Pooling::Mean => 1.0 / n,
                Pooling::MeanSqrtLength => 1.0 / n.sqrt(),
                Pooling::WeightedMean => (position as f32 + 1.0) / total,
                Pooling::LastToken => f32::from(position + 1 == length),
            })
            .collect()
    }
}

/// One line of `modules.json`.
#[derive(Deserialize)]
struct Module {
    path: String,
    #[serde(rename = "type")]
    kind: String,
}

/// The steps of a sentence encoder, of which the transformer is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modules {
    pub pooling: Pooling,
    pub normalise: bool,
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(|error| Error::Json { path: path.into(), message: error.to_string() })
}

fn refuse<T>(path: &Path, field: &str, needed: &str, got: impl std::fmt::Display) -> Result<T> {
    let file = path.display().to_string();
    Err(Error::Config { file, field: field.into(), needed: needed.into(), got: got.to_string() })
}

impl EncoderConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`] naming a missing field, or [`Error::Config`] naming one that cannot be used.
    pub fn from_folder(folder: &Path) -> Result<EncoderConfig> {
        let path = folder.join("config.json");
        let config: EncoderConfig = read(&path)?;
        if config.model_type != "bert" {
            return refuse(&path, "model_type", "bert", config.model_type);
        }
        if config.hidden_act != "gelu" {
            return refuse(&path, "hidden_act", "gelu", config.hidden_act);
        }
        if let Some(kind) = config.position_embedding_type.as_ref().filter(|kind| *kind != "absolute") {
            return refuse(&path, "position_embedding_type", "absolute", kind);
        }
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("hidden_size", config.hidden_size),
            ("num_hidden_layers", config.layers),
            ("num_attention_heads", config.heads),
            ("intermediate_size", config.intermediate_size),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        // Bounded so that products of two sizes cannot overflow.
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..1 << 31).contains(size)) {
            return refuse(&path, field, "a whole number above 0", size);
        }
        if !config.hidden_size.is_multiple_of(config.heads) {
            return refuse(&path, "num_attention_heads", "a divisor of hidden_size", config.heads);
        }
        if !(config.layer_norm_eps > 0.0 && config.layer_norm_eps.is_finite()) {
            return refuse(&path, "layer_norm_eps", "a number above 0", config.layer_norm_eps);
        }
        Ok(config)
    }
}

/// Reads `modules.json`. A folder without one is a plain transformer, for which sentence-transformers takes the mean
/// and does not normalise.
pub(super) fn read_modules(folder: &Path) -> Result<Modules> {
    let path = folder.join("modules.json");
    let mut read_modules = Modules { pooling: Pooling::Mean, normalise: false };
    if !path.exists() {
        return Ok(read_modules);
    }
    for (index, module) in read::<Vec<Module>>(&path)?.into_iter().enumerate() {
        // The module's Python path has changed between versions; its last part has not.
        match module.kind.rsplit('.').next() {
            Some("Transformer") if index == 0 && module.path.is_empty() => {}
            Some("Pooling") if index == 1 => read_modules.pooling = read_pooling(folder, &module.path)?,
            Some("Normalize") if index > 1 => read_modules.normalise = true,
            _ => {
                let field = format!("{index}.type");
                let needed = "Transformer, then Pooling, then perhaps Normalize";
                return refuse(&path, &field, needed, module.kind);
            }
        }
    }
    Ok(read_modules)
}

fn read_pooling(folder: &Path, subfolder: &str) -> Result<Pooling> {
    let plain = !subfolder.contains(['/', '\\', ':', '\0']) && !subfolder.starts_with('.');
    if !plain {
        return refuse(&folder.join("modules.json"), "path", "the name of a folder inside", subfolder);
    }
    let path = folder.join(subfolder).join("config.json");
    let map: Map<String, Value> = read(&path)?;
    let needed = "one of cls, mean, mean_sqrt_len_tokens, weightedmean, lasttoken";
    // One name, or a flag per name in folders of earlier versions.
    let names: Vec<&str> = match map.get("pooling_mode") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        Some(other) => return refuse(&path, "pooling_mode", needed, other),
        None => {
            let on = |key: &str| map.get(key).and_then(Value::as_bool) == Some(true);
            let max = on("pooling_mode_max_tokens").then_some("max");
            Pooling::ALL.iter().filter(|(_, key, _)| on(key)).map(|(name, ..)| *name).chain(max).collect()
        }
    };
    match Pooling::ALL.iter().find(|(name, ..)| names == [*name]) {
        Some((.., pooling)) => Ok(*pooling),
        None if names.is_empty() => Ok(Pooling::Mean),
        None => refuse(&path, "pooling_mode", needed, names.join(" and ")),
    }
}

/// Longest sequence the encoder was made for, in tokens: what its tokenizer and its settings say, within the position
/// table.
pub(super) fn read_max_tokens(folder: &Path, config: &EncoderConfig) -> Result<usize> {
    let mut limit = config.max_position_embeddings;
    // Earlier versions of sentence-transformers write the first, later ones the second.
    let places =
        [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")];
    for (file, field) in places {
        let path = folder.join(file);
        if !path.exists() {
            continue;
        }
        match read::<Map<String, Value>>(&path)?.get(field) {
            None | Some(Value::Null) => {}
            // A tokenizer without a limit says 1e30.
            Some(value) => match value.as_f64() {
                Some(tokens) if tokens >= 1.0 => limit = limit.min(tokens as usize),
                _ => return refuse(&path, field, "a whole number above 0", value),
            },
        }
    }
    Ok(limit)
}
