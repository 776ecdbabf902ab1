//! All that stands between a prompt and a language model: tokenizers, chat templates, constrained decoding, endpoints.

mod error;
pub mod message;
pub mod template;
pub mod tokenizer;

pub use error::{Error, Result};
pub use message::Message;
pub use template::{ChatTemplate, RenderOptions};
pub use tokenizer::Tokenizer;
