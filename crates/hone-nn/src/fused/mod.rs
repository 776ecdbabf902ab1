//! The decoder on the CPU: hand-written forward and backward passes on slices, several times faster than a graph of
//! tensor operations and in a fraction of its memory.
//!
//! Work is cut into chunks of whole sequences. Each thread takes chunks through forward pass, loss and backward pass
//! on buffers that it keeps; all add to one gradient in a fixed order, so results do not depend on the number of
//! threads. [`crate::reference`] defines the same model in tensor operations and is what this code is tested against.

mod attention;
mod gradient;
mod head;
pub(crate) mod kernels;
mod matmul;
mod outputs;
mod piece;
mod stack;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use self::gradient::SharedGradient;
use self::head::{HeadState, Raw};
use self::outputs::Leaves;
use self::piece::{EmbedRows, Piece, Turns};
use self::stack::{Scratch, State, Weights};
use crate::batch::Batch;
use crate::config::{ModelConfig, RopeTable};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::network::{LossFn, LossValue, Network, Outputs, Want};

/// Tokens under which a batch is not worth the start of a second thread.
const SMALL: usize = 64;

/// Buffers and tables that outlive one call.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    rope: Mutex<Option<Arc<RopeTable>>>,
    chunks: Pool<ChunkState>,
    threads: Pool<ThreadState>,
}

/// What a chunk keeps between its two passes.
#[derive(Debug, Default)]
pub struct ChunkState {
    state: State,
    head: HeadState,
}

/// What a thread needs for any chunk.
#[derive(Debug, Default)]
pub struct ThreadState {
    scratch: Scratch,
    dnormed: Vec<f32>,
    dembed: Vec<f32>,
}

/// Things to be used again. Boxed, because moving one should not copy its many vectors' headers.
type Pool<T> = Mutex<Vec<Box<T>>>;

/// Takes what was put back, or something fresh.
fn borrow<T: Default>(pool: &Pool<T>) -> Box<T> {
    pool.lock().ok().and_then(|mut pool| pool.pop()).unwrap_or_default()
}

fn give_back<T>(pool: &Pool<T>, item: Box<T>) {
    if let Ok(mut pool) = pool.lock() {
        pool.push(item);
    }
}

/// Runs `work` on every item, started in order, on up to `threads` threads.
fn in_parallel<T: Send>(
    threads: usize,
    items: impl ExactSizeIterator<Item = T> + Send,
    work: impl Fn(T) -> Result<()> + Sync,
) -> Result<()> {
    let workers = threads.min(items.len());
    if workers <= 1 {
        return items.into_iter().try_for_each(work);
    }
    let queue = Mutex::new(items);
    let run = || -> Result<()> {
        loop {
            let next = queue.lock().map_err(|_| Error::Cancelled)?.next();
            match next {
                Some(item) => work(item)?,
                None => return Ok(()),
            }
        }
    };
    std::thread::scope(|scope| {
        let handles: Vec<_> = (1..workers).map(|_| scope.spawn(run)).collect();
        let mut result = run();
        for handle in handles {
            let other = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // What went wrong first is told; `Cancelled` is only its echo in other threads.
            if matches!(result, Ok(()) | Err(Error::Cancelled)) && other.is_err() {
                result = other;
            }
        }
        result
    })
}

/// Turns everyone away from the shared gradients if a part ends early, by error or by panic.
struct Abandon<'a, 'b, 'c> {
    gradient: &'a SharedGradient<'b>,
    rows: &'a SharedGradient<'c>,
    done: bool,
}

impl Drop for Abandon<'_, '_, '_> {
    fn drop(&mut self) {
        if !self.done {
            self.gradient.abandon();
            self.rows.abandon();
        }
    }
}

impl Model {
    fn rope_table(&self, longest: usize) -> Result<Arc<RopeTable>> {
        let mut cached = self.cache.rope.lock().map_err(|_| Error::Cancelled)?;
        if let Some(table) = cached.as_ref().filter(|table| table.cos.len() >= longest * table.half) {
            return Ok(table.clone());
        }
        // Powers of two, so that slowly growing batches do not rebuild it every time.
        let positions = longest.next_power_of_two().min(self.config().max_positions);
        let table = Arc::new(self.config().rope.table(self.config().head_dim, positions));
        *cached = Some(table.clone());
        Ok(table)
    }

    fn weights<'a>(&'a self, rope: &'a RopeTable, want: &Want) -> Weights<'a> {
        Weights {
            model: self,
            config: self.config(),
            places: self.places(),
            data: &self.params.data,
            adapter: self.adapter.as_ref().filter(|_| want.adapter),
            rope,
        }
    }

    fn cut(&self, batch: &Batch, count: usize, turns: &mut Turns) -> Vec<Piece> {
        Piece::cut(batch, count, self.config().vocab_size, turns, || borrow(&self.cache.chunks))
    }

    /// Chunks that keep each thread's buffers within bounds.
    fn chunk_count(&self, batch: &Batch) -> usize {
        batch.tokens().len().div_ceil(self.chunk_tokens.max(1))
    }

    /// Runs the forward pass of all pieces of one batch.
    fn forward(
        &self,
        weights: Weights,
        want: &Want,
        pieces: &mut [Piece],
        threads: usize,
        keep: bool,
    ) -> Result<Raw> {
        in_parallel(threads, pieces.iter_mut(), |piece| {
            let mut thread = borrow(&self.cache.threads);
            piece.forward(weights, want, keep, &mut thread);
            give_back(&self.cache.threads, thread);
            Ok(())
        })?;
        let mut raw = Raw::default();
        pieces.iter_mut().for_each(|piece| raw.append(&mut piece.raw));
        Ok(raw)
    }

    /// Checks that this model can give what is wanted of a batch.
    fn check(&self, batch: &Batch, want: &Want) -> Result<()> {
        let config = self.config();
        batch.check(config.vocab_size, config.max_positions)?;
        if !(want.temperature > 0.0 && want.temperature.is_finite()) {
            return Err(Error::argument("temperature", "a finite number above 0", want.temperature));
        }
        if let Some(depth) = want.hidden.iter().find(|&&depth| depth > config.layers) {
            return Err(Error::argument("hidden", format!("depths up to {}", config.layers), depth));
        }
        if want.scores && config.head.scores() == 0 {
            return Err(Error::argument(
                "scores",
                "a model with a score or value head",
                "a plain language model",
            ));
        }
        if !config.head.has_language() && !batch.targets().is_empty() {
            return Err(Error::argument("targets", "a model with a language head", "a classifier"));
        }
        Ok(())
    }

    /// Checks the candidates for `targets` targets.
    fn check_candidates(&self, want: &Want, targets: usize) -> Result<()> {
        let Some(candidates) = &want.candidates else { return Ok(()) };
        if candidates.tokens.len() != targets * candidates.per_target {
            return Err(Error::Shape {
                what: "candidates".into(),
                needed: vec![targets, candidates.per_target],
                got: vec![candidates.tokens.len()],
            });
        }
        match candidates.tokens.iter().find(|&&token| token as usize >= self.config().vocab_size) {
            Some(token) => Err(Error::argument(
                "candidates",
                format!("tokens below {}", self.config().vocab_size),
                token,
            )),
            None => Ok(()),
        }
    }

    /// One part: forward, loss, backward.
    fn run_part(
        &self,
        weights: Weights,
        want: &Want,
        part: &mut Part,
        mut pieces: Vec<Piece>,
        threads: usize,
        loss: &LossFn,
        (gradient, embed): (&SharedGradient, EmbedRows),
        train_embed: bool,
    ) -> Result<()> {
        let mut guard = Abandon { gradient, rows: embed.rows, done: false };
        let raw = self.forward(weights, want, &mut pieces, threads, true)?;
        let leaves = Leaves::new(self.config(), part.batch, want, raw)?;
        let loss = loss(part.index, &leaves.outputs())?;
        let grads = leaves.gradients(&loss.value.backward()?)?;
        part.value = f64::from(loss.value.to_scalar::<f32>()?);
        part.metrics = loss.metrics;
        in_parallel(threads, pieces.iter_mut(), |piece| {
            let mut thread = borrow(&self.cache.threads);
            let embed = train_embed.then_some(embed);
            piece.backward(weights, want, &grads, gradient, embed, &mut thread)?;
            give_back(&self.cache.threads, thread);
            Ok(())
        })?;
        for piece in pieces {
            give_back(&self.cache.chunks, piece.state);
        }
        guard.done = true;
        Ok(())
    }
}

/// One part of a step on its way.
struct Part<'a> {
    index: usize,
    batch: &'a Batch,
    value: f64,
    metrics: Vec<(&'static str, f64)>,
}

impl Network for Model {
    fn config(&self) -> &ModelConfig {
        self.config()
    }

    fn evaluate(&self, batch: &Batch, want: &Want) -> Result<Outputs> {
        self.check(batch, want)?;
        self.check_candidates(want, batch.targets().len())?;
        let rope = self.rope_table(batch.longest())?;
        // An even number, so that two threads end together; parts of a step are balanced by whoever cuts the step.
        let count = match self.chunk_count(batch) {
            _ if batch.tokens().len() < SMALL => 1,
            count => count.next_multiple_of(2),
        };
        let mut pieces = self.cut(batch, count, &mut Turns::default());
        let raw = self.forward(self.weights(&rope, want), want, &mut pieces, self.threads, false)?;
        for piece in pieces {
            give_back(&self.cache.chunks, piece.state);
        }
        Ok(Leaves::new(self.config(), batch, want, raw)?.detached())
    }

    fn accumulate(&mut self, parts: &[Batch], want: &Want, loss: &LossFn) -> Result<Vec<LossValue>> {
        for batch in parts {
            self.check(batch, want)?;
        }
        self.check_candidates(want, parts.iter().map(|part| part.targets().len()).sum())?;
        let rope = self.rope_table(parts.iter().map(Batch::longest).max().unwrap_or(0))?;
        let d = self.config().hidden_size;
        let mut buffer = std::mem::take(&mut self.gradient);
        buffer.resize(self.gradient_len(), 0.0);

        let embed_place = self.gradient_place(self.places().embed);
        let mut index = HashMap::new();
        let mut tokens = vec![];
        for &token in parts.iter().flat_map(Batch::tokens).filter(|_| embed_place.is_some()) {
            index.entry(token).or_insert_with(|| {
                tokens.push(token);
                tokens.len() - 1
            });
        }
        let mut rows = vec![0.0; tokens.len() * d];

        let mut turns = Turns::default();
        let mut work: Vec<Part> = parts
            .iter()
            .enumerate()
            .map(|(index, batch)| Part { index, batch, value: 0.0, metrics: vec![] })
            .collect();
        {
            let gradient = SharedGradient::new(&mut buffer, self.gradient_blocks());
            let embed_rows = SharedGradient::new(&mut rows, &[0]);
            let embed = EmbedRows { rows: &embed_rows, index: &index };
            let outer = self.threads.min(parts.len()).max(1);
            let inner = (self.threads / outer).max(1);
            let weights = self.weights(&rope, want);
            // Parts are cut when their turn comes: a part that waits should hold no buffers.
            let queue = work
                .iter_mut()
                .map(|part| (self.cut(part.batch, self.chunk_count(part.batch), &mut turns), part));
            in_parallel(outer, queue, |(pieces, part)| {
                let gradients = (&gradient, embed);
                self.run_part(weights, want, part, pieces, inner, loss, gradients, embed_place.is_some())
            })?;
        }
        if let Some(place) = embed_place {
            for (&token, row) in tokens.iter().zip(rows.chunks_exact(d)) {
                let at = place + token as usize * d;
                kernels::add(&mut buffer[at..at + d], row);
            }
        }
        self.gradient = buffer;
        Ok(work.into_iter().map(|part| LossValue { value: part.value, metrics: part.metrics }).collect())
    }
}
