//! A request of the OpenAI API as one of the engine's.

use hone_lm::{Cancel, Constraint, GenerateRequest, Message, Prompt, Sampling};
use serde_json::{Map, Value, json};

use crate::body::kind;
use crate::error::ApiError;

use super::super::call::{Call, Endpoint};

/// Answers to a request at most.
const MOST: usize = 128;
/// What the API says of a completion that names no number of tokens.
const COMPLETION_TOKENS: usize = 16;

/// What the engine is asked.
pub(super) struct Asked {
    /// One per prompt, each for `n` answers.
    pub requests: Vec<GenerateRequest>,
    /// The prompts' texts, which stand before each answer where that is asked for.
    pub echo: Option<Vec<String>>,
    pub include_usage: bool,
    pub cancel: Cancel,
}

/// Texts to embed.
pub(super) struct Embed {
    pub texts: Vec<String>,
    pub base64: bool,
}

/// The fields of a request, read with errors that name them.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        name: &str,
        needed: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| ApiError::field(name, needed, kind(value))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f32>, ApiError> {
        self.read(name, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        self.read(name, "a whole number from 0", |value| usize::try_from(value.as_u64()?).ok())
    }

    fn truth(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.read(name, "true or false", Value::as_bool)
    }
}

impl Asked {
    /// Reads a call.
    ///
    /// # Errors
    /// The field that is not as it must be, or asks for what the engine does not do.
    pub fn parse(call: &Call) -> Result<Self, ApiError> {
        let fields = Fields(&call.fields);
        for name in ["tools", "functions", "audio", "modalities", "prediction", "suffix", "logit_bias"] {
            let empty = |value: &Value| match value {
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            };
            if let Some(value) = fields.get(name).filter(|value| !empty(value)) {
                let needed = "nothing, since the built-in engine does not do this";
                return Err(ApiError::field(name, needed, kind(value)));
            }
        }
        let stop = |value: &Value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let chat = call.endpoint == Endpoint::Chat;
        let max_tokens = fields.count("max_completion_tokens")?.or(fields.count("max_tokens")?);
        let sampling = Sampling {
            temperature: fields.number("temperature")?,
            top_p: fields.number("top_p")?,
            top_k: fields.count("top_k")?,
            min_p: fields.number("min_p")?,
            repetition_penalty: fields.number("repetition_penalty")?,
            frequency_penalty: fields.number("frequency_penalty")?,
            presence_penalty: fields.number("presence_penalty")?,
            seed: fields.read("seed", "a whole number", |value| {
                value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned))
            })?,
            stop: fields.read("stop", "text, or a list of texts", stop)?.unwrap_or_default(),
            max_tokens: max_tokens.or((!chat).then_some(COMPLETION_TOKENS)),
        };
        let n = fields.count("n")?.unwrap_or(1);
        // A completion asks for log-probabilities by the number of alternatives.
        let (logprobs, top) = match chat {
            true => (fields.truth("logprobs")?.unwrap_or(false), fields.count("top_logprobs")?.unwrap_or(0)),
            false => (fields.get("logprobs").is_some(), fields.count("logprobs")?.unwrap_or(0)),
        };
        if top > 20 {
            let name = if chat { "top_logprobs" } else { "logprobs" };
            return Err(ApiError::field(name, "at most 20", top));
        }
        let prompts = prompts(call)?;
        if n == 0 || n.saturating_mul(prompts.len()) > MOST {
            return Err(ApiError::field("n", &format!("from 1 to {MOST} answers in all"), n));
        }
        let echo = fields.truth("echo")?.unwrap_or(false) && !chat;
        let texts = prompts.iter().map(|prompt| match prompt {
            Prompt::Text(text) if !logprobs => Some(text.clone()),
            _ => None,
        });
        let echo = match echo {
            false => None,
            true => Some(texts.collect::<Option<Vec<_>>>().ok_or_else(|| {
                ApiError::field(
                    "echo",
                    "text and no logprobs, with the built-in engine",
                    "tokens or logprobs",
                )
            })?),
        };
        let constraint = constraint(&fields)?;
        let cancel = Cancel::new();
        let request = |prompt| GenerateRequest {
            sampling: sampling.clone(),
            n,
            logprobs,
            top_logprobs: top,
            constraint: constraint.clone(),
            stream: call.stream,
            cancel: cancel.clone(),
            ..GenerateRequest::new(prompt)
        };
        let include_usage =
            fields.get("stream_options").and_then(|options| options.get("include_usage")?.as_bool());
        Ok(Asked {
            requests: prompts.into_iter().map(request).collect(),
            echo,
            include_usage: include_usage.unwrap_or(false),
            cancel,
        })
    }

    /// Answers in all.
    pub fn choices(&self) -> usize {
        self.requests.iter().map(|request| request.n).sum()
    }
}

fn prompts(call: &Call) -> Result<Vec<Prompt>, ApiError> {
    let name = call.endpoint.asks();
    let asked = call.fields.get(name).unwrap_or(&Value::Null);
    if call.endpoint == Endpoint::Chat {
        let mut messages = Vec::new();
        for (index, message) in asked.as_array().into_iter().flatten().enumerate() {
            let field = format!("messages[{index}]");
            let fields = message.as_object();
            let fields = fields.ok_or_else(|| ApiError::field(&field, "a message", kind(message)))?;
            let message = Message::from_fields(fields.clone());
            messages.push(message.map_err(|needed| ApiError::field(&field, needed, "none"))?);
        }
        return Ok(vec![Prompt::chat(messages)]);
    }
    let wrong = || ApiError::field(name, "text, a list of texts, or token ids", kind(asked));
    let tokens = |items: &[Value]| {
        let ids = items.iter().map(|id| u32::try_from(id.as_u64()?).ok());
        ids.collect::<Option<Vec<u32>>>().map(Prompt::Tokens).ok_or_else(wrong)
    };
    match asked {
        Value::String(text) => Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(items) if items.first().is_some_and(Value::is_number) => Ok(vec![tokens(items)?]),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Ok(Prompt::Text(text.clone())),
                Value::Array(ids) => tokens(ids),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

fn constraint(fields: &Fields) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = fields.get("response_format") else { return Ok(None) };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Constraint::JsonSchema(json!({"type": "object"})))),
        Some("json_schema") => {
            let schema = format.get("json_schema").and_then(|spec| spec.get("schema")).cloned();
            let needed = || ApiError::field("response_format.json_schema.schema", "a JSON schema", "nothing");
            schema.map(|schema| Some(Constraint::JsonSchema(schema))).ok_or_else(needed)
        }
        Some("regex") => {
            let pattern = format.get("pattern").and_then(Value::as_str).map(str::to_owned);
            let needed = || ApiError::field("response_format.pattern", "an expression", "nothing");
            pattern.map(|pattern| Some(Constraint::Regex(pattern))).ok_or_else(needed)
        }
        other => {
            let needed = "text, json_object, json_schema or regex";
            Err(ApiError::field("response_format.type", needed, format!("{other:?}")))
        }
    }
}

impl Embed {
    /// Reads a call.
    pub fn parse(call: &Call) -> Result<Self, ApiError> {
        let fields = Fields(&call.fields);
        let texts = fields.read("input", "text, or a list of texts", |value| match value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            _ => None,
        })?;
        let base64 = fields.read("encoding_format", "float or base64", |value| match value.as_str()? {
            "float" => Some(false),
            "base64" => Some(true),
            _ => None,
        })?;
        if let Some(value) = fields.get("dimensions") {
            return Err(ApiError::field(
                "dimensions",
                "nothing, since the built-in engine has one size",
                kind(value),
            ));
        }
        Ok(Embed { texts: texts.unwrap_or_default(), base64: base64.unwrap_or(false) })
    }
}
