//! What the doctor finds in logs whose faults are known.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use hone_feedback::convert::Shape;
use hone_feedback::doctor::{self, Report, Settings, Verdict};
use hone_feedback::formats::{self, Options};
use hone_feedback::{Feedback, Form, FormKind, Record, split, text};

use crate::formats::real;

fn check(records: &[Record], settings: &Settings<'_>) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    let text: String = records.iter().map(|record| record.to_json() + "\n").collect();
    std::fs::write(&path, text).unwrap();
    doctor::check(&[path], settings).unwrap()
}

/// Checks bytes with one thread and with three, and by plain reading: the reader's records one by one, each
/// counted by the definition.
pub fn agrees(bytes: &[u8], from: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    std::fs::write(&path, bytes).unwrap();
    let options = Options { from: from.map(str::to_owned), ..Options::default() };
    let report = |threads| {
        let settings = Settings { threads, options: options.clone(), ..Settings::default() };
        doctor::check(std::slice::from_ref(&path), &settings)
    };
    let (Ok(one), Ok(three)) = (report(1), report(3)) else {
        assert!(formats::open(&path, &options).is_err());
        return;
    };
    assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&three).unwrap());
    let reader = formats::open(&path, &options).unwrap();
    let own = reader.format().name == "hone";
    let (mut ids, mut problems) = (HashSet::new(), Vec::new());
    let (mut records, mut prompts, mut forms) = (0, HashSet::new(), BTreeMap::new());
    // Count, sum and maximum; of prompts, then of responses.
    let (mut words, mut characters) = ([(0, 0, 0); 2], [(0, 0, 0); 2]);
    let mut examples = [0; Shape::ALL.len()];
    for item in reader {
        match item {
            // An id that a reader made up says nothing.
            Ok(found) if !found.record.id.starts_with('#') && !ids.insert(found.record.id.clone()) && own => {
                problems.push((
                    found.line,
                    "id: needed an id of its own, got one that an earlier record has".to_owned(),
                ));
            }
            Ok(found) => {
                let record = found.record;
                records += 1;
                prompts.insert(split::key_of(&record));
                let answers = record.responses.iter().map(|one| (1, one.content.text()));
                for (place, text) in std::iter::once((0, record.prompt.text())).chain(answers) {
                    for (sums, length) in
                        [(&mut words, text::words(&text)), (&mut characters, text::length(&text))]
                    {
                        let (count, sum, max) = sums[place];
                        sums[place] = (count + 1, sum + length, max.max(length));
                    }
                }
                record.feedback.iter().for_each(|item| *forms.entry(item.form.kind()).or_default() += 1);
                for (shape, sum) in Shape::ALL.into_iter().zip(&mut examples) {
                    *sum += shape.count(&record) as u64;
                }
            }
            Err(problem) => problems.push((problem.line, problem.fault.to_string())),
        }
    }
    let told = one.problems.first.iter().map(|problem| (problem.line, problem.fault.to_string()));
    // The reader gives the problems of joined rows before what remains; the doctor has them by line as well.
    problems.truncate(hone_feedback::KEPT);
    assert_eq!(told.collect::<Vec<_>>(), problems);
    assert_eq!((one.records, one.prompts as usize, &one.forms), (records, prompts.len(), &forms));
    let measured: Vec<_> =
        one.lengths.iter().map(|row| (row.of, row.unit, row.count, row.mean, row.max)).collect();
    let mut wanted = Vec::new();
    for (of, place) in [("prompt", 0), ("response", 1)] {
        for (unit, sums) in [("words", &words), ("characters", &characters)] {
            let (count, sum, max) = sums[place];
            if count > 0 {
                wanted.push((of, unit, count, sum as f64 / count as f64, max as u64));
            }
        }
    }
    assert_eq!(measured, wanted);
    assert_eq!(one.usable.iter().map(|row| row.examples).collect::<Vec<_>>(), examples);
}

fn pair(id: &str, prompt: &str, better: &str, worse: &str) -> Record {
    let comparison = Form::Comparison { better: "a".into(), worse: "b".into() };
    Record::new(id, prompt).respond("a", better).respond("b", worse).say(comparison)
}

#[test]
fn planted_faults_are_counted() {
    let mut records = vec![
        pair("1", "What is it?", "this", "that"),
        pair("2", "what is  it?", "this", "that"),
        pair("3", "What is it?", "That", "this"),
        pair("4", "And now?", "same", "Same "),
        Record::new("5", "q")
            .respond("a", "x")
            .say(Feedback::from(Form::Thumb { on: "a".into(), value: true }).by("u"))
            .say(Feedback::from(Form::Thumb { on: "a".into(), value: false }).by("u")),
    ];
    records[0].split = Some("train".into());
    records[1].split = Some("test".into());
    let report = check(&records, &Settings::default());
    assert_eq!((report.records, report.refused, report.prompts), (5, 0, 3));
    // 2 repeats 1 but for case and blanks.
    assert_eq!(report.duplicates.count, 1);
    assert!(report.duplicates.first[0].ends_with(":2"));
    assert_eq!((report.swapped_pairs.count, report.tied_pairs.count), (1, 1));
    assert_eq!((report.contradictions.count, report.leaks.count), (1, 1));
    assert_eq!(report.forms[&FormKind::Comparison], 4);
    assert!(
        matches!(&report.verdict, Verdict::Stop { reasons } if reasons[0].contains("more than one split"))
    );
    assert!(report.to_string().contains("swapped pairs: 1"));
    let pairs = report.usable.iter().find(|usable| usable.shape == "pairs").unwrap();
    // Four comparisons, and the two thumbs of 5 are on one response.
    assert_eq!((pairs.records, pairs.examples), (4, 4));
    assert!(!serde_json::to_string(&report).unwrap().is_empty());
}

#[test]
fn judges_are_weighed() {
    // Three judges thumb 40 answers; "lazy" is wrong on every fourth.
    let mut records = Vec::new();
    for n in 0..40 {
        let mut record =
            Record::new(format!("r{n}"), format!("question {n}")).respond("a", format!("answer {n}"));
        for by in ["ann", "bob", "lazy"] {
            let value = (n % 2 == 0) != (by == "lazy" && n % 4 == 0);
            record = record.say(Feedback::from(Form::Thumb { on: "a".into(), value }).by(by));
        }
        records.push(record);
    }
    let report = check(&records, &Settings { tokens: Some(&|text: &str| text.len()), ..Settings::default() });
    assert_eq!(report.verdict, Verdict::Go);
    let agreement = &report.agreement[0];
    assert_eq!((agreement.form, agreement.items, agreement.marks), (FormKind::Thumb, 40, 120));
    let right = |name: &str| report.sources.iter().find(|source| source.name == name).unwrap().right.unwrap();
    // Ten of forty wrong; the pseudo-mark moves it by less than 0.02.
    assert!(right("ann") > 0.95 && (right("lazy") - 0.75).abs() < 0.02, "{} {}", right("ann"), right("lazy"));
    // Nominal alpha by hand: 10 of 40 units have one dissenter of three: observed 10 · 4 / 2 = 20;
    // marks 120, up 50, down 70: expected 2 · 50 · 70 = 7000; alpha = 1 − 119 · 20 / 7000 = 0.66.
    assert!((agreement.alpha_nominal.unwrap() - 0.66).abs() < 1e-9, "{agreement:?}");
    assert!(report.lengths.iter().any(|one| one.unit == "tokens" && one.count == 40));
}

#[test]
fn threads_change_nothing() {
    let Some(path) = real("hh_helpful/hh_helpful.jsonl") else { return };
    let report = |threads| {
        let settings = Settings { threads, ..Settings::default() };
        doctor::check(std::slice::from_ref(&path), &settings).unwrap()
    };
    let (one, three) = (report(1), report(3));
    assert_eq!(serde_json::to_string(&one).unwrap(), serde_json::to_string(&three).unwrap());
    assert_eq!((one.records, one.refused), (1179, 4));
    assert_eq!(one.verdict, Verdict::GoWithout { refused: 4 });
    assert_eq!(one.languages[0].code, "eng");
    assert_eq!(one.problems.first.iter().map(|problem| problem.line).collect::<Vec<_>>().len(), 4);
}

#[test]
fn files_can_be_splits() {
    let folder = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        ["train.jsonl", "test.jsonl"].iter().map(|name| folder.path().join(name)).collect();
    for (n, file) in files.iter().enumerate() {
        let text = pair(&format!("{n}"), "shared", "x", "y").to_json()
            + "\n"
            + &pair(&format!("own{n}"), &format!("own {n}"), "x", "y").to_json();
        std::fs::write(file, text).unwrap();
    }
    let report = doctor::check(&files, &Settings { files_are_splits: true, ..Settings::default() }).unwrap();
    assert_eq!(report.leaks.count, 1);
    assert!(!report.verdict.may_train());
    let report = doctor::check(&files, &Settings::default()).unwrap();
    assert_eq!(report.leaks.count, 0);
}

#[test]
fn an_empty_or_useless_log_stops() {
    let empty = check(&[], &Settings::default());
    assert_eq!(empty.verdict, Verdict::Stop { reasons: vec!["The log is empty.".into()] });
    let mute = check(&[Record::new("r", "q").respond("a", "x")], &Settings::default());
    assert_eq!(
        mute.verdict,
        Verdict::Stop { reasons: vec!["No record holds feedback that a method can use.".into()] }
    );
}
