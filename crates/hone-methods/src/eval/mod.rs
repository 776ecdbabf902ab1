//! How good a model is on a world or on a file of tasks.
