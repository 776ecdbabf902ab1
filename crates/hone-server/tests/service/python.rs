//! The official Python client, unchanged. `HONE_PYTHON` names a Python that has it (`pip install openai`).

use std::process::Command;

use crate::client::Service;
use crate::mock::{Fault, Mock};

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_client_works_unchanged() {
    let Some(python) = std::env::var_os("HONE_PYTHON") else {
        eprintln!("NOT TESTED: HONE_PYTHON names no Python with the `openai` package");
        return;
    };
    // The last request meets a refusal, which the client must know as its own kind of error.
    let mut service = Service::before(&[&Mock::start(&[]).await]).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/openai_client.py");
    let refusing = Service::before(&[&Mock::start(&[Fault::Status(400); 1]).await]).await;
    let (base, other) = (service.base.clone(), refusing.base.clone());
    let run = move || Command::new(python).args([script, &base, &other]).output();
    let output = tokio::task::spawn_blocking(run).await.expect("thread").expect("python");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim_end().ends_with("fine"), "{said}");
    assert_eq!(service.records().await.len(), 3);
}
