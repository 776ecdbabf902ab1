#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hone_fuzz::exercise_family(bytes, "argilla"));
