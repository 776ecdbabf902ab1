//! One suite of behaviour, run over every backend.

mod server;

use hone_feedback::{Feedback, Form, Record, formats};
use hone_store::{Error, Key, Query, Run, Said, State, Store, export, import, open};

/// Everything that a record may hold, one line each.
const LOG: &str = r#"{"id":"r1","prompt":[{"role":"user","content":"Name the capital of France."}],"responses":[{"id":"a","content":"Paris is the capital.","model":"m1","usage":{"prompt_tokens":7,"completion_tokens":5},"latency_ms":12.5},{"id":"b","content":"Lyon.","model":"m2"}],"feedback":[{"form":"thumb","on":"a","value":true,"by":"user:1","at":"2026-05-01T10:00:00Z"},{"form":"rating","on":"a","value":4,"scale":[1,5],"aspect":"helpful","by":"user:2"},{"form":"comparison","better":"a","worse":"b"},{"form":"ranking","order":[["a"],["b"]]},{"form":"critique","on":"b","text":"Lyon is not the capital, façade!"},{"form":"edit","on":"b","content":"Paris."},{"form":"span","on":"a","start":0,"end":5,"label":"fact","value":1},{"form":"step","on":"a","index":0,"correct":true},{"form":"outcome","on":"a","check":"tests","passed":false,"text":"Traceback"},{"form":"event","on":"a","event":"copied"},{"form":"rule","text":"be brief","scope":"mail"}],"split":"train","at":"2026-05-01T09:00:00Z","user":"user:1","session":"s1","tags":["geo","test"]}
{"id":"r2","prompt":"raw text to continue","responses":[{"id":"a","content":"東京 tower","odd":{"z":1,"a":1.50}}],"at":"2026-05-02T00:00:00Z","user":"user:9"}
{"id":"r3","prompt":[{"role":"user","content":"nothing was answered \u0000"}],"at":"2026-05-02"}
"#;

fn records() -> Vec<Record> {
    LOG.lines().map(|line| Record::from_json(line.as_bytes()).expect(line)).collect()
}

fn thumb(on: &str) -> Feedback {
    Form::Thumb { on: on.into(), value: true }.into()
}

fn said(feedback: Feedback) -> Said {
    Said { exchange: None, feedback, key: None }
}

async fn log_of(store: &dyn Store) -> String {
    let mut out = Vec::new();
    export(store, &mut out).await.expect("export");
    String::from_utf8(out).expect("UTF-8")
}

async fn texts(store: &dyn Store, text: &str) -> Vec<String> {
    let page = store.search(Query { text: Some(text.into()), ..Query::default() }).await.expect(text);
    page.hits.into_iter().map(|record| record.id).collect()
}

/// The suite; `open_new` gives an empty store each time.
async fn suite(names: &mut dyn Iterator<Item = String>) {
    let mut address = || names.next().expect("one more store");
    let new = address();
    round_trip(&*open(&new).await.expect("open"), &*open(&address()).await.expect("open")).await;
    // Opened again, it holds the same.
    assert_eq!(log_of(&*open(&new).await.expect("open")).await, LOG.replace("1.50", "1.5"));
    merging(&*open(&address()).await.expect("open")).await;
    early(&*open(&address()).await.expect("open")).await;
    keys(&*open(&address()).await.expect("open")).await;
    refusals(&*open(&address()).await.expect("open")).await;
    searching(&*open(&address()).await.expect("open")).await;
    sums(&*open(&address()).await.expect("open")).await;
    forgetting(&*open(&address()).await.expect("open")).await;
    together(&*open(&address()).await.expect("open")).await;
    service(&*open(&address()).await.expect("open")).await;
}

async fn round_trip(store: &dyn Store, other: &dyn Store) {
    for put in store.put(records()).await.expect("put") {
        assert!(put.as_ref().is_ok_and(|put| put.new), "{put:?}");
    }
    let log = log_of(store).await;
    let options = formats::Options::default();
    let reader =
        formats::open_stream("log", Box::new(std::io::Cursor::new(log.clone())), &options).expect("reader");
    let imported = import(other, reader).await.expect("import");
    assert_eq!((imported.records, imported.responses, imported.feedback), (3, 3, 11), "{imported:?}");
    assert_eq!(log_of(other).await, log);
    assert_eq!(store.get("r2").await.expect("get"), Some(records().remove(1)));
    assert_eq!(store.get("b").await.expect("get").map(|record| record.id).as_deref(), Some("r1"));
    // Two exchanges have a response called `a`.
    assert_eq!(store.get("a").await.expect("get"), None);
    store.ready().await.expect("ready");
}

async fn merging(store: &dyn Store) {
    store.put(records()).await.expect("put");
    let before = log_of(store).await;
    let again = store.put(records()).await.expect("put");
    assert!(
        again.iter().all(|put| put.as_ref().is_ok_and(|p| !p.new && p.feedback == 0 && p.responses == 0))
    );
    assert_eq!(log_of(store).await, before);
    // The same thumb a second time, and a response: both are new, and nothing else is.
    let mut more = records().remove(0);
    more.feedback.push(more.feedback[0].clone());
    let more = more.respond("c", "Nice.");
    let put = store.put(vec![more.clone()]).await.expect("put").remove(0).expect("merged");
    assert_eq!((put.new, put.responses, put.feedback), (false, 1, 1));
    assert_eq!(store.get("r1").await.expect("get"), Some(more));
    let other = Record { prompt: "Another question".into(), ..records().remove(0) };
    let twice = vec![Record::new("new", "x"), Record::new("new", "y")];
    let results = store.put([vec![other], twice].concat()).await.expect("put");
    let error = results[0].as_ref().expect_err("conflict").to_string();
    assert_eq!(error, "record \"r1\": prompt: needed what is stored under this name, got something else");
    assert!(results[1].is_ok() && matches!(results[2], Err(Error::Conflict { .. })), "{results:?}");
}

async fn early(store: &dyn Store) {
    let span = |end| Form::Span { on: "x".into(), start: 0, end, label: None, value: None };
    let items = vec![
        said(thumb("x").by("user:1")),
        said(Feedback::from(span(5))),
        said(Feedback::from(span(6))),
        Said {
            exchange: Some("ex".into()),
            ..said(Form::Critique { on: None, text: "odd words".into() }.into())
        },
    ];
    let receipts = store.say(items).await.expect("say");
    assert!(receipts.iter().all(|r| r.as_ref().is_ok_and(|r| r.state == State::Early)), "{receipts:?}");
    assert_eq!(store.waiting().await.expect("waiting").len(), 4);
    let put = store.put(vec![Record::new("ex", "p").respond("x", "hello")]).await.expect("put").remove(0);
    // `hello` has five characters: the span to 6 does not fit and is kept apart with the reason.
    assert_eq!(put.expect("put").joined, 3);
    let waiting = store.waiting().await.expect("waiting");
    assert_eq!(waiting.len(), 1);
    let fault = waiting[0].fault.as_deref().unwrap_or_default();
    assert!(fault.ends_with("end: needed at most 5, the characters of the response, got 6"), "{fault}");
    let record = store.get("ex").await.expect("get").expect("record");
    assert_eq!(record.feedback.len(), 3);
    assert!(record.validate().is_empty());
    assert_eq!(texts(store, "odd").await, ["ex"]);
}

async fn keys(store: &dyn Store) {
    store.put(vec![Record::new("ex", "p").respond("x", "hello")]).await.expect("put");
    let with_key = |feedback: Feedback| Said { key: Some("k".into()), ..said(feedback) };
    // In one group, and again in another one.
    let both = store.say(vec![with_key(thumb("x")), with_key(thumb("x"))]).await.expect("say");
    let ids: Vec<_> = both.iter().flatten().map(|receipt| (receipt.id.clone(), receipt.state)).collect();
    assert_eq!(ids, [("fb-1".into(), State::Joined), ("fb-1".into(), State::Repeated)]);
    let again = store.say(vec![with_key(thumb("x"))]).await.expect("say").remove(0).expect("repeated");
    assert_eq!((again.id.as_str(), again.state), ("fb-1", State::Repeated));
    let other = store.say(vec![with_key(thumb("x").by("somebody"))]).await.expect("say").remove(0);
    assert_eq!(other, Err(Error::KeyReused { key: "k".into() }));
    let record = store.get("ex").await.expect("get").expect("record");
    assert_eq!(record.feedback.len(), 1);
    assert!(record.feedback[0].at.is_some(), "the store notes the time");
    // Taken back: gone from the log, the index and the sums, with the exchange that held nothing but the rule.
    let rule = Form::Rule { text: "be terse".into(), scope: None };
    let rule = Said { key: Some("r".into()), ..said(rule.into()) };
    store.say(vec![rule.clone()]).await.expect("say").remove(0).expect("said");
    assert_eq!(texts(store, "terse").await.len(), 1);
    let keys = || ["k", "r", "none"].map(str::to_owned).to_vec();
    assert_eq!(store.unsay(keys()).await.expect("taken back"), 2);
    assert_eq!(store.unsay(keys()).await.expect("taken back again"), 0);
    assert!(store.get("ex").await.expect("get").expect("record").feedback.is_empty());
    assert_eq!(texts(store, "terse").await, [""; 0]);
    let sums = store.tallies(0..=1_000_000).await.expect("sums");
    assert!(sums.iter().all(|sum| sum.what == "exchange" || sum.what == "response"), "{sums:?}");
    // What no database holds is found in none.
    assert_eq!(store.unsay(vec!["a\0".into()]).await.expect("nothing"), 0);
    assert!(store.get("a\0").await.expect("nothing").is_none());
    let odd = Query { tag: Some("a\0".into()), by: Some("\0".into()), ..Query::default() };
    assert_eq!(store.search(odd).await.expect("nothing").hits, []);
    let again = store.say(vec![with_key(thumb("x"))]).await.expect("say").remove(0).expect("said again");
    assert_eq!(again.state, State::Joined);
}

async fn refusals(store: &dyn Store) {
    store.put(records()).await.expect("put");
    let span = Form::Span { on: "b".into(), start: 3, end: 9, label: None, value: None };
    let cases: Vec<(Said, &str)> = vec![
        (said(thumb("a")), "got \"a\", which 2 exchanges have; name the exchange"),
        (said(span.into()), "end: needed at most 5, the characters of the response, got 9"),
        (
            said(Form::Rating { on: "b".into(), value: 7.0, scale: Some([1.0, 5.0]) }.into()),
            "value: needed a mark from 1 to 5, got 7",
        ),
        (
            Said { exchange: Some("r2".into()), ..said(thumb("b")) },
            "on: needed the id of a response of this record, got \"b\"",
        ),
        (
            said(Form::Critique { on: None, text: "?".into() }.into()),
            "needed a response or an exchange for feedback of the form critique, got neither",
        ),
        (said(thumb(&"x".repeat(600))), "on: needed at most 512 bytes, got 600 bytes"),
    ];
    let before = log_of(store).await;
    let (items, expected): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    for (result, expected) in store.say(items).await.expect("say").into_iter().zip(expected) {
        let error = result.expect_err(expected);
        assert!(error.is_callers());
        assert!(error.to_string().ends_with(expected), "{error}\n{expected}");
    }
    assert_eq!(log_of(store).await, before);
    let empty = Record::new("", "p");
    let results = store.put(vec![Record::new("ok", "p"), empty, Record::new("ok2", "p")]).await.expect("put");
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(
        results[1].as_ref().expect_err("no id").to_string(),
        "record \"\": id: needed a name, got empty text"
    );
}

async fn searching(store: &dyn Store) {
    store.put(records()).await.expect("put");
    assert_eq!(texts(store, "capital").await, ["r1"]);
    assert_eq!(texts(store, "CAPITAL of").await, ["r1"]);
    assert_eq!(texts(store, "\"capital of\"").await, ["r1"]);
    assert!(texts(store, "\"of capital\"").await.is_empty());
    assert_eq!(texts(store, "cap*").await, ["r1"]);
    assert_eq!(texts(store, "façade").await, ["r1"]);
    assert!(texts(store, "facade").await.is_empty());
    assert_eq!(texts(store, "東京").await, ["r2"]);
    assert!(texts(store, "京東").await.is_empty());
    assert_eq!(texts(store, "' -- \"").await, ["r3", "r2", "r1"]);
    let by = |query: Query| async move {
        let page = store.search(query).await.expect("search");
        page.hits.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(by(Query { session: some("s1"), ..Query::default() }).await, ["r1"]);
    assert_eq!(by(Query { tag: some("geo"), model: some("m2"), ..Query::default() }).await, ["r1"]);
    assert_eq!(by(Query { user: some("user:9"), ..Query::default() }).await, ["r2"]);
    assert_eq!(by(Query { by: some("user:2"), ..Query::default() }).await, ["r1"]);
    assert_eq!(
        by(Query { model: some("m1"), text: some("raw"), ..Query::default() }).await,
        Vec::<String>::new()
    );
    assert_eq!(by(Query { form: Some(hone_feedback::FormKind::Edit), ..Query::default() }).await, ["r1"]);
    // 2026-05-02 is 20,575 days after 1970-01-01.
    assert_eq!(by(Query { since: Some(20_575 * 86_400_000), ..Query::default() }).await, ["r3", "r2"]);
    let first = store.search(Query { limit: 2, ..Query::default() }).await.expect("search");
    assert_eq!(first.hits.len(), 2);
    assert_eq!(by(Query { before: first.next, ..Query::default() }).await, ["r1"]);
}

async fn sums(store: &dyn Store) {
    store.put(records()).await.expect("put");
    let tallies = store.tallies(20_574..=20_574).await.expect("tallies");
    let of = |model: &str, what: &str| {
        let found = tallies.iter().find(|tally| tally.model == model && tally.what == what);
        found.map(|tally| (tally.count, tally.sum))
    };
    assert_eq!(of("", "exchange"), Some((1, 0.0)));
    assert_eq!(of("m1", "response"), Some((1, 0.0)));
    assert_eq!(of("m1", "completion_tokens"), Some((1, 5.0)));
    assert_eq!(of("m1", "latency_ms"), Some((1, 12.5)));
    assert_eq!(of("m1", "thumb"), Some((1, 1.0)));
    // 4 on a scale from 1 to 5 lies at three quarters.
    assert_eq!(of("m1", "rating"), Some((1, 0.75)));
    assert_eq!(of("m1", "outcome"), Some((1, 0.0)));
    assert_eq!(of("m1", "event:copied"), Some((1, 0.0)));
    assert_eq!(of("m2", "critique"), Some((1, 0.0)));
}

async fn forgetting(store: &dyn Store) {
    store.put(records()).await.expect("put");
    let run = |id: &str| Run { id: id.into(), model: format!("model of {id}") };
    store.record_run(run("one"), vec!["r1".into(), "r2".into()]).await.expect("run");
    store.record_run(run("two"), vec!["r3".into()]).await.expect("run");
    store.record_run(run("two"), vec!["fb-2".into(), "r3".into()]).await.expect("run");
    assert_eq!(store.runs_of("r2").await.expect("runs"), [run("one")]);
    assert_eq!(store.items_of("two").await.expect("items"), ["fb-2", "r3"]);
    let other = Run { model: "other".into(), ..run("two") };
    assert!(matches!(store.record_run(other, vec![]).await, Err(Error::Conflict { .. })));
    // user:2 rated in r1, which run one used; the rating itself, fb-2, was used by run two.
    let forgotten = store.forget("user:2").await.expect("forget");
    assert_eq!((forgotten.feedback, forgotten.exchanges.len()), (1, 0));
    assert_eq!(forgotten.runs, [run("one"), run("two")]);
    assert!(!log_of(store).await.contains("user:2"));
    // r1 was shown to user:1: all of it goes, with the ten other items on it.
    let forgotten = store.forget("user:1").await.expect("forget");
    assert_eq!((forgotten.feedback, forgotten.exchanges), (10, vec!["r1".to_owned()]));
    assert!(texts(store, "capital").await.is_empty());
    let log = log_of(store).await;
    assert_eq!(
        log,
        LOG.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>().replace("1.50", "1.5")
    );
    assert_eq!(store.tallies(20_574..=20_574).await.expect("tallies"), []);
    let rule = Feedback::from(Form::Rule { text: "no emojis".into(), scope: None }).by("user:3");
    store.say(vec![said(rule)]).await.expect("say");
    assert_eq!(texts(store, "emojis").await, ["rule-12"]);
    assert_eq!(store.forget("user:3").await.expect("forget").exchanges, ["rule-12"]);
    assert_eq!(log_of(store).await, log);
}

/// What the service keeps of itself.
async fn service(store: &dyn Store) {
    let key = |id: &str, per_minute| Key {
        id: id.into(),
        name: "app".into(),
        hash: format!("hash of {id}"),
        scopes: vec!["infer".into(), "feedback".into()],
        per_minute,
        created: 5,
        revoked: None,
    };
    store.add_key(key("k2", None)).await.expect("a key");
    store.add_key(key("k1", Some(60))).await.expect("a key");
    let again = store.add_key(key("k1", None)).await.expect_err("its id is taken").to_string();
    assert_eq!(again, "key \"k1\": id: needed what is stored under this name, got something else");
    store.revoke_key("k2").await.expect("ended");
    store.revoke_key("k2").await.expect("ended again");
    let missing = store.revoke_key("k3").await.expect_err("there is none").to_string();
    assert_eq!(missing, "key: needed one that is stored, got \"k3\"");
    let keys = store.keys().await.expect("keys");
    assert_eq!(keys[0], key("k1", Some(60)));
    assert!(keys[1].id == "k2" && keys[1].revoked.is_some());

    assert_eq!(store.setting("s").await.expect("read"), None);
    store.set("s", Some("one".into())).await.expect("set");
    store.set("s", Some("two".into())).await.expect("set");
    assert_eq!(store.setting("s").await.expect("read").as_deref(), Some("two"));
    store.set("s", None).await.expect("unset");
    assert_eq!(store.setting("s").await.expect("read"), None);

    // Of user 1 two items with values 1 and (4 − 1) / (5 − 1) = 0.75, and the outcome 0 and the step 1.
    store.put(records()).await.expect("put");
    let means = store.means("geo").await.expect("means");
    assert_eq!(means.len(), 1);
    assert_eq!((means[0].user.as_str(), means[0].count, means[0].mean), ("user:1", 4, 2.75 / 4.0));
    assert_eq!(store.means("other").await.expect("means"), []);
    let run = Run { id: "run-1".into(), model: "m".into() };
    store.record_run(run.clone(), vec!["r1".into()]).await.expect("run");
    assert_eq!(store.runs().await.expect("runs"), [run]);
}

async fn together(store: &dyn Store) {
    // Many writers at once: each item once, each with a place of its own.
    store.put(vec![Record::new("ex", "p").respond("x", "hello")]).await.expect("put");
    let say = |n: usize| store.say(vec![said(thumb("x").by(format!("user:{n}")))]);
    let mut all = Vec::new();
    for n in 0..40 {
        all.push(say(n));
    }
    let receipts = futures(all).await;
    let ids: std::collections::HashSet<String> =
        receipts.into_iter().map(|r| r.expect("say").remove(0).expect("stored").id).collect();
    assert_eq!(ids.len(), 40);
    assert_eq!(store.get("ex").await.expect("get").expect("record").feedback.len(), 40);
}

/// Waits for all, begun together.
async fn futures<T>(all: Vec<impl std::future::Future<Output = T>>) -> Vec<T> {
    let mut all: Vec<_> = all.into_iter().map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        let mut done = true;
        for (future, out) in &mut all {
            if out.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *out = Some(value),
                    std::task::Poll::Pending => done = false,
                }
            }
        }
        if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    all.into_iter().filter_map(|(_, out)| out).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite() {
    let folder = tempfile::tempdir().expect("folder");
    let mut names = (0..).map(|n| format!("sqlite:{}/{n}.db", folder.path().display()));
    suite(&mut names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_leaves_no_trace_of_what_was_forgotten() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store.db");
    let store = open(&path.display().to_string()).await.expect("open");
    store.put(records()).await.expect("put");
    let critique = Form::Critique { on: Some("b".into()), text: "zyxwvutsecret".into() };
    store.say(vec![said(Feedback::from(critique).by("user:7"))]).await.expect("say");
    assert_eq!(texts(&*store, "zyxwvutsecret").await, ["r1"]);
    let holds = || {
        std::fs::read_dir(folder.path()).expect("folder").flatten().any(|file| {
            let bytes = std::fs::read(file.path()).expect("file");
            bytes.windows(13).any(|window| window == b"zyxwvutsecret")
        })
    };
    assert!(holds());
    store.forget("user:7").await.expect("forget");
    assert!(!holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres() {
    let Some(server) = server::start() else { return };
    let mut names = (0..).map(|n| server.database(&format!("hone{n}")).expect("a database"));
    suite(&mut names).await;

    // A server that goes away and comes back: what was acknowledged is there, and the store serves on.
    let address = server.database("again").expect("a database");
    let store = open(&address).await.expect("open");
    store.put(records()).await.expect("put");
    server.down().expect("down");
    let error = store.put(vec![Record::new("late", "p")]).await.expect_err("no server");
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(store.ready().await.is_err());
    server.up().expect("up");
    store.ready().await.expect("ready again");
    store.put(vec![Record::new("late", "p")]).await.expect("put").remove(0).expect("stored");
    assert_eq!(log_of(&*store).await.lines().count(), 4);
}
