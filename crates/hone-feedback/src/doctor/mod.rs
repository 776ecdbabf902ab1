//! The doctor: what a log holds, what is wrong with it, and whether training on it may go on.
//!
//! [`check`] streams over the files once. Memory grows by a few hashes per record, never by its text.

mod check;
mod digest;
mod report;
mod tally;

pub use check::{Settings, check};
pub use report::{Agreement, Finding, Language, Lengths, Report, Source, Usable, Verdict};
