//! The first ten minutes of the README: its commands as they stand there, from the second terminal on.

use crate::story::User;

const README: &str = include_str!("../../../README.md");

#[test]
fn the_first_ten_minutes_of_the_readme() {
    let (_, page) = README
        .split_once("\nIn a second terminal")
        .expect("where they begin");
    let (page, _) = page
        .split_once("\n`deed audit` replays")
        .expect("where they end");
    let commands: Vec<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();

    let user = User::new();
    // The last one verifies a forged entry, and does not.
    let ended = user.try_run(&commands.join("\n")).expect_code(1);
    for shown in [
        "state      waiting for approval, decision",
        "cleared (Clearance at leaf 10)",
        "act 1  leaf 7, completed",
        "no findings follow from these entries",
        "verified      inclusion, head signature, author's signature, key's standing",
    ] {
        assert!(ended.stdout.contains(shown), "{shown}: {ended:#?}");
    }
    let forged = "does not verify: 7.tlog-proof";
    assert!(ended.stderr.contains(forged), "{ended:#?}");
    user.ends();
}
