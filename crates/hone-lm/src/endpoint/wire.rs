//! The words of the OpenAI-compatible API: requests to bodies, answers to results.

use serde_json::{Map, Value, json};

use super::config::Dialect;
use crate::error::{Error, Result, form};
use crate::message::Message;
use crate::model::{
    Alternative, Constraint, FinishReason, GenerateRequest, Prompt, Sample, Sampling, Scored, Token, Usage,
};

/// The path of a request and its body.
///
/// # Errors
/// [`Error::Unsupported`] for what this dialect has no field for.
pub(super) fn generate_body(
    model: &str,
    dialect: Dialect,
    request: &GenerateRequest,
) -> Result<(&'static str, Map<String, Value>)> {
    let mut body = Map::new();
    body.insert("model".into(), json!(model));
    let path = match &request.prompt {
        Prompt::Messages { messages, options } => {
            body.insert("messages".into(), json!(messages));
            if let Some(tools) = &options.tools {
                body.insert("tools".into(), json!(tools));
            }
            template_fields(&mut body, model, dialect, options)?;
            "chat/completions"
        }
        Prompt::Text(text) => {
            body.insert("prompt".into(), json!(text));
            "completions"
        }
        Prompt::Tokens(ids) => {
            body.insert("prompt".into(), json!(ids));
            "completions"
        }
    };
    sampling_fields(&mut body, &request.sampling, dialect);
    if request.n > 1 {
        body.insert("n".into(), json!(request.n));
    }
    if request.logprobs {
        if path == "completions" {
            // Zero alternatives still give the log-probability of the token itself.
            body.insert("logprobs".into(), json!(request.top_logprobs.max(1)));
        } else {
            body.insert("logprobs".into(), json!(true));
            body.insert("top_logprobs".into(), json!(request.top_logprobs));
        }
    }
    if let Some(constraint) = &request.constraint {
        constraint_fields(&mut body, model, dialect, constraint)?;
    }
    if request.stream {
        body.insert("stream".into(), json!(true));
        body.insert("stream_options".into(), json!({"include_usage": true}));
    }
    // Unknown fields go last: who names one means it.
    body.extend(request.extra.clone());
    Ok((path, body))
}

/// What a server's own template may be told.
fn template_fields(
    body: &mut Map<String, Value>,
    model: &str,
    dialect: Dialect,
    options: &crate::RenderOptions,
) -> Result<()> {
    let known = matches!(dialect, Dialect::Vllm | Dialect::Sglang);
    let mut arguments = options.arguments.clone();
    if let Some(documents) = &options.documents {
        arguments.insert("documents".into(), json!(documents));
    }
    let asks = !arguments.is_empty() || options.continue_final_message || options.template.is_some();
    if asks && (!known || options.template.is_some()) {
        return Err(Error::Unsupported {
            model: model.to_owned(),
            what: "be told how to render a conversation",
            why: "its template is its own; leave out template, arguments, documents and continue_final_message, \
                  or render here and send text"
                .into(),
        });
    }
    if !arguments.is_empty() {
        body.insert("chat_template_kwargs".into(), Value::Object(arguments));
    }
    if options.continue_final_message {
        body.insert("continue_final_message".into(), json!(true));
        body.insert("add_generation_prompt".into(), json!(false));
    }
    Ok(())
}

fn sampling_fields(body: &mut Map<String, Value>, sampling: &Sampling, dialect: Dialect) {
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    // f32 written as the f64 of the same decimal digits: 0.7, not 0.699999988079071.
    let number = |value: Option<f32>| value.and_then(|v| v.to_string().parse::<f64>().ok()).map(|v| json!(v));
    set("temperature", number(sampling.temperature));
    set("top_p", number(sampling.top_p));
    set("frequency_penalty", number(sampling.frequency_penalty));
    set("presence_penalty", number(sampling.presence_penalty));
    set("seed", sampling.seed.map(|v| json!(v)));
    if !sampling.stop.is_empty() {
        set("stop", Some(json!(sampling.stop)));
    }
    let most = if dialect == Dialect::OpenAiReasoning { "max_completion_tokens" } else { "max_tokens" };
    set(most, sampling.max_tokens.map(|v| json!(v)));
    set("top_k", sampling.top_k.map(|v| json!(v)));
    set("min_p", number(sampling.min_p));
    set("repetition_penalty", number(sampling.repetition_penalty));
}

fn constraint_fields(
    body: &mut Map<String, Value>,
    model: &str,
    dialect: Dialect,
    constraint: &Constraint,
) -> Result<()> {
    let (field, value) = match (constraint, dialect) {
        (Constraint::JsonSchema(schema), _) => (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}}),
        ),
        (Constraint::Regex(regex), Dialect::Vllm) => ("structured_outputs", json!({"regex": regex})),
        (Constraint::Grammar(grammar), Dialect::Vllm) => ("structured_outputs", json!({"grammar": grammar})),
        (Constraint::Regex(regex), Dialect::Sglang) => ("regex", json!(regex)),
        (Constraint::Grammar(grammar), Dialect::Sglang) => ("ebnf", json!(grammar)),
        _ => {
            return Err(Error::Unsupported {
                model: model.to_owned(),
                what: "follow a regular expression or grammar",
                why: "the API has no field for it; vllm and sglang have".into(),
            });
        }
    };
    body.insert(field.into(), value);
    Ok(())
}

/// Answers of `url`, for errors.
pub(super) struct Reader<'a> {
    pub(super) url: &'a str,
}

impl Reader<'_> {
    fn error(&self, field: &'static str, needed: impl Into<String>, got: impl Into<String>) -> Error {
        Error::Answer { url: self.url.to_owned(), field, needed: needed.into(), got: got.into() }
    }

    fn choices<'v>(&self, answer: &'v Value, n: usize) -> Result<&'v Vec<Value>> {
        let choices = answer.get("choices").and_then(Value::as_array).ok_or_else(|| {
            self.error("choices", "a list", answer.get("choices").map_or("nothing".into(), form))
        })?;
        if choices.len() != n {
            return Err(self.error("choices", format!("{n} answers"), choices.len().to_string()));
        }
        Ok(choices)
    }

    /// The answers of a chat or completion.
    pub(super) fn samples(&self, answer: &Value, request: &GenerateRequest) -> Result<Vec<Sample>> {
        let mut samples: Vec<(u64, Sample)> = Vec::new();
        for (at, choice) in self.choices(answer, request.n)?.iter().enumerate() {
            let index = choice.get("index").and_then(Value::as_u64).unwrap_or(at as u64);
            samples.push((index, self.sample(choice, request)?));
        }
        samples.sort_by_key(|(index, _)| *index);
        Ok(samples.into_iter().map(|(_, sample)| sample).collect())
    }

    fn sample(&self, choice: &Value, request: &GenerateRequest) -> Result<Sample> {
        let (text, message) = match (choice.get("message"), choice.get("text")) {
            (Some(Value::Object(fields)), _) => {
                let mut fields = fields.clone();
                fields.entry("role").or_insert_with(|| json!("assistant"));
                let message = Message::from_fields(fields)
                    .map_err(|needed| self.error("choices.message", needed, "another form"))?;
                (message.text(), Some(message))
            }
            (_, Some(Value::String(text))) => (text.clone(), None),
            _ => return Err(self.error("choices", "`message` or `text`", form(choice))),
        };
        let finish = match choice.get("finish_reason").and_then(Value::as_str) {
            Some("stop") => FinishReason::Stop,
            Some("length") => FinishReason::Length,
            Some("tool_calls" | "function_call") => FinishReason::ToolCalls,
            Some("content_filter") => FinishReason::ContentFilter,
            Some("cancelled") => FinishReason::Cancelled,
            Some(other) => FinishReason::Other(other.to_owned()),
            None => FinishReason::Other("unknown".to_owned()),
        };
        let tokens =
            if request.logprobs { Some(self.tokens(choice, &text, request.top_logprobs)?) } else { None };
        Ok(Sample { text, message, tokens, finish })
    }

    fn tokens(&self, choice: &Value, text: &str, top: usize) -> Result<Vec<Token>> {
        let logprobs = choice.get("logprobs").unwrap_or(&Value::Null);
        let tokens = if let Some(content) = logprobs.get("content").and_then(Value::as_array) {
            content.iter().map(|token| self.chat_token(token, top)).collect::<Result<Vec<_>>>()?
        } else if logprobs.get("tokens").is_some() {
            let mut tokens = self.completion_tokens(logprobs)?;
            tokens.iter_mut().for_each(|(_, token)| token.top.truncate(top));
            tokens.into_iter().map(|(_, token)| token).collect()
        } else {
            Vec::new()
        };
        if tokens.is_empty() && !text.is_empty() {
            return Err(self.error("choices.logprobs", "a log-probability per token", form(logprobs)));
        }
        if tokens.iter().any(|token| token.logprob.is_none()) {
            return Err(self.error("choices.logprobs", "a log-probability per token", "null"));
        }
        Ok(tokens)
    }

    fn chat_token(&self, value: &Value, top: usize) -> Result<Token> {
        let text = |v: &Value| v.get("token").and_then(Value::as_str).map(str::to_owned);
        let logprob = |v: &Value| v.get("logprob").and_then(Value::as_f64).map(|l| l as f32);
        let wrong = || self.error("choices.logprobs.content", "`token` and `logprob`", form(value));
        let alternatives = value.get("top_logprobs").and_then(Value::as_array).into_iter().flatten();
        Ok(Token {
            id: None,
            text: text(value).ok_or_else(wrong)?,
            bytes: value.get("bytes").and_then(|b| serde_json::from_value(b.clone()).ok()),
            logprob: Some(logprob(value).ok_or_else(wrong)?),
            sampling_logprob: None,
            top: alternatives
                .take(top)
                .filter_map(|a| Some(Alternative { id: None, text: text(a)?, logprob: logprob(a)? }))
                .collect(),
        })
    }

    /// Tokens of a completion's log-probabilities, each with where its text starts, in characters.
    fn completion_tokens(&self, logprobs: &Value) -> Result<Vec<(Option<u64>, Token)>> {
        let list = |name: &str| logprobs.get(name).and_then(Value::as_array);
        let wrong = |needed: &str, got: String| self.error("choices.logprobs", needed.to_owned(), got);
        let tokens = list("tokens").ok_or_else(|| wrong("`tokens`", form(logprobs)))?;
        let values = list("token_logprobs").ok_or_else(|| wrong("`token_logprobs`", form(logprobs)))?;
        if tokens.len() != values.len() {
            return Err(wrong(
                "as many `token_logprobs` as `tokens`",
                format!("{} and {}", values.len(), tokens.len()),
            ));
        }
        let offsets = list("text_offset");
        let tops = list("top_logprobs");
        let mut out = Vec::with_capacity(tokens.len());
        for (i, (token, value)) in tokens.iter().zip(values).enumerate() {
            let text = token.as_str().ok_or_else(|| wrong("tokens that are texts", form(token)))?.to_owned();
            let mut top: Vec<Alternative> = tops
                .and_then(|t| t.get(i)?.as_object())
                .into_iter()
                .flatten()
                .filter_map(|(text, l)| {
                    Some(Alternative { id: None, text: text.clone(), logprob: l.as_f64()? as f32 })
                })
                .collect();
            top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            let offset = offsets.and_then(|o| o.get(i)?.as_u64());
            let logprob = value.as_f64().map(|l| l as f32);
            out.push((offset, Token { id: None, text, bytes: None, logprob, sampling_logprob: None, top }));
        }
        Ok(out)
    }

    /// The part of an echoed completion that belongs to the continuation.
    ///
    /// # Errors
    /// [`Error::Answer`] where tokens or log-probabilities are missing, or where a token spans the boundary: then no sum
    /// over tokens is the continuation's probability.
    pub(super) fn scored(&self, answer: &Value, prompt: &str, continuation: &str) -> Result<Scored> {
        let choice = &self.choices(answer, 1)?[0];
        let logprobs = choice.get("logprobs").unwrap_or(&Value::Null);
        let all = self.completion_tokens(logprobs)?;
        // Where tokens spell the text themselves, their own lengths are safer than offsets: servers differ in what
        // these count.
        let joined: String = all.iter().map(|(_, token)| token.text.as_str()).collect();
        let whole = format!("{prompt}{continuation}");
        let spelled = joined.starts_with(&whole);
        let mut at = 0;
        let mut starts = Vec::with_capacity(all.len());
        for (offset, token) in &all {
            starts.push(if spelled { Some(at as u64) } else { *offset });
            at += token.text.chars().count();
        }
        let (from, to) = (prompt.chars().count() as u64, whole.chars().count() as u64);
        let mut tokens = Vec::new();
        let mut boundary = false;
        for ((_, token), start) in all.into_iter().zip(starts) {
            let start = start
                .ok_or_else(|| self.error("choices.logprobs", "`text_offset` of every token", "none"))?;
            boundary |= start == from;
            if start < from || start >= to {
                continue;
            }
            if token.logprob.is_none() {
                return Err(self.error(
                    "choices.logprobs.token_logprobs",
                    "a number for every token",
                    "null",
                ));
            }
            tokens.push(token);
        }
        if !boundary {
            let needed =
                "the text of the prompt, echoed, and a token that starts where the continuation does";
            return Err(self.error("choices.logprobs", needed, format!("tokens that spell {joined:.60?}")));
        }
        let logp = tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
        Ok(Scored { tokens, logp, usage: usage(answer) })
    }

    /// The same for prompts given as token ids: the tokens after the first `prompt`.
    ///
    /// # Errors
    /// [`Error::Answer`] where tokens or log-probabilities are missing.
    pub(super) fn scored_by_count(
        &self,
        answer: &Value,
        prompt: usize,
        continuation: usize,
    ) -> Result<Scored> {
        let choice = &self.choices(answer, 1)?[0];
        let all = self.completion_tokens(choice.get("logprobs").unwrap_or(&Value::Null))?;
        if all.len() < prompt + continuation {
            let needed = format!("the prompt echoed, {} tokens", prompt + continuation);
            return Err(self.error("choices.logprobs.tokens", needed, all.len().to_string()));
        }
        let tokens: Vec<Token> =
            all.into_iter().skip(prompt).take(continuation).map(|(_, token)| token).collect();
        if tokens.iter().any(|t| t.logprob.is_none()) {
            return Err(self.error("choices.logprobs.token_logprobs", "a number for every token", "null"));
        }
        let logp = tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum();
        Ok(Scored { tokens, logp, usage: usage(answer) })
    }

    /// Vectors of an embeddings answer, in order.
    pub(super) fn embeddings(&self, answer: &Value, n: usize) -> Result<Vec<Vec<f32>>> {
        let data = answer
            .get("data")
            .and_then(Value::as_array)
            .ok_or_else(|| self.error("data", "a list", form(answer)))?;
        if data.len() != n {
            return Err(self.error("data", format!("{n} vectors"), data.len().to_string()));
        }
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; n];
        for (at, item) in data.iter().enumerate() {
            let index = item.get("index").and_then(Value::as_u64).unwrap_or(at as u64) as usize;
            let vector: Option<Vec<f32>> =
                item.get("embedding").and_then(|e| serde_json::from_value(e.clone()).ok());
            let vector = vector.filter(|v| !v.is_empty()).ok_or_else(|| {
                self.error(
                    "data.embedding",
                    "a list of numbers",
                    item.get("embedding").map_or("nothing".into(), form),
                )
            })?;
            match vectors.get_mut(index) {
                Some(slot @ None) => *slot = Some(vector),
                _ => return Err(self.error("data.index", "each index once", index.to_string())),
            }
        }
        Ok(vectors.into_iter().flatten().collect())
    }
}

/// Tokens counted in an answer; zeros where it does not say.
pub(super) fn usage(answer: &Value) -> Usage {
    let number = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        prompt_tokens: number("/usage/prompt_tokens"),
        cached_tokens: number("/usage/prompt_tokens_details/cached_tokens"),
        completion_tokens: number("/usage/completion_tokens"),
        reasoning_tokens: number("/usage/completion_tokens_details/reasoning_tokens"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: Reader<'static> = Reader { url: "u" };

    fn chat() -> GenerateRequest {
        GenerateRequest::new(Prompt::chat(vec![Message::new("user", "hi")]))
    }

    #[test]
    fn bodies() {
        let mut request = chat();
        request.sampling = Sampling {
            temperature: Some(0.7),
            seed: Some(u64::MAX),
            stop: vec!["\n".into()],
            max_tokens: Some(5),
            ..Sampling::default()
        };
        request.logprobs = true;
        request.n = 2;
        request.extra.insert("reasoning_effort".into(), json!("low"));
        let (path, body) = generate_body("m", Dialect::OpenAi, &request).expect("body");
        assert_eq!(path, "chat/completions");
        assert_eq!(
            Value::Object(body).to_string(),
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.7,"seed":18446744073709551615,"stop":["\n"],"max_tokens":5,"n":2,"logprobs":true,"top_logprobs":0,"reasoning_effort":"low"}"#
        );
        let (_, body) = generate_body("m", Dialect::OpenAiReasoning, &request).expect("body");
        assert_eq!(body["max_completion_tokens"], 5);

        request.prompt = Prompt::Text("once".into());
        request.constraint = Some(Constraint::Regex("a+".into()));
        assert!(matches!(generate_body("m", Dialect::OpenAi, &request), Err(Error::Unsupported { .. })));
        let (path, body) = generate_body("m", Dialect::Vllm, &request).expect("body");
        assert_eq!((path, &body["structured_outputs"]), ("completions", &json!({"regex": "a+"})));
        assert_eq!(body["logprobs"], 1);
    }

    #[test]
    fn template_arguments_go_where_they_are_understood() {
        let mut request = chat();
        if let Prompt::Messages { options, .. } = &mut request.prompt {
            options.arguments.insert("enable_thinking".into(), json!(false));
        }
        assert!(matches!(generate_body("m", Dialect::OpenAi, &request), Err(Error::Unsupported { .. })));
        let (_, body) = generate_body("m", Dialect::Vllm, &request).expect("body");
        assert_eq!(body["chat_template_kwargs"], json!({"enable_thinking": false}));
    }

    #[test]
    fn missing_logprobs_are_an_error() {
        let mut request = chat();
        request.logprobs = true;
        let answer = |logprobs: Value| json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": "A"}, "finish_reason": "stop", "logprobs": logprobs}]});
        for logprobs in [json!(null), json!({}), json!({"content": []}), json!({"content": [{"token": "A"}]})]
        {
            let error = READER.samples(&answer(logprobs), &request).expect_err("refused").to_string();
            assert!(error.contains("choices.logprobs"), "{error}");
        }
        let good =
            answer(json!({"content": [{"token": "A", "logprob": -0.5, "bytes": [65], "top_logprobs": []}]}));
        let samples = READER.samples(&good, &request).expect("samples");
        assert_eq!(samples[0].tokens.as_ref().map(|t| t[0].logprob), Some(Some(-0.5)));
        request.n = 2;
        assert!(matches!(READER.samples(&good, &request), Err(Error::Answer { field: "choices", .. })));
    }

    fn echoed(tokens: &[&str], logprobs: Value, offsets: Value) -> Value {
        json!({"choices": [{"index": 0, "text": tokens.concat(), "logprobs": {
            "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": null, "text_offset": offsets}}]})
    }

    #[test]
    fn scores_are_those_of_the_continuation() {
        // The last token was written by the model, because servers refuse max_tokens = 0.
        let answer =
            echoed(&["The", " cät", " sat", "."], json!([null, -1.0, -2.0, -9.0]), json!([0, 3, 7, 11]));
        let scored = READER.scored(&answer, "The", " cät sat").expect("scored");
        assert_eq!((scored.tokens.len(), scored.logp), (2, -3.0));
        // Byte tokens do not spell the text: offsets decide.
        let answer =
            echoed(&["The", "bytes:\\xc3", "bytes:\\xa4"], json!([null, -1.0, -2.5]), json!([0, 3, 3]));
        assert_eq!(READER.scored(&answer, "The", "ä").expect("scored").logp, -3.5);
    }

    #[test]
    fn a_token_across_the_boundary_is_no_score() {
        let answer = echoed(&["Th", "e cat"], json!([null, -1.0]), json!([0, 2]));
        assert!(matches!(READER.scored(&answer, "The", " cat"), Err(Error::Answer { .. })));
        let unechoed = echoed(&[" cat"], json!([-1.0]), json!([0]));
        assert!(matches!(READER.scored(&unechoed, "The", " cat"), Err(Error::Answer { .. })));
        let holes = echoed(&["The", " cat"], json!([null, null]), json!([0, 3]));
        assert!(matches!(READER.scored(&holes, "The", " cat"), Err(Error::Answer { .. })));
    }

    #[test]
    fn embeddings_by_index() {
        let answer = json!({"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]});
        assert_eq!(READER.embeddings(&answer, 2).expect("vectors"), [[1.0], [2.0]]);
        for bad in [
            json!({"data": [{"index": 0, "embedding": [1.0]}]}),
            json!({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}),
            json!({"data": [{"index": 0, "embedding": "x"}, {"index": 1, "embedding": [1.0]}]}),
        ] {
            assert!(matches!(READER.embeddings(&bad, 2), Err(Error::Answer { .. })), "{bad}");
        }
    }
}
