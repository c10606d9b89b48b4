#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sluice_tests::request_head(bytes));
