//! A request and its answer as records of the log.

use hone_feedback::{Content, Message, Prompt, Record, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::call::{Call, Endpoint};

/// How an answer came.
pub(crate) struct Came<'a> {
    /// The name of the exchange: that of its first answer.
    pub id: &'a str,
    /// The backend.
    pub backend: &'a str,
    /// Milliseconds from the request to the end of the answer.
    pub latency_ms: f64,
    /// Milliseconds to its first piece, where it came in pieces.
    pub first_ms: Option<f64>,
    /// Who ended it early.
    pub cut: Option<&'static str>,
}

/// The id of the answer with an index.
pub(crate) fn answer_id(id: &str, index: usize) -> String {
    if index == 0 { id.to_owned() } else { format!("{id}.{index}") }
}

/// The records of a call: one, or one per prompt where a completion had several. `answer` is a whole answer of the
/// API, also where it came in pieces.
pub(crate) fn records(call: &Call, answer: &Value, came: &Came) -> Vec<Record> {
    let prompts = prompts(call);
    let choices = answer.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    // Choices of a prompt stand together, `n` of them. Of one prompt all are its own.
    let n = call.fields.get("n").and_then(Value::as_u64).map_or(1, |n| n.max(1) as usize);
    let each = if prompts.len() == 1 { usize::MAX } else { n };
    let model = answer.get("model").and_then(Value::as_str).unwrap_or(&call.model);
    let mut out: Vec<Record> = Vec::with_capacity(prompts.len());
    for (number, prompt) in prompts.into_iter().enumerate() {
        let mut record = Record::new(answer_id(came.id, number.saturating_mul(each)), prompt);
        record.extra = about(call, came);
        out.push(record);
    }
    for (place, choice) in choices.iter().enumerate() {
        let index = choice.get("index").and_then(Value::as_u64).map_or(place, |index| index as usize);
        let Some(record) = out.get_mut(index / each) else { continue };
        let mut response = response(answer_id(came.id, index), choice);
        response.model = Some(model.to_owned());
        if index == 0
            && let Some(usage) = answer.get("usage").filter(|usage| usage.is_object())
        {
            // Counted once: it is that of all choices together.
            response.extra.insert("usage".into(), usage.clone());
        }
        response.extra.insert("latency_ms".into(), rounded(came.latency_ms));
        record.responses.push(response);
    }
    out.iter_mut().for_each(make_sound);
    out
}

/// Thousandths of a millisecond are enough.
fn rounded(ms: f64) -> Value {
    json!((ms * 1e3).round() / 1e3)
}

fn prompts(call: &Call) -> Vec<Prompt> {
    let asked = call.fields.get(call.endpoint.asks()).unwrap_or(&Value::Null);
    match (call.endpoint, asked) {
        (Endpoint::Chat, asked) => match Vec::<Message>::deserialize(asked) {
            Ok(messages) => vec![Prompt::Messages(messages)],
            Err(_) => vec![Prompt::Text(asked.to_string())],
        },
        (_, Value::String(text)) => vec![Prompt::Text(text.clone())],
        // A list of texts, or of lists of tokens, has several prompts; a list of tokens is one.
        (_, Value::Array(items)) if items.iter().all(|item| item.is_string() || item.is_array()) => {
            let text = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
            items.iter().map(|item| Prompt::Text(text(item))).collect()
        }
        (_, other) => vec![Prompt::Text(other.to_string())],
    }
}

/// What is kept of the request beside the prompt.
fn about(call: &Call, came: &Came) -> Map<String, Value> {
    let mut extra = Map::new();
    extra.insert("at".into(), call.at.to_string().into());
    for (name, value) in [("user", &call.user), ("session", &call.session)] {
        if let Some(value) = value {
            extra.insert(name.into(), value.clone().into());
        }
    }
    if !call.tags.is_empty() {
        extra.insert("tags".into(), call.tags.clone().into());
    }
    extra.insert("endpoint".into(), call.endpoint.path().into());
    extra.insert("backend".into(), came.backend.into());
    let request = call.fields.iter().filter(|(name, _)| *name != call.endpoint.asks());
    let request: Map<String, Value> = request.map(|(name, value)| (name.clone(), value.clone())).collect();
    extra.insert("request".into(), request.into());
    if let Some(first) = came.first_ms {
        extra.insert("first_ms".into(), rounded(first));
    }
    if let Some(cut) = came.cut {
        extra.insert("cut".into(), cut.into());
    }
    extra
}

fn response(id: String, choice: &Value) -> Response {
    let mut extra = Map::new();
    for name in ["finish_reason", "logprobs"] {
        if let Some(value) = choice.get(name).filter(|value| !value.is_null()) {
            extra.insert(name.into(), value.clone());
        }
    }
    let content = match choice.get("message") {
        Some(message) => content(message, &mut extra),
        None => Content::Text(choice.get("text").and_then(Value::as_str).unwrap_or_default().to_owned()),
    };
    Response { extra, ..Response::new(id, content) }
}

/// A message that only says something is its text; what else it carries is kept beside it. One that calls tools, or
/// says nothing, is kept as a message.
fn content(message: &Value, extra: &mut Map<String, Value>) -> Content {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    let carried = |name: &str| message.get(name).is_some_and(|value| !empty(value));
    let text = message.get("content").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
    match text {
        Some(text) if !carried("tool_calls") && !carried("function_call") => {
            for (name, value) in message.as_object().into_iter().flatten() {
                if !matches!(name.as_str(), "role" | "content") && !empty(value) {
                    extra.entry(name.clone()).or_insert_with(|| value.clone());
                }
            }
            Content::Text(text.to_owned())
        }
        _ => match Message::deserialize(message) {
            Ok(message) => Content::Turns(vec![message]),
            Err(_) => Content::Turns(vec![Message::new("assistant", message.to_string())]),
        },
    }
}

/// What the log would refuse is kept in a form that it takes: an exchange that happened is stored.
fn make_sound(record: &mut Record) {
    for response in &mut record.responses {
        if matches!(&response.content, Content::Text(text) if text.trim().is_empty()) {
            let text = response.content.text().into_owned();
            response.content = Content::Turns(vec![Message::new("assistant", text)]);
        }
    }
    if record.validate().iter().any(|fault| fault.field.starts_with("prompt"))
        && let Ok(text) = serde_json::to_string(&record.prompt)
    {
        record.prompt = Prompt::Text(text);
    }
    // Ids that several choices claim.
    let mut seen = std::collections::HashSet::new();
    record.responses.retain(|response| seen.insert(response.id.clone()));
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn call(endpoint: Endpoint, body: Value) -> Call {
        let Value::Object(fields) = body else { panic!("an object") };
        Call {
            endpoint,
            bytes: bytes::Bytes::new(),
            model: "m".into(),
            stream: false,
            user: Some("u".into()),
            session: None,
            tags: vec!["t".into()],
            passed_key: None,
            started: Instant::now(),
            at: jiff::Timestamp::UNIX_EPOCH,
            fields,
        }
    }

    fn came() -> Came<'static> {
        Came { id: "x", backend: "b", latency_ms: 1.23456, first_ms: None, cut: None }
    }

    #[test]
    fn a_chat_with_two_answers() {
        let call = call(
            Endpoint::Chat,
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "n": 2, "odd": {"z": 1}}),
        );
        let answer = json!({"model": "m-1", "usage": {"prompt_tokens": 3}, "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "A", "reasoning_content": "R", "refusal": null},
             "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": null, "tool_calls": [{"id": "t"}]}}]});
        let records = records(&call, &answer, &came());
        let expected = concat!(
            r#"{"id":"x","prompt":[{"role":"user","content":"hi"}],"responses":["#,
            r#"{"id":"x","content":"A","model":"m-1","finish_reason":"stop","reasoning_content":"R","#,
            r#""usage":{"prompt_tokens":3},"latency_ms":1.235},"#,
            r#"{"id":"x.1","content":[{"role":"assistant","content":null,"tool_calls":[{"id":"t"}]}],"#,
            r#""model":"m-1","latency_ms":1.235}],"#,
            r#""at":"1970-01-01T00:00:00Z","user":"u","tags":["t"],"endpoint":"chat/completions","backend":"b","#,
            r#""request":{"model":"m","n":2,"odd":{"z":1}}}"#,
        );
        assert_eq!(records.iter().map(Record::to_json).collect::<Vec<_>>(), [expected]);
        assert!(records[0].validate().is_empty());
    }

    #[test]
    fn several_prompts_are_several_records() {
        let call = call(Endpoint::Completions, json!({"model": "m", "prompt": ["a", "b"], "n": 2}));
        let choice = |index: usize, text: &str| json!({"index": index, "text": text});
        let answer = json!({"choices": [choice(2, "b0"), choice(0, "a0"), choice(1, " "), choice(3, "b1")]});
        let records = records(&call, &answer, &came());
        let ids: Vec<(&str, Vec<&str>)> = records
            .iter()
            .map(|record| (record.id.as_str(), record.responses.iter().map(|r| r.id.as_str()).collect()))
            .collect();
        assert_eq!(ids, [("x", vec!["x", "x.1"]), ("x.2", vec!["x.2", "x.3"])]);
        // An empty answer is a message that says nothing.
        assert!(matches!(records[0].responses[1].content, Content::Turns(_)));
        assert!(records.iter().all(|record| record.validate().is_empty()));
    }

    #[test]
    fn messages_that_the_log_would_refuse_are_kept_as_text() {
        let call = call(Endpoint::Chat, json!({"messages": [{"role": "", "content": "hi"}]}));
        let records = records(&call, &json!({"choices": []}), &came());
        assert!(records[0].validate().is_empty());
        assert!(records[0].prompt.text().contains("\"hi\""));
    }
}
