//! `kill -9` in the middle of load: all feedback that was acknowledged is there, none twice.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hone_feedback::Form;

/// Callers at the same time.
const CALLERS: usize = 8;

/// Posts items one after the other until the service is gone. `told` gets the names of those acknowledged.
fn load(address: &str, caller: usize, count: &AtomicUsize, told: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for number in 0.. {
        let name = format!("e{caller}-{number}");
        let body = format!("{{\"form\":\"event\",\"on\":\"x\",\"event\":\"{name}\"}}");
        write!(
            stream,
            "POST /v1/feedback HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut status = String::new();
        if reader.read_line(&mut status)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut rest = vec![0; length];
        reader.read_exact(&mut rest)?;
        assert!(status.starts_with("HTTP/1.1 202"), "{status}");
        told.lock().expect("lock").push(name);
        count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_feedback_survives() {
    let folder = tempfile::tempdir().expect("folder");
    // Examples are built beside the tests.
    let mut program = std::env::current_exe().expect("this program");
    program.pop();
    program.set_file_name("examples");
    let program = program.join("serve");
    for (round, enough) in [1, 200, 1000].into_iter().enumerate() {
        let store = folder.path().join(format!("{round}.db")).display().to_string();
        let mut child =
            Command::new(&program).arg(&store).stdout(Stdio::piped()).spawn().expect("the example `serve`");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut address).expect("an address");
        let (count, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (address, count, told) = (address.trim().to_owned(), count.clone(), told.clone());
                // It ends with an error once the service is gone.
                std::thread::spawn(move || drop(load(&address, caller, &count, &told)))
            })
            .collect();
        while count.load(Ordering::SeqCst) < enough {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // SIGKILL.
        child.kill().expect("kill");
        child.wait().expect("wait");
        for caller in callers {
            caller.join().expect("caller");
        }
        let opened = hone_store::open(&store).await.expect("open");
        let mut stored: HashMap<String, usize> = HashMap::new();
        for item in opened.waiting().await.expect("waiting") {
            let Form::Event { event, .. } = item.feedback.form else { panic!("{item:?}") };
            *stored.entry(event).or_default() += 1;
        }
        let told = told.lock().expect("lock");
        let wrong: Vec<_> = told.iter().filter(|name| stored.get(*name) != Some(&1)).collect();
        assert!(wrong.is_empty() && told.len() >= enough, "round {round}: {wrong:?}");
    }
}
