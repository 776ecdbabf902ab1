//! The words that every room of Hone shares: what was asked, what was answered, and what was said about it.
//!
//! A [`Record`] holds one prompt, its responses and every item of [`Feedback`] on them. Around it lie
//! - [`validate`](Record::validate): is a record sound, and if not, which field needs what;
//! - [`convert`]: from each form of feedback to each shape a trainer takes, with the losses counted;
//! - [`formats`]: streaming readers and writers of every file format, found by content;
//! - [`doctor`]: what a log holds, and whether training on it may go on;
//! - [`metrics`]: text metrics and statistics;
//! - [`split`]: the stable split by prompt.
//!
//! The crate knows nothing of tensors, networks or methods.

pub mod convert;
pub mod doctor;
mod error;
mod feedback;
pub mod formats;
pub mod metrics;
mod record;
pub mod split;
pub mod text;
mod validate;

pub use error::{Fault, KEPT, Problem, Problems};
pub use feedback::{Feedback, Form, FormKind};
pub use record::{Content, Message, Prompt, Record, Response};
