//! What goes into a step: a seeded order of items for every epoch, and parts of bounded size that a step is cut into.
//!
//! An item is a group of sequences that a loss needs together: one answer, a pair, a list. Nothing here depends on the
//! number of threads, so a run repeats on machines with more or fewer of them.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::train::seed;

/// How far a run has come through its data; stored in checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Epochs finished.
    pub epoch: u64,
    /// Items taken in this one.
    pub item: usize,
}

/// A new order of `items` items for every epoch, from one seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    items: usize,
    seed: u64,
    cached: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// # Errors
    /// [`Error::Argument`] if there is no item.
    pub fn new(items: usize, seed: u64) -> Result<Order> {
        if items == 0 {
            return Err(Error::argument("items", "at least 1", 0));
        }
        Ok(Order { items, seed, cached: None })
    }

    /// Items per epoch.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The order of one epoch, `[items]`.
    pub fn epoch(&mut self, epoch: u64) -> &[usize] {
        if self.cached.as_ref().is_none_or(|(cached, _)| *cached != epoch) {
            let mut order: Vec<usize> = (0..self.items).collect();
            seed::shuffle(&mut order, &mut seed::rng(self.seed, &format!("epoch {epoch}")));
            self.cached = Some((epoch, order));
        }
        self.cached.as_ref().map_or(&[], |(_, order)| order)
    }

    /// The next `count` items; fewer at the end of an epoch, which a step never crosses. Moves `position` on.
    pub fn take(&mut self, position: &mut Position, count: usize) -> Vec<usize> {
        self.take_while(position, |taken, _| taken < count.max(1))
    }

    /// The next items while they hold at most `max_tokens` tokens together, and at least one; `tokens[i]` is the size
    /// of item `i`. Stops at the end of an epoch. Moves `position` on.
    pub fn take_tokens(
        &mut self,
        position: &mut Position,
        tokens: &[usize],
        max_tokens: usize,
    ) -> Vec<usize> {
        let mut sum = 0;
        self.take_while(position, |taken, item| {
            sum += tokens.get(item).copied().unwrap_or(0);
            taken == 0 || sum <= max_tokens
        })
    }

    fn take_while(
        &mut self,
        position: &mut Position,
        mut wanted: impl FnMut(usize, usize) -> bool,
    ) -> Vec<usize> {
        let order = self.epoch(position.epoch);
        let left = order.get(position.item..).unwrap_or_default().iter().copied();
        let mut taken = vec![];
        for item in left {
            if !wanted(taken.len(), item) {
                break;
            }
            taken.push(item);
        }
        position.item += taken.len();
        if position.item >= self.items {
            *position = Position { epoch: position.epoch + 1, item: 0 };
        }
        taken
    }
}

/// Cuts a step into parts of at most `max_tokens` tokens, nearly equal in size; an item that is longer gets a part of
/// its own. `tokens[i]` is the size of item `i` of the step.
///
/// There are as few parts as fit, but a multiple of `lanes` where there are items enough, so that so many threads
/// finish together. Parts come longest first, which is the order in which their gradients should be handed out;
/// within a part, items keep the order of the step.
///
/// # Errors
/// [`Error::Argument`] if `max_tokens` or `lanes` is 0.
pub fn parts(tokens: &[usize], max_tokens: usize, lanes: usize) -> Result<Vec<Vec<usize>>> {
    if max_tokens == 0 {
        return Err(Error::argument("max_tokens", "at least 1", 0));
    }
    if lanes == 0 {
        return Err(Error::argument("lanes", "at least 1", 0));
    }
    let mut by_size: Vec<usize> = (0..tokens.len()).collect();
    // Stable, so that equal sizes keep the order of the step.
    by_size.sort_by_key(|&item| std::cmp::Reverse(tokens[item]));
    let long = by_size.partition_point(|&item| tokens[item] > max_tokens);
    let (alone, by_size) = by_size.split_at(long);
    let mut parts: Vec<Vec<usize>> = alone.iter().map(|&item| vec![item]).collect();
    let total: usize = by_size.iter().map(|&item| tokens[item]).sum();
    let mut count = total.div_ceil(max_tokens).max(1).next_multiple_of(lanes).min(by_size.len());
    loop {
        // Longest first, each to the part that is least full: never more than 4/3 of the best balance.
        let mut filled = vec![(0usize, vec![]); count];
        for &item in by_size {
            let Some((sum, part)) = filled.iter_mut().min_by_key(|(sum, _)| *sum) else { break };
            *sum += tokens[item];
            part.push(item);
        }
        // Holds at the latest with as many parts as items.
        if filled.iter().all(|(sum, _)| *sum <= max_tokens) {
            filled.sort_by_key(|(sum, _)| std::cmp::Reverse(*sum));
            parts.extend(filled.into_iter().map(|(_, part)| part).filter(|part| !part.is_empty()));
            parts.iter_mut().for_each(|part| part.sort_unstable());
            return Ok(parts);
        }
        count = (count + 1).next_multiple_of(lanes).min(by_size.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_takes_each_item_once_in_another_order() {
        let mut order = Order::new(100, 7).unwrap();
        let mut position = Position::default();
        let mut epochs = vec![vec![], vec![]];
        while position.epoch < 2 {
            let epoch = position.epoch as usize;
            epochs[epoch].extend(order.take(&mut position, 8));
        }
        assert_ne!(epochs[0], epochs[1]);
        for epoch in &mut epochs {
            epoch.sort_unstable();
            assert_eq!(*epoch, (0..100).collect::<Vec<_>>());
        }
        assert_ne!(Order::new(100, 8).unwrap().epoch(0), Order::new(100, 7).unwrap().epoch(0));
    }

    #[test]
    fn a_stored_position_goes_on_where_it_was() {
        let mut order = Order::new(50, 1).unwrap();
        let mut position = Position::default();
        let mut all = vec![];
        for _ in 0..20 {
            all.push(order.take(&mut position, 7));
        }
        let mut position = Position::default();
        for _ in 0..11 {
            order.take(&mut position, 7);
        }
        let stored = serde_json::to_string(&position).unwrap();
        let mut position = serde_json::from_str(&stored).unwrap();
        let mut order = Order::new(50, 1).unwrap();
        for step in &all[11..] {
            assert_eq!(order.take(&mut position, 7), *step);
        }
    }

    #[test]
    fn a_step_by_tokens_stays_within_them() {
        let tokens: Vec<usize> = (0..40).map(|i| 5 + i % 11).collect();
        let mut order = Order::new(40, 2).unwrap();
        let (mut position, mut seen) = (Position::default(), 0);
        while position.epoch == 0 {
            let step = order.take_tokens(&mut position, &tokens, 30);
            assert!(step.iter().map(|&item| tokens[item]).sum::<usize>() <= 30);
            seen += step.len();
        }
        assert_eq!(seen, 40);
        // An item above the bound is taken alone, not skipped for ever.
        let mut position = Position::default();
        assert_eq!(Order::new(3, 0).unwrap().take_tokens(&mut position, &[9, 9, 9], 4).len(), 1);
    }

    #[test]
    fn parts_are_within_the_bound_and_balanced() {
        // Longest first to the emptier part: 9 | 8, 8 + 7, 9 + 5, 14 + 3.
        assert_eq!(parts(&[3, 9, 5, 7, 8], 17, 2).unwrap(), [vec![0, 1, 2], vec![3, 4]]);
        // 17 is too much for a bound of 16, so there are two parts more.
        assert_eq!(parts(&[3, 9, 5, 7, 8], 16, 2).unwrap(), [vec![1], vec![4], vec![0, 2], vec![3]]);
        // All would fit one part of 100; two lanes want two.
        assert_eq!(parts(&[10, 10, 10, 10], 100, 2).unwrap(), [vec![0, 2], vec![1, 3]]);
        // Three items above a half of 10 need a part each, though the sum fits two: 4 with two lanes, 3 items though.
        assert_eq!(parts(&[6, 6, 6], 10, 2).unwrap(), [vec![0], vec![1], vec![2]]);
        // Too long for any part: alone, and first.
        assert_eq!(parts(&[2, 50, 2], 10, 1).unwrap(), [vec![1], vec![0, 2]]);
        assert_eq!(parts(&[], 10, 2).unwrap(), Vec::<Vec<usize>>::new());
        assert!(parts(&[1], 0, 1).is_err());
    }

    #[test]
    fn parts_hold_every_item_once() {
        let tokens: Vec<usize> = (0..97).map(|i| 1 + (i * 37) % 61).collect();
        let parts = parts(&tokens, 256, 2).unwrap();
        let sums: Vec<usize> = parts.iter().map(|part| part.iter().map(|&i| tokens[i]).sum()).collect();
        assert!(sums.iter().all(|&sum| sum <= 256) && sums.is_sorted_by(|a, b| a >= b), "{sums:?}");
        assert!(sums[0] - sums[sums.len() - 1] <= 8, "{sums:?}");
        let mut items = parts.concat();
        items.sort_unstable();
        assert_eq!(items, (0..97).collect::<Vec<_>>());
    }
}
