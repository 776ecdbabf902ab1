//! The command as a user meets it: exit status, what is printed, what is written.

#[path = "cli/built_in.rs"]
mod built_in;
#[path = "cli/critique.rs"]
mod critique;
#[path = "cli/improve.rs"]
mod improve;
#[path = "cli/prompt.rs"]
mod prompt;
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/steer.rs"]
mod steer;

use std::path::Path;
use std::process::{Command, Output};

fn hone(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hone")).args(arguments).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_simulated_log_is_checked_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let forms = "thumb,comparison,critique,edit";
    let made =
        hone(folder.path(), &["simulate", "notes", "--out", "log.jsonl", "--form", forms, "--prompts", "30"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert_eq!(text(&made.stdout), "30 records in log.jsonl\n");

    let checked = hone(folder.path(), &["check", "log.jsonl", "--json"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(report["records"], 30);
    assert_eq!(report["refused"], 0);
    for form in forms.split(',') {
        assert!(report["forms"][form].as_u64().unwrap() > 0, "{form}: {}", report["forms"]);
    }

    let converted =
        hone(folder.path(), &["convert", "log.jsonl", "pairs.jsonl.gz", "--to", "trl-preference"]);
    assert!(converted.status.success(), "{}", text(&converted.stderr));
    let back = hone(folder.path(), &["check", "pairs.jsonl.gz", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&back.stdout).unwrap();
    assert!(report["forms"]["comparison"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_bad_row_stops_a_conversion_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("log.jsonl"),
        "{\"prompt\":\"a\",\"chosen\":\"b\",\"rejected\":\"c\"}\n{\"prompt\":1}\n",
    )
    .unwrap();
    let converted = hone(folder.path(), &["convert", "log.jsonl", "out.jsonl", "--to", "hone"]);
    assert_eq!(converted.status.code(), Some(2));
    assert!(text(&converted.stderr).contains("log.jsonl:2: "), "{}", text(&converted.stderr));
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log.jsonl"]);
}

#[test]
fn a_log_without_feedback_may_not_train() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log.jsonl"), "").unwrap();
    let checked = hone(folder.path(), &["check", "log.jsonl"]);
    assert!(!checked.status.success());
}

#[test]
fn a_fresh_model_is_shown_and_a_wrong_size_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = ["--vocab", "64", "--width", "32", "--layers", "2", "--heads", "4", "--feed-forward", "48"];
    let made = hone(folder.path(), &[&["model", "new", "tiny"], &sizes[..]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    let shown = hone(folder.path(), &["model", "show", "tiny"]);
    assert!(text(&shown.stdout).contains("vocabulary    64, tied"), "{}", text(&shown.stdout));

    let refused = hone(folder.path(), &["model", "new", "odd", "--heads", "5"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("--heads: needs a divisor of 192, got 5"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn methods_are_listed_shown_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let listed = text(&hone(folder.path(), &["methods"]).stdout);
    assert!(listed.starts_with("imitate\n  "), "{listed}");
    assert!(listed.contains("\npreference\n") && listed.contains("\n  dpo "), "{listed}");

    let shown = text(&hone(folder.path(), &["methods", "show", "dpo"]).stdout);
    for part in
        ["DPO (dpo), preference\n", "\nWHAT IT DOES\n  ", "\n  beta = 0.1\n", "hone run recipes/dpo.toml\n"]
    {
        assert!(shown.contains(part), "{part} not in {shown}");
    }
    let found = text(&hone(folder.path(), &["methods", "search", "odds", "ratio"]).stdout);
    assert!(found.contains("\n  orpo  "), "{found}");

    let output = hone(folder.path(), &["methods", "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let methods = listed.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(all.as_array().unwrap().len(), methods);
    assert!(all.as_array().unwrap().iter().any(|m| m["id"] == "kto" && m["settings"]["beta"] == 0.1));
}

#[test]
fn claims_are_run_and_their_table_written() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["reproduce", "best-of-n", "--seeds", "2", "--json", "--out", "claims.md"];
    let output = hone(folder.path(), &arguments);
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(findings[0]["claim"], "claim_beats_one_answer");
    assert_eq!(findings[0]["effects"].as_array().unwrap().len(), 2);
    // The status says what the finding says.
    let holds = findings[0]["holds"].as_bool().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(!holds)), "{findings}");
    assert!(text(&output.stderr).contains("1/1 best-of-n: claim_beats_one_answer, seed 2 of 2\n"));
    let table = std::fs::read_to_string(folder.path().join("claims.md")).unwrap();
    assert!(table.contains("`hone reproduce best-of-n --seeds 2`"), "{table}");
    assert!(table.contains(if holds { "| holds |" } else { "| **does not hold** |" }), "{table}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, needle) in [
        (&["check", "none.jsonl"][..], "none.jsonl"),
        (&["simulate", "chess", "--out", "x"], "sums"),
        (&["convert", "a", "b", "--to", "word"], "--to word: needs one of"),
        (&["generate", "--model", "none", "--prompt", "hi"], "none"),
        (&["model", "show", "none"], "config.json"),
        (&["methods", "show", "dppo"], "the nearest is `dpo`"),
        (&["reproduce", "ktoo"], "the nearest is `kto`"),
        (&["reproduce", "dpo", "--seeds", "1"], "--seeds"),
    ] {
        let output = hone(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(needle), "{arguments:?}: {}", text(&output.stderr));
    }
}
