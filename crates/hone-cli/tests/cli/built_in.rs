//! Making a model from the worlds, and measuring models.

use super::{hone, text};

#[test]
fn a_model_is_made_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = ["--size", "0.1m", "--steps", "4", "--step-tokens", "500", "--worlds", "sums"];
    let made = hone(folder.path(), &[&["pretrain", "--out", "run"], &sizes[..]].concat());
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("run/model after 4 steps of "), "{}", text(&made.stdout));
    assert!(text(&made.stderr).contains("step 4/4  loss "), "{}", text(&made.stderr));
    let shown = hone(folder.path(), &["model", "show", "run/model"]);
    assert!(text(&shown.stdout).contains("stored as     bfloat16"), "{}", text(&shown.stdout));

    let again = hone(folder.path(), &[&["pretrain", "--out", "run"], &sizes[..]].concat());
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));

    let eval = ["eval", "run/model", "--world", "sums", "--prompts", "6", "-n", "2", "--max-tokens", "20"];
    let out = ["--json", "--samples", "said.jsonl", "--against", "run/model"];
    let measured = hone(folder.path(), &[&eval[..], &out].concat());
    assert!(measured.status.success(), "{}", text(&measured.stderr));
    let report: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert_eq!((report["prompts"].as_u64(), report["on"].as_str()), (Some(6), Some("sums level 4")));
    // The same model on the same prompts with the same seed says the same.
    assert_eq!(report["against"]["difference"]["estimate"], 0.0);
    let said = std::fs::read_to_string(folder.path().join("said.jsonl")).unwrap();
    assert_eq!(said.lines().count(), 12);
    let table = hone(folder.path(), &eval);
    assert!(text(&table.stdout).contains("  format errors"), "{}", text(&table.stdout));
}

#[test]
fn a_log_with_edits_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let done = hone(folder.path(), arguments);
        assert!(done.status.success(), "{}", text(&done.stderr));
        done
    };
    run(&["simulate", "notes", "--out", "log.jsonl", "--form", "edit", "--prompts", "8"]);
    run(&[
        "pretrain",
        "--out",
        "run",
        "--size",
        "0.1m",
        "--steps",
        "2",
        "--step-tokens",
        "200",
        "--worlds",
        "notes",
    ]);
    let measured =
        run(&["eval", "run/model", "--data", "log.jsonl", "-n", "1", "--max-tokens", "8", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&measured.stdout).unwrap();
    // A model that has learnt next to nothing: near ln 1024 = 6.9 nats per token.
    let nll = report["reference"]["nll"]["estimate"].as_f64().unwrap();
    assert!(nll > 4.0 && nll < 9.0, "{report}");
}

#[test]
fn what_cannot_be_made_or_measured_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, needle) in [
        (&["eval", "none", "--world", "sums"][..], "none"),
        (&["eval", "--world", "sums"], "--model"),
        (&["eval", "none"], "--world"),
        (&["pretrain", "--out", "run", "--size", "9b"], "0.1m, 0.7m, 2m, 3m"),
        (&["pretrain", "--out", "run", "--worlds", "chess"], "sums"),
        (&["pretrain", "--out", "run", "--roles", "judge"], "answer, criticise, refine or label"),
        (&["pretrain", "--out", "run", "--resume"], "no run in run"),
        (&["pretrain", "--out", "run", "--mix", "none.toml"], "none.toml"),
    ] {
        let output = hone(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(needle), "{arguments:?}: {}", text(&output.stderr));
    }
}
