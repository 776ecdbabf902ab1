//! What driving an endpoint costs: a server that answers after 200 ms, in a process of its own, and a client that keeps
//! 256 calls in flight.
//!
//! ```text
//! cargo run --release -p hone-lm --example endpoint_load            # 10,000 calls, whole and streamed
//! ```

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use hone_lm::{
    Capabilities, Endpoint, EndpointConfig, GenerateRequest, LanguageModel as _, Message, Prompt, Sampling,
};

const CALLS: usize = 10_000;
const IN_FLIGHT: usize = 256;
const DELAY: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let mut server = Command::new(std::env::current_exe()?).arg("serve").stdout(Stdio::piped()).spawn()?;
    let stdout = server.stdout.take().ok_or("no output")?;
    let url = BufReader::new(stdout).lines().next().ok_or("no address")??;
    let config = EndpointConfig {
        concurrency: IN_FLIGHT,
        capabilities: Some(Capabilities::default()),
        ..EndpointConfig::new(url, "m")
    };
    let endpoint = Endpoint::connect(config)?;
    let prompt = "Write a short note to the team about the new schedule. ".repeat(20);
    for stream in [false, true] {
        let requests: Vec<GenerateRequest> = (0..CALLS)
            .map(|i| GenerateRequest {
                sampling: Sampling { max_tokens: Some(64), ..Sampling::default() },
                stream,
                ..GenerateRequest::new(Prompt::chat(vec![Message::new("user", format!("{i} {prompt}"))]))
            })
            .collect();
        let (cpu, started) = (cpu_seconds()?, Instant::now());
        let results = endpoint.generate(&requests, &mut |_| {})?;
        let (cpu, wall) = (cpu_seconds()? - cpu, started.elapsed().as_secs_f64());
        let good = results.iter().filter(|r| r.is_ok()).count();
        let per_minute = CALLS as f64 / wall * 60.0;
        println!(
            "{}: {good} of {CALLS} answers in {wall:.2} s ({:.0} a second, {:.0} % of the bound of {IN_FLIGHT} per {DELAY:?}); \
             client {cpu:.2} s of CPU, {:.3} ms a call; share of a core per 1,000 calls a minute: {:.2} %",
            if stream { "streamed, 32 pieces" } else { "whole" },
            CALLS as f64 / wall,
            100.0 * CALLS as f64 / wall / (IN_FLIGHT as f64 / DELAY.as_secs_f64()),
            1e3 * cpu / CALLS as f64,
            100.0 * cpu / wall / (per_minute / 1000.0),
        );
        assert_eq!(good, CALLS);
    }
    server.kill()?;
    Ok(())
}

/// User and system time of this process, in seconds, from `/proc/self/stat` (fields 14 and 15, in hundredths).
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().ok_or("no fields")?.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("http://{}/v1", listener.local_addr()?);
        std::io::stdout().flush()?;
        axum::serve(listener, Router::new().route("/v1/chat/completions", post(answer))).await?;
        Ok(())
    })
}

async fn answer(body: Bytes) -> axum::response::Response {
    let streamed = body.windows(13).any(|w| w == b"\"stream\":true");
    if !streamed {
        tokio::time::sleep(DELAY).await;
        let text = "word ".repeat(32);
        let body = format!(
            "{{\"model\":\"m\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":250,\"completion_tokens\":32}}}}"
        );
        return ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    }
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n";
    let last =
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let events =
        stream::iter((0..33).map(move |i| if i == 32 { last } else { piece })).then(|event| async move {
            tokio::time::sleep(DELAY / 33).await;
            Ok::<_, std::convert::Infallible>(Bytes::from_static(event.as_bytes()))
        });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
