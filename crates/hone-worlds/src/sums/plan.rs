//! Steps: how they are written, read and followed.

use std::fmt;

/// A sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`, only in the second look at a product.
    Over,
}

impl Op {
    /// The sign of a sum written so; `/` is none, because no sum asks for it.
    pub fn from_char(sign: char) -> Option<Op> {
        match sign {
            '+' => Some(Op::Plus),
            '-' => Some(Op::Minus),
            '*' => Some(Op::Times),
            _ => None,
        }
    }

    /// The result, cut off at the ends of `i64`: an answer may claim any number.
    pub fn apply(self, left: i64, right: i64) -> i64 {
        match self {
            Op::Plus => left.saturating_add(right),
            Op::Minus => left.saturating_sub(right),
            Op::Times => left.saturating_mul(right),
            Op::Over => left.checked_div(right).unwrap_or(0),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Plus => "+",
            Op::Minus => "-",
            Op::Times => "*",
            Op::Over => "/",
        })
    }
}

/// What a step works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// A number of the sum.
    Number(i64),
    /// The result of an earlier step.
    Result(usize),
}

/// What to do, before anything is worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The steps in order; each refers only to earlier ones.
    pub steps: Vec<(Operand, Op, Operand)>,
}

impl Plan {
    /// The right steps.
    pub fn solve(&self) -> Vec<Step> {
        self.follow(|_, step| step)
    }

    /// The steps when each one, once worked out, may be changed, and later ones go on from what was written.
    pub(super) fn follow(&self, mut change: impl FnMut(usize, Step) -> Step) -> Vec<Step> {
        let mut done: Vec<Step> = Vec::with_capacity(self.steps.len());
        for (index, (left, op, right)) in self.steps.iter().enumerate() {
            let value = |operand: &Operand| match operand {
                Operand::Number(number) => *number,
                Operand::Result(at) => done[*at].result,
            };
            let step = change(index, Step::new(value(left), *op, value(right)));
            done.push(step);
        }
        done
    }
}

/// One written step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Left number.
    pub left: i64,
    /// Sign.
    pub op: Op,
    /// Right number.
    pub right: i64,
    /// What it is said to make.
    pub result: i64,
}

impl Step {
    /// The step with its right result.
    pub fn new(left: i64, op: Op, right: i64) -> Self {
        Step { left, op, right, result: op.apply(left, right) }
    }

    /// Whether two steps ask the same, whatever they answer.
    pub fn asks_same(&self, other: &Step) -> bool {
        (self.left, self.op, self.right) == (other.left, other.op, other.right)
    }

    /// `a+b`.
    pub fn ask(&self, base: u32) -> String {
        format!("{}{}{}", digits(self.left, base), self.op, digits(self.right, base))
    }

    /// `a+b=c`.
    pub fn write(&self, base: u32) -> String {
        format!("{}={}", self.ask(base), digits(self.result, base))
    }

    /// The step read from a line, spaces aside; `None` if the line is not a step.
    pub fn parse(line: &str, base: u32) -> Option<Step> {
        let (asked, result) = line.split_once('=')?;
        // The sign stands after at least one digit, so that a minus in front belongs to the number.
        let digit = asked.find(|c: char| c.is_ascii_alphanumeric())?;
        let at = digit + asked[digit..].find(|c| Op::from_char(c).is_some())?;
        let op = Op::from_char(asked[at..].chars().next()?)?;
        Some(Step {
            left: number(&asked[..at], base)?,
            op,
            right: number(&asked[at + 1..], base)?,
            result: number(result, base)?,
        })
    }

    /// The inverse of the step as written, and whether it leads back to the left number.
    pub fn look_again(&self) -> (Step, bool) {
        let inverse = match self.op {
            Op::Plus => Op::Minus,
            Op::Minus => Op::Plus,
            Op::Times => Op::Over,
            Op::Over => Op::Times,
        };
        let back = Step::new(self.result, inverse, self.right);
        // Division cuts off, so the way back alone does not prove a product.
        (back, back.result == self.left && self.op.apply(self.left, self.right) == self.result)
    }
}

/// A number in a base, with lower-case letters above nine.
pub(super) fn digits(number: i64, base: u32) -> String {
    if base == 10 {
        return number.to_string();
    }
    let (mut rest, mut text) = (number.unsigned_abs(), Vec::new());
    loop {
        let digit = (rest % u64::from(base)) as u32;
        text.push(char::from_digit(digit, base).unwrap_or('?'));
        rest /= u64::from(base);
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        text.push('-');
    }
    text.iter().rev().collect()
}

/// The number a text stands for, spaces around it aside.
fn number(text: &str, base: u32) -> Option<i64> {
    let text = text.trim();
    // `from_str_radix` would take a plus in front.
    if text.starts_with('+') { None } else { i64::from_str_radix(text, base).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_signs_and_spaces() {
        let step = |left, op, right, result| Some(Step { left, op, right, result });
        assert_eq!(Step::parse("3-5=-2", 10), step(3, Op::Minus, 5, -2));
        assert_eq!(Step::parse(" -2 + 4 = 2 ", 10), step(-2, Op::Plus, 4, 2));
        assert_eq!(Step::parse("a*2=14", 16), step(10, Op::Times, 2, 20));
        for line in ["3+=5", "3+5", "3+5=", "=", "3+5=8=8", "3/5=1", "3++5=8", "9+1=2x", "+3+1=4", "€+1=2"]
        {
            assert_eq!(Step::parse(line, 10), None, "{line}");
        }
        // 9 is no digit of base 9.
        assert_eq!(Step::parse("9+1=2", 9), None);
    }

    #[test]
    fn numbers_in_a_base() {
        // 21 = 2*9 + 3; 255 = ff; -5 = -101.
        assert_eq!([digits(21, 9), digits(255, 16), digits(-5, 2), digits(0, 7)], ["23", "ff", "-101", "0"]);
    }
}
