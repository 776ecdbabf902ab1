//! A foreign row: fields taken out by name, types read leniently, the rest kept.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Fault;
use crate::record::{Content, Message, Prompt, kind_of};

/// An object from a file of another tool. CSV has only text, so numbers and truths are also read from text.
pub(crate) struct Row(pub Map<String, Value>);

impl Row {
    /// A field of this name that is not null.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !value.is_null())
    }

    /// Takes a field out; null counts as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub fn need(&mut self, name: &str, needed: &str) -> Result<Value, Fault> {
        self.take(name).ok_or_else(|| Fault::new(name, needed, "nothing"))
    }

    /// Text; a number or truth counts as its text.
    pub fn text(&mut self, name: &str) -> Result<String, Fault> {
        let value = self.need(name, "text")?;
        as_text(value).map_err(|got| Fault::new(name, "text", got))
    }

    /// Text, where there is any.
    pub fn maybe_text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        self.take(name).map(|value| as_text(value).map_err(|got| Fault::new(name, "text", got))).transpose()
    }

    /// A truth: `true`, 1, `"True"`, `"yes"`, ….
    pub fn boolean(&mut self, name: &str) -> Result<bool, Fault> {
        let value = self.need(name, "true or false")?;
        as_bool(&value).ok_or_else(|| Fault::new(name, "true or false", value.to_string()))
    }

    /// A finite number.
    pub fn number(&mut self, name: &str) -> Result<f64, Fault> {
        let value = self.need(name, "a number")?;
        as_number(&value).ok_or_else(|| Fault::new(name, "a number", value.to_string()))
    }

    /// A list.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value>, Fault> {
        match self.need(name, "a list")? {
            Value::Array(items) => Ok(items),
            other => Err(Fault::new(name, "a list", kind_of(&other))),
        }
    }

    /// An object.
    pub fn object(&mut self, name: &str) -> Result<Row, Fault> {
        match self.need(name, "an object")? {
            Value::Object(object) => Ok(Row(object)),
            other => Err(Fault::new(name, "an object", kind_of(&other))),
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let items = self.list(name)?.into_iter().enumerate();
        items
            .map(|(index, item)| {
                as_text(item).map_err(|got| Fault::new(format!("{name}[{index}]"), "text", got))
            })
            .collect()
    }

    /// A prompt: text or messages.
    pub fn prompt(&mut self, name: &str) -> Result<Prompt, Fault> {
        let value = self.need(name, "text or a list of messages")?;
        Prompt::deserialize(&value).map_err(|_| bad_messages(name, &value))
    }

    /// A list of messages.
    pub fn messages(&mut self, name: &str) -> Result<Vec<Message>, Fault> {
        let value = self.need(name, "a list of messages")?;
        match Prompt::deserialize(&value) {
            Ok(Prompt::Messages(messages)) => Ok(messages),
            _ => Err(bad_messages(name, &value)),
        }
    }

    /// An answer: text, or messages, of which a single plain one is its text.
    pub fn content(&mut self, name: &str) -> Result<Content, Fault> {
        let value = self.need(name, "text or a list of messages")?;
        match Content::deserialize(&value) {
            Ok(Content::Turns(messages)) => Ok(answer(messages)),
            Ok(Content::Null | Content::Parts(_)) | Err(_) => Err(bad_messages(name, &value)),
            Ok(text) => Ok(text),
        }
    }

    /// The id column as text, where there is one.
    pub fn id(&mut self) -> Option<String> {
        match self.0.get("id") {
            Some(Value::String(text)) if !text.trim().is_empty() => {}
            Some(Value::Number(_)) => {}
            _ => return None,
        }
        self.take("id").and_then(|value| as_text(value).ok())
    }
}

/// A single plain assistant message is its text; anything more stays as messages.
pub(crate) fn answer(messages: Vec<Message>) -> Content {
    match <[Message; 1]>::try_from(messages) {
        Ok([Message { role, content: Some(Content::Text(text)), extra }])
            if role == "assistant" && extra.is_empty() =>
        {
            Content::Text(text)
        }
        Ok([only]) => Content::Turns(vec![only]),
        Err(several) => Content::Turns(several),
    }
}

/// An answer as the list of messages that [`answer`] reads back.
pub(crate) fn answer_messages(content: &Content) -> Vec<Message> {
    match content {
        Content::Turns(messages) => messages.clone(),
        other => vec![Message { role: "assistant".into(), content: Some(other.clone()), extra: Map::new() }],
    }
}

/// Splits a conversation where the answer begins: after the last message that the model did not write.
pub(crate) fn split_conversation(mut messages: Vec<Message>) -> (Vec<Message>, Vec<Message>) {
    let start = messages.iter().rposition(|message| !matches!(message.role.as_str(), "assistant" | "tool"));
    let answer = messages.split_off(start.map_or(0, |at| at + 1));
    (messages, answer)
}

pub(crate) fn as_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        other => Err(kind_of(&other).to_owned()),
    }
}

pub(crate) fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "1.0" | "yes" | "y" | "good" | "up" => Some(true),
            "false" | "0" | "0.0" | "no" | "n" | "bad" | "down" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

pub(crate) fn as_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number: &f64| number.is_finite())
}

/// A number as JSON: whole ones without a point.
pub(crate) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
        (value as i64).into()
    } else {
        value.into()
    }
}

/// Which message of a list is not one.
fn bad_messages(name: &str, value: &Value) -> Fault {
    let Value::Array(items) = value else {
        return Fault::new(name, "text or a list of messages", kind_of(value));
    };
    for (index, item) in items.iter().enumerate() {
        let field = format!("{name}[{index}]");
        let Value::Object(message) = item else {
            return Fault::new(field, "a message", kind_of(item));
        };
        match message.get("role") {
            Some(Value::String(_)) => {}
            Some(other) => return Fault::new(field + ".role", "text", kind_of(other)),
            None => return Fault::new(field + ".role", "a role", "nothing"),
        }
        if let Some(content @ (Value::Bool(_) | Value::Number(_) | Value::Object(_))) = message.get("content")
        {
            return Fault::new(field + ".content", "text or parts", kind_of(content));
        }
    }
    Fault::new(name, "text or a list of messages", "a list of something else")
}
