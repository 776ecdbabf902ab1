//! The value of a written expression: what graders need to tell that two answers are the same number.

/// The value of arithmetic as people and programs write it: `+ - * / ^ **`, parentheses, a product left unwritten
/// (`2 pi`, `3(4+1)`), `!`, the usual functions, `pi`, `e`, and the names that `variable` knows. `None` for anything else,
/// and for what has no finite real value.
pub fn value(text: &str, variable: &dyn Fn(&str) -> Option<f64>) -> Option<f64> {
    let mut reader = Reader { rest: text.trim(), variable, depth: 0 };
    let value = reader.sum()?;
    (reader.rest.trim().is_empty() && value.is_finite()).then_some(value)
}

/// As [`value`], without variables.
pub fn number(text: &str) -> Option<f64> {
    value(text, &|_| None)
}

/// Deepest nesting that is read; more is no answer to anything.
const DEPTH: usize = 64;

struct Reader<'a> {
    rest: &'a str,
    variable: &'a dyn Fn(&str) -> Option<f64>,
    depth: usize,
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start();
        let taken = rest.strip_prefix(word);
        self.rest = taken.unwrap_or(rest);
        taken.is_some()
    }

    fn sum(&mut self) -> Option<f64> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                self.depth -= 1;
                return Some(value);
            }
        }
    }

    fn product(&mut self) -> Option<f64> {
        let mut value = self.signed()?;
        loop {
            let rest = self.rest.trim_start();
            if rest.starts_with("**") {
                return None;
            } else if self.take("*") {
                value *= self.signed()?;
            } else if self.take("/") {
                value /= self.signed()?;
            } else if rest.starts_with(|c: char| c.is_alphanumeric() || c == '(' || c == '.') {
                value *= self.power()?;
            } else {
                return Some(value);
            }
        }
    }

    fn signed(&mut self) -> Option<f64> {
        let mut sign = 1.0;
        loop {
            if self.take("-") {
                sign = -sign;
            } else if !self.take("+") {
                // A power binds more tightly than its sign: -2^2 = -4.
                return Some(sign * self.power()?);
            }
        }
    }

    fn power(&mut self) -> Option<f64> {
        let base = self.atom()?;
        if self.take("**") || self.take("^") {
            self.depth += 1;
            let exponent = if self.depth > DEPTH { None } else { self.signed() };
            self.depth -= 1;
            return Some(root_of(base, exponent?));
        }
        Some(base)
    }

    fn atom(&mut self) -> Option<f64> {
        let mut value = if self.take("(") {
            let value = self.sum()?;
            self.take(")").then_some(value)?
        } else {
            let rest = self.rest.trim_start();
            let first = rest.chars().next()?;
            if first.is_ascii_digit() || first == '.' { self.digits()? } else { self.name()? }
        };
        while self.take("!") {
            let whole = value.fract() == 0.0 && (0.0..=170.0).contains(&value);
            value = whole.then(|| (1..=value as u64).map(|i| i as f64).product())?;
        }
        Some(value)
    }

    fn digits(&mut self) -> Option<f64> {
        let rest = self.rest.trim_start();
        let bytes = rest.as_bytes();
        let mut end = bytes.iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
        // An exponent, but not the number e: 2e3, not 2e.
        if bytes.get(end).is_some_and(|b| matches!(b, b'e' | b'E')) {
            let sign = usize::from(bytes.get(end + 1).is_some_and(|b| matches!(b, b'+' | b'-')));
            let digits = bytes.iter().skip(end + 1 + sign).take_while(|b| b.is_ascii_digit()).count();
            if digits > 0 {
                end += 1 + sign + digits;
            }
        }
        let (digits, rest) = rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }

    fn name(&mut self) -> Option<f64> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !(c.is_alphabetic() || c == '_')).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        let function: Option<fn(f64) -> f64> = match word.to_ascii_lowercase().as_str() {
            "sqrt" => Some(f64::sqrt),
            "cbrt" => Some(f64::cbrt),
            "exp" => Some(f64::exp),
            "log" | "ln" => Some(f64::ln),
            "sin" => Some(f64::sin),
            "cos" => Some(f64::cos),
            "tan" => Some(f64::tan),
            "cot" => Some(|x| 1.0 / x.tan()),
            "sec" => Some(|x| 1.0 / x.cos()),
            "csc" => Some(|x| 1.0 / x.sin()),
            "arcsin" | "asin" => Some(f64::asin),
            "arccos" | "acos" => Some(f64::acos),
            "arctan" | "atan" => Some(f64::atan),
            "sinh" => Some(f64::sinh),
            "cosh" => Some(f64::cosh),
            "tanh" => Some(f64::tanh),
            "abs" => Some(f64::abs),
            _ => None,
        };
        if let Some(function) = function {
            self.rest = rest;
            // sin^2 x.
            let power = self.take("^").then(|| self.atom()).flatten();
            let of = if rest.trim_start().starts_with(['(', '^']) { self.atom()? } else { self.signed()? };
            let value = function(of);
            return Some(power.map_or(value, |power| value.powf(power)));
        }
        let known = |word: &str| match word {
            "pi" | "π" => Some(std::f64::consts::PI),
            other => (self.variable)(other),
        };
        if let Some(value) = known(word) {
            self.rest = rest;
            return Some(value);
        }
        // Letters side by side are a product: xy, 2ab, ei.
        let first = word.chars().next()?;
        let value = match (self.variable)(&first.to_string()) {
            Some(value) => value,
            None if first == 'e' => std::f64::consts::E,
            None => return None,
        };
        self.rest = &self.rest.trim_start()[first.len_utf8()..];
        Some(value)
    }
}

/// A real power, with the real root of a negative number where there is one (the cube root of −8).
fn root_of(base: f64, exponent: f64) -> f64 {
    let value = base.powf(exponent);
    let root = 1.0 / exponent;
    if value.is_nan() && base < 0.0 && (root - root.round()).abs() < 1e-9 && root.round() % 2.0 != 0.0 {
        return -(-base).powf(exponent);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_by_hand() {
        for (text, expected) in [
            ("1 + 2 * 3", 7.0),
            ("-2^2", -4.0),
            ("2^-1", 0.5),
            ("2**3**2", 512.0),
            ("(1/2)(4 - 2)", 1.0),
            ("2 pi", 2.0 * std::f64::consts::PI),
            ("3sqrt(4)", 6.0),
            ("sin^2(0.5) + cos^2(0.5)", 1.0),
            ("4! / 2e1", 1.2),
            ("e", std::f64::consts::E),
            ("(-8)^(1/3)", -2.0),
            (".5", 0.5),
            ("--3", 3.0),
        ] {
            let got = number(text).unwrap_or_else(|| panic!("{text}"));
            assert!((got - expected).abs() < 1e-12, "{text}: {got}");
        }
        for text in ["", "x", "1 +", "(1", "1)", "1/0", "sqrt(-1)", "hello", "2 ** ** 3", &"(".repeat(1000)] {
            assert_eq!(number(text), None, "{text}");
        }
        let at = |name: &str| match name {
            "x" => Some(3.0),
            "y" => Some(5.0),
            _ => None,
        };
        assert_eq!(value("2xy - x^2", &at), Some(21.0));
    }
}
