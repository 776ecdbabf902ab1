//! The words, their conversions, the formats and the doctor, from outside.

mod convert;
mod words;
