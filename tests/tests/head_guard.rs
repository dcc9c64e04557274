//! The head guard: a store that has lost acknowledged entries is never served.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use deed_tests::{
    contents::{Content, Contents},
    files,
    http::Http,
    oracle::Log,
    process::{Ended, ServerCommand, ServerProcess, fsck, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use deed_tlog::TreeHead;
use tempfile::TempDir;
use tonic::Code;

const LEDGER: &str = "payments";

/// A data directory whose server was killed right after it acknowledged a statement.
struct Killed {
    dir: TempDir,
    head: TreeHead,
    /// Payload of the last acknowledged statement.
    last: Bytes,
}

impl Killed {
    /// Makes ten requests of a few statements, and then one of a single statement; then kills the
    /// server.
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(&dir.path().join("data"));
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, LEDGER).await;
        let mut producer = Producer::new(ledger.id, 1);
        for _ in 0..10 {
            ledger.append(&clients, &producer.intents(5)).await;
        }
        let last = producer.intent("the statement that was acknowledged last");
        let (_, head) = ledger.append(&clients, std::slice::from_ref(&last)).await;
        server.kill9();
        Self { dir, head, last }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Copies the directory, for one kind of damage.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.dir.path().join(name);
        files::copy(&self.data(), &copy);
        copy
    }

    /// Returns the place of the last statement in the store's log: the file, its offset, its end,
    /// and the end of the record that holds it (nothing is written after that).
    fn tail(&self, data: &Path) -> Tail {
        let (path, payload) = files::find(&data.join("store"), ".log", &self.last);
        Tail {
            record_end: files::end_of_content(&path),
            payload_end: payload + self.last.len(),
            payload,
            path,
        }
    }
}

struct Tail {
    path: PathBuf,
    payload: usize,
    payload_end: usize,
    record_end: usize,
}

/// Checks that the server refuses this directory because of its guard, and changes nothing in it.
#[track_caller]
fn expect_refused(data: &Path, what: &str) -> Ended {
    expect_refused_with(data, what, "head guard: ")
}

/// Checks a refusal like [`expect_refused`], with another message.
#[track_caller]
fn expect_refused_with(data: &Path, what: &str, words: &str) -> Ended {
    let before = files::fingerprint(data);
    let ended = ServerCommand::new(data).refused();
    assert!(
        ended.code().is_some_and(|code| code != 0),
        "{what}: {ended:#?}"
    );
    assert!(ended.stderr.contains(words), "{what}: {ended:#?}");
    assert!(!ended.stdout.contains("listening"), "{what}: {ended:#?}");
    let after = files::fingerprint(data);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(
        changed.is_empty(),
        "{what}: the refusal changed {changed:?}"
    );
    // A second start is refused in the same way.
    let again = ServerCommand::new(data).refused();
    assert!(again.stderr.contains(words), "{what}: {again:#?}");
    ended
}

/// Checks that the server starts, and that its log continues this head.
async fn expect_started(data: &Path, head: &TreeHead) {
    let server = ServerProcess::start(data);
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::find(&clients, LEDGER).await;
    let log = Log::read(&clients, &ledger).await;
    log.expect_heads([*head]);
    // New statements are recorded, too.
    ledger
        .append(&clients, &Producer::new(ledger.id, 99).intents(3))
        .await;
    server.stop();
    fsck_clean(data);
}

#[test]
fn an_undamaged_store_starts_after_a_kill() {
    run(async {
        let killed = Killed::new().await;
        let copy = killed.copy("copy");
        fsck_clean(&copy);
        expect_started(&copy, &killed.head).await;
        expect_started(&killed.data(), &killed.head).await;
    });
}

#[test]
fn a_flipped_byte_at_the_end_of_the_log_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let tail = killed.tail(&killed.data());
        assert!(
            tail.payload_end < tail.record_end,
            "the record ends behind its statement"
        );
        let places = [
            ("payload", tail.payload),
            ("payload-end", tail.payload_end - 1),
            ("last-byte", tail.record_end - 1),
            ("before-payload", tail.payload - 20),
        ];
        for (name, offset) in places {
            let copy = killed.copy(name);
            files::flip(&killed.tail(&copy).path, offset);
            let ended = expect_refused(&copy, name);
            assert!(
                ended.stderr.contains(LEDGER),
                "it says which ledger: {ended:#?}"
            );
            let size = killed.head.size.to_string();
            assert!(ended.stderr.contains(&size), "it says how much: {ended:#?}");
            // The checker has the same message.
            let checked = fsck(&copy).expect_code(1);
            assert!(checked.stderr.contains("head guard: "), "{checked:#?}");
        }
    });
}

#[test]
fn a_log_that_was_cut_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let tail = killed.tail(&killed.data());
        let lengths = [
            ("one-byte", tail.record_end - 1),
            ("in-payload", tail.payload + killed.last.len() / 2),
            ("before-payload", tail.payload - 1),
            // Some of the earlier requests are lost with it.
            ("half", tail.record_end / 2),
        ];
        for (name, length) in lengths {
            let copy = killed.copy(name);
            files::cut(&killed.tail(&copy).path, length);
            expect_refused(&copy, name);
        }
    });
}

/// A page never reached the disk: there are zeros in place of the end of the log.
#[test]
fn a_log_whose_end_is_zeros_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let copy = killed.copy("zeros");
        let tail = killed.tail(&copy);
        let mut content = fs::read(&tail.path).unwrap();
        content[tail.payload & !0xfff..].fill(0);
        fs::write(&tail.path, content).unwrap();
        expect_refused(&copy, "zeros");
    });
}

/// After a restart the log's files are new or reused; the missing end is noticed all the same.
#[test]
fn damage_behind_a_restart_is_refused_too() {
    run(async {
        let killed = Killed::new().await;
        let data = killed.data();
        let mut last = killed.last.clone();
        let mut head = killed.head;
        for session in 2..5 {
            let server = ServerProcess::start(&data);
            let clients = Clients::connect(&server).await;
            let ledger = TestLedger::find(&clients, LEDGER).await;
            let mut producer = Producer::new(ledger.id, session);
            ledger.append(&clients, &producer.intents(20)).await;
            last = producer.intent(&format!("the last one of session {session}"));
            (_, head) = ledger.append(&clients, std::slice::from_ref(&last)).await;
            server.kill9();
        }
        let killed = Killed {
            last,
            head,
            ..killed
        };
        for cut in [false, true] {
            let copy = killed.copy(if cut { "cut" } else { "flipped" });
            let tail = killed.tail(&copy);
            if cut {
                files::cut(&tail.path, tail.payload_end);
            } else {
                files::flip(&tail.path, tail.payload);
            }
            expect_refused(&copy, "after restarts");
        }
        expect_started(&data, &killed.head).await;
    });
}

#[test]
fn a_store_that_is_gone_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let copy = killed.copy("no-log");
        fs::remove_file(killed.tail(&copy).path).unwrap();
        let before = files::fingerprint(&copy);
        let ended = ServerCommand::new(&copy).refused();
        assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
        assert!(
            before == files::fingerprint(&copy),
            "the refusal changed nothing"
        );

        let copy = killed.copy("no-store");
        fs::remove_dir_all(copy.join("store")).unwrap();
        expect_refused_with(&copy, "no store at all", "holds a server.key but no store");
    });
}

#[test]
fn a_missing_or_cut_guard_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let missing = killed.copy("missing");
        fs::remove_file(missing.join("head-guard")).unwrap();
        // The message names the file.
        let words = "head-guard is missing or damaged";
        expect_refused_with(&missing, "no guard", words);

        let guard = |data: &Path| data.join("head-guard");
        let length = usize::try_from(fs::metadata(guard(&killed.data())).unwrap().len()).unwrap();
        for (name, left) in [("empty", 0), ("half", length / 2), ("one-less", length - 1)] {
            let copy = killed.copy(name);
            files::cut(&guard(&copy), left);
            expect_refused_with(&copy, name, words);
        }
        let zeros = killed.copy("zeros");
        fs::write(guard(&zeros), vec![0; length]).unwrap();
        expect_refused_with(&zeros, "a guard without any head", words);
    });
}

/// A crash between the two writes leaves the store ahead of its guard, which is no loss.
#[test]
fn a_guard_behind_its_store_is_fine_and_ahead_of_it_is_not() {
    run(async {
        let killed = Killed::new().await;
        let early = killed.copy("early");
        let server = ServerProcess::start(&killed.data());
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::find(&clients, LEDGER).await;
        let mut producer = Producer::new(ledger.id, 2);
        let (_, head) = ledger.append(&clients, &producer.intents(700)).await;
        server.stop();

        let behind = killed.copy("guard-behind");
        fs::copy(early.join("head-guard"), behind.join("head-guard")).unwrap();
        expect_started(&behind, &head).await;

        fs::copy(killed.data().join("head-guard"), early.join("head-guard")).unwrap();
        let ended = expect_refused(&early, "a store of an older copy");
        for size in [killed.head.size, head.size] {
            assert!(
                ended.stderr.contains(&size.to_string()),
                "found and wanted: {ended:#?}"
            );
        }
        expect_started(&killed.data(), &head).await;
    });
}

/// The store has as many leaves, but other ones.
#[test]
fn a_guard_of_another_history_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let fork = killed.copy("fork");
        for (data, session) in [(killed.data(), 2), (fork.clone(), 3)] {
            let server = ServerProcess::start(&data);
            let clients = Clients::connect(&server).await;
            let ledger = TestLedger::find(&clients, LEDGER).await;
            ledger
                .append(&clients, &Producer::new(ledger.id, session).intents(4))
                .await;
            server.stop();
        }
        fs::copy(killed.data().join("head-guard"), fork.join("head-guard")).unwrap();
        expect_refused(&fork, "another history of the same length");
    });
}

/// With several ledgers in several shards, the loss of the last acknowledged entry of any of them
/// is noticed.
#[test]
fn every_shard_is_guarded() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let shards = |count: &str| ServerCommand::new(&data).arguments(["--shards", count]);
        let mut server = shards("2").start();
        let clients = Clients::connect(&server).await;
        let names = ["first", "second", "third"];
        for name in names {
            TestLedger::create(&clients, name).await;
        }
        for (session, last) in (1..).zip(names) {
            let clients = Clients::connect(&server).await;
            let mut mark = Bytes::new();
            for name in names.into_iter().filter(|name| *name != last).chain([last]) {
                let ledger = TestLedger::find(&clients, name).await;
                let mut producer = Producer::new(ledger.id, session);
                ledger.append(&clients, &producer.intents(5)).await;
                mark = producer.intent(&format!("the end of {name} in round {session}"));
                ledger.append(&clients, std::slice::from_ref(&mark)).await;
            }
            server.kill9();
            let copy = dir.path().join(last);
            files::copy(&data, &copy);
            let (path, offset) = files::find(&copy.join("store"), ".log", &mark);
            files::cut(&path, offset);
            let ended = expect_refused(&copy, last);
            assert!(
                ended.stderr.contains(last),
                "it says which ledger: {ended:#?}"
            );
            // The present number of shards does not matter.
            let more = ServerCommand::new(&copy)
                .arguments(["--shards", "3"])
                .refused();
            assert!(more.stderr.contains("head guard: "), "{more:#?}");
            server = shards("2").start();
        }
        server.stop();
        fsck_clean(&data);
    });
}

/// The loss of a whole acknowledged ledger is noticed, too.
#[test]
fn a_lost_ledger_is_refused() {
    run(async {
        let killed = Killed::new().await;
        let server = ServerProcess::start(&killed.data());
        let clients = Clients::connect(&server).await;
        let created = TestLedger::create(&clients, "created-last").await;
        server.kill9();
        let copy = killed.copy("without");
        let genesis = &created.info.genesis_entry;
        let (path, offset) = files::find(&copy.join("store"), ".log", genesis);
        files::flip(&path, offset + genesis.len() / 2);
        let ended = expect_refused(&copy, "a lost ledger");
        assert!(ended.stderr.contains("created-last"), "{ended:#?}");
        expect_started(&killed.data(), &killed.head).await;
    });
}

/// The beginning of each half of a guard's slot; its turn number follows.
const MAGIC: &[u8] = b"DEEDGRD1";

#[test]
fn a_torn_half_of_the_guard_is_fine_and_two_are_not() {
    run(async {
        let killed = Killed::new().await;
        let content = fs::read(killed.data().join("head-guard")).unwrap();
        let halves: Vec<usize> = content
            .windows(MAGIC.len())
            .enumerate()
            .filter_map(|(offset, window)| (window == MAGIC).then_some(offset))
            .collect();
        // There is one shard, so one slot is in use.
        let [first, second] = halves[..] else {
            panic!("both halves of one slot were written: {halves:?}")
        };
        let turn = |half: usize| {
            let bytes = &content[half + MAGIC.len()..][..8];
            u64::from_be_bytes(bytes.try_into().unwrap())
        };
        assert_eq!(
            turn(first).abs_diff(turn(second)),
            1,
            "they are written in turn"
        );
        let (newest, older) = if turn(first) > turn(second) {
            (first, second)
        } else {
            (second, first)
        };
        let torn = |name: &str, halves: &[usize]| {
            let copy = killed.copy(name);
            for half in halves {
                files::flip(&copy.join("head-guard"), half + 100);
            }
            copy
        };
        expect_started(&torn("newest", &[newest]), &killed.head).await;
        expect_started(&torn("older", &[older]), &killed.head).await;
        let both = torn("both", &[newest, older]);
        expect_refused_with(&both, "both halves", "has no valid half");
    });
}

/// An acknowledged upload has no turn behind it, and is guarded all the same.
#[test]
fn an_upload_that_no_statement_names_yet_is_guarded() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, LEDGER).await;
        let mut producer = Producer::new(ledger.id, 1);
        let (_, head) = ledger.append(&clients, &producer.intents(5)).await;
        let contents = Contents::over(clients.channel.clone());
        let content = Content::new(1, vec![7; 3000]);
        let held = contents.put(content.parts(LEDGER, 1000)).await.unwrap();
        assert!(!held);
        server.kill9();

        let key = dir.path().join("data.content-key");
        let with_key = |data: &Path| {
            let key = format!("content.key_file={}", key.display());
            ServerCommand::new(data).arguments(["--set".to_owned(), key])
        };
        let copy = |name: &str| {
            let copy = dir.path().join(name);
            files::copy(&data, &copy);
            let (log, at) = files::find(&copy.join("store"), ".log", &content.digest());
            (copy, log, at)
        };
        let words = "contents were acknowledged";
        let (cut, log, at) = copy("cut");
        files::cut(&log, at);
        expect_refused_with(&cut, "cut", words);
        let (last, log, _) = copy("last-byte");
        files::cut(&log, files::end_of_content(&log) - 1);
        let ended = expect_refused_with(&last, "last byte", words);
        assert!(ended.stderr.contains("content-guard"), "{ended:#?}");
        assert!(ended.stderr.contains("content guard: "), "{ended:#?}");
        let (flipped, log, at) = copy("flipped");
        files::flip(&log, at);
        expect_refused_with(&flipped, "flipped", words);
        // The checker has the same message.
        let checked = fsck(&flipped).expect_code(1);
        assert!(checked.stderr.contains(words), "{checked:#?}");

        // An operator without a backup removes the guard's file, and goes on without those
        // contents.
        fs::remove_file(flipped.join("content-guard")).unwrap();
        let server = with_key(&flipped).start();
        let clients = Clients::connect(&server).await;
        let contents = Contents::over(clients.channel.clone());
        let gone = contents.fetch(LEDGER, &content.digest()).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
        assert!(!contents.put(content.parts(LEDGER, 1000)).await.unwrap());
        server.stop();

        // A store that has lost nothing is accepted.
        expect_started(&data, &head).await;
        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let contents = Contents::over(clients.channel.clone());
        let (_, bytes) = contents.fetch(LEDGER, &content.digest()).await.unwrap();
        assert_eq!(bytes, content.bytes);
        server.stop();
    });
}

/// A damaged half of a guard is reported, and the other half is used.
#[test]
fn a_damaged_half_is_told_and_the_other_one_stands() {
    run(async {
        let killed = Killed::new().await;
        let copy = killed.copy("half");
        let guard = copy.join("head-guard");
        // The damage is in the older half, so that nothing is missing.
        let bytes = fs::read(&guard).unwrap();
        let turn = |half: usize| bytes[half * 4096 + 8..half * 4096 + 16].to_vec();
        let older = usize::from(turn(0) > turn(1));
        files::flip(&guard, older * 4096 + 20);
        let checked = fsck_clean(&copy);
        assert!(checked.contains("one half of slot 0"), "{checked}");
        let server = ServerCommand::new(&copy)
            .arguments(["--admin", "127.0.0.1:0"])
            .start();
        let log = server.log();
        let told = log.lines().any(|line| {
            line.contains("WARN") && line.contains("slot 0") && line.contains("damaged")
        });
        assert!(told, "{log}");
        let mut admin = Http::connect(server.admin_address()).await;
        let metrics = admin.fetch("/metrics").await;
        let metrics = String::from_utf8_lossy(&metrics).into_owned();
        assert!(metrics.contains("deed_head_guard_damaged_slots 1\n"));
        // The next turns write over it.
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::find(&clients, LEDGER).await;
        let mut producer = Producer::new(ledger.id, 99);
        for _ in 0..2 {
            ledger.append(&clients, &producer.intents(1)).await;
        }
        server.stop();
        assert!(!fsck_clean(&copy).contains("one half"));
    });
}
