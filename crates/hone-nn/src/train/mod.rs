//! Training: from batches and a loss to new weights, with everything a run needs to stop and go on.
//!
//! [`Trainer`] owns the model, the optimiser and the counters; [`batches`] decides what goes into a step;
//! [`checkpoint`] writes all of it down so that a run resumes to the same numbers; [`memory`] says beforehand whether
//! it fits.

pub mod adamw;
pub mod batches;
pub mod checkpoint;
pub mod ema;
pub mod events;
pub mod log;
pub mod memory;
pub mod schedule;
pub mod seed;
mod tensors;
#[cfg(test)]
mod tests;
pub mod trainer;

pub use adamw::{AdamW, AdamWSettings, Decay};
pub use ema::Ema;
pub use log::RunLog;
pub use schedule::{Decline, Schedule, Shape, WarmUp};
pub use trainer::{StepReport, Trainer, TrainerSettings};

use crate::model::{Model, Segment, Store};

/// Weights of one trained tensor.
pub(crate) fn segment_weights<'a>(model: &'a Model, segment: &Segment) -> &'a [f32] {
    let store = match (segment.store, &model.adapter) {
        (Store::Adapter, Some(adapter)) => &adapter.params.data,
        _ => &model.params.data,
    };
    &store[segment.param.clone()]
}
