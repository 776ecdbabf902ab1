//! Properties that hold for every world, and the sandbox under attack.

mod attacks;
mod properties;
mod sandbox;
