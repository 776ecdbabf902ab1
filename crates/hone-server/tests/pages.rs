//! The pages as people use them, and the read API under them.

mod chromium;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use chromium::{Browser, CTRL, SHIFT};
use hone_feedback::Record;
use hone_server::{Config, MethodPage, Scope, Server, new_key};
use hone_store::Run;
use reqwest::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Text that would run if any page took it for markup.
const HOSTILE: &str = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><svg onload='window.hacked = 3'>";

fn records() -> Vec<Record> {
    let message = |text: &str| json!([{"role": "user", "content": text}]);
    let lines = [
        json!({"id": "old", "prompt": message("Name a river."), "responses": [{"id": "o1", "content": "The Elbe.", "model": "m1"}],
            "at": "2026-05-01T08:00:00Z", "tags": ["geo"]}),
        json!({"id": "middle", "prompt": message("Name a lake."), "responses": [{"id": "p1", "content": "Como.", "model": "m1"}]}),
        json!({"id": "new/1", "prompt": message(&format!("Add 2 and 3. {HOSTILE}")), "responses": [
                {"id": "a", "content": "Two 🙂 and\r\nthree.\nThat is 6.", "model": "m1"},
                {"id": "b", "content": format!("Five. {HOSTILE}"), "model": "m2"},
                {"id": "c", "content": "5", "model": "m2"}],
            "feedback": [{"form": "critique", "on": "b", "text": HOSTILE, "by": "user:shown", "at": "2026-05-01T10:00:00Z"}],
            "user": "user:shown", "session": "s1"}),
    ];
    lines.iter().map(|line| Record::from_json(line.to_string().as_bytes()).expect("a record")).collect()
}

fn methods() -> Vec<MethodPage> {
    vec![MethodPage {
        id: "dpo".into(),
        name: "DPO".into(),
        family: "preference".into(),
        summary: format!("Learn from pairs. {HOSTILE}"),
        page: format!(
            "# DPO\n\nA `{}` and a *loss* on `pairs`, see [its page](ipo.md) and [no](javascript:alert(1)).\n\n| a | b |\n|---|---|\n| 1 | {HOSTILE} |\n",
            "a_name_without_end_".repeat(6)
        ),
    }]
}

/// A service with a log, a key of each kind, and a folder of runs.
struct Service {
    runtime: Runtime,
    server: Option<Server>,
    address: String,
    keys: BTreeMap<&'static str, String>,
    folder: tempfile::TempDir,
}

impl Service {
    fn start(with_keys: bool) -> Service {
        let runtime = Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("log.db").display().to_string();
        let runs = folder.path().join("runs");
        std::fs::create_dir_all(runs.join("run-1")).expect("a folder");
        let metrics: String = (1..=50)
            .map(|step| format!("{{\"global_step\":{step},\"loss\":{}}}\n", 2.0 / f64::from(step)))
            .collect();
        std::fs::write(runs.join("run-1/metrics.jsonl"), metrics).expect("written");
        let mut keys = BTreeMap::new();
        let (server, address) = runtime.block_on(async {
            let log = hone_store::open(&store).await.expect("a store");
            for put in log.put(records()).await.expect("put") {
                put.expect("sound");
            }
            let run = Run { id: "run-1".into(), model: "m3".into() };
            log.record_run(run, vec!["old".into()]).await.expect("a run");
            if with_keys {
                let kinds = [
                    ("labeller", vec![Scope::Read, Scope::Feedback]),
                    ("app", vec![Scope::Infer, Scope::Feedback]),
                ];
                for (name, scopes) in kinds {
                    let key = new_key(name, &scopes, None);
                    log.add_key(key.stored).await.expect("a key");
                    keys.insert(name, key.secret);
                }
            }
            drop(log);
            let config = Config {
                listen: "127.0.0.1:0".into(),
                store: store.clone(),
                runs: Some(runs),
                ..Config::default()
            };
            let server = Server::start(config, methods()).await.expect("a service");
            let address = format!("http://{}", server.address());
            (server, address)
        });
        Service { runtime, server: Some(server), address, keys, folder }
    }

    /// Stops it and gives the log.
    fn stop(mut self) -> Vec<Value> {
        let store = self.folder.path().join("log.db").display().to_string();
        let server = self.server.take().expect("it runs");
        self.runtime.block_on(async {
            server.stop();
            server.ended().await;
            let log = hone_store::open(&store).await.expect("a store");
            let lines = log.lines(0, 100).await.expect("lines").lines;
            lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
        })
    }
}

/// What a record holds of a person's feedback, without the times.
fn said(log: &[Value], id: &str, by: &str) -> Vec<Value> {
    let record = log.iter().find(|record| record["id"] == id).expect("the record");
    let items = record["feedback"].as_array().cloned().unwrap_or_default();
    let of_person = items.into_iter().filter(|item| item["by"] == by);
    of_person
        .map(|mut item| {
            let item_fields = item.as_object_mut().expect("an object");
            assert!(item_fields.remove("at").is_some(), "the store notes the time");
            item_fields.remove("by");
            item
        })
        .collect()
}

#[test]
fn a_person_labels_in_every_form() {
    let Some(program) = chromium::program() else { return };
    let service = Service::start(true);
    let mut page = Browser::start(program);
    page.look(1280, 900, false);
    // Whoever is not signed in is asked to, and then taken where they wanted to go.
    page.open(&format!("{}/label", service.address));
    page.until("location.pathname === '/signin'");
    page.fill("[name=key]", "hone-wrong");
    page.key("Enter", 0);
    page.until("document.querySelector('[role=alert]').textContent.includes('unknown or ended')");
    page.fill("[name=key]", &service.keys["labeller"]);
    page.click("button[type=submit]");
    page.until("location.pathname === '/label' && document.querySelector('[data-answer=a]')");

    page.fill_if_folded("#settings", "[name=you]", "ann");
    let answer = |id: &str, rest: &str| format!("[data-answer={id}] {rest}");
    // By keys: the first answer is good and helpful to degree 4; the next one is bad; correct to degree 2 by a click.
    page.key("k", 0);
    page.key("g", 0);
    page.key("4", 0);
    page.key("j", 0);
    page.click(&answer("b", ".pick.bad"));
    page.click(&answer("b", ".marks:nth-of-type(2) input[value='2']"));
    // A span by keyboard: characters 4 and 5 of "Two 🙂 and…" are the emoji and a blank; 🙂 counts as one.
    page.key("k", 0);
    page.key("m", 0);
    page.until("document.activeElement?.name === 'span-text'");
    page.key("Home", CTRL);
    page.eval("document.activeElement.setSelectionRange(0, 0)");
    for _ in 0..4 {
        page.key("ArrowRight", 0);
    }
    for _ in 0..2 {
        page.key("ArrowRight", SHIFT);
    }
    page.fill(&answer("a", "[name=span-label]"), "odd");
    page.fill(&answer("a", "[name=span-words]"), "no smileys");
    page.click(&answer("a", "[data-action=mark]"));
    page.until("document.querySelector('[data-answer=a] > .text mark')?.textContent === '🙂 '");
    // A part that is selected in the answer is taken over: "three" behind the line end, which is one in the field.
    page.eval(
        "(() => { const text = document.querySelector('[data-answer=a] > .text').lastChild; const at = text.data.indexOf('three');
           getSelection().setBaseAndExtent(text, at, text, at + 5); document.activeElement.blur(); })()",
    );
    page.key("m", 0);
    page.until("document.activeElement?.name === 'span-text' && document.activeElement.selectionStart === 11 && document.activeElement.selectionEnd === 16");
    page.fill(&answer("a", "[name=span-label]"), "spelling");
    page.eval("document.querySelector('[data-answer=a] [name=span-value]').value = ''");
    page.click(&answer("a", "[data-action=mark]"));
    // Steps by clicks: the lines of the answer.
    page.click(&answer("a", "[data-tool=steps] summary"));
    page.click(&answer("a", ".steps li:nth-child(1) .pick.good"));
    page.click(&answer("a", ".steps li:nth-child(3) .pick.bad"));
    // An edit and a critique by keys.
    page.key("Escape", 0);
    page.eval("document.querySelector('[data-answer=b]').focus()");
    page.key("e", 0);
    page.until("document.activeElement?.name === 'edit'");
    page.key("a", CTRL);
    page.write("Five.");
    page.key("Escape", 0);
    page.key("c", 0);
    page.until("document.activeElement?.name === 'critique'");
    page.write(&format!("Five, but {HOSTILE}"));
    // A choice between two by a click, an order by dragging the last to the top and a key that moves it down again.
    page.click("[data-part=choice] [data-value=right]");
    page.drag("[data-part=order] [data-id=c] .grip", "[data-part=order] li:first-child");
    page.until("[...document.querySelectorAll('.rank li')].map((row) => row.dataset.id).join('') === 'cab'");
    page.until("document.activeElement?.closest('[data-id=c]')");
    page.key("ArrowDown", 0);
    page.until("[...document.querySelectorAll('.rank li')].map((row) => row.dataset.id).join('') === 'acb'");
    page.click("[data-part=order] [data-id=b] .tie");
    page.fill("[name=rule]", "Write numbers as digits.");
    page.fill("[name=scope]", "sums");
    page.until("document.querySelector('#count').textContent === '13 things said'");
    assert_eq!(page.eval("window.hacked ?? null"), Value::Null, "stored script ran");
    page.key("Enter", CTRL);
    page.until("document.querySelector('[data-answer=p1]')");

    // The next one is skipped; the last one is judged, taken back and judged anew.
    page.eval("document.activeElement.blur()");
    page.key("s", 0);
    page.until("document.querySelector('[data-answer=o1]')");
    page.key("g", 0);
    page.click("#save");
    page.until("document.querySelector('#empty')");
    page.key("z", 0);
    page.until("document.querySelector('[data-answer=o1] .pick.good[aria-pressed=true]')");
    page.key("b", 0);
    page.key("Enter", CTRL);
    page.until("document.querySelector('#empty')");
    // What was said is in the figures, and what was stored is found by them.
    page.click("nav a[href='/dashboard']");
    page.until("[...document.querySelectorAll('.fact')].some((fact) => fact.textContent.startsWith('Things said') && fact.textContent.endsWith('14'))");
    page.until("document.querySelector('.chart svg[role=img][aria-label*=points]')");
    page.click("nav a[href='/exchanges']");
    page.fill("[name=q]", "river");
    page.key("Enter", 0);
    page.until(
        "location.search === '?q=river' && document.querySelectorAll('main ol.list > li').length === 1",
    );
    page.click("main ol.list a");
    page.until("document.querySelector('main h1').textContent === 'Exchange old'");
    page.click("main a[href='/runs/run-1']");
    page.until("document.querySelector('main h1').textContent === 'Run run-1' && document.querySelector('.chart polyline')");
    page.click("nav a[href='/methods']");
    page.fill("[name=q]", "nothing like it");
    page.until("document.querySelector('main').textContent.includes('No method fits')");
    page.fill("[name=q]", "pairs");
    page.until("document.querySelector('main a[href=\"/methods/dpo\"]')");
    page.click("nav a[href='/label']");
    page.until("document.querySelector('#empty')");
    // The help is a dialog that keys open and close.
    page.key("?", 0);
    page.until("document.querySelector('#help').open");
    page.key("Escape", 0);
    page.until("!document.querySelector('#help').open");
    page.click("#sign-out");
    page.until("location.pathname === '/signin'");
    assert!(page.faults.is_empty(), "{:#?}", page.faults);
    drop(page);

    let log = service.stop();
    let expected = json!([
        {"form": "thumb", "on": "a", "value": true},
        {"form": "thumb", "on": "b", "value": false},
        {"form": "rating", "on": "a", "value": 4.0, "scale": [1.0, 5.0], "aspect": "helpful"},
        {"form": "rating", "on": "b", "value": 2.0, "scale": [1.0, 5.0], "aspect": "correct"},
        {"form": "comparison", "better": "b", "worse": "a"},
        {"form": "ranking", "order": [["a"], ["c", "b"]]},
        {"form": "span", "on": "a", "start": 4, "end": 6, "label": "odd", "value": -1.0, "text": "no smileys"},
        {"form": "span", "on": "a", "start": 11, "end": 16, "label": "spelling"},
        {"form": "step", "on": "a", "index": 0, "correct": true},
        {"form": "step", "on": "a", "index": 2, "correct": false},
        {"form": "edit", "on": "b", "content": "Five."},
        {"form": "critique", "on": "b", "text": format!("Five, but {HOSTILE}")},
        {"form": "rule", "text": "Write numbers as digits.", "scope": "sums"},
    ]);
    assert_eq!(sorted(said(&log, "new/1", "user:ann")), sorted(expected.as_array().expect("a list").clone()));
    assert_eq!(said(&log, "old", "user:ann"), [json!({"form": "thumb", "on": "o1", "value": false})]);
    assert_eq!(said(&log, "middle", "user:ann"), [Value::Null; 0]);
    let all: usize = log.iter().map(|record| record["feedback"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(all, 13 + 1 + 1, "nothing else is stored");
}

fn sorted(mut items: Vec<Value>) -> Vec<String> {
    // Numbers as one kind: 4 and 4.0 are the same mark.
    fn plain(value: &mut Value) {
        match value {
            Value::Number(number) => *value = json!(number.as_f64()),
            Value::Array(items) => items.iter_mut().for_each(plain),
            Value::Object(fields) => fields.values_mut().for_each(plain),
            _ => {}
        }
    }
    items.iter_mut().for_each(plain);
    let ordered = |item: &Value| {
        item.as_object()
            .map(|fields| fields.iter().collect::<BTreeMap<_, _>>())
            .map(|fields| json!(fields).to_string())
    };
    let mut lines: Vec<String> = items.iter().filter_map(ordered).collect();
    lines.sort();
    lines
}

impl Browser {
    /// Fills a field that may lie in a part that is folded.
    fn fill_if_folded(&mut self, part: &str, field: &str, text: &str) {
        self.eval(&format!("document.querySelector('{part}').open = true"));
        self.fill(field, text);
        self.key("Tab", 0);
        self.eval("document.activeElement.blur()");
    }
}

/// Every page in every look: nothing stored runs, everything has a name, is reached by Tab, fits and can be read.
#[test]
fn every_page_is_sound() {
    let Some(program) = chromium::program() else { return };
    let service = Service::start(false);
    let mut page = Browser::start(program);
    let paths = [
        "exchanges",
        "exchanges?q=river&form=",
        "exchanges/new%2F1",
        "label?id=new%2F1",
        "label",
        "dashboard",
        "runs",
        "runs/run-1",
        "methods",
        "methods/dpo",
        "signin",
    ];
    let pictures = std::env::var_os("HONE_PICTURES");
    for (name, width, height, dark) in [
        ("desktop", 1280, 900, false),
        ("desktop-dark", 1280, 900, true),
        ("phone", 360, 740, false),
        ("phone-dark", 360, 740, true),
    ] {
        page.look(width, height, dark);
        for path in paths {
            page.open(&format!("{}/{path}", service.address));
            if path.starts_with("label") {
                page.eval("localStorage.setItem('hone.label', JSON.stringify({name: 'ann'}))");
                page.open(&format!("{}/{path}", service.address));
                page.eval(
                    "document.querySelectorAll('[data-tool]').forEach((part) => { part.open = true; })",
                );
                page.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
            }
            if let Some(folder) = &pictures {
                page.picture(
                    &Path::new(folder)
                        .join(format!("{}-{name}.png", path.replace(['/', '?', '=', '&', '%'], "_"))),
                );
            }
            let faults = page.eval(include_str!("chromium/audit.js"));
            assert_eq!(faults, json!([]), "{path}, {name}");
            assert_eq!(page.eval("window.hacked ?? null"), Value::Null, "{path}: stored script ran");
            if name == "desktop" {
                tab_reaches_all(&mut page, path);
            }
        }
    }
    assert!(page.faults.is_empty(), "{:#?}", page.faults);
}

/// Presses Tab until the focus has been everywhere.
fn tab_reaches_all(page: &mut Browser, path: &str) {
    page.eval("document.activeElement?.blur(); window.scrollTo(0, 0)");
    let wanted = page.eval(
        "(() => { window.unseen = new Set([...document.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex=\"0\"]')]
           .filter((e) => !e.disabled && e.checkVisibility() && !e.closest('dialog:not([open])') && e.type !== 'radio'));
           return window.unseen.size; })()",
    );
    let wanted = wanted.as_u64().expect("a number");
    for _ in 0..wanted * 2 + 20 {
        page.key("Tab", 0);
        page.eval("window.unseen.delete(document.activeElement)");
    }
    let unseen = page.eval("[...window.unseen].map((e) => e.outerHTML.slice(0, 120))");
    assert_eq!(unseen, json!([]), "{path}: Tab never came there");
}

impl Browser {
    fn picture(&mut self, path: &Path) {
        let size = self.eval("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]");
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let found = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "clip": clip, "captureBeyondViewport": true}),
        );
        std::fs::write(path, base64(found["data"].as_str().expect("a picture"))).expect("written");
    }
}

/// Bytes of a Base64 text.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').collect();
    let bytes = |four: &[u8]| {
        let bits = four.iter().fold(0, |bits, byte| bits << 6 | value(*byte)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(bytes).collect()
}

/// Contrast of the colours that meet, by the formula of WCAG 2: 4.5 for text, 3 for the edges of controls.
#[test]
fn colours_can_be_told_apart() {
    let css = include_str!("../pages/style.css");
    let (light, dark) = css.split_once("@media (prefers-color-scheme: dark)").expect("two schemes");
    let read = |text: &str| -> BTreeMap<String, [f64; 3]> {
        let colours = text.split("--").skip(1).filter_map(|part| part.split_once(": #"));
        let byte = |hex: &str, at: usize| {
            u8::from_str_radix(&hex[at..at + 2], 16).map(|byte| f64::from(byte) / 255.0).ok()
        };
        colours
            .filter_map(|(name, hex)| Some((name.to_owned(), [byte(hex, 0)?, byte(hex, 2)?, byte(hex, 4)?])))
            .collect()
    };
    let luminance = |colour: &[f64; 3]| {
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
    };
    let contrast = |a: &[f64; 3], b: &[f64; 3]| {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    };
    // White on black is 21 to 1.
    assert!((contrast(&[0.0; 3], &[1.0; 3]) - 21.0).abs() < 1e-9);
    for (scheme, colours) in
        [("light", read(light)), ("dark", read(dark.split("* {").next().expect("a block")))]
    {
        assert!(colours.len() >= 20, "{scheme}: {colours:?}");
        let texts = [
            ("text", "page"),
            ("text", "card"),
            ("text", "field"),
            ("quiet", "page"),
            ("quiet", "card"),
            ("accent", "page"),
            ("accent", "card"),
            ("on-accent", "accent"),
            ("on-soft", "soft"),
            ("good", "good-soft"),
            ("bad", "bad-soft"),
            ("bad", "card"),
            ("bad", "page"),
            ("on-mark", "mark"),
        ];
        let edges = [
            ("edge", "field"),
            ("edge", "card"),
            ("accent", "card"),
            ("s0", "card"),
            ("s1", "card"),
            ("s2", "card"),
            ("s3", "card"),
            ("s4", "card"),
            ("s5", "card"),
        ];
        for (pairs, least) in [(&texts[..], 4.5), (&edges[..], 3.0)] {
            for (front, back) in pairs {
                let found = contrast(&colours[*front], &colours[*back]);
                assert!(found >= least, "{scheme}: {front} on {back}: needed {least}, got {found:.2}");
            }
        }
    }
}

/// One request, as a program or a hostile page would send it.
async fn send(
    method: &str,
    address: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> reqwest::Response {
    // Making a client is slow. Every test has a runtime of its own, so no connection is kept for the next one.
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("a client")
    });
    let mut request = CLIENT.request(method.parse().expect("a method"), address);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
    }
    request.send().await.expect("an answer")
}

/// Percent escapes as text.
fn percent(text: &str) -> String {
    let escaped = reqwest::Url::parse(&format!("http://h/?v={text}")).expect("an address");
    escaped.query_pairs().map(|(_, value)| value.into_owned()).collect()
}

async fn json_of(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
}

#[test]
fn sessions_are_closed_to_other_sites() {
    let service = Service::start(true);
    let api = |path: &str| format!("{}/api/{path}", service.address);
    let key = json!({"key": service.keys["labeller"]});
    service.runtime.block_on(async {
        let session = format!("{}/v1/session", service.address);
        assert_eq!(send("GET", &session, &[], None).await.status(), 401);
        assert_eq!(send("GET", &api("exchanges"), &[], None).await.status(), 401);
        // Neither a wrong key nor another site opens a session.
        assert_eq!(send("POST", &session, &[], Some(json!({"key": "x"}))).await.status(), 401);
        let elsewhere = [("origin", "http://elsewhere.example")];
        assert_eq!(send("POST", &session, &elsewhere, Some(key.clone())).await.status(), 403);
        let opened = send("POST", &session, &[("origin", service.address.as_str())], Some(key.clone())).await;
        assert_eq!(opened.status(), 200);
        let line = opened.headers()[SET_COOKIE].to_str().expect("text").to_owned();
        assert!(
            line.contains("HttpOnly") && line.contains("SameSite=Strict") && line.contains("Path=/"),
            "{line}"
        );
        assert!(!line.contains("Secure"), "without TLS a browser would drop it: {line}");
        let cookie = line.split(';').next().expect("a pair").to_owned();
        let token = json_of(opened).await["csrf"].as_str().expect("a token").to_owned();
        assert!(!line.contains(&service.keys["labeller"]) && !line.contains(&token));

        // Reading needs the cookie, writing the token too, and both of this site.
        let cookies = ("cookie", cookie.as_str());
        assert_eq!(send("GET", &api("exchanges"), &[cookies], None).await.status(), 200);
        let skip = || Some(json!({"by": "user:ann", "id": "old"}));
        let refused = send("POST", &api("queue/skip"), &[cookies], skip()).await;
        assert_eq!(refused.status(), 403);
        assert_eq!(json_of(refused).await["error"]["code"], "csrf");
        let wrong = send("POST", &api("queue/skip"), &[cookies, ("x-csrf-token", "0")], skip()).await;
        assert_eq!(wrong.status(), 403);
        let tokens = ("x-csrf-token", token.as_str());
        let foreign = send("POST", &api("queue/skip"), &[cookies, tokens, elsewhere[0]], skip()).await;
        assert_eq!(foreign.status(), 403);
        assert_eq!(send("POST", &api("queue/skip"), &[cookies, tokens], skip()).await.status(), 204);
        // Feedback is under the same rule.
        let thumb = || Some(json!({"exchange": "old", "form": "thumb", "on": "o1", "value": true}));
        let feedback = format!("{}/v1/feedback", service.address);
        assert_eq!(send("POST", &feedback, &[cookies], thumb()).await.status(), 403);
        // The scopes are those of the key: none to make keys.
        let keys = format!("{}/v1/keys", service.address);
        assert_eq!(send("GET", &keys, &[cookies], None).await.status(), 403);
        // Signed out, the cookie is worth nothing.
        assert_eq!(send("DELETE", &session, &[cookies, elsewhere[0]], None).await.status(), 403);
        assert_eq!(send("DELETE", &session, &[cookies, tokens], None).await.status(), 204);
        assert_eq!(send("GET", &api("exchanges"), &[cookies], None).await.status(), 401);
        // Behind a proxy with TLS the cookie is for TLS alone.
        let secure = send("POST", &session, &[("x-forwarded-proto", "https")], Some(key)).await;
        assert!(secure.headers()[SET_COOKIE].to_str().expect("text").contains("; Secure"));
        // What may only write feedback is given no exchange to read.
        let bearer = format!("Bearer {}", service.keys["app"]);
        let asked =
            send("POST", &api("queue/next"), &[("authorization", &bearer)], Some(json!({"by": "user:x"})))
                .await;
        assert_eq!(asked.status(), 403);
    });
    service.stop();
}

#[test]
fn the_read_api() {
    let service = Service::start(false);
    let at = |path: &str| format!("{}{path}", service.address);
    service.runtime.block_on(async {
        let get = |path: &str| {
            let address = at(path);
            async move { send("GET", &address, &[], None).await }
        };
        // Pages, and what they may do.
        for path in ["/", "/exchanges", "/exchanges/new%2F1", "/label", "/methods/dpo", "/assets/app.js", "/assets/icon.svg"] {
            let answer = get(path).await;
            assert_eq!(answer.status(), 200, "{path}");
            let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().expect("text").to_owned();
            assert!(policy.contains("script-src 'self';") && policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
            let tag = answer.headers()["etag"].to_str().expect("text").to_owned();
            assert_eq!(send("GET", &at(path), &[("if-none-match", &tag)], None).await.status(), 304);
            let text = answer.text().await.expect("text");
            assert!(!text.contains("http://") || path.ends_with(".svg") || path.ends_with(".js"), "{path} names another place");
        }
        assert_eq!(get("/assets/secret").await.status(), 404);
        assert_eq!(get("/assets/..%2Fsrc%2Flib.rs").await.status(), 404);

        let list = |path: &'static str| {
            let answer = get(path);
            async move {
                let found = json_of(answer.await).await;
                let ids = found["data"].as_array().map(|all| all.iter().filter_map(|one| one["id"].as_str().map(str::to_owned)).collect::<Vec<_>>());
                (ids.unwrap_or_else(|| panic!("{found}")), found["next"].clone())
            }
        };
        assert_eq!(list("/api/exchanges").await.0, ["new/1", "middle", "old"]);
        assert_eq!(list("/api/exchanges?q=riv*").await.0, ["old"]);
        assert_eq!(list("/api/exchanges?model=m2").await.0, ["new/1"]);
        assert_eq!(list("/api/exchanges?tag=geo").await.0, ["old"]);
        assert_eq!(list("/api/exchanges?session=s1&user=user:shown&form=critique").await.0, ["new/1"]);
        assert_eq!(list("/api/exchanges?since=2026-05-01&until=2026-05-02").await.0, ["old"]);
        let (first, next) = list("/api/exchanges?limit=2").await;
        assert_eq!(first, ["new/1", "middle"]);
        let rest = json_of(get(&format!("/api/exchanges?limit=2&before={next}")).await).await;
        assert_eq!((&rest["data"][0]["id"], &rest["next"]), (&json!("old"), &Value::Null));
        for wrong in ["form=thumbs", "limit=0", "limit=x", "since=soon", "colour=red", "before=x"] {
            let answer = get(&format!("/api/exchanges?{wrong}")).await;
            assert_eq!(answer.status(), 400, "{wrong}");
            assert!(json_of(answer).await["error"]["message"].is_string(), "{wrong}");
        }

        let one = json_of(get("/api/exchanges/new%2F1").await).await;
        assert_eq!(one["responses"][0]["steps"], json!(["Two 🙂 and", "three.", "That is 6."]));
        assert_eq!(one["responses"][0]["text"], "Two 🙂 and\r\nthree.\nThat is 6.");
        assert_eq!(one["feedback"][0]["text"], HOSTILE);
        assert_eq!(json_of(get("/api/exchanges/o1").await).await["runs"], json!([{"id": "run-1", "model": "m3"}]));
        assert_eq!(get("/api/exchanges/none").await.status(), 404);

        let runs = json_of(get("/api/runs").await).await;
        assert_eq!(runs["data"], json!([{"id": "run-1", "model": "m3", "curves": true}]));
        let run = json_of(get("/api/runs/run-1").await).await;
        assert_eq!((&run["items"], run["curves"]["loss"].as_array().map(Vec::len)), (&json!(["old"]), Some(50)));
        for path in ["/api/runs/..", "/api/runs/..%2Fruns%2Frun-1", "/api/runs/none"] {
            assert_eq!(get(path).await.status(), 404, "{path}");
        }

        // Whatever is asked, it is answered or refused, never a failure.
        let odd = ["%00", "%F0%9F%99%82", "%FF", "-1", "99999999999999999999", "0.5", "'", "%22", "*", "%22a*", "..", "%2F", "NaN"];
        for value in odd {
            for name in ["q", "model", "tag", "session", "user", "by", "form", "since", "until", "before", "limit"] {
                for path in ["exchanges", "queue/agreement"] {
                    let status = get(&format!("/api/{path}?{name}={value}")).await.status();
                    assert!(status == 200 || status == 400, "{path}?{name}={value}: {status}");
                }
            }
            for path in ["exchanges", "runs"] {
                let status = get(&format!("/api/{path}/{value}")).await.status();
                assert!(status == 404 || status == 400, "{path}/{value}: {status}");
            }
            let text = percent(value);
            for (path, body) in [
                ("next", json!({"by": format!("user:{text}"), "q": text, "tag": text, "before": -1, "form": text})),
                ("next", json!({"by": "user:x", "overlap": text})),
                ("skip", json!({"by": format!("user:{text}"), "id": text})),
                ("undo", json!({"keys": [text, ""]})),
                ("undo", json!({"keys": text})),
            ] {
                let status = send("POST", &at(&format!("/api/queue/{path}")), &[], Some(body.clone())).await.status();
                assert!(status.is_success() || status == 400, "{path} {body}: {status}");
            }
        }

        // Two people per exchange; a third gets another one.
        let next = |by: &'static str| {
            let address = at("/api/queue/next");
            async move { json_of(send("POST", &address, &[], Some(json!({"by": by, "overlap": 2}))).await).await["item"]["id"].clone() }
        };
        assert_eq!(next("user:a").await, "new/1");
        assert_eq!(next("user:b").await, "new/1");
        assert_eq!(next("user:c").await, "middle");
        for wrong in [json!({"by": "ann"}), json!({"by": "user:a", "overlap": 0}), json!({"by": 3}), json!([])] {
            let answer = send("POST", &at("/api/queue/next"), &[], Some(wrong.clone())).await;
            assert_eq!(answer.status(), 400, "{wrong}");
        }
        assert_eq!(json_of(get("/api/queue/agreement").await).await, json!({"exchanges": 3, "shared": 0, "measures": []}));
        let undone = send("POST", &at("/api/queue/undo"), &[], Some(json!({"keys": ["none"]}))).await;
        assert_eq!(json_of(undone).await, json!({"deleted": 0}));
        // Another site may not use an open service through a visitor's browser.
        let foreign = send("POST", &at("/api/queue/next"), &[("origin", "http://elsewhere.example")], Some(json!({"by": "user:a"}))).await;
        assert_eq!(foreign.status(), 403);
    });
    service.stop();
}
