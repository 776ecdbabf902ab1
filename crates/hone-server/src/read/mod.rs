//! What was stored, as the pages show it: exchanges as plain text with their steps, the queue of labels, agreement,
//! curves of runs. One file per resource.

mod agreement;
mod events;
mod exchanges;
mod queue;
mod runs;

pub(crate) use queue::Holds;

use hone_feedback::{Content, Message, Prompt, Record, Response};
use hone_store::Query;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{ApiError, Result};

/// The routes of this folder.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(exchanges::list))
        .routes(routes!(exchanges::one))
        .routes(routes!(queue::next))
        .routes(routes!(queue::skip))
        .routes(routes!(queue::undo))
        .routes(routes!(agreement::agreement))
        .routes(routes!(runs::list))
        .routes(routes!(runs::one))
}

/// Which exchanges; every condition must hold.
#[derive(Debug, Clone, Default, Deserialize, IntoParams, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Words, `"phrases"` and `beginnings*`, all in the exchange's text, or all in one item of feedback on it.
    q: Option<String>,
    /// The model of an answer.
    model: Option<String>,
    /// A tag.
    tag: Option<String>,
    /// The session.
    session: Option<String>,
    /// Whom it was shown to.
    user: Option<String>,
    /// Who said something about it.
    by: Option<String>,
    /// A form of feedback that it has.
    form: Option<String>,
    /// From this day or time (RFC 3339; a day is UTC).
    since: Option<String>,
    /// Before this day or time.
    until: Option<String>,
    /// Go on after a page: its `next`.
    before: Option<i64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

impl Filter {
    fn query(&self, usual: usize) -> Result<Query> {
        let form = match self.form.as_deref().filter(|form| !form.is_empty()) {
            None => None,
            Some(name) => Some(crate::log::form(name)?),
        };
        let limit = match self.limit {
            None => usual,
            Some(limit @ 1..=200) => limit as usize,
            Some(limit) => return Err(ApiError::field("limit", "a number from 1 to 200", limit)),
        };
        let some = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        Ok(Query {
            text: some(&self.q),
            model: some(&self.model),
            tag: some(&self.tag),
            session: some(&self.session),
            user: some(&self.user),
            by: some(&self.by),
            form,
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            // Numbers of exchanges beyond this do not occur.
            before: self.before.map(|before| before.clamp(0, 1 << 40)),
            limit,
        })
    }
}

/// A day or a time, in milliseconds since 1970.
fn time(field: &str, text: &Option<String>) -> Result<Option<i64>> {
    let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at.as_millisecond()));
    }
    let day = text.parse::<Date>().ok().filter(|_| text.len() == 10);
    let at = day.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok());
    match at {
        Some(at) => Ok(Some(at.timestamp().as_millisecond())),
        None => Err(ApiError::field(
            field,
            "a day or time such as 2026-05-01 or 2026-05-01T10:00:00Z",
            format!("{text:?}"),
        )),
    }
}

/// An exchange: what was asked, answered and said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exchange {
    /// Names it.
    id: String,
    /// When it was, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    /// Whom it was shown to.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Its tags.
    tags: Vec<String>,
    /// What was asked.
    prompt: Vec<Turn>,
    /// The answers.
    responses: Vec<Answer>,
    /// What was said about them, as `POST /v1/feedback` takes it.
    #[schema(value_type = Vec<Object>)]
    feedback: Vec<Value>,
}

/// A message as plain text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Turn {
    role: String,
    text: String,
}

/// An answer as plain text: the text that offsets of spans count in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Answer {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    text: String,
    /// Its steps, which marks of steps count from 0.
    steps: Vec<String>,
    /// What else is known: tokens, milliseconds.
    #[schema(value_type = Object)]
    extra: Map<String, Value>,
}

impl From<&Record> for Exchange {
    fn from(record: &Record) -> Self {
        let extra = |name: &str| record.extra.get(name).and_then(Value::as_str).map(str::to_owned);
        let tags = record.extra.get("tags").and_then(Value::as_array).into_iter().flatten();
        let prompt = match &record.prompt {
            Prompt::Messages(messages) => messages.iter().map(Turn::from).collect(),
            other if other.is_empty() => Vec::new(),
            other => vec![Turn { role: "user".into(), text: other.text().into_owned() }],
        };
        Exchange {
            id: record.id.clone(),
            at: extra("at"),
            user: extra("user"),
            session: extra("session"),
            tags: tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
            prompt,
            responses: record.responses.iter().map(Answer::from).collect(),
            feedback: record
                .feedback
                .iter()
                .map(|item| serde_json::to_value(item).unwrap_or_default())
                .collect(),
        }
    }
}

impl From<&Message> for Turn {
    fn from(message: &Message) -> Self {
        let mut text = message.text().into_owned();
        // A call of a tool has no words of its own.
        if text.is_empty() && !message.extra.is_empty() {
            text = serde_json::to_string_pretty(&message.extra).unwrap_or_default();
        }
        Turn { role: message.role.clone(), text }
    }
}

impl From<&Response> for Answer {
    fn from(response: &Response) -> Self {
        let mut text = response.content.text().into_owned();
        let steps = response.steps().into_iter().map(std::borrow::Cow::into_owned).collect();
        if let (true, Content::Turns(turns)) = (text.trim().is_empty(), &response.content) {
            text = turns.iter().map(|turn| Turn::from(turn).text).collect::<Vec<_>>().join("\n");
        }
        Answer {
            id: response.id.clone(),
            model: response.model.clone(),
            text,
            steps,
            extra: response.extra.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times() {
        let at = |text: &str| time("since", &Some(text.into()));
        // 2026-05-01 is day 20,574 of 86,400,000 ms.
        assert_eq!(at("2026-05-01"), Ok(Some(20_574 * 86_400_000)));
        assert_eq!(at("2026-05-01T00:00:01Z"), Ok(Some(20_574 * 86_400_000 + 1000)));
        assert_eq!(at(""), Ok(None));
        let wrong = at("yesterday").expect_err("no day").message;
        assert!(wrong.starts_with("since: needed a day or time"), "{wrong}");
    }

    #[test]
    fn filters_are_looked_at() {
        let filter = Filter { form: Some("thumbs".into()), ..Filter::default() };
        assert!(filter.query(10).is_err());
        let filter = Filter { limit: Some(0), ..Filter::default() };
        assert!(filter.query(10).is_err());
        let filter = Filter { q: Some("  ".into()), ..Filter::default() };
        assert_eq!(filter.query(10), Ok(Query { limit: 10, ..Query::default() }));
    }
}
