//! One step of a decoder over any mixture of sequences: some read a part of their prompt, some one new token.

use std::sync::Arc;

use pulp::{Arch, Simd, WithSimd};

use super::attention::attend;
use super::cache::{BlockShape, Cache};
use super::crew::Crew;
use super::error::SampleError;
use super::packed::Packed;
use super::simd::{rms_norm, rotate, scale, swiglu};
use crate::adapter::Adapter;
use crate::config::{ModelConfig, RopeTable};
use crate::model::Model;
use crate::params::Projection;

/// Rows of logits held at once.
const HEAD_ROWS: usize = 32;

/// A decoder with its weights packed for sampling: a copy of the model's weights at the time, adapter merged.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) config: Arc<ModelConfig>,
    /// `[V, D]`, unless the packed head serves as the table.
    embed: Option<Vec<f32>>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Packed,
    /// The instructions that this machine has.
    pub(super) arch: Arch,
}

#[derive(Debug)]
struct Layer {
    norm1: Vec<f32>,
    qkv: Packed,
    /// Weights of the query norm and of the key norm.
    qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    out: Packed,
    norm2: Vec<f32>,
    gate_up: Packed,
    down: Packed,
}

/// What one sequence reads in a step.
pub(super) struct Feed<'a> {
    pub cache: &'a mut Cache,
    pub tokens: &'a [u32],
    /// Whether the logits after the last of these tokens are wanted.
    pub logits: bool,
}

/// Working memory of a thread that runs steps.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    x: Vec<f32>,
    h: Vec<f32>,
    qkv: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activation: Vec<f32>,
    logits: Vec<f32>,
    scores: Vec<f32>,
    rope: Option<RopeTable>,
    rope_len: usize,
}

impl Decoder {
    /// Packs the weights of `model`, with its adapter merged unless `adapter` is false.
    ///
    /// # Errors
    /// [`SampleError::NoLanguageHead`] for a reward or classification model.
    pub fn new(model: &Model, adapter: bool) -> Result<Decoder, SampleError> {
        let (config, places) = (model.config(), model.places());
        let data = &model.params.data;
        let Some(lm_head) = places.lm_head else {
            return Err(SampleError::NoLanguageHead(format!("{:?}", config.head)));
        };
        let slice = |start: usize, len: usize| data[start..start + len].to_vec();
        let adapter = model.adapter.as_ref().filter(|_| adapter);
        let d = config.hidden_size;
        let pack = |layer: usize, projections: &[Projection], place: usize, bias: Option<usize>| {
            let shapes: Vec<_> = projections.iter().map(|p| p.shape(config)).collect();
            let (outputs, inputs) = (shapes.iter().map(|shape| shape.0).sum(), shapes[0].1);
            let bias = bias.map(|bias| &data[bias..bias + outputs]);
            Packed::new(inputs, outputs, bias, |output, row| {
                row.copy_from_slice(&data[place + output * inputs..][..inputs]);
                let mut first = 0;
                for (projection, shape) in projections.iter().zip(&shapes) {
                    if (first..first + shape.0).contains(&output) {
                        merge(adapter, layer, *projection, output - first, row);
                    }
                    first += shape.0;
                }
            })
        };
        use Projection::{Down, Gate, Key, Output, Query, Up, Value};
        let layers = places.layers.iter().enumerate().map(|(index, at)| Layer {
            norm1: slice(at.norm1, d),
            qkv: pack(index, &[Query, Key, Value], at.qkv, at.qkv_bias),
            qk_norm: at.qk_norm.map(|place| {
                (slice(place, config.head_dim), slice(place + config.head_dim, config.head_dim))
            }),
            out: pack(index, &[Output], at.out, at.out_bias),
            norm2: slice(at.norm2, d),
            gate_up: pack(index, &[Gate, Up], at.gate_up, at.gate_up_bias),
            down: pack(index, &[Down], at.down, at.down_bias),
        });
        Ok(Decoder {
            embed: (lm_head != places.embed).then(|| slice(places.embed, config.vocab_size * d)),
            layers: layers.collect(),
            norm: slice(places.norm, d),
            head: Packed::new(d, config.vocab_size, None, |output, row| {
                row.copy_from_slice(&data[lm_head + output * d..][..d]);
            }),
            config: config.clone(),
            arch: Arch::new(),
        })
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> usize {
        let layer = |layer: &Layer| {
            layer.qkv.bytes() + layer.out.bytes() + layer.gate_up.bytes() + layer.down.bytes()
        };
        let embed = self.embed.as_ref().map_or(0, |embed| size_of_val(&embed[..]));
        embed + self.head.bytes() + self.layers.iter().map(layer).sum::<usize>()
    }

    fn embed(&self, token: u32, x: &mut [f32]) {
        match &self.embed {
            Some(table) => x.copy_from_slice(&table[token as usize * x.len()..][..x.len()]),
            None => self.head.read(token as usize, x),
        }
    }

    /// Reads the tokens of every feed and hands `(feed, logits [V])` to `each` for those that want them, in order.
    /// Tokens must be below the vocabulary's size.
    pub(super) fn step(
        &self,
        scratch: &mut Scratch,
        crew: Crew,
        feeds: &mut [Feed],
        mut each: impl FnMut(usize, &mut [f32]),
    ) {
        let Decoder { config, arch, .. } = self;
        let (arch, shape) = (*arch, BlockShape::new(config));
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.kv_width());
        let width = q + 2 * kv;
        let rows: usize = feeds.iter().map(|feed| feed.tokens.len()).sum();
        let end = feeds.iter().map(|feed| feed.cache.len() + feed.tokens.len()).max().unwrap_or(0);
        scratch.grow_rope(config, end);
        let Scratch { x, h, qkv, attended, gate_up, activation, logits, scores, rope, .. } = scratch;
        let Some(rope) = rope else { return };
        let sized = |buffer: &mut Vec<f32>, row: usize| buffer.resize(rows * row, 0.0);
        for (buffer, row) in [(&mut *x, d), (h, d), (qkv, width), (attended, q)] {
            sized(buffer, row);
        }
        sized(gate_up, 2 * config.intermediate_size);
        sized(activation, config.intermediate_size);

        let tokens = feeds.iter().flat_map(|feed| feed.tokens);
        for (x, &token) in x.chunks_exact_mut(d).zip(tokens) {
            self.embed(token, x);
        }
        // The rows in use: all of them up to the last layer's attention, then those whose logits are wanted.
        let mut rows = rows;
        for (index, layer) in self.layers.iter().enumerate() {
            arch.dispatch(Norm { x: &x[..rows * d], weight: &layer.norm1, eps: config.norm_eps, y: h });
            crew.apply(&layer.qkv, arch, &h[..rows * d], &mut qkv[..rows * width], false);
            let mut row = 0;
            for feed in feeds.iter_mut() {
                let position = feed.cache.len();
                arch.dispatch(Prepare {
                    config,
                    rope: config.rope_layers[index].then_some(rope),
                    norms: layer.qk_norm.as_ref(),
                    position,
                    qkv: &mut qkv[row * width..(row + feed.tokens.len()) * width],
                });
                for t in 0..feed.tokens.len() {
                    let (keys, values) = qkv[(row + t) * width + q..(row + t + 1) * width].split_at(kv);
                    feed.cache.layers[index].push(shape, position + t, keys, values);
                }
                row += feed.tokens.len();
            }
            let last = index + 1 == self.layers.len();
            let (mut row, mut kept) = (0, 0);
            for (place, feed) in feeds.iter().enumerate() {
                let count = feed.tokens.len();
                let next = feeds.get(place + 1).map(|feed| &feed.cache.layers[index]);
                for t in if last { count - usize::from(feed.logits)..count } else { 0..count } {
                    if kept != row + t {
                        x.copy_within((row + t) * d..(row + t + 1) * d, kept * d);
                    }
                    attend(
                        arch,
                        shape,
                        &feed.cache.layers[index],
                        next.filter(|_| t + 1 == count),
                        feed.cache.len() + t,
                        &qkv[(row + t) * width..][..q],
                        scores,
                        &mut attended[kept * q..(kept + 1) * q],
                    );
                    kept += 1;
                }
                row += count;
            }
            rows = kept;
            if rows == 0 {
                break;
            }
            let (x, f) = (&mut x[..rows * d], config.intermediate_size);
            crew.apply(&layer.out, arch, &attended[..rows * q], x, true);
            arch.dispatch(Norm { x, weight: &layer.norm2, eps: config.norm_eps, y: h });
            crew.apply(&layer.gate_up, arch, &h[..rows * d], &mut gate_up[..rows * 2 * f], false);
            arch.dispatch(Gate { width: f, gate_up: &gate_up[..rows * 2 * f], y: activation });
            crew.apply(&layer.down, arch, &activation[..rows * f], x, true);
        }
        for feed in feeds.iter_mut() {
            feed.cache.advance(feed.tokens.len());
        }

        arch.dispatch(Norm { x: &x[..rows * d], weight: &self.norm, eps: config.norm_eps, y: h });
        let vocab = config.vocab_size;
        logits.resize(rows.min(HEAD_ROWS) * vocab, 0.0);
        let mut wanted = (0..feeds.len()).filter(|&feed| feeds[feed].logits);
        for h in h[..rows * d].chunks(HEAD_ROWS * d) {
            let logits = &mut logits[..h.len() / d * vocab];
            crew.apply(&self.head, arch, h, logits, false);
            for (logits, feed) in logits.chunks_exact_mut(vocab).zip(&mut wanted) {
                each(feed, logits);
            }
        }
    }
}

impl Scratch {
    /// Makes the table cover `positions`, by doubling, so that a long context is not paid for before it is used.
    fn grow_rope(&mut self, config: &ModelConfig, positions: usize) {
        if self.rope.is_none() || self.rope_len < positions {
            self.rope_len = positions.next_power_of_two().max(256).min(config.max_positions.max(positions));
            self.rope = Some(config.rope.table(config.head_dim, self.rope_len));
        }
    }
}

/// Adds `scale · B[output] A` to a row of the weights.
fn merge(adapter: Option<&Adapter>, layer: usize, projection: Projection, output: usize, row: &mut [f32]) {
    let Some((adapter, site)) = adapter.and_then(|a| Some((a, a.site(layer, projection)?))) else { return };
    let (rank, inputs, data) = (adapter.config.rank, row.len(), &adapter.params.data);
    for r in 0..rank {
        let factor = adapter.scale() * data[site.b + output * rank + r];
        for (weight, a) in row.iter_mut().zip(&data[site.a + r * inputs..][..inputs]) {
            *weight += factor * a;
        }
    }
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl WithSimd for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let d = self.weight.len();
        for (x, y) in self.x.chunks_exact(d).zip(self.y.chunks_exact_mut(d)) {
            y.copy_from_slice(x);
            rms_norm(simd, y, self.weight, self.eps);
        }
    }
}

struct Gate<'a> {
    width: usize,
    gate_up: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (gate_up, y) in self.gate_up.chunks_exact(2 * self.width).zip(self.y.chunks_exact_mut(self.width))
        {
            let (gate, up) = gate_up.split_at(self.width);
            swiglu(simd, gate, up, y);
        }
    }
}

/// Norms and rotates the queries and keys of consecutive tokens of a sequence, and scales the queries.
struct Prepare<'a> {
    config: &'a ModelConfig,
    rope: Option<&'a RopeTable>,
    norms: Option<&'a (Vec<f32>, Vec<f32>)>,
    position: usize,
    qkv: &'a mut [f32],
}

impl WithSimd for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ModelConfig { heads, kv_heads, head_dim, norm_eps, .. } = *self.config;
        let factor = 1.0 / (head_dim as f32).sqrt();
        for (t, row) in self.qkv.chunks_exact_mut((heads + 2 * kv_heads) * head_dim).enumerate() {
            for (index, head) in row.chunks_exact_mut(head_dim).take(heads + kv_heads).enumerate() {
                if let Some((query, key)) = self.norms {
                    rms_norm(simd, head, if index < heads { query } else { key }, norm_eps);
                }
                if let Some(rope) = self.rope {
                    let place = (self.position + t) * rope.half;
                    let angles = place..place + rope.half;
                    rotate(simd, head, &rope.cos[angles.clone()], &rope.sin[angles]);
                }
            }
            scale(simd, &mut row[..heads * head_dim], factor);
        }
    }
}
