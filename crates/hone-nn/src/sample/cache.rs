//! Keys and values of the tokens already read, in blocks that sequences share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::simd::{PANEL, Row};
use crate::config::ModelConfig;

/// Positions per block. That of a panel, so that scores over a block are one tile of a matrix product.
pub(super) const BLOCK: usize = PANEL;

/// Sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    pub kv_heads: usize,
    pub head_dim: usize,
}

impl BlockShape {
    pub fn new(config: &ModelConfig) -> BlockShape {
        BlockShape { kv_heads: config.kv_heads, head_dim: config.head_dim }
    }

    /// Panels that hold the values of one head.
    pub fn value_panels(self) -> usize {
        self.head_dim.div_ceil(PANEL)
    }

    fn rows_per_head(self) -> usize {
        self.head_dim + self.value_panels() * BLOCK
    }

    /// Bytes of one block of one layer.
    pub fn bytes(self) -> usize {
        self.kv_heads * self.rows_per_head() * size_of::<Row>()
    }
}

/// Keys and values of [`BLOCK`] positions in one layer. Per head: the keys transposed, `[head_dim, BLOCK]`, then the
/// values in panels, `[panels, BLOCK, PANEL]`. Both are weights of a matrix product: queries times keys, then
/// probabilities times values.
#[derive(Debug, Clone)]
pub(super) struct Block(Vec<Row>);

impl Block {
    fn new(shape: BlockShape) -> Block {
        Block(vec![Row::ZERO; shape.kv_heads * shape.rows_per_head()])
    }

    /// `[head_dim, BLOCK]`
    pub fn keys(&self, shape: BlockShape, head: usize) -> &[Row] {
        &self.0[head * shape.rows_per_head()..][..shape.head_dim]
    }

    /// `[BLOCK, PANEL]`
    pub fn values(&self, shape: BlockShape, head: usize, panel: usize) -> &[Row] {
        let start = head * shape.rows_per_head() + shape.head_dim + panel * BLOCK;
        &self.0[start..start + BLOCK]
    }

    fn write(&mut self, shape: BlockShape, slot: usize, keys: &[f32], values: &[f32]) {
        let heads = self.0.chunks_exact_mut(shape.rows_per_head());
        let pairs = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
        for (rows, (keys, values)) in heads.zip(pairs) {
            let (key_rows, value_rows) = rows.split_at_mut(shape.head_dim);
            for (row, &key) in key_rows.iter_mut().zip(keys) {
                row.0[slot] = key;
            }
            for (rows, values) in value_rows.chunks_exact_mut(BLOCK).zip(values.chunks(PANEL)) {
                rows[slot].0[..values.len()].copy_from_slice(values);
            }
        }
    }
}

/// One layer of a [`Cache`].
#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    window: Option<usize>,
    /// Index of the first block that is still held; those before it have left the window.
    first: usize,
    blocks: VecDeque<Arc<Block>>,
}

impl LayerCache {
    /// Appends one position. A block that other sequences share is copied first.
    pub fn push(&mut self, shape: BlockShape, position: usize, keys: &[f32], values: &[f32]) {
        let index = position / BLOCK - self.first;
        if index == self.blocks.len() {
            self.blocks.push_back(Arc::new(Block::new(shape)));
        }
        Arc::make_mut(&mut self.blocks[index]).write(shape, position % BLOCK, keys, values);
    }

    /// First position that the query at `position` sees.
    pub fn start(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// The block that holds the positions from `index * BLOCK` on.
    pub fn block(&self, index: usize) -> &Block {
        &self.blocks[index - self.first]
    }

    /// The block at `index` among those that are still held.
    pub fn held(&self, index: usize) -> Option<&Block> {
        self.blocks.get(index).map(|block| &**block)
    }

    /// Drops blocks that no query at `position` or later sees.
    fn drop_before(&mut self, position: usize) {
        let keep = self.start(position) / BLOCK;
        while self.first < keep && !self.blocks.is_empty() {
            self.blocks.pop_front();
            self.first += 1;
        }
    }
}

/// Keys and values of one sequence. A clone shares every block with the original until one of them writes to it.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    pub layers: Vec<LayerCache>,
    len: usize,
}

impl Cache {
    pub fn new(config: &ModelConfig) -> Cache {
        let layer = |&window: &Option<usize>| LayerCache { window, first: 0, blocks: VecDeque::new() };
        Cache { layers: config.windows.iter().map(layer).collect(), len: 0 }
    }

    /// Tokens read so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Notes that every layer has been given `tokens` more positions.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        for layer in &mut self.layers {
            layer.drop_before(self.len);
        }
    }

    /// Blocks held, over all layers.
    #[cfg(test)]
    pub fn blocks(&self) -> usize {
        self.layers.iter().map(|layer| layer.blocks.len()).sum()
    }
}

/// Bytes that a sequence may come to hold: `shared` of its `total` positions lie in blocks that it shares with its
/// siblings for good. `chunk` positions are read at a time, so a window holds that many more.
pub(super) fn cache_bytes(config: &ModelConfig, shared: usize, total: usize, chunk: usize) -> CacheBytes {
    let shape = BlockShape::new(config);
    let mut bytes = CacheBytes { shared: 0, own: 0 };
    for window in &config.windows {
        let held = window.map_or(usize::MAX, |window| (window + chunk).div_ceil(BLOCK) + 1);
        let shared = (shared / BLOCK).min(held);
        bytes.shared += shared * shape.bytes();
        // Under a window the shared blocks are left behind one by one while own ones take their place.
        let own =
            if window.is_none() { total.div_ceil(BLOCK) - shared } else { total.div_ceil(BLOCK).min(held) };
        bytes.own += own * shape.bytes();
    }
    bytes
}

/// See [`cache_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CacheBytes {
    pub shared: usize,
    pub own: usize,
}

/// Bytes that all caches of an engine may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    pub limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicUsize::new(0) })
    }

    /// Sets `bytes` aside until the reservation is dropped; `None` if they are not free now.
    pub fn reserve(self: &Arc<Budget>, bytes: usize) -> Option<Reservation> {
        let take = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
        Some(Reservation { bytes, budget: self.clone() })
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// Bytes set aside in a [`Budget`].
#[derive(Debug)]
pub(super) struct Reservation {
    bytes: usize,
    budget: Arc<Budget>,
}

impl Reservation {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Splits `bytes` off into a reservation of their own.
    pub fn split(&mut self, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Reservation { bytes, budget: self.budget.clone() }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(window: Option<usize>) -> ModelConfig {
        let mut config = ModelConfig::llama(16, 16, 2, 2, 1, 16);
        config.windows = vec![window, None];
        config
    }

    fn fill(cache: &mut Cache, config: &ModelConfig, tokens: usize) {
        let shape = BlockShape::new(config);
        for _ in 0..tokens {
            let position = cache.len();
            let row = vec![position as f32; config.kv_width()];
            for layer in &mut cache.layers {
                layer.push(shape, position, &row, &row);
            }
            cache.advance(1);
        }
    }

    #[test]
    fn forks_share_blocks_until_they_write() {
        let config = config(None);
        let shape = BlockShape::new(&config);
        let mut cache = Cache::new(&config);
        fill(&mut cache, &config, 40);
        let mut fork = cache.clone();
        assert!(Arc::ptr_eq(&cache.layers[0].blocks[1], &fork.layers[0].blocks[1]));
        fill(&mut fork, &config, 1);
        assert!(Arc::ptr_eq(&cache.layers[0].blocks[0], &fork.layers[0].blocks[0]));
        assert_eq!(fork.layers[0].block(1).keys(shape, 0)[3].0[8], 40.0);
        assert_eq!(cache.layers[0].block(1).keys(shape, 0)[3].0[8], 0.0);
        assert_eq!(
            fork.layers[1].block(1).values(shape, 0, 0)[7].0[..9],
            [[39.0; 8].as_slice(), &[0.0]].concat()
        );
    }

    #[test]
    fn blocks_outside_the_window_are_dropped() {
        let config = config(Some(33));
        let mut cache = Cache::new(&config);
        fill(&mut cache, &config, 96);
        // The query at position 96 sees 64.. in the first layer: one block. The second layer keeps all three.
        assert_eq!(cache.layers[0].start(96), 64);
        assert_eq!(cache.blocks(), 1 + 3);
        fill(&mut cache, &config, 1);
        assert_eq!(cache.blocks(), 2 + 4);
    }

    #[test]
    fn reservations_return_what_they_took() {
        let budget = Budget::new(100);
        let mut all = budget.reserve(90).unwrap();
        assert!(budget.reserve(11).is_none());
        let part = all.split(60);
        drop(all);
        assert_eq!(budget.used(), 60);
        drop(part);
        assert_eq!(budget.used(), 0);
        // 40 of 70 positions: one whole block is shared, two more are not; 2 layers.
        let config = config(None);
        let block = BlockShape::new(&config).bytes();
        assert_eq!(cache_bytes(&config, 40, 70, 8), CacheBytes { shared: 2 * block, own: 4 * block });
    }
}
