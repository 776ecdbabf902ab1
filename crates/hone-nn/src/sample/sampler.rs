//! From logits to a token.

use std::cmp::Ordering;
use std::collections::HashMap;

use pulp::{Arch, Simd, WithSimd};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::constraint::TokenMask;
use super::request::{Sampled, Sampling};
use super::simd::{exp_sum, largest};

/// Numbers whose sum is kept, so that a draw walks over sums first and over numbers only in one chunk.
const CHUNK: usize = 256;

/// Draws the tokens of one sequence.
#[derive(Debug)]
pub(super) struct Sampler {
    settings: Sampling,
    rng: ChaCha8Rng,
    /// Tokens of prompt and text, and how often each was sampled. Empty unless something is penalised.
    seen: HashMap<u32, u32>,
    /// Tokens that may not come yet.
    early: Vec<u32>,
}

/// Working memory of [`Sampler::choose`].
#[derive(Debug, Default)]
pub(super) struct Buffers {
    weights: Vec<f32>,
    sums: Vec<f32>,
    candidates: Vec<u32>,
}

/// Why no token could be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Refusal {
    /// The first logit that is NaN or infinite.
    NotFinite { token: u32, value: f32 },
    /// Nothing is left to choose from.
    NothingLeft,
}

/// What constrains one choice.
#[derive(Debug, Default)]
pub(super) struct Limits<'a> {
    /// Tokens that may come; all if `None`.
    pub allowed: Option<&'a TokenMask>,
    /// Whether the sequence is too short to end.
    pub too_short: bool,
    /// Most likely tokens to report.
    pub top: usize,
}

impl Sampler {
    /// `early` are the tokens that end a sequence.
    pub fn new(settings: &Sampling, prompt: &[u32], early: Vec<u32>, seed: u64, stream: u64) -> Sampler {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let mut sampler = Sampler { settings: settings.clone(), rng, seen: HashMap::new(), early };
        if sampler.penalises() {
            sampler.seen.extend(prompt.iter().map(|&token| (token, 0)));
        }
        sampler
    }

    fn penalises(&self) -> bool {
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.settings;
        repetition_penalty != 1.0 || frequency_penalty != 0.0 || presence_penalty != 0.0
    }

    /// Chooses a token. `logits` are `[V]` and overwritten.
    pub fn choose(
        &mut self,
        arch: Arch,
        logits: &mut [f32],
        limits: &Limits,
        buffers: &mut Buffers,
    ) -> Result<Sampled, Refusal> {
        let Buffers { weights, sums, candidates } = buffers;
        let raw = arch.dispatch(Softmax { logits, factor: 1.0, weights, sums });
        if !raw.top.is_finite() || !raw.sum.is_finite() {
            let broken = |value: &f32| value.is_nan() || *value == f32::INFINITY;
            let token = logits.iter().position(broken).unwrap_or(0);
            return Err(Refusal::NotFinite { token: token as u32, value: logits[token] });
        }
        let raw_logp = |logit: f32| (f64::from(logit) - f64::from(raw.top) - raw.sum.ln()) as f32;
        let mut top = vec![];
        if limits.top > 0 {
            best(logits, limits.top, candidates);
            top = candidates.iter().map(|&token| (token, raw_logp(logits[token as usize]))).collect();
        }

        let Sampling { temperature, top_k, top_p, min_p, .. } = self.settings;
        let changed = self.adjusts(limits);
        // The logit that the chosen token had before anything was done to it.
        let originals = changed.then(|| logits.to_vec());
        if changed {
            self.adjust(logits, limits);
        }
        let token = if temperature == 0.0 {
            let best = arch.dispatch(Largest(logits));
            let token = logits.iter().position(|&logit| logit == best).unwrap_or(0);
            if best == f32::NEG_INFINITY {
                return Err(Refusal::NothingLeft);
            }
            (token, 0.0)
        } else {
            let mut total = raw.sum;
            if changed || temperature != 1.0 {
                let softmax = arch.dispatch(Softmax { logits, factor: 1.0 / temperature, weights, sums });
                if softmax.top == f32::NEG_INFINITY {
                    return Err(Refusal::NothingLeft);
                }
                total = softmax.sum;
            }
            let uniform: f64 = self.rng.random();
            let (token, total) = if (top_k == 0 || top_k >= logits.len()) && top_p == 1.0 && min_p == 0.0 {
                (draw(weights, sums, uniform * total), total)
            } else {
                filter(weights, &self.settings, candidates);
                let total: f64 = candidates.iter().map(|&token| f64::from(weights[token as usize])).sum();
                let mut left = uniform * total;
                let chosen = candidates.iter().copied().find(|&token| {
                    left -= f64::from(weights[token as usize]);
                    left < 0.0
                });
                // Rounding may leave a little over; it belongs to the last candidate.
                let last = candidates.last().copied().unwrap_or(0);
                (chosen.unwrap_or(last) as usize, total)
            };
            (token, (f64::from(weights[token]).ln() - total.ln()) as f32)
        };
        let (token, logp) = token;
        let logit = originals.as_ref().map_or(logits[token], |originals| originals[token]);
        Ok(Sampled { token: token as u32, logp, raw_logp: raw_logp(logit), top })
    }

    /// Notes that a token was sampled.
    pub fn accept(&mut self, token: u32) {
        if self.penalises() {
            *self.seen.entry(token).or_insert(0) += 1;
        }
    }

    fn adjusts(&self, limits: &Limits) -> bool {
        limits.allowed.is_some()
            || limits.too_short && !self.early.is_empty()
            || !self.settings.logit_bias.is_empty()
            || !self.seen.is_empty()
    }

    fn adjust(&self, logits: &mut [f32], limits: &Limits) {
        let settings = &self.settings;
        if let Some(allowed) = limits.allowed {
            allowed.apply(logits);
        }
        if limits.too_short {
            for &token in &self.early {
                logits[token as usize] = f32::NEG_INFINITY;
            }
        }
        for &(token, bias) in &settings.logit_bias {
            logits[token as usize] += bias;
        }
        for (&token, &count) in &self.seen {
            let logit = &mut logits[token as usize];
            if *logit > 0.0 {
                *logit /= settings.repetition_penalty;
            } else {
                *logit *= settings.repetition_penalty;
            }
            if count > 0 {
                *logit -= settings.frequency_penalty * count as f32 + settings.presence_penalty;
            }
        }
    }
}

/// By weight, heaviest first; equals by token.
fn heavier(weights: &[f32]) -> impl Fn(&u32, &u32) -> Ordering + '_ {
    |a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b))
}

/// The `k` tokens of largest weight, best first.
fn best(weights: &[f32], k: usize, tokens: &mut Vec<u32>) {
    tokens.clear();
    tokens.extend(0..weights.len() as u32);
    let order = heavier(weights);
    if k < tokens.len() {
        tokens.select_nth_unstable_by(k, &order);
        tokens.truncate(k);
    }
    tokens.sort_unstable_by(order);
}

/// Leaves the tokens that top-k, top-p and min-p keep, in this order, in `tokens`.
fn filter(weights: &[f32], settings: &Sampling, tokens: &mut Vec<u32>) {
    let order = heavier(weights);
    tokens.clear();
    tokens.extend((0..weights.len() as u32).filter(|&token| weights[token as usize] > 0.0));
    if (1..tokens.len()).contains(&settings.top_k) {
        let (_, &mut last, _) = tokens.select_nth_unstable_by(settings.top_k - 1, &order);
        let least = weights[last as usize];
        tokens.retain(|&token| weights[token as usize] >= least);
    }
    if settings.top_p < 1.0 {
        let total: f64 = tokens.iter().map(|&token| f64::from(weights[token as usize])).sum();
        let wanted = f64::from(settings.top_p) * total;
        // Sorts no more than it has to: the heaviest 64, then four times as many, …
        let (mut sorted, mut size, mut mass) = (0, 64, 0.0);
        while sorted < tokens.len() && mass < wanted {
            let end = tokens.len().min(size);
            if end < tokens.len() {
                tokens[sorted..].select_nth_unstable_by(end - sorted, &order);
            }
            tokens[sorted..end].sort_unstable_by(&order);
            while sorted < end && mass < wanted {
                mass += f64::from(weights[tokens[sorted] as usize]);
                sorted += 1;
            }
            size *= 4;
        }
        tokens.truncate(sorted.max(1));
    }
    if settings.min_p > 0.0 {
        let top = tokens.iter().fold(0.0, |top: f32, &token| top.max(weights[token as usize]));
        tokens.retain(|&token| weights[token as usize] >= settings.min_p * top);
    }
}

/// The first token at which the running sum of weights passes `left`.
fn draw(weights: &[f32], sums: &[f32], mut left: f64) -> usize {
    let mut last = 0;
    for (chunk, (weights, &sum)) in weights.chunks(CHUNK).zip(sums).enumerate() {
        if left >= f64::from(sum) {
            left -= f64::from(sum);
            // Where rounding ends if nothing passes: a token that can be drawn.
            if sum > 0.0 {
                last = chunk * CHUNK + weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0);
            }
            continue;
        }
        for (place, &weight) in weights.iter().enumerate() {
            left -= f64::from(weight);
            if weight > 0.0 {
                last = chunk * CHUNK + place;
                if left < 0.0 {
                    break;
                }
            }
        }
        break;
    }
    last
}

struct SoftmaxSum {
    top: f32,
    sum: f64,
}

/// Weights `e^(factor · (logit - top))`, their sums by chunk and their sum.
struct Softmax<'a> {
    logits: &'a [f32],
    factor: f32,
    weights: &'a mut Vec<f32>,
    sums: &'a mut Vec<f32>,
}

impl WithSimd for Softmax<'_> {
    type Output = SoftmaxSum;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> SoftmaxSum {
        let top = largest(simd, self.logits);
        self.weights.clear();
        self.weights.extend_from_slice(self.logits);
        self.sums.clear();
        let mut sum = 0.0;
        for weights in self.weights.chunks_mut(CHUNK) {
            let part = exp_sum(simd, weights, self.factor, top);
            self.sums.push(part);
            sum += f64::from(part);
        }
        SoftmaxSum { top, sum }
    }
}

struct Largest<'a>(&'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        largest(simd, self.0)
    }
}
