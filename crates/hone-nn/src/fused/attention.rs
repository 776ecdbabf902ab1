//! Causal attention of one sequence, forward and backward, in blocks of queries.
//!
//! Nothing of size `s × s` is kept: the forward pass keeps the maximum and the factor of each score row, and the backward pass
//! computes the probabilities again from them (FlashAttention, arXiv:2205.14135).

use super::kernels;
use super::matmul::{Mat, matmul};

/// Shape of the attention of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Positions a query sees, itself included; `None` for all before it.
    pub window: Option<usize>,
}

/// Queries computed together: enough for an efficient product, few enough that half of a block's keys are not masked
/// in vain.
const BLOCK: usize = 32;

/// One block of queries `start..end` and the keys `keys..end` it can see.
struct Block {
    start: usize,
    end: usize,
    keys: usize,
}

impl Shape {
    /// Floats in one row of queries, keys and values.
    pub fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Scratch that [`forward`] and [`backward`] need for sequences of up to `longest` tokens: two score blocks.
    pub fn scratch(longest: usize) -> usize {
        2 * BLOCK * longest
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// First position that the query at `row` sees.
    fn first_key(&self, row: usize) -> usize {
        self.window.map_or(0, |window| (row + 1).saturating_sub(window))
    }

    fn blocks(&self, length: usize) -> impl Iterator<Item = Block> + '_ {
        (0..length).step_by(BLOCK).map(move |start| Block {
            start,
            end: (start + BLOCK).min(length),
            keys: self.first_key(start),
        })
    }

    /// Places of a head's query, key and value in a row.
    fn places(&self, head: usize) -> (usize, usize, usize) {
        let kv = head / (self.heads / self.kv_heads);
        let d = self.head_dim;
        (head * d, (self.heads + kv) * d, (self.heads + self.kv_heads + kv) * d)
    }
}

/// Sets what the query at `row` may not see, of keys from `first` on, to `value`. `hidden` is `[s]`, or empty.
fn forget(scores: &mut [f32], hidden: &[bool], (first, row): (usize, usize), value: f32) {
    // Earlier keys only: a hidden row still sees itself.
    for (score, _) in scores.iter_mut().zip(hidden.get(first..row).unwrap_or_default()).filter(|(_, h)| **h) {
        *score = value;
    }
}

/// Attention output `out` `[s, heads · head_dim]` from `qkv` `[s, stride]`; keeps what each
/// softmax divided by, `kept` `[heads, s]`. `hidden` is `[s]`, rows that later ones do not see, or empty.
pub fn forward(
    shape: Shape,
    qkv: &[f32],
    hidden: &[bool],
    out: &mut [f32],
    kept: &mut [[f32; 2]],
    scratch: &mut [f32],
) {
    let (stride, d, width) = (shape.stride(), shape.head_dim, shape.heads * shape.head_dim);
    let length = qkv.len() / stride;
    for head in 0..shape.heads {
        let (q, k, v) = shape.places(head);
        let kept = &mut kept[head * length..(head + 1) * length];
        for Block { start, end, keys } in shape.blocks(length) {
            let (m, n) = (end - start, end - keys);
            let queries = Mat::new(&qkv[start * stride + q..], stride);
            let scores = &mut scratch[..m * n];
            matmul(
                (m, n, d),
                queries,
                Mat::new(&qkv[keys * stride + k..], stride).t(),
                scores,
                n,
                false,
                shape.scale(),
            );
            for (row, scores) in (start..end).zip(scores.chunks_exact_mut(n)) {
                forget(scores, hidden, (keys, row), f32::NEG_INFINITY);
                kept[row] = kernels::softmax_live(scores, shape.first_key(row) - keys, row + 1 - keys);
                // The kernel's exponential of −∞ is tiny, not 0.
                forget(scores, hidden, (keys, row), 0.0);
            }
            let values = Mat::new(&qkv[keys * stride + v..], stride);
            let out = &mut out[start * width + head * d..];
            matmul((m, d, n), Mat::new(scores, n), values, out, width, false, 1.0);
        }
    }
}

/// Gradient `dqkv` `[s, stride]` from the gradient `dout` of the output. `dqkv` is overwritten.
pub fn backward(
    shape: Shape,
    qkv: &[f32],
    hidden: &[bool],
    kept: &[[f32; 2]],
    dout: &[f32],
    dqkv: &mut [f32],
    scratch: &mut [f32],
) {
    let (stride, d, width) = (shape.stride(), shape.head_dim, shape.heads * shape.head_dim);
    let length = qkv.len() / stride;
    let (probabilities, gradients) = scratch.split_at_mut(scratch.len() / 2);
    // Several query heads add to one key head; queries are written once.
    for row in dqkv.chunks_exact_mut(stride) {
        row[width..].fill(0.0);
    }
    for head in 0..shape.heads {
        let (q, k, v) = shape.places(head);
        let kept = &kept[head * length..(head + 1) * length];
        for Block { start, end, keys } in shape.blocks(length) {
            let (m, n) = (end - start, end - keys);
            let queries = Mat::new(&qkv[start * stride + q..], stride);
            let key_rows = Mat::new(&qkv[keys * stride + k..], stride);
            let value_rows = Mat::new(&qkv[keys * stride + v..], stride);
            let dout = Mat::new(&dout[start * width + head * d..], width);
            let p = &mut probabilities[..m * n];
            matmul((m, n, d), queries, key_rows.t(), p, n, false, shape.scale());
            let ds = &mut gradients[..m * n];
            matmul((m, n, d), dout, value_rows.t(), ds, n, false, 1.0);
            for (i, (p, ds)) in p.chunks_exact_mut(n).zip(ds.chunks_exact_mut(n)).enumerate() {
                let row = start + i;
                kernels::softmax_again(p, shape.first_key(row) - keys, row + 1 - keys, kept[row]);
                forget(p, hidden, (keys, row), 0.0);
                kernels::softmax_backward(p, ds);
            }
            let dvalues = &mut dqkv[keys * stride + v..];
            matmul((n, d, m), Mat::new(p, n).t(), dout, dvalues, stride, true, 1.0);
            let dqueries = &mut dqkv[start * stride + q..];
            matmul((m, d, n), Mat::new(ds, n), key_rows, dqueries, stride, false, shape.scale());
            let dkeys = &mut dqkv[keys * stride + k..];
            matmul((n, d, m), Mat::new(ds, n).t(), queries, dkeys, stride, true, shape.scale());
        }
    }
}
