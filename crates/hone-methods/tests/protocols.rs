//! A protocol through a live server that fails as servers do.

// The server of the endpoint's own tests; not every part of it is used here.
#[allow(dead_code)]
#[path = "../../hone-lm/tests/lm/server.rs"]
mod server;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hone_lm::endpoint::{Retry, TimeLimits};
use hone_lm::{Capabilities, Endpoint, EndpointConfig};
use hone_methods::evaluate::journal::Journal;
use hone_methods::evaluate::realcritic::{Item, RealCritic, Regime, measure};
use serde_json::{Value, json};
use server::Server;

const FAULTS: [&str; 9] = ["none", "429", "429-1s", "500", "hang", "json", "error200", "cut", "nologprobs"];

/// Questions that the server fails on in the stated way before it answers `answer to N`.
fn items() -> Vec<Item> {
    (0..36)
        .map(|n| {
            let fault = FAULTS[n % FAULTS.len()];
            // Up to two failures within the four tries; two questions fail five times, so once for good.
            let times = if n == 3 || n == 14 { 5 } else { n % 3 };
            let fault = if n == 14 { "json" } else { fault };
            let question = format!("{n}|{fault}|{times}");
            let candidate = String::new();
            Item {
                set: "math".into(),
                id: n.to_string(),
                question,
                reference: n.to_string(),
                candidate,
                right: false,
                task: None,
            }
        })
        .collect()
}

#[test]
fn nothing_is_lost_or_doubled_over_faults_and_an_interruption() {
    let server = Server::start();
    let able = Capabilities { logprobs: true, seeds: true, ..Capabilities::default() };
    let endpoint = Endpoint::connect(EndpointConfig {
        capabilities: Some(able),
        retry: Retry { attempts: 4, first_wait_s: 0.02, longest_wait_s: 0.1, longest_retry_after_s: 5.0 },
        limits: TimeLimits { connect_s: 2.0, idle_s: 1.0, total_s: 8.0 },
        ..EndpointConfig::new(server.url("full"), "m")
    })
    .unwrap();
    let own = RealCritic {
        regimes: vec![Regime::Direct],
        direct: "{{ question }}".into(),
        wave: 12,
        ..RealCritic::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let what = json!({"protocol": "realcritic"});
    let items = items();
    let go = |resume: bool, on: &mut dyn FnMut(usize, usize)| {
        let mut journal = Journal::open(folder.path(), &what, resume).unwrap();
        measure(&endpoint, &items, &own, 1, &mut journal, on).unwrap()
    };
    // The process is stopped after the second wave.
    let stopped = catch_unwind(AssertUnwindSafe(|| go(false, &mut |done, _| assert!(done < 24, "stop"))));
    assert!(stopped.is_err());
    let calls = server.state.total();

    let mut first = None;
    let measures = go(true, &mut |done, all| {
        first.get_or_insert((done, all));
    });
    // 24 were done, two of them lost: those and the last wave are asked, the others are not.
    assert_eq!(first, Some((22, 36)));
    assert_eq!((measures.lost, measures.value("direct")), (0, Some(1.0)));
    assert!(server.state.total() > calls);
    for (n, item) in items.iter().enumerate() {
        let (fault, times) = item.question.split_once('|').unwrap().1.split_once('|').unwrap();
        // Without log-probabilities an answer is still an answer, for none were asked for.
        let failures =
            if matches!(fault, "none" | "nologprobs") { 0 } else { times.parse::<usize>().unwrap() };
        assert_eq!(server.state.calls_for(&n.to_string()), failures + 1, "{}", item.question);
    }
    let samples = std::fs::read_to_string(folder.path().join("samples.jsonl")).unwrap();
    let ids: Vec<Value> =
        samples.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["doc_id"].clone()).collect();
    assert_eq!(ids, (0..36).map(|n| json!(format!("math/{n}"))).collect::<Vec<_>>());
    assert_eq!(ids.iter().map(Value::to_string).collect::<HashSet<_>>().len(), 36);
    let results = std::fs::read_to_string(folder.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["results"]["realcritic"]["direct,none"], 1.0);
}
