//! Records and feedback as rows: their canonical JSON, and beside it the few values that are looked for.

use hone_feedback::{Fault, Feedback, Form, Prompt, Record, Response};
use serde_json::{Map, Value as Json};

use crate::error::{Error, Result};

/// The longest id, key, name or tag, in bytes: what an index of Postgres holds in one entry, with room.
pub(crate) const LONGEST_NAME: usize = 512;

/// A record, taken apart.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub id: String,
    pub prompt: String,
    pub split: Option<String>,
    pub extra: String,
    /// Days since 1970-01-01, UTC.
    pub day: i64,
    /// Milliseconds since 1970-01-01, UTC.
    pub at: i64,
    /// Whom it was shown to.
    pub shown: Option<String>,
    pub session: Option<String>,
    pub tags: Vec<String>,
    pub responses: Vec<Answer>,
    pub feedback: Vec<Item>,
    pub record: Record,
}

/// A response, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub id: String,
    pub body: String,
    pub model: Option<String>,
    pub prompt_tokens: Option<i64>,
    pub completion_tokens: Option<i64>,
    pub latency_ms: Option<f64>,
}

/// Feedback, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub body: String,
    /// The form, and of events which: `thumb`, `event:copied`.
    pub what: String,
    pub form: &'static str,
    pub person: Option<String>,
    /// The model of the response it is about.
    pub model: Option<String>,
    /// How good the response is by it, from 0 to 1, where the form says so.
    pub value: Option<f64>,
    pub day: i64,
}

impl Exchange {
    /// Takes a record apart.
    ///
    /// # Errors
    /// [`Error::Unsound`] with the first fault of the record.
    pub fn new(record: Record, now: i64) -> Result<Self> {
        let id = record.id.clone();
        let what = || format!("record {id:?}");
        if let Some(fault) = record.validate().into_iter().next() {
            return Err(Error::unsound(what(), fault));
        }
        name("id", &record.id).map_err(|fault| Error::unsound(what(), fault))?;
        for (index, response) in record.responses.iter().enumerate() {
            name(&format!("responses[{index}].id"), &response.id)
                .map_err(|fault| Error::unsound(what(), fault))?;
        }
        if record.split.as_ref().is_some_and(|split| split.contains('\0')) {
            return Err(Error::unsound(what(), Fault::new("split", "text without NUL", "NUL")));
        }
        let at = text_of(&record.extra, "at").and_then(millis).unwrap_or(now);
        let tags = match record.extra.get("tags") {
            Some(Json::Array(tags)) => tags.iter().filter_map(Json::as_str).filter_map(findable).collect(),
            _ => Vec::new(),
        };
        let mut exchange = Exchange {
            id: record.id.clone(),
            prompt: json(&record.prompt),
            split: record.split.clone(),
            extra: json(&record.extra),
            day: day(at),
            at,
            shown: text_of(&record.extra, "user").and_then(findable),
            session: text_of(&record.extra, "session").and_then(findable),
            tags,
            responses: record.responses.iter().map(Answer::new).collect(),
            feedback: Vec::with_capacity(record.feedback.len()),
            record,
        };
        exchange.tags.sort();
        exchange.tags.dedup();
        let record = &exchange.record;
        for (index, feedback) in record.feedback.iter().enumerate() {
            let model = named(&feedback.form).and_then(|id| record.response(id)?.model.as_deref());
            let item = Item::new(feedback, model, at)
                .map_err(|fault| Error::unsound(what(), fault.under(&format!("feedback[{index}]"))))?;
            exchange.feedback.push(item);
        }
        Ok(exchange)
    }
}

impl Answer {
    fn new(response: &Response) -> Self {
        let usage = response.extra.get("usage");
        let tokens = |name: &str| usage.and_then(|usage| usage.get(name)?.as_i64());
        Answer {
            id: response.id.clone(),
            body: json(response),
            model: response.model.as_deref().and_then(findable),
            prompt_tokens: tokens("prompt_tokens"),
            completion_tokens: tokens("completion_tokens"),
            latency_ms: response.extra.get("latency_ms").and_then(Json::as_f64),
        }
    }
}

impl Item {
    /// Takes feedback apart. `now` (ms) is its time where it has none.
    ///
    /// # Errors
    /// A name in it that is too long to be looked for.
    pub fn new(feedback: &Feedback, model: Option<&str>, now: i64) -> Result<Self, Fault> {
        if let Some(by) = &feedback.by {
            name("by", by)?;
        }
        let form = feedback.form.kind().name();
        Ok(Item {
            body: json(feedback),
            what: match &feedback.form {
                Form::Event { event, .. } => findable(&format!("event:{event}")).unwrap_or_default(),
                _ => form.to_owned(),
            },
            form,
            person: feedback.by.clone(),
            model: model.and_then(findable),
            value: value(&feedback.form),
            day: day(feedback.at.as_deref().and_then(millis).unwrap_or(now)),
        })
    }
}

/// How good the response is, from 0 to 1, by forms that say so of the whole response or of a step.
pub(crate) fn value(form: &Form) -> Option<f64> {
    let truth = |good: bool| Some(f64::from(u8::from(good)));
    match form {
        Form::Thumb { value, .. } => truth(*value),
        Form::Rating { value, scale: Some([low, high]), .. } if high > low => {
            Some((value - low) / (high - low))
        }
        Form::Outcome { passed, .. } => truth(*passed),
        Form::Step { correct, .. } => truth(*correct),
        _ => None,
    }
}

/// The response that counts as the one it is about: of a comparison the better one, of a ranking the first.
pub(crate) fn named(form: &Form) -> Option<&str> {
    match form {
        Form::Comparison { better, .. } => Some(better),
        Form::Ranking { order } => order.iter().flatten().next().map(String::as_str),
        other => other.on(),
    }
}

/// Every response that feedback names.
pub(crate) fn names(form: &Form) -> Vec<&str> {
    match form {
        Form::Comparison { better, worse } => vec![better, worse],
        Form::Ranking { order } => order.iter().flatten().map(String::as_str).collect(),
        other => other.on().into_iter().collect(),
    }
}

/// One line of a Hone log from stored pieces, as [`Record::to_json`] writes it, without the line end.
pub(crate) fn line(
    id: &str,
    prompt: &str,
    responses: &[String],
    feedback: &[String],
    split: Option<&str>,
    extra: &str,
) -> String {
    let size = responses.iter().chain(feedback).map(|piece| piece.len() + 1).sum::<usize>();
    let mut out = String::with_capacity(size + id.len() + prompt.len() + extra.len() + 64);
    out.push_str("{\"id\":");
    out.push_str(&json(id));
    out.push_str(",\"prompt\":");
    out.push_str(prompt);
    for (name, list) in [("responses", responses), ("feedback", feedback)] {
        if !list.is_empty() {
            out.push_str(&format!(",\"{name}\":["));
            out.push_str(&list.join(","));
            out.push(']');
        }
    }
    if let Some(split) = split {
        out.push_str(",\"split\":");
        out.push_str(&json(split));
    }
    match extra.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some("") | None => {}
        Some(fields) => {
            out.push(',');
            out.push_str(fields);
        }
    }
    out.push('}');
    out
}

/// The words of a record's prompt and responses, for the full-text index.
pub(crate) fn text(prompt: &str, responses: &[String]) -> String {
    let mut out = match serde_json::from_str::<Prompt>(prompt) {
        Ok(prompt) => prompt.text().into_owned(),
        Err(_) => String::new(),
    };
    for response in responses {
        if let Ok(response) = serde_json::from_str::<Response>(response) {
            out.push('\n');
            out.push_str(&response.content.text());
        }
    }
    out
}

/// The words that somebody said, for the full-text index; None where there are none.
pub(crate) fn said(body: &str) -> Option<String> {
    let feedback: Feedback = serde_json::from_str(body).ok()?;
    let mut words = feedback.words().unwrap_or_default().to_owned();
    if let Form::Edit { content, .. } = &feedback.form {
        words.push('\n');
        words.push_str(&content.text());
    }
    (!words.trim().is_empty()).then_some(words)
}

/// Feedback from its stored JSON.
pub(crate) fn feedback(body: &str) -> Result<Feedback, Fault> {
    match serde_json::from_str(body) {
        Ok(object) => Feedback::from_object(object),
        Err(error) => Err(Fault::new("", "a JSON object", error.to_string())),
    }
}

/// Anything as JSON text. Every key is text and every value JSON, so there is nothing to refuse.
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A name that is stored to be looked for.
pub(crate) fn name(field: &str, text: &str) -> Result<(), Fault> {
    if text.len() > LONGEST_NAME {
        Err(Fault::new(field, format!("at most {LONGEST_NAME} bytes"), format!("{} bytes", text.len())))
    } else if text.contains('\0') {
        // Postgres holds every character but this one.
        Err(Fault::new(field, "text without NUL", format!("{text:?}")))
    } else {
        Ok(())
    }
}

/// A value beside the JSON: what is too long to be looked for is not.
fn findable(text: &str) -> Option<String> {
    (!text.is_empty() && name("", text).is_ok()).then(|| text.to_owned())
}

fn text_of<'a>(extra: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    extra.get(key).and_then(Json::as_str)
}

/// Milliseconds since 1970 of a time as logs write it: RFC 3339, or without a zone (UTC), or a date alone.
pub(crate) fn millis(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(time.as_millisecond());
    }
    let time = match text.parse::<jiff::civil::DateTime>() {
        Ok(time) => time,
        Err(_) => text.parse::<jiff::civil::Date>().ok()?.at(0, 0, 0, 0),
    };
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
}

/// Now, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A time in milliseconds as RFC 3339.
pub(crate) fn rfc3339(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// Days since 1970.
pub(crate) fn day(ms: i64) -> i64 {
    ms.div_euclid(86_400_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_from_pieces_is_the_line_of_the_record() {
        let lines = [
            r#"{"id":"r\"1","prompt":[{"role":"user","content":"hé\u0000"}],"responses":[{"id":"a","content":"x","model":"m","n":1.50}],"feedback":[{"form":"thumb","on":"a","value":true,"odd":{"z":1,"a":2}}],"split":"train","tags":["t"],"at":"2026-05-01"}"#,
            r#"{"id":"2","prompt":"raw"}"#,
            r#"{"id":"3","prompt":[],"feedback":[{"form":"rule","text":"be brief"}],"x":null}"#,
        ];
        for text in lines {
            let record = Record::from_json(text.as_bytes()).expect(text);
            let parts = Exchange::new(record.clone(), 0).expect(text);
            let pieces = |list: Vec<&String>| list.into_iter().cloned().collect::<Vec<_>>();
            let again = line(
                &parts.id,
                &parts.prompt,
                &pieces(parts.responses.iter().map(|r| &r.body).collect()),
                &pieces(parts.feedback.iter().map(|f| &f.body).collect()),
                parts.split.as_deref(),
                &parts.extra,
            );
            assert_eq!(again, record.to_json());
            assert_eq!(Record::from_json(again.as_bytes()).expect("sound").to_json(), again);
        }
    }

    #[test]
    fn times() {
        // 2026-05-01 is day 20,574: 56 years of 365 days, 14 leap days, and 31 + 28 + 31 + 30 days.
        let midnight = (56 * 365 + 14 + 31 + 28 + 31 + 30) * 86_400_000;
        for (text, expected) in [
            ("2026-05-01", midnight),
            ("2026-05-01T10:00:00Z", midnight + 36_000_000),
            ("2026-05-01 10:00:00.123+02:00", midnight + 28_800_123),
            ("2026-05-01T10:00", midnight + 36_000_000),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        assert_eq!(millis("yesterday"), None);
        assert_eq!(day(-1), -1);
    }

    #[test]
    fn names_that_no_index_holds_are_refused() {
        let long = Record::new("x".repeat(513), "hello");
        let error = Exchange::new(long, 0).expect_err("too long").to_string();
        assert!(error.ends_with("id: needed at most 512 bytes, got 513 bytes"), "{error}");
        let by = Feedback::from(Form::Thumb { on: "a".into(), value: true }).by("a\0b");
        let error =
            Exchange::new(Record::new("r", "p").respond("a", "x").say(by), 0).expect_err("NUL").to_string();
        assert!(error.contains("feedback[0].by: needed text without NUL"), "{error}");
    }
}
