//! Weights packed once into panels of columns, and the matrix product over them.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{PANEL, Row, RowGroup, Tile, by_rows, multiply};

/// Rows from which on a product fetches its next panel ahead.
const FETCH_ROWS: usize = 8;

/// A weight matrix `[outputs, inputs]` as panels of [`PANEL`] outputs, each `[inputs, PANEL]`; the last one is filled
/// up with zeros.
#[derive(Debug)]
pub(super) struct Packed {
    pub inputs: usize,
    pub outputs: usize,
    rows: Vec<Row>,
    /// One number per output, filled up to whole panels.
    bias: Option<Vec<Row>>,
}

impl Packed {
    /// Packs the matrix whose row `o` is written by `fill(o, row)`; rows arrive zeroed.
    pub fn new(
        inputs: usize,
        outputs: usize,
        bias: Option<&[f32]>,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Packed {
        let mut rows = vec![Row::ZERO; outputs.div_ceil(PANEL) * inputs];
        rows.par_chunks_mut(inputs).enumerate().for_each(|(panel, rows)| {
            let mut weights = vec![0.0; inputs];
            let first = panel * PANEL;
            for output in first..outputs.min(first + PANEL) {
                weights.fill(0.0);
                fill(output, &mut weights);
                for (row, &weight) in rows.iter_mut().zip(&weights) {
                    row.0[output - first] = weight;
                }
            }
        });
        let bias = bias.map(|bias| {
            let whole = |part: &[f32]| {
                let mut row = Row::ZERO;
                row.0[..part.len()].copy_from_slice(part);
                row
            };
            bias.chunks(PANEL).map(whole).collect()
        });
        Packed { inputs, outputs, rows, bias }
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        std::mem::size_of_val(&self.rows[..])
    }

    /// Row `output` of the matrix, read back.
    pub fn read(&self, output: usize, y: &mut [f32]) {
        let panel = &self.rows[output / PANEL * self.inputs..][..self.inputs];
        for (y, row) in y.iter_mut().zip(panel) {
            *y = row.0[output % PANEL];
        }
    }

    /// `y = x Wᵀ + bias`, or `y += …` with `add`, for the outputs of some panels. `x` is `[rows, inputs]`; `y` is
    /// `[rows, outputs of these panels]`. A row's result is the same bits whatever the other rows are.
    pub fn apply(&self, arch: Arch, x: &[f32], panels: Range<usize>, y: &mut [f32], add: bool) {
        let width = self.outputs.min(panels.end * PANEL) - panels.start * PANEL;
        arch.dispatch(Apply { packed: self, x, panels, y, width, add });
    }
}

struct Apply<'a> {
    packed: &'a Packed,
    x: &'a [f32],
    panels: Range<usize>,
    y: &'a mut [f32],
    width: usize,
    add: bool,
}

impl WithSimd for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Apply { packed, x, panels, y, width, add } = self;
        let inputs = packed.inputs;
        let first_panel = panels.start;
        for panel in panels {
            // The panel stays in the first-level cache while the rows pass by.
            let column = (panel - first_panel) * PANEL;
            let count = x.len() / inputs;
            // A few rows wait for memory, not for arithmetic; the processor's own fetching serves them better.
            let fetched = if count < FETCH_ROWS { 0 } else { inputs };
            let next = &packed.rows[(panel + 1) * inputs..];
            by_rows(
                simd,
                count,
                &mut Panel {
                    x,
                    inputs,
                    rows: &packed.rows[panel * inputs..(panel + 1) * inputs],
                    next: &next[..next.len().min(fetched)],
                    share: inputs.div_ceil(count.div_ceil(8)),
                    bias: packed.bias.as_ref().map(|bias| &bias[panel]),
                    y,
                    width,
                    columns: column..width.min(column + PANEL),
                    add,
                },
            );
        }
    }
}

struct Panel<'a> {
    x: &'a [f32],
    inputs: usize,
    rows: &'a [Row],
    /// What is left to fetch of the next panel, and how much of it each group of rows fetches.
    next: &'a [Row],
    share: usize,
    bias: Option<&'a Row>,
    y: &'a mut [f32],
    width: usize,
    columns: Range<usize>,
    add: bool,
}

impl<S: Simd> RowGroup<S> for Panel<'_> {
    #[inline(always)]
    fn run<const M: usize, const N: usize>(&mut self, simd: S, first: usize) {
        let x: [&[f32]; M] = std::array::from_fn(|m| &self.x[(first + m) * self.inputs..][..self.inputs]);
        for column in (0..PANEL).step_by(N * S::F32_LANES) {
            let zero: Tile<S, M, N> = [[simd.splat_f32s(0.0); N]; M];
            let (ahead, next) = self.next.split_at(self.share.min(self.next.len()));
            self.next = next;
            let mut tile = multiply(simd, x, self.rows, column, ahead, zero);
            if let Some(bias) = self.bias {
                let bias = S::as_simd_f32s(&bias.0[column..]).0;
                for acc in &mut tile {
                    for n in 0..N {
                        acc[n] = simd.add_f32s(acc[n], bias[n]);
                    }
                }
            }
            for (m, acc) in tile.iter().enumerate() {
                let y = &mut self.y[(first + m) * self.width..][self.columns.clone()];
                let end = y.len().min(column + N * S::F32_LANES);
                let Some(y) = y.get_mut(column..end) else { continue };
                if y.len() == N * S::F32_LANES {
                    for (y, &acc) in S::as_mut_simd_f32s(y).0.iter_mut().zip(acc) {
                        *y = if self.add { simd.add_f32s(*y, acc) } else { acc };
                    }
                } else {
                    for (y, acc) in y.chunks_mut(S::F32_LANES).zip(acc) {
                        let mut sum = *acc;
                        if self.add {
                            sum = simd.add_f32s(simd.partial_load_f32s(y), sum);
                        }
                        simd.partial_store_f32s(y, sum);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::simd::instruction_sets;
    use super::*;

    fn random(len: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    fn pack(inputs: usize, outputs: usize, weights: &[f32], bias: Option<&[f32]>) -> Packed {
        Packed::new(inputs, outputs, bias, |o, row| row.copy_from_slice(&weights[o * inputs..][..inputs]))
    }

    #[test]
    fn products_equal_plain_sums_for_any_shape() {
        for (rows, inputs, outputs) in [(1, 5, 1), (3, 24, 40), (8, 32, 64), (13, 7, 33), (21, 50, 95)] {
            let (x, w) = (random(rows * inputs, 1), random(inputs * outputs, 2));
            let (bias, start) = (random(outputs, 3), random(rows * outputs, 4));
            let packed = pack(inputs, outputs, &w, Some(&bias));
            for arch in instruction_sets() {
                let mut y = start.clone();
                packed.apply(arch, &x, 0..packed.panels(), &mut y, true);
                for (place, &got) in y.iter().enumerate() {
                    let (r, o) = (place / outputs, place % outputs);
                    let pairs = x[r * inputs..][..inputs].iter().zip(&w[o * inputs..][..inputs]);
                    let product: f64 = pairs.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    let expected = product + f64::from(bias[o]) + f64::from(start[place]);
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 1e-5, "{arch:?}: {rows}x{inputs}x{outputs} at {r},{o}: {got}");
                }
            }
            let mut row = vec![0.0; inputs];
            packed.read(outputs - 1, &mut row);
            assert_eq!(row, w[(outputs - 1) * inputs..]);
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_around_it() {
        let (rows, inputs, outputs) = (29, 70, 100);
        let (x, w) = (random(rows * inputs, 5), random(inputs * outputs, 6));
        let packed = pack(inputs, outputs, &w, None);
        let mut together = vec![0.0; rows * outputs];
        packed.apply(Arch::new(), &x, 0..packed.panels(), &mut together, false);
        for r in 0..rows {
            let mut alone = vec![0.0; outputs];
            let x = &x[r * inputs..][..inputs];
            // Split over panels as well, as two threads do it.
            let (left, right) = alone.split_at_mut(2 * PANEL);
            packed.apply(Arch::new(), x, 0..2, left, false);
            packed.apply(Arch::new(), x, 2..4, right, false);
            assert_eq!(alone, together[r * outputs..][..outputs]);
        }
    }
}
