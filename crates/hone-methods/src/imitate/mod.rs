//! Methods that fine-tune on answers.

pub mod chain_of_hindsight;
pub mod condition;
pub mod general;
pub mod ilf;
pub mod leti;
pub mod rejection_sampling;
pub mod sft;
