//! What can be wrong with input: a [`Fault`] says what, a [`Problem`] says where too, [`Problems`] keeps count.

use std::collections::BTreeMap;

use serde::Serialize;

/// How many problems [`Problems`] keeps in full; the rest are counted.
pub const KEPT: usize = 20;

/// One field that is not as it must be. The reader adds file and line and makes it a [`Problem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{field}: needed {needed}, got {got}")]
pub struct Fault {
    /// The path of the field, as in `feedback[2].start`. Empty: the whole line.
    pub field: String,
    /// What had to be there.
    pub needed: String,
    /// What was there. Long values are cut.
    pub got: String,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<String>, needed: impl Into<String>, got: impl Into<String>) -> Self {
        Fault { field: field.into(), needed: needed.into(), got: cut(&got.into()) }
    }

    /// The same fault seen from outside, where the field lies under `parent`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.field = match (self.field.is_empty(), self.field.starts_with('[')) {
            (true, _) => parent.to_owned(),
            (false, true) => format!("{parent}{}", self.field),
            (false, false) => format!("{parent}.{}", self.field),
        };
        self
    }

    /// The same fault at a place in a file.
    pub fn at(self, file: &str, line: u64) -> Problem {
        Problem { file: file.to_owned(), line, fault: self }
    }
}

/// A [`Fault`] at a line of a file. Displays as `log.jsonl:41: feedback[0].start: needed …, got …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: String,
    /// The line, from 1; in a Parquet file the row, from 1. 0: the file as a whole.
    pub line: u64,
    /// What is wrong there.
    #[serde(flatten)]
    pub fault: Fault,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 {
            write!(f, "{}: ", self.file)?;
        } else {
            write!(f, "{}:{}: ", self.file, self.line)?;
        }
        if self.fault.field.is_empty() {
            write!(f, "needed {}, got {}", self.fault.needed, self.fault.got)
        } else {
            write!(f, "{}", self.fault)
        }
    }
}

/// Problems of one run over a log: the first [`KEPT`] in full, all of them counted by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// How many there were.
    pub count: u64,
    /// The first ones, in the order of the file.
    pub first: Vec<Problem>,
    /// How many there were per field, list positions left out (`feedback[].start`).
    pub by_field: BTreeMap<String, u64>,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.count += 1;
        *self.by_field.entry(without_positions(&problem.fault.field)).or_default() += 1;
        if self.first.len() < KEPT {
            self.first.push(problem);
        }
    }

    /// Nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for problem in &self.first {
            writeln!(f, "{problem}")?;
        }
        let rest = self.count - self.first.len() as u64;
        if rest > 0 {
            writeln!(f, "and {rest} more")?;
        }
        Ok(())
    }
}

fn without_positions(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut inside = false;
    for c in field.chars() {
        match c {
            '[' => {
                inside = true;
                out.push('[');
            }
            ']' => {
                inside = false;
                out.push(']');
            }
            _ if inside && c.is_ascii_digit() => {}
            _ => out.push(c),
        }
    }
    out
}

/// Keeps a message readable where the value came from a gigantic line.
fn cut(text: &str) -> String {
    const LONGEST: usize = 160;
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_are_kept_and_the_rest_counted() {
        let mut problems = Problems::default();
        for line in 1..=25 {
            problems.push(Fault::new(format!("feedback[{line}].start"), "a number", "text").at("log", line));
        }
        assert_eq!((problems.count, problems.first.len()), (25, 20));
        assert_eq!(problems.by_field["feedback[].start"], 25);
        let shown = problems.to_string();
        assert!(shown.starts_with("log:1: feedback[1].start: needed a number, got text\n"), "{shown}");
        assert!(shown.ends_with("and 5 more\n"), "{shown}");
    }
}
