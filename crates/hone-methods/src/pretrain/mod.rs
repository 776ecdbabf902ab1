//! The built-in model, made from the worlds.
