//! `hone serve` from start to stop, and what it keeps.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use super::{hone, text};

/// The whole answer to a request.
fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn post(address: &str, path: &str, body: &str) -> String {
    let head = "host: localhost\r\ncontent-type: application/json\r\nconnection: close";
    ask(address, &format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn it_answers_keeps_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hone"))
        .args(["serve", "--model", "tiny", "--listen", "127.0.0.1:0", "--store", "log.db", "--log-json"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("hone serves on http://").unwrap().to_owned();
    let chat = r#"{"model":"hone-tiny","max_tokens":4,"messages":[{"role":"user","content":"zanzibar"}]}"#;
    let answer = post(&address, "/v1/chat/completions", chat);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let thumb = format!(r#"{{"form":"thumb","on":"{id}","value":true}}"#);
    let given = post(&address, "/v1/feedback", &thumb);
    assert!(given.starts_with("HTTP/1.1 201") || given.starts_with("HTTP/1.1 202"), "{given}");
    let methods =
        ask(&address, "GET /v1/methods/dpo HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(methods.contains("\"name\":\"DPO\""), "{methods}");
    // As the system stops a service.
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let log = text(&output.stderr);
    assert!(log.contains("/v1/chat/completions") && !log.contains("zanzibar"), "{log}");

    let made = hone(folder.path(), &["serve", "keys", "add", "app", "--store", "log.db"]);
    let secret = text(&made.stdout).trim().to_owned();
    assert!(made.status.success() && secret.starts_with("hone-"), "{}", text(&made.stderr));
    let list = text(&hone(folder.path(), &["serve", "keys", "list", "--store", "log.db"]).stdout);
    assert!(list.contains("in use  infer,feedback  app") && !list.contains(&secret), "{list}");
    let key = list.split_whitespace().next().unwrap();
    assert!(hone(folder.path(), &["serve", "keys", "revoke", key, "--store", "log.db"]).status.success());
    let list = text(&hone(folder.path(), &["serve", "keys", "list", "--store", "log.db"]).stdout);
    assert!(list.contains("ended"), "{list}");
}

#[test]
fn what_cannot_be_served_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, words) in [
        (&["serve"][..], "needed something that answers"),
        (&["serve", "--upstream", "ftp://h"], "url: needed http://"),
        (&["serve", "--model", "nowhere"], "nowhere"),
        (&["serve", "--upstream", "http://h", "--listen", "0.0.0.0:0"], "needed a key"),
        (&["serve", "variants"], "needed two variants"),
    ] {
        let output = hone(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains(words), "{arguments:?}: {}", text(&output.stderr));
    }
}
