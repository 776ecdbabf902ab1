//! Criticising and refining at the command line.

use serde_json::Value;

use super::{hone, text};

fn lines(path: &std::path::Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sums(folder: &std::path::Path) {
    let made = hone(
        folder,
        &["simulate", "sums", "--out", "log.jsonl", "--form", "outcome", "--prompts", "6", "--level", "2"],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn a_log_is_criticised_goes_on_and_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    sums(folder.path());
    let ask = ["critique", "log.jsonl", "--critic", "verifier", "--critic", "tiny", "--out", "said"];
    let done = hone(folder.path(), &[&ask[..], &["--log", "again.jsonl", "--json"]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let counts: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((counts["critiques"].as_u64(), counts["checks"].as_u64()), (Some(12), Some(12)), "{counts}");
    assert_eq!(counts["cost"]["calls"], 12);
    let rows = lines(&folder.path().join("said/samples.jsonl"));
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|row| row["critique"]["right"].is_boolean()), "{rows:?}");
    let checked = hone(folder.path(), &["check", "again.jsonl", "--json"]);
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert!(report["forms"]["critique"].as_u64() >= Some(12), "{report}");

    let refused = hone(folder.path(), &ask);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--resume"), "{}", text(&refused.stderr));
    // As if it had been stopped after five: the rest is asked, and nothing twice.
    let samples = folder.path().join("said/samples.jsonl");
    let five: String =
        std::fs::read_to_string(&samples).unwrap().lines().take(5).map(|l| format!("{l}\n")).collect();
    std::fs::write(&samples, five + "{\"cut").unwrap();
    let again = hone(folder.path(), &[&ask[..], &["--resume"]].concat());
    assert!(text(&again.stderr).starts_with("critique: 5 of 12\n"), "{}", text(&again.stderr));
    assert_eq!(lines(&samples).len(), 12);
}

#[test]
fn prompts_are_refined_within_their_budget() {
    let folder = tempfile::tempdir().unwrap();
    sums(folder.path());
    for (method, critic, set, calls) in [
        ("iad", "verifier", "per_round=2", 4),
        ("best-of-n", "verifier", "per_round=2", 4),
        ("self-refine", "tiny", "iterations=1", 4),
    ] {
        let ask = ["refine", "log.jsonl", "--method", method, "--critic", critic, "--set", set];
        let rest =
            ["--budget", "calls=4", "--max-tokens", "64", "--critic-tokens", "64", "--out", method, "--json"];
        let done = hone(folder.path(), &[&ask[..], &rest].concat());
        assert!(done.status.success(), "{method}: {}", text(&done.stderr));
        let report: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(report["quality"], "true score", "{report}");
        let points = report["points"].as_array().unwrap();
        let of = |key: &str| points.iter().map(|point| point[key].as_f64().unwrap()).collect::<Vec<_>>();
        assert!(of("calls").windows(2).all(|pair| pair[0] <= pair[1]), "{report}");
        for row in lines(&folder.path().join(method).join("samples.jsonl")) {
            let rounds = row["trace"]["rounds"].as_array().unwrap();
            assert!(row["trace"]["cost"]["calls"].as_u64().unwrap() <= calls, "{row}");
            assert_eq!(row["truth"].as_array().unwrap().len(), rounds.len(), "{row}");
            assert!(row["answer"].is_string(), "{row}");
        }
    }
}

#[test]
fn wrong_flags_are_named() {
    let folder = tempfile::tempdir().unwrap();
    sums(folder.path());
    for (arguments, needle) in [
        (&["critique", "log.jsonl", "--critic", "none"][..], "--critic none"),
        (&["critique", "log.jsonl", "--critic", "http://localhost:1/v1"], "needs URL#NAME"),
        (&["critique", "log.jsonl", "--critic", "tiny", "--form", "prose"], "needs one of json, world"),
        (
            &["refine", "log.jsonl", "--method", "iad", "--critic", "verifier", "--budget", "many"],
            "needs calls=N",
        ),
        (&["refine", "log.jsonl", "--method", "magic", "--critic", "verifier"], "needs one of self-refine"),
        (
            &["refine", "log.jsonl", "--method", "iad", "--critic", "verifier", "--set", "round=3"],
            "the nearest is",
        ),
    ] {
        let output = hone(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(needle), "{arguments:?}: {}", text(&output.stderr));
    }
}
