//! Sampling: continuing prompts, many at once, with a cache of keys and values.
//!
//! An [`Engine`] packs a model's weights once and then runs any number of [`Request`]s; see there for the settings.
//! A request's text depends on the model, the request and its seed, and on nothing else.

mod attention;
mod cache;
mod constraint;
mod crew;
mod decode;
mod engine;
mod error;
mod packed;
mod request;
mod sampler;
mod sequence;
mod simd;
#[cfg(test)]
mod tests;
mod text;

pub use constraint::{Constraint, TokenMask};
pub use engine::{Cancel, Engine, Handle, Options};
pub use error::SampleError;
pub use request::{Completion, Event, Finish, Request, Sampled, Sampling};
pub use text::Detokenize;
