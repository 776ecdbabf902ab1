//! What can check an answer: a world's own rules, tests that a record carries, or whatever a caller brings.

use std::collections::HashMap;
use std::sync::Mutex;

use hone_feedback::Record;
use hone_worlds::programs::Programs;
use hone_worlds::programs::datasets::Exercise;
use hone_worlds::world::ALL_RIGHT;
use hone_worlds::{Check, Detail, Flaw, Task, World};
use serde_json::Value;

use crate::error::{Error, Result};

/// The judgement of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Right in every respect.
    pub right: bool,
    /// How good, in `[0, 1]`.
    pub score: f64,
    /// Whether it has the shape that was asked for.
    pub well_formed: bool,
    /// What is first wrong, in words.
    pub words: String,
}

/// Checks answers to the prompts of records.
pub trait Oracle: std::fmt::Debug + Send + Sync {
    /// The verdict, or `None` where it does not know this record's task.
    ///
    /// # Errors
    /// Where a check cannot be run at all.
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>>;

    /// What is first wrong in an answer, at one level of detail; [`ALL_RIGHT`] for a right answer, `None` where it does
    /// not know this record's task. An oracle that knows one set of words says them at every level but the verdict.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    fn explain(&self, record: &Record, answer: &str, detail: Detail) -> Result<Option<String>> {
        let words = |verdict: Verdict| match (verdict.right, detail) {
            (true, _) => ALL_RIGHT.to_string(),
            (false, Detail::Verdict) => WRONG.to_string(),
            (false, _) => verdict.words,
        };
        Ok(self.check(record, answer)?.map(words))
    }

    /// A right answer, or `None` where it knows none.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    fn reference(&self, _: &Record) -> Result<Option<String>> {
        Ok(None)
    }

    /// The verdict and every flaw that it rests on, from one check; no flaws where the oracle knows none in particular.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    fn examine(&self, record: &Record, answer: &str) -> Result<Option<(Verdict, Vec<Flaw>)>> {
        Ok(self.check(record, answer)?.map(|verdict| (verdict, vec![])))
    }

    /// Parts of an answer that are good or poor: start and end in Unicode scalar values, and 1 or −1. `None` where it does
    /// not know this record's task, or only answers as a whole.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    fn mark(&self, _: &Record, _: &str) -> Result<Option<Vec<(usize, usize, f64)>>> {
        Ok(None)
    }

    /// What trying an answer says, without what would be right: the interpreter's words on a program, the reason where
    /// nothing is run. `None` for an answer that is right, or a record whose task it does not know.
    ///
    /// # Errors
    /// As [`Oracle::check`].
    fn said(&self, record: &Record, answer: &str) -> Result<Option<String>> {
        Ok(self.explain(record, answer, Detail::Reason)?.filter(|words| words != ALL_RIGHT))
    }
}

/// The verdict on an answer that is not right, in a word.
pub const WRONG: &str = "wrong";

/// All checks that records themselves ask for. A record says in `task` which task of a built-in world it asks (`world`,
/// `level`, `seed`), or carries tests of a Python program: `tests` or MBPP's `test_list` with statements before them in
/// `setup` or `test_setup_code`, or HumanEval's `test` with `entry_point`. Programs run in the sandbox.
#[derive(Debug, Default)]
pub struct Checks {
    worlds: Mutex<HashMap<String, std::sync::Arc<dyn World>>>,
    programs: Programs,
}

impl Checks {
    /// Whether this record says how its answers are checked.
    pub fn knows(record: &Record) -> bool {
        record.extra.get("task").is_some_and(|task| task.get("world").is_some()) || exercise(record).is_some()
    }

    /// The task that a record asks; `None` where it says none.
    ///
    /// # Errors
    /// [`Error::File`] for a task that is not given as it must be; those of the world.
    pub fn task(&self, record: &Record) -> Result<Option<Box<dyn Task>>> {
        if let Some(exercise) = exercise(record) {
            return Ok(Some(Box::new(self.programs.exercise(exercise))));
        }
        let Some(task) = record.extra.get("task").filter(|task| task.get("world").is_some()) else {
            return Ok(None);
        };
        let wrong = |name: &str, needed: &str| Error::File {
            path: format!("record {}", record.id),
            problem: format!("`task.{name}`: needs {needed}, got {}", task.get(name).unwrap_or(&Value::Null)),
        };
        let number =
            |name: &str| task.get(name).and_then(Value::as_u64).ok_or_else(|| wrong(name, "a whole number"));
        let name =
            task.get("world").and_then(Value::as_str).ok_or_else(|| wrong("world", "the name of a world"))?;
        let level = u32::try_from(number("level")?).map_err(|_| wrong("level", "a level of the world"))?;
        Ok(Some(self.world(name)?.task(level, number("seed")?)?))
    }

    fn world(&self, id: &str) -> Result<std::sync::Arc<dyn World>> {
        let mut worlds = self.worlds.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(world) = worlds.get(id) {
            return Ok(world.clone());
        }
        let world: std::sync::Arc<dyn World> = hone_worlds::world(id)?.into();
        worlds.insert(id.to_owned(), world.clone());
        Ok(world)
    }
}

/// The tests that a record carries.
fn exercise(record: &Record) -> Option<Exercise> {
    let text = |key: &str| Some(record.extra.get(key)?.as_str()?.replace("\r\n", "\n"));
    let texts = |key: &str| -> Option<Vec<String>> {
        let list = record.extra.get(key)?.as_array()?;
        list.iter().map(|test| Some(test.as_str()?.replace("\r\n", "\n"))).collect()
    };
    let whole = |text: String| Exercise {
        id: record.id.clone(),
        text,
        goes_on: false,
        reference: String::new(),
        setup: String::new(),
        tests: vec![],
    };
    let prompt = record.prompt.last_user().map(|text| text.into_owned()).unwrap_or_default();
    if let Some(tests) = texts("tests").or_else(|| texts("test_list")).filter(|tests| !tests.is_empty()) {
        let setup = text("setup").or_else(|| text("test_setup_code")).unwrap_or_default();
        return Some(Exercise { setup, tests, ..whole(prompt) });
    }
    let (setup, entry) = (text("test")?, text("entry_point")?);
    Some(Exercise { setup, tests: vec![format!("check({entry})")], goes_on: true, ..whole(prompt) })
}

impl Oracle for Checks {
    fn check(&self, record: &Record, answer: &str) -> Result<Option<Verdict>> {
        Ok(self.examine(record, answer)?.map(|(verdict, _)| verdict))
    }

    fn examine(&self, record: &Record, answer: &str) -> Result<Option<(Verdict, Vec<Flaw>)>> {
        let Some(task) = self.task(record)? else { return Ok(None) };
        let check = task.check(answer)?;
        Ok(Some((verdict(&check), check.flaws)))
    }

    fn explain(&self, record: &Record, answer: &str, detail: Detail) -> Result<Option<String>> {
        let Some(task) = self.task(record)? else { return Ok(None) };
        Ok(Some(task.explain(answer, detail)?))
    }

    fn said(&self, record: &Record, answer: &str) -> Result<Option<String>> {
        if let Some(exercise) = exercise(record) {
            let verdict = self.programs.exercise(exercise).run(answer)?.verdict;
            return Ok((verdict != hone_worlds::sandbox::Verdict::Passed).then(|| verdict.text()));
        }
        let task = record.extra.get("task");
        let number = |name: &str| task.and_then(|task| task.get(name)).and_then(Value::as_u64);
        // The world's own reasons compare a program with the reference; the interpreter does not know one.
        if task.and_then(|task| task.get("world")).and_then(Value::as_str) == Some("programs")
            && let (Some(level), Some(seed)) =
                (number("level").and_then(|n| u32::try_from(n).ok()), number("seed"))
        {
            return Ok(self.programs.function(level, seed)?.traceback(answer)?);
        }
        Ok(self.explain(record, answer, Detail::Reason)?.filter(|words| words != ALL_RIGHT))
    }

    fn reference(&self, record: &Record) -> Result<Option<String>> {
        let reference = self.task(record)?.map(|task| task.reference());
        Ok(reference.filter(|text| !text.is_empty()))
    }

    /// Every flaw that stands somewhere is poor; all of a right answer is good.
    fn mark(&self, record: &Record, answer: &str) -> Result<Option<Vec<(usize, usize, f64)>>> {
        let Some(task) = self.task(record)? else { return Ok(None) };
        let check = task.check(answer)?;
        if check.right {
            return Ok(Some(vec![(0, answer.chars().count(), 1.0)]));
        }
        let places = check.flaws.iter().filter_map(|flaw| hone_worlds::people::span(answer, flaw.place));
        Ok(Some(places.map(|(start, end)| (start, end, -1.0)).collect()))
    }
}

fn verdict(check: &Check) -> Verdict {
    let words = check.first().map_or_else(String::new, |flaw| flaw.words(Detail::Correction));
    Verdict { right: check.right, score: check.score, well_formed: check.well_formed, words }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(extra: Value) -> Record {
        let mut record = Record::new("r", "Write a function add(a, b).");
        record.extra = extra.as_object().unwrap().clone();
        record
    }

    #[test]
    fn worlds_are_asked_by_level_and_seed() {
        let task = hone_worlds::world("sums").unwrap().task(2, 7).unwrap();
        let record = record(json!({"task": {"world": "sums", "level": 2, "seed": 7}}));
        assert!(Checks::knows(&record));
        let checks = Checks::default();
        assert!(checks.check(&record, &task.reference()).unwrap().unwrap().right);
        let wrong = checks.check(&record, "1+1=3").unwrap().unwrap();
        assert!(!wrong.right && !wrong.words.is_empty());
        let says = |answer: &str, detail| checks.explain(&record, answer, detail).unwrap().unwrap();
        assert_eq!(says("1+1=3", Detail::Verdict), WRONG);
        assert_eq!(says("1+1=3", Detail::Correction), wrong.words);
        assert_eq!(says(&task.reference(), Detail::Correction), ALL_RIGHT);
        assert_eq!(checks.reference(&record).unwrap(), Some(task.reference()));
    }

    #[test]
    fn what_a_run_says_holds_no_answer() {
        let checks = Checks::default();
        let mbpp = record(json!({"test_list": ["assert add(1, 2) == 3"]}));
        let said = checks.said(&mbpp, "def add(a, b):\n    return a + c\n").unwrap().unwrap();
        assert!(said.ends_with("NameError: name 'c' is not defined"), "{said}");
        assert!(said.contains("line 2"), "{said}");
        assert_eq!(checks.said(&mbpp, "def add(a, b):\n    return a + b\n").unwrap(), None);
        let task = hone_worlds::world("programs").unwrap().task(1, 3).unwrap();
        let world = record(json!({"task": {"world": "programs", "level": 1, "seed": 3}}));
        let said = checks.said(&world, "def f(x):\n    return y\n").unwrap().unwrap();
        assert!(said.contains("NameError") && !said.contains(&task.reference()), "{said}");
        let sums = record(json!({"task": {"world": "sums", "level": 2, "seed": 7}}));
        let wrong = checks.said(&sums, "1+1=3").unwrap().unwrap();
        assert!(!wrong.is_empty() && wrong != checks.check(&sums, "1+1=3").unwrap().unwrap().words);
        assert_eq!(checks.said(&record(json!({})), "x").unwrap(), None);
    }

    #[test]
    fn tests_in_a_record_are_run() {
        let checks = Checks::default();
        let mbpp = record(json!({"test_list": ["assert add(1, 2) == 3"], "test_setup_code": ""}));
        let human = record(json!({"test": "def check(f):\n    assert f(1, 2) == 3", "entry_point": "add"}));
        assert!(Checks::knows(&mbpp) && Checks::knows(&human));
        let good = "def add(a, b):\n    return a + b\n";
        assert!(checks.check(&mbpp, good).unwrap().unwrap().right);
        assert!(!checks.check(&mbpp, "def add(a, b):\n    return a - b\n").unwrap().unwrap().right);
    }

    #[test]
    fn what_says_nothing_is_not_checked_and_what_is_wrong_is_named() {
        let checks = Checks::default();
        assert_eq!(checks.check(&record(json!({})), "x").unwrap(), None);
        assert!(!Checks::knows(&record(json!({"tests": []}))));
        let refused = checks.check(&record(json!({"task": {"world": "sums", "level": "x", "seed": 1}})), "x");
        assert_eq!(
            refused.unwrap_err().to_string(),
            "record r: `task.level`: needs a whole number, got \"x\""
        );
    }
}
