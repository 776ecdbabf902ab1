//! The vector kernels of decoding, written once over [`pulp::Simd`]: AVX-512, AVX2, NEON or plain code is chosen when
//! the program runs.
//!
//! Every kernel computes a row from that row alone and adds in a fixed order, so that a sequence's numbers do not
//! depend on what else is in the batch.

use pulp::Simd;

/// Columns of a panel: two registers of AVX-512, four of AVX2.
pub(super) const PANEL: usize = 32;

/// One row of a panel, aligned to a cache line so that no vector load straddles two.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Row(pub [f32; PANEL]);

impl Row {
    pub(super) const ZERO: Row = Row([0.0; PANEL]);
}

/// Accumulators of `M` rows by `N` registers.
pub(super) type Tile<S, const M: usize, const N: usize> = [[<S as Simd>::f32s; N]; M];

/// Asks for a row to be brought into the cache.
#[inline(always)]
fn prefetch(row: &Row) {
    #[cfg(target_arch = "x86_64")]
    for line in row.0.chunks_exact(16) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint about an address that a reference shows to be valid; part of every x86-64 processor.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// `acc[m][n] + Σ_k x[m][k] · panel[k][column + n · lanes ..]`, added in the order of `k`. Each `x[m]` has one number
/// per row of the panel. Rows that will be needed next come `ahead`.
#[inline(always)]
pub(super) fn multiply<S: Simd, const M: usize, const N: usize>(
    simd: S,
    x: [&[f32]; M],
    panel: &[Row],
    column: usize,
    ahead: &[Row],
    mut acc: Tile<S, M, N>,
) -> Tile<S, M, N> {
    // Slices of one common length let the compiler drop the bounds checks from the loop.
    let x: [&[f32]; M] = std::array::from_fn(|m| &x[m][..panel.len()]);
    for (k, row) in panel.iter().enumerate() {
        if let Some(row) = ahead.get(k) {
            prefetch(row);
        }
        let weights = S::as_simd_f32s(&row.0[column..column + N * S::F32_LANES]).0;
        for m in 0..M {
            let value = simd.splat_f32s(x[m][k]);
            for n in 0..N {
                acc[m][n] = simd.mul_add_e_f32s(value, weights[n], acc[m][n]);
            }
        }
    }
    acc
}

/// What to do with a group of at most `S`-specific many rows: one monomorphic copy per number of rows.
pub(super) trait RowGroup<S: Simd> {
    /// Handles rows `first..first + M` in steps of `N` registers.
    fn run<const M: usize, const N: usize>(&mut self, simd: S, first: usize);
}

/// Runs `group` over `rows` rows in groups as large as the registers of `S` allow.
#[inline(always)]
pub(super) fn by_rows<S: Simd>(simd: S, rows: usize, group: &mut impl RowGroup<S>) {
    let mut first = 0;
    match S::F32_LANES {
        16 => {
            while first + 8 <= rows {
                group.run::<8, 2>(simd, first);
                first += 8;
            }
            match rows - first {
                1 => group.run::<1, 2>(simd, first),
                2 => group.run::<2, 2>(simd, first),
                3 => group.run::<3, 2>(simd, first),
                4 => group.run::<4, 2>(simd, first),
                5 => group.run::<5, 2>(simd, first),
                6 => group.run::<6, 2>(simd, first),
                7 => group.run::<7, 2>(simd, first),
                _ => {}
            }
        }
        8 => {
            while first + 6 <= rows {
                group.run::<6, 2>(simd, first);
                first += 6;
            }
            match rows - first {
                1 => group.run::<1, 2>(simd, first),
                2 => group.run::<2, 2>(simd, first),
                3 => group.run::<3, 2>(simd, first),
                4 => group.run::<4, 2>(simd, first),
                5 => group.run::<5, 2>(simd, first),
                _ => {}
            }
        }
        4 => {
            while first + 4 <= rows {
                group.run::<4, 4>(simd, first);
                first += 4;
            }
            while first < rows {
                group.run::<1, 4>(simd, first);
                first += 1;
            }
        }
        _ => {
            for first in first..rows {
                group.run::<1, 8>(simd, first);
            }
        }
    }
}

/// `eˣ`, relative error below 2e-7 for `x` in [-87, 88]; clamped outside. NaN stays NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let number = |value: f32| simd.splat_f32s(value);
    // Comparisons, not minimum and maximum: those of plain code drop NaN.
    let (low, high) = (number(-87.0), number(88.0));
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    let x = simd.select_f32s(simd.greater_than_f32s(x, high), high, x);
    // Adding 1.5 · 2²³ leaves round(x / ln 2) in the low bits of the sum.
    let shifted = simd.mul_add_e_f32s(x, number(std::f32::consts::LOG2_E), number(12_582_912.0));
    let turns = simd.sub_f32s(shifted, number(12_582_912.0));
    // ln 2 in two parts, so that the rest is exact to the last bit.
    let rest = simd.mul_add_e_f32s(turns, number(-0.693_359_4), x);
    let rest = simd.mul_add_e_f32s(turns, number(2.121_944_4e-4), rest);
    // Minimax coefficients of Cephes' expf.
    let mut series = number(1.987_569_2e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        series = simd.mul_add_e_f32s(series, rest, number(coefficient));
    }
    let square = simd.mul_f32s(rest, rest);
    let value = simd.add_f32s(simd.mul_add_e_f32s(series, square, rest), number(1.0));
    let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(value), exponent))
}

/// Largest of `values`; -∞ if there is none.
#[inline(always)]
pub(super) fn largest<S: Simd>(simd: S, values: &[f32]) -> f32 {
    let (body, tail) = S::as_simd_f32s(values);
    let mut best = simd.splat_f32s(f32::NEG_INFINITY);
    for &value in body {
        best = simd.max_f32s(best, value);
    }
    tail.iter().fold(simd.reduce_max_f32s(best), |best, &value| best.max(value))
}

/// Replaces each `x` by `e^(scale · (x - shift))` and returns the sum.
#[inline(always)]
pub(super) fn exp_sum<S: Simd>(simd: S, values: &mut [f32], scale: f32, shift: f32) -> f32 {
    let (factor, offset) = (simd.splat_f32s(scale), simd.splat_f32s(-scale * shift));
    let (body, tail) = S::as_mut_simd_f32s(values);
    let mut sum = simd.splat_f32s(0.0);
    for value in body {
        *value = exp(simd, simd.mul_add_e_f32s(*value, factor, offset));
        sum = simd.add_f32s(sum, *value);
    }
    let mut total = simd.reduce_sum_f32s(sum);
    for value in tail {
        *value = (scale * (*value - shift)).exp();
        total += *value;
    }
    total
}

/// Multiplies every number.
#[inline(always)]
pub(super) fn scale<S: Simd>(simd: S, values: &mut [f32], factor: f32) {
    let (body, tail) = S::as_mut_simd_f32s(values);
    for value in body {
        *value = simd.mul_f32s(*value, simd.splat_f32s(factor));
    }
    for value in tail {
        *value *= factor;
    }
}

/// RMS norm of one row in place: `x · weight / √(mean x² + eps)`.
#[inline(always)]
pub(super) fn rms_norm<S: Simd>(simd: S, x: &mut [f32], weight: &[f32], eps: f32) {
    let len = x.len();
    let (w_body, w_tail) = S::as_simd_f32s(weight);
    let (x_body, x_tail) = S::as_mut_simd_f32s(x);
    let mut square = simd.splat_f32s(0.0);
    for &mut x in &mut *x_body {
        square = simd.mul_add_e_f32s(x, x, square);
    }
    let total = x_tail.iter().fold(simd.reduce_sum_f32s(square), |sum, x| sum + x * x);
    let factor = 1.0 / (total / len as f32 + eps).sqrt();
    let factors = simd.splat_f32s(factor);
    for (x, &w) in x_body.iter_mut().zip(w_body) {
        *x = simd.mul_f32s(simd.mul_f32s(*x, factors), w);
    }
    for (x, w) in x_tail.iter_mut().zip(w_tail) {
        *x *= factor * w;
    }
}

/// `gate · sigmoid(gate) · up`, element by element.
#[inline(always)]
pub(super) fn swiglu<S: Simd>(simd: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    let ((g_body, g_tail), (u_body, u_tail)) = (S::as_simd_f32s(gate), S::as_simd_f32s(up));
    let (y_body, y_tail) = S::as_mut_simd_f32s(y);
    let one = simd.splat_f32s(1.0);
    for ((y, &g), &u) in y_body.iter_mut().zip(g_body).zip(u_body) {
        let e = exp(simd, simd.neg_f32s(g));
        *y = simd.mul_f32s(simd.div_f32s(g, simd.add_f32s(one, e)), u);
    }
    for ((y, g), u) in y_tail.iter_mut().zip(g_tail).zip(u_tail) {
        *y = g / (1.0 + (-g).exp()) * u;
    }
}

/// Turns the two halves of each head by the angles whose cosines and sines are given, `[head_dim / 2]` each.
#[inline(always)]
pub(super) fn rotate<S: Simd>(simd: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    let ((a_body, a_tail), (b_body, b_tail)) = (S::as_mut_simd_f32s(first), S::as_mut_simd_f32s(second));
    let ((c_body, c_tail), (s_body, s_tail)) = (S::as_simd_f32s(cos), S::as_simd_f32s(sin));
    for (((a, b), &c), &s) in a_body.iter_mut().zip(b_body).zip(c_body).zip(s_body) {
        let (x, y) = (*a, *b);
        *a = simd.sub_f32s(simd.mul_f32s(x, c), simd.mul_f32s(y, s));
        *b = simd.add_f32s(simd.mul_f32s(y, c), simd.mul_f32s(x, s));
    }
    for (((a, b), c), s) in a_tail.iter_mut().zip(b_tail).zip(c_tail).zip(s_tail) {
        (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
    }
}

/// Every instruction set of this machine that the kernels can use, plain code included.
#[cfg(test)]
pub(super) fn instruction_sets() -> Vec<pulp::Arch> {
    use pulp::Arch;
    let mut sets = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    sets.extend(pulp::x86::V3::try_new().map(Arch::V3));
    sets
}

#[cfg(test)]
mod tests {
    use pulp::WithSimd;

    use super::*;

    struct Exp<'a>(&'a mut [f32]);

    impl WithSimd for Exp<'_> {
        type Output = f32;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f32 {
            exp_sum(simd, self.0, 1.0, 0.0)
        }
    }

    #[test]
    fn exponentials_are_those_of_the_library() {
        let xs: Vec<f32> = (0..=1750).map(|i| -87.0 + i as f32 * 0.1).collect();
        for arch in instruction_sets() {
            let mut ys = xs.clone();
            arch.dispatch(Exp(&mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let expected = f64::from(*x).exp();
                let error = (f64::from(*y) / expected - 1.0).abs();
                assert!(error < 2e-7, "{arch:?}: exp({x}) = {y}, not {expected}");
            }
            let mut zero = [0.0; 37];
            assert_eq!(arch.dispatch(Exp(&mut zero)), 37.0);
            let mut nan = [f32::NAN; 32];
            assert!(arch.dispatch(Exp(&mut nan)).is_nan(), "{arch:?}");
        }
    }
}
