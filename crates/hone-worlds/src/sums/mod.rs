//! Arithmetic in written steps.
//!
//! A chain of `+`, `−` and `×` is worked out from left to right, one step per line, or two numbers of `k` digits
//! are multiplied by partial products. Numbers may be written in another base. The oracle follows the plan of the
//! sum step by step, so it knows the first wrong step, the kind of error, and what would have been right.
//!
//! ```text
//! sum (7+5)*2-3
//! 7+5=12
//! 12*2=24
//! 24-3=21
//! ```
//!
//! # Kinds of error
//! - `calculation`: the right numbers, the wrong result;
//! - `copy`: a number or a sign that is not the sum's or not the last result's;
//! - `missing`: a step left out, in the middle or at the end;
//! - `extra`: a step that the sum does not ask for;
//! - `format`: a line that is not `a+b=c`.
//!
//! # Departs from textbook sums
//! Only as many parentheses are written as the left-to-right order needs, and results never fall below zero unless
//! the settings allow it: both keep the texts short.

mod plan;
mod plant;

use std::ops::RangeInclusive;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::seed::{pick, rng};
use crate::world::{ALL_RIGHT, Check, Detail, Flaw, Place, Planted, Task, World, expect_kind, expect_level};

pub use plan::{Op, Operand, Plan, Step};

/// Kinds of error in a sum, in the order of the module's documentation.
pub const KINDS: &[&str] = &["calculation", "copy", "missing", "extra", "format"];

/// What sums are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Fewest operations in a chain, at least 1.
    pub min_steps: usize,
    /// Most operations in a chain, at most 12.
    pub max_steps: usize,
    /// Signs a chain draws from: any of `+`, `-`, `*`.
    pub signs: String,
    /// Smallest number, at least 1.
    pub low: i64,
    /// Largest number, at most 1,000,000.
    pub high: i64,
    /// Largest factor of a `*` in a chain, at least 2.
    pub factor: i64,
    /// Largest result of a chain's steps, where a smaller sign or number can keep to it; at least `high`.
    pub most: i64,
    /// Base in which numbers are written, 2 to 16.
    pub base: u32,
    /// Digits of each factor of a product, 1 to 6; 0 asks for chains instead.
    pub digits: u32,
    /// Whether results may fall below zero.
    pub negative: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            min_steps: 2,
            max_steps: 3,
            signs: "+-".to_string(),
            low: 1,
            high: 20,
            factor: 5,
            most: 10_000_000,
            base: 10,
            digits: 0,
            negative: false,
        }
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let wrong = |setting, needed: &str, got: String| Err(Error::setting("sums", setting, needed, got));
        if self.min_steps < 1 || self.min_steps > self.max_steps {
            return wrong("min_steps", "1 to max_steps", self.min_steps.to_string());
        }
        if self.max_steps > 12 {
            return wrong("max_steps", "at most 12", self.max_steps.to_string());
        }
        if self.signs.is_empty() || !self.signs.chars().all(|sign| Op::from_char(sign).is_some()) {
            return wrong("signs", "one or more of + - *", format!("`{}`", self.signs));
        }
        if self.low < 1 || self.low > self.high {
            return wrong("low", "1 to high", self.low.to_string());
        }
        if self.high > 1_000_000 {
            return wrong("high", "at most 1000000", self.high.to_string());
        }
        if self.signs.chars().all(|sign| sign == '-') && !self.negative && self.max_steps > 1 {
            return wrong("signs", "a + or * beside -, or negative = true", self.signs.clone());
        }
        if !(2..=100).contains(&self.factor) {
            return wrong("factor", "2 to 100", self.factor.to_string());
        }
        if !(self.high..=10_000_000).contains(&self.most) {
            return wrong("most", "high to 10000000", self.most.to_string());
        }
        if !(2..=16).contains(&self.base) {
            return wrong("base", "2 to 16", self.base.to_string());
        }
        if self.digits > 6 {
            return wrong("digits", "1 to 6, or 0 for chains", self.digits.to_string());
        }
        Ok(())
    }
}

/// The world of sums: one row of settings per level.
#[derive(Debug, Clone)]
pub struct Sums {
    levels: Vec<Settings>,
}

impl Default for Sums {
    fn default() -> Self {
        let chain = |min_steps, max_steps, signs: &str, high| Settings {
            min_steps,
            max_steps,
            signs: signs.to_string(),
            high,
            ..Settings::default()
        };
        let product = |digits| Settings { digits, ..Settings::default() };
        Sums {
            levels: vec![
                chain(1, 2, "+-", 9),
                chain(2, 3, "+-", 20),
                Settings { most: 99, ..chain(2, 3, "+-*", 20) },
                Settings { most: 99, ..chain(3, 4, "+-*", 20) },
                Settings { base: 9, ..chain(2, 3, "+-", 20) },
                product(2),
                product(3),
            ],
        }
    }
}

impl Sums {
    /// A world with these settings as its levels 1, 2, …
    /// # Errors
    /// [`Error::Setting`] names the first setting no sum can be made from.
    pub fn new(levels: Vec<Settings>) -> Result<Self> {
        if levels.is_empty() {
            return Err(Error::setting("sums", "levels", "at least 1", 0));
        }
        levels.iter().try_for_each(Settings::validate)?;
        Ok(Sums { levels })
    }

    /// The sum of this level and seed.
    /// # Errors
    /// [`Error::Setting`] if there is no such level.
    pub fn sum(&self, level: u32, seed: u64) -> Result<Sum> {
        let settings = &self.levels[expect_level(self, level)? as usize - 1];
        let mut rng = rng(seed, &format!("sums/{level}"));
        let (plan, text) =
            if settings.digits > 0 { product(settings, &mut rng) } else { chain(settings, &mut rng) };
        Ok(Sum { steps: plan.solve(), plan, text, base: settings.base })
    }
}

/// A chain; drawn again while a result falls below zero or grows past what a short line holds.
fn chain(settings: &Settings, rng: &mut ChaCha8Rng) -> (Plan, String) {
    let signs: Vec<Op> = settings.signs.chars().filter_map(Op::from_char).collect();
    let count = rng.random_range(settings.min_steps..=settings.max_steps);
    let first = rng.random_range(settings.low..=settings.high);
    let (mut value, mut text) = (first, plan::digits(first, settings.base));
    let mut steps: Vec<(Operand, Op, Operand)> = Vec::with_capacity(count);
    while steps.len() < count {
        let mut op = pick(rng, &signs);
        // A step that could leave the range of results becomes one that cannot.
        if op == Op::Times && value.saturating_mul(settings.factor).abs() > settings.most {
            op = Op::Plus;
        }
        let minus = signs.contains(&Op::Minus) && (settings.negative || value >= settings.low);
        if op == Op::Plus && value + settings.high > settings.most && minus {
            op = Op::Minus;
        }
        if op == Op::Minus && !settings.negative && value < settings.low {
            op = Op::Plus;
        }
        let right = match op {
            Op::Plus => rng.random_range(settings.low..=settings.high),
            Op::Minus if settings.negative => rng.random_range(settings.low..=settings.high),
            Op::Minus => rng.random_range(settings.low..=settings.high.min(value)),
            Op::Times | Op::Over => rng.random_range(2..=settings.factor),
        };
        let weaker = steps.last().is_some_and(|step| step.1 != Op::Times);
        if op == Op::Times && weaker {
            text = format!("({text})");
        }
        text = format!("{text}{op}{}", plan::digits(right, settings.base));
        let left = if steps.is_empty() { Operand::Number(first) } else { Operand::Result(steps.len() - 1) };
        steps.push((left, op, Operand::Number(right)));
        value = op.apply(value, right);
    }
    (Plan { steps }, text)
}

/// A product by partial products, lowest digit first, then their running sum.
fn product(settings: &Settings, rng: &mut ChaCha8Rng) -> (Plan, String) {
    let base = i64::from(settings.base);
    // No zero digits: a partial product of nothing would be a step without work.
    let mut draw =
        || (0..settings.digits).fold(0, |number, _| number * base + rng.random_range(1..base.max(2)));
    let (first, second) = (draw(), draw());
    let mut steps = Vec::new();
    let (mut rest, mut unit) = (second, 1);
    while rest > 0 {
        steps.push((Operand::Number(first), Op::Times, Operand::Number(rest % base * unit)));
        rest /= base;
        unit *= base;
    }
    let partials = steps.len();
    for next in 1..partials {
        let left = if next == 1 { 0 } else { steps.len() - 1 };
        steps.push((Operand::Result(left), Op::Plus, Operand::Result(next)));
    }
    let text = format!("{}*{}", plan::digits(first, settings.base), plan::digits(second, settings.base));
    (Plan { steps }, text)
}

impl World for Sums {
    fn id(&self) -> &'static str {
        "sums"
    }

    fn about(&self) -> &'static str {
        "Arithmetic in written steps, one per line. An answer is right if every step is the next one of the sum and \
         its result is right."
    }

    fn instructions(&self) -> &'static str {
        "Work out the sum step by step, innermost and leftmost first. Write one step per line as a+b=c, with no \
         spaces and nothing else. For a product of long numbers, first multiply the left number by each digit of \
         the right one at its place value, lowest first, then add these up from first to last. If a base is named, \
         write every number in that base."
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=self.levels.len() as u32
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn task(&self, level: u32, seed: u64) -> Result<Box<dyn Task>> {
        Ok(Box::new(self.sum(level, seed)?))
    }
}

/// One sum with its plan and its right steps.
#[derive(Debug, Clone)]
pub struct Sum {
    plan: Plan,
    steps: Vec<Step>,
    text: String,
    base: u32,
}

impl Sum {
    /// The right steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The end result.
    pub fn result(&self) -> i64 {
        self.steps.last().map_or(0, |step| step.result)
    }

    /// Index of the first wrong step, or `None` if the answer is right.
    pub fn first_wrong(&self, answer: &str) -> Option<usize> {
        match self.judge(answer).first()?.place {
            Place::Step(index) => Some(index),
            _ => None,
        }
    }

    /// One label per written step, up to and including the first wrong one.
    pub fn step_labels(&self, answer: &str) -> Vec<bool> {
        let written = lines(answer).count();
        match self.first_wrong(answer) {
            None => vec![true; written],
            Some(wrong) => (0..written.min(wrong + 1)).map(|index| index != wrong).collect(),
        }
    }

    /// A critique that looks at every step a second way, by the inverse operation, up to the first wrong one.
    ///
    /// The last line is what [`Task::explain`] says with [`Detail::Correction`].
    pub fn deliberate(&self, answer: &str) -> String {
        let wrong = self.first_wrong(answer);
        let mut said: Vec<String> = Vec::new();
        for (index, line) in lines(answer).enumerate().take(wrong.map_or(usize::MAX, |wrong| wrong + 1)) {
            let Some(step) = Step::parse(line, self.base) else { break };
            let (back, holds) = step.look_again();
            let back = back.write(self.base);
            said.push(match (holds, wrong == Some(index)) {
                (true, _) => format!("step {}: {back}, fits", index + 1),
                (false, _) => format!("step {}: {back}, no", index + 1),
            });
        }
        let judged = self.judge(answer);
        said.push(
            judged.first().map_or_else(|| ALL_RIGHT.to_string(), |flaw| flaw.words(Detail::Correction)),
        );
        said.join("\n")
    }

    fn judge(&self, answer: &str) -> Check {
        let written: Vec<_> = lines(answer).map(|line| (line, Step::parse(line, self.base))).collect();
        let Some(flaw) = self.first_flaw(&written) else { return Check::all_right() };
        let right_steps = match flaw.place {
            Place::Step(index) => index as f64,
            _ => 0.0,
        };
        let last = written.last().and_then(|(_, step)| step.as_ref());
        Check {
            right: false,
            score: right_steps / (self.steps.len().max(written.len()) + 1) as f64,
            well_formed: !written.is_empty() && written.iter().all(|(_, step)| step.is_some()),
            result_right: last.is_some_and(|step| step.result == self.result()),
            flaws: vec![flaw],
        }
    }

    fn write(&self, steps: &[Step]) -> String {
        steps.iter().map(|step| step.write(self.base)).collect::<Vec<_>>().join("\n")
    }

    fn flaw(&self, kind: &'static str, index: usize, reason: String) -> Flaw {
        let correction = match self.steps.get(index) {
            Some(step) => step.write(self.base),
            None => "no more steps".to_string(),
        };
        Flaw { kind, place: Place::Step(index), name: String::new(), reason, correction }
    }

    /// The first flaw. The plan's operands are those of the right steps, because all earlier steps were right.
    fn first_flaw(&self, written: &[(&str, Option<Step>)]) -> Option<Flaw> {
        for (index, right) in self.steps.iter().enumerate() {
            let Some((line, step)) = written.get(index) else {
                return Some(self.flaw("missing", index, "the sum goes on".to_string()));
            };
            let Some(step) = step else {
                return Some(self.flaw("format", index, format!("`{line}` is not a step")));
            };
            if step.asks_same(right) {
                if step.result == right.result {
                    continue;
                }
                let asked = step.ask(self.base);
                let reason = format!("{asked} is not {}", plan::digits(step.result, self.base));
                return Some(self.flaw("calculation", index, reason));
            }
            let asked = step.ask(self.base);
            let is_next = |other: Option<&Step>, of: &Step| other.is_some_and(|other| other.asks_same(of));
            if is_next(self.steps.get(index + 1), step) {
                return Some(self.flaw("missing", index, format!("{asked} comes later")));
            }
            if is_next(written.get(index + 1).and_then(|(_, step)| step.as_ref()), right) {
                let mut flaw = self.flaw("extra", index, format!("{asked} is not in the sum"));
                flaw.correction = "nothing here".to_string();
                return Some(flaw);
            }
            return Some(self.flaw("copy", index, format!("{asked} is not next")));
        }
        let (line, _) = written.get(self.steps.len())?;
        Some(self.flaw("extra", self.steps.len(), format!("{line} is not in the sum")))
    }
}

/// The lines that hold something, trimmed.
fn lines(answer: &str) -> impl Iterator<Item = &str> {
    answer.lines().map(str::trim).filter(|line| !line.is_empty())
}

impl Task for Sum {
    fn prompt(&self) -> String {
        match self.base {
            10 => format!("sum {}", self.text),
            base => format!("sum in base {base}: {}", self.text),
        }
    }

    fn reference(&self) -> String {
        self.write(&self.steps)
    }

    fn check(&self, answer: &str) -> Result<Check> {
        Ok(self.judge(answer))
    }

    fn plantable(&self) -> Vec<&'static str> {
        // Leaving out the only step would leave no answer to criticise.
        KINDS.iter().copied().filter(|kind| *kind != "missing" || self.steps.len() > 1).collect()
    }

    fn plant(&self, kind: &str, rng: &mut ChaCha8Rng) -> Result<Planted> {
        let kind = expect_kind("sums", &self.plantable(), kind)?;
        let (answer, index) = plant::plant(self, kind, rng);
        Ok(Planted { answer, kind, place: Place::Step(index) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seven_plus_five() -> Sum {
        let number = Operand::Number;
        let plan = Plan {
            steps: vec![
                (number(7), Op::Plus, number(5)),
                (Operand::Result(0), Op::Times, number(2)),
                (Operand::Result(1), Op::Minus, number(3)),
            ],
        };
        Sum { steps: plan.solve(), plan, text: "(7+5)*2-3".to_string(), base: 10 }
    }

    fn said(answer: &str) -> String {
        seven_plus_five().explain(answer, Detail::Correction).unwrap()
    }

    #[test]
    fn every_kind_is_told_apart() {
        // (7+5)*2-3: 12, 24, 21.
        assert_eq!(seven_plus_five().reference(), "7+5=12\n12*2=24\n24-3=21");
        assert_eq!(said("7+5=12\n12*2=24\n24-3=21"), "all right");
        assert_eq!(said("7+5=12\n12*2=26\n26-3=23"), "step 2: calculation, 12*2 is not 26, use 12*2=24");
        assert_eq!(said("7+5=12\n12*3=36\n36-3=33"), "step 2: copy, 12*3 is not next, use 12*2=24");
        assert_eq!(said("7+5=12\n24-3=21"), "step 2: missing, 24-3 comes later, use 12*2=24");
        assert_eq!(said("7+5=12\n12*2=24"), "step 3: missing, the sum goes on, use 24-3=21");
        assert_eq!(
            said("7+5=12\n12+1=13\n12*2=24\n24-3=21"),
            "step 2: extra, 12+1 is not in the sum, use nothing here"
        );
        assert_eq!(
            said("7+5=12\n12*2=24\n24-3=21\n21+1=22"),
            "step 4: extra, 21+1=22 is not in the sum, use no more steps"
        );
        assert_eq!(said("7+5=12\nhello"), "step 2: format, `hello` is not a step, use 12*2=24");
        assert_eq!(said(""), "step 1: missing, the sum goes on, use 7+5=12");
    }

    #[test]
    fn each_level_of_detail_tells_more() {
        let sum = seven_plus_five();
        let told: Vec<String> = Detail::ALL.map(|detail| sum.explain("7+5=13", detail).unwrap()).to_vec();
        assert_eq!(
            told,
            [
                "wrong",
                "step 1 is wrong",
                "step 1: calculation",
                "step 1: calculation, 7+5 is not 13",
                "step 1: calculation, 7+5 is not 13, use 7+5=12"
            ]
        );
    }

    #[test]
    fn result_may_be_right_by_a_wrong_way() {
        // 12*2=25 is wrong, 25-3=21 is wrong too, and the result is right.
        let check = seven_plus_five().judge("7+5=12\n12*2=25\n25-3=21");
        assert!(!check.right && check.result_right && check.well_formed);
        // One right step of three, out of 3 + 1.
        assert_eq!(check.score, 0.25);
        assert_eq!(seven_plus_five().step_labels("7+5=12\n12*2=25\n25-3=21"), [true, false]);
    }

    #[test]
    fn deliberation_uses_the_inverse() {
        assert_eq!(
            seven_plus_five().deliberate("7+5=12\n12*2=26\n26-3=23"),
            "step 1: 12-5=7, fits\nstep 2: 26/2=13, no\nstep 2: calculation, 12*2 is not 26, use 12*2=24"
        );
    }

    #[test]
    fn products_go_by_partial_products() {
        let world = Sums::new(vec![Settings { digits: 2, ..Settings::default() }]).unwrap();
        for seed in 0..200 {
            let sum = world.sum(1, seed).unwrap();
            let (left, right) = sum.text.split_once('*').unwrap();
            assert_eq!(sum.result(), left.parse::<i64>().unwrap() * right.parse::<i64>().unwrap());
            assert_eq!(sum.steps.len(), 3);
        }
    }

    #[test]
    fn chains_in_a_base_agree_with_decimal() {
        let world =
            Sums::new(vec![Settings { base: 16, signs: "+-*".into(), ..Settings::default() }]).unwrap();
        for seed in 0..200 {
            let sum = world.sum(1, seed).unwrap();
            // Every written number reads back as the number it stands for.
            for (line, step) in lines(&sum.reference()).zip(&sum.steps) {
                assert_eq!(Step::parse(line, 16), Some(*step));
            }
            assert!(sum.steps.iter().all(|step| step.result >= 0));
        }
    }

    #[test]
    fn the_middle_keeps_to_two_digits() {
        for seed in 0..500 {
            let sum = Sums::default().sum(4, seed).unwrap();
            assert!(sum.steps.iter().all(|step| (0..=99).contains(&step.result)), "{}", sum.text);
            assert!((3..=4).contains(&sum.steps.len()));
        }
    }

    #[test]
    fn impossible_settings_say_what_is_allowed() {
        let refused = |settings| Sums::new(vec![settings]).unwrap_err().to_string();
        assert_eq!(
            refused(Settings { base: 40, ..Settings::default() }),
            "world sums: setting base: needs 2 to 16, got 40"
        );
        assert_eq!(
            refused(Settings { signs: "+/".into(), ..Settings::default() }),
            "world sums: setting signs: needs one or more of + - *, got `+/`"
        );
        assert_eq!(
            Sums::default().sum(99, 1).unwrap_err().to_string(),
            "world sums: setting level: needs 1 to 7, got 99"
        );
    }
}
