//! Where the test vectors that are not part of the project are found.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The folder `shared/data/vectors/<name>`, beside the workspace or beside a folder that it is in.
/// Without it the test says so and passes, except where it has to be there: with
/// `DEED_REQUIRE_SHARED=1` or `CI=true`.
pub(crate) fn vectors(name: &str) -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut folders = above.map(|folder| folder.join("shared/data/vectors").join(name));
    let is_set = |variable: &str, to: &str| std::env::var(variable).is_ok_and(|value| value == to);
    let is_required = is_set("DEED_REQUIRE_SHARED", "1") || is_set("CI", "true");
    let missing = Path::new("shared/data/vectors").join(name);
    let found = folders.find(|folder| folder.is_dir());
    find(found.unwrap_or(missing), is_required)
}

fn find(folder: PathBuf, is_required: bool) -> Option<PathBuf> {
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(
        !is_required,
        "{} is missing, and required here",
        folder.display()
    );
    // Not eprintln, which the test harness keeps to itself while a test passes.
    let notice = format!("SKIPPED: no test vectors at {}\n", folder.display());
    std::io::stderr().write_all(notice.as_bytes()).unwrap();
    None
}

#[test]
#[should_panic(expected = "is missing, and required here")]
fn what_is_missing_and_required_fails() {
    find("no such folder".into(), true);
}
