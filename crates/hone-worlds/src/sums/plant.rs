//! Spoiling a right answer, so that its first error has a known kind and place.
//!
//! Nothing here asks the checker: what is planted is wrong by construction, and the property tests compare.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::plan::{Op, Step};
use super::{KINDS, Sum};
use crate::seed::pick;

/// The spoilt answer and the index of its first wrong step.
pub(super) fn plant(sum: &Sum, kind: &'static str, rng: &mut ChaCha8Rng) -> (String, usize) {
    debug_assert!(KINDS.contains(&kind));
    let index = rng.random_range(0..sum.steps.len());
    match kind {
        "calculation" => (sum.write(&calculation(sum, index, rng)), index),
        "copy" => (sum.write(&copy(sum, index, rng)), index),
        "missing" => {
            // Of equal steps one after the other, the last is the one that a reader misses.
            let alike = sum.steps[index..].windows(2).take_while(|two| two[1].asks_same(&two[0])).count();
            (sum.write(&without(&sum.steps, index)), index + alike)
        }
        "extra" => extra(sum, rng),
        _ => (format_error(sum, index, rng), index),
    }
}

/// A wrong result at `index`; later steps go on from it without further error.
fn calculation(sum: &Sum, index: usize, rng: &mut ChaCha8Rng) -> Vec<Step> {
    let base = i64::from(sum.base);
    let off = pick(rng, &[-base, -2, -1, 1, 2, base]);
    sum.plan.follow(|at, step| {
        if at != index {
            return step;
        }
        // A small result cannot lose ten without changing its sign, which would be too easy to see.
        let result =
            if step.result >= 0 && step.result + off < 0 { step.result - off } else { step.result + off };
        Step { result, ..step }
    })
}

/// A wrong number or sign at `index`, worked out without further error.
fn copy(sum: &Sum, index: usize, rng: &mut ChaCha8Rng) -> Vec<Step> {
    let right = sum.steps[index];
    for _ in 0..32 {
        let changed = match rng.random_range(0..3) {
            0 => Step::new(right.left + pick(rng, &[-1, 1, 2, 10]), right.op, right.right),
            1 => Step::new(right.left, right.op, right.right + pick(rng, &[-1, 1, 2, 10])),
            _ => Step::new(right.left, if right.op == Op::Plus { Op::Minus } else { Op::Plus }, right.right),
        };
        let readable = changed.left >= 0 && changed.right >= 1 && changed.result >= 0;
        let steps = replaced(sum, index, changed);
        if readable && only_a_copy(sum, index, &steps) {
            return steps;
        }
    }
    // Adding a large number to the right one always differs from every step of the sum.
    replaced(sum, index, Step::new(right.left, right.op, right.right + 1_000_003))
}

fn replaced(sum: &Sum, index: usize, changed: Step) -> Vec<Step> {
    sum.plan.follow(|at, step| if at == index { changed } else { step })
}

/// Whether the change looks like neither a step left out nor one put in.
fn only_a_copy(sum: &Sum, index: usize, steps: &[Step]) -> bool {
    let next_right = sum.steps.get(index + 1);
    let next_written = steps.get(index + 1);
    !next_right.is_some_and(|step| step.asks_same(&steps[index]))
        && !next_written.is_some_and(|step| step.asks_same(&sum.steps[index]))
}

fn without(steps: &[Step], index: usize) -> Vec<Step> {
    let mut steps = steps.to_vec();
    steps.remove(index);
    steps
}

/// A step that the sum does not have, at the end or in front of a right one.
fn extra(sum: &Sum, rng: &mut ChaCha8Rng) -> (String, usize) {
    let index = rng.random_range(0..=sum.steps.len());
    let before = match index.checked_sub(1) {
        Some(last) => sum.steps[last].result,
        None => sum.steps[0].left,
    };
    let mut by = rng.random_range(1..=9);
    let taken = |by: i64| {
        let added = Step::new(before, Op::Plus, by);
        sum.steps.iter().any(|step| step.asks_same(&added))
    };
    while taken(by) {
        by += 1;
    }
    let mut steps = sum.steps.clone();
    steps.insert(index, Step::new(before, Op::Plus, by));
    (sum.write(&steps), index)
}

/// A line that is no step.
fn format_error(sum: &Sum, index: usize, rng: &mut ChaCha8Rng) -> String {
    let mut lines: Vec<String> = sum.steps.iter().map(|step| step.write(sum.base)).collect();
    let line = &lines[index];
    let asked = line.split_once('=').map_or(line.as_str(), |(asked, _)| asked);
    lines[index] = match rng.random_range(0..3) {
        0 => asked.to_string(),
        1 => format!("{asked}="),
        _ => line.replace('=', " is "),
    };
    lines.join("\n")
}
