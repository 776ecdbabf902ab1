//! What a run says: the plan in words, the report, the metrics.

use std::fmt::Write as _;
use std::path::Path;

use hone_feedback::Record;
use serde_json::{Value, json};

use super::measure::{Probe, Readings};
use super::{Done, Run};
use crate::catalogue::find;
use crate::error::{Error, Result};
use crate::refine::Answered;
use crate::report::{
    Chart, Head, LeftOut, LogSection, ModelLine, Outcome, Plan, Report, Sample, Samples, Stage, ThemeCounter,
    ThemeSettings,
};

/// Records whose words are counted: more change no theme, and counting takes longer than reading.
const THEME_RECORDS: usize = 20_000;

/// Samples shown side by side.
const SAMPLES: usize = 20;

/// The plan, for the terminal.
pub(super) fn plan(run: &Run) -> String {
    let mut text = String::new();
    let log = &run.log;
    let model = run.policy.model.params.data.len() as f64 / 1e6;
    // Times are measured on the model that is here.
    let mut slower = 1.0;
    match run.published() {
        None => {
            let _ = writeln!(text, "model   {} ({model:.1} M weights)", model_name(run));
        }
        Some(published) => {
            let weights = published.weights().unwrap_or(0) as f64 / 1e6;
            slower = (weights / model).max(1.0);
            let sizes = match weights > 0.0 {
                false => "served by an endpoint".into(),
                true => format!(
                    "{}: {} layers, width {}, {} heads, feed-forward {}, vocabulary {}, context {}, {weights:.0} M weights",
                    published.family,
                    published.layers,
                    published.hidden_size,
                    published.heads,
                    published.intermediate_size,
                    published.vocab_size,
                    published.max_positions
                ),
            };
            let _ = writeln!(text, "model   {} ({sizes})", published.name);
            let _ = writeln!(text, "        is not here: hone-tiny stands in for its tokenizer and template");
            if weights > 0.0 && !published.readable() {
                let _ = writeln!(
                    text,
                    "        family {} is not read here: a run needs a model of another family; memory is that of a decoder \
                     of these widths",
                    published.family
                );
            }
        }
    }
    if let Some(stand_in) = run.stand_in() {
        let _ = writeln!(text, "data    {stand_in}");
    }
    let _ = writeln!(
        text,
        "log     {} records, {} refused: {} to train on, {} to decide by, {} held out, split {}",
        log.report.records,
        log.report.refused,
        log.train.len(),
        log.validation.len(),
        log.held_out.len(),
        log.split.words()
    );
    let budget = run.settings.budget.map_or("none".into(), time);
    let _ = writeln!(text, "budget  {budget}");
    for (index, stage) in run.plan.stages.iter().enumerate() {
        let name = find(&stage.method).map_or(stage.method.as_str(), |m| m.name);
        let _ = writeln!(text, "step {}  {} ({name}): {}", index + 1, stage.method, stage.why);
        let examples = match stage.examples {
            0 => format!("{} prompts", stage.records),
            examples => format!("{examples} examples"),
        };
        let _ = writeln!(
            text,
            "        {examples}, {} steps, about {}",
            stage.steps,
            time(stage.seconds * slower)
        );
    }
    for (method, why) in &run.plan.left {
        let _ = writeln!(text, "not     {method}: {why}");
    }
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "a second".into(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86400.0),
    }
}

/// The report of a finished run.
pub(super) fn report(
    run: &Run,
    outcome: &Outcome,
    ended: &[Done],
    probe: &Probe<'_>,
    readings: [&Readings; 2],
    model: Option<&Path>,
) -> Result<Report> {
    let names: Vec<String> = run.settings.logs.iter().map(|log| file_name(log)).collect();
    let mut head = Head::new(names.join(", "), &run.command)
        .version("hone", env!("CARGO_PKG_VERSION"))
        .version("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH))
        .version("processors", crate::policy::threads().to_string());
    head.date = date();
    head.seconds = run.started.elapsed().as_secs_f64();
    head.seed = run.settings.seed;
    head.model = ModelLine {
        name: model_name(run),
        parameters: run.policy.model.params.data.len() as u64,
        written_to: model.map(|folder| folder.display().to_string()),
    };
    let mut steps = run.plan.steps(&run.log);
    for (at, (step, done)) in steps.iter_mut().zip(ended).enumerate() {
        step.seconds = Some(done.seconds);
        step.ended = Some(match overtaken(run, ended, at) {
            Some(by) => format!("{}; {by} was chosen over it", done.ended),
            None => done.ended.clone(),
        });
    }
    let log = &run.log;
    let plan = Plan {
        budget: run.settings.budget.map(time),
        split: format!(
            "{}: {} records to train on, {} to decide by, {} held out",
            log.split.words(),
            log.train.len(),
            log.validation.len(),
            log.held_out.len()
        ),
        steps,
        not_chosen: run.plan.not_chosen(),
    };
    let mut themes = ThemeCounter::new(ThemeSettings::default());
    let all = log.train.iter().chain(&log.validation).chain(&log.held_out);
    all.take(THEME_RECORDS).for_each(|record| themes.add(record));
    let mut left_out = LeftOut::from_doctor(&log.report);
    if log.silent > 0 {
        let reason = "records without feedback and without a check";
        left_out.push(LeftOut::new(Stage::Reading, reason, log.silent as u64));
    }
    for (reason, count) in probe.losses() {
        left_out.push(LeftOut::new(Stage::Measuring, reason, count));
    }
    for (stage, done) in run.plan.stages.iter().zip(ended) {
        for (reason, count) in &done.losses {
            left_out.push(LeftOut::new(Stage::Converting, format!("{}: {reason}", stage.method), *count));
        }
    }
    Ok(Report {
        head,
        outcome: outcome.clone(),
        log: LogSection::from_doctor(&log.report),
        themes: themes.finish(),
        plan,
        charts: charts(run)?,
        samples: samples(probe, readings, run),
        left_out,
    })
}

/// The rival that took the place of a step that had been kept.
fn overtaken<'a>(run: &'a Run, ended: &[Done], at: usize) -> Option<&'a str> {
    let rivals =
        run.plan.stages.iter().zip(ended).skip(at + 1).take_while(|(stage, _)| stage.rival_of.is_some());
    let by = rivals.filter(|(_, done)| done.kept).last();
    by.filter(|_| ended[at].kept).map(|(stage, _)| stage.method.as_str())
}

/// Answers of the start and of the result to the same prompts, from what was measured.
fn samples(probe: &Probe<'_>, [start, result]: [&Readings; 2], run: &Run) -> Samples {
    let asked = probe.asked();
    let mut samples = Samples {
        how: format!(
            "the first {} of {} held-out prompts in the order drawn with seed {}",
            SAMPLES.min(asked.len()),
            run.log.held_out.len(),
            run.settings.seed
        ),
        items: vec![],
    };
    for (record, (before, after)) in asked.iter().zip(start.answers.iter().zip(&result.answers)) {
        let (Some(before), Some(after)) = (before.first(), after.first()) else { continue };
        let mut sample = Sample::from_record(record, &before.text, &after.text);
        if let (Some((_, before)), Some((_, after))) = (before.verdict, after.verdict) {
            sample = sample.score("oracle", before, after);
        }
        samples.items.push(sample);
        if samples.items.len() == SAMPLES {
            break;
        }
    }
    samples
}

/// Curves of every step, from its own metrics.
fn charts(run: &Run) -> Result<Vec<Chart>> {
    let mut charts = vec![];
    for (index, stage) in run.plan.stages.iter().enumerate() {
        let rows = stage_metrics(&run.stage_folder(index, stage))?;
        for (key, title, unit) in [
            ("loss", "loss", ""),
            ("rewards/accuracies", "pairs in order, training batches", "share"),
            ("rewards/margins", "margin of implicit rewards", ""),
            ("learning_rate", "learning rate", ""),
        ] {
            let points: Vec<(f64, f64)> = rows
                .iter()
                .filter_map(|row| Some((row.get("global_step")?.as_f64()?, row.get(key)?.as_f64()?)))
                .collect();
            if points.len() > 1 {
                let chart = Chart::new(stage.method.clone(), title, "optimiser step", unit);
                charts.push(chart.line("training", points));
            }
        }
    }
    Ok(charts)
}

/// Optimiser steps that a step took, by its metrics; `None` if it takes none.
pub(super) fn steps_taken(folder: &Path) -> Result<Option<u64>> {
    let rows = stage_metrics(folder)?;
    // Rounds count from 1 each, so rows are counted, not their numbers read.
    Ok((!rows.is_empty()).then_some(rows.len() as u64))
}

/// The metrics of a step: those in its folder, or of its rounds in theirs.
fn stage_metrics(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = vec![];
    let mut folders = vec![folder.to_path_buf()];
    folders.extend((1..).map(|round| folder.join(format!("round-{round}"))).take_while(|f| f.exists()));
    for path in folders.iter().map(|folder| folder.join("metrics.jsonl")).filter(|path| path.exists()) {
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        rows.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
    }
    Ok(rows)
}

/// `metrics.jsonl` of the whole run: every step's lines with its method, then the measures.
pub(super) fn metrics(run: &Run, outcome: &Outcome) -> Result<()> {
    let mut text = String::new();
    for (index, stage) in run.plan.stages.iter().enumerate() {
        for mut row in stage_metrics(&run.stage_folder(index, stage))? {
            if let Value::Object(row) = &mut row {
                row.insert("method".into(), stage.method.clone().into());
            }
            let _ = writeln!(text, "{row}");
        }
    }
    for measure in &outcome.measures {
        let _ = writeln!(text, "{}", json!({ "measure": measure }));
    }
    let path = run.out.join("metrics.jsonl");
    std::fs::write(&path, text).map_err(Error::io(&path))
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The model's folder, or that it is the built-in one, whose folder is a cache's business.
fn model_name(run: &Run) -> String {
    match crate::tiny::folder() {
        Ok(folder) if folder == run.settings.model => "hone-tiny, built in".into(),
        _ => run.settings.model.display().to_string(),
    }
}

/// The present moment to the minute, in UTC.
fn date() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `answers.jsonl` of a step that answers: every attempt with its critique and score, and what it cost.
pub(super) fn answers(folder: &Path, answers: &[Answered], records: &[Record]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut text = String::new();
    for answer in answers {
        let attempts: Vec<Value> = answer
            .attempts
            .iter()
            .map(|a| json!({ "content": a.text, "critique": a.critique, "score": a.score }))
            .collect();
        let id = &records[answer.record].id;
        let row = json!({ "id": id, "attempts": attempts, "chosen": answer.chosen, "cost": answer.cost });
        let _ = writeln!(text, "{row}");
    }
    let path = folder.join("answers.jsonl");
    std::fs::write(&path, text).map_err(Error::io(&path))
}
