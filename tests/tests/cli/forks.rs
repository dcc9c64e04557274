//! Forks: every command notices them, and evidence is kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use deed_tests::{
    files,
    process::{Deed, ServerProcess},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use deed_tlog::{Checkpoint, VerifierKey};
use serde_json::Value;
use tempfile::TempDir;

use crate::{DOES_NOT_VERIFY, OK, expect_failure, intents, object};

/// A server whose directory was copied, and the copy, which went on differently.
struct Fork {
    deed: Deed,
    honest: PathBuf,
    forked: PathBuf,
    _dir: TempDir,
}

impl Fork {
    /// Makes a fork. The user trusts the honest head of 30 leaves; the other history has `forked`
    /// leaves after the 11 that both share.
    async fn new(forked: usize) -> Self {
        let dir = TempDir::new().unwrap();
        let [data, copy] = ["honest", "forked"].map(|name| dir.path().join(name));
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(10))
            .await;
        let deed = Deed::new(&server.url(), "payments");
        deed.run(["head"]).expect_code(OK);
        server.stop();
        files::copy(&data, &copy);
        for (directory, session, count) in [(&data, 2, 19), (&copy, 3, forked)] {
            let server = ServerProcess::start(directory);
            let clients = Clients::connect(&server).await;
            if count > 0 {
                let payloads = Producer::new(ledger.id, session).intents(count);
                ledger.append(&clients, &payloads).await;
            }
            server.stop();
        }
        let server = ServerProcess::start(&data);
        let deed = deed.at(&server.url());
        let head = object(&deed.run(["--json", "head"]).expect_code(OK));
        assert_eq!(head["size"], 30);
        server.stop();
        Self {
            deed,
            honest: data,
            forked: copy,
            _dir: dir,
        }
    }

    /// Returns all files of the user's state whose names begin like this.
    fn kept(&self, beginning: &str) -> Vec<PathBuf> {
        let state = self.deed.state();
        let files = files::files(&state).into_iter();
        let named = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(beginning))
        };
        files.filter(named).map(|path| state.join(path)).collect()
    }
}

/// Returns the two signed heads of a file of evidence, verified by the key that it names.
fn heads_in(evidence: &Path) -> [Checkpoint; 2] {
    let text = fs::read_to_string(evidence).unwrap();
    let evidence: Value = serde_json::from_str(&text).unwrap();
    let text = |name: &str| {
        evidence[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}: {evidence}"))
    };
    let vkey: VerifierKey = text("vkey").parse().unwrap();
    ["older_checkpoint", "newer_checkpoint"].map(|name| {
        let (checkpoint, _) = Checkpoint::open(text(name).as_bytes(), &vkey).unwrap();
        assert_eq!(checkpoint.origin.as_str(), text("origin"));
        checkpoint
    })
}

#[test]
fn forks_are_noticed_and_their_evidence_is_kept() {
    run(async {
        // The other history is longer than the trusted head, as long, shorter, or nothing but the
        // shared prefix.
        for (forked, size) in [(40, 51), (19, 30), (4, 15), (0, 11)] {
            let mut fork = Fork::new(forked).await;
            let trusted = fork.kept("checkpoint");
            assert_eq!(trusted.len(), 1);
            let trusted_note = fs::read(&trusted[0]).unwrap();
            assert!(fork.kept("fork-").is_empty());

            let server = ServerProcess::start(&fork.forked);
            fork.deed = fork.deed.at(&server.url());
            let words = expect_failure(fork.deed.run(["head"]), DOES_NOT_VERIFY);
            assert!(words.contains("fork"), "{words}");
            let evidence = fork.kept("fork-");
            assert_eq!(evidence.len(), 1, "{words}");
            assert!(
                words.contains(evidence[0].to_str().unwrap()),
                "it says where: {words}"
            );
            let mut sizes = heads_in(&evidence[0]).map(|checkpoint| checkpoint.head.size.get());
            sizes.sort_unstable();
            let mut wanted = [30, size];
            wanted.sort_unstable();
            assert_eq!(sizes, wanted, "both heads, verbatim");
            let [older, newer] = heads_in(&evidence[0]);
            assert_ne!(older.head.root, newer.head.root);

            // Every other command notices it, too; nothing is trusted, and nothing overwritten.
            let first = fs::read(&evidence[0]).unwrap();
            for command in [
                &["entry", "11"][..],
                &["ledger", "show"],
                &["follow", "--heads", "1"],
            ] {
                if size == 11 && command[0] == "entry" {
                    continue;
                }
                expect_failure(fork.deed.run(command), DOES_NOT_VERIFY);
            }
            let appended = fork.deed.run_with(["append"], &intents(1));
            assert_eq!(appended.code(), Some(DOES_NOT_VERIFY), "{appended:#?}");
            assert_eq!(fs::read(&evidence[0]).unwrap(), first);
            assert_eq!(
                fs::read(&trusted[0]).unwrap(),
                trusted_note,
                "what is trusted stays"
            );
            server.stop();

            // The honest history is still trusted, and the evidence of the fork is still there.
            let server = ServerProcess::start(&fork.honest);
            fork.deed = fork.deed.at(&server.url());
            let ended = fork.deed.run(["head"]).expect_code(OK);
            assert!(ended.stderr.contains("fork"), "{ended:#?}");
            server.stop();
        }
    });
}
