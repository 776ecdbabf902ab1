//! What an endpoint can do, found out by asking it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::client::{Call, Client};
use super::config::{Dialect, EndpointConfig};
use super::wire::Reader;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::model::Capabilities;

/// Asks with a few calls of at most sixteen tokens.
///
/// # Errors
/// [`Error::Endpoint`] if it answers neither conversations nor text, nor gives embeddings; what stops it from answering
/// at all.
pub(super) async fn probe(client: Arc<Client>, config: EndpointConfig) -> Result<Capabilities> {
    let probe = Probe { client: &client, config: &config };
    let served = matches!(config.dialect, Dialect::Vllm | Dialect::Sglang);
    let mut found = Capabilities {
        name: format!("{} at {}", config.model, client.base),
        chat: false,
        context: probe.context().await?,
        extended_sampling: served,
        extra: true,
        ..Capabilities::default()
    };
    let (chat, text, embeddings) = tokio::join!(probe.chat(), probe.text(), probe.embeddings());
    let (chat, text) = (chat?, text?);
    found.embeddings = embeddings?;
    if let Some(chat) = &chat {
        found.chat = true;
        found.logprobs = chat.logprobs;
        found.top_logprobs = chat.top;
        found.seeds = probe.seeds(&chat.text, &chat.fields).await?;
        found.json_schema = probe.schema().await?;
        found.regex = served && probe.regex().await?;
        // Both go through the same library in these servers.
        found.grammar = found.regex;
    }
    if let Some(text) = text {
        found.text = true;
        found.scoring = text.scoring;
        if chat.is_none() {
            found.logprobs = text.logprobs;
            found.top_logprobs = if text.logprobs { 5 } else { 0 };
        }
    }
    if !(found.chat || found.text || found.embeddings) {
        return Err(Error::Endpoint {
            url: client.base.clone(),
            message: format!(
                "model {:?}: answers neither chat/completions nor completions nor embeddings; is the address that of \
                 the API (often it ends with /v1), and does it serve this model?",
                config.model
            ),
        });
    }
    Ok(found)
}

struct Probe<'a> {
    client: &'a Client,
    config: &'a EndpointConfig,
}

struct Chat {
    text: String,
    logprobs: bool,
    top: usize,
    /// The fields that it took.
    fields: Value,
}

struct Text {
    scoring: bool,
    logprobs: bool,
}

/// A question to which a model that samples gives many answers.
const QUESTION: &str =
    "Pick a whole number between one and one million at random. Answer with the number alone.";

impl Probe<'_> {
    /// The answer; `None` where the server says that it does not do this.
    async fn ask(&self, path: &'static str, body: Option<Value>) -> Result<Option<Value>> {
        let call = Call { path, body, stream: false, estimate: 50.0, cancel: Cancel::new() };
        match self.client.call(&call, &|_| {}).await {
            Ok(reply) => Ok(Some(reply.answer)),
            // A wrong key must not look like a poor model.
            Err(Error::Status { status: 401..=403, body, .. }) => Err(Error::Endpoint {
                url: self.client.url(path),
                message: format!("access refused: {body}"),
            }),
            Err(Error::Status { .. }) => Ok(None),
            // Servers also answer what they do not know with a fault of their own, on every try.
            Err(Error::GaveUp { last, .. }) if last.starts_with("status 5") => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn context(&self) -> Result<Option<usize>> {
        let Some(answer) = self.ask("models", None).await? else { return Ok(None) };
        let models = answer.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
        let ours = models.iter().find(|m| m.get("id").and_then(Value::as_str) == Some(&self.config.model));
        let names = ["max_model_len", "context_length", "context_window", "max_context_length"];
        Ok(ours.and_then(|m| names.iter().find_map(|n| m.get(*n)?.as_u64())).map(|n| n as usize))
    }

    fn chat_body(&self, fields: &Value) -> Value {
        let most = if self.config.dialect == Dialect::OpenAiReasoning {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        let mut body = json!({
            "model": self.config.model,
            "messages": [{"role": "user", "content": QUESTION}],
            most: 16,
        });
        for (name, value) in fields.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }

    async fn chat(&self) -> Result<Option<Chat>> {
        for fields in [json!({"logprobs": true, "top_logprobs": 1}), json!({})] {
            if let Some(answer) = self.ask("chat/completions", Some(self.chat_body(&fields))).await? {
                let content = answer.pointer("/choices/0/logprobs/content").and_then(Value::as_array);
                let first = content.and_then(|c| c.first());
                let logprobs = first.is_some_and(|t| t.get("logprob").is_some_and(Value::is_number));
                let top =
                    first.and_then(|t| t.get("top_logprobs")?.as_array()).is_some_and(|t| !t.is_empty());
                // The API's own limit; a server with a lower one refuses the request.
                let top = if logprobs && top { 20 } else { 0 };
                return Ok(Some(Chat { text: answer_text(&answer), logprobs, top, fields }));
            }
        }
        Ok(None)
    }

    /// Equal seeds must give equal texts, and others another: a server that ignores seeds, and one that always says the
    /// same, both fail.
    async fn seeds(&self, first: &str, fields: &Value) -> Result<bool> {
        let mut texts = Vec::new();
        for seed in [11, 11, 12, 13] {
            let mut fields = fields.clone();
            fields["seed"] = json!(seed);
            fields["temperature"] = json!(1.0);
            match self.ask("chat/completions", Some(self.chat_body(&fields))).await? {
                Some(answer) => texts.push(answer_text(&answer)),
                None => return Ok(false),
            }
        }
        let differs = texts.iter().any(|t| t != &texts[0]);
        Ok(!first.is_empty() && texts[0] == texts[1] && differs)
    }

    async fn schema(&self) -> Result<bool> {
        let schema = json!({
            "type": "object",
            "properties": {"ok": {"type": "boolean"}},
            "required": ["ok"],
            "additionalProperties": false,
        });
        let fields = json!({"response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}}});
        let answer = self.ask("chat/completions", Some(self.chat_body(&fields))).await?;
        let text = answer.map(|a| answer_text(&a)).unwrap_or_default();
        Ok(serde_json::from_str::<Value>(&text).is_ok_and(|v| v.get("ok").is_some_and(Value::is_boolean)))
    }

    async fn regex(&self) -> Result<bool> {
        let regex = "x[0-9]y";
        let fields = match self.config.dialect {
            Dialect::Sglang => json!({"regex": regex}),
            _ => json!({"structured_outputs": {"regex": regex}}),
        };
        let answer = self.ask("chat/completions", Some(self.chat_body(&fields))).await?;
        let text = answer.map(|a| answer_text(&a)).unwrap_or_default();
        Ok(text.len() == 3 && text.starts_with('x') && text.ends_with('y'))
    }

    async fn text(&self) -> Result<Option<Text>> {
        let body = |fields: Value| {
            let mut body = json!({"model": self.config.model, "prompt": "One two three", "max_tokens": 1});
            for (name, value) in fields.as_object().into_iter().flatten() {
                body[name] = value.clone();
            }
            Some(body)
        };
        let has_logprobs = |answer: &Value| {
            answer
                .pointer("/choices/0/logprobs/token_logprobs")
                .and_then(Value::as_array)
                .is_some_and(|l| !l.is_empty())
        };
        if let Some(answer) = self.ask("completions", body(json!({"echo": true, "logprobs": 1}))).await? {
            let reader = Reader { url: &self.client.base };
            let scoring = reader.scored(&answer, "One two", " three").is_ok();
            return Ok(Some(Text { scoring, logprobs: has_logprobs(&answer) }));
        }
        if let Some(answer) = self.ask("completions", body(json!({"logprobs": 1}))).await? {
            return Ok(Some(Text { scoring: false, logprobs: has_logprobs(&answer) }));
        }
        let plain = self.ask("completions", body(json!({}))).await?;
        Ok(plain.map(|_| Text { scoring: false, logprobs: false }))
    }

    async fn embeddings(&self) -> Result<bool> {
        let answer =
            self.ask("embeddings", Some(json!({"model": self.config.model, "input": ["a"]}))).await?;
        let reader = Reader { url: &self.client.base };
        Ok(answer.is_some_and(|a| reader.embeddings(&a, 1).is_ok()))
    }
}

fn answer_text(answer: &Value) -> String {
    answer.pointer("/choices/0/message/content").and_then(Value::as_str).unwrap_or_default().to_owned()
}
