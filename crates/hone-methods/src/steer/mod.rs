//! Methods that edit weights after training: scaling of what training changed, and merging of several trainings.

pub mod depth;
pub mod lines;
pub mod merging;
