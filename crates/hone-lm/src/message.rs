//! A message of a conversation, kept as it came.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// One message: `role`, `content`, and whatever else it carries (`tool_calls`, `reasoning_content`, `name`, …).
///
/// The fields keep their order, because a template may write a whole message as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message of text.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("role".into(), Value::String(role.into()));
        fields.insert("content".into(), Value::String(content.into()));
        Message(fields)
    }

    /// A message from its fields.
    ///
    /// # Errors
    /// Says what was needed where `role` is missing or no string.
    pub fn from_fields(fields: Map<String, Value>) -> Result<Self, &'static str> {
        match fields.get("role") {
            Some(Value::String(_)) => Ok(Message(fields)),
            Some(_) => Err("`role` to be a string"),
            None => Err("a `role`"),
        }
    }

    /// Who speaks: `system`, `user`, `assistant`, `tool`, ….
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The text: the content itself, or its text parts joined; empty where there is none.
    pub fn text(&self) -> String {
        match self.0.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => {
                parts.iter().filter_map(|p| p.get("text").and_then(Value::as_str)).collect()
            }
            _ => String::new(),
        }
    }

    /// Any field.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// The same message with a field set.
    pub fn with(mut self, field: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.insert(field.into(), value.into());
        self
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Message::from_fields(fields)
            .map_err(|needed| serde::de::Error::custom(format!("message needs {needed}")))
    }
}
