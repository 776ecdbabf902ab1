//! Feedback in every form, early, repeated, many at once; and what follows from it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hone_server::WebhookConfig;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Service, json_of};
use crate::mock::Mock;

/// Every form on the answer `on`; `other` is a second answer.
fn forms(on: &str, other: &str) -> Vec<Value> {
    vec![
        json!({"form": "thumb", "on": on, "value": true, "by": "user:1"}),
        json!({"form": "rating", "on": on, "value": 4, "scale": [1, 5], "aspect": "helpful"}),
        json!({"form": "comparison", "better": on, "worse": other}),
        json!({"form": "ranking", "order": [[on], [other]]}),
        json!({"form": "critique", "on": on, "text": "Too short."}),
        json!({"form": "edit", "on": on, "content": "Hello there."}),
        json!({"form": "span", "on": on, "start": 0, "end": 5, "label": "greeting", "value": 1}),
        json!({"form": "step", "on": on, "index": 0, "correct": true}),
        json!({"form": "outcome", "on": on, "check": "tests", "passed": false, "text": "Traceback"}),
        json!({"form": "event", "on": on, "event": "copied"}),
        json!({"form": "rule", "text": "no emojis", "scope": "mail"}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_is_stored_as_it_came() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    // An exchange with two answers.
    let record = json!({"id": "x", "prompt": "p", "responses": [{"id": "x", "content": "Hello."}, {"id": "x.1", "content": "Hi."}]});
    let import = service.request(Method::POST, "/v1/import").header("content-type", "application/x-ndjson");
    let (status, body) = json_of(import.body(record.to_string()).send().await.expect("import")).await;
    assert_eq!((status, &body["records"], &body["refused"]), (200, &1.into(), &0.into()));
    for item in forms("x", "x.1") {
        let (status, body) = json_of(service.post("/v1/feedback", item.clone()).await).await;
        assert_eq!((status, &body["state"]), (201, &"joined".into()), "{item}: {body}");
        assert!(body["id"].as_str().is_some_and(|id| id.starts_with("fb-")));
    }
    let (_, exported) = json_of(service.get("/v1/exchanges/x").await).await;
    let mut stored = exported["feedback"].as_array().expect("feedback").clone();
    for item in &mut stored {
        // The time is the store's.
        assert!(item.as_object_mut().and_then(|item| item.shift_remove("at")).is_some());
    }
    let rule = stored.len();
    assert_eq!(stored, forms("x", "x.1")[..rule]);
    // The rule is about no answer, so it has an exchange of its own.
    assert_eq!(rule, 10);
    let log = service.get("/v1/export").await.text().await.expect("log");
    assert_eq!(log.lines().count(), 2);
    assert!(log.lines().nth(1).is_some_and(|line| line.contains("no emojis")));
    let lines = service.stopped().await.lines(0, 10).await.expect("lines").lines;
    assert_eq!(lines, log.lines().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_before_its_answer_is_joined() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    let thumb = json!({"form": "thumb", "response_id": "chatcmpl-1", "value": false});
    let (status, body) = json_of(service.post("/v1/feedback", thumb).await).await;
    assert_eq!((status, &body["state"]), (202, &"early".into()));
    let (_, waiting) = json_of(service.get("/v1/feedback/waiting").await).await;
    assert_eq!(waiting[0]["names"], "response chatcmpl-1");
    service.chat(|_| {}).await;
    for _ in 0..200 {
        let (status, body) = json_of(service.get("/v1/exchanges/chatcmpl-1").await).await;
        if status == 200 {
            assert_eq!(body["feedback"][0]["value"], false);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the exchange was not stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn sent_again_it_is_stored_once() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    let give = async |value: bool| {
        let request =
            service.request(Method::POST, "/v1/feedback").header("content-type", "application/json");
        let body = json!({"form": "thumb", "on": "a", "value": value}).to_string();
        json_of(request.header("idempotency-key", "k1").body(body).send().await.expect("answer")).await
    };
    let (first, receipt) = give(true).await;
    let (second, again) = give(true).await;
    assert_eq!((first, second, &again["state"]), (202, 200, &"repeated".into()));
    assert_eq!(receipt["id"], again["id"]);
    let (status, body) = give(false).await;
    assert_eq!((status, &body["error"]["code"]), (422, &"idempotency_key_reused".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    service.chat(|_| {}).await;
    for _ in 0..200 {
        if service.get("/v1/exchanges/chatcmpl-1").await.status() == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (item, param, words) in [
        (json!({"on": "a"}), "form", "form: needed text, got nothing"),
        (json!({"form": "smile"}), "form", "form: needed one of thumb, rating"),
        (json!({"form": "thumb", "on": "a", "value": 1}), "value", "value: needed true or false, got 1"),
        (json!({"form": "critique", "text": "bad"}), "on", "on: needed a response or an exchange"),
        (json!({"form": "rating", "on": "a", "value": 9, "scale": [1, 5]}), "value", "value: needed"),
        (json!({"form": "span", "on": "chatcmpl-1", "start": 0, "end": 900}), "end", "end: needed"),
        (json!({"form": "thumb", "on": "a", "value": true, "key": 5}), "key", "key: needed text, got 5"),
    ] {
        let (status, body) = json_of(service.post("/v1/feedback", item.clone()).await).await;
        assert!(matches!(status, 400 | 422), "{item}: {status}");
        let message = body["error"]["message"].as_str().expect("message");
        assert!(message.contains(words), "{item}: {message}");
        assert_eq!(body["error"]["param"], param, "{item}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_say_what_was_left_out() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    let send = async |kind: &str, body: String| {
        let request = service.request(Method::POST, "/v1/feedback/batch").header("content-type", kind);
        json_of(request.body(body).send().await.expect("answer")).await
    };
    let lines = "{\"form\":\"thumb\",\"on\":\"a\",\"value\":true,\"key\":\"1\"}\n\nnot json\n\
        {\"form\":\"thumb\",\"on\":\"a\",\"value\":true,\"key\":\"1\"}\n{\"form\":\"thumb\",\"on\":\"a\"}\n\
        {\"form\":\"rule\",\"text\":\"be brief\"}\n";
    let (status, body) = send("application/x-ndjson", lines.into()).await;
    let counts = |body: &Value| {
        ["joined", "early", "repeated", "refused"].map(|name| body[name].as_u64().expect(name))
    };
    assert_eq!((status, counts(&body)), (200, [1, 1, 1, 2]), "{body}");
    assert_eq!((&body["errors"][0]["line"], &body["errors"][1]["line"]), (&3.into(), &5.into()));
    assert_eq!(body["errors"][1]["param"], "value");
    let (status, body) = send("application/json", "[5]".into()).await;
    assert_eq!((status, counts(&body)), (422, [0, 0, 0, 1]));
    assert_eq!(send("text/plain", "[]".into()).await.0, 415);
    // Many: parts of a batch are stored together.
    let many: String = (0..12_000)
        .map(|i| format!("{{\"form\":\"event\",\"on\":\"e{i}\",\"event\":\"copied\"}}\n"))
        .collect();
    let (status, body) = send("application/x-ndjson", many).await;
    assert_eq!((status, counts(&body)), (200, [0, 12_000, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_asked_again_is_noted() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    for question in ["How do I sort a list?", "How do I sort a Python list?", "How do I sort a Python list?"]
    {
        let answer = service
            .chat(|body| {
                body["user"] = "user:7".into();
                body["messages"][0]["content"] = question.into();
            })
            .await;
        assert_eq!(answer.status(), 200);
    }
    let records = service.records().await;
    let events: Vec<Vec<Value>> = records
        .iter()
        .map(|record| record.feedback.iter().map(|item| json!(item)["event"].clone()).collect())
        .collect();
    assert_eq!(events, [vec![json!("reasked")], vec![json!("regenerated")], vec![]]);
    assert_eq!(records[0].feedback[0].by.as_deref(), Some("hone:reask"));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_told_with_a_signature() {
    type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;
    let got: Got = Arc::default();
    let hear = got.clone();
    let router = axum::Router::new().route(
        "/hook",
        post(async move |headers: HeaderMap, body: Bytes| {
            let mut got = hear.lock().expect("lock");
            got.push((headers, body));
            // The first try fails.
            if got.len() == 1 { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("address"));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("hook") });
    let mock = Mock::start(&[]).await;
    let mut service = Service::with(&[&mock], |config| {
        config.webhooks =
            vec![WebhookConfig { url, secret_env: Some("PATH".into()), forms: vec!["thumb".into()] }];
    })
    .await;
    service.post("/v1/feedback", json!({"form": "rule", "text": "be brief"})).await;
    service.post("/v1/feedback", json!({"form": "thumb", "on": "a", "value": true})).await;
    // What is under way when the service stops is still delivered.
    service.stopped().await;
    let got = got.lock().expect("lock");
    assert_eq!(got.len(), 2);
    let (headers, body) = &got[1];
    let note: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!((&note["state"], &note["feedback"]["form"]), (&"early".into(), &"thumb".into()));
    assert!(
        headers["x-hone-signature"]
            .to_str()
            .is_ok_and(|text| text.starts_with("sha256=") && text.len() == 71)
    );
    assert!(headers["x-hone-timestamp"].to_str().is_ok_and(|text| text.parse::<i64>().is_ok()));
}
