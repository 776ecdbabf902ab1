//! Training: from batches and a loss to new weights, with everything a run needs to stop and go on.
//!
//! [`Trainer`] owns the model, the optimiser and the counters; [`batches`] decides what goes into a step;
//! [`checkpoint`] writes all of it down so that a run resumes to the same numbers; [`memory`] says beforehand whether
//! it fits.

pub mod adamw;
pub mod batches;
pub mod schedule;
pub mod seed;

pub use adamw::{AdamW, AdamWSettings, Decay};
pub use schedule::{Decline, Schedule, Shape, WarmUp};
