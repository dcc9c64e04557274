#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| deed_engine::bench::fuzz_admitted_batch(data));
