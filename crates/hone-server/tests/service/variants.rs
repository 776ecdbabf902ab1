//! Two variants side by side.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::client::{Service, code_of, json_of};
use crate::mock::Mock;

#[tokio::test(flavor = "multi_thread")]
async fn people_are_assigned_compared_and_moved() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    assert_eq!(code_of(service.get("/v1/variants").await).await.0, 404);
    let put = async |body: serde_json::Value| {
        let request = service.request(Method::PUT, "/v1/variants").header("content-type", "application/json");
        json_of(request.body(body.to_string()).send().await.expect("answer")).await
    };
    assert_eq!(put(json!({"model": "m", "a": "x", "b": "x"})).await.0, 400);
    assert_eq!(put(json!({"model": "m", "a": "old", "b": "new"})).await.0, 200);
    let mut ids = Vec::new();
    let mut sides = BTreeSet::new();
    for user in 0..120 {
        let answer = service.chat(|body| body["user"] = format!("user:{user}").into()).await;
        let header = |name: &str| answer.headers()[name].to_str().expect(name).to_owned();
        let (side, id) = (header("x-hone-variant"), header("x-hone-id"));
        let again = service.chat(|body| body["user"] = format!("user:{user}").into()).await;
        assert_eq!(again.headers()["x-hone-variant"], side.as_str(), "user:{user} saw both");
        sides.insert(side.clone());
        ids.push((id, side));
    }
    assert_eq!(sides, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    let asked: BTreeSet<String> = mock
        .seen
        .lock()
        .expect("lock")
        .bodies
        .iter()
        .map(|body| {
            let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
            body["model"].as_str().expect("model").to_owned()
        })
        .collect();
    assert_eq!(asked, BTreeSet::from(["new".to_owned(), "old".to_owned()]));
    // Everyone likes b and nobody a: by hand, the interval excludes 0 by then.
    for (id, side) in &ids {
        let item = json!({"form": "thumb", "on": id, "value": side == "b"});
        assert!(service.post("/v1/feedback", item).await.status().is_success());
    }
    let mut figures = json!(null);
    for _ in 0..100 {
        figures = json_of(service.get("/v1/variants").await).await.1;
        if figures["a"]["people"]
            .as_u64()
            .zip(figures["b"]["people"].as_u64())
            .is_some_and(|(a, b)| a + b == 120)
        {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!((&figures["difference"], &figures["better"]), (&json!(1.0), &"b".into()), "{figures}");
    let promoted = service.post("/v1/variants/promote", json!({"winner": "b"})).await;
    assert_eq!(promoted.status(), 200);
    for user in 0..20 {
        let answer = service.chat(|body| body["user"] = format!("user:{user}").into()).await;
        assert_eq!(answer.headers()["x-hone-variant"], "b");
    }
    assert_eq!(service.request(Method::DELETE, "/v1/variants").send().await.expect("ended").status(), 204);
    assert!(!service.chat(|_| {}).await.headers().contains_key("x-hone-variant"));
}
