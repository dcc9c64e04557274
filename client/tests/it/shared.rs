//! Test data that is too large for the repository, and lies beside the checkout.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// A file of `shared/data`, beside the checkout or beside a folder that it is in. Without it the test
/// says so and passes, except where it has to be there: with `DEED_REQUIRE_SHARED=1` or `CI=true`.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = above.find_map(|folder| {
        let path = folder.join("shared/data").join(name);
        path.exists().then_some(path)
    });
    let is_set = |variable: &str, to: &str| std::env::var(variable).is_ok_and(|value| value == to);
    assert!(
        found.is_some() || !(is_set("DEED_REQUIRE_SHARED", "1") || is_set("CI", "true")),
        "shared/data/{name} is missing, and must be there"
    );
    if found.is_none() {
        // Not `eprintln!`: what that prints in a test that passes is shown to nobody.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: shared/data/{name} is not there"
        );
    }
    found
}
