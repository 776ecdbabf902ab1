//! Small functions to write: wordings, a reference, inputs, and what comes out.
//!
//! What a function should return is worked out here in Rust, not by the reference program, so the reference is
//! tested like any other answer.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::seed::pick;

/// A Python value, as far as these functions need them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// A string of plain letters.
    Text(String),
    /// A list of whole numbers.
    Ints(Vec<i64>),
}

impl Value {
    /// The value as Python writes it.
    pub fn python(&self) -> String {
        match self {
            Value::Int(value) => value.to_string(),
            Value::Bool(value) => if *value { "True" } else { "False" }.to_string(),
            Value::Text(value) => format!("'{value}'"),
            Value::Ints(values) => {
                format!("[{}]", values.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }

    fn int(&self) -> i64 {
        if let Value::Int(value) = self { *value } else { 0 }
    }

    fn ints(&self) -> &[i64] {
        if let Value::Ints(values) = self { values } else { &[] }
    }

    fn text(&self) -> &str {
        if let Value::Text(value) = self { value } else { "" }
    }
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    Int,
    Ints,
    Text,
}

impl Takes {
    pub(super) fn draw(self, rng: &mut ChaCha8Rng) -> Value {
        match self {
            Takes::Int => Value::Int(rng.random_range(0..=12)),
            Takes::Ints => {
                Value::Ints((0..rng.random_range(2..=3)).map(|_| rng.random_range(0..=12)).collect())
            }
            Takes::Text => {
                Value::Text((0..rng.random_range(3..=5)).map(|_| pick(rng, &['a', 'b', 'c', 'd'])).collect())
            }
        }
    }
}

/// Inputs just over and just under `k`, and a large one; `None` where any will do.
pub(super) fn edge(takes: &[(&str, Takes)], k: i64, edge: usize) -> Vec<Option<Value>> {
    let value = |(at, (_, takes)): (usize, &(&str, Takes))| match (takes, edge) {
        (Takes::Int, 2) => (at == 0).then_some(Value::Int(12)),
        (Takes::Int, _) => Some(Value::Int(if at == edge { k + 1 } else { k - 1 })),
        (Takes::Ints, 0) => Some(Value::Ints(vec![k + 1, k - 1, k + 2])),
        (Takes::Ints, 1) => Some(Value::Ints(vec![k - 1, k + 1])),
        (Takes::Ints | Takes::Text, _) => None,
    };
    takes.iter().enumerate().map(value).collect()
}

type Solve = fn(&[Value], i64, i64) -> Value;

/// One family of functions. `{k}` and `{m}` stand for small numbers drawn per task.
#[derive(Debug)]
pub(super) struct Template {
    pub(super) level: u32,
    pub(super) takes: &'static [(&'static str, Takes)],
    pub(super) wordings: &'static [&'static str],
    pub(super) code: &'static str,
    pub(super) solve: Solve,
}

const X: &[(&str, Takes)] = &[("x", Takes::Int)];
const AB: &[(&str, Takes)] = &[("a", Takes::Int), ("b", Takes::Int)];
const L: &[(&str, Takes)] = &[("a", Takes::Ints)];
const S: &[(&str, Takes)] = &[("s", Takes::Text)];
const SA: &[(&str, Takes)] = &[("s", Takes::Text), ("n", Takes::Int)];

macro_rules! template {
    ($level:literal, $takes:expr, [$($wording:literal),+], $code:literal, $solve:expr) => {
        Template { level: $level, takes: $takes, wordings: &[$($wording),+], code: $code, solve: $solve }
    };
}

/// Every family, easiest first.
pub(super) const TEMPLATES: &[Template] = &[
    template!(1, X, ["add {k} to x", "x plus {k}", "{k} more than x"], "return x + {k}", |v, k, _| {
        Value::Int(v[0].int() + k)
    }),
    template!(1, X, ["take {k} from x", "x minus {k}", "{k} less than x"], "return x - {k}", |v, k, _| {
        Value::Int(v[0].int() - k)
    }),
    template!(1, X, ["x times {k}", "multiply x by {k}", "{k} times x"], "return x * {k}", |v, k, _| {
        Value::Int(v[0].int() * k)
    }),
    template!(
        1,
        X,
        ["x times {k}, plus {m}", "multiply x by {k}, then add {m}", "{m} more than {k} times x"],
        "return x * {k} + {m}",
        |v, k, m| Value::Int(v[0].int() * k + m)
    ),
    template!(
        1,
        AB,
        ["a plus b, times {k}", "add a and b, then multiply by {k}", "{k} times the sum of a and b"],
        "return (a + b) * {k}",
        |v, k, _| { Value::Int((v[0].int() + v[1].int()) * k) }
    ),
    template!(
        1,
        X,
        ["is x over {k}", "tell if x is more than {k}", "true if x is above {k}"],
        "return x > {k}",
        |v, k, _| { Value::Bool(v[0].int() > k) }
    ),
    template!(2, S, ["s {k} times", "repeat s {k} times", "say s {k} times"], "return s * {k}", |v, k, _| {
        Value::Text(v[0].text().repeat(k as usize))
    }),
    template!(
        2,
        SA,
        ["first n letters of s", "s up to n letters", "keep n letters of s"],
        "return s[:n]",
        |v, _, _| { Value::Text(v[0].text().chars().take(v[1].int() as usize).collect()) }
    ),
    template!(
        2,
        S,
        ["length of s plus {k}", "add {k} to the length of s", "{k} more than the letters of s"],
        "return len(s) + {k}",
        |v, k, _| { Value::Int(v[0].text().chars().count() as i64 + k) }
    ),
    template!(
        2,
        L,
        ["sum of a plus {k}", "add {k} to the sum of a", "{k} more than the total of a"],
        "return sum(a) + {k}",
        |v, k, _| { Value::Int(v[0].ints().iter().sum::<i64>() + k) }
    ),
    template!(
        2,
        L,
        ["largest of a minus {k}", "take {k} from the largest of a", "{k} less than the top of a"],
        "return max(a) - {k}",
        |v, k, _| { Value::Int(v[0].ints().iter().copied().max().unwrap_or(0) - k) }
    ),
    template!(
        2,
        L,
        ["drop {k} items of a", "a without the first {k}", "leave out the first {k} of a"],
        "return a[{k}:]",
        |v, k, _| { Value::Ints(v[0].ints().iter().copied().skip(k as usize).collect()) }
    ),
    template!(
        3,
        L,
        ["add up a, then add {k}", "total of a and {k}", "sum a with a loop, start at {k}"],
        "t = {k}\nfor x in a:\n    t += x\nreturn t",
        |v, k, _| Value::Int(v[0].ints().iter().sum::<i64>() + k)
    ),
    template!(
        3,
        L,
        ["count items of a over {k}", "how many of a are over {k}", "number of a above {k}"],
        "t = 0\nfor x in a:\n    if x > {k}:\n        t += 1\nreturn t",
        |v, k, _| Value::Int(v[0].ints().iter().filter(|x| **x > k).count() as i64)
    ),
    template!(
        3,
        L,
        ["keep items of a over {k}", "items of a above {k}", "only those of a over {k}"],
        "return [x for x in a if x > {k}]",
        |v, k, _| Value::Ints(v[0].ints().iter().copied().filter(|x| *x > k).collect())
    ),
    template!(
        3,
        L,
        ["each of a times {k}", "multiply every item of a by {k}", "a with all items times {k}"],
        "return [x * {k} for x in a]",
        |v, k, _| Value::Ints(v[0].ints().iter().map(|x| x * k).collect())
    ),
    template!(
        3,
        AB,
        ["larger of a and b, plus {k}", "add {k} to the larger of a and b", "{k} more than the top of a, b"],
        "if a > b:\n    return a + {k}\nreturn b + {k}",
        |v, k, _| Value::Int(v[0].int().max(v[1].int()) + k)
    ),
    template!(
        4,
        L,
        ["sum of items of a over {k}", "add up those of a over {k}", "total of a above {k}"],
        "t = 0\nfor x in a:\n    if x > {k}:\n        t += x\nreturn t",
        |v, k, _| Value::Int(v[0].ints().iter().filter(|x| **x > k).sum())
    ),
    template!(
        4,
        L,
        [
            "items of a over {k}, times {m}",
            "keep a over {k}, multiply by {m}",
            "those of a above {k}, {m} times"
        ],
        "return [x * {m} for x in a if x > {k}]",
        |v, k, m| Value::Ints(v[0].ints().iter().filter(|x| **x > k).map(|x| x * m).collect())
    ),
    template!(
        4,
        X,
        ["sum of 1 to x, plus {k}", "add up 1 to x and {k}", "{k} more than all up to x"],
        "t = {k}\nwhile x > 0:\n    t += x\n    x -= 1\nreturn t",
        |v, k, _| Value::Int(k + (1..=v[0].int()).sum::<i64>())
    ),
    template!(
        4,
        X,
        ["how often {m} goes into x, plus {k}", "count {m} in x, add {k}", "times {m} fits in x, and {k}"],
        "t = {k}\nwhile x >= {m}:\n    x -= {m}\n    t += 1\nreturn t",
        |v, k, m| Value::Int(k + v[0].int() / m)
    ),
    template!(
        5,
        L,
        ["sum of even items of a over {k}", "add up even a over {k}", "total of a, even and above {k}"],
        "t = 0\nfor x in a:\n    if x > {k} and x % 2 == 0:\n        t += x\nreturn t",
        |v, k, _| Value::Int(v[0].ints().iter().filter(|x| **x > k && **x % 2 == 0).sum())
    ),
    template!(
        5,
        L,
        ["a from the end, each plus {k}", "turn a round and add {k}", "last to first of a, {k} more"],
        "b = []\nfor x in a:\n    b = [x + {k}] + b\nreturn b",
        |v, k, _| Value::Ints(v[0].ints().iter().rev().map(|x| x + k).collect())
    ),
    template!(
        5,
        L,
        ["running sums of a from {k}", "sums of a so far, start at {k}", "add up a step by step from {k}"],
        "t = {k}\nb = []\nfor x in a:\n    t += x\n    b = b + [t]\nreturn b",
        |v, k, _| {
            let mut total = k;
            Value::Ints(
                v[0].ints()
                    .iter()
                    .map(|x| {
                        total += x;
                        total
                    })
                    .collect(),
            )
        }
    ),
    template!(
        5,
        L,
        ["even items of a, plus {k}", "count even a, add {k}", "how many of a are even, and {k}"],
        "t = {k}\nfor x in a:\n    if x % 2 == 0:\n        t += 1\nreturn t",
        |v, k, _| Value::Int(k + v[0].ints().iter().filter(|x| **x % 2 == 0).count() as i64)
    ),
];
