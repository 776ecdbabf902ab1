//! AdamW (arXiv:1711.05101) over the trained tensors of a model, in the order of operations of `torch.optim.AdamW`.
//!
//! One pass over weights, gradient and both moments; what bounds it is memory bandwidth. Every number depends on its
//! own element alone, and the gradient's norm is summed in fixed blocks, so the number of threads changes nothing.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Model, Segment, Store};

/// Elements that one thread treats at a time: four streams of it stay within a core's second-level cache.
const BLOCK: usize = 1 << 15;

/// Below this many elements the work is done before a second thread has started.
const WORTH_THREADS: usize = 1 << 17;

/// Which tensors weight decay applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Matrices only, not norms and biases: what the trainer of `transformers` does.
    Matrices,
    /// Everything: what `torch.optim.AdamW(model.parameters())` does.
    All,
}

/// Settings of AdamW. Defaults are PyTorch's, but for [`AdamWSettings::decay`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay β₁ of the mean of gradients, in `[0, 1)`.
    pub beta1: f64,
    /// Decay β₂ of the mean of squared gradients, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment. Above 0.
    pub epsilon: f64,
    /// Share of a weight that a step of learning rate 1 would take away. At least 0.
    pub weight_decay: f64,
    /// What it applies to.
    pub decay: Decay,
}

impl Default for AdamWSettings {
    fn default() -> AdamWSettings {
        AdamWSettings { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, decay: Decay::Matrices }
    }
}

impl AdamWSettings {
    /// Checks the ranges given with each field.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the first field outside its range.
    pub fn check(&self) -> Result<()> {
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::argument(name, "a number in [0, 1)", beta));
            }
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(Error::argument("epsilon", "a number above 0", self.epsilon));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::argument("weight_decay", "a number of at least 0", self.weight_decay));
        }
        Ok(())
    }
}

/// The optimiser's state: step counter and both moments, placed as the model's gradient is.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamW {
    settings: AdamWSettings,
    /// Steps taken.
    pub(super) step: u64,
    /// `[trained elements]`: running mean of the gradient.
    pub(super) first: Vec<f32>,
    /// `[trained elements]`: running mean of its square.
    pub(super) second: Vec<f32>,
}

impl AdamW {
    /// Fresh state for what `model` trains now.
    ///
    /// # Errors
    /// As [`AdamWSettings::check`].
    pub fn new(settings: AdamWSettings, model: &Model) -> Result<AdamW> {
        settings.check()?;
        let len = model.gradient_len();
        Ok(AdamW { settings, step: 0, first: vec![0.0; len], second: vec![0.0; len] })
    }

    /// Settings it was made with.
    pub fn settings(&self) -> &AdamWSettings {
        &self.settings
    }

    /// One step along the accumulated gradient times `scale` (1, or what clipping leaves).
    ///
    /// # Errors
    /// [`Error::Shape`] if the model trains other tensors than when this state was made, or has no gradient yet.
    pub fn update(&mut self, model: &mut Model, learning_rate: f64, scale: f32) -> Result<()> {
        let threads = model.threads;
        let (segments, base, adapter, gradient) = model.trained_mut();
        if gradient.len() != self.first.len() {
            return Err(Error::Shape {
                what: "gradient for the optimiser".into(),
                needed: vec![self.first.len()],
                got: vec![gradient.len()],
            });
        }
        self.step += 1;
        let AdamWSettings { beta1, beta2, epsilon, weight_decay, decay } = self.settings;
        let correction1 = 1.0 - beta1.powf(self.step as f64);
        let correction2 = 1.0 - beta2.powf(self.step as f64);
        // Scalars are computed in f64 and rounded once, as Python hands them to the kernels.
        let coefficients = |matrix: bool| Coefficients {
            scale,
            keep: if matrix || decay == Decay::All {
                (1.0 - learning_rate * weight_decay) as f32
            } else {
                1.0
            },
            mean: (1.0 - beta1) as f32,
            square_keep: beta2 as f32,
            square: (1.0 - beta2) as f32,
            root: correction2.sqrt() as f32,
            epsilon: epsilon as f32,
            rate: (-learning_rate / correction1) as f32,
        };
        let (matrices, others) = (coefficients(true), coefficients(false));
        let places = || segments.iter().map(|segment| segment.grad..segment.grad + segment.param.len());
        let flags =
            segments.iter().flat_map(|s| std::iter::repeat_n(s.matrix, s.param.len().div_ceil(BLOCK)));
        let mut work: Vec<Block> = weights(segments, base, adapter)
            .into_iter()
            .zip(cut(&mut self.first, places()))
            .zip(cut(&mut self.second, places()))
            .zip(places().flat_map(|place| gradient[place].chunks(BLOCK)))
            .zip(flags)
            .map(|((((weight, first), second), gradient), matrix)| Block {
                weight,
                first,
                second,
                gradient,
                coefficients: if matrix { matrices } else { others },
            })
            .collect();
        let arch = Arch::new();
        share(&mut work, threads, gradient.len(), |block| arch.dispatch(block));
        Ok(())
    }
}

/// Numbers that are the same for a whole tensor.
#[derive(Clone, Copy)]
struct Coefficients {
    scale: f32,
    keep: f32,
    mean: f32,
    square_keep: f32,
    square: f32,
    root: f32,
    epsilon: f32,
    rate: f32,
}

/// A piece of one tensor with its gradient and moments.
struct Block<'a> {
    weight: &'a mut [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    gradient: &'a [f32],
    coefficients: Coefficients,
}

impl WithSimd for &mut Block<'_> {
    type Output = ();

    // The loop is plain so that the compiler vectorises it with whatever instructions `S` stands for.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.coefficients;
        let len = self.weight.len();
        let (weight, gradient) = (&mut self.weight[..len], &self.gradient[..len]);
        let (first, second) = (&mut self.first[..len], &mut self.second[..len]);
        for i in 0..len {
            let g = gradient[i] * c.scale;
            let change = g - first[i];
            // PyTorch's `lerp` starts from the nearer end.
            let m = if c.mean < 0.5 {
                c.mean.mul_add(change, first[i])
            } else {
                (c.mean - 1.0).mul_add(change, g)
            };
            let v = (c.square * g).mul_add(g, second[i] * c.square_keep);
            let root = v.sqrt() / c.root + c.epsilon;
            weight[i] = weight[i] * c.keep + (c.rate * m) / root;
            first[i] = m;
            second[i] = v;
        }
    }
}

/// Euclidean norm of the accumulated gradient over everything that is trained. Not finite if any element is not.
pub fn gradient_norm(model: &Model) -> f64 {
    let gradient = model.gradient();
    let places = model.segments().iter().map(|segment| segment.grad..segment.grad + segment.param.len());
    let mut work: Vec<(&[f32], f64)> = places
        .flat_map(|place| gradient.get(place).unwrap_or_default().chunks(BLOCK))
        .map(|block| (block, 0.0))
        .collect();
    let arch = Arch::new();
    share(&mut work, model.threads, gradient.len(), |(block, sum)| *sum = arch.dispatch(Squares(block)));
    work.iter().map(|(_, sum)| sum).sum::<f64>().sqrt()
}

/// Sum of squares.
struct Squares<'a>(&'a [f32]);

impl WithSimd for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        // f64, because squares of large gradients overflow f32; sixteen sums, so that lanes do not wait.
        let mut sums = [0.0f64; 16];
        let (chunks, rest) = self.0.as_chunks::<16>();
        for chunk in chunks {
            for (sum, &value) in sums.iter_mut().zip(chunk) {
                let value = f64::from(value);
                *sum = value.mul_add(value, *sum);
            }
        }
        let rest: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        sums.iter().sum::<f64>() + rest
    }
}

/// What gradients are multiplied with so that their norm does not pass `max_norm`, as
/// `torch.nn.utils.clip_grad_norm_` computes it.
pub fn clip_scale(norm: f64, max_norm: f64) -> f32 {
    (max_norm / (norm + 1e-6)).min(1.0) as f32
}

/// Weights of all segments, in gradient order, in pieces of at most [`BLOCK`].
pub(super) fn weights<'a>(
    segments: &[Segment],
    base: &'a mut [f32],
    adapter: &'a mut [f32],
) -> Vec<&'a mut [f32]> {
    let of = |store| segments.iter().filter(move |segment| segment.store == store).map(|s| s.param.clone());
    let mut pieces = cut(base, of(Store::Base));
    pieces.extend(cut(adapter, of(Store::Adapter)));
    pieces
}

/// Pieces of at most [`BLOCK`] elements of ascending, disjoint `ranges` of a buffer.
pub(super) fn cut(mut rest: &mut [f32], ranges: impl Iterator<Item = Range<usize>>) -> Vec<&mut [f32]> {
    let mut pieces = vec![];
    let mut at = 0;
    for range in ranges {
        let (piece, tail) = std::mem::take(&mut rest).split_at_mut(range.end - at);
        pieces.extend(piece[range.start - at..].chunks_mut(BLOCK));
        rest = tail;
        at = range.end;
    }
    pieces
}

/// Does `work` on up to `threads` threads, each with a run of neighbours.
pub(super) fn share<T: Send>(work: &mut [T], threads: usize, elements: usize, each: impl Fn(&mut T) + Sync) {
    let threads = if elements < WORTH_THREADS { 1 } else { threads.clamp(1, work.len().max(1)) };
    let mut parts = work.chunks_mut(work.len().div_ceil(threads).max(1));
    let own = parts.next();
    std::thread::scope(|scope| {
        for part in parts {
            scope.spawn(|| part.iter_mut().for_each(&each));
        }
        own.into_iter().flatten().for_each(&each);
    });
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::adapter::{Adapter, LoraConfig};
    use crate::config::ModelConfig;

    fn model(threads: usize) -> Model {
        let mut model = Model::random(ModelConfig::llama(512, 64, 3, 4, 2, 172), 1);
        model.threads = threads;
        // Any numbers that differ from each other will do.
        model.gradient =
            (0..model.gradient_len()).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
        model
    }

    #[derive(Deserialize)]
    struct Reference {
        start: Vec<f32>,
        gradients: Vec<Vec<f32>>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        weight_decay: f64,
        clip: Option<f64>,
        norms: Vec<f64>,
        weights: Vec<Vec<f32>>,
    }

    #[test]
    fn steps_are_those_of_pytorch() {
        // Made by tests/reference/make_adamw.py.
        let text = include_str!("../../tests/reference/adamw.json");
        let reference: Reference = serde_json::from_str(text).unwrap();
        for case in &reference.cases {
            let mut model = model(1);
            // The six numbers sit at the start of the first matrix, and nothing else has a gradient.
            model.params.data[..6].copy_from_slice(&reference.start);
            let Case { beta1, beta2, epsilon, weight_decay, .. } = *case;
            let settings = AdamWSettings { beta1, beta2, epsilon, weight_decay, decay: Decay::Matrices };
            let mut optimiser = AdamW::new(settings, &model).unwrap();
            for (step, gradient) in reference.gradients.iter().enumerate() {
                model.clear_gradient();
                model.gradient[..6].copy_from_slice(gradient);
                let norm = gradient_norm(&model);
                assert!((norm / case.norms[step] - 1.0).abs() < 1e-6, "{norm} {}", case.norms[step]);
                let scale = case.clip.map_or(1.0, |clip| clip_scale(norm, clip));
                optimiser.update(&mut model, 0.02, scale).unwrap();
                for (got, expected) in model.params.data.iter().zip(&case.weights[step]) {
                    // Two roundings of f32.
                    assert!((got - expected).abs() <= 1.2e-7 * expected.abs().max(0.1), "{got} {expected}");
                }
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        let run = |threads| {
            let mut model = model(threads);
            let mut optimiser = AdamW::new(AdamWSettings::default(), &model).unwrap();
            for _ in 0..3 {
                let scale = clip_scale(gradient_norm(&model), 1.0);
                optimiser.update(&mut model, 1e-2, scale).unwrap();
            }
            (model.params.data, optimiser)
        };
        let one = run(1);
        assert!(one.0.len() > WORTH_THREADS);
        assert!(one == run(2) && one == run(5));
    }

    #[test]
    fn norms_and_biases_do_not_decay_unless_asked() {
        for (decay, norm) in [(Decay::Matrices, 1.0), (Decay::All, 0.99)] {
            let mut model = model(2);
            model.clear_gradient();
            let before = model.params.data[0];
            let settings = AdamWSettings { weight_decay: 0.1, decay, ..Default::default() };
            AdamW::new(settings, &model).unwrap().update(&mut model, 0.1, 1.0).unwrap();
            // No gradient, so nothing but decay: 1 − 0.1 · 0.1 = 0.99.
            assert_eq!(model.params.data[0], before * 0.99);
            assert_eq!(model.params.tensor("model.norm.weight").unwrap()[0], norm);
        }
    }

    #[test]
    fn frozen_rows_of_a_fused_block_stay_and_do_not_count() {
        let mut model = model(2);
        model.set_trained(|entry| entry.name.ends_with("q_proj.weight"), false);
        model.gradient = vec![1.0; model.gradient_len()];
        let before = model.params.clone();
        // Three layers of 64 × 64 ones: √(3 · 4096); the keys and values beside them are no part of it.
        assert!((gradient_norm(&model) - 12288f64.sqrt()).abs() < 1e-9);
        AdamW::new(AdamWSettings::default(), &model).unwrap().update(&mut model, 0.1, 1.0).unwrap();
        for entry in before.layout().entries() {
            let moved = before.data[entry.range()] != model.params.data[entry.range()];
            assert_eq!(moved, entry.name.ends_with("q_proj.weight"), "{}", entry.name);
        }
    }

    #[test]
    fn an_adapter_trains_alone() {
        let mut model = model(2);
        let before = model.params.data.clone();
        model.attach(Adapter::new(LoraConfig::default(), model.config(), 1).unwrap());
        let adapter = model.adapter.clone().unwrap().params.data;
        model.gradient = vec![1.0; model.gradient_len()];
        AdamW::new(AdamWSettings::default(), &model).unwrap().update(&mut model, 0.1, 1.0).unwrap();
        assert_eq!(model.params.data, before);
        let moved = model.adapter.unwrap().params.data;
        assert!(adapter.iter().zip(&moved).all(|(old, new)| old != new));
    }

    #[test]
    fn settings_and_states_that_do_not_fit_are_refused() {
        let mut model = model(1);
        let refused = |settings: AdamWSettings| settings.check().unwrap_err().to_string();
        assert_eq!(
            refused(AdamWSettings { beta2: 1.0, ..Default::default() }),
            "`beta2`: needs a number in [0, 1), got 1"
        );
        assert!(refused(AdamWSettings { epsilon: 0.0, ..Default::default() }).contains("epsilon"));
        assert!(refused(AdamWSettings { weight_decay: f64::NAN, ..Default::default() }).contains("NaN"));
        let mut optimiser = AdamW::new(AdamWSettings::default(), &model).unwrap();
        model.set_trained(|entry| entry.name.contains("norm"), false);
        model.gradient = vec![0.0; model.gradient_len()];
        assert!(optimiser.update(&mut model, 0.1, 1.0).is_err());
    }
}
