//! The one trait for language models, and what goes in and out.
//!
//! Methods are plain code over batches: calls block, and a model does as much of a batch at once as it can. What a model
//! cannot do is an error before any work, never a wrong number.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::template::RenderOptions;

/// A language model: the built-in engine, or an endpoint.
pub trait LanguageModel: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// Answers each request. Results stand in the order of the requests, one each; `on` hears what happens meanwhile, on
    /// the calling thread.
    ///
    /// # Errors
    /// The outer error refuses the whole batch before any work: a setting out of range, an empty prompt, something the
    /// model cannot do. An inner error is one request's own.
    fn generate(
        &self,
        requests: &[GenerateRequest],
        on: &mut dyn FnMut(Event),
    ) -> Result<Vec<Result<Generation>>>;

    /// Log-probabilities of given continuations.
    ///
    /// # Errors
    /// As [`LanguageModel::generate`].
    fn score(&self, requests: &[ScoreRequest]) -> Result<Vec<Result<Scored>>>;

    /// One vector per text, in order.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the model has none; the first text that fails fails all.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>>;
}

/// What a model can do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capabilities {
    /// Its name.
    pub name: String,
    /// Tokens that prompt and answer may have together, where known.
    pub context: Option<usize>,
    /// Takes conversations.
    pub chat: bool,
    /// Continues raw text.
    pub text: bool,
    /// Takes and returns token ids.
    pub token_ids: bool,
    /// Gives log-probabilities of what it wrote.
    pub logprobs: bool,
    /// Most alternatives it gives per token.
    pub top_logprobs: usize,
    /// Gives log-probabilities under the distribution sampled from, after temperature and cuts.
    pub sampling_logprobs: bool,
    /// The same seed gives the same text.
    pub seeds: bool,
    /// Gives log-probabilities of text it is given.
    pub scoring: bool,
    /// Gives vectors for texts.
    pub embeddings: bool,
    /// Answers that follow a JSON schema.
    pub json_schema: bool,
    /// Answers that match a regular expression.
    pub regex: bool,
    /// Answers that follow a grammar.
    pub grammar: bool,
    /// Knows `top_k`, `min_p` and `repetition_penalty`.
    pub extended_sampling: bool,
    /// Passes unknown request fields on.
    pub extra: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Capabilities {
            name: String::new(),
            context: None,
            chat: true,
            text: false,
            token_ids: false,
            logprobs: false,
            top_logprobs: 0,
            sampling_logprobs: false,
            seeds: false,
            scoring: false,
            embeddings: false,
            json_schema: false,
            regex: false,
            grammar: false,
            extended_sampling: false,
            extra: false,
        }
    }
}

/// What to answer or continue.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation.
    Messages {
        /// The messages.
        messages: Vec<Message>,
        /// Tools, documents, template and its arguments. `add_generation_prompt` is set by the model.
        options: Box<RenderOptions>,
    },
    /// Raw text, taken as it is.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// A conversation without tools or documents.
    pub fn chat(messages: Vec<Message>) -> Self {
        Prompt::Messages { messages, options: Box::default() }
    }

    fn is_empty(&self) -> bool {
        match self {
            Prompt::Messages { messages, .. } => messages.is_empty(),
            Prompt::Text(text) => text.is_empty(),
            Prompt::Tokens(ids) => ids.is_empty(),
        }
    }
}

/// What the text must follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// JSON that a schema accepts.
    JsonSchema(Value),
    /// Text that a regular expression matches from start to end.
    Regex(String),
    /// Text of a grammar: Lark for the built-in engine, what the server takes for an endpoint.
    Grammar(String),
}

/// How to sample. What is `None` is left to the model: for the built-in engine, no change to the distribution.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token. At least 0.
    pub temperature: Option<f32>,
    /// Keeps the most likely tokens up to this share of probability. In (0, 1].
    pub top_p: Option<f32>,
    /// Keeps this many tokens. At least 1.
    pub top_k: Option<usize>,
    /// Drops tokens less likely than this share of the likeliest. In [0, 1].
    pub min_p: Option<f32>,
    /// Divides positive logits of tokens seen, multiplies negative ones. Above 0; 1 does nothing.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from logits once per token written. In [-2, 2].
    pub frequency_penalty: Option<f32>,
    /// Subtracted from logits of tokens written. In [-2, 2].
    pub presence_penalty: Option<f32>,
    /// Same seed, same text. Sample `i` of a request uses its own stream.
    pub seed: Option<u64>,
    /// Ends the text before any of these.
    pub stop: Vec<String>,
    /// Most tokens to write. At least 1.
    pub max_tokens: Option<usize>,
}

/// One prompt to answer, `n` times.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// What to answer.
    pub prompt: Prompt,
    /// How to sample.
    pub sampling: Sampling,
    /// Answers to this prompt, `n`. At least 1.
    pub n: usize,
    /// Log-probability of every token written.
    pub logprobs: bool,
    /// Alternatives per token; needs `logprobs`.
    pub top_logprobs: usize,
    /// What the answer must follow.
    pub constraint: Option<Constraint>,
    /// Pieces as they come, by [`Event::Piece`].
    pub stream: bool,
    /// Further fields for an endpoint, passed on as they are.
    pub extra: Map<String, Value>,
    /// Which of several equal requests this is, for the cache. Equal requests of one batch are told apart without it.
    pub draw: u64,
    /// Stops this request.
    pub cancel: Cancel,
}

impl GenerateRequest {
    /// One answer with the model's own settings.
    pub fn new(prompt: Prompt) -> Self {
        GenerateRequest {
            prompt,
            sampling: Sampling::default(),
            n: 1,
            logprobs: false,
            top_logprobs: 0,
            constraint: None,
            stream: false,
            extra: Map::new(),
            draw: 0,
            cancel: Cancel::new(),
        }
    }
}

/// A continuation to score.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRequest {
    /// What stands before it. A conversation ends with the header of an answer.
    pub prompt: Prompt,
    /// What is scored.
    pub continuation: Continuation,
}

/// Text or tokens to score.
#[derive(Debug, Clone, PartialEq)]
pub enum Continuation {
    /// Text, encoded by itself after the prompt.
    Text(String),
    /// Token ids, taken as they are.
    Tokens(Vec<u32>),
}

/// What happens while a batch runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Text of one answer, in whole characters. Without streaming the whole answer is one piece.
    Piece {
        /// Which request.
        request: usize,
        /// Which of its answers.
        sample: usize,
        /// What was added.
        text: String,
    },
    /// One answer is complete.
    Finished {
        /// Which request.
        request: usize,
        /// Which of its answers.
        sample: usize,
        /// Why it ended.
        reason: FinishReason,
    },
    /// A call failed and is made again; pieces of this request so far are void.
    Retry {
        /// Which request.
        request: usize,
        /// Tries made so far.
        attempt: u32,
        /// Time until the next.
        wait: Duration,
        /// How it failed.
        why: String,
    },
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// A stop token or stop string.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// Calls of tools.
    ToolCalls,
    /// Held back by the provider.
    ContentFilter,
    /// The caller cancelled.
    Cancelled,
    /// Another word of the endpoint's.
    #[serde(untagged)]
    Other(String),
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id, where known.
    pub id: Option<u32>,
    /// Its text; U+FFFD stands for half characters.
    pub text: String,
    /// Its bytes, where known.
    pub bytes: Option<Vec<u8>>,
    /// Log-probability under the model itself, in nats.
    pub logprob: Option<f32>,
    /// Log-probability under the distribution sampled from, in nats.
    pub sampling_logprob: Option<f32>,
    /// The likeliest tokens here, best first, with log-probabilities under the model itself.
    pub top: Vec<Alternative>,
}

/// A token that might have come.
#[derive(Debug, Clone, PartialEq)]
pub struct Alternative {
    /// Its id, where known.
    pub id: Option<u32>,
    /// Its text.
    pub text: String,
    /// Its log-probability, in nats.
    pub logprob: f32,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its text, without the stop string.
    pub text: String,
    /// The whole message as the endpoint gave it, with tool calls and reasoning.
    pub message: Option<Message>,
    /// Its tokens, where known; the stop token included where the model gives it.
    pub tokens: Option<Vec<Token>>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// What was counted for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u64,
    /// Those of them that were cheaper because they were cached at the endpoint.
    pub cached_tokens: u64,
    /// Tokens of all answers, reasoning included.
    pub completion_tokens: u64,
    /// Those of them that are reasoning.
    pub reasoning_tokens: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.completion_tokens += other.completion_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }
}

/// How long a request took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// Until the first piece of the answer; none where it came whole.
    pub first_piece: Option<Duration>,
    /// From start to end, retries and waiting included.
    pub total: Duration,
}

/// The answers to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// `n` answers.
    pub samples: Vec<Sample>,
    /// Tokens counted.
    pub usage: Usage,
    /// Price in the currency of the price table; `None` where the model has no price.
    pub cost: Option<f64>,
    /// Time taken.
    pub timings: Timings,
    /// The model that answered, in its own words.
    pub model: String,
    /// Calls made; 0 for an answer from the cache.
    pub attempts: u32,
    /// The whole answer of the endpoint, if asked for.
    pub raw: Option<Value>,
}

/// A scored continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// Its tokens, each with its log-probability given all before it.
    pub tokens: Vec<Token>,
    /// Their sum, in nats.
    pub logp: f64,
    /// Tokens counted.
    pub usage: Usage,
}

impl Capabilities {
    /// Refuses a batch that the model cannot answer.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Setting`], [`Error::Unsupported`] for the first request at fault.
    pub fn check(&self, requests: &[GenerateRequest]) -> Result<()> {
        for (index, request) in requests.iter().enumerate() {
            self.check_prompt(index, &request.prompt)?;
            check_sampling(index, &request.sampling)?;
            let setting = |field, needed, got: String| Err(Error::Setting { index, field, needed, got });
            if request.n == 0 {
                return setting("n", "at least 1", "0".into());
            }
            if request.top_logprobs > 0 && !request.logprobs {
                return setting("top_logprobs", "logprobs to be on", request.top_logprobs.to_string());
            }
            self.need(self.logprobs || !request.logprobs, "give log-probabilities", "it returns none")?;
            if request.top_logprobs > self.top_logprobs {
                return self.need(
                    false,
                    "give that many alternatives per token",
                    &format!("{} asked for, it gives at most {}", request.top_logprobs, self.top_logprobs),
                );
            }
            let sampling = &request.sampling;
            self.need(
                self.seeds || sampling.seed.is_none(),
                "sample from a seed",
                "the same seed gives other texts, or it was not shown that it does not",
            )?;
            let extended =
                sampling.top_k.is_some() || sampling.min_p.is_some() || sampling.repetition_penalty.is_some();
            self.need(
                self.extended_sampling || !extended,
                "use top_k, min_p or repetition_penalty",
                "it would ignore them",
            )?;
            let (can, what) = match &request.constraint {
                None => (true, ""),
                Some(Constraint::JsonSchema(_)) => (self.json_schema, "follow a JSON schema"),
                Some(Constraint::Regex(_)) => (self.regex, "follow a regular expression"),
                Some(Constraint::Grammar(_)) => (self.grammar, "follow a grammar"),
            };
            self.need(can, what, "it has no constrained decoding of this kind")?;
            if !self.extra
                && let Some(field) = request.extra.keys().next()
            {
                return self.need(false, "take further fields", &format!("it does not know {field:?}"));
            }
        }
        Ok(())
    }

    /// Refuses continuations that the model cannot score.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Unsupported`] for the first request at fault.
    pub fn check_score(&self, requests: &[ScoreRequest]) -> Result<()> {
        self.need(self.scoring, "score given text", "it does not return log-probabilities of its input")?;
        for (index, request) in requests.iter().enumerate() {
            // What a conversation needs here is a template, which the implementation looks for.
            if request.prompt.is_empty() {
                return Err(Error::Empty { index, what: "prompt" });
            }
            let (empty, ids) = match &request.continuation {
                Continuation::Text(text) => (text.is_empty(), false),
                Continuation::Tokens(ids) => (ids.is_empty(), true),
            };
            if empty {
                return Err(Error::Empty { index, what: "continuation" });
            }
            let ids = ids || matches!(request.prompt, Prompt::Tokens(_));
            self.need(self.token_ids || !ids, "take token ids", "it takes text")?;
        }
        Ok(())
    }

    /// Refuses texts that the model cannot embed.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Unsupported`].
    pub fn check_embed(&self, texts: &[String]) -> Result<()> {
        self.need(self.embeddings, "embed texts", "it has no embeddings")?;
        match texts.iter().position(String::is_empty) {
            Some(index) => Err(Error::Empty { index, what: "text" }),
            None => Ok(()),
        }
    }

    fn check_prompt(&self, index: usize, prompt: &Prompt) -> Result<()> {
        if prompt.is_empty() {
            return Err(Error::Empty { index, what: "prompt" });
        }
        match prompt {
            Prompt::Messages { .. } => self.need(self.chat, "take conversations", "it continues text only"),
            Prompt::Text(_) => self.need(self.text, "continue raw text", "it takes conversations only"),
            Prompt::Tokens(_) => self.need(self.token_ids, "take token ids", "it takes text"),
        }
    }

    fn need(&self, can: bool, what: &'static str, why: &str) -> Result<()> {
        if can {
            Ok(())
        } else {
            Err(Error::Unsupported { model: self.name.clone(), what, why: why.to_owned() })
        }
    }
}

/// Refuses settings outside their range.
fn check_sampling(index: usize, sampling: &Sampling) -> Result<()> {
    // A range is `lower < or <= value <= upper`; NaN is in none.
    type Check = (&'static str, Option<f32>, fn(f32) -> bool, &'static str);
    let checks: [Check; 6] = [
        ("temperature", sampling.temperature, |v| v >= 0.0 && v.is_finite(), "a number of at least 0"),
        ("top_p", sampling.top_p, |v| v > 0.0 && v <= 1.0, "a number above 0 and at most 1"),
        ("min_p", sampling.min_p, |v| (0.0..=1.0).contains(&v), "a number from 0 to 1"),
        ("repetition_penalty", sampling.repetition_penalty, |v| v > 0.0 && v.is_finite(), "a number above 0"),
        (
            "frequency_penalty",
            sampling.frequency_penalty,
            |v| (-2.0..=2.0).contains(&v),
            "a number from -2 to 2",
        ),
        (
            "presence_penalty",
            sampling.presence_penalty,
            |v| (-2.0..=2.0).contains(&v),
            "a number from -2 to 2",
        ),
    ];
    for (field, value, holds, needed) in checks {
        if let Some(value) = value
            && !holds(value)
        {
            return Err(Error::Setting { index, field, needed, got: value.to_string() });
        }
    }
    for (field, value) in [("top_k", sampling.top_k), ("max_tokens", sampling.max_tokens)] {
        if value == Some(0) {
            return Err(Error::Setting { index, field, needed: "at least 1", got: "0".into() });
        }
    }
    if sampling.stop.iter().any(String::is_empty) {
        return Err(Error::Setting {
            index,
            field: "stop",
            needed: "texts that are not empty",
            got: "\"\"".into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> GenerateRequest {
        GenerateRequest::new(Prompt::chat(vec![Message::new("user", "hi")]))
    }

    fn refusal(capabilities: &Capabilities, change: impl Fn(&mut GenerateRequest)) -> String {
        let mut second = request();
        change(&mut second);
        match capabilities.check(&[request(), second]) {
            Ok(()) => "accepted".into(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn what_a_model_cannot_do_is_refused_at_the_start() {
        let plain = Capabilities { name: "m".into(), ..Capabilities::default() };
        for (change, words) in [
            ((|r| r.logprobs = true) as fn(&mut GenerateRequest), "m cannot give log-probabilities"),
            (|r| r.sampling.seed = Some(1), "m cannot sample from a seed"),
            (|r| r.sampling.top_k = Some(5), "m cannot use top_k"),
            (|r| r.constraint = Some(Constraint::Regex("a".into())), "m cannot follow a regular expression"),
            (|r| r.prompt = Prompt::Text("x".into()), "m cannot continue raw text"),
            (|r| r.prompt = Prompt::Tokens(vec![1]), "m cannot take token ids"),
            (
                |r| drop(r.extra.insert("thing".into(), Value::Null)),
                "m cannot take further fields: it does not know \"thing\"",
            ),
        ] {
            let said = refusal(&plain, change);
            assert!(said.starts_with(words), "{said}");
        }
        let score =
            ScoreRequest { prompt: Prompt::Text("a".into()), continuation: Continuation::Text("b".into()) };
        assert!(matches!(plain.check_score(&[score]), Err(Error::Unsupported { .. })));
        assert!(matches!(plain.check_embed(&["a".into()]), Err(Error::Unsupported { .. })));
        let many = Capabilities { logprobs: true, top_logprobs: 5, ..plain };
        let said = refusal(&many, |r| {
            r.logprobs = true;
            r.top_logprobs = 6;
        });
        assert!(said.contains("6 asked for, it gives at most 5"), "{said}");
    }

    #[test]
    fn settings_out_of_range_name_request_and_field() {
        let able = Capabilities { extended_sampling: true, seeds: true, ..Capabilities::default() };
        assert_eq!(refusal(&able, |_| {}), "accepted");
        for (change, words) in [
            (
                (|r| r.sampling.temperature = Some(-0.1)) as fn(&mut GenerateRequest),
                "request 1: temperature: needs a number of at least 0, got -0.1",
            ),
            (
                |r| r.sampling.temperature = Some(f32::NAN),
                "request 1: temperature: needs a number of at least 0, got NaN",
            ),
            (
                |r| r.sampling.top_p = Some(0.0),
                "request 1: top_p: needs a number above 0 and at most 1, got 0",
            ),
            (|r| r.sampling.min_p = Some(1.5), "request 1: min_p: needs a number from 0 to 1, got 1.5"),
            (|r| r.sampling.top_k = Some(0), "request 1: top_k: needs at least 1, got 0"),
            (|r| r.sampling.max_tokens = Some(0), "request 1: max_tokens: needs at least 1, got 0"),
            (
                |r| r.sampling.stop = vec![String::new()],
                "request 1: stop: needs texts that are not empty, got \"\"",
            ),
            (|r| r.n = 0, "request 1: n: needs at least 1, got 0"),
            (|r| r.top_logprobs = 2, "request 1: top_logprobs: needs logprobs to be on, got 2"),
            (|r| r.prompt = Prompt::chat(vec![]), "request 1: empty prompt"),
        ] {
            assert_eq!(refusal(&able, change), words);
        }
    }
}
