//! Attention over sequences of different lengths on devices that like rectangles.
//!
//! Sequences of similar length share a rectangle, padded on the right. A causal model needs no padding mask: what is
//! padded lies after every real token, so no real query sees it, and nobody reads what a padded query finds.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};

use crate::batch::Batch;
use crate::config::ModelConfig;
use crate::error::Result;

/// A rectangle is closed once a sequence is shorter than this share of its longest one, so that at most a quarter of
/// the rows are padding.
const SHORTEST: f64 = 0.75;

/// Sequences computed together.
struct Rectangle {
    /// Index in the batch of each sequence.
    sequences: Vec<usize>,
    /// Length of the longest, in tokens.
    longest: usize,
    /// `[sequences × longest]`: row of the batch at each place; padding points at the sequence's last row.
    rows: Tensor,
    /// `[longest, longest]` by window: 0 where a query (row) may look at a key (column), −∞ elsewhere;
    /// `[sequences · heads, longest, longest]` where rows are hidden.
    masks: HashMap<Option<usize>, Tensor>,
}

/// The arrangement of one batch.
pub(super) struct Ragged {
    rectangles: Vec<Rectangle>,
    lengths: Vec<usize>,
    /// `[N]`: place of each row of the batch among all rectangles laid end to end; `None` if it is the row itself.
    places: Option<Tensor>,
}

impl Ragged {
    pub(super) fn new(batch: &Batch, config: &ModelConfig, device: &Device, dtype: DType) -> Result<Ragged> {
        let lengths: Vec<usize> = batch.sequences().map(|rows| rows.len()).collect();
        let mut order: Vec<usize> = (0..batch.len()).collect();
        order.sort_by_key(|&sequence| std::cmp::Reverse(lengths[sequence]));
        let mut rectangles = vec![];
        let mut places = vec![0u32; batch.tokens().len()];
        let mut place = 0;
        let share =
            |first: &usize, other: &usize| lengths[*other] as f64 >= SHORTEST * lengths[*first] as f64;
        while let Some(first) = order.first() {
            let longest = lengths[*first];
            let end = order.iter().position(|sequence| !share(first, sequence)).unwrap_or(order.len());
            let sequences: Vec<usize> = order.drain(..end).collect();
            let mut rows = Vec::with_capacity(sequences.len() * longest);
            for &sequence in &sequences {
                let range = batch.rows(sequence);
                for position in 0..longest {
                    let row = (range.start + position).min(range.end - 1);
                    rows.push(row as u32);
                    if position < range.len() {
                        places[row] = place;
                    }
                    place += 1;
                }
            }
            let count = rows.len();
            let mut masks = HashMap::new();
            for &window in &config.windows {
                if let std::collections::hash_map::Entry::Vacant(entry) = masks.entry(window) {
                    let whole = mask(longest, window, device)?;
                    let whole = match batch.hidden() {
                        [] => whole,
                        hidden => forget(batch, hidden, &sequences, &whole, config.heads)?,
                    };
                    entry.insert(whole.to_dtype(dtype)?);
                }
            }
            rectangles.push(Rectangle {
                sequences,
                longest,
                rows: Tensor::from_vec(rows, count, device)?,
                masks,
            });
        }
        let in_order = places.iter().enumerate().all(|(row, &place)| row == place as usize);
        let plain = rectangles.len() == 1 && place as usize == places.len() && in_order;
        let count = places.len();
        let places = if plain { None } else { Some(Tensor::from_vec(places, count, device)?) };
        Ok(Ragged { rectangles, lengths, places })
    }

    /// Causal attention of every sequence to itself. `q` is `[N, H, head_dim]`, `k` and `v` are
    /// `[N, KV, head_dim]`; the result is `[N, H · head_dim]`, and the probabilities `[H, T, T]` of each sequence if
    /// they are `wanted`.
    pub(super) fn attend(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        window: Option<usize>,
        wanted: bool,
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let (_, heads, width) = q.dims3()?;
        let kv_heads = k.dim(1)?;
        let group = heads / kv_heads;
        let mut attended = vec![];
        let mut kept: Vec<Option<Tensor>> = vec![None; self.lengths.len()];
        for rectangle in &self.rectangles {
            let (count, longest) = (rectangle.sequences.len(), rectangle.longest);
            let gather = |x: &Tensor| match &self.places {
                Some(_) => x.index_select(&rectangle.rows, 0),
                None => Ok(x.clone()),
            };
            // The query heads that share a key head are more rows of one product.
            let q = gather(q)?
                .reshape((count, longest, kv_heads, group, width))?
                .permute((0, 2, 3, 1, 4))?
                .reshape((count * kv_heads, group * longest, width))?;
            let side = |x: &Tensor| {
                let x = gather(x)?.reshape((count, longest, kv_heads, width))?;
                x.transpose(1, 2)?.reshape((count * kv_heads, longest, width))
            };
            let (k, v) = (side(k)?, side(v)?);
            let scores = (q.matmul(&k.t()?)? * (1.0 / (width as f64).sqrt()))?
                .reshape((count * heads, longest, longest))?
                .broadcast_add(&rectangle.masks[&window])?;
            let probabilities = softmax(&scores)?;
            if wanted {
                let all = probabilities.reshape((count, heads, longest, longest))?;
                for (place, &sequence) in rectangle.sequences.iter().enumerate() {
                    let length = self.lengths[sequence];
                    kept[sequence] = Some(all.get(place)?.narrow(1, 0, length)?.narrow(2, 0, length)?);
                }
            }
            attended.push(
                probabilities
                    .reshape((count * kv_heads, group * longest, longest))?
                    .matmul(&v)?
                    .reshape((count, kv_heads, group, longest, width))?
                    .permute((0, 3, 1, 2, 4))?
                    .reshape((count * longest, heads * width))?,
            );
        }
        let attended = Tensor::cat(&attended, 0)?;
        let attended = match &self.places {
            Some(places) => attended.index_select(places, 0)?,
            None => attended,
        };
        Ok((attended, kept.into_iter().flatten().collect()))
    }
}

fn mask(length: usize, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let window = window.unwrap_or(length);
    let mut mask = vec![f32::NEG_INFINITY; length * length];
    for query in 0..length {
        for key in (query + 1).saturating_sub(window)..=query {
            mask[query * length + key] = 0.0;
        }
    }
    Ok(Tensor::from_vec(mask, (length, length), device)?)
}

/// A mask for each sequence and head, `[sequences · heads, longest, longest]`: the common one, and −∞ where a query would
/// look back at a hidden row.
fn forget(
    batch: &Batch,
    hidden: &[bool],
    sequences: &[usize],
    whole: &Tensor,
    heads: usize,
) -> Result<Tensor> {
    let longest = whole.dim(0)?;
    let common: Vec<f32> = whole.flatten_all()?.to_vec1()?;
    let mut masks = Vec::with_capacity(sequences.len() * heads * common.len());
    for &sequence in sequences {
        let mut own = common.clone();
        for (key, _) in hidden[batch.rows(sequence)].iter().enumerate().filter(|(_, hidden)| **hidden) {
            (key + 1..longest).for_each(|query| own[query * longest + key] = f32::NEG_INFINITY);
        }
        (0..heads).for_each(|_| masks.extend_from_slice(&own));
    }
    Ok(Tensor::from_vec(masks, (sequences.len() * heads, longest, longest), whole.device())?)
}

/// Softmax over the last dimension, of operations that all have a backward pass.
pub(super) fn softmax(scores: &Tensor) -> Result<Tensor> {
    // The maximum only guards against overflow; the result does not depend on it, so no gradient runs through it.
    let powers = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?.exp()?;
    Ok(powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?)
}
