//! Keys, limits, health, and the document that describes all of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Service, code_of, json_of};
use crate::mock::{Fault, Mock};

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_what_their_scopes_say() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    let no_admin = json!({"name": "app", "scopes": ["infer"]});
    assert_eq!(code_of(service.post("/v1/keys", no_admin).await).await, (409, "first_key".into()));
    let (status, admin) =
        json_of(service.post("/v1/keys", json!({"name": "a", "scopes": ["admin"]})).await).await;
    assert_eq!(status, 201);
    assert_eq!(code_of(service.chat(|_| {}).await).await, (401, "invalid_api_key".into()));
    let secret = admin["secret"].as_str().expect("secret").to_owned();
    let with = |method: Method, path: &str, secret: &str, body: Option<Value>| {
        let request = service.request(method, path).header("authorization", format!("Bearer {secret}"));
        let request = request.header("content-type", "application/json");
        match body {
            Some(body) => request.body(body.to_string()),
            None => request,
        }
    };
    let order = json!({"name": "app", "scopes": ["infer"], "per_minute": 2});
    let made = with(Method::POST, "/v1/keys", &secret, Some(order)).send().await.expect("key");
    let (_, app) = json_of(made).await;
    let app_secret = app["secret"].as_str().expect("secret");
    let ask =
        || with(Method::POST, "/v1/chat/completions", app_secret, Some(crate::client::chat_body(|_| {})));
    assert_eq!(ask().send().await.expect("answer").status(), 200);
    // Its own key is the service's, not the upstream's.
    assert!(!mock.seen.lock().expect("lock").headers[0].contains_key("authorization"));
    let closed = with(Method::GET, "/v1/keys", app_secret, None).send().await.expect("answer");
    assert_eq!(code_of(closed).await, (403, "missing_scope".into()));
    let limited = ask().send().await.expect("answer");
    assert_eq!(limited.headers()["retry-after"], "30");
    assert_eq!(code_of(limited).await, (429, "rate_limit_exceeded".into()));
    let (_, list) = json_of(with(Method::GET, "/v1/keys", &secret, None).send().await.expect("list")).await;
    assert_eq!(list["data"].as_array().map(Vec::len), Some(2));
    assert!(!list.to_string().contains(app_secret) && list["data"][0].get("hash").is_none());
    // A person signs in with it on a page: what changes something needs the session's token too.
    let sign_in = service.post("/v1/session", json!({"key": secret})).await;
    let cookie = sign_in.headers()["set-cookie"].to_str().expect("cookie").to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict"), "{cookie}");
    let (_, session) = json_of(sign_in).await;
    let cookie = cookie.split(';').next().expect("a pair").to_owned();
    let rule = |token: &str| {
        let request =
            service.request(Method::POST, "/v1/feedback").header("content-type", "application/json");
        let request = request.header("cookie", &cookie).header("x-csrf-token", token);
        request.body(json!({"form": "rule", "text": "be brief"}).to_string()).send()
    };
    assert_eq!(code_of(rule("guess").await.expect("answer")).await, (403, "csrf".into()));
    assert_eq!(rule(session["csrf"].as_str().expect("token")).await.expect("answer").status(), 201);
    assert_eq!(code_of(service.post("/v1/session", json!({"key": "hone-wrong"})).await).await.0, 401);
    let path = format!("/v1/keys/{}", app["id"].as_str().expect("id"));
    assert_eq!(with(Method::DELETE, &path, &secret, None).send().await.expect("ended").status(), 204);
    assert_eq!(code_of(ask().send().await.expect("answer")).await.0, 401);
    let missing = with(Method::DELETE, "/v1/keys/none", &secret, None).send().await.expect("answer");
    assert_eq!(code_of(missing).await, (404, "not_found".into()));
    service.stopped().await;
    // Nothing in the folder holds a key.
    for file in std::fs::read_dir(service.folder()).expect("folder") {
        let bytes = std::fs::read(file.expect("file").path()).expect("bytes");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(app_secret) && !text.contains(&secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_heads_have_limits() {
    let mock = Mock::start(&[]).await;
    let service = Service::with(&[&mock], |config| {
        config.limits.body_bytes = 1000;
        config.limits.body_s = 0.3;
        config.limits.header_s = 0.3;
    })
    .await;
    let long = service.chat(|body| body["x"] = "x".repeat(2000).into()).await;
    assert_eq!(code_of(long).await, (413, "body_too_large".into()));
    let form = service.request(Method::POST, "/v1/chat/completions").body("model=m");
    assert_eq!(code_of(form.send().await.expect("answer")).await, (415, "content_type".into()));
    let text =
        service.request(Method::POST, "/v1/chat/completions").header("content-type", "application/json");
    let (status, body) = json_of(text.body("{\"model\":").send().await.expect("answer")).await;
    assert_eq!((status, &body["error"]["param"]), (400, &"body".into()));
    let address = service.base.trim_start_matches("http://").to_owned();
    let raw = move |text: String, wait: bool| {
        let mut stream = TcpStream::connect(&address).expect("connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("time limit");
        stream.write_all(text.as_bytes()).expect("sent");
        if !wait {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let answers = tokio::task::spawn_blocking(move || {
        let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
        let head =
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        [
            raw(format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), true),
            raw(
                format!("GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
                true,
            ),
            raw(format!("{head}content-length: 50\r\n\r\n{{\"a\""), true),
            raw("GET /healthz HTTP/1.1\r\nhost: loc".into(), true),
            raw("\u{1}\u{2} nonsense\r\n\r\n".into(), true),
        ]
    });
    let [many, long, slow, silent, nonsense] = answers.await.expect("answers");
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
    assert!(long.starts_with("HTTP/1.1 431"), "{long}");
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_too_slow"), "{slow}");
    assert!(silent.is_empty() || silent.starts_with("HTTP/1.1 408"), "{silent}");
    assert!(nonsense.starts_with("HTTP/1.1 400"), "{nonsense}");
    assert_eq!(service.get("/healthz").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sites_and_odd_paths_are_refused() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    let ask = |name: &str, value: &str| {
        let body = crate::client::chat_body(|_| {}).to_string();
        let request =
            service.request(Method::POST, "/v1/chat/completions").header("content-type", "application/json");
        request.header(name, value).body(body)
    };
    for (name, value) in
        [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site"), ("host", "evil.example")]
    {
        let answer = ask(name, value).send().await.expect("answer");
        assert_eq!(code_of(answer).await, (403, "cross_site".into()), "{name}");
    }
    for path in [
        "/v1",
        "/v1/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/%ff%fe",
        "//v1/models",
        "/v1/keys/a%2fb",
    ] {
        let answer = service.get(path).await;
        let status = answer.status();
        assert!(status.is_client_error(), "{path}: {status}");
        assert!(code_of(answer).await.1.len() > 3, "{path}");
    }
    let answer = service.request(Method::PUT, "/v1/models").send().await.expect("answer");
    assert_eq!(code_of(answer).await, (405, "method_not_allowed".into()));
    assert_eq!(mock.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_figures() {
    let mock = Mock::start(&[Fault::Status(500)]).await;
    let service = Service::before(&[&mock]).await;
    assert_eq!(json_of(service.get("/healthz").await).await.1["status"], "ok");
    assert_eq!(service.get("/readyz").await.status(), 200);
    assert_eq!(service.chat(|_| {}).await.status(), 200);
    let text = service.get("/metrics").await.text().await.expect("figures");
    for line in [
        "hone_requests_total{endpoint=\"/v1/chat/completions\",status=\"200\"} 1",
        "hone_retries_total 1",
        "hone_prompt_tokens_total 3",
        "hone_request_seconds_count{endpoint=\"/healthz\"} 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_running_answers_end() {
    let mock = Mock::start(&[]).await;
    let mut service = Service::before(&[&mock]).await;
    let mut response = service.chat(|body| body["stream"] = true.into()).await;
    let mut text = response.chunk().await.expect("chunk").expect("a first piece").to_vec();
    let server = service.server.take().expect("server");
    server.stop();
    let ended = tokio::spawn(server.ended());
    while let Some(chunk) = response.chunk().await.expect("chunk") {
        text.extend_from_slice(&chunk);
    }
    assert!(String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    ended.await.expect("ended");
    assert_eq!(service.records().await[0].responses[0].content.text(), "Hello.");
    let refused = service.request(Method::GET, "/healthz").send().await;
    assert!(refused.is_err(), "still listening");
}

/// Every path of the document is asked of the live server: what it answers is among what the document says.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_the_server_does() {
    let mock = Mock::start(&[]).await;
    let service = Service::before(&[&mock]).await;
    let (_, document) = json_of(service.get("/openapi.json").await).await;
    assert_eq!(document, serde_json::from_str::<Value>(hone_server::openapi()).expect("JSON"));
    let paths = document["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            let name = Method::from_bytes(method.to_uppercase().as_bytes()).expect("method");
            let real = path.split('/').map(|part| if part.starts_with('{') { "none" } else { part });
            let mut request = service.request(name, &real.collect::<Vec<_>>().join("/"));
            if operation.get("requestBody").is_some() {
                request = request.header("content-type", "application/json").body("{}");
            }
            let response = request.send().await.expect(path);
            let status = response.status().as_u16().to_string();
            let told = &operation["responses"];
            assert!(told.get(&status).is_some(), "{method} {path}: {status} is not among {told}");
            assert!(!status.starts_with('5'), "{method} {path}: {status}");
            asked += 1;
        }
    }
    assert!(asked >= 11, "only {asked} operations");
}
