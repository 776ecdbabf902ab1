//! Attention of new tokens over a sequence's cache.

use pulp::{Arch, Simd, WithSimd};

use super::cache::{BLOCK, BlockShape, LayerCache};
use super::simd::{PANEL, RowGroup, Tile, by_rows, exp_sum, largest, multiply};

/// Attention of the query heads `[heads, head_dim]` of one token over the positions that it sees, itself included.
/// Queries come scaled. `scores` is working memory. `next` is what will be attended to after this.
pub(super) fn attend(
    arch: Arch,
    shape: BlockShape,
    layer: &LayerCache,
    next: Option<&LayerCache>,
    position: usize,
    queries: &[f32],
    scores: &mut Vec<f32>,
    y: &mut [f32],
) {
    let first_block = layer.start(position) / BLOCK;
    let width = (position / BLOCK + 1 - first_block) * BLOCK;
    let group = queries.len() / (shape.kv_heads * shape.head_dim);
    scores.resize(scores.len().max(group * width), 0.0);
    arch.dispatch(Attend { shape, layer, next, position, first_block, width, group, queries, scores, y });
}

struct Attend<'a> {
    shape: BlockShape,
    layer: &'a LayerCache,
    next: Option<&'a LayerCache>,
    position: usize,
    first_block: usize,
    width: usize,
    group: usize,
    queries: &'a [f32],
    scores: &'a mut [f32],
    y: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let span = self.group * self.shape.head_dim;
        let heads = self.queries.chunks_exact(span).zip(self.y.chunks_exact_mut(span)).enumerate();
        for (head, (queries, y)) in heads {
            let mut group = HeadGroup {
                shape: self.shape,
                layer: self.layer,
                next: self.next,
                head,
                position: self.position,
                first_block: self.first_block,
                width: self.width,
                queries,
                scores: self.scores,
                y,
            };
            by_rows(simd, self.group, &mut group);
        }
    }
}

/// The query heads that share one key head.
struct HeadGroup<'a> {
    shape: BlockShape,
    layer: &'a LayerCache,
    next: Option<&'a LayerCache>,
    head: usize,
    position: usize,
    first_block: usize,
    width: usize,
    queries: &'a [f32],
    scores: &'a mut [f32],
    y: &'a mut [f32],
}

impl<S: Simd> RowGroup<S> for HeadGroup<'_> {
    #[inline(always)]
    fn run<const M: usize, const N: usize>(&mut self, simd: S, first: usize) {
        let dim = self.shape.head_dim;
        let lanes = S::F32_LANES;
        let zero: Tile<S, M, N> = [[simd.splat_f32s(0.0); N]; M];
        let queries: [&[f32]; M] = std::array::from_fn(|m| &self.queries[(first + m) * dim..][..dim]);
        let blocks = self.width / BLOCK;
        for block in 0..blocks {
            let keys = self.layer.block(self.first_block + block).keys(self.shape, self.head);
            let next = self.next.and_then(|next| next.held(block));
            let ahead = next.map_or(&[][..], |next| next.keys(self.shape, self.head));
            for column in (0..PANEL).step_by(N * lanes) {
                let tile = multiply(simd, queries, keys, column, ahead, zero);
                for (m, acc) in tile.iter().enumerate() {
                    let place = m * self.width + block * BLOCK + column;
                    let row = S::as_mut_simd_f32s(&mut self.scores[place..place + N * lanes]).0;
                    row.copy_from_slice(acc);
                }
            }
        }

        let base = self.first_block * BLOCK;
        let seen = self.layer.start(self.position) - base..self.position + 1 - base;
        let mut factors = [0.0; M];
        for (m, factor) in factors.iter_mut().enumerate() {
            let row = &mut self.scores[m * self.width..(m + 1) * self.width];
            // Whole registers are cheaper than exact ends: what is not seen adds e⁻⁸⁷ to a sum of at least 1.
            row[..seen.start].fill(f32::NEG_INFINITY);
            row[seen.end..].fill(f32::NEG_INFINITY);
            let top = largest(simd, row);
            *factor = 1.0 / exp_sum(simd, row, 1.0, top);
        }

        let scores: [&[f32]; M] = std::array::from_fn(|m| &self.scores[m * self.width..(m + 1) * self.width]);
        for panel in 0..self.shape.value_panels() {
            for column in (0..PANEL.min(dim - panel * PANEL)).step_by(N * lanes) {
                let mut tile = zero;
                for block in 0..blocks {
                    let values =
                        self.layer.block(self.first_block + block).values(self.shape, self.head, panel);
                    let next = self.next.and_then(|next| next.held(block));
                    let ahead = next.map_or(&[][..], |next| next.values(self.shape, self.head, panel));
                    let start = block * BLOCK;
                    let rows = seen.start.max(start)..seen.end.min(start + BLOCK);
                    let weights = scores.map(|row| &row[rows.clone()]);
                    tile = multiply(
                        simd,
                        weights,
                        &values[rows.start - start..rows.end - start],
                        column,
                        ahead,
                        tile,
                    );
                }
                for (m, acc) in tile.iter().enumerate() {
                    let start = (first + m) * dim + panel * PANEL + column;
                    let end = ((first + m + 1) * dim).min(start + N * lanes);
                    let factor = simd.splat_f32s(factors[m]);
                    for (y, acc) in self.y[start..end].chunks_mut(lanes).zip(acc) {
                        simd.partial_store_f32s(y, simd.mul_f32s(*acc, factor));
                    }
                }
            }
        }
    }
}
