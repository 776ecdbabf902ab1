//! Tasks with a checkable answer: six of the protocol's eight sets, and the worlds.

use std::path::Path;
use std::sync::Arc;

use hone_worlds::sandbox::{Job, Sandbox, Verdict};
use hone_worlds::{Detail, Task};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::evaluate::calculate::number;

/// One task.
#[derive(Debug)]
pub struct Instance {
    /// The set it is of.
    pub set: String,
    /// What it is called there.
    pub id: String,
    /// What is asked.
    pub prompt: String,
    /// The right solution, as a person would write it.
    pub reference: String,
    checker: Checker,
}

#[derive(Debug)]
enum Checker {
    /// A number or words.
    Short,
    /// Options by letter.
    Choice(Vec<(String, String)>),
    /// A number, list, truth value or option, as the set's own type says.
    Typed(Value),
    /// Statements that test a program.
    Tests(String),
    /// A world's oracle.
    World(Box<dyn Task>),
}

/// How answers are compared.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Runs proposed programs.
    pub sandbox: Arc<Sandbox>,
    /// Numbers within 1e-4, words and letters whole; else as published: 5 % for numbers, words anywhere in the solution.
    pub strict: bool,
}

impl Instance {
    /// A question whose answer is a number or words.
    pub fn short(set: &str, id: &str, prompt: &str, reference: &str) -> Instance {
        let reference = reference.trim().to_lowercase();
        Instance {
            set: set.into(),
            id: id.into(),
            prompt: prompt.trim().into(),
            reference,
            checker: Checker::Short,
        }
    }

    /// A task of a world.
    pub fn world(set: &str, id: &str, task: Box<dyn Task>) -> Instance {
        let (prompt, reference) = (task.prompt(), task.reference());
        Instance { set: set.into(), id: id.into(), prompt, reference, checker: Checker::World(task) }
    }

    /// A row of a set: `id`, `prompt`, `reference`, and what else the set has. `None` for a set that is not known, or a row
    /// that lacks something.
    pub fn from_row(set: &str, row: &Value) -> Option<Instance> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let id = text(row.get("id")?);
        let prompt = row.get("prompt")?.as_str()?.replace("\r\n", "\n");
        let reference = row.get("reference")?;
        let make = |prompt: String, checker: Checker| {
            Some(Instance { set: set.into(), id: id.clone(), prompt, reference: text(reference), checker })
        };
        match set {
            "gsm8k" | "math" | "hotpotqa" => Some(Instance::short(set, &id, &prompt, &text(reference))),
            "mmlu" => {
                let instance = make(prompt.clone(), Checker::Choice(options(&prompt)))?;
                Some(Instance { reference: instance.reference.trim().to_lowercase(), ..instance })
            }
            "theoremqa" => {
                let asked =
                    format!("Answer with a number, a list of numbers, True or False. {}", prompt.trim());
                make(asked, Checker::Typed(reference.clone()))
            }
            "humaneval" => {
                let tests = text(reference).replace("\r\n", "\n");
                make(format!("Complete this program:\n\n{prompt}"), Checker::Tests(tests))
            }
            "mbpp" => {
                let tests = text(reference).replace("\r\n", "\n");
                make(prompt.replace("\"\"\"", "").trim().to_string(), Checker::Tests(tests))
            }
            _ => None,
        }
    }

    /// Whether a proposed solution is right.
    ///
    /// # Errors
    /// [`hone_worlds::Error::Sandbox`] where a program has to be run and cannot be.
    pub fn check(&self, solution: &str, rules: &Rules) -> Result<bool> {
        let low = solution.trim().to_lowercase();
        Ok(match &self.checker {
            Checker::Short if rules.strict => {
                near(&self.reference, &low, 1e-4).unwrap_or(low == self.reference)
            }
            // Of a short reference this finds almost anything; it is what was published.
            Checker::Short => {
                near(&self.reference, &low, 0.05).unwrap_or_else(|| low.contains(&self.reference))
            }
            Checker::Choice(options) if rules.strict => {
                let letter = low.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
                let named = options.iter().find(|(letter, _)| *letter == self.reference);
                letter == Some(&*self.reference) || named.is_some_and(|(_, text)| *text == low)
            }
            Checker::Choice(options) => choice(&low, &self.reference, options),
            Checker::Typed(reference) => typed(solution, reference),
            Checker::Tests(tests) => {
                let job = Job { program: solution.into(), setup: String::new(), tests: vec![tests.clone()] };
                let report = rules.sandbox.judge(&job).map_err(hone_worlds::Error::from)?;
                report.verdict == Verdict::Passed
            }
            Checker::World(task) => task.check(solution)?.right,
        })
    }

    /// What the oracle of a world says of a solution. `None` for tasks of other sets.
    ///
    /// # Errors
    /// As [`Instance::check`].
    pub fn explain(&self, solution: &str, detail: Detail) -> Result<Option<String>> {
        match &self.checker {
            Checker::World(task) => Ok(Some(task.explain(solution, detail)?)),
            _ => Ok(None),
        }
    }

    /// The task of a world.
    pub fn task(&self) -> Option<&dyn Task> {
        match &self.checker {
            Checker::World(task) => Some(task.as_ref()),
            _ => None,
        }
    }
}

/// Whether two numbers are the same within a share of the first; `None` if one is none.
fn near(reference: &str, answer: &str, share: f64) -> Option<bool> {
    let (reference, answer): (f64, f64) = (reference.parse().ok()?, answer.parse().ok()?);
    Some((reference - answer).abs() <= share * reference.abs())
}

/// `Options: A ) one , B ) two` as letters and texts, in lower case.
fn options(prompt: &str) -> Vec<(String, String)> {
    let all = prompt.rsplit("Options: ").next().unwrap_or_default();
    let option = |text: &str| {
        let mut parts = text.trim_matches(['[', ']', '\'', ' ']).split(')');
        let letter = parts.next()?.trim().to_lowercase();
        Some((letter, parts.next()?.to_lowercase().trim_matches('.').trim().to_string()))
    };
    all.split(" , ").filter_map(option).collect()
}

/// The published rule: the letter anywhere in the solution, or the option's text and no other's.
fn choice(solution: &str, reference: &str, options: &[(String, String)]) -> bool {
    // Only the letter a is looked for by itself before the whole text is; parity, not sense.
    let answer = if solution.contains("a)") || solution.contains("a )") { "a" } else { solution };
    let same = |one: &str, other: &str| match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(one), Ok(other)) => (one as f64 - other as f64).abs() <= 0.05 * one as f64,
        _ => other.contains(one),
    };
    if same(reference, answer) {
        return true;
    }
    let Some((_, right)) = options.iter().find(|(letter, _)| letter == reference) else { return false };
    let mut others = options.iter().filter(|(_, text)| !right.contains(text.as_str()));
    !others.any(|(_, text)| same(text, answer) || answer.contains(text)) && same(right, answer)
}

/// A typed answer: numbers within 4 %, whole ones after rounding, lists element by element once sorted.
fn typed(solution: &str, reference: &Value) -> bool {
    let mut text = solution.trim();
    for mark in ["=", "≈"] {
        text = text.rsplit(mark).next().unwrap_or(text).trim();
    }
    let mut text = text.replace(['`', '$', '°'], "").replace("approximately", "").replace("10^", "10**");
    text = text
        .split(" or ")
        .next()
        .unwrap_or_default()
        .replace(" x ", "*")
        .replace(" × ", "*")
        .trim()
        .to_string();
    let low = text.to_lowercase();
    match reference {
        Value::Bool(right) => {
            let said = match low.as_str() {
                "true" | "yes" => Some(true),
                "false" | "no" => Some(false),
                _ if text.contains("True") => Some(true),
                _ if text.contains("False") => Some(false),
                _ => None,
            };
            said == Some(*right)
        }
        Value::Number(right) => alone(&text).is_some_and(|said| same(said, right)),
        Value::Array(right) => {
            let inner = text.trim_matches(['[', ']', '(', ')', '{', '}']);
            let said: Option<Vec<f64>> = inner
                .split(',')
                .filter(|part| !part.trim().is_empty())
                .map(|part| number(part.trim()))
                .collect();
            let Some(mut said) = said.filter(|said| said.len() == right.len()) else { return false };
            let mut right: Vec<&serde_json::Number> = right
                .iter()
                .filter_map(|value| if let Value::Number(n) = value { Some(n) } else { None })
                .collect();
            right.sort_by(|a, b| a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)));
            said.sort_by(f64::total_cmp);
            right.len() == said.len() && said.iter().zip(right).all(|(said, right)| same(*said, right))
        }
        Value::String(right) => {
            let wanted = right.trim_matches(['(', ')']).to_lowercase();
            low.trim_matches(['(', ')']) == wanted
                || ["a", "b", "c", "d"].contains(&&*wanted) && low.contains(&format!("{wanted})"))
        }
        _ => false,
    }
}

/// The number of a text that is a number with perhaps a unit beside it.
fn alone(text: &str) -> Option<f64> {
    let plain = |text: &str| number(text).or_else(|| number(&text.replace(',', "")));
    plain(text).or_else(|| match text.split_once(' ') {
        Some((one, other)) if !other.contains(|c: char| c.is_ascii_digit() || c == ' ') => plain(one),
        Some((one, other)) if !one.contains(|c: char| c.is_ascii_digit()) => plain(other),
        _ => plain(text.trim_matches(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '+' | '.'))),
    })
}

fn same(said: f64, right: &serde_json::Number) -> bool {
    match right.as_i64() {
        // As in Python, a half rounds to the even number.
        Some(right) => said.round_ties_even() == right as f64,
        None => right.as_f64().is_some_and(|right| (said - right).abs() <= 0.04 * right.abs()),
    }
}

/// The instances of the sets in a folder (`gsm8k.jsonl`, …), at most `most` of each.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] for a row that is no instance, or a folder without a set.
pub fn read(folder: &Path, most: usize) -> Result<Vec<Instance>> {
    let mut all = vec![];
    for set in ["gsm8k", "hotpotqa", "math", "mmlu", "theoremqa", "humaneval", "mbpp"] {
        let path = folder.join(format!("{set}.jsonl"));
        if !path.exists() {
            continue;
        }
        for (index, row) in crate::evaluate::rows(&path)?.iter().take(most).enumerate() {
            all.push(Instance::from_row(set, row).ok_or_else(|| Error::File {
                path: path.display().to_string(),
                problem: format!("row {}: needs `id`, `prompt` and `reference`, got {row:.80}", index + 1),
            })?);
        }
    }
    match all.is_empty() {
        true => Err(Error::File {
            path: folder.display().to_string(),
            problem: "needs a folder with gsm8k.jsonl, math.jsonl or another set, got none of them".into(),
        }),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use hone_worlds::sandbox::{Limits, Mode};
    use serde_json::json;

    use super::*;

    fn rules(strict: bool) -> Rules {
        Rules { sandbox: Arc::new(Sandbox::open(Mode::Strict, Limits::default()).unwrap()), strict }
    }

    #[test]
    fn short_answers() {
        let (loose, strict) = (rules(false), rules(true));
        let number = Instance::short("gsm8k", "0", "q", "100");
        let check = |instance: &Instance, answer: &str| {
            (instance.check(answer, &loose).unwrap(), instance.check(answer, &strict).unwrap())
        };
        assert_eq!(check(&number, " 100.0 "), (true, true));
        // 5 % of 100.
        assert_eq!((check(&number, "105"), check(&number, "106")), ((true, false), (false, false)));
        assert_eq!(check(&number, "she has 100 left"), (true, false));
        // The tolerance of a negative reference is not negative.
        assert_eq!(check(&Instance::short("math", "2", "q", "-108.0"), "-108"), (true, true));
    }

    #[test]
    fn choices_and_typed_answers() {
        let (loose, strict) = (rules(false), rules(true));
        let row =
            json!({"id": "0", "prompt": "Which? Options: A ) 6 , B ) 121 , C ) 18107", "reference": "c"});
        let choice = Instance::from_row("mmlu", &row).unwrap();
        assert!(choice.check("C) 18107", &loose).unwrap() && choice.check("C) 18107", &strict).unwrap());
        assert!(choice.check("18107", &loose).unwrap() && !choice.check("121", &loose).unwrap());
        // A letter within a word counts as published, not in the strict form.
        assert!(choice.check("a catch", &loose).unwrap() && !choice.check("a catch", &strict).unwrap());
        let typed = |reference: Value, answer: &str| {
            let row = json!({"id": 1, "prompt": "q", "reference": reference});
            Instance::from_row("theoremqa", &row).unwrap().check(answer, &loose).unwrap()
        };
        assert!(typed(json!([0, 5]), "[5, 0]") && !typed(json!([0, 5]), "[0, 5, 5]"));
        assert!(typed(json!(1.12), "x = 1.118") && !typed(json!(1.12), "1.06"));
        assert!(typed(json!(3), "3.4") && !typed(json!(3), "3.6") && typed(json!(3.0), "3 meters"));
        assert!(typed(json!(false), "False") && !typed(json!(true), "no"));
        assert!(typed(json!("b"), "(b)") && typed(json!(2000.0), "2 x 10^3") && !typed(json!(2), "none"));
    }

    #[test]
    fn programs_are_run() {
        let rules = rules(false);
        let row = json!({"id": "0", "prompt": "\"\"\"\nAdd.\n\"\"\"", "reference": "assert add(1, 2) == 3\r\nassert add(0, 0) == 0"});
        let instance = Instance::from_row("mbpp", &row).unwrap();
        assert_eq!(instance.prompt, "Add.");
        assert!(instance.check("def add(a, b):\n    return a + b", &rules).unwrap());
        assert!(!instance.check("def add(a, b):\n    return 3", &rules).unwrap());
        assert!(!instance.check("raise SystemExit(0)", &rules).unwrap());
        assert!(Instance::from_row("chess", &row).is_none());
    }
}
