//! The page as a whole: nothing escapes, nothing is fetched, nothing is missing.

use hone_feedback::{Feedback, Form, FormKind, Record};

use super::*;

/// What every text field of a hostile log may hold.
const HOSTILE: &str = "<script>alert(1)</script></style></title><img src=x onerror=y> \"'` \u{202e}evil\0 {{ head }} https://e.example url(x)";

/// A small report in which every text is `text`.
fn report_of(text: &str) -> Report {
    let estimate = Estimate::between(0.5, 0.4, 0.6);
    let record = Record::new(text, text)
        .respond("a", text)
        .respond("b", "other")
        .say(Feedback::from(Form::Critique { on: Some("a".into()), text: text.into() }).by(text).about(text))
        .say(Form::Comparison { better: "a".into(), worse: "b".into() })
        .say(Form::Span { on: "a".into(), start: 0, end: 3, label: Some(text.into()), value: None });
    let mut head = Head::new(text, text).version(text, text);
    head.date = text.into();
    head.model = ModelLine { name: text.into(), parameters: 3, written_to: Some(text.into()) };
    head.notes.push(text.into());
    let term = Term { term: text.into(), z: 3.0, log_odds: 1.0, here: 4, there: 1, texts: 3 };
    let side = Side {
        name: text.into(),
        texts: 9,
        words: 99,
        terms: vec![term],
        quotes: vec![Quote { term: text.into(), text: text.into() }],
    };
    Report {
        head,
        outcome: Outcome::default().with(
            Measure::new(text, Unit::Named(text.into()), Better::Higher, 7, [estimate; 3])
                .baseline(text, estimate),
        ),
        log: LogSection {
            files: vec![(text.into(), text.into())],
            forms: vec![(text.into(), 3)],
            sources: vec![Source { name: text.into(), items: 3, right: Some(0.5), sharpness: None }],
            agreement: vec![Agreement { question: text.into(), level: text.into(), ..Agreement::default() }],
            languages: vec![(text.into(), 1.0)],
            lengths: vec![Lengths { of: text.into(), ..Lengths::default() }],
            findings: vec![Finding { what: text.into(), count: 1, first: vec![text.into()] }],
            usable: vec![Usable { shape: text.into(), share: 0.5, examples: 3 }],
            verdict: text.into(),
            ..LogSection::default()
        },
        themes: Themes {
            contrasts: vec![Contrast {
                id: "c".into(),
                title: text.into(),
                tested: 5,
                left: side.clone(),
                right: side,
            }],
        },
        plan: Plan {
            budget: Some(text.into()),
            split: text.into(),
            steps: vec![Step::new(text, text, text).set(text, text).fed([FormKind::Thumb], 3)],
            not_chosen: vec![NotChosen::new(text, text)],
        },
        charts: vec![Chart::new(text, text, text, text).line(text, [(0.0, 1.0)]).line(text, [(0.0, 2.0)])],
        samples: Samples {
            how: text.into(),
            items: vec![Sample::from_record(&record, text, text).score(text, 0.0, 1.0)],
        },
        left_out: vec![LeftOut::new(Stage::Training, text, 3).example(text)],
    }
}

/// The page without the text between tags and the values of attributes: what a browser acts on.
fn markup(html: &str) -> String {
    let mut out = String::new();
    for piece in html.split('<').skip(1) {
        let tag = piece.split('>').next().unwrap_or_default();
        out += "<";
        for (k, part) in tag.split('"').enumerate() {
            if k % 2 == 0 {
                out += part;
            }
        }
        out += ">";
    }
    out
}

#[test]
fn nothing_of_a_log_is_obeyed() {
    let html = report_of(HOSTILE).to_html().unwrap();
    for live in ["<script", "<img", "</style></title>", "\u{202e}", "\0", "{{", "onerror=y>"] {
        let raw = if live == "{{" { continue } else { live };
        assert!(!html.contains(raw), "{raw:?} came through");
    }
    assert_eq!(html.matches("<style>").count(), 1);
    assert_eq!(html.matches("</style>").count(), 1);
    let markup = markup(&html);
    for word in ["onerror", "alert", "src=", "example"] {
        assert!(!markup.contains(word), "{word} lies in a tag");
    }
    // The text is all there all the same.
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(html.contains("[U+202E]evil[U+0000] {{ head }}"));
}

#[test]
fn the_page_needs_nothing_else() {
    let html = report_of("plain").to_html().unwrap();
    for fetched in
        ["http://", "https://", "src=", "url(", "@import", "<link", "<script", "<iframe", "javascript:"]
    {
        assert!(!html.contains(fetched), "{fetched}");
    }
    // Every link leads to a place in the page.
    for link in html.split("href=\"").skip(1) {
        let to = link.split('"').next().unwrap().strip_prefix('#').expect("a link leads out of the page");
        assert!(html.contains(&format!("id=\"{to}\"")), "{to}");
    }
}

#[test]
fn tags_are_closed_and_ids_are_unique() {
    let html = report_of(HOSTILE).to_html().unwrap();
    for tag in [
        "section", "table", "caption", "div", "ul", "ol", "li", "dl", "figure", "svg", "details", "h3", "h4",
        "td", "bdi",
    ] {
        let opened = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
        assert!(opened > 0, "{tag}");
    }
    let mut ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
    // What a label refers to is there.
    for label in html.split("aria-labelledby=\"").skip(1) {
        for id in label.split('"').next().unwrap().split(' ') {
            assert!(ids.binary_search(&id).is_ok(), "{id}");
        }
    }
}

#[test]
fn tables_have_captions_and_headings_do_not_skip() {
    let html = report_of("plain").to_html().unwrap();
    assert_eq!(html.matches("<table").count(), html.matches("<caption").count());
    assert!(!html.contains("<th>"), "a header cell without scope");
    let levels = html.split("<h").skip(1).filter_map(|rest| rest.chars().next()?.to_digit(10));
    let levels: Vec<u32> = levels.collect();
    assert_eq!(levels[0], 1);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    assert!(html.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
}

#[test]
fn numbers_shown_are_numbers_given() {
    let mut report = report_of("plain");
    report.outcome = Outcome::default().with(
        Measure::new(
            "accuracy",
            Unit::Share,
            Better::Higher,
            1312,
            [
                Estimate::between(0.5424, 0.4871, 0.5959),
                Estimate::between(0.6194, 0.5642, 0.6731),
                Estimate::between(0.077, 0.0221, 0.1309),
            ],
        )
        .baseline("majority class", Estimate::of(0.5252)),
    );
    report.log.records = 54_321;
    report.log.agreement[0].alpha = Some(0.617);
    report.plan.steps[0].examples = 2_718;
    let html = report.to_html().unwrap();
    for shown in [
        "54.2",
        "48.7 to 59.6",
        "61.9",
        "56.4 to 67.3",
        "+7.7",
        "+2.2 to +13.1",
        "52.5",
        "1,312",
        "54,321",
        "0.62",
        "2,718",
        "50.0\u{a0}%",
    ] {
        assert!(html.contains(&format!(">{shown}<")), "{shown}");
    }
    assert!(html.contains("<strong>Improved</strong>: accuracy rose from 54.2 to 61.9\u{a0}%"));
}

#[test]
fn a_report_of_nothing_is_a_page() {
    let html = Report::default().to_html().unwrap();
    for said in [
        "Nothing was measured",
        "too few words",
        "No step was taken",
        "No curve",
        "No sample",
        "Nothing: every line",
    ] {
        assert!(html.contains(said), "{said}");
    }
}

#[test]
fn what_is_not_a_number_does_not_show() {
    let mut report = report_of("plain");
    report.outcome.measures[0].result = Estimate::between(f64::NAN, f64::NEG_INFINITY, f64::INFINITY);
    report.charts[0].series[0].points.clear();
    report.log.usable[0].share = f64::NAN;
    report.samples.items[0].scores[0].result = f64::INFINITY;
    report.head.seconds = f64::NAN;
    let html = report.to_html().unwrap();
    assert!(!html.contains("NaN") && !html.contains(">inf") && !html.contains("width:%"), "{html}");
}

#[test]
fn a_megabyte_is_cut_with_a_note() {
    let mut report = report_of("plain");
    let long = "x".repeat(1_000_000);
    report.samples.items[0].start = long.clone();
    report.samples.items[0].feedback[0].text = Some(long);
    let html = report.to_html().unwrap();
    assert!(html.contains("… 994,000 more characters left out here"), "the answer's note");
    assert!(html.contains("… 999,100 more characters left out here"), "the feedback's note");
    assert!(html.len() < 100_000, "{}", html.len());
}

#[test]
fn twenty_samples_of_the_worst_text_stay_under_a_megabyte() {
    let worst = "<&\u{202e}\"".repeat(20_000);
    let mut report = report_of("plain");
    let one = &mut report.samples.items[0];
    one.prompt = vec![Turn { role: "user".into(), text: worst.clone() }; 30];
    (one.start, one.result) = (worst.clone(), worst.clone());
    let said = Said {
        text: Some(worst.clone()),
        value: worst.clone(),
        about: Some(worst.clone()),
        ..Said::default()
    };
    one.feedback = vec![said; 50];
    report.samples.items = vec![report.samples.items[0].clone(); 20];
    let long = (0..100_000).map(|k| (f64::from(k), f64::from(k % 977)));
    report.charts =
        vec![Chart::new("dpo", "loss", "step", "nats").line("train", long.clone()).line("held out", long); 8];
    let html = report.to_html().unwrap();
    assert!(html.len() < 1_000_000, "{}", html.len());
    assert!(html.contains("And 44 more items"));
}

#[test]
fn a_report_survives_json() {
    let mut report = report_of(HOSTILE);
    report.charts[0].series[0].points[0].value = f64::NAN;
    report.outcome.measures[0].start.interval = Some([f64::NAN, 1.0]);
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
    assert_eq!(back.to_html().unwrap(), report.to_html().unwrap());
}
