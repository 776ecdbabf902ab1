//! `million STORE [RECORDS] [SAID]`: imports a Hone log of RECORDS made-up exchanges with SAID items of feedback each in
//! bulk, and times searches and the dashboard's sums over them. Prints a table in Markdown: medians of 20 rounds, and the
//! slowest.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Instant;

use hone_feedback::formats::{Options, open as open_log};
use hone_feedback::{Form, FormKind, Record};
use hone_store::{Query, import, open};

const ROUNDS: usize = 20;
const DAY: i64 = 86_400_000;
/// 1 January 2026, in milliseconds since 1970.
const START: i64 = 1_767_225_600_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: u64| args.get(place).map_or(Ok(default), |text| text.parse());
    let address = args.first().ok_or("needed STORE [RECORDS] [SAID]")?;
    let (records, said) = (number(1, 1_000_000)?, number(2, 1)?);
    let store = open(address).await?;

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log.jsonl");
    write_log(&path, records, said)?;
    let started = Instant::now();
    let done = import(store.as_ref(), open_log(&path, &Options::default())?).await?;
    let seconds = started.elapsed().as_secs_f64();
    if done.records != records || done.feedback != records * said {
        return Err(format!("{} records and {} items stored", done.records, done.feedback).into());
    }
    eprintln!(
        "import: {:.0} records and {:.0} items of feedback per second",
        records as f64 / seconds,
        (records * said) as f64 / seconds
    );
    let started = Instant::now();
    store.search(Query { text: Some("warm".into()), ..Query::default() }).await?;
    eprintln!("full-text index caught up in {:.1} s", started.elapsed().as_secs_f64());

    println!("| asked | hits | median ms | slowest ms |\n|---|---|---|---|");
    let text = |text: &str| Query { text: Some(text.into()), ..Query::default() };
    let (since, until) = (Some(START + 30 * DAY), Some(START + 37 * DAY));
    for (name, query) in [
        ("the newest", Query::default()),
        ("a word in each", text("please")),
        ("a word in one of 1,000", text("topic77")),
        ("two words, each in one of 1,000 and 10", text("topic77 w3")),
        ("a phrase", text("\"about topic77\"")),
        ("a beginning", text("topic9*")),
        ("a word in feedback", text("wordy12")),
        ("a word that no text has", text("absent")),
        ("a word, one model, a week", Query { model: Some("m1".into()), since, until, ..text("w3") }),
        ("one user", Query { user: Some("user123".into()), ..Query::default() }),
        (
            "one tag and a form",
            Query { tag: Some("t5".into()), form: Some(FormKind::Critique), ..Query::default() },
        ),
        ("a word and a form that it has not", Query { form: Some(FormKind::Edit), ..text("please") }),
    ] {
        let (mut times, mut hits) = (vec![], 0);
        for _ in 0..ROUNDS {
            let started = Instant::now();
            hits = store.search(query.clone()).await?.hits.len();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        row(name, hits, times);
    }
    for (name, days) in [("sums of 90 days", 90), ("sums of ten years", 3650)] {
        let (mut times, mut rows) = (vec![], 0);
        let last = START / DAY + 90;
        for _ in 0..ROUNDS {
            let started = Instant::now();
            rows = store.tallies(last - days..=last).await?.len();
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        row(name, rows, times);
    }
    Ok(())
}

fn row(name: &str, hits: usize, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("| {name} | {hits} | {:.2} | {:.2} |", times[times.len() / 2], times[times.len() - 1]);
}

/// Exchanges over 90 days, each of some 40 words.
fn write_log(path: &std::path::Path, records: u64, said: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    for n in 0..records {
        // A multiplicative walk: the same log each time, without order among neighbours.
        let draw = |of: u64, salt: u64| (n * 2_654_435_761 + salt * 40_503) % 4_294_967_291 % of;
        let mut answer = format!("here is what I know about topic{}", draw(1000, 1));
        for place in 0..30 {
            let _ = write!(answer, " w{}", draw(5000, place + 2));
        }
        let _ = write!(answer, " w{}", draw(10, 99));
        let prompt = format!("please tell me about topic{} and w{}", draw(1000, 1), draw(10, 99));
        let mut record =
            Record::new(format!("r{n}"), prompt.as_str()).respond(format!("a{n}"), answer.as_str());
        for item in 0..said {
            record = record.say(match item {
                0 if n % 10 == 0 => Form::Critique { on: None, text: format!("too wordy{}", draw(100, 7)) },
                _ => Form::Thumb { on: format!("a{n}"), value: n % 3 > 0 },
            });
        }
        if let Some(response) = record.responses.first_mut() {
            response.model = Some(format!("m{}", n % 3));
        }
        let at = START + (n * 90 * DAY as u64 / records) as i64;
        for (field, value) in [
            ("user", serde_json::json!(format!("user{}", draw(10_000, 3)))),
            ("tags", serde_json::json!([format!("t{}", draw(20, 4))])),
            ("at", serde_json::json!(rfc3339(at))),
        ] {
            record.extra.insert(field.into(), value);
        }
        writeln!(out, "{}", record.to_json())?;
    }
    out.flush()?;
    Ok(())
}

fn rfc3339(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map(|at| at.to_string()).unwrap_or_default()
}
