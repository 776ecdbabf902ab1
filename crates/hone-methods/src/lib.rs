//! Published methods that learn from feedback, each in one file, and the one list of them.
//!
//! Knows nothing of HTTP, SQL or the command line.

pub mod error;
pub mod eval;
pub mod pretrain;

pub use error::{Error, Result};
