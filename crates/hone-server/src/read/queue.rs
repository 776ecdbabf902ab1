//! What to label next: every exchange goes to so many people, and to nobody twice.
//!
//! Who has labelled an exchange is read from what is stored about it. Only what somebody holds or skipped just now is
//! kept in memory: a restart gives skipped exchanges out again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hone_feedback::{FormKind, Record};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Allowed, Caller, Feedback, Scope};
use crate::body::Object;
use crate::error::{ApiError, ErrorBody, Result};
use crate::read::{Exchange, Filter};

/// How long an exchange that was given out counts as being labelled.
const HELD: Duration = Duration::from_secs(600);
/// Exchanges skipped that are remembered.
const SKIPPED: usize = 100_000;
/// Exchanges looked at in one call.
const ROUND: usize = 2000;
const PAGE: usize = 200;

/// Who holds what, and who skipped what.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// By exchange: who was given it, and when.
    held: HashMap<String, Vec<(String, Instant)>>,
    skipped: HashSet<(String, String)>,
}

/// Who asks, and for which exchanges.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct Ask {
    /// Who labels, as in `user:ann`.
    by: String,
    /// How many people each exchange goes to.
    #[schema(minimum = 1, maximum = 100)]
    overlap: Option<u32>,
    /// Go on where the last answer says.
    before: Option<i64>,
    /// Words, as in a search.
    q: Option<String>,
    /// The model of an answer.
    model: Option<String>,
    /// A tag.
    tag: Option<String>,
    /// The session.
    session: Option<String>,
    /// Whom it was shown to.
    user: Option<String>,
    /// A form of feedback that it has.
    form: Option<String>,
    /// From this day or time.
    since: Option<String>,
    /// Before this day or time.
    until: Option<String>,
}

/// What to label.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Given {
    /// The exchange; null where this part of the log holds none.
    item: Option<Exchange>,
    /// How many people have labelled it.
    people: usize,
    /// Where to go on, as `before`; null at the end of the log.
    cursor: Option<i64>,
}

/// What to leave out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct Skip {
    /// Who skips it.
    by: String,
    /// The exchange.
    id: String,
}

/// What to take back.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Undo {
    /// The keys that the feedback was sent under (`Idempotency-Key`).
    keys: Vec<String>,
}

/// What was taken back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Undone {
    /// How many items were deleted.
    deleted: usize,
}

/// The people who have labelled an exchange. Whom it was shown to is none of them: what a user of the application
/// says about an answer is not a label of a second reader. Nor are models and tools.
pub(crate) fn people(record: &Record) -> BTreeSet<&str> {
    let shown = record.extra.get("user").and_then(serde_json::Value::as_str);
    let said = record
        .feedback
        .iter()
        .filter(|item| !matches!(item.form.kind(), FormKind::Event | FormKind::Outcome));
    said.filter_map(|item| item.by.as_deref())
        .filter(|by| by.starts_with("user:") && Some(*by) != shown)
        .collect()
}

impl Holds {
    /// Holds an exchange for `by` if it is to have one more label and this person has not said anything.
    fn take(&self, record: &Record, by: &str, overlap: usize) -> Option<usize> {
        let done = people(record);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if record.responses.is_empty()
            || done.contains(by)
            || state.skipped.contains(&(by.to_owned(), record.id.clone()))
        {
            return None;
        }
        let now = Instant::now();
        let held = state.held.entry(record.id.clone()).or_default();
        held.retain(|(who, at)| now.duration_since(*at) < HELD && who != by && !done.contains(who.as_str()));
        if done.len() + held.len() >= overlap {
            if held.is_empty() {
                state.held.remove(&record.id);
            }
            return None;
        }
        held.push((by.to_owned(), now));
        Some(done.len())
    }

    fn skip(&self, by: String, id: String) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = state.held.get_mut(&id) {
            held.retain(|(who, _)| *who != by);
        }
        if state.skipped.len() >= SKIPPED {
            state.skipped.clear();
        }
        state.skipped.insert((by, id));
    }
}

fn read<T: DeserializeOwned>(body: Object) -> Result<T> {
    serde_json::from_value(body.fields.into()).map_err(|error| ApiError::field("body", "sound fields", error))
}

/// What is labelled is also read.
fn may_read(caller: &Caller) -> Result<()> {
    if caller.may(Scope::Read) {
        return Ok(());
    }
    let message = "needed a key with the scopes feedback and read, got one without read";
    Err(ApiError::new(StatusCode::FORBIDDEN, "missing_scope", message))
}

fn name(by: &str) -> Result<()> {
    if by.strip_prefix("user:").is_some_and(|name| !name.trim().is_empty()) {
        return Ok(());
    }
    Err(ApiError::field("by", "who labels, such as user:ann", format!("{by:?}")))
}

/// The next exchange for a person, newest first. It is held for ten minutes, so that no more people than wanted label
/// it at once.
#[utoipa::path(post, path = "/api/queue/next", tag = "labels", request_body = Ask,
    responses((status = 200, body = Given), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn next(
    State(app): State<App>,
    allowed: Allowed<Feedback>,
    body: Object,
) -> Result<Json<Given>> {
    may_read(&allowed.0)?;
    let Ask { by, overlap, before, q, model, tag, session, user, form, since, until } = read(body)?;
    name(&by)?;
    let overlap = match overlap.unwrap_or(1) {
        overlap @ 1..=100 => overlap as usize,
        other => return Err(ApiError::field("overlap", "a number from 1 to 100", other)),
    };
    let filter = Filter { q, model, tag, session, user, by: None, form, since, until, before, limit: None };
    let mut query = filter.query(PAGE)?;
    for _ in 0..ROUND / PAGE {
        let page = app.store.search(query.clone()).await?;
        for record in &page.hits {
            if let Some(people) = app.holds.take(record, &by, overlap) {
                return Ok(Json(Given { item: Some(Exchange::from(record)), people, cursor: query.before }));
            }
        }
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    Ok(Json(Given { item: None, people: 0, cursor: query.before }))
}

/// Leaves an exchange out for a person.
#[utoipa::path(post, path = "/api/queue/skip", tag = "labels", request_body = Skip,
    responses((status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn skip(State(app): State<App>, _: Allowed<Feedback>, body: Object) -> Result<StatusCode> {
    let Skip { by, id } = read(body)?;
    name(&by)?;
    if id.is_empty() || by.len() + id.len() > 1000 {
        return Err(ApiError::field("id", "the id of an exchange", format!("{} bytes", id.len())));
    }
    app.holds.skip(by, id);
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes feedback by the keys that it was sent under, which only its sender knows.
#[utoipa::path(post, path = "/api/queue/undo", tag = "labels", request_body = Undo,
    responses((status = 200, body = Undone), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
        (status = 429, body = ErrorBody)))]
pub(crate) async fn undo(State(app): State<App>, _: Allowed<Feedback>, body: Object) -> Result<Json<Undone>> {
    let Undo { keys } = read(body)?;
    if keys.is_empty() || keys.len() > 1000 {
        return Err(ApiError::field("keys", "1 to 1000 keys", format!("{}", keys.len())));
    }
    Ok(Json(Undone { deleted: app.store.unsay(keys).await? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(feedback: &str) -> Record {
        let text = format!(
            r#"{{"id":"r","prompt":"p","responses":[{{"id":"a","content":"x"}}],"feedback":[{feedback}],"user":"user:shown"}}"#
        );
        Record::from_json(text.as_bytes()).expect("a record")
    }

    #[test]
    fn as_many_people_as_wanted() {
        let queue = Holds::default();
        let fresh = record("");
        assert_eq!(queue.take(&fresh, "user:a", 2), Some(0));
        // Asked again, as after a reload, the same person has it still.
        assert_eq!(queue.take(&fresh, "user:a", 2), Some(0));
        assert_eq!(queue.take(&fresh, "user:b", 2), Some(0));
        assert_eq!(queue.take(&fresh, "user:c", 2), None);
        queue.skip("user:a".into(), "r".into());
        assert_eq!(queue.take(&fresh, "user:a", 2), None);
        assert_eq!(queue.take(&fresh, "user:c", 2), Some(0));
    }

    #[test]
    fn who_counts() {
        let thumb = |by: &str| format!(r#"{{"form":"thumb","on":"a","value":true,"by":"{by}"}}"#);
        let all = [thumb("user:a"), thumb("user:shown"), thumb("model:m"), thumb("user:a")].join(",");
        let done = record(&all);
        assert_eq!(people(&done).into_iter().collect::<Vec<_>>(), ["user:a"]);
        assert_eq!(Holds::default().take(&done, "user:a", 9), None);
        assert_eq!(Holds::default().take(&done, "user:b", 1), None);
        assert_eq!(Holds::default().take(&done, "user:b", 2), Some(1));
    }
}
