//! Exercises from MBPP and HumanEval files.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::{Lazy, Programs, code};
use crate::error::{Error, Result};
use crate::sandbox::{Job, Report, Verdict};
use crate::world::{Check, Flaw, Place, Planted, Task};

/// One exercise with its own tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exercise {
    /// Id as in the file.
    pub id: String,
    /// What is asked: a description (MBPP), or the beginning of the program (HumanEval).
    pub text: String,
    /// Whether an answer goes on from `text` rather than standing alone.
    pub goes_on: bool,
    /// The reference answer.
    pub reference: String,
    /// Statements before the tests.
    pub setup: String,
    /// Tests, each run on its own.
    pub tests: Vec<String>,
}

impl Exercise {
    /// The whole program of an answer.
    pub fn program(&self, answer: &str) -> String {
        let answer = code(answer);
        // A model may repeat the beginning that it was given.
        let repeats = self.goes_on && answer.trim_start().starts_with(self.text.trim_start());
        if self.goes_on && !repeats { format!("{}{answer}", self.text) } else { answer }
    }

    /// The job of an answer.
    pub fn job(&self, answer: &str) -> Job {
        Job { program: self.program(answer), setup: self.setup.clone(), tests: self.tests.clone() }
    }
}

/// Reads MBPP: JSON lines with `text`, or the sanitized JSON array with `prompt`.
/// # Errors
/// [`Error::Io`], or [`Error::Row`] for the first row that lacks a field.
pub fn mbpp(path: &Path) -> Result<Vec<Exercise>> {
    let exercise = |row: &Row| {
        let description = row.text("text").or_else(|_| row.text("prompt"))?;
        let mut setup = row.text("test_setup_code").unwrap_or_default();
        for import in row.texts("test_imports").unwrap_or_default() {
            setup = format!("{import}\n{setup}");
        }
        let mut tests = row.texts("test_list")?;
        tests.extend(row.texts("challenge_test_list").unwrap_or_default());
        if tests.is_empty() {
            return Err(row.wrong("test_list", "needs at least 1 test, got none"));
        }
        Ok(Exercise {
            id: row.value("task_id")?.to_string(),
            text: description,
            goes_on: false,
            reference: row.text("code")?,
            setup,
            tests,
        })
    };
    rows(path)?.iter().map(exercise).collect()
}

/// Reads HumanEval: JSON lines with `prompt`, `canonical_solution`, `test` and `entry_point`.
/// # Errors
/// [`Error::Io`], or [`Error::Row`] for the first row that lacks a field.
pub fn humaneval(path: &Path) -> Result<Vec<Exercise>> {
    let exercise = |row: &Row| {
        let entry = row.text("entry_point")?;
        Ok(Exercise {
            id: row.text("task_id")?,
            text: row.text("prompt")?,
            goes_on: true,
            reference: row.text("canonical_solution")?,
            setup: row.text("test")?,
            tests: vec![format!("check({entry})")],
        })
    };
    rows(path)?.iter().map(exercise).collect()
}

struct Row {
    file: String,
    line: usize,
    value: Value,
}

impl Row {
    fn wrong(&self, field: &'static str, problem: &str) -> Error {
        Error::Row { file: self.file.clone(), line: self.line, field, problem: problem.to_string() }
    }

    fn value(&self, field: &'static str) -> Result<&Value> {
        self.value.get(field).ok_or_else(|| self.wrong(field, "is missing"))
    }

    fn text(&self, field: &'static str) -> Result<String> {
        let value = self.value(field)?;
        let text = value.as_str().ok_or_else(|| self.wrong(field, &format!("needs text, got {value}")))?;
        // The files keep the line ends of another system inside their strings.
        Ok(text.replace("\r\n", "\n"))
    }

    fn texts(&self, field: &'static str) -> Result<Vec<String>> {
        let value = self.value(field)?;
        let list =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let list = list.ok_or_else(|| self.wrong(field, "needs a list of texts"))?;
        Ok(list.into_iter().map(|text| text.replace("\r\n", "\n")).collect())
    }
}

/// The rows of a JSON array or of JSON lines. Lines end at LF alone: other line ends stand inside strings.
fn rows(path: &Path) -> Result<Vec<Row>> {
    let file = path.display().to_string();
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let text = std::fs::read_to_string(path).map_err(io)?;
    let wrong = |line, error: serde_json::Error| Error::Row {
        file: file.clone(),
        line,
        field: "row",
        problem: error.to_string(),
    };
    if text.trim_start().starts_with('[') {
        let values: Vec<Value> = serde_json::from_str(&text).map_err(|error| wrong(error.line(), error))?;
        // All rows may stand on one line, so they are counted as rows.
        let row = |(index, value)| Row { file: file.clone(), line: index + 1, value };
        return Ok(values.into_iter().enumerate().map(row).collect());
    }
    let lines = text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let value = serde_json::from_str(line).map_err(|error| wrong(index + 1, error))?;
            Ok(Row { file: file.clone(), line: index + 1, value })
        })
        .collect()
}

/// An exercise as a task: no bugs are planted, everything else is as in the world.
#[derive(Debug, Clone)]
pub struct Problem {
    exercise: Exercise,
    sandbox: Lazy,
}

impl Programs {
    /// The task of an exercise, run in this world's sandbox.
    pub fn exercise(&self, exercise: Exercise) -> Problem {
        Problem { exercise, sandbox: self.sandbox.clone() }
    }
}

impl Problem {
    /// Runs an answer against all tests.
    /// # Errors
    /// [`Error::Sandbox`] if it cannot be run.
    pub fn run(&self, answer: &str) -> Result<Report> {
        Ok(self.sandbox.get()?.judge(&self.exercise.job(answer))?)
    }
}

impl Task for Problem {
    fn prompt(&self) -> String {
        if self.exercise.goes_on {
            return self.exercise.text.clone();
        }
        // Description and first assert in a docstring, as the published protocol has it.
        format!("\"\"\"\n{}\n{}\n\"\"\"\n", self.exercise.text, self.exercise.tests[0])
    }

    fn reference(&self) -> String {
        self.exercise.reference.clone()
    }

    fn check(&self, answer: &str) -> Result<Check> {
        let report = self.run(answer)?;
        let (kind, place) = match &report.verdict {
            Verdict::Passed => return Ok(Check::all_right()),
            Verdict::Failed { kind, line, .. } => {
                let kind = match kind.as_str() {
                    "SyntaxError" | "IndentationError" | "TabError" => "syntax",
                    "NameError" => "name",
                    "TypeError" => "type",
                    "AssertionError" => "result",
                    _ => "crash",
                };
                (kind, line.map_or(Place::Whole, |line| Place::Line(line - 1)))
            }
            Verdict::TimedOut | Verdict::CpuLimit => ("loop", Place::Whole),
            _ => ("crash", Place::Whole),
        };
        let text = report.verdict.text();
        let passed = report.passed.iter().filter(|passed| **passed).count();
        Ok(Check {
            right: false,
            score: (passed as f64 / self.exercise.tests.len() as f64).min(0.99),
            well_formed: kind != "syntax",
            result_right: false,
            flaws: vec![Flaw {
                kind,
                place,
                name: String::new(),
                reason: text.lines().last().unwrap_or("").to_string(),
                correction: "another program".to_string(),
            }],
        })
    }

    fn plantable(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn plant(&self, kind: &str, _: &mut ChaCha8Rng) -> Result<Planted> {
        Err(Error::plant("programs", kind, "a task of the world: exercises from files have no planted bugs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Exercise>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        mbpp(file.path())
    }

    #[test]
    fn both_shapes_are_read() {
        let line = r#"{"task_id": 3, "text": "t", "code": "a\r\nb", "test_list": ["assert x"], "test_setup_code": ""}"#;
        let array = r#"[{"task_id": 3, "prompt": "t", "code": "a\nb", "test_list": ["assert x"], "test_imports": []}]"#;
        assert_eq!(read(line).unwrap(), read(array).unwrap());
    }

    #[test]
    fn a_bad_row_is_named() {
        let said = |text: &str| {
            let said = read(text).unwrap_err().to_string();
            said.split_once(": ").unwrap().1.to_string()
        };
        assert_eq!(said("{\"task_id\": 1, \"text\": \"t\"}"), "line 1: field test_list: is missing");
        let rows = "{\"task_id\": 1, \"text\": \"t\", \"code\": 7, \"test_list\": [\"assert x\"]}";
        assert_eq!(said(&format!("\n{rows}")), "line 2: field code: needs text, got 7");
        assert!(said("{").starts_with("line 1: field row: EOF"));
        assert!(mbpp(Path::new("/no/such")).unwrap_err().to_string().starts_with("/no/such: No such file"));
    }
}
