//! Methods that improve prompts and other texts with feedback.

pub mod apohf;
