//! Servers that lie about what a ledger means: everything about the log verifies, and only what it is
//! said to say is false.

mod approving;
mod clearances;
mod proofs;
mod stories;
mod times;
mod tool;

use std::{fs, os::unix::fs::PermissionsExt as _};

use deed_client::key;
use deed_tests::process::{Deed, Ended};
use deed_tlog::SigningKey;

const OK: i32 = 0;

/// Marks of what nobody here has checked; in lower case.
const SERVERS_WORD: [&str; 4] = [
    "not checked",
    "server's word",
    "by the server",
    "the server names",
];

/// A private key as a file of a user; its path.
fn key_file(deed: &Deed, name: &str, key: &SigningKey) -> String {
    let path = deed.file(name);
    fs::write(&path, &*key::private_to_pem(key)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// The text that a command printed to stdout, every run of white space as one space: lines are
/// broken where they are full.
fn words(ended: &Ended) -> String {
    let words: Vec<_> = ended.stdout.split_whitespace().collect();
    words.join(" ")
}
