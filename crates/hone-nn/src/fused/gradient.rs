//! The gradient that all threads add to, in an order that does not depend on them.
//!
//! Every chunk of work has a number. A block of the gradient is added to by chunk 0 first, then 1, and so on: whoever
//! comes early waits. So the sum is the same to the last bit for any number of threads, and one buffer serves all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use crate::error::{Error, Result};

/// One block: whose turn it is, and the numbers.
struct Block<'a> {
    state: Mutex<(usize, &'a mut [f32])>,
    turned: Condvar,
}

/// Gradient blocks by the offset they have in the gradient buffer.
pub struct SharedGradient<'a> {
    blocks: HashMap<usize, Block<'a>>,
    abandoned: AtomicBool,
}

impl<'a> SharedGradient<'a> {
    /// Cuts `gradient` into blocks that start at the given places; places must ascend from 0.
    pub fn new(gradient: &'a mut [f32], places: &[usize]) -> SharedGradient<'a> {
        let mut blocks = HashMap::new();
        let mut rest = gradient;
        let mut consumed = 0;
        for (i, &place) in places.iter().enumerate() {
            let end = places.get(i + 1).copied().unwrap_or(consumed + rest.len());
            let (block, tail) = rest.split_at_mut(end - consumed);
            blocks.insert(place, Block { state: Mutex::new((0, block)), turned: Condvar::new() });
            rest = tail;
            consumed = end;
        }
        SharedGradient { blocks, abandoned: AtomicBool::new(false) }
    }

    /// Waits until it is `order`'s turn on the block at `place`, then lets `add` change it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once any thread has called [`SharedGradient::abandon`].
    pub fn in_turn(&self, place: usize, order: usize, add: impl FnOnce(&mut [f32])) -> Result<()> {
        let Some(block) = self.blocks.get(&place) else {
            return Err(Error::argument("gradient place", "the start of a block", place));
        };
        let poisoned = |_| Error::Cancelled;
        let mut state = block.state.lock().map_err(poisoned)?;
        while state.0 != order {
            if self.abandoned.load(Ordering::Acquire) {
                return Err(Error::Cancelled);
            }
            state = block.turned.wait(state).map_err(|_| Error::Cancelled)?;
        }
        add(state.1);
        state.0 += 1;
        block.turned.notify_all();
        Ok(())
    }

    /// Wakes and turns away everyone who waits: some chunk will never have its turn.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        for block in self.blocks.values() {
            // Taking the lock closes the gap between a waiter's check and its wait.
            drop(block.state.lock());
            block.turned.notify_all();
        }
    }
}
