//! What a gateway costs. `gateway_load mock` is an upstream that answers at once and says where it listens;
//! `gateway_load URL CLIENTS SECONDS [PER_SECOND]` asks `URL/chat/completions`, each client one call after the other, or
//! at a rate that does not wait for the answers, and prints one line of JSON: calls per second, milliseconds, failures.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use serde_json::json;

/// Calls before the clock starts.
const WARM_UP: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [mock] if mock == "mock" => mock_upstream().await,
        [url, clients, seconds] => load(url, clients.parse()?, seconds.parse()?, None).await,
        [url, clients, seconds, rate] => {
            load(url, clients.parse()?, seconds.parse()?, Some(rate.parse()?)).await
        }
        _ => Err("needed `mock`, or URL CLIENTS SECONDS [PER_SECOND]".into()),
    }
}

async fn mock_upstream() -> Result<(), Box<dyn Error>> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let answer = || async {
        let id = format!("chatcmpl-{}", CALLS.fetch_add(1, Ordering::Relaxed));
        let body = json!({
            "id": id, "object": "chat.completion", "created": 1_767_225_600, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "A short answer of a dozen words, as a model may well give it."}}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 14, "total_tokens": 34},
        });
        ([("content-type", "application/json")], body.to_string())
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/v1", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/v1/chat/completions", post(answer))).await?;
    Ok(())
}

async fn load(url: &str, clients: usize, seconds: f64, rate: Option<f64>) -> Result<(), Box<dyn Error>> {
    // The client wants one to be chosen, though nothing here is encrypted; that another was chosen does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().pool_max_idle_per_host(clients).no_proxy().build()?;
    let (url, failed) = (format!("{url}/chat/completions"), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let end = WARM_UP + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for place in 0..clients {
        let (client, url, failed) = (client.clone(), url.clone(), failed.clone());
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::new();
            let body = |call: usize| {
                json!({"model": "m", "user": format!("u{place}"), "messages": [{"role": "user",
                    "content": format!("Question {call} of client {place}: what is the shortest way to the station?")}]})
            };
            // Calls are due at even distances, those of the clients in turn; a late one is timed from when it was due.
            let mut due = Duration::ZERO;
            if let Some(rate) = rate {
                due = Duration::from_secs_f64(place as f64 / rate);
            }
            for call in 0.. {
                if let Some(rate) = rate {
                    tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
                    due += Duration::from_secs_f64(clients as f64 / rate);
                }
                let from = match rate {
                    Some(rate) => due.saturating_sub(Duration::from_secs_f64(clients as f64 / rate)),
                    None => started.elapsed(),
                };
                if from >= end {
                    break;
                }
                let asked = client.post(&url).header("authorization", "Bearer sk-1");
                let asked = asked.header("content-type", "application/json").body(body(call).to_string());
                let sent = asked.send().await;
                let good = match sent {
                    Ok(response) => response.status().is_success() && response.bytes().await.is_ok(),
                    Err(_) => false,
                };
                if !good {
                    failed.fetch_add(1, Ordering::Relaxed);
                } else if from >= WARM_UP {
                    times.push((started.elapsed() - from).as_secs_f64() * 1e3);
                }
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await?);
    }
    let wall = (started.elapsed() - WARM_UP).as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied();
    println!(
        "{}",
        json!({
            "per_second": times.len() as f64 / wall, "p50_ms": at(0.5), "p99_ms": at(0.99), "slowest_ms": at(1.0),
            "failed": failed.load(Ordering::Relaxed),
        })
    );
    Ok(())
}
