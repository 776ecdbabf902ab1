//! Tasks with an oracle, simulated people, and the sandbox that runs model-written code.
//!
//! A [`World`] makes tasks from a seed. A [`Task`] knows its prompt, a reference answer, whether any answer is
//! right, what is first wrong in it and how to say so, and how to spoil its own reference on purpose. Everything
//! is exact and seeded: the same world, level and seed give the same task on every machine.
//!
//! | world | what is asked | module |
//! |---|---|---|
//! | `sums` | arithmetic in written steps | [`sums`] |
//! | `programs` | small Python functions with tests | [`programs`] |
//! | `notes` | short messages with required and forbidden features | [`notes`] |
//! | `lists` | ranking items for a user, search with facets | [`lists`] |
//!
//! [`people`] turns answers to these tasks into feedback with known noise; [`sandbox`] runs programs nobody has
//! read. This crate knows no training method and no storage.

pub mod error;
pub mod lists;
pub mod notes;
pub mod people;
pub mod programs;
pub mod roles;
pub mod sandbox;
pub mod seed;
pub mod sums;
pub mod world;

pub use error::{Error, Result};
pub use world::{Check, Detail, Flaw, Place, Planted, Task, World, world, worlds};
