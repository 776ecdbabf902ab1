//! The OpenAI API in front of an upstream.

use hone_feedback::Content;
use serde_json::{Value, json};

use crate::client::{Service, chat_body, code_of, json_of};
use crate::mock::{Fault, Mock, answer, pieces};

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_passes_untouched_and_is_stored() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    let sent = chat_body(|body| {
        body["user"] = "user:1".into();
        body["tools"] = json!([{"type": "function", "function": {"name": "f"}}]);
        body["unheard_of"] = json!({"z": 1.5, "a": [null]});
    });
    let request = service.request(reqwest::Method::POST, "/v1/chat/completions");
    let request = request.header("content-type", "application/json").header("authorization", "Bearer sk-up");
    let request = request.header("x-hone-session", "s1").header("x-hone-tags", "a, b").body(sent.to_string());
    let response = request.send().await.expect("answer");
    assert_eq!(response.status(), 200);
    let header = |name: &str| response.headers()[name].to_str().expect(name).to_owned();
    assert_eq!(header("x-hone-id"), "chatcmpl-1");
    assert_eq!(header("x-ratelimit-remaining-requests"), "9");
    assert!(header("x-request-id").starts_with("req-"));
    assert_eq!(response.text().await.expect("body"), answer("chatcmpl-1"));
    {
        let seen = mock.seen.lock().expect("lock");
        assert_eq!(seen.bodies[0], sent.to_string().as_bytes());
        // Without keys of its own the service passes the caller's on.
        assert_eq!(seen.headers[0]["authorization"], "Bearer sk-up");
        assert!(!seen.headers[0].contains_key("x-hone-session"));
    }
    let records = service.records().await;
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!((record.id.as_str(), record.responses[0].id.as_str()), ("chatcmpl-1", "chatcmpl-1"));
    assert_eq!(record.responses[0].content, Content::Text("Hello.".into()));
    assert_eq!(record.responses[0].model.as_deref(), Some("m-1"));
    assert_eq!(record.responses[0].extra["usage"]["completion_tokens"], 1);
    assert_eq!(record.responses[0].extra["logprobs"]["content"][0]["logprob"], -0.1);
    assert_eq!(record.extra["user"], "user:1");
    assert_eq!(record.extra["session"], "s1");
    assert_eq!(record.extra["tags"], json!(["a", "b"]));
    assert_eq!(record.extra["request"]["unheard_of"], json!({"z": 1.5, "a": [null]}));
    assert!(record.extra["request"].get("messages").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_piece_by_piece_and_is_stored_whole() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    let mut response = service.chat(|body| body["stream"] = true.into()).await;
    assert_eq!(response.headers()["x-hone-id"], "chatcmpl-1");
    assert!(response.headers()["content-type"].to_str().expect("type").starts_with("text/event-stream"));
    let mut parts = Vec::new();
    while let Some(chunk) = response.chunk().await.expect("chunk") {
        parts.push(chunk);
    }
    assert!(parts.len() > 2, "the pieces came as {}", parts.len());
    assert_eq!(String::from_utf8(parts.concat()).expect("UTF-8"), pieces("chatcmpl-1").concat());
    let records = service.records().await;
    assert_eq!(records[0].responses[0].content, Content::Text("Hello.".into()));
    assert_eq!(records[0].responses[0].extra["usage"]["completion_tokens"], 2);
    assert_eq!(records[0].responses[0].extra["finish_reason"], "stop");
    assert!(records[0].extra["first_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    assert!(!records[0].extra.contains_key("cut"));
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_tried_again() {
    for fault in [
        Fault::Limited("0"),
        Fault::Status(500),
        Fault::Status(503),
        Fault::Malformed,
        Fault::Cut,
        Fault::Hang,
    ] {
        let mock = Mock::start(&[fault]).await;
        let mut service = Service::before(&[&mock]).await;
        let (status, body) = json_of(service.chat(|_| {}).await).await;
        assert_eq!((status, &body["choices"][0]["message"]["content"]), (200, &"Hello.".into()), "{fault:?}");
        assert_eq!(mock.calls(), 2, "{fault:?}");
        assert_eq!(service.records().await.len(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_pass_is_told_as_it_came() {
    let mock = Mock::start(&[Fault::Status(400), Fault::Status(401), Fault::Limited("3600")]).await;
    let mut service = Service::before(&[&mock]).await;
    for status in [400, 401] {
        let (got, body) = json_of(service.chat(|_| {}).await).await;
        // The upstream's own words, fields that nobody knows among them.
        assert_eq!(
            (got, &body["error"]["code"], &body["error"]["odd"]),
            (status, &"as_told".into(), &1.into())
        );
    }
    let response = service.chat(|_| {}).await;
    assert_eq!(response.headers()["retry-after"], "3600");
    assert_eq!(code_of(response).await, (429, "limited".into()));
    // None of them was tried twice.
    assert_eq!(mock.calls(), 3);
    assert!(service.records().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_upstream_answers_for_one_that_is_down() {
    let down = Mock { url: "http://127.0.0.1:9/v1".into(), seen: Default::default() };
    let broken = Mock::start(&[Fault::Status(500); 3]).await;
    let up = Mock::start(&[]).await;
    let service = Service::before(&[&down, &broken, &up]).await;
    let response = service.chat(|_| {}).await;
    assert_eq!(response.headers()["x-hone-backend"], "127.0.0.1-3");
    assert_eq!(json_of(response).await.0, 200);
    assert_eq!((broken.calls(), up.calls()), (3, 1));
    let alone = Service::before(&[&down]).await;
    assert_eq!(code_of(alone.chat(|_| {}).await).await, (502, "upstream_unreachable".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_told_and_kept() {
    for (fault, cut) in [(Fault::Cut, "upstream"), (Fault::Stall, "upstream_idle")] {
        let mock = Mock::start(&[fault]).await;
        let mut service = Service::before(&[&mock]).await;
        let text = service.chat(|body| body["stream"] = true.into()).await.text().await.expect("stream");
        let last = text.trim_end().lines().last().expect("a line");
        let error: Value = serde_json::from_str(last.trim_start_matches("data: ")).expect("JSON");
        assert_eq!(error["error"]["code"], "upstream_cut", "{text}");
        let records = service.records().await;
        assert_eq!(records[0].extra["cut"], cut);
        assert!("Hello.".starts_with(&*records[0].responses[0].content.text()));
        assert!(records[0].responses[0].content.text().starts_with("Hel"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_ends_the_upstream_and_leaves_the_exchange() {
    let mock = Mock::start(&[Fault::Stall]).await;
    let mut service = Service::with(&[&mock], |config| config.backends[0].idle_s = 30.0).await;
    let mut response = service.chat(|body| body["stream"] = true.into()).await;
    assert!(response.chunk().await.expect("a chunk").is_some());
    drop(response);
    for _ in 0..500 {
        if mock.seen.lock().expect("lock").finished > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(mock.seen.lock().expect("lock").finished, 1, "the upstream still writes");
    let records = service.records().await;
    assert_eq!(records[0].extra["cut"], "client");
    assert_eq!(records[0].responses[0].content, Content::Text("Hel".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_cuts_what_does_not_end_and_keeps_it() {
    let mock = Mock::start(&[Fault::Stall]).await;
    let change = |config: &mut hone_server::Config| {
        config.backends[0].idle_s = 60.0;
        config.limits.drain_s = 0.5;
    };
    let mut service = Service::with(&[&mock], change).await;
    let mut response = service.chat(|body| body["stream"] = true.into()).await;
    assert!(response.chunk().await.expect("a chunk").is_some());
    let records = service.records().await;
    assert_eq!(
        (&records[0].extra["cut"], &*records[0].responses[0].content.text()),
        (&"service".into(), "Hel")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_comes_twice_is_replaced() {
    let mock = Mock::start(&[Fault::SameId; 4]).await;
    let mut service = Service::before(&[&mock]).await;
    let mut ids = std::collections::BTreeSet::new();
    for stream in [false, true, false, true] {
        let response = service.chat(|body| body["stream"] = stream.into()).await;
        let id = response.headers()["x-hone-id"].to_str().expect("id").to_owned();
        let text = response.text().await.expect("body");
        assert!(text.contains(&format!("\"id\":\"{id}\"")), "{text}");
        ids.insert(id);
    }
    assert_eq!(ids.len(), 4);
    let stored: std::collections::BTreeSet<String> =
        service.records().await.into_iter().map(|r| r.id).collect();
    assert_eq!(stored, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_the_api() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    let (status, body) =
        json_of(service.post("/v1/embeddings", json!({"model": "m", "input": "x"})).await).await;
    assert_eq!((status, &body["data"][0]["embedding"]), (200, &json!([0.5, -0.25])));
    let completion = service.post("/v1/completions", json!({"model": "m", "prompt": ["a", "b"]})).await;
    assert_eq!(json_of(completion).await.1["choices"][1]["text"], "t1");
    let (_, models) = json_of(service.get("/v1/models").await).await;
    assert_eq!(models["data"], json!([{"id": "m", "odd": 1}]));
    assert_eq!(json_of(service.get("/v1/models/m").await).await.1["odd"], 1);
    assert_eq!(code_of(service.get("/v1/models/none").await).await, (404, "not_found".into()));
    let ids: Vec<String> = service.records().await.into_iter().map(|record| record.id).collect();
    assert_eq!(ids, ["cmpl-2", "cmpl-2.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_cannot_be_are_refused_by_field() {
    let mock = Mock::start(&[]).await;
    let service =
        Service::with(&[&mock], |config| config.backends[0].models = vec!["m".into(), "gpt-*".into()]).await;
    for (body, status, words) in [
        (json!({"messages": []}), 400, "model: needed text, got nothing"),
        (json!({"model": "m"}), 400, "messages: needed a list of messages, got nothing"),
        (json!({"model": "m", "messages": "hi"}), 400, "messages: needed a list of messages, got \"hi\""),
        (json!({"model": "m", "messages": [{}], "stream": 1}), 400, "stream: needed true or false, got 1"),
        (chat_body(|body| body["model"] = "other".into()), 404, "model: needed one that a backend serves"),
        (json!([1]), 400, "body: needed a JSON object, got a list of 1"),
    ] {
        let (got, answer) = json_of(service.post("/v1/chat/completions", body).await).await;
        let message = answer["error"]["message"].as_str().expect("message");
        assert!(got == status && message.starts_with(words), "{got}: {message}");
    }
    assert_eq!(mock.calls(), 0);
    assert_eq!(service.chat(|body| body["model"] = "gpt-x".into()).await.status(), 200);
}
