//! Runs that used the log, and the curves in their folders.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path as FilePath, PathBuf};

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ApiError, ErrorBody, Result};
use crate::read::events;

/// Points of a curve; of longer ones every so manieth is shown.
const POINTS: usize = 1000;
/// Bytes read of one file of metrics.
const LONGEST: u64 = 64 << 20;
/// Items of the log that are named.
const ITEMS: usize = 1000;

/// A run in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunEntry {
    id: String,
    /// What it made; null where only its folder is known.
    model: Option<String>,
    /// Whether there are curves.
    curves: bool,
}

/// All runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunList {
    data: Vec<RunEntry>,
}

/// One run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WholeRun {
    id: String,
    /// What it made; null where only its folder is known.
    model: Option<String>,
    /// Exchanges and items of feedback that it used.
    items: Vec<String>,
    /// Whether there are more items than are named.
    more: bool,
    /// Pairs of step and value by name.
    curves: BTreeMap<String, Vec<(f64, f64)>>,
    /// Its settings as TOML, where its folder has them.
    settings: Option<String>,
}

/// Every run that is noted in the log or has a folder.
#[utoipa::path(get, path = "/api/runs", tag = "log",
    responses((status = 200, body = RunList), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn list(State(app): State<App>, _: Allowed<Read>) -> Result<Json<RunList>> {
    let folders = folders(&app).await?;
    let mut data: BTreeMap<String, RunEntry> = BTreeMap::new();
    for run in app.store.runs().await? {
        let curves = folders.contains(&run.id);
        data.insert(run.id.clone(), RunEntry { id: run.id, model: Some(run.model), curves });
    }
    for id in folders {
        data.entry(id.clone()).or_insert(RunEntry { id, model: None, curves: true });
    }
    Ok(Json(RunList { data: data.into_values().collect() }))
}

/// One run: what it used, what it made, its curves.
#[utoipa::path(get, path = "/api/runs/{id}", tag = "log", params(("id" = String, Path)),
    responses((status = 200, body = WholeRun), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn one(
    State(app): State<App>,
    _: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Json<WholeRun>> {
    let known = app.store.runs().await?.into_iter().find(|run| run.id == id);
    // Only names that a listing of the folder gives: nothing that was asked for becomes part of a path unseen.
    let listed = folders(&app).await?.contains(&id);
    let folder = app.config.runs.as_ref().filter(|_| listed).map(|runs| runs.join(&id));
    if known.is_none() && folder.is_none() {
        return Err(ApiError::missing("run", &id));
    }
    let mut items = if known.is_some() { app.store.items_of(&id).await? } else { Vec::new() };
    let more = items.len() > ITEMS;
    items.truncate(ITEMS);
    let (curves, settings) = match folder {
        None => (BTreeMap::new(), None),
        Some(folder) => blocking(move || Ok((curves(&folder)?, settings(&folder)))).await?,
    };
    Ok(Json(WholeRun { id, model: known.map(|run| run.model), items, more, curves, settings }))
}

/// The names of run folders.
async fn folders(app: &App) -> Result<BTreeSet<String>> {
    let Some(runs) = app.config.runs.clone() else { return Ok(BTreeSet::new()) };
    blocking(move || {
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(&runs)? {
            let entry = entry?;
            if has_curves(&entry.path())
                && let Ok(name) = entry.file_name().into_string()
            {
                names.insert(name);
            }
        }
        Ok(names)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(%error, "the folder of runs cannot be read");
        let message = "the folder of runs cannot be read; the service's log says why";
        ApiError::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "runs_unreadable", message)
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// The file in which Hone's runs say what they do.
const METRICS: &str = "metrics.jsonl";

fn has_curves(folder: &FilePath) -> bool {
    folder.join(METRICS).is_file() || event_files(folder).is_ok_and(|files| !files.is_empty())
}

/// TensorBoard's files, which other trainers write.
fn event_files(folder: &FilePath) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Every number that a run noted by its name, over the steps.
fn curves(folder: &FilePath) -> std::io::Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut curves = BTreeMap::new();
    let metrics = folder.join(METRICS);
    if metrics.is_file() {
        // The events beside it, if any, say the same.
        metrics_curves(&metrics, &mut curves)?;
    } else {
        for path in event_files(folder)? {
            let mut bytes = Vec::new();
            std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
            events::curves(&bytes, &mut curves);
        }
    }
    for points in curves.values_mut() {
        thin(points);
    }
    Ok(curves)
}

fn metrics_curves(path: &FilePath, curves: &mut BTreeMap<String, Vec<(f64, f64)>>) -> std::io::Result<()> {
    let file = std::fs::File::open(path)?.take(LONGEST);
    for (number, line) in BufReader::new(file).lines().enumerate() {
        // A run may be writing its last line just now.
        let Ok(line) = serde_json::from_str::<Map<String, Value>>(&line?) else { continue };
        let step = ["global_step", "step"].iter().find_map(|name| line.get(*name)?.as_f64());
        let step = step.unwrap_or((number + 1) as f64);
        // A run of several methods counts the steps of each from 1.
        let method = line
            .get("method")
            .and_then(Value::as_str)
            .map(|method| format!("{method}: "))
            .unwrap_or_default();
        for (name, value) in &line {
            if name != "global_step"
                && name != "step"
                && let Some(value) = value.as_f64()
            {
                curves.entry(format!("{method}{name}")).or_default().push((step, value));
            }
        }
    }
    Ok(())
}

/// Leaves every so manieth point, and the last.
fn thin(points: &mut Vec<(f64, f64)>) {
    if points.len() <= POINTS {
        return;
    }
    let stride = points.len().div_ceil(POINTS);
    let last = points.len() - 1;
    let mut at = 0;
    points.retain(|_| {
        at += 1;
        (at - 1) % stride == 0 || at - 1 == last
    });
}

fn settings(folder: &FilePath) -> Option<String> {
    let path: PathBuf = folder.join("config.toml");
    let small = std::fs::metadata(&path).is_ok_and(|file| file.len() < 1 << 20);
    if small { std::fs::read_to_string(path).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_a_run_that_still_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("metrics.jsonl");
        let text = "{\"global_step\":2,\"loss\":1.5,\"kl\":null,\"warnings\":[\"x\"]}\n{\"global_step\":4,\"loss\":1,\"kl\":0.5}\n{\"method\":\"sft\",\"global_step\":1,\"loss\":2}\n{\"glob";
        std::fs::write(&path, text).expect("written");
        let curves = curves(folder.path()).expect("read");
        assert_eq!(curves["loss"], [(2.0, 1.5), (4.0, 1.0)]);
        assert_eq!(curves["kl"], [(4.0, 0.5)]);
        assert_eq!(curves["sft: loss"], [(1.0, 2.0)]);
        assert_eq!(curves.len(), 3);
    }

    #[test]
    fn long_curves_keep_their_ends() {
        let mut points: Vec<(f64, f64)> = (0..2500).map(|at| (f64::from(at), 0.0)).collect();
        thin(&mut points);
        // Every third of 2500 is 834 points, from 0 to 2499: the last is one of them.
        assert_eq!(points.len(), 834);
        assert_eq!((points[0].0, points[833].0), (0.0, 2499.0));
    }
}
