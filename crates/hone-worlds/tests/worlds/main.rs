//! Properties that hold for every world, and the sandbox under attack.

mod properties;
mod sandbox;
