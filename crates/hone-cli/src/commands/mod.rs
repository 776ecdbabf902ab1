//! One file per subcommand.

pub mod check;
pub mod convert;
pub mod generate;
pub mod model;
pub mod score;
pub mod simulate;
