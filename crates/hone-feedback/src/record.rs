//! One record: a prompt, its responses, and what was said about them.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::feedback::Feedback;

/// One prompt, its responses, and all feedback on them. One line of a Hone log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Names the record within its log. Readers of formats without ids give `#` and the line.
    pub id: String,
    /// What the model was given.
    pub prompt: Prompt,
    /// What was answered. May be empty where the feedback needs no answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Response>,
    /// What was said about the answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub feedback: Vec<Feedback>,
    /// The part of the data the record belongs to (`train`, `test`), where the log says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Fields that Hone does not know, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What the model was given: chat messages, or raw text to continue without a template.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prompt {
    /// Raw text. The response continues it.
    Text(String),
    /// Chat messages, rendered by the model's template.
    Messages(Vec<Message>),
}

/// One chat message. Tool calls, names and whatever else it carries stay in `extra`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or what the template knows.
    pub role: String,
    /// The text, or its parts. Absent where only tools are called.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub content: Option<Content>,
    /// Fields that Hone does not interpret (`tool_calls`, `name`, `weight`, `thinking`).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A message's or a response's content.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Several messages: an answer that calls tools, or takes several turns.
    Turns(Vec<Message>),
    /// Typed parts (text, images) as the OpenAI API has them.
    Parts(Vec<Value>),
    /// An explicit `null`, as in messages that only call tools.
    Null,
}

/// One answer to the record's prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Names the response within its record; feedback refers to it.
    pub id: String,
    /// What was answered.
    pub content: Content,
    /// The model or person that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The steps of the answer where the source lists them; `step` feedback counts them from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<String>>,
    /// Fields that Hone does not know, kept as they came.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Record {
    /// A record without responses and feedback.
    pub fn new(id: impl Into<String>, prompt: impl Into<Prompt>) -> Self {
        Record {
            id: id.into(),
            prompt: prompt.into(),
            responses: Vec::new(),
            feedback: Vec::new(),
            split: None,
            extra: Map::new(),
        }
    }

    /// The same record with one more response.
    #[must_use]
    pub fn respond(mut self, id: impl Into<String>, content: impl Into<Content>) -> Self {
        self.responses.push(Response::new(id, content));
        self
    }

    /// The same record with one more item of feedback.
    #[must_use]
    pub fn say(mut self, feedback: impl Into<Feedback>) -> Self {
        self.feedback.push(feedback.into());
        self
    }

    /// The response called `id`.
    pub fn response(&self, id: &str) -> Option<&Response> {
        self.responses.iter().find(|response| response.id == id)
    }

    /// Parses one line of a Hone log.
    ///
    /// # Errors
    /// The field that is not as it must be. Soundness across fields is [`Record::validate`]'s to judge.
    pub fn from_json(line: &[u8]) -> Result<Self, Fault> {
        // The fast path parses straight into the record; only a bad line is parsed again to say what is wrong.
        // Looked at as a whole, its texts need not be looked at again one by one.
        let text = std::str::from_utf8(line).map_err(|_| explain(line))?;
        serde_json::from_str(text).map_err(|_| explain(line))
    }

    /// A record from a parsed JSON object.
    ///
    /// # Errors
    /// As [`Record::from_json`].
    pub fn from_object(object: Map<String, Value>) -> Result<Self, Fault> {
        let value = Value::Object(object);
        Record::deserialize(&value).map_err(|_| explain_value(&value))
    }

    /// The record as one line of a Hone log, without the line end.
    pub fn to_json(&self) -> String {
        // Every key is text and every value JSON, so serde_json has nothing to refuse.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Prompt {
    /// No text and no message.
    pub fn is_empty(&self) -> bool {
        match self {
            Prompt::Text(text) => text.is_empty(),
            Prompt::Messages(messages) => messages.is_empty(),
        }
    }

    /// All text of the prompt; messages are joined by line ends, roles left out.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Prompt::Text(text) => Cow::Borrowed(text),
            Prompt::Messages(messages) => join_messages(messages),
        }
    }

    /// The text of the last user message, or the whole of a raw prompt.
    pub fn last_user(&self) -> Option<Cow<'_, str>> {
        match self {
            Prompt::Text(text) => Some(Cow::Borrowed(text)),
            Prompt::Messages(messages) => messages.iter().rev().find(|m| m.role == "user").map(Message::text),
        }
    }
}

impl Message {
    /// A message of plain text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Message { role: role.into(), content: Some(Content::Text(content.into())), extra: Map::new() }
    }

    /// The message's text; empty where it only calls tools.
    pub fn text(&self) -> Cow<'_, str> {
        self.content.as_ref().map_or(Cow::Borrowed(""), Content::text)
    }
}

impl Content {
    /// All text in it. Messages and parts are joined by line ends; images and tool calls have none.
    ///
    /// Offsets of spans count the Unicode scalar values of this text.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Content::Text(text) => Cow::Borrowed(text),
            Content::Turns(messages) => join_messages(messages),
            Content::Parts(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
                Cow::Owned(texts.join("\n"))
            }
            Content::Null => Cow::Borrowed(""),
        }
    }
}

impl Response {
    /// A response of unknown origin.
    pub fn new(id: impl Into<String>, content: impl Into<Content>) -> Self {
        Response { id: id.into(), content: content.into(), model: None, steps: None, extra: Map::new() }
    }

    /// The steps of the answer: those the source lists, else its paragraphs, else its lines.
    pub fn steps(&self) -> Vec<Cow<'_, str>> {
        if let Some(steps) = &self.steps {
            return steps.iter().map(|step| Cow::Borrowed(step.as_str())).collect();
        }
        match self.content.text() {
            Cow::Borrowed(text) => split_steps(text).into_iter().map(Cow::Borrowed).collect(),
            Cow::Owned(text) => {
                split_steps(&text).into_iter().map(|step| Cow::Owned(step.to_owned())).collect()
            }
        }
    }
}

/// Paragraphs where there is a blank line, else lines; empty ones are left out.
fn split_steps(text: &str) -> Vec<&str> {
    let separator = if text.trim().contains("\n\n") { "\n\n" } else { "\n" };
    text.split(separator).map(str::trim).filter(|step| !step.is_empty()).collect()
}

fn join_messages(messages: &[Message]) -> Cow<'_, str> {
    match messages {
        [only] => only.text(),
        _ => Cow::Owned(messages.iter().map(Message::text).collect::<Vec<_>>().join("\n")),
    }
}

impl From<Vec<Message>> for Prompt {
    fn from(messages: Vec<Message>) -> Self {
        Prompt::Messages(messages)
    }
}

/// One user message.
impl From<&str> for Prompt {
    fn from(text: &str) -> Self {
        Prompt::Messages(vec![Message::new("user", text)])
    }
}

/// One user message.
impl From<String> for Prompt {
    fn from(text: String) -> Self {
        Prompt::Messages(vec![Message::new("user", text)])
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::Text(text)
    }
}

/// Keeps an explicit `null` apart from an absent field.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Content>, D::Error> {
    Content::deserialize(deserializer).map(Some)
}

// Written by hand because serde's untagged enums first copy everything into a buffer.
impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Prompt;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of messages")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Text(text.to_owned()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Prompt, E> {
                Ok(Prompt::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Prompt, A::Error> {
                Vec::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Prompt::Messages)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a list of messages or a list of parts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Content, A::Error> {
                let parts: Vec<Value> = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
                if !parts.is_empty() && parts.iter().all(|part| part.get("role").is_some()) {
                    let messages: Result<Vec<Message>, _> = parts.iter().map(Message::deserialize).collect();
                    return messages.map(Content::Turns).map_err(de::Error::custom);
                }
                if let Some(other) = parts.iter().find(|part| !part.is_object()) {
                    let got = format!("a list holding {}", kind_of(other));
                    return Err(de::Error::invalid_value(de::Unexpected::Other(&got), &self));
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// What a JSON value is, for messages: `a number`, `text`, …
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Says what is wrong with a line that [`Record`] refused.
fn explain(line: &[u8]) -> Fault {
    let syntax = match serde_json::from_slice::<Value>(line) {
        Ok(value @ Value::Object(_)) => {
            let mut parser = serde_json::Deserializer::from_slice(line);
            // Keys given twice survive only in the text: parsed as a value, the last one wins.
            return match serde_path_to_error::deserialize::<_, Record>(&mut parser) {
                Err(error) if error.to_string().contains("duplicate field") => from_serde(&error),
                _ => explain_value(&value),
            };
        }
        Ok(other) => return Fault::new("", "a JSON object", kind_of(&other)),
        Err(error) => error,
    };
    if std::str::from_utf8(line).is_err() {
        return Fault::new("", "UTF-8 text", "bytes that are not UTF-8");
    }
    Fault::new("", "a whole JSON object", syntax.to_string())
}

fn explain_value(value: &Value) -> Fault {
    let Err(error) = serde_path_to_error::deserialize::<_, Record>(value) else {
        return Fault::new("", "a record", "an object with a key given twice");
    };
    // Feedback is read from a map of its own, whose faults name the field within it.
    if let Some(items) = value.get("feedback").and_then(Value::as_array) {
        for (index, item) in items.iter().enumerate() {
            if let Value::Object(item) = item
                && error.path().to_string() == format!("feedback[{index}]")
                && let Err(fault) = Feedback::from_object(item.clone())
            {
                return fault.under(&format!("feedback[{index}]"));
            }
        }
    }
    from_serde(&error)
}

/// Turns serde's wording into needed and got.
fn from_serde<E: fmt::Display>(error: &serde_path_to_error::Error<E>) -> Fault {
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { path };
    let text = error.inner().to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    if let Some(name) = text.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return Fault::new(name, "a value", "nothing").under_if(&path);
    }
    if let Some(name) = text.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        return Fault::new(name, "one value", "the key twice").under_if(&path);
    }
    match text.split_once(", expected ") {
        Some((got, needed)) => {
            let got = got.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
            Fault::new(path, needed, got)
        }
        None => Fault::new(path, "a sound value", text),
    }
}

impl Fault {
    fn under_if(self, path: &str) -> Self {
        if path.is_empty() { self } else { self.under(path) }
    }
}
