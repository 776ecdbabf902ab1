//! Methods that fine-tune on answers.

pub mod ilf;
pub mod rejection_sampling;
pub mod sft;
