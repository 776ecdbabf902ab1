//! Every weight of a model in one flat f32 buffer, and the map from tensor names to places in it.
//!
//! One buffer makes the optimiser, averaging, checkpoints and the fused kernels simple loops over slices. Query, key
//! and value weights lie next to each other, and so do gate and up, so that each group is one matrix product.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::config::ModelConfig;
use crate::error::{Error, Result};

/// One named tensor of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Name in the Hugging Face layout, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
}

impl Entry {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Place in the flat buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// Whether weight decay usually applies: matrices yes, norms and biases no.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }
}

/// The linear maps of a decoder layer that an adapter can sit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// `self_attn.q_proj`
    Query,
    /// `self_attn.k_proj`
    Key,
    /// `self_attn.v_proj`
    Value,
    /// `self_attn.o_proj`
    Output,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Projection {
    /// In the order in which a layer applies them.
    pub const ALL: [Projection; 7] = [
        Projection::Query,
        Projection::Key,
        Projection::Value,
        Projection::Output,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// Name inside a layer.
    pub fn path(self) -> &'static str {
        match self {
            Projection::Query => "self_attn.q_proj",
            Projection::Key => "self_attn.k_proj",
            Projection::Value => "self_attn.v_proj",
            Projection::Output => "self_attn.o_proj",
            Projection::Gate => "mlp.gate_proj",
            Projection::Up => "mlp.up_proj",
            Projection::Down => "mlp.down_proj",
        }
    }

    /// `(output width, input width)` in this model.
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        match self {
            Projection::Query => (config.query_width(), d),
            Projection::Key | Projection::Value => (config.kv_width(), d),
            Projection::Output => (d, config.query_width()),
            Projection::Gate | Projection::Up => (f, d),
            Projection::Down => (d, f),
        }
    }
}

/// Offsets of one decoder layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlaces {
    /// Input norm, `[D]`.
    pub norm1: usize,
    /// Query, key and value weights one after the other, `[query + 2 kv, D]`.
    pub qkv: usize,
    /// Their biases, `[query + 2 kv]`.
    pub qkv_bias: Option<usize>,
    /// Query and key norms, `[2, head_dim]`.
    pub qk_norm: Option<usize>,
    /// Output projection, `[D, query]`.
    pub out: usize,
    /// Its bias, `[D]`.
    pub out_bias: Option<usize>,
    /// Norm before the feed-forward layer, `[D]`.
    pub norm2: usize,
    /// Gate and up weights, `[2 F, D]`.
    pub gate_up: usize,
    /// Their biases, `[2 F]`.
    pub gate_up_bias: Option<usize>,
    /// Down weights, `[D, F]`.
    pub down: usize,
    /// Its bias, `[D]`.
    pub down_bias: Option<usize>,
}

/// Offsets of a whole decoder, for code that works on the flat buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// Embedding table, `[V, D]`.
    pub embed: usize,
    /// One per layer.
    pub layers: Vec<LayerPlaces>,
    /// Last norm, `[D]`.
    pub norm: usize,
    /// Output embeddings, `[V, D]`: those of the input when tied. Absent without a language head.
    pub lm_head: Option<usize>,
    /// Score head, `[scores, D]`.
    pub score: Option<usize>,
    /// Its bias, `[scores]`.
    pub score_bias: Option<usize>,
}

/// Names, shapes and places of all tensors of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    total: usize,
}

impl Layout {
    /// A layout that places tensors one after the other.
    pub fn new(tensors: impl IntoIterator<Item = (String, Vec<usize>)>) -> Layout {
        let mut layout = Layout { entries: vec![], index: HashMap::new(), total: 0 };
        for (name, shape) in tensors {
            layout.push(name, shape);
        }
        layout
    }

    fn push(&mut self, name: String, shape: Vec<usize>) -> usize {
        let entry = Entry { name: name.clone(), shape, offset: self.total };
        let offset = entry.offset;
        self.total += entry.len();
        self.index.insert(name, self.entries.len());
        self.entries.push(entry);
        offset
    }

    /// All tensors, by place.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A tensor by its name.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.index.get(name).map(|&index| &self.entries[index])
    }

    /// Elements of all tensors together.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Layout of a decoder with its heads, and the offsets by role.
    pub fn decoder(config: &ModelConfig) -> (Layout, Places) {
        let mut layout = Layout::new([]);
        let (d, v) = (config.hidden_size, config.vocab_size);
        let embed = layout.push("model.embed_tokens.weight".into(), vec![v, d]);
        let layers = (0..config.layers)
            .map(|layer| {
                let name = |rest: &str| format!("model.layers.{layer}.{rest}");
                // Pushes the weights, then the biases, of projections that share an input; returns both offsets.
                let linear = |layout: &mut Layout, projections: &[Projection], bias: bool| {
                    let mut places = (0, None);
                    for (i, projection) in projections.iter().enumerate() {
                        let (outputs, inputs) = projection.shape(config);
                        let weight = format!("{}.weight", projection.path());
                        let place = layout.push(name(&weight), vec![outputs, inputs]);
                        if i == 0 {
                            places.0 = place;
                        }
                    }
                    for (i, projection) in projections.iter().enumerate().filter(|_| bias) {
                        let bias = format!("{}.bias", projection.path());
                        let place = layout.push(name(&bias), vec![projection.shape(config).0]);
                        if i == 0 {
                            places.1 = Some(place);
                        }
                    }
                    places
                };
                use Projection::{Down, Gate, Key, Output, Query, Up, Value};
                let norm1 = layout.push(name("input_layernorm.weight"), vec![d]);
                let (qkv, qkv_bias) = linear(&mut layout, &[Query, Key, Value], config.qkv_bias);
                let qk_norm = config.qk_norm.then(|| {
                    let place = layout.push(name("self_attn.q_norm.weight"), vec![config.head_dim]);
                    layout.push(name("self_attn.k_norm.weight"), vec![config.head_dim]);
                    place
                });
                let (out, out_bias) = linear(&mut layout, &[Output], config.out_bias);
                let norm2 = layout.push(name("post_attention_layernorm.weight"), vec![d]);
                let (gate_up, gate_up_bias) = linear(&mut layout, &[Gate, Up], config.mlp_bias);
                let (down, down_bias) = linear(&mut layout, &[Down], config.mlp_bias);
                LayerPlaces {
                    norm1,
                    qkv,
                    qkv_bias,
                    qk_norm,
                    out,
                    out_bias,
                    norm2,
                    gate_up,
                    gate_up_bias,
                    down,
                    down_bias,
                }
            })
            .collect();
        let norm = layout.push("model.norm.weight".into(), vec![d]);
        let lm_head = match (config.head.has_language(), config.tied) {
            (false, _) => None,
            (true, true) => Some(embed),
            (true, false) => Some(layout.push("lm_head.weight".into(), vec![v, d])),
        };
        let scores = config.head.scores();
        let (mut score, mut score_bias) = (None, None);
        if let Some(stem) = config.head.tensor_stem() {
            score = Some(layout.push(format!("{stem}.weight"), vec![scores, d]));
            if config.head.has_bias() {
                score_bias = Some(layout.push(format!("{stem}.bias"), vec![scores]));
            }
        }
        (layout, Places { embed, layers, norm, lm_head, score, score_bias })
    }
}

/// Named f32 tensors in one flat buffer.
#[derive(Debug, Clone)]
pub struct Params {
    layout: Arc<Layout>,
    /// All elements, placed by the layout.
    pub data: Vec<f32>,
}

impl Params {
    /// All zeros.
    pub fn zeros(layout: Arc<Layout>) -> Params {
        let data = vec![0.0; layout.total()];
        Params { layout, data }
    }

    /// Where each tensor lies.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Elements of one tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of that name.
    pub fn tensor(&self, name: &str) -> Result<&[f32]> {
        let entry = self.layout.get(name).ok_or_else(|| unknown(name))?;
        Ok(&self.data[entry.range()])
    }

    /// Elements of one tensor, to be changed.
    ///
    /// # Errors
    /// [`Error::Tensor`] if there is none of that name.
    pub fn tensor_mut(&mut self, name: &str) -> Result<&mut [f32]> {
        let range = self.layout.get(name).ok_or_else(|| unknown(name))?.range();
        Ok(&mut self.data[range])
    }

    /// Fresh weights as `transformers` draws them: matrices from N(0, `std`), norms 1, biases 0.
    pub fn random(layout: Arc<Layout>, std: f32, seed: u64) -> Params {
        let mut params = Params::zeros(layout.clone());
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for entry in layout.entries() {
            let values = &mut params.data[entry.range()];
            if entry.is_matrix() {
                fill_normal(values, std, &mut rng);
            } else if entry.name.ends_with("weight") {
                values.fill(1.0);
            }
        }
        params
    }
}

fn unknown(name: &str) -> Error {
    Error::Tensor {
        file: "model".into(),
        tensor: name.into(),
        problem: "this model has no such tensor".into(),
    }
}

/// Fills `values` with draws from N(0, `std`), by the Box-Muller transform.
pub fn fill_normal(values: &mut [f32], std: f32, rng: &mut impl Rng) {
    for pair in values.chunks_mut(2) {
        // 1 − u is in (0, 1], so the logarithm is finite.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * f64::from(std);
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        pair[0] = (radius * angle.cos()) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second = (radius * angle.sin()) as f32;
        }
    }
}
