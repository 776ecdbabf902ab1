//! A protocol through a live server that fails as servers do.

// The server of the endpoint's own tests; not every part of it is used here.
#[allow(dead_code)]
#[path = "../../hone-lm/tests/lm/server.rs"]
mod server;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::Duration;

use hone_lm::endpoint::{Retry, TimeLimits};
use hone_lm::{Capabilities, Endpoint, EndpointConfig};
use hone_methods::evaluate::journal::Journal;
use hone_methods::evaluate::{Measures, PROTOCOLS, Terms};
use serde_json::{Value, json};
use server::Server;

/// One call of each kind fails in each of these ways before it is answered.
const FAULTS: [&str; 9] = ["none", "429", "429-1s", "500", "hang", "json", "error200", "cut", "nologprobs"];

/// Items in the protocol's own data, and how often the server fails on each before it answers `answer to N`.
fn items() -> Vec<(Value, usize)> {
    let item = |n: usize| {
        // Up to two failures within the four tries; two items fail five times, so they are lost at first.
        let (fault, times) = match n {
            3 => ("500", 5),
            14 => ("json", 5),
            _ => (FAULTS[n % FAULTS.len()], n % 3),
        };
        let row = json!({
            "idx": n, "question": format!("{n}|{fault}|{times}"), "gt": n.to_string(), "reasoning": "",
            "previous_score": [false],
        });
        // Without log-probabilities an answer is still an answer, for none were asked for.
        (row, if matches!(fault, "none" | "nologprobs") { 0 } else { times })
    };
    (0..36).map(item).collect()
}

/// Fails after so long, where a request would hang for good.
fn within(limit: Duration, body: fn()) {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        let outcome = catch_unwind(body);
        done.send(()).ok();
        outcome
    });
    assert!(wait.recv_timeout(limit).is_ok(), "not done within {limit:?}");
    if let Ok(Err(panic)) | Err(panic) = worker.join() {
        resume_unwind(panic);
    }
}

#[test]
fn nothing_is_lost_or_doubled_over_faults_and_an_interruption() {
    within(Duration::from_secs(120), faults_and_an_interruption);
}

fn faults_and_an_interruption() {
    let server = Server::start();
    let able = Capabilities { logprobs: true, seeds: true, ..Capabilities::default() };
    let endpoint = Endpoint::connect(EndpointConfig {
        capabilities: Some(able),
        retry: Retry { attempts: 4, first_wait_s: 0.02, longest_wait_s: 0.1, longest_retry_after_s: 5.0 },
        limits: TimeLimits { connect_s: 2.0, idle_s: 1.0, total_s: 8.0 },
        ..EndpointConfig::new(server.url("full"), "m")
    })
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, kept) = (folder.path().join("data"), folder.path().join("kept"));
    std::fs::create_dir(&data).unwrap();
    let items = items();
    let rows: String = items.iter().map(|(row, _)| format!("{row}\n")).collect();
    std::fs::write(data.join("math.jsonl"), rows).unwrap();
    let settings = "regimes = [\"direct\"]\ndirect = \"{{ question }}\"\nwave = 12".parse().unwrap();
    let protocol = PROTOCOLS.iter().find(|protocol| protocol.method.id == "realcritic").unwrap();
    let go = |resume: bool, on: &mut dyn FnMut(usize, usize)| -> Measures {
        let journal = Journal::open(&kept, &json!({"protocol": "realcritic"}), resume).unwrap();
        let mut terms = Terms {
            model: &endpoint,
            other: None,
            data: &data,
            most: 100,
            settings: &settings,
            seed: 1,
            journal,
            on,
        };
        (protocol.run)(&mut terms).unwrap()
    };
    // The process is stopped after the second wave.
    let stopped = catch_unwind(AssertUnwindSafe(|| go(false, &mut |done, _| assert!(done < 24, "stop"))));
    assert!(stopped.is_err());
    let calls = server.state.total();
    // The first two waves: every failure is tried again, up to four tries each.
    let tries: usize = items.iter().take(24).map(|(_, failures)| (failures + 1).min(4)).sum();
    assert_eq!(calls, tries);

    let mut first = None;
    let measures = go(true, &mut |done, all| {
        first.get_or_insert((done, all));
    });
    // 24 were done, two of them lost: those and the last wave are asked, the others are not.
    assert_eq!(first, Some((22, 36)));
    assert_eq!((measures.lost, measures.value("direct")), (0, Some(1.0)));
    for (n, (row, failures)) in items.iter().enumerate() {
        assert_eq!(server.state.calls_for(&n.to_string()), failures + 1, "{row}");
    }
    let samples = std::fs::read_to_string(kept.join("samples.jsonl")).unwrap();
    let ids: Vec<Value> =
        samples.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["doc_id"].clone()).collect();
    assert_eq!(ids, (0..36).map(|n| json!(format!("math/{n}"))).collect::<Vec<_>>());
    assert_eq!(ids.iter().map(Value::to_string).collect::<HashSet<_>>().len(), 36);
    let results = std::fs::read_to_string(kept.join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["results"]["realcritic"]["direct,none"], 1.0);
}
