//! The decoder layers of one chunk of sequences, forward and backward, on one thread.

use std::ops::Range;

use super::attention::{self, Shape};
use super::gradient::SharedGradient;
use super::kernels;
use super::matmul::{Mat, linear, linear_dw, linear_dx, matmul};
use crate::adapter::{Adapter, Site};
use crate::config::{ModelConfig, RopeTable};
use crate::error::Result;
use crate::model::Model;
use crate::params::{LayerPlaces, Places, Projection};

/// A model's weights as the kernels see them.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The model, for its gradient places.
    pub model: &'a Model,
    /// Sizes and switches.
    pub config: &'a ModelConfig,
    /// Offsets by role.
    pub places: &'a Places,
    /// All weights.
    pub data: &'a [f32],
    /// The adapter, where it takes part.
    pub adapter: Option<&'a Adapter>,
    /// Rotary table, at least as long as the longest sequence.
    pub rope: &'a RopeTable,
}

/// Gives `buffer` the length `len`, without clearing what it keeps.
pub fn size(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// What the backward pass needs of one layer, for `n` rows.
#[derive(Debug, Default)]
struct LayerState {
    /// `[n, D]` residual stream on entry.
    x: Vec<f32>,
    /// `[n]`
    rstd1: Vec<f32>,
    /// `[n, query + 2 kv]`, normed and rotated.
    qkv: Vec<f32>,
    /// `[n, query + kv]` before the head norms, if there are any.
    pre_norm: Vec<f32>,
    /// `[n, heads + kv heads]`
    head_rstd: Vec<f32>,
    /// What each row's softmax divided by, `[heads, s]` of each sequence after the other.
    softmax: Vec<[f32; 2]>,
    /// `[n, query]`
    attended: Vec<f32>,
    /// `[n, D]` residual stream before the feed-forward layer.
    mid: Vec<f32>,
    /// `[n]`
    rstd2: Vec<f32>,
    /// `[n, 2 F]`
    gate_up: Vec<f32>,
}

/// Everything kept of a chunk between its forward and backward pass. Buffers are reused from chunk to chunk: fresh
/// ones would cost a page fault per 4 KiB.
#[derive(Debug, Default)]
pub struct State {
    layers: Vec<LayerState>,
    /// `[n, D]` residual stream after the last layer.
    x: Vec<f32>,
    /// `[n]`
    rstd: Vec<f32>,
    /// `[n, D]` after the last norm.
    pub normed: Vec<f32>,
}

/// Buffers for intermediate results of one thread.
#[derive(Debug, Default)]
pub struct Scratch {
    h: Vec<f32>,
    a: Vec<f32>,
    dx: Vec<f32>,
    dh: Vec<f32>,
    dqkv: Vec<f32>,
    scores: Vec<f32>,
    low: Vec<f32>,
    dlow: Vec<f32>,
    vector: Vec<f32>,
}

/// Rows and places of one chunk.
#[derive(Clone, Copy)]
pub struct Chunk<'a> {
    /// `[n]`
    pub tokens: &'a [u32],
    /// Rows of each sequence.
    pub sequences: &'a [Range<usize>],
    /// `[n]`: rows that later ones of their sequence do not see, or empty.
    pub hidden: &'a [bool],
    /// Longest sequence.
    pub longest: usize,
    /// The chunk's number in its step: when its turn comes to add to the gradient.
    pub order: usize,
}

impl Weights<'_> {
    fn at(&self, offset: usize, len: usize) -> &[f32] {
        &self.data[offset..offset + len]
    }

    fn shape(&self, layer: usize) -> Shape {
        Shape {
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
            window: self.config.windows[layer],
        }
    }

    fn site(&self, layer: usize, projection: Projection) -> Option<(&Adapter, Site)> {
        self.adapter.and_then(|adapter| adapter.site(layer, projection).map(|site| (adapter, site)))
    }

    /// Adds the adapter's update of one projection to columns `at..` of `y`, whose rows are `stride` apart.
    fn adapt(
        &self,
        layer: usize,
        projection: Projection,
        x: &[f32],
        y: &mut [f32],
        (stride, at): (usize, usize),
        low: &mut Vec<f32>,
    ) {
        let Some((adapter, site)) = self.site(layer, projection) else { return };
        let (outputs, inputs) = projection.shape(self.config);
        let (rank, n) = (adapter.config.rank, x.len() / inputs);
        let low = size(low, n * rank);
        linear(n, inputs, rank, x, &adapter.params.data[site.a..], low, false);
        let b = Mat::new(&adapter.params.data[site.b..], rank).t();
        matmul((n, outputs, rank), Mat::new(low, rank), b, &mut y[at..], stride, true, adapter.scale());
    }

    /// Backward of [`Weights::adapt`]: adds to `dx` `[n, inputs]` and to the adapter's gradient.
    fn adapt_backward(
        &self,
        (layer, projection): (usize, Projection),
        x: &[f32],
        dy: &[f32],
        (stride, at): (usize, usize),
        dx: &mut [f32],
        scratch: (&mut Vec<f32>, &mut Vec<f32>),
        gradient: (&SharedGradient, usize),
    ) -> Result<()> {
        let Some((adapter, site)) = self.site(layer, projection) else { return Ok(()) };
        let (outputs, inputs) = projection.shape(self.config);
        let (rank, n, scale) = (adapter.config.rank, x.len() / inputs, adapter.scale());
        let dy = Mat::new(&dy[at..], stride);
        let dlow = size(scratch.1, n * rank);
        let b = Mat::new(&adapter.params.data[site.b..], rank);
        matmul((n, rank, outputs), dy, b, dlow, rank, false, scale);
        if let Some(place) = self.model.adapter_gradient_place() {
            let low = size(scratch.0, n * rank);
            linear(n, inputs, rank, x, &adapter.params.data[site.a..], low, false);
            gradient.0.in_turn(place + site.a, gradient.1, |block| {
                let (da, db) = block.split_at_mut(site.b - site.a);
                linear_dw(n, inputs, rank, dlow, x, da);
                matmul((outputs, rank, n), dy.t(), Mat::new(low, rank), db, rank, true, scale);
            })?;
        }
        let a = Mat::new(&adapter.params.data[site.a..], inputs);
        matmul((n, inputs, rank), Mat::new(dlow, rank), a, dx, inputs, true, 1.0);
        Ok(())
    }

    /// Places of query, key and value in a row of `qkv`.
    fn qkv_parts(&self) -> [(Projection, usize); 3] {
        let (q, kv) = (self.config.query_width(), self.config.kv_width());
        [(Projection::Query, 0), (Projection::Key, q), (Projection::Value, q + kv)]
    }

    /// Runs all layers and the last norm. With `keep`, `state` afterwards holds what [`Weights::backward`] needs.
    /// `hidden` receives the residual stream at the asked-for depths, `[n, D]` each.
    pub fn forward(
        &self,
        chunk: Chunk,
        state: &mut State,
        scratch: &mut Scratch,
        keep: bool,
        wanted: &[usize],
        hidden: &mut [Vec<f32>],
    ) {
        let (n, d) = (chunk.tokens.len(), self.config.hidden_size);
        let kept_layers = if keep { self.config.layers } else { 1 };
        state.layers.resize_with(kept_layers.max(state.layers.len()), LayerState::default);
        let x = size(&mut state.x, n * d);
        for (row, &token) in x.chunks_exact_mut(d).zip(chunk.tokens) {
            row.copy_from_slice(self.at(self.places.embed + token as usize * d, d));
        }
        let mut note = |depth: usize, x: &[f32]| {
            for (place, _) in wanted.iter().enumerate().filter(|(_, wanted)| **wanted == depth) {
                hidden[place].extend_from_slice(x);
            }
        };
        for (layer, places) in self.places.layers.iter().enumerate() {
            note(layer, x);
            self.layer_forward(
                (layer, places),
                chunk,
                x,
                &mut state.layers[if keep { layer } else { 0 }],
                scratch,
            );
        }
        let normed = size(&mut state.normed, n * d);
        let rstd = size(&mut state.rstd, n);
        kernels::rms_norm(x, self.at(self.places.norm, d), self.config.norm_eps, normed, rstd);
        note(self.config.layers, normed);
    }

    fn layer_forward(
        &self,
        (layer, places): (usize, &LayerPlaces),
        chunk: Chunk,
        x: &mut [f32],
        state: &mut LayerState,
        scratch: &mut Scratch,
    ) {
        let config = self.config;
        let (n, d, f) = (chunk.tokens.len(), config.hidden_size, config.intermediate_size);
        let (query, shape) = (config.query_width(), self.shape(layer));
        let stride = shape.stride();
        let h = size(&mut scratch.h, n * d);

        size(&mut state.x, n * d).copy_from_slice(x);
        kernels::rms_norm(x, self.at(places.norm1, d), config.norm_eps, h, size(&mut state.rstd1, n));
        let qkv = size(&mut state.qkv, n * stride);
        linear(n, d, stride, h, self.at(places.qkv, stride * d), qkv, false);
        if let Some(bias) = places.qkv_bias {
            kernels::add_bias(qkv, self.at(bias, stride));
        }
        for (projection, at) in self.qkv_parts() {
            self.adapt(layer, projection, h, qkv, (stride, at), &mut scratch.low);
        }
        self.place_heads((layer, places), chunk, state);

        let qkv = &state.qkv[..n * stride];
        let attended = size(&mut state.attended, n * query);
        state.softmax.resize(state.softmax.len().max(n * config.heads), [0.0; 2]);
        let scores = size(&mut scratch.scores, Shape::scratch(chunk.longest));
        for rows in chunk.sequences {
            let kept = &mut state.softmax[rows.start * config.heads..rows.end * config.heads];
            let qkv = &qkv[rows.start * stride..rows.end * stride];
            let hidden = chunk.hidden.get(rows.clone()).unwrap_or_default();
            let out = &mut attended[rows.start * query..rows.end * query];
            attention::forward(shape, qkv, hidden, out, kept, scores);
        }
        linear(n, query, d, attended, self.at(places.out, d * query), x, true);
        if let Some(bias) = places.out_bias {
            kernels::add_bias(x, self.at(bias, d));
        }
        self.adapt(layer, Projection::Output, attended, x, (d, 0), &mut scratch.low);

        size(&mut state.mid, n * d).copy_from_slice(x);
        kernels::rms_norm(x, self.at(places.norm2, d), config.norm_eps, h, size(&mut state.rstd2, n));
        let gate_up = size(&mut state.gate_up, n * 2 * f);
        linear(n, d, 2 * f, h, self.at(places.gate_up, 2 * f * d), gate_up, false);
        if let Some(bias) = places.gate_up_bias {
            kernels::add_bias(gate_up, self.at(bias, 2 * f));
        }
        for (projection, at) in [(Projection::Gate, 0), (Projection::Up, f)] {
            self.adapt(layer, projection, h, gate_up, (2 * f, at), &mut scratch.low);
        }
        let a = size(&mut scratch.a, n * f);
        kernels::swiglu(gate_up, f, a);
        linear(n, f, d, a, self.at(places.down, d * f), x, true);
        if let Some(bias) = places.down_bias {
            kernels::add_bias(x, self.at(bias, d));
        }
        self.adapt(layer, Projection::Down, a, x, (d, 0), &mut scratch.low);
    }

    /// Head norms and rotary positions on fresh queries and keys.
    fn place_heads(&self, (layer, places): (usize, &LayerPlaces), chunk: Chunk, state: &mut LayerState) {
        let config = self.config;
        let (n, hd) = (chunk.tokens.len(), config.head_dim);
        let (query, stride) = (config.query_width(), self.shape(layer).stride());
        let (rotated, per_row) = (config.heads + config.kv_heads, query + config.kv_width());
        if let Some(norms) = places.qk_norm {
            let pre = size(&mut state.pre_norm, n * per_row);
            let rstd = size(&mut state.head_rstd, n * rotated);
            let (wq, wk) = (self.at(norms, hd), self.at(norms + hd, hd));
            let rows = state.qkv.chunks_exact_mut(stride).zip(pre.chunks_exact_mut(per_row));
            for ((row, pre), rstd) in rows.zip(rstd.chunks_exact_mut(rotated)) {
                pre.copy_from_slice(&row[..per_row]);
                let (rstd_q, rstd_k) = rstd.split_at_mut(config.heads);
                kernels::rms_norm(&pre[..query], wq, config.norm_eps, &mut row[..query], rstd_q);
                kernels::rms_norm(&pre[query..], wk, config.norm_eps, &mut row[query..per_row], rstd_k);
            }
        }
        if config.rope_layers[layer] {
            let (half, cos, sin) = (self.rope.half, &self.rope.cos, &self.rope.sin);
            for rows in chunk.sequences {
                let qkv = &mut state.qkv[rows.start * stride..rows.end * stride];
                kernels::rotate(qkv, stride, rotated, half, 0, cos, sin, 1.0);
            }
        }
    }

    /// Backward of [`Weights::forward`]. `dnormed` `[n, D]` is the gradient of the normed output; `dhidden` that of
    /// the hidden states which were asked for. Adds to `gradient`, and to `dembed` `[n, D]` if given.
    pub fn backward(
        &self,
        chunk: Chunk,
        state: &mut State,
        scratch: &mut Scratch,
        dnormed: &[f32],
        dhidden: &[(usize, &[f32])],
        gradient: &SharedGradient,
        dembed: Option<&mut [f32]>,
    ) -> Result<()> {
        let (n, d) = (chunk.tokens.len(), self.config.hidden_size);
        let lowest = if dembed.is_some() { 0 } else { self.lowest_trained() };
        let mut dx = std::mem::take(&mut scratch.dx);
        size(&mut dx, n * d).fill(0.0);
        let norm = self.at(self.places.norm, d);
        let place = self.model.gradient_place(self.places.norm);
        let vector = size(&mut scratch.vector, if place.is_some() { d } else { 0 });
        vector.fill(0.0);
        kernels::rms_norm_backward(
            &state.x[..n * d],
            norm,
            &state.rstd[..n],
            dnormed,
            &mut dx[..n * d],
            vector,
        );
        self.add_vector(place, vector, chunk.order, gradient)?;
        let inject = |depth: usize, dx: &mut [f32]| {
            for (_, part) in dhidden.iter().filter(|(wanted, _)| *wanted == depth) {
                kernels::add(dx, part);
            }
        };
        for layer in (lowest..self.config.layers).rev() {
            let places = &self.places.layers[layer];
            let layer_state = &mut state.layers[layer];
            self.layer_backward((layer, places), chunk, &mut dx[..n * d], layer_state, scratch, gradient)?;
            inject(layer, &mut dx[..n * d]);
        }
        if let Some(dembed) = dembed {
            dembed.copy_from_slice(&dx[..n * d]);
        }
        scratch.dx = dx;
        Ok(())
    }

    /// Lowest layer that something trained lies in or below; `L` if only heads are trained.
    fn lowest_trained(&self) -> usize {
        let model = self.model;
        let trained = |layer: usize| {
            let places = &self.places.layers[layer];
            let fixed = [places.norm1, places.qkv, places.out, places.norm2, places.gate_up, places.down];
            let optional =
                [places.qkv_bias, places.qk_norm, places.out_bias, places.gate_up_bias, places.down_bias];
            let adapted = model.adapter_gradient_place().is_some()
                && Projection::ALL.iter().any(|&projection| self.site(layer, projection).is_some());
            adapted
                || fixed
                    .into_iter()
                    .chain(optional.into_iter().flatten())
                    .any(|at| model.gradient_place(at).is_some())
        };
        (0..self.config.layers).find(|&layer| trained(layer)).unwrap_or(self.config.layers)
    }

    fn add_vector(
        &self,
        place: Option<usize>,
        vector: &[f32],
        order: usize,
        gradient: &SharedGradient,
    ) -> Result<()> {
        match place {
            Some(place) => gradient.in_turn(place, order, |block| kernels::add(block, vector)),
            None => Ok(()),
        }
    }

    /// Adds the gradients of one fused linear map, and of its bias, that took `x` `[n, inputs]` and whose output has
    /// the gradient `dy` `[n, outputs]`.
    fn add_linear(
        &self,
        (weight, bias): (usize, Option<usize>),
        (inputs, outputs): (usize, usize),
        x: &[f32],
        dy: &[f32],
        order: usize,
        gradient: &SharedGradient,
    ) -> Result<()> {
        let n = x.len() / inputs;
        if let Some(place) = self.model.gradient_place(weight) {
            gradient.in_turn(place, order, |block| linear_dw(n, inputs, outputs, dy, x, block))?;
        }
        if let Some(place) = bias.and_then(|bias| self.model.gradient_place(bias)) {
            gradient.in_turn(place, order, |block| kernels::sum_rows(dy, outputs, block))?;
        }
        Ok(())
    }

    fn layer_backward(
        &self,
        (layer, places): (usize, &LayerPlaces),
        chunk: Chunk,
        dx: &mut [f32],
        state: &mut LayerState,
        scratch: &mut Scratch,
        gradient: &SharedGradient,
    ) -> Result<()> {
        let config = self.config;
        let (n, d, f) = (chunk.tokens.len(), config.hidden_size, config.intermediate_size);
        let (query, shape, order) = (config.query_width(), self.shape(layer), chunk.order);
        let stride = shape.stride();
        let Scratch { h, a, dh, dqkv, scores, low, dlow, vector, .. } = scratch;
        let turn = (gradient, order);

        // Feed-forward layer. `a` first holds the gradient of its inner activation, then the activation itself.
        let a = size(a, n * f);
        let gate_up = &mut state.gate_up[..n * 2 * f];
        linear_dx(n, f, d, dx, self.at(places.down, d * f), a, false);
        if self.site(layer, Projection::Down).is_some() {
            // The adapter needs the activation while `a` still holds a gradient.
            let inner = size(dh, n * f);
            kernels::swiglu(gate_up, f, inner);
            self.adapt_backward((layer, Projection::Down), inner, dx, (d, 0), a, (low, dlow), turn)?;
        }
        kernels::swiglu_backward(gate_up, f, a);
        self.add_linear((places.down, places.down_bias), (f, d), a, dx, order, gradient)?;
        let h = size(h, n * d);
        let mid = &state.mid[..n * d];
        let norm2 = self.at(places.norm2, d);
        kernels::rms_norm_again(mid, norm2, &state.rstd2[..n], h);
        self.add_linear((places.gate_up, places.gate_up_bias), (d, 2 * f), h, gate_up, order, gradient)?;
        let dh_rows = size(dh, n * d);
        linear_dx(n, d, 2 * f, gate_up, self.at(places.gate_up, 2 * f * d), dh_rows, false);
        for (projection, at) in [(Projection::Gate, 0), (Projection::Up, f)] {
            self.adapt_backward((layer, projection), h, gate_up, (2 * f, at), dh_rows, (low, dlow), turn)?;
        }
        let place = self.model.gradient_place(places.norm2);
        let dw = size(vector, if place.is_some() { d } else { 0 });
        dw.fill(0.0);
        kernels::rms_norm_backward(mid, norm2, &state.rstd2[..n], dh_rows, dx, dw);
        self.add_vector(place, dw, order, gradient)?;

        // Attention.
        let attended = &state.attended[..n * query];
        self.add_linear((places.out, places.out_bias), (query, d), attended, dx, order, gradient)?;
        let dattended = size(dh, n * query);
        linear_dx(n, query, d, dx, self.at(places.out, d * query), dattended, false);
        self.adapt_backward((layer, Projection::Output), attended, dx, (d, 0), dattended, (low, dlow), turn)?;
        let dqkv = size(dqkv, n * stride);
        let scores = size(scores, Shape::scratch(chunk.longest));
        for rows in chunk.sequences {
            attention::backward(
                shape,
                &state.qkv[rows.start * stride..rows.end * stride],
                chunk.hidden.get(rows.clone()).unwrap_or_default(),
                &state.softmax[rows.start * config.heads..rows.end * config.heads],
                &dattended[rows.start * query..rows.end * query],
                &mut dqkv[rows.start * stride..rows.end * stride],
                scores,
            );
        }
        self.unplace_heads((layer, places), chunk, state, dqkv, vector, gradient)?;
        let x = &state.x[..n * d];
        let norm1 = self.at(places.norm1, d);
        kernels::rms_norm_again(x, norm1, &state.rstd1[..n], h);
        self.add_linear((places.qkv, places.qkv_bias), (d, stride), h, dqkv, order, gradient)?;
        let dh_rows = size(dh, n * d);
        linear_dx(n, d, stride, dqkv, self.at(places.qkv, stride * d), dh_rows, false);
        for (projection, at) in self.qkv_parts() {
            self.adapt_backward((layer, projection), h, dqkv, (stride, at), dh_rows, (low, dlow), turn)?;
        }
        let place = self.model.gradient_place(places.norm1);
        let dw = size(vector, if place.is_some() { d } else { 0 });
        dw.fill(0.0);
        kernels::rms_norm_backward(x, norm1, &state.rstd1[..n], dh_rows, dx, dw);
        self.add_vector(place, dw, order, gradient)
    }

    /// Backward of [`Weights::place_heads`] on `dqkv`.
    fn unplace_heads(
        &self,
        (layer, places): (usize, &LayerPlaces),
        chunk: Chunk,
        state: &LayerState,
        dqkv: &mut [f32],
        vector: &mut Vec<f32>,
        gradient: &SharedGradient,
    ) -> Result<()> {
        let config = self.config;
        let (n, hd) = (chunk.tokens.len(), config.head_dim);
        let (query, stride) = (config.query_width(), self.shape(layer).stride());
        let (rotated, per_row) = (config.heads + config.kv_heads, query + config.kv_width());
        if config.rope_layers[layer] {
            let (half, cos, sin) = (self.rope.half, &self.rope.cos, &self.rope.sin);
            for rows in chunk.sequences {
                let dqkv = &mut dqkv[rows.start * stride..rows.end * stride];
                kernels::rotate(dqkv, stride, rotated, half, 0, cos, sin, -1.0);
            }
        }
        let Some(norms) = places.qk_norm else { return Ok(()) };
        let place = self.model.gradient_place(norms);
        let (wq, wk) = (self.at(norms, hd), self.at(norms + hd, hd));
        let buffer = size(vector, per_row + 2 * hd);
        let (normed, dw) = buffer.split_at_mut(per_row);
        dw.fill(0.0);
        let (dwq, dwk) = dw.split_at_mut(if place.is_some() { hd } else { 0 });
        let dwk = if place.is_some() { dwk } else { &mut [] };
        let rows = dqkv.chunks_exact_mut(stride).zip(state.pre_norm[..n * per_row].chunks_exact(per_row));
        for ((row, pre), rstd) in rows.zip(state.head_rstd.chunks_exact(rotated)) {
            normed.copy_from_slice(&row[..per_row]);
            row[..per_row].fill(0.0);
            let (q, k) = row[..per_row].split_at_mut(query);
            let (rstd_q, rstd_k) = rstd.split_at(config.heads);
            kernels::rms_norm_backward(&pre[..query], wq, rstd_q, &normed[..query], q, dwq);
            kernels::rms_norm_backward(&pre[query..], wk, rstd_k, &normed[query..], k, dwk);
        }
        self.add_vector(place, dw, chunk.order, gradient)
    }
}
