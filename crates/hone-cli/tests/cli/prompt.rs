//! Prompts found by choices.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{hone, text};

/// Runs the command with something typed.
fn typed(folder: &Path, arguments: &[&str], lines: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hone"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_person_chooses_at_the_terminal_and_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let candidates = (0..6)
        .map(|at| format!("{{\"text\":\"prompt {at}\",\"embedding\":[{}.0,{}.0,1.0]}}\n", at % 3, at / 3));
    std::fs::write(folder.path().join("c.jsonl"), candidates.collect::<String>()).unwrap();
    let tune = ["prompt", "tune", "--choose", "--candidates", "c.jsonl", "--out", "out", "--rounds", "3"];
    let quick = ["--set", "steps=5", "--set", "first_pairs=2"];
    let tune = [&tune[..], &quick].concat();

    let first = typed(folder.path(), &tune, "l\nt\nwhat\nq\n");
    assert!(first.status.success(), "{}", text(&first.stderr));
    let shown = text(&first.stderr);
    for part in
        ["6 candidates", "choice 1 of 3", "prompt ", "got \"what\"", "1 choices, 1 pairs left undecided"]
    {
        assert!(shown.contains(part), "{part} not in {shown}");
    }
    let again = typed(folder.path(), &tune, "l\n");
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("go on with --resume"), "{}", text(&again.stderr));

    let rest = typed(folder.path(), &[&tune[..], &["--resume", "--by", "anna"]].concat(), "r\nl\n");
    assert!(rest.status.success(), "{}", text(&rest.stderr));
    let found = text(&rest.stdout);
    assert!(found.starts_with("prompt ") && found.lines().count() == 1, "{found}");
    assert_eq!(std::fs::read_to_string(folder.path().join("out/prompt.txt")).unwrap(), found.trim_end());
    let log = std::fs::read_to_string(folder.path().join("out/duels.jsonl")).unwrap();
    assert_eq!((log.lines().count(), log.matches("\"by\":\"anna\"").count()), (4, 2));
    // What was chosen is a log like any other.
    let checked = hone(folder.path(), &["check", "out/duels.jsonl", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(
        (&report["forms"]["comparison"], &report["forms"]["ranking"]),
        (&3.into(), &1.into()),
        "{report}"
    );
}

#[test]
fn simulated_people_choose_between_answers_of_the_built_in_model() {
    let folder = tempfile::tempdir().unwrap();
    let made = hone(
        folder.path(),
        &["simulate", "sums", "--out", "log.jsonl", "--form", "outcome", "--prompts", "4", "--level", "1"],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
    std::fs::write(folder.path().join("c.txt"), "Work it out.\nSay no more than needed.\nAnswer in verse.\n")
        .unwrap();
    let tune = ["prompt", "tune", "log.jsonl", "--candidates", "c.txt", "--rounds", "4"];
    let quick = ["--set", "steps=5", "--set", "first_pairs=2", "--set", "draw.max_tokens=24"];
    for who in [&["--simulate"][..], &["--people", "sample"]] {
        let out = ["--out", who[0].trim_start_matches('-')];
        let done = hone(folder.path(), &[&tune[..], &quick, who, &out].concat());
        // People may find all pairs equal, and then nothing is decided.
        assert!(done.status.code().is_some_and(|code| code < 2), "{}", text(&done.stderr));
        assert!(folder.path().join(out[1]).join("candidates.jsonl").exists());
        if done.status.success() {
            let found = text(&done.stdout);
            assert!(["Work", "Say", "Answer"].iter().any(|word| found.starts_with(word)), "{found}");
        }
    }
    let refused = hone(folder.path(), &["prompt", "tune", "log.jsonl"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--choose"), "{}", text(&refused.stderr));
}
