//! Protocols that measure feedback and what comes of it, each a method whose product is named figures.
//!
//! A protocol runs against any [`hone_lm::LanguageModel`]. What it finds is [`Measures`]; its items are kept in a
//! [`journal::Journal`] as they are done, so that an interrupted run goes on where it stopped.

pub mod journal;
mod measures;

pub use measures::{Figure, Measures};
