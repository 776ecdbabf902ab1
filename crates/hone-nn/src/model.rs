//! A decoder with its weights, an optional adapter, and the gradients of what is trained.

use std::ops::Range;
use std::sync::Arc;

use crate::adapter::Adapter;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::fused::Cache;
use crate::params::{Entry, Layout, Params, Places};

/// Which buffer a trained tensor lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The model's own weights.
    Base,
    /// The adapter's.
    Adapter,
}

/// One trained tensor: where its weights and where its gradient lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Name in its layout.
    pub name: String,
    /// Which buffer holds the weights.
    pub store: Store,
    /// Place in that buffer.
    pub param: Range<usize>,
    /// First element in the gradient buffer.
    pub grad: usize,
    /// Whether it is a matrix: weight decay usually applies to these only.
    pub matrix: bool,
}

/// A decoder on the CPU. Full fine-tuning trains every tensor; with an adapter attached, the adapter alone; anything
/// between by [`Model::set_trained`].
#[derive(Debug)]
pub struct Model {
    config: Arc<ModelConfig>,
    places: Arc<Places>,
    /// The weights.
    pub params: Params,
    /// The adapter, if one is attached.
    pub adapter: Option<Adapter>,
    /// Threads that share the work, at least 1.
    pub threads: usize,
    /// Tokens that one thread takes through a pass at once. Larger chunks make larger matrix products and need more
    /// memory; whole sequences are never cut.
    pub chunk_tokens: usize,
    segments: Vec<Segment>,
    /// Where the blocks of the gradient start that are added to as one.
    blocks: Vec<usize>,
    /// Gradient place of each tensor of the base layout, if its group is trained.
    base_grads: Vec<Option<usize>>,
    /// Gradient place of the adapter's first element, if it is trained.
    adapter_grads: Option<usize>,
    /// `[trained elements]`, summed since [`Model::clear_gradient`]. Empty until first used.
    pub(crate) gradient: Vec<f32>,
    /// Buffers and tables that outlive one pass.
    pub(crate) cache: Cache,
}

impl Model {
    /// A model with fresh weights.
    pub fn random(config: ModelConfig, seed: u64) -> Model {
        let (layout, _) = Layout::decoder(&config);
        let params = Params::random(Arc::new(layout), config.initializer_range, seed);
        Model::assemble(config, params)
    }

    /// A model of given weights.
    ///
    /// # Errors
    /// [`Error::Shape`] if the weights are not laid out as this configuration lays them out.
    pub fn new(config: ModelConfig, params: Params) -> Result<Model> {
        let (layout, _) = Layout::decoder(&config);
        if **params.layout() != layout || params.data.len() != layout.total() {
            return Err(Error::Shape {
                what: "weights".into(),
                needed: vec![layout.total()],
                got: vec![params.data.len()],
            });
        }
        Ok(Model::assemble(config, params))
    }

    fn assemble(config: ModelConfig, params: Params) -> Model {
        let (_, places) = Layout::decoder(&config);
        let chunk_tokens = chunk_tokens(&config);
        let mut model = Model {
            config: Arc::new(config),
            places: Arc::new(places),
            params,
            adapter: None,
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            chunk_tokens,
            segments: vec![],
            blocks: vec![],
            base_grads: vec![],
            adapter_grads: None,
            gradient: vec![],
            cache: Cache::default(),
        };
        model.set_trained(|_| true, true);
        model
    }

    /// Attaches an adapter and freezes everything else.
    pub fn attach(&mut self, adapter: Adapter) {
        self.adapter = Some(adapter);
        self.set_trained(|_| false, true);
    }

    /// Takes the adapter off again; everything is trained as in a fresh model.
    pub fn detach(&mut self) -> Option<Adapter> {
        let adapter = self.adapter.take();
        self.set_trained(|_| true, true);
        adapter
    }

    /// Chooses what is trained: tensors of the model by `base`, and the adapter if there is one. Drops the gradient.
    pub fn set_trained(&mut self, base: impl Fn(&Entry) -> bool, adapter: bool) {
        let layout = self.params.layout().clone();
        let entries = layout.entries();
        let mut groups: Vec<Range<usize>> = vec![];
        for index in 0..entries.len() {
            match groups.last_mut() {
                // Neighbours that the kernels treat as one matrix share a gradient block.
                Some(group) if fused_together(&entries[group.start].name, &entries[index].name) => {
                    group.end = index + 1;
                }
                _ => groups.push(index..index + 1),
            }
        }
        self.segments.clear();
        self.blocks.clear();
        self.base_grads = vec![None; entries.len()];
        let mut total = 0;
        for group in groups {
            if !entries[group.clone()].iter().any(&base) {
                continue;
            }
            self.blocks.push(total);
            for index in group {
                let entry = &entries[index];
                self.base_grads[index] = Some(total);
                if base(entry) {
                    self.segments.push(Segment {
                        name: entry.name.clone(),
                        store: Store::Base,
                        param: entry.range(),
                        grad: total,
                        matrix: entry.is_matrix(),
                    });
                }
                total += entry.len();
            }
        }
        self.adapter_grads = None;
        if let Some(attached) = self.adapter.as_ref().filter(|_| adapter) {
            self.adapter_grads = Some(total);
            for entry in attached.params.layout().entries() {
                // The two factors of a site form one block.
                if entry.name.ends_with("lora_A.weight") {
                    self.blocks.push(total + entry.offset);
                }
                self.segments.push(Segment {
                    name: entry.name.clone(),
                    store: Store::Adapter,
                    param: entry.range(),
                    grad: total + entry.offset,
                    matrix: entry.is_matrix(),
                });
            }
        }
        self.gradient = vec![];
    }

    /// Sizes and switches.
    pub fn config(&self) -> &Arc<ModelConfig> {
        &self.config
    }

    /// Offsets of the weights by role.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// What is trained, in gradient order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Elements of the gradient buffer.
    pub fn gradient_len(&self) -> usize {
        let base: usize = self.base_entries().map(|(entry, _)| entry.len()).sum();
        let adapter = self.adapter.as_ref().filter(|_| self.adapter_grads.is_some());
        base + adapter.map_or(0, |adapter| adapter.params.data.len())
    }

    fn base_entries(&self) -> impl Iterator<Item = (&Entry, usize)> {
        let entries = self.params.layout().entries();
        entries.iter().zip(&self.base_grads).filter_map(|(entry, grad)| grad.map(|grad| (entry, grad)))
    }

    /// Where the blocks of the gradient start, ascending.
    pub(crate) fn gradient_blocks(&self) -> &[usize] {
        &self.blocks
    }

    /// Gradient place of the base tensor that starts at `offset`, if its group is trained.
    pub(crate) fn gradient_place(&self, offset: usize) -> Option<usize> {
        let entries = self.params.layout().entries();
        let index = entries.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        self.base_grads[index]
    }

    /// Gradient place of the adapter's first element, if it is trained.
    pub(crate) fn adapter_gradient_place(&self) -> Option<usize> {
        self.adapter_grads
    }

    /// The summed gradient, by [`Segment::grad`]. Empty before the first accumulation.
    pub fn gradient(&self) -> &[f32] {
        &self.gradient
    }

    /// The gradient of one trained tensor.
    pub fn gradient_of(&self, segment: &Segment) -> &[f32] {
        &self.gradient[segment.grad..segment.grad + segment.param.len()]
    }

    /// Sets the gradient to zero.
    pub fn clear_gradient(&mut self) {
        self.gradient.fill(0.0);
    }

    /// Weights, adapter weights and gradient at once, for the optimiser: `(segments, base, adapter, gradient)`.
    pub fn trained_mut(&mut self) -> (&[Segment], &mut [f32], &mut [f32], &mut [f32]) {
        let adapter = self.adapter.as_mut().map_or(&mut [][..], |adapter| &mut adapter.params.data[..]);
        (&self.segments, &mut self.params.data, adapter, &mut self.gradient)
    }
}

/// Tokens per chunk: as many as keep what a thread holds between its two passes near 64 MiB, within the range where
/// matrix products run at full speed.
pub(crate) fn chunk_tokens(config: &ModelConfig) -> usize {
    let per_layer = 3 * config.hidden_size + 2 * config.query_width() + 2 * config.kv_width();
    let bytes = 4 * config.layers * (per_layer + 2 * config.intermediate_size);
    ((64 << 20) / bytes.max(1)).clamp(256, 768)
}

/// Whether two neighbouring tensors are rows of one fused matrix: q, k, v or gate, up, weights or biases.
fn fused_together(first: &str, second: &str) -> bool {
    let group = |name: &str| {
        let (stem, kind) = name.rsplit_once('.')?;
        let (layer, projection) = stem.rsplit_once('.')?;
        let group = match projection {
            "q_proj" | "k_proj" | "v_proj" => 0,
            "gate_proj" | "up_proj" => 1,
            "q_norm" | "k_norm" => 2,
            _ => return None,
        };
        Some((layer.to_string(), group, kind.to_string()))
    };
    group(first).is_some_and(|first| group(second) == Some(first))
}
