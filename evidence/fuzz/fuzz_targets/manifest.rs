#![no_main]

#[path = "../oracle.rs"]
#[allow(dead_code, reason = "its rules of statements are another target's")]
mod oracle;

#[path = "../bodies/manifest.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
