//! `hone improve` and `hone run`, on a small log and with the built-in model.

use std::path::Path;

use super::{hone, text};

fn log(folder: &Path, forms: &str) {
    let made = hone(
        folder,
        &["simulate", "notes", "--out", "log.jsonl", "--form", forms, "--prompts", "60", "--level", "2"],
    );
    assert!(made.status.success(), "{}", text(&made.stderr));
}

#[test]
fn the_plan_is_printed_and_nothing_written() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), "thumb,comparison,edit");
    let planned = hone(folder.path(), &["improve", "log.jsonl", "--dry-run"]);
    assert!(planned.status.success(), "{}", text(&planned.stderr));
    let said = text(&planned.stdout);
    for part in [
        "step 1  sft",
        "dpo (DPO)",
        "reward-pairs",
        "not     kto:",
        "held out, split by a hash of the prompt",
    ] {
        assert!(said.contains(part), "{part} not in\n{said}");
    }
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["log.jsonl"]);
}

#[test]
fn a_run_ends_in_a_table_a_report_and_a_status() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), "edit");
    let arguments = ["improve", "log.jsonl", "--method", "sft", "--budget", "20s", "--out", "out"];
    let run = hone(folder.path(), &arguments);
    let said = text(&run.stdout);
    let improved = said.contains("\nImproved") || said.contains("\nMixed");
    assert_eq!(run.status.code(), Some(if improved { 0 } else { 3 }), "{said}{}", text(&run.stderr));
    assert!(said.contains("right answers, %") && said.contains("negative log-likelihood"), "{said}");
    let page = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(
        page.contains("hone improve log.jsonl --method sft")
            || page.contains("improve log.jsonl --method sft")
    );
    assert!(folder.path().join("out/metrics.jsonl").exists());
    let again = hone(folder.path(), &arguments);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("a run is here already; go on with --resume"));
    // A finished run that is resumed says the same again.
    let resumed = hone(folder.path(), &[&arguments[..], &["--resume"]].concat());
    let table = |said: &str| said.split_once("\nmeasure, ").map(|(_, rest)| rest.to_string());
    assert_eq!(table(&text(&resumed.stdout)), table(&said));
}

#[test]
fn what_cannot_be_done_is_named() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), "thumb");
    let refused = |arguments: &[&str]| {
        let run = hone(folder.path(), arguments);
        assert_eq!(run.status.code(), Some(2), "{arguments:?}");
        text(&run.stderr)
    };
    assert!(refused(&["improve", "log.jsonl", "--method", "ktoo"]).contains("the nearest is `kto`"));
    assert!(refused(&["improve", "log.jsonl", "--method", "sft"]).contains("it could feed"));
    assert!(refused(&["improve", "log.jsonl", "--budget", "soon"]).contains("a time such as 90s, 10m or 2h"));
    assert!(refused(&["improve", "none.jsonl"]).contains("none.jsonl"));
    std::fs::write(folder.path().join("r.toml"), "method = \"dpo\"\ndata = \"x\"\n[settings]\nbetta = 1.0\n")
        .unwrap();
    assert!(
        refused(&["run", "r.toml"])
            .contains("r.toml: settings of `dpo`: unknown key `betta`; the nearest is `beta`")
    );
}

#[test]
fn a_recipe_is_planned_with_its_own_settings() {
    let folder = tempfile::tempdir().unwrap();
    log(folder.path(), "comparison");
    let recipe = "method = \"dpo\"\ndata = \"log.jsonl\"\n[settings.training]\nbatch_size = 8\n";
    std::fs::write(folder.path().join("dpo.toml"), recipe).unwrap();
    let planned = hone(folder.path(), &["run", "dpo.toml", "--set", "training.epochs=2", "--dry-run"]);
    assert!(planned.status.success(), "{}", text(&planned.stderr));
    let said = text(&planned.stdout);
    assert!(said.contains("budget  none") && said.contains("step 1  dpo (DPO): asked for by name"), "{said}");
}
