#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code)] // Its rules of manifests, which another target checks.
mod oracle;

#[path = "../bodies/statement.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
