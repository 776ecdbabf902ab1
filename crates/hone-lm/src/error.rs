//! What can go wrong between a prompt and an answer.

use std::path::PathBuf;
use std::time::Duration;

/// Errors of this crate. Every message says where, what was needed and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that is not there or cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file that is not JSON, or whose field has the wrong form.
    #[error("{}: {field}: needs {needed}, got {got}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Field, dotted; `line L column C` for text that is not JSON at all.
        field: String,
        /// What was needed.
        needed: &'static str,
        /// What came.
        got: String,
    },
    /// `tokenizer.json` that the tokenizer library refuses.
    #[error("{}: not a tokenizer: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        message: String,
    },
    /// Text or ids that the tokenizer cannot turn into the other.
    #[error("tokenizer: {0}")]
    Tokenize(String),
    /// A tokenizer with ids that the model has no row for.
    #[error(
        "tokenizer does not fit the model: token {token:?} has id {id}, the model's vocab_size is {vocab_size}"
    )]
    Vocabulary {
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
    },
    /// A special token that is named in a configuration and unknown to the tokenizer.
    #[error("{}: {field}: token {token:?} is not in the tokenizer", path.display())]
    UnknownSpecialToken {
        /// The file that names it.
        path: PathBuf,
        /// The field that names it.
        field: String,
        /// The token.
        token: String,
    },
    /// A chat was given and the model folder has no template.
    #[error("{}: no chat template: needs chat_template.jinja or chat_template in tokenizer_config.json", path.display())]
    NoTemplate {
        /// The model folder.
        path: PathBuf,
    },
    /// Several named templates and none that fits.
    #[error("chat template {wanted:?} does not exist; there are {known:?}")]
    TemplateName {
        /// The name asked for.
        wanted: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A template that does not parse or fails while it renders.
    #[error("chat template {name}, line {line}: {message}")]
    Template {
        /// Which template.
        name: String,
        /// Line in it, from 1; 0 where unknown.
        line: usize,
        /// What failed.
        message: String,
    },
    /// The template called `raise_exception`: it refuses this conversation.
    #[error("chat template {name} refuses the conversation: {message}")]
    TemplateRefused {
        /// Which template.
        name: String,
        /// Its own words.
        message: String,
    },
    /// A message without a role, or that is no object.
    #[error("message {index}: needs {needed}, got {got}")]
    Message {
        /// Index in the conversation, from 0.
        index: usize,
        /// What was needed.
        needed: &'static str,
        /// What came.
        got: String,
    },
    /// A template whose text for a message changes once later messages follow, so masks cannot be built from prefixes.
    #[error(
        "chat template {name}: the text up to message {message} changes when later messages follow; \
         mark the assistant's text with {{% generation %}} or train on the last message only"
    )]
    NotIncremental {
        /// Which template.
        name: String,
        /// Index of the assistant message, from 0.
        message: usize,
    },
    /// A template whose `{% generation %}` text is changed after it was rendered, so its position is unknown.
    #[error("chat template {name}: text inside {{% generation %}} is changed by a filter outside it")]
    GenerationMoved {
        /// Which template.
        name: String,
    },
    /// A loss mask with no target in it.
    #[error("the loss mask covers none of the {tokens} tokens: nothing would be learned")]
    EmptyMask {
        /// Tokens in the sequence.
        tokens: usize,
    },
    /// An assistant turn that ends outside the mask or without a stop token: generation would never end.
    #[error(
        "assistant turn {turn}: the mask ends at token {last} {last_text:?}, none of the stop tokens {stops:?}: \
         a model trained on it never learns to stop"
    )]
    StopOutsideMask {
        /// Which run of the mask, from 0.
        turn: usize,
        /// Id of the last masked token.
        last: u32,
        /// Its text.
        last_text: String,
        /// The stop tokens.
        stops: Vec<String>,
    },
    /// A request with nothing in it.
    #[error("request {index}: empty {what}")]
    Empty {
        /// Index in the batch, from 0.
        index: usize,
        /// `prompt`, `continuation`, `text`.
        what: &'static str,
    },
    /// A prompt that leaves no room to answer, or a text that does not fit.
    #[error("request {index}: {tokens} tokens asked for, the model's context holds {context}")]
    TooLong {
        /// Index in the batch, from 0.
        index: usize,
        /// Tokens of the prompt, and of the continuation where one is scored.
        tokens: usize,
        /// Tokens the model holds.
        context: usize,
    },
    /// A setting outside its range.
    #[error("request {index}: {field}: needs {needed}, got {got}")]
    Setting {
        /// Index in the batch, from 0.
        index: usize,
        /// The setting.
        field: &'static str,
        /// What was needed.
        needed: &'static str,
        /// What came.
        got: String,
    },
    /// Something this model cannot do.
    #[error("{model} cannot {what}: {why}")]
    Unsupported {
        /// Model and, for an endpoint, where it is.
        model: String,
        /// What was asked for.
        what: &'static str,
        /// Why not, and what would help.
        why: String,
    },
    /// A schema, expression or grammar that cannot constrain decoding.
    #[error("constraint: {0}")]
    Constraint(String),
    /// An endpoint that could not be set up.
    #[error("endpoint {url}: {message}")]
    Endpoint {
        /// Base address, without credentials.
        url: String,
        /// What is wrong.
        message: String,
    },
    /// A request that the endpoint refused for good.
    #[error("endpoint {url}: status {status}: {body}")]
    Status {
        /// Address of the call.
        url: String,
        /// HTTP status.
        status: u16,
        /// Start of the body, without the key.
        body: String,
    },
    /// A request that failed on every try.
    #[error("endpoint {url}: given up after {attempts} tries: {last}")]
    GaveUp {
        /// Address of the call.
        url: String,
        /// Tries made.
        attempts: u32,
        /// How the last one failed.
        last: String,
    },
    /// An answer that lacks what was asked for.
    #[error("endpoint {url}: answer: {field}: needs {needed}, got {got}")]
    Answer {
        /// Address of the call.
        url: String,
        /// Field of the answer.
        field: &'static str,
        /// What was needed.
        needed: String,
        /// What came.
        got: String,
    },
    /// A wait that took longer than allowed.
    #[error("{what}: no end after {limit:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// The caller cancelled before there was an answer.
    #[error("cancelled")]
    Cancelled,
    /// The built-in engine failed.
    #[error("engine: {0}")]
    Engine(String),
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One word for the form of a JSON value, for messages.
pub(crate) fn form(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(s) if s.chars().count() > 60 => "a long string".into(),
        Value::String(s) => format!("{s:?}"),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}
