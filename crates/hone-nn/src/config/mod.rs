//! `config.json` of a decoder: which family, which sizes, which variants.
//!
//! One struct describes Llama, Mistral, Qwen2, Qwen3 and SmolLM models: they differ by a handful of switches. What
//! a field asks for and this crate cannot do is refused by name, never ignored.

mod rope;

use std::path::Path;

use serde_json::{Map, Value};

pub use rope::{Rope, RopeScaling, RopeTable};

use crate::error::{Error, Result};

/// Largest vocabulary and width of anything, far above any model. With [`MAX_LAYERS`] it keeps the number of weights,
/// and every product on the way to it, within 64 bits; what a folder claims is compared with its files afterwards.
const MAX_WIDTH: usize = 1 << 24;

/// Most heads of a layer.
const MAX_HEADS: usize = 1 << 12;

/// Most layers.
const MAX_LAYERS: usize = 1 << 12;

/// Families of decoder-only models that share this crate's decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 1-3 and every model that uses its code: SmolLM, SmolLM2, TinyLlama, hone-tiny.
    Llama,
    /// Mistral: a sliding window over every layer.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: a norm on each query and key head.
    Qwen3,
    /// SmolLM3: some layers without rotary positions.
    SmolLm3,
}

impl Family {
    const ALL: [(Family, &'static str, &'static str); 5] = [
        (Family::Llama, "llama", "Llama"),
        (Family::Mistral, "mistral", "Mistral"),
        (Family::Qwen2, "qwen2", "Qwen2"),
        (Family::Qwen3, "qwen3", "Qwen3"),
        (Family::SmolLm3, "smollm3", "SmolLM3"),
    ];

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        Family::ALL.iter().find(|(family, ..)| *family == self).map_or("llama", |(_, name, _)| name)
    }

    /// Prefix of the class names in `architectures`, such as `Qwen2` of `Qwen2ForCausalLM`.
    pub fn class_prefix(self) -> &'static str {
        Family::ALL.iter().find(|(family, ..)| *family == self).map_or("Llama", |(.., prefix)| prefix)
    }
}

/// What sits on top of the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Next-token distribution (`…ForCausalLM`).
    Language,
    /// Next-token distribution and one scalar per token (`v_head.summary.*`, as TRL stores it).
    LanguageAndValue,
    /// `labels` scores per sequence, read at its last token (`…ForSequenceClassification`). One label: a reward model.
    Sequence {
        /// Number of scores.
        labels: usize,
    },
    /// `labels` scores per token (`…ForTokenClassification`).
    Token {
        /// Number of scores.
        labels: usize,
    },
}

impl Head {
    /// Whether there is a next-token distribution.
    pub fn has_language(self) -> bool {
        matches!(self, Head::Language | Head::LanguageAndValue)
    }

    /// Scores per token computed beside the next-token distribution: 0 for a plain language model.
    pub fn scores(self) -> usize {
        match self {
            Head::Language => 0,
            Head::LanguageAndValue => 1,
            Head::Sequence { labels } | Head::Token { labels } => labels,
        }
    }

    /// Whether the score head has a bias; sequence classifiers in `transformers` have none.
    pub fn has_bias(self) -> bool {
        matches!(self, Head::LanguageAndValue | Head::Token { .. })
    }

    /// Tensor name of the score head without `.weight`, if there is one.
    pub fn tensor_stem(self) -> Option<&'static str> {
        match self {
            Head::Language => None,
            Head::LanguageAndValue => Some("v_head.summary"),
            Head::Sequence { .. } | Head::Token { .. } => Some("score"),
        }
    }
}

/// Number format of stored weights. Computation on the CPU is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit.
    F32,
    /// 16-bit with the exponent range of f32.
    BF16,
    /// IEEE 16-bit.
    F16,
}

impl DType {
    /// Name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "float32",
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
        }
    }

    /// Bytes per number.
    pub fn size(self) -> usize {
        if self == DType::F32 { 4 } else { 2 }
    }
}

/// Sizes and switches of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family's file layout and names are used.
    pub family: Family,
    /// What sits on top.
    pub head: Head,
    /// Rows of the embedding table, `V`.
    pub vocab_size: usize,
    /// Width of the residual stream, `D`.
    pub hidden_size: usize,
    /// Width of the feed-forward layer, `F`.
    pub intermediate_size: usize,
    /// Number of layers, `L`.
    pub layers: usize,
    /// Query heads, `H`.
    pub heads: usize,
    /// Key and value heads, a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of one head, even. `heads * head_dim` may differ from `hidden_size`.
    pub head_dim: usize,
    /// ε of every RMS norm.
    pub norm_eps: f32,
    /// Rotary positions.
    pub rope: Rope,
    /// `[L]`: whether a layer rotates its queries and keys.
    pub rope_layers: Vec<bool>,
    /// `[L]`: how many positions back a layer sees, itself included; `None` for all.
    pub windows: Vec<Option<usize>>,
    /// RMS norm on each query and key head.
    pub qk_norm: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub out_bias: bool,
    /// Biases in the feed-forward layer.
    pub mlp_bias: bool,
    /// Output embeddings are the input embeddings.
    pub tied: bool,
    /// Longest context, in tokens.
    pub max_positions: usize,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f32,
    /// Beginning-of-sequence token.
    pub bos_token: Option<u32>,
    /// Tokens that end a sequence; may be empty.
    pub eos_tokens: Vec<u32>,
    /// Padding token.
    pub pad_token: Option<u32>,
    /// Number format the weights are stored in.
    pub dtype: DType,
    /// The whole file as read, so that saving keeps what this crate does not use.
    pub raw: Map<String, Value>,
}

/// Reads fields of one JSON object and words the errors.
pub(crate) struct Fields<'a> {
    pub(crate) file: &'a str,
    pub(crate) map: &'a Map<String, Value>,
}

impl Fields<'_> {
    pub(crate) fn error(&self, field: &str, needed: &str) -> Error {
        let got = self.map.get(field).map_or("nothing".to_string(), Value::to_string);
        Error::Config { file: self.file.into(), field: field.into(), needed: needed.into(), got }
    }

    pub(crate) fn present(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, field: &str, default: Option<usize>) -> Result<usize> {
        self.size_up_to(field, default, (1 << 31) - 1)
    }

    fn size_up_to(&self, field: &str, default: Option<usize>, most: usize) -> Result<usize> {
        let needed = format!("a whole number from 1 to {most}");
        match self.present(field) {
            None => default.ok_or_else(|| self.error(field, &needed)),
            Some(value) => value
                .as_u64()
                .filter(|&size| size > 0 && size <= most as u64)
                .map(|size| size as usize)
                .ok_or_else(|| self.error(field, &needed)),
        }
    }

    pub(crate) fn float(&self, field: &str, default: f64) -> Result<f64> {
        match self.present(field) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| self.error(field, "a finite number above 0")),
        }
    }

    pub(crate) fn flag(&self, field: &str, default: bool) -> Result<bool> {
        match self.present(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(field, "true or false")),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&str>> {
        match self.present(field) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.error(field, "a string")),
        }
    }

    /// One token id or a list of them.
    fn tokens(&self, field: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let all = match self.present(field) {
            None => Some(vec![]),
            Some(Value::Array(ids)) => ids.iter().map(id).collect(),
            Some(value) => id(value).map(|id| vec![id]),
        };
        all.ok_or_else(|| self.error(field, "a token id or a list of token ids"))
    }
}

impl ModelConfig {
    /// Reads `config.json` of a model folder.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Json`], or [`Error::Config`] naming the first field that cannot be used.
    pub fn from_folder(folder: &Path) -> Result<ModelConfig> {
        let path = folder.join("config.json");
        ModelConfig::from_json(&path.display().to_string(), crate::folder::read_object(&path)?)
    }

    /// Reads a configuration that is already parsed; `file` is used in errors only.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first field that cannot be used.
    pub fn from_json(file: &str, raw: Map<String, Value>) -> Result<ModelConfig> {
        let fields = Fields { file, map: &raw };
        let model_type = fields.text("model_type")?.unwrap_or("");
        let (family, ..) = *Family::ALL
            .iter()
            .find(|(_, name, _)| *name == model_type)
            .ok_or_else(|| fields.error("model_type", "one of llama, mistral, qwen2, qwen3, smollm3"))?;

        if !matches!(fields.text("hidden_act")?, None | Some("silu" | "swish")) {
            return Err(fields.error("hidden_act", "silu"));
        }
        for field in ["attention_dropout", "mlp_dropout", "hidden_dropout", "resid_pdrop"] {
            // Hone trains without dropout; a non-zero value would silently mean something else.
            if fields.present(field).is_some_and(|value| value.as_f64() != Some(0.0)) {
                return Err(fields.error(field, "0"));
            }
        }
        if fields.present("quantization_config").is_some() {
            return Err(fields.error("quantization_config", "nothing: quantised weights are not supported"));
        }

        let hidden_size = fields.size_up_to("hidden_size", None, MAX_WIDTH)?;
        let heads = fields.size_up_to("num_attention_heads", None, MAX_HEADS)?;
        let layers = fields.size_up_to("num_hidden_layers", None, MAX_LAYERS)?;
        let kv_heads = fields.size_up_to("num_key_value_heads", Some(heads), MAX_HEADS)?;
        if heads % kv_heads != 0 {
            return Err(fields.error("num_key_value_heads", "a divisor of num_attention_heads"));
        }
        let head_dim = match fields.present("head_dim") {
            Some(_) => fields.size_up_to("head_dim", None, MAX_WIDTH / MAX_HEADS)?,
            None if hidden_size % heads == 0 => hidden_size / heads,
            None => return Err(fields.error("hidden_size", "a multiple of num_attention_heads")),
        };
        if head_dim % 2 != 0 {
            return Err(fields.error("head_dim", "an even number"));
        }
        let max_positions = fields.size("max_position_embeddings", Some(2048))?;
        let attention_bias = fields.flag("attention_bias", false)?;
        let (qkv_bias, out_bias) = match family {
            Family::Qwen2 => (true, false),
            _ => (attention_bias, attention_bias),
        };
        let tied_default = family == Family::SmolLm3;
        let dtype = match fields.text("dtype")?.or(fields.text("torch_dtype")?) {
            None | Some("float32") => DType::F32,
            Some("bfloat16") => DType::BF16,
            Some("float16") => DType::F16,
            Some(_) => return Err(fields.error("dtype", "float32, bfloat16 or float16")),
        };
        let config = ModelConfig {
            family,
            head: read_head(&fields, family)?,
            vocab_size: fields.size_up_to("vocab_size", None, MAX_WIDTH)?,
            hidden_size,
            intermediate_size: fields.size_up_to("intermediate_size", None, MAX_WIDTH)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            norm_eps: fields.float("rms_norm_eps", 1e-6)? as f32,
            rope: rope::read(&fields, family, max_positions)?,
            rope_layers: read_rope_layers(&fields, family, layers)?,
            windows: read_windows(&fields, family, layers)?,
            qk_norm: family == Family::Qwen3,
            qkv_bias,
            out_bias,
            mlp_bias: fields.flag("mlp_bias", false)?,
            tied: fields.flag("tie_word_embeddings", tied_default)?,
            max_positions,
            initializer_range: fields.float("initializer_range", 0.02)? as f32,
            bos_token: fields.tokens("bos_token_id")?.first().copied(),
            eos_tokens: fields.tokens("eos_token_id")?,
            pad_token: fields.tokens("pad_token_id")?.first().copied(),
            dtype,
            raw: Map::new(),
        };
        Ok(ModelConfig { raw, ..config })
    }

    /// `config.json` for this model: the file it came from with every field that this crate knows brought up to date.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut map = self.raw.clone();
        let class = match self.head {
            Head::Language | Head::LanguageAndValue => "ForCausalLM",
            Head::Sequence { .. } => "ForSequenceClassification",
            Head::Token { .. } => "ForTokenClassification",
        };
        let mut set = |key: &str, value: Value| map.insert(key.into(), value);
        set("architectures", vec![format!("{}{class}", self.family.class_prefix())].into());
        set("model_type", self.family.model_type().into());
        set("vocab_size", self.vocab_size.into());
        set("hidden_size", self.hidden_size.into());
        set("intermediate_size", self.intermediate_size.into());
        set("num_hidden_layers", self.layers.into());
        set("num_attention_heads", self.heads.into());
        set("num_key_value_heads", self.kv_heads.into());
        set("head_dim", self.head_dim.into());
        set("hidden_act", "silu".into());
        set("rms_norm_eps", clean(self.norm_eps));
        set("initializer_range", clean(self.initializer_range));
        set("max_position_embeddings", self.max_positions.into());
        set("tie_word_embeddings", self.tied.into());
        set("dtype", self.dtype.name().into());
        set("bos_token_id", self.bos_token.into());
        set("pad_token_id", self.pad_token.into());
        set(
            "eos_token_id",
            match self.eos_tokens[..] {
                [] => Value::Null,
                [one] => one.into(),
                _ => self.eos_tokens.clone().into(),
            },
        );
        if let Head::Sequence { labels } | Head::Token { labels } = self.head {
            let stored = self.raw.get("id2label").and_then(Value::as_object).map(Map::len);
            if stored != Some(labels) {
                let names: Vec<String> = (0..labels).map(|label| format!("LABEL_{label}")).collect();
                let id2label: Map<String, Value> = names
                    .iter()
                    .enumerate()
                    .map(|(id, name)| (id.to_string(), name.clone().into()))
                    .collect();
                let label2id: Map<String, Value> =
                    names.iter().enumerate().map(|(id, name)| (name.clone(), id.into())).collect();
                map.insert("id2label".into(), id2label.into());
                map.insert("label2id".into(), label2id.into());
            }
        }
        // Both spellings: older readers know `rope_theta` and `rope_scaling` only.
        map.remove("torch_dtype");
        self.rope.write(&mut map);
        map
    }

    /// A fresh Llama-family language model with tied embeddings, as `hone pretrain` makes.
    pub fn llama(
        vocab_size: usize,
        hidden_size: usize,
        layers: usize,
        heads: usize,
        kv_heads: usize,
        intermediate_size: usize,
    ) -> ModelConfig {
        let max_positions = 1024;
        let mut config = ModelConfig {
            family: Family::Llama,
            head: Head::Language,
            vocab_size,
            hidden_size,
            intermediate_size,
            layers,
            heads,
            kv_heads,
            head_dim: hidden_size / heads,
            norm_eps: 1e-5,
            rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
            rope_layers: vec![true; layers],
            windows: vec![None; layers],
            qk_norm: false,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            tied: true,
            max_positions,
            initializer_range: 0.02,
            bos_token: None,
            eos_tokens: vec![],
            pad_token: None,
            dtype: DType::F32,
            raw: Map::new(),
        };
        config.raw = config.to_json();
        config
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads together; the value heads have the same.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// An f32 as the shortest decimal that reads back to it, so that 1e-5 is not written as 9.999999747378752e-6.
fn clean(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn read_head(fields: &Fields, family: Family) -> Result<Head> {
    let needed = "one architecture this crate can run, such as LlamaForCausalLM";
    let class = match fields.present("architectures") {
        None => return Ok(Head::Language),
        Some(Value::Array(names)) => names.first().and_then(Value::as_str),
        Some(_) => None,
    };
    let kind = class.and_then(|class| class.strip_prefix(family.class_prefix()));
    let labels = match fields.present("id2label") {
        Some(Value::Object(names)) => names.len(),
        Some(_) => return Err(fields.error("id2label", "an object from label id to name")),
        None => fields.size_up_to("num_labels", Some(2), MAX_WIDTH)?,
    };
    match kind {
        Some("ForCausalLM" | "Model") => Ok(Head::Language),
        Some("ForSequenceClassification") => Ok(Head::Sequence { labels }),
        Some("ForTokenClassification") => Ok(Head::Token { labels }),
        _ => Err(fields.error("architectures", needed)),
    }
}

fn read_rope_layers(fields: &Fields, family: Family, layers: usize) -> Result<Vec<bool>> {
    if family != Family::SmolLm3 {
        return Ok(vec![true; layers]);
    }
    let needed = "a list of 0 or 1, one per layer";
    match fields.present("no_rope_layers") {
        None => {
            let interval = fields.size("no_rope_layer_interval", Some(4))?;
            Ok((1..=layers).map(|layer| layer % interval != 0).collect())
        }
        // The field's name says the opposite of what it holds: 1 means that the layer does rotate.
        Some(Value::Array(flags)) if flags.len() == layers => flags
            .iter()
            .map(|flag| match flag.as_u64() {
                Some(0) => Ok(false),
                Some(1) => Ok(true),
                _ => Err(fields.error("no_rope_layers", needed)),
            })
            .collect(),
        Some(_) => Err(fields.error("no_rope_layers", needed)),
    }
}

fn read_windows(fields: &Fields, family: Family, layers: usize) -> Result<Vec<Option<usize>>> {
    let used = match family {
        Family::Llama => false,
        Family::Mistral => true,
        Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => fields.flag("use_sliding_window", false)?,
    };
    if !used || fields.present("sliding_window").is_none() {
        return Ok(vec![None; layers]);
    }
    let window = Some(fields.size("sliding_window", None)?);
    if family == Family::Mistral {
        return Ok(vec![window; layers]);
    }
    let needed = "a list of full_attention or sliding_attention, one per layer";
    match fields.present("layer_types") {
        None => {
            let full = fields.size("max_window_layers", Some(28))?;
            Ok((0..layers).map(|layer| if layer < full { None } else { window }).collect())
        }
        Some(Value::Array(kinds)) if kinds.len() == layers => kinds
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(None),
                Some("sliding_attention") => Ok(window),
                _ => Err(fields.error("layer_types", needed)),
            })
            .collect(),
        Some(_) => Err(fields.error("layer_types", needed)),
    }
}
