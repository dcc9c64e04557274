//! 150 recorded runs of a real agent, imported by eight concurrent producers with the real command
//! into the real server, and then checked by an independent reader.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use deed_evidence::{entry::Entry, statement, statement::BodyKind};
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf, statement::Body};
use deed_tests::{
    data, files,
    http::Http,
    oracle::{self, Log},
    process::{Deed, ServerProcess, fsck_clean},
    random::Random,
    rpc::{Clients, TestLedger, hash},
    run,
};
use deed_tlog::{
    EntryBundleId, Hash, RightEdge, TileHashes, TileId, TileReader, TreeHead, TreeSize,
    decode_entry_bundle, root_at, verify_inclusion,
};
use serde_json::Value;
use tempfile::TempDir;

const RUNS: u64 = 150;
const TOOL_CALLS: u64 = 898;
/// Number of grants: in 14 runs the agent only talks, and there is nothing to grant.
const GRANTS: u64 = 136;
/// Of the 193 calls that change something, the ones right after the customer's clear yes to what
/// the agent said. The others come after a choice ("I'll go with the first option"), a yes with a
/// question or a condition, or nothing of the kind.
const CLAIMED_APPROVALS: u64 = 115;
/// Effects: the same 193 calls without the 54 that failed; no other calls fail. 52 cancelled, 51
/// with other flights, 19 booked, 10 with other baggage, 7 certificates.
const EFFECTS: u64 = 139;

/// Counts of the transcripts' contents, made without the importer.
struct Expected {
    tool_calls: u64,
    results: u64,
    failures: u64,
    grants: u64,
    /// Texts of people and tools, which must not be in the log.
    private: Vec<String>,
}

impl Expected {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("the transcripts");
        let runs: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("a transcript"))
            .collect();
        assert_eq!(runs.len() as u64, RUNS);
        let mut expected = Self {
            tool_calls: 0,
            results: 0,
            failures: 0,
            grants: 0,
            private: Vec::new(),
        };
        for (number, run) in runs.iter().enumerate() {
            let calls = |message: &Value| message["tool_calls"].is_array();
            let messages = run["messages"].as_array().expect("messages");
            expected.grants += u64::from(messages.iter().any(calls));
            for message in run["messages"].as_array().expect("messages") {
                let content = message["content"].as_str().unwrap_or_default();
                if let Some(calls) = message["tool_calls"].as_array() {
                    expected.tool_calls += calls.len() as u64;
                }
                if message["role"] == "tool" {
                    expected.results += 1;
                    expected.failures += u64::from(content.starts_with("Error"));
                }
                // A few of them are enough: each is searched for in every file.
                let telling = message["role"] == "user" || message["role"] == "tool";
                if number % 50 == 0 && telling && content.len() > 60 && content.is_ascii() {
                    expected.private.push(content[..50].to_owned());
                }
            }
        }
        assert_eq!(expected.tool_calls, TOOL_CALLS);
        assert_eq!(expected.grants, GRANTS);
        assert!(expected.private.len() > 5);
        expected
    }

    fn statements(&self) -> u64 {
        3 * RUNS + self.grants + self.tool_calls + CLAIMED_APPROVALS + self.results
    }
}

/// Imports the transcripts; returns the summary and the receipts.
fn import(deed: &Deed, path: &Path, receipts: &str) -> (Value, Vec<Value>) {
    let receipts = deed.file(receipts);
    let arguments = [
        "import",
        "chat",
        "--json",
        "--ended",
        "--unsigned",
        "--producers",
        "8",
        "--receipts",
    ]
    .map(Into::into)
    .into_iter()
    .chain([
        receipts.clone().into_os_string(),
        path.as_os_str().to_owned(),
    ]);
    let ended = deed.run(arguments).expect_code(0);
    let summary = serde_json::from_str(&ended.stdout).expect("a JSON object");
    let lines = fs::read_to_string(receipts).expect("the receipts");
    let parse = |line| serde_json::from_str(line).expect("a JSON object a line");
    (summary, lines.lines().map(parse).collect())
}

#[test]
fn a_real_agents_runs_are_imported_proven_and_found_again() {
    let Some(path) = data::shared("agent-runs/airline.jsonl") else {
        return;
    };
    run(async move {
        let expected = Expected::read(&path);
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(&data);
        let deed = Deed::new(&server.url(), "airline");
        deed.run(["ledger", "create", "airline"]).expect_code(0);

        let (summary, receipts) = import(&deed, &path, "first");
        let statements = expected.statements();
        for (what, wanted) in [
            ("runs", RUNS),
            ("tasks", RUNS),
            ("grants", GRANTS),
            ("intents", TOOL_CALLS),
            ("outcomes", expected.results),
            ("failures", expected.failures),
            ("claimed_approvals", CLAIMED_APPROVALS),
            ("effects", EFFECTS),
            ("unanswered", 0),
            ("stray_results", 0),
            ("statements", statements),
            ("accepted", statements),
            ("duplicates", 0),
            ("rejected", 0),
        ] {
            assert_eq!(summary[what], wanted, "{what} in {summary}");
        }
        // No policy is set, so no evidence is required. Every Intent is within the grant of its
        // run, comes while the task is open, and has one Outcome: there are no findings.
        assert_eq!(summary["findings"], serde_json::json!({}), "{summary}");

        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::find(&clients, "airline").await;
        let log = Log::read(&clients, &ledger).await;
        assert_eq!(
            log.head.size.get(),
            1 + statements + RUNS,
            "the genesis entry, and the receipt of each task when it was closed"
        );
        check_receipts(&log, &receipts);
        check_task_receipts(&log);
        check_statements(&log, &expected);
        prove_receipts(&clients, &ledger, &log, &receipts).await;
        check_tiles(&server, &ledger, &log).await;

        // The second import brings nothing new, and every receipt is the first one.
        let (summary, again) = import(&deed, &path, "second");
        assert_eq!(summary["duplicates"], statements, "{summary}");
        assert_eq!(
            (&summary["accepted"], &summary["rejected"]),
            (&0.into(), &0.into())
        );
        assert_eq!(
            ledger.head(&clients).await,
            log.head,
            "the tree is unchanged"
        );
        assert_eq!(places(&receipts), places(&again));
        assert!(again.iter().all(|receipt| receipt["status"] == "duplicate"));

        let checkpoint = clients.checkpoint("airline").await.unwrap();
        server.stop();
        let report = fsck_clean(&data);
        let leaves = format!(" {} leaves,", log.head.size);
        assert!(report.contains(&leaves), "{report}");
        for private in &expected.private {
            assert!(
                !files::contains(&data, private.as_bytes()),
                "{private:?} is in the log"
            );
        }

        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        assert_eq!(clients.checkpoint("airline").await.unwrap(), checkpoint);
        let found = Log::read(&clients, &ledger).await;
        assert!(
            found.entries == log.entries,
            "the same entries after a restart"
        );
        // The same user comes back and still trusts the head.
        let head = deed
            .at(&server.url())
            .run(["--json", "head"])
            .expect_code(0);
        let head: Value = serde_json::from_str(&head.stdout).unwrap();
        assert_eq!(head["root"], log.head.root.to_string());
        server.stop();
    });
}

fn number(receipt: &Value, name: &str) -> u64 {
    receipt[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {name} in {receipt}"))
}

/// Returns the leaf and hash of each statement.
fn places(receipts: &[Value]) -> HashMap<(String, u64), (u64, String)> {
    let text = |receipt: &Value, name: &str| receipt[name].as_str().expect("text").to_owned();
    receipts
        .iter()
        .map(|receipt| {
            let statement = (text(receipt, "session"), number(receipt, "sequence"));
            (
                statement,
                (number(receipt, "leaf_index"), text(receipt, "leaf_hash")),
            )
        })
        .collect()
}

/// Checks that every leaf has exactly one receipt, with the right hash.
fn check_receipts(log: &Log, receipts: &[Value]) {
    let mut leaves = BTreeSet::new();
    for receipt in receipts {
        assert_eq!(receipt["status"], "accepted", "{receipt}");
        assert_eq!(receipt["inclusion_verified"], true, "{receipt}");
        let leaf = number(receipt, "leaf_index");
        assert!(leaves.insert(leaf), "leaf {leaf} has two receipts");
        let index = usize::try_from(leaf).unwrap();
        assert_eq!(receipt["leaf_hash"], log.leaf_hashes[index].to_string());
        let entry = Entry::parse(&log.entries[index]).expect("an entry");
        let header = statement::parse(entry.payload).expect("a statement");
        assert_eq!(receipt["session"], header.session.to_string());
        assert_eq!(number(receipt, "sequence"), header.sequence.get());
        assert_eq!(receipt["received_at_us"], entry.received_at.get());
    }
    let own = |leaf: &u64| !messages_at(log, *leaf).producer.starts_with("deed:ledger");
    assert!(
        leaves.into_iter().eq((1..log.head.size.get()).filter(own)),
        "every leaf but the ledger's own"
    );
}

/// Returns the statement at a leaf.
fn messages_at(log: &Log, leaf: u64) -> v1::Statement {
    let bytes = &log.entries[usize::try_from(leaf).unwrap()];
    let payload = Bytes::copy_from_slice(Entry::parse(bytes).unwrap().payload);
    statement::decode(&payload).unwrap()
}

/// Checks that the ledger wrote one receipt of each task, over all of its entries.
fn check_task_receipts(log: &Log) {
    let mut entries: HashMap<Bytes, u64> = HashMap::new();
    let mut receipts = HashSet::new();
    for leaf in 1..log.head.size.get() {
        let message = messages_at(log, leaf);
        let Some(Body::TaskReceipt(receipt)) = message.body else {
            if !message.task.is_empty() {
                *entries.entry(message.task).or_default() += 1;
            }
            continue;
        };
        assert!(receipts.insert(message.task.clone()), "one for each task");
        assert_eq!(receipt.count, entries[&message.task]);
        assert!(!receipt.requested);
    }
    assert_eq!(receipts.len() as u64, RUNS);
    // The entries of all tasks: TaskOpened, TaskClosed, and those between them; SessionClosed
    // belongs to no task.
    let all = 2 * RUNS + GRANTS + CLAIMED_APPROVALS + 2 * TOOL_CALLS;
    assert_eq!(entries.values().sum::<u64>(), all);
}

/// Checks that each run is one session: opened, acts with their Outcomes, closed; and another with
/// its grant.
fn check_statements(log: &Log, expected: &Expected) {
    let sessions = log.sessions();
    assert_eq!(sessions.len() as u64, RUNS + GRANTS);
    let mut tasks = HashSet::new();
    let (mut intents, mut outcomes, mut failures) = (0, 0, 0);
    let (mut grants, mut approvals, mut effects) = (0, 0, 0);
    for recorded in sessions.values() {
        let messages: Vec<v1::Statement> = recorded
            .iter()
            .map(|at| messages_at(log, at.leaf))
            .collect();
        if let [message] = &messages[..] {
            let Some(Body::Grant(grant)) = &message.body else {
                panic!("a session of one statement is a grant's: {message:?}");
            };
            assert_eq!(
                grant.subject, message.producer,
                "nobody signs, all is one claim"
            );
            grants += 1;
            continue;
        }
        let kinds: Vec<BodyKind> = recorded
            .iter()
            .map(|at| {
                let bytes = &log.entries[usize::try_from(at.leaf).unwrap()];
                statement::parse(Entry::parse(bytes).unwrap().payload)
                    .unwrap()
                    .body
            })
            .collect();
        assert_eq!(kinds.first(), Some(&BodyKind::TaskOpened));
        assert!(
            kinds.ends_with(&[BodyKind::TaskClosed, BodyKind::SessionClosed]),
            "{kinds:?}"
        );
        assert!(tasks.insert(messages[0].task.clone()), "a task of its own");
        for message in &messages[1..] {
            // The session is a chain.
            let before = recorded[usize::try_from(message.sequence).unwrap() - 1].digest;
            assert_eq!(message.previous, before.as_bytes()[..]);
            match message.body.as_ref().expect("a body") {
                Body::Intent(intent) => {
                    intents += 1;
                    assert_eq!(intent.grant.len(), 32);
                }
                Body::Approval(approval) => {
                    approvals += 1;
                    let at = usize::try_from(message.sequence).unwrap() - 1;
                    assert_eq!(kinds[at], BodyKind::Intent);
                    let intent = approval.intent.as_ref().expect("what was approved");
                    assert_eq!(intent.leaf_index, recorded[at].leaf);
                    let index = usize::try_from(intent.leaf_index).unwrap();
                    assert_eq!(intent.leaf_hash, log.leaf_hashes[index].as_bytes()[..]);
                }
                Body::Outcome(outcome) => {
                    outcomes += 1;
                    effects += outcome.effects.len() as u64;
                    failures += u64::from(outcome.status() == v1::OutcomeStatus::Failed);
                    let intent = outcome.intent.as_ref().expect("what it is the outcome of");
                    let at = usize::try_from(intent.sequence).unwrap();
                    assert_eq!(kinds[at], BodyKind::Intent);
                    assert_eq!(intent.payload_digest, recorded[at].digest.as_bytes()[..]);
                }
                _ => {}
            }
        }
    }
    let wanted = (expected.tool_calls, expected.results, expected.failures);
    assert_eq!((intents, outcomes, failures), wanted);
    let wanted = (GRANTS, CLAIMED_APPROVALS, EFFECTS);
    assert_eq!((grants, approvals, effects), wanted);
}

/// With signatures, authority's grants, and a policy that requires approvals: the customers' texts
/// clear nothing, and statements that an importer signs are claims.
#[test]
fn a_customers_yes_clears_nothing() {
    let Some(path) = data::shared("agent-runs/airline.jsonl") else {
        return;
    };
    let dir = TempDir::new().unwrap();
    let server = ServerProcess::start(&dir.path().join("data"));
    let deed = Deed::new(&server.url(), "airline");
    deed.run(["ledger", "create", "airline"]).expect_code(0);
    deed.run(["policy", "set", "--default"]).expect_code(0);
    let path = path.to_str().unwrap();
    let import = [
        "import",
        "chat",
        "--json",
        "--ended",
        "--risk-tier",
        "payment",
        path,
    ];
    let ended = deed.run(import).expect_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let counts = ["grants", "intents", "claimed_approvals"].map(|what| summary[what].clone());
    assert_eq!(
        counts,
        [GRANTS, TOOL_CALLS, CLAIMED_APPROVALS].map(Value::from)
    );
    // The policy requires a decision and an approval before each act of a payment's task. There are
    // none, because a customer's yes does not count, so every Outcome came without clearance. But
    // the importer only claims who acted, which is no evidence against anyone: all of these
    // findings are claims. (The finding that nobody corroborated them comes a day later.) The
    // grants are the authority's, and cover the acts.
    let wanted = serde_json::json!({"unproven_claim": TOOL_CALLS});
    assert_eq!(summary["findings"], wanted, "{summary}");

    let found = deed
        .run(["search", "--json", "--agent", "import:chat"])
        .expect_code(0);
    let approval = found
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|entry| entry["body"] == "approval")
        .unwrap();
    let task = approval["statement"]["task"].as_str().unwrap();
    let story = deed.run(["task", "show", task, "--json"]).expect_code(0);
    let story: Value = serde_json::from_str(&story.stdout).unwrap();
    assert_eq!(story["grants"][0]["rooted"], "proven", "{story}");
    let intent = &approval["statement"]["approval"]["intent"]["leaf_index"];
    let mut acts = story["acts"].as_array().unwrap().iter();
    let act = acts.find(|act| act["intent_leaf"] == *intent).unwrap();
    let layer = |name: &str| act["layers"][name].as_str().unwrap().to_owned();
    assert_eq!(layer("identity"), "claimed");
    assert_eq!(layer("approval"), "claimed");
    assert_eq!(layer("result"), "claimed");
    deed.run(["audit"]).expect_code(0);
    server.stop();
    fsck_clean(&dir.path().join("data"));
}

/// Proves every receipt's leaf, in a tree of random size.
async fn prove_receipts(clients: &Clients, ledger: &TestLedger, log: &Log, receipts: &[Value]) {
    let mut random = Random::seeded();
    let mut heads = Vec::new();
    for receipt in receipts {
        let leaf = number(receipt, "leaf_index");
        let size = random.between(leaf + 1, log.head.size.get());
        let asked = match random.between(0, 2) {
            0 => Leaf::LeafIndex(leaf),
            1 => Leaf::LeafHash(hash_in(receipt)),
            _ => Leaf::Statement(v1::StatementPosition {
                session: hex::decode(receipt["session"].as_str().unwrap())
                    .unwrap()
                    .into(),
                sequence: number(receipt, "sequence"),
            }),
        };
        let answer = clients
            .inclusion(&ledger.name, Some(asked), size)
            .await
            .expect("a proof");
        assert_eq!((answer.leaf_index, answer.tree_size), (leaf, size));
        assert_eq!(answer.leaf_hash, hash_in(receipt));
        heads.push(ledger.check_inclusion(&answer));
        // The proof also leads to the root that the entries alone give, without the checkpoint.
        let root = oracle::root(&log.leaf_hashes[..usize::try_from(size).unwrap()]);
        let proof = deed_tests::rpc::inclusion_proof(&answer.hashes);
        let head = TreeHead::new(TreeSize::new(size), root);
        let index = deed_tlog::LeafIndex::new(leaf);
        verify_inclusion(&proof, &hash(&answer.leaf_hash), index, &head).expect("a proof");
    }
    log.expect_heads(heads);
}

fn hash_in(receipt: &Value) -> Bytes {
    hex::decode(receipt["leaf_hash"].as_str().expect("text"))
        .expect("hex")
        .into()
}

/// Tiles that were fetched.
struct Fetched(HashMap<TileId, TileHashes>);

impl TileReader for Fetched {
    type Error = std::io::Error;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, Self::Error> {
        let missing = |tile: &TileId| std::io::Error::other(tile.path());
        tiles
            .iter()
            .map(|tile| self.0.get(tile).cloned().ok_or_else(|| missing(tile)))
            .collect()
    }
}

/// Checks the log over plain HTTP in three ways: from entry bundles, from tiles of leaf hashes, and
/// from the fewest tiles that give the root.
async fn check_tiles(server: &ServerProcess, ledger: &TestLedger, log: &Log) {
    let base = PathBuf::from("/logs").join(&ledger.name);
    let base = base.to_str().unwrap();
    let mut http = Http::connect(server.address()).await;
    let checkpoint = http.fetch(&format!("{base}/checkpoint")).await;
    let head = ledger.open(&checkpoint);
    assert_eq!(head, log.head);

    let mut entries = Vec::new();
    for index in 0..head.size.get().div_ceil(256) {
        let width = TileId::in_tree(0, index, head.size).unwrap().width();
        let bundle = EntryBundleId::new(index, width).unwrap();
        let bytes = http.fetch(&format!("{base}/{}", bundle.path())).await;
        let decoded = decode_entry_bundle(&bytes).expect("a bundle");
        assert_eq!(decoded.len(), usize::from(width));
        entries.extend(decoded.into_iter().map(Bytes::copy_from_slice));
    }
    assert!(
        entries == log.entries,
        "bundles hold what GetEntries answers"
    );
    let from_entries = Log::check(entries, head);

    let mut fetched = Fetched(HashMap::new());
    let mut leaves: Vec<Hash> = Vec::new();
    for level in 0..8 {
        for index in 0.. {
            let Some(tile) = TileId::in_tree(level, index, head.size) else {
                break;
            };
            let bytes = http.fetch(&format!("{base}/{}", tile.path())).await;
            let hashes = tile.parse_bytes(&bytes).expect("a tile");
            if level == 0 {
                leaves.extend(&hashes);
            }
            fetched.0.insert(tile, Arc::new(hashes));
        }
    }
    assert_eq!(leaves, from_entries.leaf_hashes);
    assert_eq!(oracle::root(&leaves), head.root);
    assert_eq!(
        root_at(head.size, &fetched).expect("the tiles suffice"),
        head.root
    );
    let mut edge = RightEdge::new();
    edge.append(&leaves, &mut |tile| {
        assert_eq!(*fetched.0[&tile.id()], tile.hashes, "tile {}", tile.id());
    });
    assert_eq!(edge.head(), head);
}
