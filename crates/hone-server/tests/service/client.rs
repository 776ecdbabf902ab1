//! A live service and a client for it.

use std::time::Duration;

use hone_feedback::Record;
use hone_server::{BackendConfig, Config, Server};
use hone_store::Store;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::mock::Mock;

/// A service in front of mock upstreams, with a store in a folder of its own.
pub struct Service {
    pub server: Option<Server>,
    pub http: reqwest::Client,
    pub base: String,
    pub store: String,
    folder: tempfile::TempDir,
}

impl Service {
    /// Starts one in front of these upstreams.
    pub async fn before(mocks: &[&Mock]) -> Service {
        Service::with(mocks, |_| {}).await
    }

    /// Starts one with further settings.
    pub async fn with(mocks: &[&Mock], change: impl FnOnce(&mut Config)) -> Service {
        // For the client; the service does the same for its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("folder");
        let store = folder.path().join("hone.db").display().to_string();
        let backend = |mock: &&Mock| BackendConfig {
            url: Some(mock.url.clone()),
            first_s: 1.0,
            idle_s: 1.0,
            ..BackendConfig::default()
        };
        let mut config = Config {
            listen: "127.0.0.1:0".into(),
            store: store.clone(),
            backends: mocks.iter().map(backend).collect(),
            ..Config::default()
        };
        config.limits.drain_s = 5.0;
        change(&mut config);
        let server = Server::start(config, Vec::new()).await.expect("a service");
        let base = format!("http://{}", server.address());
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().expect("client");
        Service { server: Some(server), http, base, store, folder }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    pub async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.expect(path)
    }

    pub async fn post(&self, path: &str, body: Value) -> Response {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        request.body(body.to_string()).send().await.expect(path)
    }

    /// Asks for an answer.
    pub async fn chat(&self, change: impl FnOnce(&mut Value)) -> Response {
        self.post("/v1/chat/completions", chat_body(change)).await
    }

    /// Stops it and gives the store, in which everything is by now.
    pub async fn stopped(&mut self) -> std::sync::Arc<dyn Store> {
        if let Some(server) = self.server.take() {
            server.stop();
            server.ended().await;
        }
        hone_store::open(&self.store).await.expect("store")
    }

    /// Stops it and gives every record.
    pub async fn records(&mut self) -> Vec<Record> {
        let lines = self.stopped().await.lines(0, 1000).await.expect("lines").lines;
        lines.iter().map(|line| Record::from_json(line.as_bytes()).expect("a record")).collect()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

pub fn chat_body(change: impl FnOnce(&mut Value)) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Say hello."}]});
    change(&mut body);
    body
}

/// Status and JSON body.
pub async fn json_of(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.expect("body");
    (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

/// The code of an error.
pub async fn code_of(response: Response) -> (u16, String) {
    let (status, body) = json_of(response).await;
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}
