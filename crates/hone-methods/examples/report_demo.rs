//! Writes a report of an invented run, to look at: `cargo run -p hone-methods --example report_demo -- OUT.html`.
//!
//! The log is made up from a seed and really checked and counted; the numbers of the training are made up.

use std::fmt::Write as _;
use std::path::PathBuf;

use hone_feedback::convert::{Losses, pairs};
use hone_feedback::metrics::resample::mean_interval;
use hone_feedback::metrics::significance::paired_bootstrap;
use hone_feedback::{Feedback, Form, FormKind, Message, Prompt, Record, doctor};
use hone_methods::report::{
    Better, Chart, Estimate, Head, LeftOut, LogSection, Measure, ModelLine, NotChosen, Outcome, Plan, Report,
    Sample, Samples, Stage, Step, ThemeCounter, Unit,
};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let out = std::env::args_os().nth(1).ok_or("give the file to write: report_demo OUT.html")?;
    let out = std::path::absolute(PathBuf::from(out))?;
    let report = report()?;
    std::fs::write(&out, report.to_html()?)?;
    println!("{}\n\nwrote {}", report.outcome, out.display());
    Ok(())
}

fn report() -> Result<Report, Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let records: Vec<Record> = (0..1200).map(|k| record(k, &mut rng)).collect();

    // The doctor names files as they were given, so the log is read from within its folder.
    let folder = tempfile::tempdir()?;
    let mut log = String::new();
    for (k, record) in records.iter().enumerate() {
        match k {
            411 => log += "{\"id\":\"broken\",\"prompt\":\n",
            640 => {
                log += "{\"id\":\"r640\",\"prompt\":\"q\",\"feedback\":[{\"form\":\"rating\",\"on\":\"a\",\"value\":\"four\"}]}\n"
            }
            _ => writeln!(log, "{}", record.to_json())?,
        }
    }
    std::fs::write(folder.path().join("feedback.jsonl"), log)?;
    let home = std::env::current_dir()?;
    std::env::set_current_dir(folder.path())?;
    let checked = doctor::check(&[PathBuf::from("feedback.jsonl")], &doctor::Settings::default())?;
    std::env::set_current_dir(home)?;

    let mut themes = ThemeCounter::default();
    let mut losses = Losses::default();
    for record in &records {
        themes.add(record);
        pairs(record, &mut losses);
    }
    let mut left_out = LeftOut::from_doctor(&checked);
    left_out.extend(LeftOut::from_losses("dpo", &losses));
    left_out.push(
        LeftOut::new(Stage::Training, "prompt and answer longer than 512 tokens", 9)
            .example("r17: 803 tokens")
            .example("r254: 611 tokens"),
    );

    let mut head = Head::new(
        "feedback.jsonl, improved",
        "hone improve feedback.jsonl --model assets/hone-tiny --budget 10m --seed 7 --out out",
    )
    .version("hone", "0.1.0")
    .version("candle", "0.11.0")
    .version("system", "Linux 6.12, x86-64, 2 cores");
    head.date = "2026-11-25 14:03 UTC".into();
    head.seconds = 412.0;
    head.seed = 7;
    head.model =
        ModelLine { name: "hone-tiny".into(), parameters: 3_712_000, written_to: Some("out/model".into()) };
    head.notes.push("The budget ended step 2 after 1,480 of 1,600 optimiser steps.".into());

    Ok(Report {
        head,
        outcome: outcome(&mut rng),
        log: LogSection::from_doctor(&checked),
        themes: themes.finish(),
        plan: plan(),
        charts: charts(&mut rng),
        samples: samples(&records, &mut rng),
        left_out,
    })
}

const SUBJECTS: [&str; 8] = [
    "share a note",
    "print a notebook",
    "undo a merge",
    "export to PDF",
    "lock a note",
    "search by date",
    "restore a deleted note",
    "move tags",
];
const OPENINGS: [&str; 4] =
    ["How do I", "What is the quickest way to", "Can I", "I have tried for an hour: how can I"];
const KIND: [&str; 4] = ["Of course. ", "Good question. ", "Yes, you can. ", ""];
const CURT: [&str; 3] = ["Read the manual. ", "Obviously, ", ""];
const PADDING: &str =
    "As I have said before, there are many aspects to consider here, and it depends on a number of factors. ";
const COMPLAINTS: [&str; 6] = [
    "Much too long, I only wanted the steps.",
    "The menu it names does not exist in my version.",
    "Rude. I asked a simple question.",
    "Too long and it repeats itself.",
    "Wrong: the export menu is under File, not under Tools.",
    "It repeats itself and never gives the steps.",
];
const PRAISE: [&str; 5] = [
    "Clear steps, worked at once.",
    "Short and friendly, thank you.",
    "Exactly what I needed.",
    "Friendly and the steps worked.",
    "Worked at once, clear and short.",
];

fn answer(good: bool, subject: &str, rng: &mut ChaCha8Rng) -> String {
    let first = ["Open the note", "Open the notebook", "Tap the title"].choose(rng).unwrap_or(&"");
    let menu = ["More", "File", "Share"].choose(rng).unwrap_or(&"");
    if good {
        let opening = KIND.choose(rng).unwrap_or(&"");
        format!("{opening}To {subject}:\n\n1. {first}.\n2. Choose {menu}.\n3. Confirm with Done.")
    } else {
        let opening = CURT.choose(rng).unwrap_or(&"");
        let padding = PADDING.repeat(rng.random_range(1..4));
        format!("{opening}{padding}You {subject} from the Tools menu, probably.")
    }
}

fn record(k: usize, rng: &mut ChaCha8Rng) -> Record {
    let subject = SUBJECTS.choose(rng).unwrap_or(&"");
    let opening = OPENINGS.choose(rng).unwrap_or(&"");
    let mut prompt = vec![Message::new("user", format!("{opening} {subject}? (ticket {k})"))];
    if k.is_multiple_of(5) {
        prompt.insert(0, Message::new("system", "You are the help desk of a notes app. Answer in steps."));
    }
    let good = rng.random_bool(0.55);
    let (a, b) = (answer(good, subject, rng), answer(!good, subject, rng));
    let person = format!("user:{}", rng.random_range(1..40));
    let words = |rng: &mut ChaCha8Rng| {
        let set: &[&str] = if good { &PRAISE } else { &COMPLAINTS };
        (*set.choose(rng).unwrap_or(&"")).to_owned()
    };
    let on = || "a".to_owned();
    let record = Record::new(format!("r{k}"), Prompt::Messages(prompt)).respond("a", a).respond("b", b);
    let thumb = Feedback::from(Form::Thumb { on: on(), value: good }).by(person.clone());
    match k % 6 {
        0 | 1 => record.say(thumb.with_text(words(rng))),
        2 => {
            let value = if good { rng.random_range(3..=5) } else { rng.random_range(1..=3) };
            let rating = |by: &str, value: i32| {
                let form =
                    Form::Rating { on: on(), value: f64::from(value.clamp(1, 5)), scale: Some([1.0, 5.0]) };
                Feedback::from(form).by(by).about("helpful")
            };
            let other = value + rng.random_range(-1..=1);
            record.say(rating("annotator:1", value)).say(rating("annotator:2", other))
        }
        3 => {
            let (better, worse) = if good { ("a", "b") } else { ("b", "a") };
            record
                .say(
                    Feedback::from(Form::Comparison { better: better.into(), worse: worse.into() })
                        .by("annotator:1"),
                )
                .say(Feedback::from(Form::Critique { on: Some(on()), text: words(rng) }).by("annotator:1"))
        }
        4 if !good => {
            let fixed = answer(true, subject, rng);
            let text = words(rng);
            record.say(
                Feedback::from(Form::Edit { on: on(), content: fixed.into() })
                    .by("editor:ann")
                    .with_text(text),
            )
        }
        _ => record.say(thumb).say(Feedback::from(Form::Event {
            on: Some(on()),
            event: "copied".into(),
            value: None,
        })),
    }
}

/// Paired scores of invented held-out items as a measure.
fn paired(start: &[f64], result: &[f64]) -> Option<[Estimate; 3]> {
    let difference = paired_bootstrap(start, result, 2000, 7)?.difference;
    Some([mean_interval(start, 7)?.into(), mean_interval(result, 7)?.into(), difference.into()])
}

fn outcome(rng: &mut ChaCha8Rng) -> Outcome {
    let mut draw = |n: usize, start: f64, result: f64| {
        let mut hits = |share: f64| -> Vec<f64> {
            (0..n).map(|_| f64::from(u8::from(rng.random_bool(share)))).collect()
        };
        (hits(start), hits(result))
    };
    let (before, after) = draw(312, 0.52, 0.68);
    let pass = draw(180, 0.44, 0.49);
    let nll: Vec<f64> = (0..96).map(|_| 2.1 + 0.5 * rng.random::<f64>()).collect();
    let lower: Vec<f64> = nll.iter().map(|x| x - 0.22 - 0.1 * rng.random::<f64>()).collect();
    let words: Vec<f64> = (0..312).map(|_| 20.0 + 60.0 * rng.random::<f64>()).collect();
    let fewer: Vec<f64> = words.iter().map(|x| x * 0.7).collect();
    let mut outcome = Outcome::default();
    if let Some(estimates) = paired(&before, &after) {
        outcome = outcome.with(
            Measure::new("preference accuracy", Unit::Share, Better::Higher, 312, estimates)
                .baseline("majority class", Estimate::between(0.551, 0.496, 0.606))
                .baseline("length only", Estimate::between(0.622, 0.567, 0.676)),
        );
    }
    if let Some(estimates) = paired(&nll, &lower) {
        let unit = Unit::Named("nats per token".into());
        outcome = outcome.with(Measure::new("NLL of edits", unit, Better::Lower, 96, estimates));
    }
    if let Some(estimates) = paired(&pass.0, &pass.1) {
        outcome = outcome.with(Measure::new("checks passed", Unit::Share, Better::Higher, 180, estimates));
    }
    if let Some(estimates) = paired(&words, &fewer) {
        let unit = Unit::Named("words".into());
        outcome = outcome.with(Measure::new("length of answers", unit, Better::Neither, 312, estimates));
    }
    outcome
}

fn plan() -> Plan {
    Plan {
        budget: Some("10 minutes".into()),
        split: "by a hash of the prompt: 888 records to train on, 312 held out".into(),
        steps: vec![
            Step {
                seconds: Some(96.0),
                ..Step::new("sft", "SFT", "97 edits say what the answer should have been; they are the most direct teacher.")
                    .fed([FormKind::Edit], 97)
                    .set("learning_rate", "2e-4")
                    .set("epochs", 3)
                    .set("batch_size", 8)
            },
            Step {
                seconds: Some(301.0),
                ended: Some("stopped by the budget, best checkpoint kept".into()),
                ..Step::new("dpo", "DPO", "Comparisons, ratings and thumbs give 1,126 pairs, enough for preference tuning after the edits.")
                    .fed([FormKind::Comparison, FormKind::Rating, FormKind::Thumb, FormKind::Edit], 1126)
                    .set("beta", 0.1)
                    .set("learning_rate", "5e-5")
                    .set("epochs", 1)
                    .set("batch_size", 4)
                    .set("max_tokens", 512)
            },
        ],
        not_chosen: vec![
            NotChosen::new("kto", "the thumbs are within the pairs of DPO already, and the budget allows one of the two"),
            NotChosen::new("grpo", "no outcome names a check that can be run again"),
            NotChosen::new("reward-spans", "the log holds no spans"),
        ],
    }
}

fn charts(rng: &mut ChaCha8Rng) -> Vec<Chart> {
    let mut falling = |n: usize, from: f64, to: f64, noise: f64| -> Vec<(f64, f64)> {
        (0..n)
            .map(|k| {
                let t = k as f64 / n as f64;
                (k as f64, to + (from - to) * (-4.0 * t).exp() + noise * (rng.random::<f64>() - 0.5))
            })
            .collect()
    };
    let every = |points: Vec<(f64, f64)>, by: f64| points.into_iter().map(move |(at, v)| (by * at, v));
    let rate = (0..1480)
        .map(|k| (f64::from(k), 5e-5 * (f64::from(k) / 148.0).min(1.0) * (1.0 - f64::from(k) / 1600.0)));
    vec![
        Chart::new("sft", "Loss", "optimiser step", "nats per token")
            .line("train", falling(300, 2.6, 1.7, 0.4))
            .line("held out", every(falling(11, 2.4, 1.95, 0.05), 30.0)),
        Chart::new("dpo", "Loss", "optimiser step", "nats")
            .line("train", falling(1480, 0.693, 0.48, 0.35))
            .line("held out", every(falling(16, 0.693, 0.56, 0.02), 98.0)),
        Chart::new("dpo", "Preference accuracy", "optimiser step", "share")
            .line("train", falling(1480, 0.5, 0.8, 0.5).into_iter().map(|(at, v)| (at, v.clamp(0.0, 1.0))))
            .line("held out", every(falling(16, 0.52, 0.68, 0.03), 98.0)),
        Chart::new("dpo", "Learning rate", "optimiser step", "").line("rate", rate),
    ]
}

fn samples(records: &[Record], rng: &mut ChaCha8Rng) -> Samples {
    let items = (0..20).map(|k| {
        let record = &records[k * 57 + 2];
        let subject = SUBJECTS.choose(rng).unwrap_or(&"");
        let better = rng.random_bool(0.75);
        let (start, result) = (answer(false, subject, rng), answer(better, subject, rng));
        let (start, result) = match k {
            // What a page has to live through.
            5 => (
                start,
                format!("```html\n<script>alert('not run')</script>\n```\n{result}\u{202e}txt.exe\u{202c}\0"),
            ),
            6 => (start, "لتصدير ملاحظة إلى PDF:\n\n1. افتح الملاحظة.\n2. اختر ملف.".to_owned()),
            7 => (PADDING.repeat(200), "A".repeat(300)),
            _ => (start, result),
        };
        let reward =
            |good: bool, rng: &mut ChaCha8Rng| if good { 1.2 } else { -0.4 } + 0.5 * rng.random::<f64>();
        let (low, high) = (reward(false, rng), reward(better, rng));
        Sample::from_record(record, start, result).score("reward", low, high)
    });
    Samples {
        how: "20 of 312 held-out prompts, drawn with seed 7 before anything was measured.".into(),
        items: items.collect(),
    }
}
