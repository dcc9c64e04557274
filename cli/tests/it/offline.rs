//! `deed verify` on files, of ledgers whose operator signs whatever it likes: each part is said to be
//! checked if it was, and what contradicts itself is refused.

use std::{
    fs,
    process::{Command, Output},
};

use bytes::Bytes;
use deed_evidence::{
    SessionId,
    entry::{Entry, KeyedSignature},
    receipt, signature, statement,
};
use deed_proto::v1::{self, Author, PayloadType, RiskTier, statement::Body};
use deed_testkit::merkle;
use deed_tlog::{
    Checkpoint, Hash, KeyName, LeafIndex, NoteSigner, TlogProof, TreeHead, TreeSize, leaf_hash,
};
use prost::Message as _;
use serde_json::Value;

use crate::stories::{
    AGENT, AUTHORITY, Ledger, PLATFORM, Who, genesis, intent, key_revoked, signing_key, task_opened,
};

/// A ledger's entries as somebody has them who was given files.
struct Files {
    directory: tempfile::TempDir,
    entries: Vec<Bytes>,
}

/// A ledger with a task and an Intent, at the last leaf.
fn story() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger.at(100);
    ledger.say(AGENT, Some(1), Body::Intent(intent("orders/7", 500, None)));
    ledger
}

fn key_id(who: Who) -> [u8; 16] {
    let key = signing_key(who.seed.unwrap());
    *signature::key_id(key.public_key()).as_bytes()
}

/// An entry with a statement of `who`, signed by `by`.
fn signed(ledger: &Ledger, who: Who, by: Who, body: Body) -> Bytes {
    let payload = statement::encode(&ledger.statement(who, Some(1), body)).unwrap();
    let signed = signature::sign(
        &signing_key(by.seed.unwrap()),
        PayloadType::Statement,
        &payload,
    );
    let id = key_id(by);
    let keyed = KeyedSignature {
        key_id: &id,
        signature: &signed,
    };
    Entry::signed(&payload, keyed, ledger.now()).encode()
}

/// A Tick, as only the ledger may write it.
fn tick(ledger: &Ledger) -> Vec<u8> {
    let tick = v1::Statement {
        ledger_id: Bytes::copy_from_slice(ledger.id.as_bytes()),
        producer: statement::LEDGER_PRODUCER.into(),
        occurred_at_us: ledger.now().get(),
        body: Some(Body::Tick(v1::Tick {
            due_us: 5,
            clock_us: 0,
        })),
        ..v1::Statement::default()
    };
    statement::encode(&tick).unwrap().into()
}

fn log_signer() -> NoteSigner {
    let name = KeyName::new(genesis().origin.as_str()).unwrap();
    NoteSigner::from_seed(name, &[1; 32])
}

impl Files {
    /// The operator signs these entries, and the story's own trust statements are the trust file.
    fn new(entries: Vec<Bytes>) -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            entries,
        };
        let policy = format!("log {}\nquorum none\n", log_signer().verifier_key());
        files.write("policy", policy.as_bytes());
        files.write_trust(|_| true);
        files
    }

    fn of(ledger: &Ledger) -> Self {
        Self::new(ledger.entries().to_vec())
    }

    /// The story with one more entry at the end.
    fn with(ledger: &Ledger, entry: Bytes) -> Self {
        let mut entries = ledger.entries().to_vec();
        entries.push(entry);
        Self::new(entries)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).unwrap();
    }

    /// The leaves of the tree of so many.
    fn leaves(&self, size: usize) -> Vec<Hash> {
        let entries = self.entries[..size].iter();
        entries.map(|entry| leaf_hash(entry)).collect()
    }

    fn checkpoint(&self, size: usize) -> deed_tlog::SignedNote {
        let leaves = self.leaves(size);
        let size = TreeSize::new(leaves.len() as u64);
        let head = TreeHead::new(size, merkle::root(&leaves));
        let checkpoint = Checkpoint::new(genesis().origin, head);
        checkpoint.sign(&log_signer()).unwrap()
    }

    fn path(&self, leaf: usize, size: usize) -> Vec<Bytes> {
        let path = merkle::path(leaf, &self.leaves(size));
        let path = path.iter();
        path.map(|hash| Bytes::copy_from_slice(hash.as_bytes()))
            .collect()
    }

    /// The trust file, with the trust statements that are kept.
    fn write_trust(&self, keep: impl Fn(usize) -> bool) {
        self.write_trust_of(self.entries.len(), keep);
    }

    /// The same under the head of the tree of `size` leaves.
    fn write_trust_of(&self, size: usize, keep: impl Fn(usize) -> bool) {
        let entries = self.entries[..size].iter().enumerate();
        let trust = entries.filter(|(leaf, entry)| {
            let linked = Entry::parse(entry).unwrap().previous_trust.is_some();
            (*leaf == 0 || linked) && keep(*leaf)
        });
        let file = v1::GetTrustChainResponse {
            checkpoint: self.checkpoint(size).to_string().into(),
            entries: trust
                .map(|(leaf, entry)| v1::TrustEntry {
                    leaf_index: leaf as u64,
                    entry: entry.clone(),
                    inclusion_proof: self.path(leaf, size),
                })
                .collect(),
        };
        self.write("trust", &file.encode_to_vec());
    }

    /// Runs `deed verify` on a leaf.
    fn verify(&self, leaf: usize, options: &[&str]) -> Output {
        self.verify_proof(leaf, options, ToOwned::to_owned)
    }

    /// The same with a proof file that somebody has changed.
    fn verify_proof(
        &self,
        leaf: usize,
        options: &[&str],
        changed: impl FnOnce(&str) -> String,
    ) -> Output {
        let size = self.entries.len();
        let proof = TlogProof {
            extra: None,
            index: LeafIndex::new(leaf as u64),
            proof: receipt::inclusion_proof(&self.path(leaf, size)).unwrap(),
            checkpoint: self.checkpoint(size),
        };
        self.write("proof", changed(&proof.to_string()).as_bytes());
        self.write("entry", &self.entries[leaf]);
        Command::new(env!("CARGO_BIN_EXE_deed"))
            .args(["verify", "proof", "--entry", "entry", "--policy", "policy"])
            .args(options)
            .env_clear()
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    fn last(&self) -> usize {
        self.entries.len() - 1
    }

    /// Checks that verification with the trust file fails for the reason `why`.
    fn fails(&self, leaf: usize, why: &str) {
        self.fails_with(leaf, &TRUSTED, why);
    }

    fn fails_with(&self, leaf: usize, options: &[&str], why: &str) {
        let output = self.verify(leaf, options);
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said.contains(why), "{why}: {said}");
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(!stdout.contains("\n  verified "), "{stdout}");
    }
}

const TRUSTED: [&str; 2] = ["--trust", "trust"];

fn json(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn states(json: &Value) -> Vec<(String, String)> {
    let checks = json["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    checks
        .map(|check| (text(&check["part"]), text(&check["state"])))
        .collect()
}

fn state<'j>(json: &'j Value, part: &str) -> &'j str {
    let checks = json["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["part"] == part);
    found.unwrap()["state"].as_str().unwrap()
}

/// Line ends that a mail program changed, and a byte order mark, are no reason to doubt a proof.
#[test]
fn files_with_other_line_ends_are_read_or_refused_for_that() {
    let files = Files::of(&story());
    let policy = fs::read_to_string(files.directory.path().join("policy")).unwrap();
    for changed in [
        |text: &str| text.replace('\n', "\r\n"),
        |text: &str| format!("\u{feff}{text}"),
        |text: &str| format!("\u{feff}{}", text.replace('\n', "\r\n")),
    ] {
        files.write("policy", changed(&policy).as_bytes());
        json(&files.verify_proof(files.last(), &["--json"], changed));
    }
    let refused = |output: &Output| {
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("end with CR"), "{said}");
    };
    refused(&files.verify_proof(files.last(), &[], |text| text.replace('\n', "\r")));
    files.write("policy", policy.replace('\n', "\r").as_bytes());
    refused(&files.verify(files.last(), &[]));
    // A binary file that was taken for text has lost nothing but itself.
    files.write("policy", policy.as_bytes());
    let trust = fs::read(files.directory.path().join("trust")).unwrap();
    let mut changed = Vec::new();
    for byte in trust {
        if byte == b'\n' {
            changed.push(b'\r');
        }
        changed.push(byte);
    }
    files.write("trust", &changed);
    let output = files.verify(files.last(), &TRUSTED);
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("changed to CRLF"), "{said}");
}

#[test]
fn each_part_is_checked_or_said_not_to_be() {
    let files = Files::of(&story());
    let all = json(&files.verify(files.last(), &["--trust", "trust", "--json"]));
    let found: Vec<_> = states(&all);
    let found: Vec<_> = found
        .iter()
        .map(|(a, b)| (a.as_str(), b.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("inclusion", "checked"),
            ("head signature", "checked"),
            ("witness quorum", "not_checked"),
            ("author's signature", "checked"),
            ("key's standing", "checked"),
            ("batch membership", "nothing_to_check"),
            ("contents", "not_checked"),
            ("receive time", "not_checked"),
            ("truth", "not_checked"),
        ]
    );
    // Without the trust file the output makes no statement about the author.
    let output = files.verify(files.last(), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let ending: Vec<_> = text.lines().rev().take(3).collect();
    assert_eq!(ending[0], "  verified      inclusion, head signature");
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let not = "not verified witness quorum, author's signature, key's standing, contents, receive time, \
         truth";
    assert!(flat.contains(not), "{text}");
    // A key alone says whose signature it is, and no more.
    let agents = hex::encode(signing_key(AGENT.seed.unwrap()).public_key().as_bytes());
    let by_key = json(&files.verify(files.last(), &["--key", &agents, "--json"]));
    assert_eq!(state(&by_key, "author's signature"), "checked");
    assert_eq!(state(&by_key, "key's standing"), "not_checked");
    let other = hex::encode(signing_key(PLATFORM.seed.unwrap()).public_key().as_bytes());
    let output = files.verify(files.last(), &["--key", &other]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // Proofs of trust statements and of the genesis entry verify too.
    for leaf in [0, 1] {
        json(&files.verify(leaf, &["--trust", "trust", "--json"]));
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let ledger = story();
    let wanted = || Body::Intent(intent("orders/8", 1, None));
    let good = signed(&ledger, AGENT, AGENT, wanted());
    let parsed = Entry::parse(&good).unwrap();
    let as_of = |author| Entry {
        author,
        signature: None,
        ..parsed
    };

    // 64 bytes of 0xbb: not looked at without a key, and said so; refused with one.
    let forged = Entry {
        signature: Some(KeyedSignature {
            key_id: &key_id(AGENT),
            signature: &[0xbb; 64],
        }),
        ..parsed
    };
    let files = Files::with(&ledger, forged.encode());
    let unlooked = json(&files.verify(files.last(), &["--json"]));
    assert_eq!(state(&unlooked, "author's signature"), "not_checked");
    assert!(
        !unlooked["verified"].to_string().contains("author"),
        "{unlooked}"
    );
    files.fails(files.last(), "author's signature");
    let failed = files.verify(files.last(), &["--trust", "trust", "--json"]);
    let failed: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!(failed["verified"], serde_json::json!([]));
    assert!(failed["failed"].to_string().contains("author's signature"));

    // The proof is of a statement in a batch, but not of its manifest.
    let files = Files::with(&ledger, as_of(Author::Batched).encode());
    files.fails(files.last(), "deed prove --batch");
    assert_eq!(files.verify(files.last(), &[]).status.code(), Some(1));
    // An Intent in the ledger's name, and a Tick that the ledger did not write.
    let files = Files::with(&ledger, as_of(Author::Ledger).encode());
    files.fails(files.last(), "contradicts itself");
    let tick = tick(&ledger);
    let files = Files::with(&ledger, Entry::unsigned(&tick, ledger.now()).encode());
    files.fails(files.last(), "contradicts itself");
    let files = Files::with(&ledger, Entry::by_ledger(&tick, ledger.now()).encode());
    let ledgers = json(&files.verify(files.last(), &["--trust", "trust", "--json"]));
    assert_eq!(state(&ledgers, "author's signature"), "nothing_to_check");
    assert_eq!(state(&ledgers, "key's standing"), "not_checked");

    // Unsigned in the name of somebody who has a key.
    let files = Files::with(&ledger, as_of(Author::Unsigned).encode());
    files.fails(files.last(), "must be signed");
    // Signed with another producer's key, and with a key that nobody registered.
    let files = Files::with(&ledger, signed(&ledger, AGENT, PLATFORM, wanted()));
    files.fails(files.last(), "key's standing");
    let nobody = Who {
        seed: Some(0xee),
        ..AGENT
    };
    let files = Files::with(&ledger, signed(&ledger, AGENT, nobody, wanted()));
    files.fails(files.last(), "author's signature");
}

#[test]
fn a_key_speaks_where_it_stood() {
    // Revoked later: what it said stays, and that is told.
    let mut ledger = story();
    let intended = ledger.entries().len() - 1;
    ledger.at(200);
    ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
    let wanted = || Body::Intent(intent("orders/8", 1, None));
    let after = signed(&ledger, AGENT, AGENT, wanted());
    let files = Files::with(&ledger, after);
    let text = String::from_utf8(files.verify(intended, &TRUSTED).stdout).unwrap();
    assert!(text.contains("revoked later"), "{text}");
    // A signature after the key's revocation proves nothing.
    files.fails(files.last(), "key's standing");
    // A trust file that ends before the revocation: that something may be missing is said.
    let revocation = files.last() - 1;
    files.write_trust(|leaf| leaf != revocation);
    let text = String::from_utf8(files.verify(intended, &TRUSTED).stdout).unwrap();
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("not checked: that no trust statement stands between"),
        "{text}"
    );
    // The revocation itself is in that tree, and not in the file.
    files.fails(revocation, "leaves this trust statement out");
    // A missing trust statement in the middle is noticed.
    files.write_trust(|leaf| leaf != 2);
    files.fails(intended, "follows leaf");
    files.write_trust(|leaf| leaf != 0);
    files.fails(intended, "leaf 0");

    // Compromised since before it spoke.
    let mut ledger = story();
    let since = ledger.now();
    ledger.at(200);
    ledger.say(AUTHORITY, None, key_revoked(AGENT, Some(100)));
    let files = Files::of(&ledger);
    files.fails(files.last() - 1, "compromised");
    // A trust file under a head that the policy does not trust.
    let other = Files::of(&story());
    let policy = "log deed.example/logs/other+00000000+AUZA\nquorum none\n";
    other.write("policy", policy.as_bytes());
    assert_ne!(other.verify(other.last(), &TRUSTED).status.code(), Some(0));
    // Another ledger's statement in this log.
    let mut statement = ledger.statement(AGENT, Some(1), wanted());
    statement.ledger_id = vec![9; 32].into();
    statement.session = Bytes::copy_from_slice(SessionId::new([5; 16]).as_bytes());
    let payload = statement::encode(&statement).unwrap();
    let files = Files::with(&story(), Entry::unsigned(&payload, since).encode());
    files.fails(files.last(), "is for ledger");
}

/// `--key` fails for an unsigned entry.
#[test]
fn a_key_that_was_to_sign_has_signed_or_it_fails() {
    let ledger = story();
    let key = |who: Who| hex::encode(signing_key(who.seed.unwrap()).public_key().as_bytes());
    let agents = key(AGENT);
    let missing = |files: &Files| {
        let why = format!("key {} was to have", hex::encode(key_id(AGENT)));
        let last = files.last();
        files.fails_with(last, &["--key", &agents], &why);
        files.fails_with(last, &["--key", &agents, "--trust", "trust"], &why);
        let output = files.verify(last, &["--key", &agents, "--json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(state(&shown, "author's signature"), "failed");
        assert_eq!(state(&shown, "key's standing"), "not_checked");
        assert_eq!(shown["verified"], serde_json::json!([]));
    };
    // Unsigned, in the agent's name and in that of somebody who has no key.
    let nobody = Who {
        producer: "spiffe://example.org/nobody",
        ..AGENT
    };
    for who in [AGENT, nobody] {
        let said = ledger.statement(who, Some(1), Body::Intent(intent("orders/8", 1, None)));
        let payload = statement::encode(&said).unwrap();
        missing(&Files::with(
            &ledger,
            Entry::unsigned(&payload, ledger.now()).encode(),
        ));
    }
    // A statement of the ledger itself.
    let tick = Entry::by_ledger(&tick(&ledger), ledger.now()).encode();
    missing(&Files::with(&ledger, tick));
    // An authority's, which is signed with another key.
    let files = Files::of(&ledger);
    let authoritys = 1;
    let linked = Entry::parse(&files.entries[authoritys]).unwrap();
    assert!(linked.previous_trust.is_some());
    files.fails_with(authoritys, &["--key", &agents], "it is by key");
    let own = key(AUTHORITY);
    json(&files.verify(authoritys, &["--key", &own, "--json"]));
}

#[test]
fn a_trust_file_under_another_head_proves_nothing_and_still_speaks_against() {
    // The key stood there, as far as the smaller tree shows: not checked.
    let mut ledger = story();
    let intended = ledger.entries().len() - 1;
    ledger.at(200);
    ledger.say(AUTHORITY, None, key_revoked(AGENT, None));
    let after = Body::Intent(intent("orders/8", 1, None));
    let after = signed(&ledger, AGENT, AGENT, after);
    let files = Files::with(&ledger, after);
    let (revocation, last) = (files.last() - 1, files.last());
    files.write_trust_of(revocation, |_| true);
    let shown = json(&files.verify(intended, &["--trust", "trust", "--json"]));
    assert_eq!(state(&shown, "author's signature"), "checked");
    assert_eq!(state(&shown, "key's standing"), "not_checked");
    let text = String::from_utf8(files.verify(intended, &TRUSTED).stdout).unwrap();
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("under another head"), "{text}");
    // The key was revoked before it spoke, and the smaller tree shows that.
    files.write_trust_of(last, |_| true);
    files.fails(last, "key's standing");
    files.fails(last, "under another head");
    files.fails(last, "revoked");
}
