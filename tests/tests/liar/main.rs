//! Servers that lie about a ledger's assessment: everything about the log verifies, and only the
//! assessment is false.

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

/// Exit code for answers that do not verify.
const DOES_NOT_VERIFY: i32 = 1;

/// Writes a private key to a file of a user; returns its path.
fn key_file(deed: &Deed, name: &str, key: &SigningKey) -> String {
    let path = deed.file(name);
    fs::write(&path, &*key::private_to_pem(key)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Returns the text that a command printed to stdout, with every run of white space as one space:
/// lines are broken where they are full.
fn words(ended: &Ended) -> String {
    in_one_line(&ended.stdout)
}

/// Returns the text on stderr in the same form.
fn told(ended: &Ended) -> String {
    in_one_line(&ended.stderr)
}

fn in_one_line(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ")
}

/// Checks that a command failed because an answer does not verify, for this reason: not because of
/// wrong usage or of a missing server.
#[track_caller]
fn does_not_verify(what: &str, ended: &Ended, says: &str) {
    assert_eq!(ended.code(), Some(DOES_NOT_VERIFY), "{what}: {ended:#?}");
    let told = told(ended);
    assert!(told.contains("does not verify: "), "{what}: {ended:#?}");
    assert!(told.contains(says), "{what}: not {says:?}: {ended:#?}");
}
