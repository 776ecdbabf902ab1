//! The words, their conversions, the formats and the doctor, from outside.

mod bad_logs;
mod convert;
mod doctor;
mod formats;
mod fuzz;
mod harness;
mod words;
