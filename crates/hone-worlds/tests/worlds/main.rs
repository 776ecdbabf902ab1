//! Properties that hold for every world, and the sandbox under attack.

mod attacks;
mod people;
mod programs;
mod properties;
mod sandbox;
