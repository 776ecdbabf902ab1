//! What can go wrong while sampling.

/// Failures of sampling. `request` is the index in the slice given to [`super::Engine::generate`], or the number of a
/// submitted request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SampleError {
    /// A field of a request is outside its range.
    #[error("request {request}: `{field}`: needs {needed}, got {got}")]
    Field {
        /// Which request.
        request: usize,
        /// Name of the field.
        field: &'static str,
        /// What would have been accepted.
        needed: String,
        /// What came.
        got: String,
    },
    /// The model produced a number that is not finite.
    #[error(
        "request {request}, sample {sample}: logits after {tokens} tokens are not finite (token {token}: {value}); are the weights sound?"
    )]
    NotFinite {
        /// Which request.
        request: usize,
        /// Which of its samples.
        sample: usize,
        /// Tokens read before, prompt included.
        tokens: usize,
        /// First token with such a logit.
        token: u32,
        /// The logit.
        value: f32,
    },
    /// The request's cache can never fit the engine's limit.
    #[error(
        "request {request}: `max_tokens`, `n`: needs a cache of {needed} bytes, the engine's limit is {limit} bytes"
    )]
    Memory {
        /// Which request.
        request: usize,
        /// Bytes of cache that the prompt and all samples may come to need.
        needed: usize,
        /// The engine's limit, [`super::Options::cache_bytes`].
        limit: usize,
    },
    /// A constraint failed or left no token to choose.
    #[error("request {request}, sample {sample}: constraint: {problem}")]
    Constraint {
        /// Which request.
        request: usize,
        /// Which of its samples.
        sample: usize,
        /// What the constraint said.
        problem: String,
    },
    /// The model has no next-token distribution.
    #[error("config.json: field `architectures`: needs a language model to sample from, got {0}")]
    NoLanguageHead(String),
    /// A setting of the engine is outside its range.
    #[error("engine: `{field}`: needs {needed}, got {got}")]
    Option {
        /// Name of the setting.
        field: &'static str,
        /// What would have been accepted.
        needed: &'static str,
        /// What came.
        got: usize,
    },
    /// The system did not grant the threads.
    #[error("engine: `threads`: {0}")]
    Threads(String),
    /// The engine was shut down before the request ended.
    #[error("request {request}: the engine stopped before it ended")]
    Stopped {
        /// Which request.
        request: usize,
    },
}
