//! The exact GELU on the CPU, with its bias, in one pass on vector instructions.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape};
use rayon::prelude::*;

use crate::fused::kernels::{exp, simd};

/// Rows that one thread takes at a time.
const ROWS: usize = 32;

/// `gelu(x + bias)` of rows `[n, width]` and a bias `[width]`. No backward pass.
pub(super) struct BiasGelu;

impl CustomOp2 for BiasGelu {
    fn name(&self) -> &'static str {
        "bias-gelu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let slice = |storage: &'_ CpuStorage, layout: &Layout| match layout.contiguous_offsets() {
            Some((start, end)) => Ok(storage.as_slice::<f32>()?[start..end].to_vec()),
            None => Err(candle_core::Error::RequiresContiguous { op: "bias-gelu" }),
        };
        let (mut rows, bias) = (slice(x, x_layout)?, slice(bias, bias_layout)?);
        rows.par_chunks_mut(ROWS * bias.len()).for_each(|rows| bias_gelu(rows, &bias));
        Ok((CpuStorage::F32(rows), x_layout.shape().clone()))
    }
}

simd! {
    /// In place; the error function by formula 7.1.26 of Abramowitz and Stegun, right to 1.5e-7.
    fn bias_gelu(rows: &mut [f32], bias: &[f32]) {
        for row in rows.chunks_exact_mut(bias.len()) {
            for (x, b) in row.iter_mut().zip(bias) {
                let y = *x + b;
                let z = y.abs() * std::f32::consts::FRAC_1_SQRT_2;
                let t = 1.0 / 0.327_591_1_f32.mul_add(z, 1.0);
                let p = 1.061_405_4_f32
                    .mul_add(t, -1.453_152)
                    .mul_add(t, 1.421_413_7)
                    .mul_add(t, -0.284_496_74)
                    .mul_add(t, 0.254_829_6);
                let erf = (1.0 - p * t * exp(-z * z)).copysign(y);
                *x = 0.5 * y * (1.0 + erf);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn equals_the_exact_function() {
        let values: Vec<f32> = (-3000..3000).map(|i| i as f32 * 0.003).collect();
        let x = Tensor::from_vec(values, (60, 100), &Device::Cpu).unwrap();
        let bias = Tensor::from_vec((0..100).map(|i| i as f32 * 0.01).collect(), 100, &Device::Cpu).unwrap();
        let got = x.apply_op2_no_bwd(&bias, &BiasGelu).unwrap();
        let expected = x.broadcast_add(&bias).unwrap().gelu_erf().unwrap();
        let worst = (got - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(worst < 1e-6, "{worst}");
    }
}
