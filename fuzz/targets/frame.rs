//! Hostile bytes against `continuum_tests::fuzzing::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| continuum_tests::fuzzing::frame(input));
