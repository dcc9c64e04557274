#![no_main]

#[path = "../bodies/assess.rs"]
mod body;
#[path = "../../tests/it/ledger.rs"]
mod ledger;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
