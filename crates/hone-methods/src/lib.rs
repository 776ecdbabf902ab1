//! Published methods that learn from feedback, each in one file, and the one list of them.
//!
//! Knows nothing of HTTP, SQL or the command line.

pub mod bench;
pub mod catalogue;
pub mod critique;
pub mod data;
pub mod docs;
pub mod error;
pub mod eval;
pub mod evaluate;
pub mod imitate;
pub mod improve;
pub mod method;
pub mod oracle;
pub mod order;
pub mod policy;
pub mod preference;
pub mod pretrain;
pub mod recipe;
pub mod refine;
pub mod reinforce;
pub mod report;
pub mod reproduce;
pub mod reward;
pub mod search;
pub mod simulate;
pub mod steer;
pub mod templates;
pub mod tiny;
pub mod train;

pub use catalogue::{METHODS, find, search};
pub use error::{Error, Result};
pub use method::{Claim, Family, Job, Method, Needs, Product};
pub use policy::Policy;
