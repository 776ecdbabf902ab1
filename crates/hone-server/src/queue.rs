//! What there is to label, by how many different people, and how far they agree.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Query, State};
use hone_feedback::metrics::agreement::{Level, krippendorff_alpha};
use hone_feedback::{Form, FormKind, Record};
use hone_store::Query as Wanted;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Allowed, Read};
use crate::error::{ApiError, ErrorBody, Result};
use crate::log::form;

/// Exchanges looked at, newest first.
const LOOKED_AT: usize = 5000;

/// What is to be labelled.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Task {
    /// The form of feedback that is wanted.
    form: String,
    /// Who labels: what this person has labelled is left out.
    by: Option<String>,
    /// People who are to label each exchange, from 1 to 20. Without: 1.
    #[param(minimum = 1, maximum = 20)]
    overlap: Option<usize>,
    /// Only exchanges with this tag.
    tag: Option<String>,
    /// Only exchanges with an answer of this model.
    model: Option<String>,
    /// At most so many, from 1 to 200. Without: 20.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// Exchanges to label.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    /// Records of the log, those first that somebody has begun, then the newest.
    data: Vec<Value>,
    /// Exchanges among the latest 5,000 that are still to be labelled.
    left: usize,
    /// Exchanges among them that enough people have labelled.
    done: usize,
    /// Krippendorff's alpha of those who labelled the same answers; of thumbs, ratings, outcomes and steps.
    agreement: Option<f64>,
}

/// Exchanges that want feedback of a form.
#[utoipa::path(get, path = "/v1/queue", tag = "feedback", params(Task),
    responses((status = 200, body = Queue), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn show(
    State(app): State<App>,
    _: Allowed<Read>,
    Query(task): Query<Task>,
) -> Result<Json<Queue>> {
    let kind = form(&task.form)?;
    let (overlap, limit) = (task.overlap.unwrap_or(1), task.limit.unwrap_or(20));
    for (name, value, most) in [("overlap", overlap, 20), ("limit", limit, 200)] {
        if value == 0 || value > most {
            return Err(ApiError::field(name, &format!("a number from 1 to {most}"), value));
        }
    }
    let mut records = Vec::new();
    let mut wanted =
        Wanted { tag: task.tag.clone(), model: task.model.clone(), limit: 1000, ..Wanted::default() };
    loop {
        let page = app.store.search(wanted.clone()).await?;
        records.extend(page.hits);
        match page.next {
            Some(next) if records.len() < LOOKED_AT => wanted.before = Some(next),
            _ => break,
        }
    }
    Ok(Json(queue(&records, kind, task.by.as_deref(), overlap, limit)))
}

fn queue(records: &[Record], kind: FormKind, by: Option<&str>, overlap: usize, limit: usize) -> Queue {
    let (mut begun, mut new, mut done) = (Vec::new(), Vec::new(), 0);
    for record in records {
        if record.responses.is_empty() || (needs_two(kind) && record.responses.len() < 2) {
            continue;
        }
        let people = labellers(record, kind);
        if people.len() >= overlap {
            done += 1;
        } else if by.is_none_or(|by| !people.contains(by)) {
            (if people.is_empty() { &mut new } else { &mut begun }).push(record);
        }
    }
    let left = begun.len() + new.len();
    let data = begun.into_iter().chain(new).take(limit).map(|record| json!(record)).collect();
    Queue { data, left, done, agreement: agreement(records, kind) }
}

fn needs_two(kind: FormKind) -> bool {
    matches!(kind, FormKind::Comparison | FormKind::Ranking)
}

/// The people who gave feedback of a form. Those without a name count as one.
fn labellers(record: &Record, kind: FormKind) -> BTreeSet<&str> {
    let given = record.feedback.iter().filter(|item| item.form.kind() == kind);
    given.map(|item| item.by.as_deref().unwrap_or_default()).collect()
}

/// Agreement of people on the same thing: an answer, an aspect of it, a step of it.
fn agreement(records: &[Record], kind: FormKind) -> Option<f64> {
    let mut units: BTreeMap<(usize, String), BTreeMap<&str, f64>> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        for item in record.feedback.iter().filter(|item| item.form.kind() == kind) {
            let truth = |good: bool| f64::from(u8::from(good));
            let (on, value) = match &item.form {
                Form::Thumb { on, value } => (on.clone(), truth(*value)),
                Form::Rating { on, value, .. } => {
                    (format!("{on} {}", item.aspect.as_deref().unwrap_or_default()), *value)
                }
                Form::Outcome { on, check, passed } => (format!("{on} {check}"), truth(*passed)),
                Form::Step { on, index, correct } => (format!("{on} {index}"), truth(*correct)),
                _ => continue,
            };
            // A person's last word counts.
            units.entry((number, on)).or_default().insert(item.by.as_deref().unwrap_or_default(), value);
        }
    }
    let units: Vec<Vec<f64>> = units.into_values().map(|people| people.into_values().collect()).collect();
    let level = if kind == FormKind::Rating { Level::Interval } else { Level::Nominal };
    krippendorff_alpha(units.iter().map(Vec::as_slice), level)
}

#[cfg(test)]
mod tests {
    use hone_feedback::Feedback;

    use super::*;

    fn thumb(by: &str, value: bool) -> Feedback {
        Feedback::from(Form::Thumb { on: "a".into(), value }).by(by)
    }

    #[test]
    fn what_is_left_to_whom() {
        let record = |id: &str| Record::new(id, "p").respond("a", "x");
        let records = [
            record("new"),
            record("mine").say(thumb("me", true)),
            record("theirs").say(thumb("you", true)),
            record("done").say(thumb("me", true)).say(thumb("you", false)),
            Record::new("silent", "p"),
        ];
        let found = queue(&records, FormKind::Thumb, Some("me"), 2, 10);
        let ids: Vec<_> = found.data.iter().map(|record| record["id"].as_str().unwrap_or_default()).collect();
        assert_eq!((ids, found.left, found.done), (vec!["theirs", "new"], 2, 1));
        // Nothing to compare or rank with one answer each.
        assert_eq!(queue(&records, FormKind::Ranking, None, 1, 10).left, 0);
    }

    #[test]
    fn agreement_of_thumbs() {
        let record = |votes: [bool; 2]| {
            Record::new("r", "p").respond("a", "x").say(thumb("me", votes[0])).say(thumb("you", votes[1]))
        };
        let same = [record([true, true]), record([false, false])];
        assert_eq!(agreement(&same, FormKind::Thumb), Some(1.0));
        // Of two units one differs: values 1 1 | 0 1, n = 4. Observed 1/2 · 1; expected 2 · 3 · 1 / (4 · 3) = 1/2; so 0.
        let half = [record([true, true]), record([false, true])];
        assert!(agreement(&half, FormKind::Thumb).is_some_and(|alpha| alpha.abs() < 1e-12));
        assert_eq!(agreement(&half, FormKind::Edit), None);
    }
}
