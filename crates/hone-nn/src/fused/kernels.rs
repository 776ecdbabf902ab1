//! Element-wise and row-wise f32 kernels. Serial: callers split the work.
//!
//! Each body is plain Rust that the compiler vectorises; [`simd!`] compiles it once per instruction set and picks one
//! at run time, so that one binary is fast on every machine.

/// Instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Whatever the build target guarantees.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, VL, BW and DQ.
    Avx512,
}

/// Best instruction set of this machine. The standard library caches the detection.
#[inline]
pub fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f")
            && std::is_x86_feature_detected!("avx512vl")
            && std::is_x86_feature_detected!("avx512bw")
            && std::is_x86_feature_detected!("avx512dq")
            && std::is_x86_feature_detected!("fma")
        {
            return Level::Avx512;
        }
        if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Defines functions whose bodies are compiled for every [`Level`] and dispatched at run time.
macro_rules! simd {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::fused::kernels::{Level, level};
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma,avx2")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                match level() {
                    // SAFETY: `level` found the features that the function is compiled for.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(crate) use simd;

/// Numbers handled side by side in the kernels' inner loops: one AVX-512 register.
pub const LANES: usize = 16;

/// `e^x` to about 2 ulp over the f32 range (Cody-Waite reduction, degree-6 polynomial of Cephes' `expf`).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // Adding 1.5 · 2^23 rounds to a whole number, which then sits in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-0.693_359_4, x);
    let r = n.mul_add(2.121_944_4e-4, r);
    let p = 1.987_569_2e-4_f32
        .mul_add(r, 1.398_199_9e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let p = (p * r).mul_add(r, r) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Inner product.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = a.len() / LANES * LANES;
    for (x, y) in a[..whole].chunks_exact(LANES).zip(b[..whole].chunks_exact(LANES)) {
        for j in 0..LANES {
            lanes[j] = x[j].mul_add(y[j], lanes[j]);
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for (x, y) in a[whole..].iter().zip(&b[whole..a.len()]) {
        sum += x * y;
    }
    sum
}

/// Largest element; −∞ of nothing. NaN is passed over.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = a.len() / LANES * LANES;
    for x in a[..whole].chunks_exact(LANES) {
        for j in 0..LANES {
            lanes[j] = if x[j] > lanes[j] { x[j] } else { lanes[j] };
        }
    }
    let mut max = lanes.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    for &x in &a[whole..] {
        max = max.max(x);
    }
    max
}

/// Replaces every `x` by `e^(x − shift)` and returns the sum.
#[inline(always)]
pub fn exp_sum(a: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = a.len() / LANES * LANES;
    let (head, tail) = a.split_at_mut(whole);
    for x in head.chunks_exact_mut(LANES) {
        for j in 0..LANES {
            let e = exp(x[j] - shift);
            x[j] = e;
            lanes[j] += e;
        }
    }
    let mut sum: f32 = lanes.iter().sum();
    for x in tail {
        *x = exp(*x - shift);
        sum += *x;
    }
    sum
}

simd! {
    /// RMS norm of rows: `h = x · rstd · w`, with `x`, `h` `[n, w.len()]`; keeps `1/rms` of each row in `rstd`.
    pub fn rms_norm(x: &[f32], w: &[f32], eps: f32, h: &mut [f32], rstd: &mut [f32]) {
        let d = w.len();
        for ((x, h), keep) in x.chunks_exact(d).zip(h.chunks_exact_mut(d)).zip(rstd) {
            let r = 1.0 / (dot(x, x) / d as f32 + eps).sqrt();
            *keep = r;
            for j in 0..d {
                h[j] = x[j] * r * w[j];
            }
        }
    }

    /// [`rms_norm`] again from kept `rstd`.
    pub fn rms_norm_again(x: &[f32], w: &[f32], rstd: &[f32], h: &mut [f32]) {
        let d = w.len();
        for ((x, h), r) in x.chunks_exact(d).zip(h.chunks_exact_mut(d)).zip(rstd) {
            for j in 0..d {
                h[j] = x[j] * r * w[j];
            }
        }
    }

    /// Backward of [`rms_norm`]: adds to `dx`, and to `dw` unless it is empty.
    pub fn rms_norm_backward(x: &[f32], w: &[f32], rstd: &[f32], dh: &[f32], dx: &mut [f32], dw: &mut [f32]) {
        let d = w.len();
        let rows = x.chunks_exact(d).zip(dh.chunks_exact(d)).zip(dx.chunks_exact_mut(d)).zip(rstd);
        for (((x, dh), dx), &r) in rows {
            let mut lanes = [0.0f32; LANES];
            let whole = d / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                for j in 0..LANES {
                    lanes[j] += x[i + j] * dh[i + j] * w[i + j];
                }
            }
            let mut sum: f32 = lanes.iter().sum();
            for j in whole..d {
                sum += x[j] * dh[j] * w[j];
            }
            let s = sum * r * r * r / d as f32;
            for j in 0..d {
                dx[j] += dh[j] * w[j] * r - x[j] * s;
            }
            if !dw.is_empty() {
                for j in 0..d {
                    dw[j] += dh[j] * x[j] * r;
                }
            }
        }
    }

    /// Rotates the first `heads` heads of each row in place, halves paired as `transformers` pairs them. Row `i` has
    /// position `first + i`; `cos` and `sin` are `[positions, head_dim / 2]`. `sign` −1 turns back.
    pub fn rotate(rows: &mut [f32], stride: usize, heads: usize, half: usize, first: usize, cos: &[f32], sin: &[f32],
        sign: f32) {
        for (i, row) in rows.chunks_mut(stride).enumerate() {
            let place = (first + i) * half;
            let (cos, sin) = (&cos[place..place + half], &sin[place..place + half]);
            for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                let (a, b) = head.split_at_mut(half);
                for j in 0..half {
                    let (u, v, s) = (a[j], b[j], sin[j] * sign);
                    a[j] = u * cos[j] - v * s;
                    b[j] = v * cos[j] + u * s;
                }
            }
        }
    }

    /// `a = silu(gate) · up` on rows `[n, 2f]` of gate and up; `a` is `[n, f]`.
    pub fn swiglu(gate_up: &[f32], f: usize, a: &mut [f32]) {
        for (x, a) in gate_up.chunks_exact(2 * f).zip(a.chunks_exact_mut(f)) {
            let (g, u) = x.split_at(f);
            for j in 0..f {
                a[j] = g[j] / (1.0 + exp(-g[j])) * u[j];
            }
        }
    }

    /// Backward of [`swiglu`], in place: takes the gradient of `a` in `a`, leaves `a` there and turns `gate_up` into
    /// its gradient.
    pub fn swiglu_backward(gate_up: &mut [f32], f: usize, a: &mut [f32]) {
        for (x, a) in gate_up.chunks_exact_mut(2 * f).zip(a.chunks_exact_mut(f)) {
            let (g, u) = x.split_at_mut(f);
            for j in 0..f {
                let s = 1.0 / (1.0 + exp(-g[j]));
                let y = g[j] * s;
                let da = a[j];
                a[j] = y * u[j];
                g[j] = da * u[j] * (s + y * (1.0 - s));
                u[j] = da * y;
            }
        }
    }

    /// `y += x`.
    pub fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// Adds `bias` to every row of `y`.
    pub fn add_bias(y: &mut [f32], bias: &[f32]) {
        for row in y.chunks_exact_mut(bias.len()) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y += b;
            }
        }
    }

    /// Adds the sum over rows of `y`, `[n, width]` with rows `stride` apart, to `sum`.
    pub fn sum_rows(y: &[f32], stride: usize, sum: &mut [f32]) {
        for row in y.chunks(stride) {
            for (s, y) in sum.iter_mut().zip(row) {
                *s += y;
            }
        }
    }

    /// Turns a row of logits into `e^(x − max)`; returns `(max, sum)`.
    pub fn exp_row(row: &mut [f32]) -> (f32, f32) {
        let shift = max(row);
        let sum = exp_sum(row, shift);
        (shift, sum)
    }

    /// Multiplies by a number.
    pub fn scale(row: &mut [f32], factor: f32) {
        for x in row {
            *x *= factor;
        }
    }

    /// Inner product.
    pub fn inner(a: &[f32], b: &[f32]) -> f32 {
        dot(a, b)
    }

    /// Softmax of `row[from..live]`; the rest of the row becomes 0. Returns what [`softmax_again`] needs: the largest
    /// score and the factor. Two numbers, because a rounded logsumexp would cost digits where scores are large.
    pub fn softmax_live(row: &mut [f32], from: usize, live: usize) -> [f32; 2] {
        row[..from].fill(0.0);
        row[live..].fill(0.0);
        let row = &mut row[from..live];
        let shift = max(row);
        let sum = exp_sum(row, shift);
        let factor = 1.0 / sum;
        for x in row.iter_mut() {
            *x *= factor;
        }
        [shift, factor]
    }

    /// Probabilities of `row[from..live]` from scores and what [`softmax_live`] returned for them; the rest of the row
    /// becomes 0.
    pub fn softmax_again(row: &mut [f32], from: usize, live: usize, kept: [f32; 2]) {
        let [shift, factor] = kept;
        row[..from].fill(0.0);
        row[live..].fill(0.0);
        for x in &mut row[from..live] {
            *x = exp(*x - shift) * factor;
        }
    }

    /// `t = p · (t − p·t)`: backward of a softmax row.
    pub fn softmax_backward(p: &[f32], t: &mut [f32]) {
        let mean = dot(p, t);
        for (t, p) in t.iter_mut().zip(p) {
            *t = p * (*t - mean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp() {
        for i in -8_700..8_800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "exp({x}): relative error {error}");
        }
    }

    #[test]
    fn softmax_again_repeats_softmax() {
        let scores: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let (mut first, mut second) = (scores.clone(), scores.clone());
        let kept = softmax_live(&mut first, 2, 30);
        softmax_again(&mut second, 2, 30, kept);
        assert!((first.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        for (i, (a, b)) in first.iter().zip(&second).enumerate() {
            assert_eq!(a, b, "{i}");
            assert_eq!(*a == 0.0, !(2..30).contains(&i));
        }
    }
}
