//! From hidden states to log-probabilities and scores, and back, without ever holding all logits of a large batch.

use super::gradient::SharedGradient;
use super::kernels::{self, simd};
use super::matmul::{linear, linear_dw, linear_dx};
use super::stack::{Weights, size};
use crate::batch::Target;
use crate::config::Head;
use crate::error::Result;
use crate::network::{Candidates, Want};

/// Logits held at once by one thread, in numbers. Up to this many are kept for the backward pass; beyond, they are
/// computed again there.
const LOGITS: usize = 1 << 23;

/// Outputs of one chunk as plain numbers; shapes as in [`crate::Outputs`].
#[derive(Debug, Default, Clone)]
pub struct Raw {
    pub logps: Vec<f32>,
    pub entropies: Vec<f32>,
    pub distributions: Vec<f32>,
    pub candidates: Vec<f32>,
    pub top_tokens: Vec<u32>,
    pub top_logps: Vec<f32>,
    pub scores: Vec<f32>,
    pub hidden: Vec<Vec<f32>>,
}

impl Raw {
    /// Appends the outputs of the next chunk.
    pub fn append(&mut self, next: &mut Raw) {
        self.logps.append(&mut next.logps);
        self.entropies.append(&mut next.entropies);
        self.distributions.append(&mut next.distributions);
        self.candidates.append(&mut next.candidates);
        self.top_tokens.append(&mut next.top_tokens);
        self.top_logps.append(&mut next.top_logps);
        self.scores.append(&mut next.scores);
        self.hidden.resize_with(next.hidden.len().max(self.hidden.len()), Vec::new);
        for (all, next) in self.hidden.iter_mut().zip(&mut next.hidden) {
            all.append(next);
        }
    }
}

/// Gradients of one chunk's outputs; an empty slice stands for zeros.
#[derive(Debug, Default, Clone, Copy)]
pub struct RawGradient<'a> {
    pub logps: &'a [f32],
    pub entropies: &'a [f32],
    pub distributions: &'a [f32],
    pub candidates: &'a [f32],
    pub scores: &'a [f32],
}

/// What the backward pass needs of the head.
#[derive(Debug, Default)]
pub struct HeadState {
    /// `[M, D]`: normed states at the targets' rows.
    gathered: Vec<f32>,
    /// `[M, V]` probabilities if all fit, else the last slice of them.
    probabilities: Vec<f32>,
    /// `[M]`
    entropies: Vec<f32>,
    dgathered: Vec<f32>,
    logits: Vec<f32>,
}

/// The targets of one chunk, with what is wanted of them.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Rows count within the chunk.
    pub targets: &'a [Target],
    /// Index of the first of them in the whole step, for the candidates.
    pub first: usize,
    /// Last row of each sequence of the chunk.
    pub ends: &'a [usize],
    /// What is wanted.
    pub want: &'a Want,
}

impl Ask<'_> {
    fn candidates(&self, index: usize) -> &[u32] {
        match &self.want.candidates {
            Some(Candidates { per_target, tokens }) => {
                let place = (self.first + index) * per_target;
                &tokens[place..place + per_target]
            }
            None => &[],
        }
    }
}

/// Targets whose logits are held at once.
fn slice_len(vocab: usize) -> usize {
    (LOGITS / vocab).max(16)
}

/// How many turns a chunk of `targets` targets takes at the output embeddings' gradient.
pub fn turns(targets: usize, vocab: usize) -> usize {
    targets.div_ceil(slice_len(vocab)).max(1)
}

simd! {
    /// Entropy of the distribution whose unnormalised probabilities are `e`, of logits `z`.
    fn entropy(z: &[f32], e: &[f32], shift: f32, sum: f32) -> f32 {
        let mut lanes = [0.0f32; kernels::LANES];
        let whole = z.len() / kernels::LANES * kernels::LANES;
        for (z, e) in z[..whole].chunks_exact(kernels::LANES).zip(e[..whole].chunks_exact(kernels::LANES)) {
            for j in 0..kernels::LANES {
                lanes[j] += e[j] * (z[j] - shift);
            }
        }
        let mut mean: f32 = lanes.iter().sum();
        for (z, e) in z[whole..].iter().zip(&e[whole..]) {
            mean += e * (z - shift);
        }
        sum.ln() - mean / sum
    }
}

impl Weights<'_> {
    /// Computes the outputs of a chunk from its normed states `[n, D]`.
    pub fn head_forward(&self, normed: &[f32], ask: Ask, state: &mut HeadState, out: &mut Raw) {
        self.scores_forward(normed, ask, out);
        let Some(place) = self.places.lm_head else { return };
        let (d, v) = (self.config.hidden_size, self.config.vocab_size);
        let gathered = size(&mut state.gathered, ask.targets.len() * d);
        for (row, target) in gathered.chunks_exact_mut(d).zip(ask.targets) {
            let at = target.row as usize * d;
            row.copy_from_slice(&normed[at..at + d]);
        }
        let table = &self.data[place..place + v * d];
        let step = slice_len(v);
        let HeadState { gathered, probabilities, entropies, logits, .. } = state;
        entropies.clear();
        for (slice, targets) in ask.targets.chunks(step).enumerate() {
            let first = slice * step;
            let rows = size(probabilities, targets.len() * v);
            linear(
                targets.len(),
                d,
                v,
                &gathered[first * d..(first + targets.len()) * d],
                table,
                rows,
                false,
            );
            for (i, (row, target)) in rows.chunks_exact_mut(v).zip(targets).enumerate() {
                self.read_row(row, target.token, ask.candidates(first + i), ask.want, logits, out);
            }
        }
        if ask.want.entropies {
            entropies.extend_from_slice(&out.entropies);
        }
    }

    /// Reads one row of logits and turns it into probabilities.
    fn read_row(
        &self,
        row: &mut [f32],
        token: u32,
        candidates: &[u32],
        want: &Want,
        logits: &mut Vec<f32>,
        out: &mut Raw,
    ) {
        if want.temperature != 1.0 {
            kernels::scale(row, 1.0 / want.temperature);
        }
        let copied = want.entropies || want.distributions || want.top.is_some() || !candidates.is_empty();
        let logits = size(logits, if copied { row.len() } else { 0 });
        if copied {
            logits.copy_from_slice(row);
        }
        let chosen = row[token as usize];
        let (shift, sum) = kernels::exp_row(row);
        // Subtracting the shift first keeps the digits that a large logsumexp would swallow.
        let log_sum = sum.ln();
        let logp = |logit: f32| logit - shift - log_sum;
        out.logps.push(logp(chosen));
        if want.entropies {
            out.entropies.push(entropy(logits, row, shift, sum));
        }
        if want.distributions {
            out.distributions.extend(logits.iter().map(|&logit| logp(logit)));
        }
        out.candidates.extend(candidates.iter().map(|&token| logp(logits[token as usize])));
        if let Some(k) = want.top {
            let mut order: Vec<u32> = (0..row.len() as u32).collect();
            // Ties go to the smaller token, so that the choice is reproducible.
            let better =
                |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
            let k = k.min(order.len());
            if k < order.len() {
                order.select_nth_unstable_by(k, better);
            }
            order.truncate(k);
            order.sort_unstable_by(better);
            out.top_logps.extend(order.iter().map(|&token| logp(logits[token as usize])));
            out.top_tokens.extend(order);
        }
        kernels::scale(row, 1.0 / sum);
    }

    /// Adds to the gradient of the normed states, `dnormed` `[n, D]`, and to the head's weights. Takes the turns
    /// `order..` at the output embeddings and turn `chunk` at the score head.
    pub fn head_backward(
        &self,
        normed: &[f32],
        ask: Ask,
        state: &mut HeadState,
        grad: RawGradient,
        (chunk, order): (usize, usize),
        dnormed: &mut [f32],
        gradient: &SharedGradient,
    ) -> Result<()> {
        self.scores_backward(normed, ask, grad.scores, chunk, dnormed, gradient)?;
        let Some(place) = self.places.lm_head else { return Ok(()) };
        let (d, v) = (self.config.hidden_size, self.config.vocab_size);
        let trained = self.model.gradient_place(place);
        let touched = !grad.logps.is_empty()
            || !grad.entropies.is_empty()
            || !grad.distributions.is_empty()
            || !grad.candidates.is_empty();
        if ask.targets.is_empty() || !touched {
            for turn in 0..trained.map_or(0, |_| turns(ask.targets.len(), v)) {
                gradient.in_turn(trained.unwrap_or_default(), order + turn, |_| ())?;
            }
            return Ok(());
        }
        let table = &self.data[place..place + v * d];
        let step = slice_len(v);
        let kept = ask.targets.len() <= step;
        let HeadState { gathered, probabilities, entropies, dgathered, .. } = state;
        for (slice, targets) in ask.targets.chunks(step).enumerate() {
            let (first, m) = (slice * step, targets.len());
            let gathered = &gathered[first * d..(first + m) * d];
            let rows = size(probabilities, m * v);
            if !kept {
                linear(m, d, v, gathered, table, rows, false);
                for row in rows.chunks_exact_mut(v) {
                    kernels::scale(row, 1.0 / ask.want.temperature);
                    let (_, sum) = kernels::exp_row(row);
                    kernels::scale(row, 1.0 / sum);
                }
            }
            for (i, (row, target)) in rows.chunks_exact_mut(v).zip(targets).enumerate() {
                let index = first + i;
                let entropy = entropies.get(index).copied().unwrap_or_default();
                row_gradient(
                    row,
                    target.token,
                    ask.candidates(index),
                    entropy,
                    index,
                    &grad,
                    ask.want.temperature,
                );
            }
            if let Some(place) = trained {
                gradient.in_turn(place, order + slice, |block| linear_dw(m, d, v, rows, gathered, block))?;
            }
            let dgathered = size(dgathered, m * d);
            linear_dx(m, d, v, rows, table, dgathered, false);
            for (row, target) in dgathered.chunks_exact(d).zip(targets) {
                let at = target.row as usize * d;
                kernels::add(&mut dnormed[at..at + d], row);
            }
        }
        Ok(())
    }

    /// Rows of the chunk that the score head reads.
    fn scored_rows<'a>(&self, n: usize, ask: Ask<'a>) -> Box<dyn Iterator<Item = usize> + 'a> {
        match self.config.head {
            Head::Sequence { .. } => Box::new(ask.ends.iter().copied()),
            _ => Box::new(0..n),
        }
    }

    fn scores_forward(&self, normed: &[f32], ask: Ask, out: &mut Raw) {
        let Some(place) = self.places.score.filter(|_| ask.want.scores) else { return };
        let (d, labels) = (self.config.hidden_size, self.config.head.scores());
        for row in self.scored_rows(normed.len() / d, ask) {
            let x = &normed[row * d..(row + 1) * d];
            for label in 0..labels {
                let w = &self.data[place + label * d..place + (label + 1) * d];
                let bias = self.places.score_bias.map_or(0.0, |bias| self.data[bias + label]);
                out.scores.push(kernels::inner(x, w) + bias);
            }
        }
    }

    fn scores_backward(
        &self,
        normed: &[f32],
        ask: Ask,
        grad: &[f32],
        order: usize,
        dnormed: &mut [f32],
        gradient: &SharedGradient,
    ) -> Result<()> {
        let Some(place) = self.places.score else { return Ok(()) };
        let (d, labels) = (self.config.hidden_size, self.config.head.scores());
        let rows = || self.scored_rows(normed.len() / d, ask).zip(grad.chunks_exact(labels));
        for (row, grad) in rows() {
            for (label, &g) in grad.iter().enumerate() {
                let w = &self.data[place + label * d..place + (label + 1) * d];
                for (dx, w) in dnormed[row * d..(row + 1) * d].iter_mut().zip(w) {
                    *dx += g * w;
                }
            }
        }
        if let Some(place) = self.model.gradient_place(place) {
            gradient.in_turn(place, order, |block| {
                for (row, grad) in rows() {
                    for (label, &g) in grad.iter().enumerate() {
                        let x = &normed[row * d..(row + 1) * d];
                        for (dw, x) in block[label * d..(label + 1) * d].iter_mut().zip(x) {
                            *dw += g * x;
                        }
                    }
                }
            })?;
        }
        if let Some(place) = self.places.score_bias.and_then(|bias| self.model.gradient_place(bias)) {
            gradient.in_turn(place, order, |block| {
                for (_, grad) in rows() {
                    kernels::add(block, grad);
                }
            })?;
        }
        Ok(())
    }
}

/// Turns a row of probabilities into the gradient of its logits.
fn row_gradient(
    row: &mut [f32],
    token: u32,
    candidates: &[u32],
    entropy: f32,
    index: usize,
    grad: &RawGradient,
    temperature: f32,
) {
    let v = row.len();
    let inverse = 1.0 / temperature;
    let of = |all: &[f32]| all.get(index).copied().unwrap_or_default();
    let (logp, dentropy) = (of(grad.logps), of(grad.entropies));
    let k = candidates.len();
    let dcandidates = grad.candidates.get(index * k..(index + 1) * k).unwrap_or_default();
    let ddistribution = grad.distributions.get(index * v..(index + 1) * v).unwrap_or_default();
    // Each log-probability is a logit minus the logsumexp, whose gradient is the distribution itself.
    let total = logp + dcandidates.iter().sum::<f32>() + ddistribution.iter().sum::<f32>();
    if dentropy == 0.0 {
        kernels::scale(row, -total * inverse);
    } else {
        for p in row.iter_mut() {
            let surprise = if *p > 0.0 { p.ln() + entropy } else { 0.0 };
            *p *= -(total + dentropy * surprise) * inverse;
        }
    }
    for (p, d) in row.iter_mut().zip(ddistribution) {
        *p += d * inverse;
    }
    row[token as usize] += logp * inverse;
    for (&token, d) in candidates.iter().zip(dcandidates) {
        row[token as usize] += d * inverse;
    }
}
