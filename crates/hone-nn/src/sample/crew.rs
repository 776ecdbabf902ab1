//! Several threads on one matrix product, for when a single sequence is all there is to decode.

use std::ops::Range;

use pulp::Arch;

use super::packed::Packed;
use super::simd::PANEL;

/// Weights of a part at least: a smaller one is over before another thread has begun.
const SMALL: usize = 1 << 14;
/// Rows of one thread at least, when rows are shared out.
const ROWS: usize = 8;

/// How a step's products are shared out. Parts are taken by whichever threads of the pool are helping; what is not
/// taken is done by the thread that runs the step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crew {
    /// Parts that a product is cut into, at least 1. More than 1 only on a thread of a pool.
    pub parts: usize,
}

impl Crew {
    /// [`Packed::apply`] over all panels. Cutting changes no result: neither rows nor panels know of each other.
    pub fn apply(&self, packed: &Packed, arch: Arch, x: &[f32], y: &mut [f32], add: bool) {
        let job = Job { packed, arch, x, add };
        let all = packed.panels();
        if x.len() == packed.inputs {
            let parts = self.parts.min(packed.inputs * packed.outputs / SMALL);
            job.by_panels(parts, 0..all, y);
        } else {
            job.by_rows(self.parts, x, y);
        }
    }
}

struct Job<'a> {
    packed: &'a Packed,
    arch: Arch,
    x: &'a [f32],
    add: bool,
}

impl Job<'_> {
    fn run(&self, x: &[f32], panels: Range<usize>, y: &mut [f32]) {
        self.packed.apply(self.arch, x, panels, y, self.add);
    }

    /// Shares out the outputs of a single row; `y` holds those of `panels`.
    fn by_panels(&self, parts: usize, panels: Range<usize>, y: &mut [f32]) {
        if parts < 2 || panels.len() < 2 {
            return self.run(self.x, panels, y);
        }
        let middle = panels.start + panels.len() * (parts / 2) / parts;
        let middle = middle.max(panels.start + 1);
        let (left, right) = y.split_at_mut((middle - panels.start) * PANEL);
        rayon::join(
            || self.by_panels(parts / 2, panels.start..middle, left),
            || self.by_panels(parts - parts / 2, middle..panels.end, right),
        );
    }

    /// Shares out rows.
    fn by_rows(&self, parts: usize, x: &[f32], y: &mut [f32]) {
        let Packed { inputs, outputs, .. } = *self.packed;
        let rows = x.len() / inputs;
        if parts < 2 || rows < 2 * ROWS {
            return self.run(x, 0..self.packed.panels(), y);
        }
        let middle = (rows * (parts / 2) / parts).next_multiple_of(ROWS).min(rows - ROWS);
        let (x_left, x_right) = x.split_at(middle * inputs);
        let (y_left, y_right) = y.split_at_mut(middle * outputs);
        rayon::join(
            || self.by_rows(parts / 2, x_left, y_left),
            || self.by_rows(parts - parts / 2, x_right, y_right),
        );
    }
}
