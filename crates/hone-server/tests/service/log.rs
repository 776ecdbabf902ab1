//! Reading what was stored.

use serde_json::json;

use crate::client::{Service, code_of, json_of};
use crate::mock::Mock;
use reqwest::Method;

const LOG: &str = r#"{"id":"r1","prompt":[{"role":"user","content":"capital of France"}],"responses":[{"id":"a","content":"Paris is it.","model":"m1"}],"feedback":[{"form":"thumb","on":"a","value":true,"by":"user:1"},{"form":"thumb","on":"a","value":false,"by":"user:2"}],"user":"user:1","session":"s1","tags":["geo"]}
{"id":"r2","prompt":"to continue","responses":[{"id":"b","content":"text","model":"m2"}],"user":"user:2"}
{"id":"bad","prompt":"x","responses":[{"id":"a"}]}
"#;

async fn filled(mock: &Mock) -> Service {
    let service = Service::before(&[mock]).await;
    let import = service.request(Method::POST, "/v1/import").header("content-type", "application/x-ndjson");
    let (status, body) = json_of(import.body(LOG).send().await.expect("import")).await;
    assert_eq!(
        (status, &body["records"], &body["feedback"], &body["refused"]),
        (200, &2.into(), &2.into(), &1.into())
    );
    assert!(body["errors"][0].as_str().is_some_and(|error| error.starts_with("import.jsonl:3: ")), "{body}");
    service
}

#[tokio::test(flavor = "multi_thread")]
async fn searching_and_reading() {
    let mock = Mock::start(&[]).await;
    let service = filled(&mock).await;
    for (query, ids) in [
        ("", vec!["r2", "r1"]),
        ("?text=paris", vec!["r1"]),
        ("?text=%22is%20it%22&user=user:1", vec!["r1"]),
        ("?model=m2", vec!["r2"]),
        ("?form=thumb&by=user:2", vec!["r1"]),
        ("?session=s1&tag=geo", vec!["r1"]),
        ("?until=2020-01-01T00:00:00Z", vec![]),
    ] {
        let (status, body) = json_of(service.get(&format!("/v1/exchanges{query}")).await).await;
        let got: Vec<&str> =
            body["data"].as_array().expect(query).iter().filter_map(|r| r["id"].as_str()).collect();
        assert_eq!((status, got), (200, ids), "{query}");
    }
    let (_, page) = json_of(service.get("/v1/exchanges?limit=1").await).await;
    let next = page["next"].as_i64().expect("more");
    let (_, page) = json_of(service.get(&format!("/v1/exchanges?limit=1&before={next}")).await).await;
    assert_eq!(page["data"][0]["id"], "r1");
    for (query, param) in [("limit=0", "limit"), ("form=smile", "form"), ("since=yesterday", "since")] {
        let (status, body) = json_of(service.get(&format!("/v1/exchanges?{query}")).await).await;
        assert_eq!((status, &body["error"]["param"]), (400, &param.into()), "{query}");
    }
    assert_eq!(code_of(service.get("/v1/exchanges?limitt=1").await).await.0, 400);
    assert_eq!(json_of(service.get("/v1/exchanges/a").await).await.1["id"], "r1");
    assert_eq!(code_of(service.get("/v1/exchanges/none").await).await, (404, "not_found".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_queue_and_runs() {
    let mock = Mock::start(&[]).await;
    let service = filled(&mock).await;
    let (_, shown) = json_of(service.get("/v1/dashboard").await).await;
    assert_eq!((&shown["all"]["exchanges"], &shown["all"]["satisfaction"]["mean"]), (&2.into(), &json!(0.5)));
    assert_eq!(shown["models"][0]["model"], "m1");
    assert_eq!(code_of(service.get("/v1/dashboard?days=0").await).await.0, 400);

    let (_, queue) = json_of(service.get("/v1/queue?form=thumb&overlap=2&by=user:3").await).await;
    assert_eq!(
        (&queue["left"], &queue["done"], &queue["data"][0]["id"]),
        (&1.into(), &1.into(), &"r2".into())
    );
    // Two thumbs on one answer that differ: observed 1, expected 1, so 0.
    assert_eq!(queue["agreement"], json!(0.0));
    assert_eq!(code_of(service.get("/v1/queue").await).await.0, 400);

    let note = json!({"id": "run-1", "model": "m3", "items": ["r1"]});
    assert_eq!(service.post("/v1/runs", note).await.status(), 204);
    assert_eq!(json_of(service.get("/v1/runs").await).await.1, json!([{"id": "run-1", "model": "m3"}]));
    assert_eq!(json_of(service.get("/v1/runs/run-1/items").await).await.1, json!(["r1"]));
    let gone = service.request(Method::DELETE, "/v1/people/user:1").send().await.expect("answer");
    let (_, gone) = json_of(gone).await;
    assert_eq!((&gone["exchanges"], &gone["runs"][0]["id"]), (&json!(["r1"]), &"run-1".into()));
    assert_eq!(service.get("/v1/export").await.text().await.expect("log").lines().count(), 1);
}
