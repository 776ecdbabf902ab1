//! Small Python functions with tests, run in the sandbox.
//!
//! ```text
//! write f(x): add 3 to x
//! assert f(1) == 4
//! assert f(0) == 3
//! assert f(7) == 10
//!
//! def f(x):
//!     return x + 3
//! ```
//!
//! Three asserts are shown, two are hidden. An answer is right if it passes all five. What should come out is worked
//! out in Rust; the reference is tested like any answer.
//!
//! # Kinds of error
//! `syntax`, `name`, `type` (as the interpreter says), `return` (nothing comes back), `loop` (it does not end),
//! `operator` and `number` (one token away from the reference), and beside those that are planted: `crash` (another
//! exception), `result` (another wrong result), `hidden` (right as far as shown).
//!
//! [`datasets`] reads MBPP and HumanEval rows; [`review`] is a reviewer who knows the reference and never says code.

mod bugs;
pub mod datasets;
pub mod review;
mod templates;

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::sandbox::{Job, Limits, Mode, Report, Sandbox, Verdict};
use crate::seed::{pick, rng, shuffle};
use crate::world::{Check, Flaw, Place, Planted, Task, World, expect_kind, expect_level};
use templates::{TEMPLATES, Template};

pub use templates::Value;

/// Kinds of bug that are planted.
pub const KINDS: &[&str] = &["syntax", "name", "type", "operator", "number", "return", "loop"];
/// Asserts that the prompt shows.
pub const VISIBLE: usize = 3;
/// Asserts that it does not show.
pub const HIDDEN: usize = 2;

/// The world of programs. The sandbox is opened when the first answer is checked.
#[derive(Debug, Clone)]
pub struct Programs {
    sandbox: Lazy,
}

/// A sandbox opened on first use and shared by all tasks.
#[derive(Debug, Clone)]
struct Lazy {
    mode: Mode,
    limits: Limits,
    open: Arc<Mutex<Option<Arc<Sandbox>>>>,
}

impl Lazy {
    fn get(&self) -> Result<Arc<Sandbox>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*open {
            return Ok(Arc::clone(sandbox));
        }
        let sandbox = Arc::new(Sandbox::open(self.mode, self.limits.clone())?);
        *open = Some(Arc::clone(&sandbox));
        Ok(sandbox)
    }
}

impl Default for Programs {
    /// A strict sandbox, and one second for functions that need a millisecond.
    fn default() -> Self {
        Programs::new(Mode::Strict, Limits { wall: Duration::from_secs(1), cpu: 1, ..Limits::default() })
    }
}

impl Programs {
    /// The world with this sandbox.
    pub fn new(mode: Mode, limits: Limits) -> Self {
        Programs { sandbox: Lazy { mode, limits, open: Arc::default() } }
    }

    /// The function of this level and seed.
    /// # Errors
    /// [`Error::Setting`] if there is no such level.
    pub fn function(&self, level: u32, seed: u64) -> Result<Function> {
        let level = expect_level(self, level)?;
        let mut rng = rng(seed, &format!("programs/{level}"));
        let choice: Vec<&'static Template> =
            TEMPLATES.iter().filter(|template| template.level == level).collect();
        let template = pick(&mut rng, &choice);
        let (k, m, tests) = loop {
            // Some numbers make every result the same, such as dropping nine items of a short list.
            let (k, m) = (rng.random_range(2..=9), rng.random_range(2..=5));
            if let Some(tests) = tests(template, k, m, &mut rng) {
                break (k, m, tests);
            }
        };
        let fill = |text: &str| text.replace("{k}", &k.to_string()).replace("{m}", &m.to_string());
        let wording = fill(pick(&mut rng, template.wordings));
        let names: Vec<&str> = template.takes.iter().map(|(name, _)| *name).collect();
        let body = fill(template.code).replace('\n', "\n    ");
        Ok(Function {
            head: format!("f({})", names.join(", ")),
            wording,
            reference: format!("def f({}):\n    {body}", names.join(", ")),
            tests,
            sandbox: self.sandbox.clone(),
        })
    }
}

/// Five asserts on different inputs in random order, or `None` if all results are the same.
///
/// Three of them lie at the edges of `k`, so that a comparison or a number that is off by one shows.
fn tests(template: &Template, k: i64, m: i64, rng: &mut ChaCha8Rng) -> Option<Vec<String>> {
    let (mut asked, mut results, mut tests) = (HashSet::new(), HashSet::new(), Vec::new());
    let mut edges = (0..3).map(|edge| templates::edge(template.takes, k, edge));
    while tests.len() < VISIBLE + HIDDEN {
        let mut inputs: Vec<Value> = template.takes.iter().map(|(_, takes)| takes.draw(rng)).collect();
        for (input, forced) in inputs.iter_mut().zip(edges.next().into_iter().flatten()) {
            *input = forced.unwrap_or_else(|| input.clone());
        }
        let call = inputs.iter().map(Value::python).collect::<Vec<_>>().join(", ");
        let result = (template.solve)(&inputs, k, m).python();
        // Every parameter has at least thirteen values, so five different calls are always found.
        if asked.insert(call.clone()) {
            tests.push(format!("assert f({call}) == {result}"));
            results.insert(result);
        }
    }
    shuffle(rng, &mut tests);
    (results.len() > 1).then_some(tests)
}

impl World for Programs {
    fn id(&self) -> &'static str {
        "programs"
    }

    fn about(&self) -> &'static str {
        "Small Python functions. An answer is right if it passes the three asserts shown and two that are not."
    }

    fn instructions(&self) -> &'static str {
        "Write the Python function that is asked for, named f, and nothing else: no text around it, no tests, no \
         imports. Indent with four spaces."
    }

    fn levels(&self) -> RangeInclusive<u32> {
        1..=5
    }

    fn kinds(&self) -> &'static [&'static str] {
        KINDS
    }

    fn runs_programs(&self) -> bool {
        true
    }

    fn task(&self, level: u32, seed: u64) -> Result<Box<dyn Task>> {
        Ok(Box::new(self.function(level, seed)?))
    }
}

/// One function to write.
#[derive(Debug, Clone)]
pub struct Function {
    head: String,
    wording: String,
    reference: String,
    tests: Vec<String>,
    sandbox: Lazy,
}

impl Function {
    /// The asserts that the prompt shows.
    pub fn visible(&self) -> &[String] {
        &self.tests[..VISIBLE]
    }

    /// The asserts that it does not show.
    pub fn hidden(&self) -> &[String] {
        &self.tests[VISIBLE..]
    }

    /// Runs an answer against all asserts.
    /// # Errors
    /// [`Error::Sandbox`] if it cannot be run.
    pub fn run(&self, answer: &str) -> Result<Report> {
        let job = Job { program: code(answer), setup: String::new(), tests: self.tests.clone() };
        Ok(self.sandbox.get()?.judge(&job)?)
    }

    /// The interpreter's words on an answer, as feedback: a traceback, or what happened; `None` if it is right.
    ///
    /// A hidden assert is not told.
    /// # Errors
    /// [`Error::Sandbox`] if it cannot be run.
    pub fn traceback(&self, answer: &str) -> Result<Option<String>> {
        let verdict = self.run(answer)?.verdict;
        Ok(match &verdict {
            Verdict::Passed => None,
            Verdict::Failed { kind, test, .. } if *test >= VISIBLE && kind == "AssertionError" => {
                Some("AssertionError: a hidden test fails".to_string())
            }
            _ => Some(verdict.text()),
        })
    }

    fn flaw(&self, answer: &str, report: &Report) -> Option<Flaw> {
        let (kind, line, reason) = match &report.verdict {
            Verdict::Passed => return None,
            Verdict::Failed { kind, text, line, test } => {
                let last = text.lines().last().unwrap_or(kind).to_string();
                let kind = match kind.as_str() {
                    "SyntaxError" | "IndentationError" | "TabError" => "syntax",
                    "NameError" | "UnboundLocalError" => "name",
                    "TypeError" => "type",
                    "AssertionError" if text.ends_with("got None") => "return",
                    "AssertionError" if *test >= VISIBLE => "hidden",
                    "AssertionError" => "result",
                    _ => "crash",
                };
                let call = self.tests[*test].trim_start_matches("assert ").split(" == ").next().unwrap_or("");
                let got = last.strip_prefix("AssertionError: got ").unwrap_or("wrong");
                let reason = match kind {
                    "hidden" | "return" if *test >= VISIBLE => "a hidden test fails".to_string(),
                    "result" | "return" => format!("{call} is {got}"),
                    _ => last,
                };
                (kind, *line, reason)
            }
            Verdict::TimedOut | Verdict::CpuLimit => ("loop", None, "it does not end".to_string()),
            other => ("crash", None, other.text()),
        };
        let differs = bugs::difference(&code(answer), &self.reference);
        let (kind, line) = match (kind, line, differs) {
            ("result" | "hidden", _, Some((closer @ ("operator" | "number"), line))) => (closer, Some(line)),
            (_, Some(line), _) => (kind, Some(line - 1)),
            (_, None, Some((_, line))) => (kind, Some(line)),
            (_, None, None) => (kind, None),
        };
        let right = line.and_then(|line| self.reference.lines().nth(line)).unwrap_or(&self.reference);
        Some(Flaw {
            kind,
            place: line.map_or(Place::Whole, Place::Line),
            name: String::new(),
            reason,
            correction: right.trim().to_string(),
        })
    }
}

/// The program in an answer: what stands in its first fenced block, or all of it.
pub fn code(answer: &str) -> String {
    let Some((_, rest)) = answer.split_once("```") else { return answer.to_string() };
    let body = rest.split_once('\n').map_or("", |(_, body)| body);
    body.split("```").next().unwrap_or(body).to_string()
}

impl Task for Function {
    fn prompt(&self) -> String {
        format!("write {}: {}\n{}", self.head, self.wording, self.visible().join("\n"))
    }

    fn reference(&self) -> String {
        self.reference.clone()
    }

    fn check(&self, answer: &str) -> Result<Check> {
        let report = self.run(answer)?;
        let Some(flaw) = self.flaw(answer, &report) else { return Ok(Check::all_right()) };
        let passed = report.passed.iter().filter(|passed| **passed).count();
        Ok(Check {
            right: false,
            score: (passed as f64 / self.tests.len() as f64).min(0.99),
            well_formed: flaw.kind != "syntax" && code(answer).contains("def f("),
            result_right: report.passed.len() >= VISIBLE
                && report.passed[..VISIBLE].iter().all(|passed| *passed),
            flaws: vec![flaw],
        })
    }

    fn plantable(&self) -> Vec<&'static str> {
        KINDS.iter().copied().filter(|kind| bugs::possible(&self.reference, kind)).collect()
    }

    fn plant(&self, kind: &str, rng: &mut ChaCha8Rng) -> Result<Planted> {
        let kind = expect_kind("programs", &self.plantable(), kind)?;
        let (answer, line) = bugs::plant(&self.reference, kind, rng)
            .ok_or_else(|| Error::plant("programs", kind, "a place for it in the reference"))?;
        Ok(Planted { answer, kind, place: Place::Line(line) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_answers_are_opened() {
        assert_eq!(code("here:\n```python\ndef f(x):\n    return 1\n```\ndone"), "def f(x):\n    return 1\n");
        assert_eq!(code("def f(x): return 1"), "def f(x): return 1");
        assert_eq!(code("```"), "");
    }

    #[test]
    fn prompts_are_plain_and_hide_two_asserts() {
        let function = Programs::default().function(1, 3).unwrap();
        let prompt = function.prompt();
        assert!(prompt.starts_with("write f("), "{prompt}");
        assert_eq!(prompt.lines().count(), 1 + VISIBLE);
        assert!(function.hidden().iter().all(|test| !prompt.contains(test.as_str())));
    }

    #[test]
    fn every_level_has_templates_with_three_wordings() {
        for level in Programs::default().levels() {
            assert!(TEMPLATES.iter().filter(|template| template.level == level).count() >= 4);
        }
        assert!(TEMPLATES.iter().all(|template| template.wordings.len() == 3));
    }
}
