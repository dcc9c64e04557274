//! Audits of whole ledgers, from a server and from a mirror.

use std::{fs, path::PathBuf};

use deed_tests::{http::Http, run};
use deed_tlog::{EntryBundleId, TILE_WIDTH};

use crate::{DOES_NOT_VERIFY, OK, Set, USAGE, expect_failure, object};

/// More entries than a full bundle.
const INTENTS: usize = 300;

/// Copies a log as the script in docs/auditors.md does, with a policy for it. Returns the directory and
/// the policy's file.
fn mirror(set: &Set) -> (PathBuf, PathBuf) {
    let shown = object(&set.deed.run(["--json", "head"]).expect_code(OK));
    let size = shown["size"].as_u64().unwrap();
    let dir = set.deed.file("mirror");
    run(async {
        let mut http = Http::connect(set.server.address()).await;
        let mut paths = vec!["checkpoint".to_owned()];
        for index in 0..size.div_ceil(u64::from(TILE_WIDTH)) {
            let left = size - index * u64::from(TILE_WIDTH);
            let width = u16::try_from(left.min(u64::from(TILE_WIDTH))).unwrap();
            paths.push(EntryBundleId::new(index, width).unwrap().path());
        }
        for path in paths {
            let body = http.fetch(&format!("/logs/payments/{path}")).await;
            let file = dir.join(&path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, body).unwrap();
        }
    });
    let ledger = object(&set.deed.run(["--json", "ledger", "show"]).expect_code(OK));
    let vkey = ledger["vkey"].as_str().unwrap();
    let policy = set.deed.file("policy");
    fs::write(&policy, format!("log {vkey}\nquorum none\n")).unwrap();
    (dir, policy)
}

#[test]
fn a_ledger_holds_from_a_server_and_from_a_mirror() {
    let set = Set::up();
    set.fill(INTENTS);
    let from_server = object(&set.deed.run(["--json", "audit"]).expect_code(OK));
    assert_eq!(from_server["holds"], true, "{from_server}");
    assert_eq!(from_server["entries"]["intent"], INTENTS);
    assert_eq!(from_server["entries"]["genesis"], 1);
    let text = set.deed.run(["audit"]).expect_code(OK).stdout;
    assert!(text.starts_with("everything holds\n"), "{text}");

    let (dir, policy) = mirror(&set);
    let (dir, policy) = (dir.to_str().unwrap(), policy.to_str().unwrap());
    let audit = ["--json", "audit", "--dir", dir, "--policy", policy];
    let from_mirror = object(&set.deed.run(audit).expect_code(OK));
    assert_eq!(from_mirror, from_server);
    set.server.stop();
    // The audit does not ask for confirmation.
    set.deed.run(audit).expect_code(OK);
}

#[test]
fn a_mirror_that_was_changed_does_not_verify() {
    let set = Set::up();
    set.fill(INTENTS);
    let (dir, policy) = mirror(&set);
    let bundle = dir.join("tile/entries/000");
    let audit = [
        "audit",
        "--dir",
        dir.to_str().unwrap(),
        "--policy",
        policy.to_str().unwrap(),
    ];
    let whole = fs::read(&bundle).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&bundle, &changed).unwrap();
    let error = expect_failure(set.deed.run(audit), DOES_NOT_VERIFY);
    assert!(
        error.contains("not those that the signed head commits to"),
        "{error}"
    );
    fs::write(&bundle, &whole[..whole.len() - 1]).unwrap();
    expect_failure(set.deed.run(audit), DOES_NOT_VERIFY);
    fs::remove_file(&bundle).unwrap();
    expect_failure(set.deed.run(audit), USAGE);
    fs::write(&bundle, &whole).unwrap();
    set.deed.run(audit).expect_code(OK);
    // The policy trusts another log.
    let other = "log example.org/logs/x+40f4a01a+AXIEf8z7LMKHd5iH3Kb7sJ0AR4dn8DbcEDfE3JDdhuEF\nquorum none\n";
    fs::write(&policy, other).unwrap();
    expect_failure(set.deed.run(audit), USAGE);
}
