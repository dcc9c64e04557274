//! Proofs as files, verified offline.

use std::{
    fs,
    path::{Path, PathBuf},
};

use deed_tests::{files, process::Ended};

use crate::{DOES_NOT_VERIFY, OK, Set, USAGE, expect_failure, object};

/// Files with proof, entry and policy of leaf 7.
struct Proven {
    proof: PathBuf,
    entry: PathBuf,
    policy: PathBuf,
}

impl Proven {
    fn new(set: &Set, options: &[&str]) -> Self {
        let deed = &set.deed;
        let [proof, entry, policy] =
            ["7.tlog-proof", "7.entry", "policy"].map(|name| deed.file(name));
        let outputs = [
            "--out",
            proof.to_str().unwrap(),
            "--entry-out",
            entry.to_str().unwrap(),
        ];
        let arguments = ["prove", "--index", "7"].into_iter().chain(outputs);
        deed.run(arguments.chain(options.iter().copied()))
            .expect_code(OK);
        let shown = object(&deed.run(["--json", "ledger", "show"]).expect_code(OK));
        let vkey = shown["vkey"].as_str().unwrap();
        fs::write(&policy, format!("log {vkey}\nquorum none\n")).unwrap();
        Self {
            proof,
            entry,
            policy,
        }
    }

    fn verify(&self, set: &Set) -> Ended {
        let [proof, entry, policy] =
            [&self.proof, &self.entry, &self.policy].map(|path| path.to_str().unwrap());
        set.deed.run([
            "verify", proof, "--entry", entry, "--policy", policy, "--json",
        ])
    }

    fn at(other: &Self) -> Self {
        Self {
            proof: other.proof.clone(),
            entry: other.entry.clone(),
            policy: other.policy.clone(),
        }
    }
}

#[test]
fn proofs_verify_offline_and_not_with_one_byte_changed() {
    let mut set = Set::up();
    set.fill(30);
    for options in [&["--size", "8"][..], &["--size", "20"], &[]] {
        let proven = Proven::new(&set, options);
        let verified = object(&proven.verify(&set).expect_code(OK));
        let size = options.last().map_or(31, |size| size.parse().unwrap());
        assert_eq!(verified["tree_size"], size);
    }
    let proven = Proven::new(&set, &[]);
    // The check works without a server, and without trusted state.
    set.server.kill();
    set.deed = set.deed.at("http://127.0.0.1:1");
    fs::rename(set.deed.state(), set.deed.file("elsewhere")).unwrap();
    object(&proven.verify(&set).expect_code(OK));

    let changed = |path: &Path, offset: usize| {
        let right = fs::read(path).unwrap();
        files::flip(path, offset);
        let ended = proven.verify(&set);
        fs::write(path, right).unwrap();
        ended
    };
    // Every byte of the entry is changed, and every third one of the proof.
    for offset in 0..fs::read(&proven.entry).unwrap().len() {
        expect_failure(changed(&proven.entry, offset), DOES_NOT_VERIFY);
    }
    for offset in (0..fs::read(&proven.proof).unwrap().len()).step_by(3) {
        expect_failure(changed(&proven.proof, offset), DOES_NOT_VERIFY);
    }
    // A changed policy is malformed, or trusts another key.
    let policy = fs::read_to_string(&proven.policy).unwrap();
    let (name, key) = (
        policy.find("deed-").unwrap(),
        policy.find('+').unwrap() + 20,
    );
    for offset in [0, name + 6, key] {
        let ended = changed(&proven.policy, offset);
        assert!(
            [Some(DOES_NOT_VERIFY), Some(USAGE)].contains(&ended.code()),
            "{ended:#?}"
        );
        assert!(ended.stdout.is_empty(), "{ended:#?}");
    }
    object(&proven.verify(&set).expect_code(OK));

    // The policy is another log's, the entry another leaf's, or a file is missing.
    let other = Set::up();
    other.fill(10);
    let others = Proven::new(&other, &[]);
    let foreign = Proven {
        policy: others.policy.clone(),
        ..Proven::at(&proven)
    };
    expect_failure(foreign.verify(&set), DOES_NOT_VERIFY);
    let foreign = Proven {
        entry: others.entry.clone(),
        ..Proven::at(&proven)
    };
    expect_failure(foreign.verify(&set), DOES_NOT_VERIFY);
    let missing = Proven {
        entry: set.deed.file("missing"),
        ..Proven::at(&proven)
    };
    expect_failure(missing.verify(&set), USAGE);
}
