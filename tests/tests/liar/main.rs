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

/// The exit code of what does not verify.
const DOES_NOT_VERIFY: i32 = 1;

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
    in_one_line(&ended.stdout)
}

/// The same of what it told on stderr.
fn told(ended: &Ended) -> String {
    in_one_line(&ended.stderr)
}

fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}

/// A command refused what it was told, as something that does not verify, and for this reason: not
/// because it was called wrongly, or nobody answered.
#[track_caller]
fn does_not_verify(what: &str, ended: &Ended, says: &str) {
    assert_eq!(ended.code(), Some(DOES_NOT_VERIFY), "{what}: {ended:#?}");
    let told = told(ended);
    assert!(told.contains("does not verify: "), "{what}: {ended:#?}");
    assert!(told.contains(says), "{what}: not {says:?}: {ended:#?}");
}
