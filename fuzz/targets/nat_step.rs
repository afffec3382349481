//! See `fuzz::nat_step`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::nat_step(data));
