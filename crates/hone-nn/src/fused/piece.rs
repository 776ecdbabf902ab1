//! Chunks of whole sequences: the unit of work of one thread.

use std::collections::HashMap;
use std::ops::Range;

use super::gradient::SharedGradient;
use super::head::{self, Ask, Raw, RawGradient};
use super::kernels;
use super::outputs::LeafGradients;
use super::stack::{Chunk, Weights, size};
use super::{ChunkState, ThreadState};
use crate::batch::{Batch, Target};
use crate::config::Head;
use crate::error::Result;
use crate::network::Want;

/// One chunk of a part, with its place in the part and in the step.
pub struct Piece {
    tokens: Vec<u32>,
    sequences: Vec<Range<usize>>,
    ends: Vec<usize>,
    targets: Vec<Target>,
    hidden: Vec<bool>,
    longest: usize,
    first_row: usize,
    first_sequence: usize,
    first_target: usize,
    /// Targets of the parts before this one: where the part's candidates begin.
    targets_before: usize,
    order: usize,
    head_order: usize,
    /// Taken from and given back to the model's pool.
    pub state: Box<ChunkState>,
    /// Outputs of the forward pass.
    pub raw: Raw,
}

/// Turns that have been promised so far in one step, and the targets that went by.
#[derive(Debug, Default)]
pub struct Turns {
    chunks: usize,
    heads: usize,
    targets: usize,
}

/// Where embedding gradients go: one row for each token of the step.
#[derive(Clone, Copy)]
pub struct EmbedRows<'a, 'b> {
    /// `[tokens, D]`, a single block.
    pub rows: &'a SharedGradient<'b>,
    /// Row of each token.
    pub index: &'a HashMap<u32, usize>,
}

impl Piece {
    /// Cuts a part into about `count` chunks of equal size. `count` must not depend on the number of threads, so that
    /// sums are formed in the same order on every machine.
    pub fn cut(
        batch: &Batch,
        count: usize,
        vocab_size: usize,
        turns: &mut Turns,
        mut state: impl FnMut() -> Box<ChunkState>,
    ) -> Vec<Piece> {
        let mut pieces = vec![];
        for range in batch.split(batch.tokens().len().div_ceil(count.max(1))) {
            let part = batch.slice(range.clone());
            let sequences: Vec<_> = part.sequences().collect();
            pieces.push(Piece {
                tokens: part.tokens().to_vec(),
                ends: sequences.iter().map(|rows| rows.end - 1).collect(),
                sequences,
                targets: part.targets().to_vec(),
                hidden: part.hidden().to_vec(),
                longest: part.longest(),
                first_row: batch.rows(range.start).start,
                first_sequence: range.start,
                first_target: batch.target_range(range.start).start,
                targets_before: turns.targets,
                order: turns.chunks,
                head_order: turns.heads,
                state: state(),
                raw: Raw::default(),
            });
            turns.chunks += 1;
            turns.heads += head::turns(part.targets().len(), vocab_size);
        }
        turns.targets += batch.targets().len();
        pieces
    }

    fn chunk(&self) -> Chunk<'_> {
        Chunk {
            tokens: &self.tokens,
            sequences: &self.sequences,
            hidden: &self.hidden,
            longest: self.longest,
            order: self.order,
        }
    }

    /// Forward pass; outputs go to [`Piece::raw`]. Only with `keep` can the backward pass follow.
    pub fn forward(&mut self, weights: Weights, want: &Want, keep: bool, thread: &mut ThreadState) {
        let mut hidden = vec![vec![]; want.hidden.len()];
        // Taken out for the call: the chunk borrows the rest of the piece.
        let mut own = std::mem::take(&mut self.state);
        weights.forward(self.chunk(), &mut own.state, &mut thread.scratch, keep, &want.hidden, &mut hidden);
        let mut raw = Raw { hidden, ..Raw::default() };
        let n = self.tokens.len() * weights.config.hidden_size;
        weights.head_forward(&own.state.normed[..n], self.ask(want), &mut own.head, &mut raw);
        self.state = own;
        self.raw = raw;
    }

    fn ask<'a>(&'a self, want: &'a Want) -> Ask<'a> {
        Ask { targets: &self.targets, first: self.targets_before + self.first_target, ends: &self.ends, want }
    }

    /// Backward pass from the gradients of the part's outputs.
    pub fn backward(
        &mut self,
        weights: Weights,
        want: &Want,
        grads: &LeafGradients,
        gradient: &SharedGradient,
        embed: Option<EmbedRows>,
        thread: &mut ThreadState,
    ) -> Result<()> {
        let (d, n) = (weights.config.hidden_size, self.tokens.len());
        let rows = self.first_row..self.first_row + n;
        let targets = self.first_target..self.first_target + self.targets.len();
        let scored = match weights.config.head {
            Head::Sequence { .. } => self.first_sequence..self.first_sequence + self.sequences.len(),
            _ => rows.clone(),
        };
        let candidates = want.candidates.as_ref().map_or(0, |candidates| candidates.per_target);
        let grad = RawGradient {
            logps: cut(&grads.logps, &targets, 1),
            entropies: cut(&grads.entropies, &targets, 1),
            distributions: cut(&grads.distributions, &targets, weights.config.vocab_size),
            candidates: cut(&grads.candidates, &targets, candidates),
            scores: cut(&grads.scores, &scored, weights.config.head.scores()),
        };
        let ThreadState { scratch, dnormed, dembed } = thread;
        let dnormed = size(dnormed, n * d);
        dnormed.fill(0.0);
        let mut dhidden = vec![];
        for (&depth, all) in want.hidden.iter().zip(&grads.hidden) {
            let part = cut(all, &rows, d);
            match part {
                [] => {}
                _ if depth == weights.config.layers => kernels::add(dnormed, part),
                _ => dhidden.push((depth, part)),
            }
        }
        let mut own = std::mem::take(&mut self.state);
        let ChunkState { state, head } = &mut *own;
        let orders = (self.order, self.head_order);
        weights.head_backward(
            &state.normed[..n * d],
            self.ask(want),
            head,
            grad,
            orders,
            dnormed,
            gradient,
        )?;
        let dembed = embed.map(|embed| (embed, size(dembed, n * d)));
        match dembed {
            None => weights.backward(self.chunk(), state, scratch, dnormed, &dhidden, gradient, None)?,
            Some((embed, dembed)) => {
                weights.backward(self.chunk(), state, scratch, dnormed, &dhidden, gradient, Some(dembed))?;
                embed.rows.in_turn(0, self.order, |rows| {
                    for (token, row) in self.tokens.iter().zip(dembed.chunks_exact(d)) {
                        let at = embed.index[token] * d;
                        kernels::add(&mut rows[at..at + d], row);
                    }
                })?;
            }
        }
        self.state = own;
        Ok(())
    }
}

/// Rows `range` of `all`, whose rows are `width` wide; nothing of nothing.
fn cut<'a>(all: &'a [f32], range: &Range<usize>, width: usize) -> &'a [f32] {
    if all.is_empty() { all } else { &all[range.start * width..range.end * width] }
}
