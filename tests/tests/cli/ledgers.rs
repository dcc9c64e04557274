//! Ledgers: created with a key, listed, shown, and not mistaken for others.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use deed_tests::{files, rpc::authority_key};
use deed_tlog::VerifierKey;

use crate::{DOES_NOT_VERIFY, OK, Set, UNAVAILABLE, USAGE, expect_failure, lines, object};

#[test]
fn ledgers_are_created_listed_and_shown() {
    let set = Set::up();
    let create = |name: &str| set.deed.run(["--json", "ledger", "create", name]);
    let created = object(&create("audit").expect_code(OK));
    for (field, is_right) in [
        ("name", created["name"] == "audit"),
        (
            "origin",
            created["origin"]
                .as_str()
                .is_some_and(|it| it.ends_with("/logs/audit")),
        ),
        (
            "vkey",
            created["vkey"]
                .as_str()
                .is_some_and(|it| it.parse::<VerifierKey>().is_ok()),
        ),
        (
            "ledger_id",
            created["ledger_id"]
                .as_str()
                .is_some_and(|it| it.len() == 64),
        ),
        ("size", created["size"] == 1),
        ("root", created["root"] == created["ledger_id"]),
    ] {
        assert!(is_right, "{field} in {created}");
    }
    // The authority's key was made here, readable only by its owner.
    let key = PathBuf::from(
        created["authority_key_file"]
            .as_str()
            .expect("where the key is"),
    );
    assert!(key.starts_with(set.deed.state()), "{}", key.display());
    for (path, expected) in [(key.as_path(), 0o600), (key.parent().unwrap(), 0o700)] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{}", path.display());
    }

    let shown = object(
        &set.deed
            .run(["ledger", "show", "audit", "--json"])
            .expect_code(OK),
    );
    for field in ["name", "origin", "vkey", "ledger_id", "size", "root"] {
        assert_eq!(shown[field], created[field], "{field}");
    }
    let listed = lines(&set.deed.run(["ledger", "list", "--json"]).expect_code(OK));
    let names: Vec<_> = listed.iter().map(|ledger| ledger["name"].clone()).collect();
    assert_eq!(names, ["audit", "payments"]);
    assert_eq!(listed[0]["vkey"], created["vkey"]);
    assert!(listed[0].get("origin").is_some() && listed[0].get("root").is_some());
    for command in [["ledger", "list"], ["ledger", "show"], ["ledger", "--help"]] {
        let text = set.deed.run(command).expect_code(OK).stdout;
        assert!(
            !text.is_empty() && !text.starts_with('{'),
            "text for people: {text}"
        );
    }

    // The keys are the user's own: in hex, or in the file that was made before.
    let own = hex::encode(authority_key(9));
    let options = [
        "--authority-key",
        &own,
        "--authority-key",
        key.to_str().unwrap(),
    ];
    let arguments = ["--json", "ledger", "create", "shared"]
        .into_iter()
        .chain(options);
    let created = object(&set.deed.run(arguments).expect_code(OK));
    assert_eq!(created.get("authority_key_file"), None);
    expect_failure(create("audit"), UNAVAILABLE);
    expect_failure(create("No Name"), UNAVAILABLE);
    expect_failure(set.deed.run(["ledger", "show", "nobody"]), UNAVAILABLE);
    for wrong in ["00", "/no/such/file", &"0".repeat(64)] {
        let arguments = ["ledger", "create", "other", "--authority-key", wrong];
        expect_failure(set.deed.run(arguments), USAGE);
    }
}

/// The ledger was created again: same server name, same ledger name, another genesis entry.
#[test]
fn another_ledger_under_the_same_name_is_not_believed() {
    let set = Set::up();
    set.fill(5);
    let other = Set::up();
    other.fill(5);
    // The same user at the other server's address knows neither that server nor the origin yet.
    let shown = object(&set.deed.run(["--json", "ledger", "show"]).expect_code(OK));
    let demand = ["--vkey", shown["vkey"].as_str().unwrap()];
    let url = other.server.url();
    let asked = demand.into_iter().chain(["--server", &url, "head"]);
    expect_failure(set.deed.run(asked), DOES_NOT_VERIFY);
    let asked = demand.into_iter().chain(["head"]);
    set.deed.run(asked).expect_code(OK);
}

#[test]
fn what_is_listed_is_compared_with_what_is_trusted() {
    let set = Set::up();
    let list = || set.deed.run(["--json", "ledger", "list"]);
    let listed = object(&list().expect_code(OK));
    let [origin, id] = ["origin", "ledger_id"].map(|field| listed[field].as_str().unwrap());
    // The user trusted another ledger under this name, or another origin at this server.
    for (name, found, trusted) in [
        ("pin.json", id, "ab".repeat(32)),
        (".json", origin, "elsewhere/logs/payments".to_owned()),
    ] {
        let state = set.deed.state();
        let path = files::files(&state)
            .into_iter()
            .map(|path| state.join(path))
            .find(|path| {
                path.to_string_lossy().ends_with(name)
                    && path.starts_with(state.join("servers")) == (name == ".json")
            })
            .expect("what is trusted");
        let kept = fs::read_to_string(&path).unwrap();
        assert!(kept.contains(found), "{kept}");
        fs::write(&path, kept.replace(found, &trusted)).unwrap();
        let words = expect_failure(list(), DOES_NOT_VERIFY);
        for named in ["payments", found, &trusted] {
            assert!(words.contains(named), "{named} in {words}");
        }
        fs::write(&path, kept).unwrap();
    }
    list().expect_code(OK);
}
