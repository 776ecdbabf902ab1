//! One file per subcommand.

pub mod check;
pub mod convert;
pub mod critique;
pub mod eval;
pub mod generate;
pub mod improve;
pub mod methods;
pub mod model;
pub mod pretrain;
pub mod prompt;
pub mod refine;
pub mod reproduce;
pub mod run;
pub mod score;
pub mod serve;
pub mod simulate;
pub mod steer;
