//! One trait for language models, [`LanguageModel`], and all that stands between a prompt and it: tokenizers, chat
//! templates, constrained decoding, endpoints.

mod cancel;
pub mod constrain;
pub mod endpoint;
mod error;
pub mod local;
pub mod message;
pub mod model;
pub mod template;
pub mod tokenizer;

pub use cancel::Cancel;
pub use constrain::Constrainer;
pub use endpoint::{Endpoint, EndpointConfig};
pub use error::{Error, Result};
pub use local::{Local, LocalOptions};
pub use message::Message;
pub use model::{
    Capabilities, Constraint, Continuation, Event, FinishReason, GenerateRequest, Generation, LanguageModel,
    Prompt, Sample, Sampling, ScoreRequest, Scored, Token, Usage,
};
pub use template::{ChatTemplate, RenderOptions};
pub use tokenizer::Tokenizer;
