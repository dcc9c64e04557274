//! Servers that lie about what a ledger means: everything about the log verifies, and only what it is
//! said to say is false.

mod tool;

use deed_tests::process::Ended;

const OK: i32 = 0;

/// What a command printed to stdout, every run of white space as one space: lines are broken where they
/// are full.
fn words(ended: &Ended) -> String {
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    words.join(" ")
}
