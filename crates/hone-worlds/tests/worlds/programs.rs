//! Programs, run for real: references, planted bugs, and the data sets' own references.

use std::path::{Path, PathBuf};

use hone_worlds::programs::datasets::{Exercise, humaneval, mbpp};
use hone_worlds::programs::{KINDS, Programs, review};
use hone_worlds::sandbox::{Limits, Mode, Sandbox, Verdict};
use hone_worlds::{Detail, Place, Task, World, seed};

#[test]
fn every_reference_passes() {
    let world = Programs::default();
    for level in world.levels() {
        for drawn in 0..60 {
            let function = world.function(level, drawn).unwrap();
            let check = function.check(&function.reference()).unwrap();
            assert!(check.right, "{}\n{}\n{check:?}", function.prompt(), function.reference());
        }
    }
}

#[test]
fn every_planted_bug_is_found_and_named() {
    let world = Programs::default();
    let mut planted_kinds = std::collections::HashSet::new();
    for level in world.levels() {
        for drawn in 0..25 {
            let function = world.function(level, drawn).unwrap();
            let mut rng = seed::rng(drawn, "bugs");
            for kind in function.plantable() {
                // Each endless loop costs its whole second.
                if kind == "loop" && drawn >= 4 {
                    continue;
                }
                let planted = function.plant(kind, &mut rng).unwrap();
                let shown = format!("{kind}: {}\n{}", function.prompt(), planted.answer);
                let check = function.check(&planted.answer).unwrap();
                let flaw = check.first().unwrap_or_else(|| panic!("{shown}\npasses"));
                assert_eq!((flaw.kind, flaw.place), (kind, planted.place), "{shown}\n{check:?}");
                assert!(check.score < 1.0 && check.well_formed == (kind != "syntax"), "{shown}\n{check:?}");
                let said = function.explain(&planted.answer, Detail::Correction).unwrap();
                assert!(said.starts_with(&format!("{}: {kind}, ", planted.place)), "{shown}\n{said}");
                let Place::Line(line) = planted.place else { panic!("{shown}") };
                let right = function.reference().lines().nth(line).unwrap().trim().to_string();
                assert!(said.ends_with(&format!("use {right}")), "{shown}\n{said}");
                planted_kinds.insert(kind);
            }
        }
    }
    assert_eq!(planted_kinds.len(), KINDS.len());
}

#[test]
fn feedback_is_the_interpreters_or_the_reviewers() {
    let function = Programs::default().function(1, 1).unwrap();
    let reference = function.reference();
    assert_eq!(function.traceback(&reference).unwrap(), None);
    let wrong = function.plant("name", &mut seed::rng(1, "")).unwrap().answer;
    let said = function.traceback(&wrong).unwrap().unwrap();
    assert!(said.starts_with("Traceback") && said.ends_with("NameError: name 'q' is not defined"), "{said}");
    assert_eq!(review::review(&function, &reference, &mut seed::rng(1, "")).unwrap(), None);
    let said = review::review(&function, &wrong, &mut seed::rng(1, "")).unwrap().unwrap();
    assert!(said.contains("line 2") && !said.contains("return"), "{said}");
}

#[test]
fn the_visible_asserts_alone_do_not_pass() {
    let function = Programs::default().function(2, 5).unwrap();
    // A table of what is shown, and nothing for what is not.
    let shown: Vec<String> = function
        .visible()
        .iter()
        .map(|test| test.replacen("assert f(", "(", 1).replacen(") == ", ",): ", 1))
        .collect();
    let sly = format!("def f(*a):\n    return {{{}}}.get(a, 'x')", shown.join(", "));
    let sly = if sly.contains('[') { "def f(*a):\n    return 'x'".to_string() } else { sly };
    let check = function.check(&sly).unwrap();
    assert!(!check.right, "{sly}\n{check:?}");
}

fn data(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The share of references that pass their own tests.
fn passing(name: &str, exercises: &[Exercise]) -> f64 {
    let sandbox = Sandbox::open(Mode::Strict, Limits { memory: 512 << 20, ..Limits::default() }).unwrap();
    let mut failed = Vec::new();
    for exercise in exercises {
        let report = sandbox.judge(&exercise.job(&exercise.reference)).unwrap();
        if report.verdict != Verdict::Passed {
            failed.push(format!("{}: {:?}", exercise.id, report.verdict));
        }
    }
    println!("{name}: {} of {} references pass", exercises.len() - failed.len(), exercises.len());
    println!("{}", failed.join("\n"));
    1.0 - failed.len() as f64 / exercises.len() as f64
}

#[test]
fn mbpp_references_pass() {
    let Some(path) = data("mbpp/mbpp_train_prompt.jsonl") else { return };
    let exercises = mbpp(&path).unwrap();
    assert_eq!(exercises.len(), 473);
    assert!(passing("MBPP", &exercises) >= 0.99);
    let Some(path) = data("mbpp/sanitized_train_prompt.json") else { return };
    let exercises = mbpp(&path).unwrap();
    assert_eq!(exercises.len(), 170);
    assert!(passing("MBPP, sanitized", &exercises) >= 0.99);
}

#[test]
fn humaneval_references_pass() {
    let Some(path) = data("humaneval/humaneval_first82.jsonl") else { return };
    let exercises = humaneval(&path).unwrap();
    assert_eq!(exercises.len(), 82);
    assert!(passing("HumanEval", &exercises) >= 0.99);
    let problem = Programs::new(Mode::Strict, Limits::default()).exercise(exercises[0].clone());
    let fenced = format!("```python\n{}{}```", problem.prompt(), problem.reference());
    assert!(problem.check(&fenced).unwrap().right);
    let check = problem.check("    return 1 / 0\n").unwrap();
    assert!(
        check.flaws[0].kind == "crash" && check.flaws[0].reason == "ZeroDivisionError: division by zero",
        "{check:?}"
    );
}
