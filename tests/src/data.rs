//! Test data that is too large for the repository and lies beside the checkout.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Returns the path of a file in `shared/data`, beside the checkout or beside a folder that
/// contains it.
///
/// Returns `None` if the file is missing; the test must then end, and a message says that it was
/// skipped.
///
/// # Panics
/// If the file is missing where it is required: with `DEED_REQUIRE_SHARED=1` or `CI=true`.
#[must_use]
pub fn shared(name: &str) -> Option<PathBuf> {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.find_map(|folder| {
        let path = folder.join("shared/data").join(name);
        path.exists().then_some(path)
    });
    if found.is_some() {
        return found;
    }
    let is = |name, value| env::var(name).is_ok_and(|found| found == value);
    assert!(
        !is("DEED_REQUIRE_SHARED", "1") && !is("CI", "true"),
        "shared/data/{name} is missing, and must be there"
    );
    // `eprintln!` would not do: the output of a test that passes is not shown.
    let _ = writeln!(io::stderr(), "SKIPPED: shared/data/{name} is not there");
    None
}
