#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "its rules of manifests are another target's")]
mod oracle;

#[path = "../bodies/statement.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
