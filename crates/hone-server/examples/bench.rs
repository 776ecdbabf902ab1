//! What the service costs, on this machine: `bench [SECONDS]`, with `--release`.
//!
//! A mock upstream that answers at once, the service with its store in a temporary folder, and callers on kept
//! connections, all in one process: both sides of a ratio pay for the same callers. Prints requests per second and the
//! time of a request straight to the mock and through the service, and acknowledged feedback per second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use hone_server::{BackendConfig, Config, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &str = r#"{"id":"","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}"#;
const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"Say hello."}]}"#;

/// Times of requests, by callers who each wait for an answer before they ask again.
async fn load(
    address: &str,
    path: &str,
    callers: usize,
    time: Duration,
    pace: Option<Duration>,
    body: Arc<dyn Fn(usize, usize) -> String + Send + Sync>,
) -> std::io::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let mut tasks = Vec::new();
    for caller in 0..callers {
        let (address, path, body) = (address.to_owned(), path.to_owned(), body.clone());
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let mut times = Vec::new();
            let mut buffer = vec![0; 1 << 16];
            for number in 0.. {
                let started = Instant::now();
                if started >= end {
                    break;
                }
                let body = body(caller, number);
                let head = "host: localhost\r\ncontent-type: application/json";
                let request =
                    format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(request.as_bytes()).await?;
                read_answer(&mut stream, &mut buffer).await?;
                times.push(started.elapsed());
                if let Some(pace) = pace {
                    tokio::time::sleep(pace.saturating_sub(started.elapsed())).await;
                }
            }
            Ok::<_, std::io::Error>(times)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.map_err(std::io::Error::other)??);
    }
    all.sort();
    Ok(all)
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut have = 0;
    loop {
        have += match stream.read(&mut buffer[have..]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => count,
        };
        let text = String::from_utf8_lossy(&buffer[..have]).into_owned();
        let Some(head) = text.find("\r\n\r\n") else { continue };
        if !text.starts_with("HTTP/1.1 2") {
            return Err(std::io::Error::other(text));
        }
        let length = text[..head].to_ascii_lowercase();
        let length =
            length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if have >= head + 4 + length.unwrap_or(0) {
            return Ok(());
        }
    }
}

fn tell(what: &str, times: &[Duration], time: Duration) {
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    let rate = times.len() as f64 / time.as_secs_f64();
    println!("{what:40} {rate:9.0} per second   p50 {:8.3?}   p99 {:8.3?}", at(0.5), at(0.99));
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let time = Duration::from_secs_f64(std::env::args().nth(1).map_or(Ok(5.0), |text| text.parse())?);
    let mock = Router::new()
        .route("/v1/chat/completions", post(async || ([("content-type", "application/json")], ANSWER)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let direct = listener.local_addr()?.to_string();
    tokio::spawn(async move { axum::serve(listener, mock).await });
    let folder = tempfile::tempdir()?;
    let backend = BackendConfig { url: Some(format!("http://{direct}/v1")), ..BackendConfig::default() };
    let config = Config {
        listen: "127.0.0.1:0".into(),
        store: folder.path().join("hone.db").display().to_string(),
        backends: vec![backend],
        ..Config::default()
    };
    let server = Server::start(config, Vec::new()).await?;
    let through = server.address().to_string();

    let chat = Arc::new(|_, _| CHAT.to_owned());
    for (what, address) in
        [("mock upstream, 64 callers", &direct), ("the service, storing, 64 callers", &through)]
    {
        tell(what, &load(address, "/v1/chat/completions", 64, time, None, chat.clone()).await?, time);
    }
    // 20 callers with 20 ms each: 1,000 requests per second.
    let pace = Some(Duration::from_millis(20));
    for (what, address) in
        [("mock upstream, 1,000 per second", &direct), ("the service, 1,000 per second", &through)]
    {
        tell(what, &load(address, "/v1/chat/completions", 20, time, pace, chat.clone()).await?, time);
    }
    let event = Arc::new(|caller: usize, number: usize| {
        format!(r#"{{"form":"event","on":"x{caller}","event":"copied","value":{number}}}"#)
    });
    tell("feedback, 64 callers", &load(&through, "/v1/feedback", 64, time, None, event).await?, time);
    server.stop();
    server.ended().await;
    Ok(())
}
