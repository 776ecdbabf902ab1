//! Figures for a page: volume, tokens, time, and how satisfied people are, day by day and model by model.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use hone_store::Tally;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ApiError, ErrorBody, Result};
use crate::variants::{Experiment, Figures};

/// What counts as satisfaction: what people say of an answer as a whole.
const SATISFACTION: [&str; 2] = ["thumb", "rating"];
/// Of the normal distribution, for intervals of 95 %.
const Z: f64 = 1.959_964;

/// Which days.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Days {
    /// So many days up to today, from 1 to 366. Without: 30.
    #[param(minimum = 1, maximum = 366)]
    days: Option<i64>,
}

/// Sums of a day, a model, or all.
#[derive(Debug, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Sums {
    exchanges: i64,
    responses: i64,
    prompt_tokens: f64,
    completion_tokens: f64,
    /// Mean milliseconds of an answer.
    latency_ms: Option<f64>,
    /// How satisfied people are.
    satisfaction: Option<Satisfaction>,
    /// Items of feedback by form; events by name, as `event:copied`.
    feedback: BTreeMap<String, i64>,
}

/// Thumbs and ratings, from 0 to 1, with the Wilson interval of 95 % (1927; for marks between 0 and 1 it is at least
/// as wide as it need be).
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Satisfaction {
    count: i64,
    mean: f64,
    low: f64,
    high: f64,
}

/// A day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Day {
    /// Such as `2026-05-01`, UTC.
    day: String,
    #[serde(flatten)]
    sums: Sums,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Model {
    model: String,
    #[serde(flatten)]
    sums: Sums,
    /// Day by day; days without anything are left out.
    days: Vec<Day>,
}

/// Figures for a page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Dashboard {
    /// All days together.
    all: Sums,
    /// Day by day; days without anything are left out.
    days: Vec<Day>,
    /// Model by model. Exchanges belong to no model.
    models: Vec<Model>,
    /// The two variants that are compared, if any are.
    variants: Option<Figures>,
}

/// Sums under way.
#[derive(Debug, Default)]
struct Adding {
    sums: Sums,
    latency: (i64, f64),
    satisfaction: (i64, f64),
}

impl Adding {
    fn add(&mut self, tally: &Tally) {
        let sums = &mut self.sums;
        match tally.what.as_str() {
            "exchange" => sums.exchanges += tally.count,
            "response" => sums.responses += tally.count,
            "prompt_tokens" => sums.prompt_tokens += tally.sum,
            "completion_tokens" => sums.completion_tokens += tally.sum,
            "latency_ms" => self.latency = (self.latency.0 + tally.count, self.latency.1 + tally.sum),
            what => {
                *sums.feedback.entry(what.to_owned()).or_default() += tally.count;
                if SATISFACTION.contains(&what) {
                    self.satisfaction = (self.satisfaction.0 + tally.count, self.satisfaction.1 + tally.sum);
                }
            }
        }
    }

    fn done(mut self) -> Sums {
        let (count, sum) = self.latency;
        self.sums.latency_ms = (count > 0).then(|| sum / count as f64);
        self.sums.satisfaction = satisfaction(self.satisfaction.0, self.satisfaction.1);
        self.sums
    }
}

fn satisfaction(count: i64, sum: f64) -> Option<Satisfaction> {
    if count <= 0 {
        return None;
    }
    let (n, z2) = (count as f64, Z * Z);
    let mean = (sum / n).clamp(0.0, 1.0);
    let centre = (mean + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z / (1.0 + z2 / n) * (mean * (1.0 - mean) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Satisfaction { count, mean, low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

fn day_name(day: i64) -> String {
    let time = jiff::Timestamp::from_second(day * 86_400);
    time.map(|time| time.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

fn dashboard(tallies: &[Tally], variants: Option<Figures>) -> Dashboard {
    let mut all = Adding::default();
    let mut days: BTreeMap<i64, Adding> = BTreeMap::new();
    let mut models: BTreeMap<&str, (Adding, BTreeMap<i64, Adding>)> = BTreeMap::new();
    for tally in tallies {
        all.add(tally);
        days.entry(tally.day).or_default().add(tally);
        if !tally.model.is_empty() {
            let (all, days) = models.entry(&tally.model).or_default();
            all.add(tally);
            days.entry(tally.day).or_default().add(tally);
        }
    }
    let named = |days: BTreeMap<i64, Adding>| {
        days.into_iter().map(|(day, sums)| Day { day: day_name(day), sums: sums.done() }).collect()
    };
    Dashboard {
        all: all.done(),
        days: named(days),
        models: models
            .into_iter()
            .map(|(name, (sums, days))| Model {
                model: name.to_owned(),
                sums: sums.done(),
                days: named(days),
            })
            .collect(),
        variants,
    }
}

/// Volume, tokens, time and satisfaction.
#[utoipa::path(get, path = "/v1/dashboard", tag = "log", params(Days),
    responses((status = 200, body = Dashboard), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn show(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(days): Query<Days>,
) -> Result<Json<Dashboard>> {
    let count = days.days.unwrap_or(30);
    if !(1..=366).contains(&count) {
        return Err(ApiError::field("days", "a number from 1 to 366", count));
    }
    let today = jiff::Timestamp::now().as_second().div_euclid(86_400);
    // Tomorrow too: clocks of those who send times may be ahead.
    let tallies = app.store.tallies(today - count + 1..=today + 1).await?;
    let variants = match Experiment::load(&*app.store).await? {
        Some(experiment) => Some(experiment.figures(&*app.store).await?),
        None => None,
    };
    Ok(Json(dashboard(&tallies, variants)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson() {
        // 8 of 10: centre (0.8 + 0.19207) / 1.38415 = 0.71674, half 1.95996 / 1.38415 · √(0.016 + 0.0096036) = 0.22658.
        let found = satisfaction(10, 8.0).expect("some");
        assert!((found.low - 0.49016).abs() < 1e-4 && (found.high - 0.94332).abs() < 1e-4, "{found:?}");
        assert_eq!(satisfaction(0, 0.0), None);
        let all = satisfaction(5, 5.0).expect("some");
        assert!(all.high == 1.0 && all.low > 0.5 && all.low < 0.6, "{all:?}");
    }

    #[test]
    fn sums_by_day_and_model() {
        let tally = |day, model: &str, what: &str, count, sum| Tally {
            day,
            model: model.into(),
            what: what.into(),
            count,
            sum,
            squares: 0.0,
        };
        let shown = dashboard(
            &[
                tally(20_574, "", "exchange", 3, 0.0),
                tally(20_574, "m", "response", 3, 0.0),
                tally(20_574, "m", "latency_ms", 2, 30.0),
                tally(20_574, "m", "thumb", 4, 3.0),
                tally(20_575, "m", "event:copied", 1, 0.0),
                tally(20_575, "m", "step", 9, 1.0),
            ],
            None,
        );
        assert_eq!((shown.days[0].day.as_str(), shown.days.len()), ("2026-05-01", 2));
        assert_eq!((shown.all.exchanges, shown.models[0].sums.responses), (3, 3));
        assert_eq!(shown.models[0].sums.latency_ms, Some(15.0));
        assert_eq!(
            shown.models[0].days.iter().map(|day| day.day.as_str()).collect::<Vec<_>>(),
            ["2026-05-01", "2026-05-02"]
        );
        assert_eq!(shown.all.satisfaction.as_ref().map(|s| (s.count, s.mean)), Some((4, 0.75)));
        assert_eq!(shown.days[1].sums.satisfaction, None);
        assert_eq!(shown.all.feedback["event:copied"], 1);
    }
}
