//! A headless Chromium, driven as a person would: by clicks, keys and drags.
//!
//! Chromium is spoken to over a pipe (`--remote-debugging-pipe`): JSON messages that end in a zero byte. That needs no
//! websocket, no port that others could reach, and no crate.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Modifiers of keys, as the protocol has them.
pub const CTRL: u32 = 2;
pub const SHIFT: u32 = 8;

/// A browser with one page.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// What went wrong on the pages: uncaught errors, violations of their policy, dialogs.
    pub faults: Vec<String>,
    _folder: tempfile::TempDir,
}

/// Where Chromium is; None where it is not installed, which `HONE_NEEDS_CHROMIUM` makes a failure.
pub fn program() -> Option<&'static str> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = found.into_iter().find(|path| std::path::Path::new(path).exists());
    if found.is_none() {
        assert!(std::env::var_os("HONE_NEEDS_CHROMIUM").is_none(), "needed Chromium in /usr/bin, got none");
        eprintln!("skipped: there is no Chromium in /usr/bin");
    }
    found
}

impl Browser {
    /// Starts one.
    pub fn start(program: &str) -> Browser {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-extensions --disable-dev-shm-usage \
                     --disable-background-networking --disable-component-update --remote-debugging-pipe about:blank";
        // The protocol's pipes are file descriptors 3 and 4, which a shell can make of the first two.
        let script =
            format!("exec \"$0\" --user-data-dir=\"$1\" {flags} 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null");
        let mut child = Command::new("/bin/sh")
            .args(["-c", &script, program])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Chromium");
        let input = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while output.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                message.pop();
                if let Ok(value) = serde_json::from_slice(&message)
                    && sender.send(value).is_err()
                {
                    break;
                }
                message.clear();
            }
        });
        let mut browser =
            Browser { child, input, messages, session: None, last: 0, faults: Vec::new(), _folder: folder };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// One command of the protocol.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&message).expect("JSON");
        bytes.push(0);
        self.input.write_all(&bytes).expect("Chromium listens");
        self.input.flush().expect("Chromium listens");
        loop {
            let answer =
                self.messages.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{method}: no answer"));
            if answer["id"] == self.last {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.faults.push(params["exceptionDetails"].to_string()),
            Some("Log.entryAdded") if params["entry"]["source"] == "security" => {
                self.faults.push(params["entry"].to_string())
            }
            Some("Page.javascriptDialogOpening") => {
                self.faults.push(format!("a dialog: {}", params["message"]))
            }
            _ => {}
        }
    }

    /// The size of the window, and whether its user likes it dark.
    pub fn look(&mut self, width: u32, height: u32, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}),
        );
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
    }

    /// Opens an address and waits until a page is shown.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address}));
        self.until("document.readyState === 'complete' && document.querySelector('main h1') && !document.querySelector('main[aria-busy]')");
    }

    /// The value of an expression on the page.
    pub fn eval(&mut self, script: &str) -> Value {
        let found = self.call(
            "Runtime.evaluate",
            json!({"expression": script, "awaitPromise": true, "returnByValue": true}),
        );
        assert!(found.get("exceptionDetails").is_none(), "{script}: {}", found["exceptionDetails"]);
        found["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, script: &str) {
        let start = Instant::now();
        // While a page gives way to the next one there is nothing to ask.
        let ready = format!("(() => {{ try {{ return Boolean({script}); }} catch {{ return false; }} }})()");
        while self.eval(&ready) != true {
            let page = || "document.body?.innerText ?? ''";
            assert!(start.elapsed() < PATIENCE, "never true: {script}; the page says: {}", self.eval(page()));
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// The middle of an element, which must be what a person would hit there.
    fn middle(&mut self, selector: &str) -> (f64, f64) {
        let name = serde_json::to_string(selector).expect("JSON");
        self.until(&format!("document.querySelector({name})"));
        let found = self.eval(&format!(
            "(async () => {{ const e = document.querySelector({name}); e.scrollIntoView({{block: 'center', behavior: 'instant'}});
               await new Promise(requestAnimationFrame);
               const b = e.getBoundingClientRect(); const x = b.x + b.width / 2, y = b.y + b.height / 2;
               const hit = document.elementFromPoint(x, y);
               return {{x, y, hit: Boolean(hit) && (e.contains(hit) || hit.contains(e)), what: hit?.outerHTML.slice(0, 200)}}; }})()"
        ));
        assert!(found["hit"] == true, "{selector} is covered by {}", found["what"]);
        (found["x"].as_f64().expect("x"), found["y"].as_f64().expect("y"))
    }

    fn mouse(&mut self, kind: &str, (x, y): (f64, f64), buttons: u32) {
        let button = if kind == "mouseMoved" && buttons == 0 { "none" } else { "left" };
        self.call(
            "Input.dispatchMouseEvent",
            json!({"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": u32::from(kind != "mouseMoved")}),
        );
    }

    /// Clicks an element.
    pub fn click(&mut self, selector: &str) {
        let at = self.middle(selector);
        self.mouse("mouseMoved", at, 0);
        self.mouse("mousePressed", at, 1);
        self.mouse("mouseReleased", at, 0);
    }

    /// Drags an element to the upper part of another one.
    pub fn drag(&mut self, from: &str, to: &str) {
        let start = self.middle(from);
        let name = serde_json::to_string(to).expect("JSON");
        let end = self.eval(&format!(
            "(() => {{ const b = document.querySelector({name}).getBoundingClientRect(); return [b.x + 20, b.y + b.height / 8]; }})()"
        ));
        let end = (end[0].as_f64().expect("x"), end[1].as_f64().expect("y"));
        self.mouse("mouseMoved", start, 0);
        self.mouse("mousePressed", start, 1);
        for step in 1..=8 {
            let share = f64::from(step) / 8.0;
            self.mouse(
                "mouseMoved",
                (start.0 + (end.0 - start.0) * share, start.1 + (end.1 - start.1) * share),
                1,
            );
        }
        self.mouse("mouseReleased", end, 0);
    }

    /// Presses a key, by the name that pages see.
    pub fn key(&mut self, key: &str, modifiers: u32) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            one => one.to_ascii_uppercase().bytes().next().map_or(0, u32::from),
        };
        let mut down =
            json!({"type": "rawKeyDown", "key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code});
        if key.chars().count() == 1 && modifiers & CTRL == 0 {
            down["type"] = "keyDown".into();
            down["text"] = key.into();
        } else if key == "Enter" && modifiers == 0 {
            down["type"] = "keyDown".into();
            down["text"] = "\r".into();
        }
        if modifiers & CTRL != 0 && key == "a" {
            down["commands"] = json!(["selectAll"]);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}),
        );
    }

    /// Writes into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Clicks into a field and writes in the place of what it held.
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.click(selector);
        self.key("a", CTRL);
        self.write(text);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let bytes = b"{\"id\":0,\"method\":\"Browser.close\"}\0";
        let _ = self.input.write_all(bytes);
        let mut waits: VecDeque<Duration> = [50, 100, 200, 400, 800].map(Duration::from_millis).into();
        while let (Ok(None), Some(wait)) = (self.child.try_wait(), waits.pop_front()) {
            std::thread::sleep(wait);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
