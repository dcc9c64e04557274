//! Test data that is too large for the repository and lies beside the checkout.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// The path of a file in `shared/data`, beside the checkout or beside a folder that it is in.
///
/// `None` if it is not there; the test must then end, and says visibly that it was skipped.
///
/// # Panics
/// If it is not there where it has to be: with `DEED_REQUIRE_SHARED=1` or `CI=true`.
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
    // Not `eprintln!`: what that prints in a test that passes is shown to nobody.
    let _ = writeln!(io::stderr(), "SKIPPED: shared/data/{name} is not there");
    None
}
