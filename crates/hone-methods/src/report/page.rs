//! The report as one HTML file.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use serde::Serialize;

use super::chart::{Chart, Summary};
use super::left_out::{LeftOut, Stage};
use super::log::{Agreement, Source};
use super::number::{count, duration, fixed, percent, short, size};
use super::outcome::{Change, Estimate, Measure};
use super::samples::Sample;
use super::text::{LIMIT, escape, headline};
use super::{Head, LogSection, Plan, Report, Themes};
use crate::{Error, Result};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");

/// Bytes of HTML that a prompt's turn and an answer may take. Twenty samples of the worst text stay under 1 MB.
const PROMPT_LIMIT: usize = 3000;
const ANSWER_LIMIT: usize = 6000;
/// Turns of a prompt shown, the last ones.
const TURNS: usize = 3;
/// Items of feedback shown per sample.
const FEEDBACK: usize = 6;
/// Rows of a table that a log can make as long as it likes.
const ROWS: usize = 20;
/// Examples of what was left out, per reason.
const FIRST: usize = 3;

impl Report {
    /// The report as one HTML file that needs nothing else: no script, no font, no picture, no network.
    ///
    /// # Errors
    /// [`Error::File`] if the built-in template does not render; that is a fault of the program.
    pub fn to_html(&self) -> Result<String> {
        let page = Page::of(self);
        let fault = |error: minijinja::Error| Error::File {
            path: "report/page.html".into(),
            problem: format!("{error:#}"),
        };
        let environment = environment().map_err(fault)?;
        let template = environment.get_template("page.html").map_err(fault)?;
        template.render(Value::from(Serde(&page))).map_err(fault)
    }
}

/// What the template takes: the report, and what has to be computed for it.
#[derive(Serialize)]
struct Page<'a> {
    style: &'static str,
    prompt_limit: usize,
    answer_limit: usize,
    head: &'a Head,
    verdict: Words,
    measures: Vec<MeasureView<'a>>,
    log: &'a LogSection,
    items: u64,
    most_of_a_form: u64,
    sources: &'a [Source],
    sources_more: usize,
    sources_judged: bool,
    agreement: &'a [Agreement],
    agreement_more: usize,
    languages: &'a [(String, f64)],
    languages_more: usize,
    themes: &'a Themes,
    plan: &'a Plan,
    curves: Vec<Curves<'a>>,
    smoothed: bool,
    samples: SamplesView<'a>,
    left_out: Vec<LeftOutView<'a>>,
}

/// A word for people and a class for the style sheet.
#[derive(Serialize)]
struct Words {
    class: String,
    words: &'static str,
    sentence: String,
}

#[derive(Serialize)]
struct MeasureView<'a> {
    name: &'a str,
    unit: &'a str,
    better: &'static str,
    n: u64,
    baselines: Vec<BaselineView<'a>>,
    start: Shown,
    result: Shown,
    difference: Shown,
    change: Words,
    not_above: Vec<&'a str>,
    svg: String,
}

#[derive(Serialize)]
struct BaselineView<'a> {
    name: &'a str,
    estimate: Shown,
}

#[derive(Serialize)]
struct Shown {
    value: String,
    interval: Option<String>,
}

#[derive(Serialize)]
struct Curves<'a> {
    step: &'a str,
    charts: Vec<ChartView<'a>>,
}

#[derive(Serialize)]
struct ChartView<'a> {
    id: String,
    title: &'a str,
    svg: String,
    summaries: Vec<Summary>,
}

#[derive(Serialize)]
struct SamplesView<'a> {
    how: &'a str,
    items: Vec<SampleView<'a>>,
}

#[derive(Serialize)]
struct SampleView<'a> {
    id: &'a str,
    headline: String,
    prompt: &'a [super::samples::Turn],
    turns_more: usize,
    start: &'a str,
    result: &'a str,
    scores: &'a [super::samples::Score],
    feedback: &'a [super::samples::Said],
    feedback_more: usize,
}

#[derive(Serialize)]
struct LeftOutView<'a> {
    title: &'static str,
    entries: Vec<Entry<'a>>,
    more: usize,
}

#[derive(Serialize)]
struct Entry<'a> {
    reason: &'a str,
    count: u64,
    first: &'a [String],
}

impl<'a> Page<'a> {
    fn of(report: &'a Report) -> Self {
        let log = &report.log;
        let (sources, sources_more) = some(&log.sources, 10);
        let (agreement, agreement_more) = some(&log.agreement, ROWS);
        let (languages, languages_more) = some(&log.languages, 8);
        let verdict = report.outcome.verdict();
        let sentence = report.outcome.sentence();
        Page {
            style: STYLE,
            prompt_limit: PROMPT_LIMIT,
            answer_limit: ANSWER_LIMIT,
            head: &report.head,
            verdict: Words {
                class: verdict.words().to_lowercase().replace(' ', "-"),
                words: verdict.words(),
                // The page sets the first words in bold.
                sentence: sentence.strip_prefix(verdict.words()).unwrap_or_default().to_owned(),
            },
            measures: report.outcome.measures.iter().enumerate().map(MeasureView::of).collect(),
            log,
            items: log.items(),
            most_of_a_form: log.forms.iter().map(|(_, count)| *count).max().unwrap_or(0),
            sources,
            sources_more,
            sources_judged: sources.iter().any(|s| s.right.is_some() || s.sharpness.is_some()),
            agreement,
            agreement_more,
            languages,
            languages_more,
            themes: &report.themes,
            plan: &report.plan,
            curves: curves(&report.charts),
            smoothed: report.charts.iter().any(Chart::is_smoothed),
            samples: SamplesView {
                how: &report.samples.how,
                items: report.samples.items.iter().map(SampleView::of).collect(),
            },
            left_out: left_out(&report.left_out),
        }
    }
}

impl<'a> MeasureView<'a> {
    fn of((index, measure): (usize, &'a Measure)) -> Self {
        let shown = |estimate: &Estimate, difference| Shown {
            value: measure.shown(estimate, difference),
            interval: measure.shown_interval(estimate, difference),
        };
        let change = measure.change();
        MeasureView {
            name: &measure.name,
            unit: measure.unit_words(false),
            better: measure.better.words(),
            n: measure.n,
            baselines: measure
                .baselines
                .iter()
                .map(|b| BaselineView { name: &b.name, estimate: shown(&b.estimate, false) })
                .collect(),
            start: shown(&measure.start, false),
            result: shown(&measure.result, false),
            difference: shown(&measure.difference, true),
            change: Words {
                class: match change {
                    Change::Better => "better".into(),
                    Change::Worse => "worse".into(),
                    Change::Unclear | Change::NotJudged => "unclear".into(),
                },
                words: change.words(),
                sentence: String::new(),
            },
            not_above: measure.not_above().map(|baseline| baseline.name.as_str()).collect(),
            svg: measure.svg(&format!("m{index}")),
        }
    }
}

impl<'a> SampleView<'a> {
    fn of(sample: &'a Sample) -> Self {
        let asked = sample.prompt.iter().rev().find(|turn| turn.role != "system");
        // What came last is what was asked; earlier turns are counted.
        let turns_more = sample.prompt.len().saturating_sub(TURNS);
        let (feedback, feedback_more) = some(&sample.feedback, FEEDBACK);
        let headline = asked.map_or(String::new(), |turn| headline(&turn.text, 90));
        // A prompt that its headline holds whole is not said twice.
        let whole = matches!(sample.prompt.as_slice(), [only] if only.text == headline);
        SampleView {
            id: &sample.id,
            headline,
            prompt: if whole { &[] } else { &sample.prompt[turns_more..] },
            turns_more,
            start: &sample.start,
            result: &sample.result,
            scores: &sample.scores,
            feedback,
            feedback_more,
        }
    }
}

/// Charts under their step, in the order of their first chart.
fn curves(charts: &[Chart]) -> Vec<Curves<'_>> {
    let mut out: Vec<Curves<'_>> = Vec::new();
    for (index, chart) in charts.iter().enumerate() {
        let id = format!("c{index}");
        let view = ChartView { title: &chart.title, svg: chart.svg(&id), summaries: chart.summaries(), id };
        match out.iter_mut().find(|group| group.step == chart.step) {
            Some(group) => group.charts.push(view),
            None => out.push(Curves { step: &chart.step, charts: vec![view] }),
        }
    }
    out
}

fn left_out(entries: &[LeftOut]) -> Vec<LeftOutView<'_>> {
    let mut out = Vec::new();
    for stage in Stage::ALL {
        let here: Vec<&LeftOut> =
            entries.iter().filter(|entry| entry.at == stage && entry.count > 0).collect();
        if here.is_empty() {
            continue;
        }
        let (shown, more) = some(&here, ROWS);
        out.push(LeftOutView {
            title: stage.title(),
            entries: shown
                .iter()
                .map(|one| Entry { reason: &one.reason, count: one.count, first: some(&one.first, FIRST).0 })
                .collect(),
            more,
        });
    }
    out
}

/// The first `most`, and how many are left.
fn some<T>(all: &[T], most: usize) -> (&[T], usize) {
    let shown = all.len().min(most);
    (&all[..shown], all.len() - shown)
}

/// An environment in which no text passes unescaped, and a name that the template misspells is an error.
fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            out.write_str(&escape(text, LIMIT).0).map_err(minijinja::Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    env.add_filter("clip", clip);
    env.add_filter("count", count);
    env.add_filter("size", size);
    env.add_filter("duration", duration);
    env.add_filter("short", |x: Option<f64>| short(x.unwrap_or(f64::NAN)));
    env.add_filter("one", |x: Option<f64>| fixed(x.unwrap_or(f64::NAN), 1));
    env.add_filter("two", |x: Option<f64>| fixed(x.unwrap_or(f64::NAN), 2));
    env.add_filter("percent", |x: Option<f64>| x.map_or("–".into(), percent));
    env.add_filter("share_of", share_of);
    env.add_template("page.html", TEMPLATE)?;
    Ok(env)
}

/// Log text cut to `limit` bytes of HTML, with a note of how much is missing.
fn clip(text: &str, limit: usize) -> Value {
    let (mut html, missing) = escape(text, limit);
    if missing > 0 {
        let missing = count(missing as u64);
        html += &format!(r#"<span class="cut">… {missing} more characters left out here</span>"#);
    }
    Value::from_safe_string(html)
}

/// `part` of `whole` in per cent for the width of a bar, within 0 to 100.
fn share_of(part: f64, whole: f64) -> String {
    let share = 100.0 * part / whole;
    if share.is_finite() { format!("{:.1}", share.clamp(0.0, 100.0)) } else { "0".into() }
}
