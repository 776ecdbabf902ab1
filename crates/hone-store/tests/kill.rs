//! `kill -9` in the middle of load: every acknowledged write is there, none twice.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use hone_feedback::Form;
use hone_store::open;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive() {
    let folder = tempfile::tempdir().expect("folder");
    // Examples are built beside the tests.
    let mut program = std::env::current_exe().expect("this program");
    program.pop();
    program.set_file_name("examples");
    let program = program.join("load");
    for (round, acknowledged) in [1, 300, 1500].into_iter().enumerate() {
        let address = folder.path().join(format!("{round}.db")).display().to_string();
        let mut child = Command::new(&program)
            .args([&address, "16", "1000000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example `load`");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let mut told: Vec<String> =
            lines.by_ref().take(acknowledged).map(|line| line.expect("line")).collect();
        child.kill().expect("kill");
        child.wait().expect("wait");
        told.extend(lines.map_while(Result::ok));
        let store = open(&address).await.expect("open");
        let mut stored = HashSet::new();
        for client in 0..16 {
            let record = store.get(&format!("r{client}")).await.expect("get").expect("record");
            for item in record.feedback {
                let Form::Event { value: Some(number), .. } = item.form else { panic!("{item:?}") };
                assert!(stored.insert(format!("{client} {number}")), "{client} {number} twice");
            }
        }
        let lost: Vec<&String> = told.iter().filter(|line| !stored.contains(*line)).collect();
        assert!(lost.is_empty() && told.len() >= acknowledged, "round {round}: lost {lost:?}");
    }
}
