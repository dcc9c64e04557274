//! Running a server: what it refuses, how it stops, what the checker finds, what it keeps quiet.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use deed_evidence::receipt;
use deed_proto::v1;
use deed_tests::{
    files,
    oracle::Log,
    process::{Ended, ServerCommand, ServerProcess, fsck, fsck_clean},
    rpc::{Clients, TestLedger, accepted},
    run,
    statements::{Producer, envelope},
    until, within,
};
use deed_tlog::TreeHead;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn data_in(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// A refusal says why on stderr, and nothing on stdout.
#[track_caller]
fn expect_words(ended: &Ended, words: &[&str]) {
    assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} in {ended:#?}");
    }
    assert!(ended.stdout.is_empty(), "{ended:#?}");
}

async fn up(data: &Path) -> (ServerProcess, Clients, TestLedger) {
    let server = ServerProcess::start(data);
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, "payments").await;
    (server, clients, ledger)
}

// ---- starting

#[test]
fn a_directory_has_one_server() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (server, clients, ledger) = up(&data).await;
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(&clients, &producer.intents(5)).await;

        let second = ServerCommand::new(&data).refused();
        expect_words(&second, &["in use by another deed-server"]);
        let checked = fsck(&data).expect_code(1);
        expect_words(&checked, &["in use by another deed-server"]);

        // The first one did not notice.
        ledger.append(&clients, &producer.intents(5)).await;
        server.stop();
        fsck_clean(&data);
    });
}

#[test]
fn addresses_that_others_can_reach_are_refused() {
    let dir = TempDir::new().unwrap();
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:0",
        "[2001:db8::1]:0",
        "255.255.255.255:0",
    ] {
        let ended = ServerCommand::new(&data_in(&dir)).listen(address).refused();
        expect_words(&ended, &["loopback", address]);
        assert!(!data_in(&dir).exists(), "{address}: nothing was made");
    }
    // Any address of the loopback network will do.
    let server = ServerCommand::new(&data_in(&dir))
        .listen("127.0.0.2:0")
        .start();
    server.stop();
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    run(async {
        let dir = TempDir::new().unwrap();
        let (first, clients, ledger) = up(&data_in(&dir)).await;
        let other = dir.path().join("other");
        let taken = first.address();
        let ended = ServerCommand::new(&other).listen(taken).refused();
        expect_words(&ended, &["cannot listen", &taken.to_string()]);
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(1))
            .await;
        first.stop();
        // Nothing stands in the way of a second attempt.
        ServerCommand::new(&other).listen(taken).start().stop();
    });
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = TempDir::new().unwrap();
    let command = || ServerCommand::new(&data_in(&dir));
    for command in [
        command().listen("nonsense"),
        command().arguments(["--shards", "0"]),
        command().arguments(["--shards", "65"]),
        command().arguments(["--no-such-option"]),
    ] {
        command.refused().expect_code(2);
    }
    assert!(!data_in(&dir).exists());
}

#[test]
fn a_servers_name_never_changes() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let named = |name: &str| ServerCommand::new(&data).arguments(["--name", name]);
        for bad in ["", "A", "a b", "a+b", "/a", "a/", "ä"] {
            expect_words(&named(bad).refused(), &["server name"]);
        }
        let server = named("ledger.example.org").start();
        assert!(
            server.stdout().contains("ledger.example.org"),
            "{}",
            server.stdout()
        );
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        assert_eq!(ledger.info.origin, "ledger.example.org/logs/payments");
        server.stop();

        let ended = named("ledger.example.com").refused();
        expect_words(&ended, &["ledger.example.org", "ledger.example.com"]);
        // Named or not, it is the same one.
        for command in [named("ledger.example.org"), ServerCommand::new(&data)] {
            let server = command.start();
            let clients = Clients::connect(&server).await;
            assert_eq!(
                TestLedger::find(&clients, "payments").await.info,
                ledger.info
            );
            server.stop();
        }
    });
}

#[test]
fn directories_of_others_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "all of it").unwrap();
    let before = files::files(&foreign);
    let ended = ServerCommand::new(&foreign).refused();
    expect_words(&ended, &["thesis.txt", "not empty"]);
    assert_eq!(files::files(&foreign), before);

    let file = foreign.join("thesis.txt");
    expect_words(&ServerCommand::new(&file).refused(), &["thesis.txt"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "all of it");

    // The checker makes nothing either.
    let nothing = dir.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    for empty in [&foreign, &nothing, &dir.path().join("missing")] {
        expect_words(&fsck(empty).expect_code(1), &["holds no deed server"]);
    }
    assert!(files::files(&nothing).is_empty());
    assert!(!dir.path().join("missing").exists());
}

// ---- the server's key

#[test]
fn the_key_is_the_owners_alone() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (server, clients, ledger) = up(&data).await;
        assert!(
            server.stdout().contains("server.key"),
            "it says so: {}",
            server.stdout()
        );
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(3))
            .await;
        server.stop();

        let key = data.join("server.key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&key), 0o600);
        for open in [0o644, 0o640, 0o604, 0o660] {
            fs::set_permissions(&key, fs::Permissions::from_mode(open)).unwrap();
            expect_words(
                &ServerCommand::new(&data).refused(),
                &["server.key", "chmod 600"],
            );
            expect_words(&fsck(&data).expect_code(1), &["server.key", "chmod 600"]);
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

        // Made once.
        let server = ServerProcess::start(&data);
        assert!(!server.stdout().contains("created"), "{}", server.stdout());
        server.stop();
    });
}

#[test]
fn a_key_that_is_lost_or_anothers_is_found_out() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (server, clients, ledger) = up(&data).await;
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(3))
            .await;
        server.stop();
        let key = data.join("server.key");
        let right = fs::read_to_string(&key).unwrap();

        fs::remove_file(&key).unwrap();
        expect_words(&ServerCommand::new(&data).refused(), &["server.key"]);
        assert!(!key.exists(), "no new one was made in its place");
        expect_words(&fsck(&data).expect_code(1), &[]);

        let write = |text: &str| {
            fs::write(&key, text).unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(&right[..right.len() - 9]);
        expect_words(
            &ServerCommand::new(&data).refused(),
            &["server.key", "line 3"],
        );
        expect_words(&fsck(&data).expect_code(1), &["server.key", "line 3"]);

        // The key of another server, under this one's name.
        let other = dir.path().join("other");
        ServerProcess::start(&other).stop();
        let others = fs::read_to_string(other.join("server.key")).unwrap();
        let line = |text: &str, number| text.lines().nth(number).unwrap().to_owned();
        let mixed = [
            line(&right, 0),
            line(&right, 1),
            line(&others, 2),
            String::new(),
        ];
        write(&mixed.join("\n"));
        expect_words(&fsck(&data).expect_code(1), &["payments", "server.key"]);
        match ServerCommand::new(&data).try_start() {
            // It may start; this ledger it must not sign for.
            Ok(server) => {
                let clients = Clients::connect(&server).await;
                let status = clients.checkpoint("payments").await.unwrap_err();
                assert_eq!(status.code(), Code::DataLoss, "{status:?}");
            }
            Err(ended) => expect_words(&ended, &["server.key"]),
        }

        write(&right);
        fsck_clean(&data);
        ServerProcess::start(&data).stop();
    });
}

// ---- stopping

#[test]
fn sigterm_and_sigint_drain_and_lose_nothing() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let dir = TempDir::new().unwrap();
            let data = data_in(&dir);
            let (server, clients, ledger) = up(&data).await;

            // A watch, an idle connection, and two streams that never stop sending.
            let watch = v1::WatchTreeHeadsRequest {
                ledger: ledger.name.clone(),
                consistency_from: None,
            };
            let mut heads = clients
                .log
                .clone()
                .watch_tree_heads(watch)
                .await
                .unwrap()
                .into_inner();
            let idle = Clients::connect(&server).await;
            let streaming: Vec<_> = (1..=2)
                .map(|number| {
                    let producer = Producer::new(ledger.id, number);
                    tokio::spawn(stream_until_ended(
                        clients.clone(),
                        ledger.clone(),
                        producer,
                    ))
                })
                .collect();
            until("a tree of 100 leaves", || async {
                (ledger.head(&clients).await.size.get() > 100).then_some(())
            })
            .await;
            server.signal(signal);
            let ended = server.wait().expect_code(0);
            assert!(ended.stderr.contains("stopped"), "{ended:#?}");

            let mut answered = Vec::new();
            for stream in streaming {
                answered.extend(within("the end of a stream", stream).await.unwrap());
            }
            assert!(answered.len() > 10);
            while let Ok(Some(head)) = within("the end of a watch", heads.message()).await {
                answered.push((ledger.open(&head.checkpoint), Vec::new()));
            }
            let gone = idle.checkpoint(&ledger.name).await.unwrap_err();
            assert_eq!(gone.code(), Code::Unavailable, "{gone:?}");

            fsck_clean(&data);
            let server = ServerProcess::start(&data);
            let clients = Clients::connect(&server).await;
            let log = Log::read(&clients, &ledger).await;
            log.expect_heads(answered.iter().map(|(head, _)| *head));
            for receipt in answered.iter().flat_map(|(_, receipts)| receipts) {
                let leaf = usize::try_from(receipt.leaf_index).unwrap();
                assert_eq!(log.leaf_hashes[leaf].as_bytes()[..], receipt.leaf_hash);
            }
            server.stop();
        }
    });
}

/// Streams until the server ends the stream; returns every head and receipt that came.
async fn stream_until_ended(
    clients: Clients,
    ledger: TestLedger,
    mut producer: Producer,
) -> Vec<(TreeHead, Vec<v1::Receipt>)> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    let sending = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            while sender
                .send(ledger.request(&producer.intents(5)))
                .await
                .is_ok()
            {}
        }
    });
    let call = clients
        .ledger
        .clone()
        .append_stream(ReceiverStream::new(receiver))
        .await;
    let mut answers = call.unwrap().into_inner();
    let mut answered = Vec::new();
    let end = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let receipts = answer.results.iter().map(accepted).collect();
                answered.push((ledger.open(&answer.checkpoint), receipts));
            }
            Ok(None) => panic!("a stream that was not finished ends with a reason"),
            Err(status) => break status,
        }
    };
    sending.abort();
    // Told, or cut off in the middle of sending: a status with a source was made on this side.
    let lost = std::error::Error::source(&end).is_some();
    assert!(end.code() == Code::Unavailable || lost, "{end:?}");
    answered
}

/// Clients that hold on to their connections, and say nothing or half of something, do not keep
/// the server up.
#[test]
fn a_client_that_hangs_does_not_hold_the_server() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = ServerCommand::new(&data)
            .arguments(["--drain-ms", "300"])
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let mut producer = Producer::new(ledger.id, 1);
        sender
            .send(ledger.request(&producer.intents(5)))
            .await
            .unwrap();
        let call = clients
            .ledger
            .clone()
            .append_stream(ReceiverStream::new(receiver))
            .await;
        let mut answers = call.unwrap().into_inner();
        within("an answer", answers.message())
            .await
            .unwrap()
            .unwrap();
        let silent = TcpStream::connect(server.address()).unwrap();
        let mut half = TcpStream::connect(server.address()).unwrap();
        half.write_all(b"GET /logs/payments/checkpoint HTTP/1.1\r\nHost: ")
            .unwrap();
        // All of them stay as they are.
        let ended = server.stop();
        drop((silent, half));
        assert!(ended.stderr.contains("stopped"), "{ended:#?}");
        drop((sender, answers));
        fsck_clean(&data);
    });
}

#[test]
fn restarts_keep_every_ledger_byte_for_byte() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (mut server, mut clients, first) = up(&data).await;
        let mut ledgers = vec![first];
        for (round, name) in ["audit", "b", "c"].into_iter().enumerate() {
            ledgers.push(TestLedger::create(&clients, name).await);
            for (number, ledger) in ledgers.iter().enumerate() {
                let mut producer = Producer::new(ledger.id, round as u64);
                ledger
                    .append(&clients, &producer.intents(100 * number + 57))
                    .await;
            }
            let mut before = Vec::new();
            for ledger in &ledgers {
                let checkpoint = clients.checkpoint(&ledger.name).await.unwrap();
                before.push((checkpoint, Log::read(&clients, ledger).await));
            }
            // Once by the book, and once not; and another number of shards.
            if round % 2 == 0 {
                drop(server.stop());
            } else {
                server.kill9();
            }
            let shards = (round + 1).to_string();
            server = ServerCommand::new(&data)
                .arguments(["--shards", &shards])
                .start();
            clients = Clients::connect(&server).await;
            for (ledger, (checkpoint, log)) in ledgers.iter().zip(&before) {
                assert_eq!(clients.checkpoint(&ledger.name).await.unwrap(), *checkpoint);
                assert!(Log::read(&clients, ledger).await.entries == log.entries);
            }
        }
        server.stop();
        let report = fsck_clean(&data);
        assert!(report.contains(" 4 ledgers,"), "{report}");
    });
}

// ---- damage

/// A directory whose records are in sorted files: the log is written out when a store is opened.
async fn flushed(data: &Path) -> (TestLedger, Vec<Bytes>, Log) {
    let (server, clients, ledger) = up(data).await;
    let mut producer = Producer::new(ledger.id, 1);
    let mut payloads = Vec::new();
    for batch in [600, 1400, 1000] {
        let new = producer.intents(batch);
        ledger.append(&clients, &new).await;
        payloads.extend(new);
    }
    let log = Log::read(&clients, &ledger).await;
    server.stop();
    ServerProcess::start(data).stop();
    fsck_clean(data);
    (ledger, payloads, log)
}

#[test]
fn a_changed_entry_is_found_and_never_served() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (ledger, payloads, log) = flushed(&data).await;
        let (path, offset) = files::find(&data.join("store"), ".sst", &payloads[1000]);
        files::flip(&path, offset + 70);
        let checked = fsck(&data).expect_code(1);
        assert!(!checked.stderr.contains("panicked"), "{checked:#?}");
        assert!(checked.stdout.is_empty(), "{checked:#?}");

        let server = ServerProcess::start(&data);
        let clients = Clients::connect(&server).await;
        let status = clients.entries(&ledger.name, 1001, 1002).await.unwrap_err();
        assert_eq!(status.code(), Code::DataLoss, "{status:?}");
        assert!(
            !status.message().contains("sst"),
            "no inner text: {status:?}"
        );
        // What it does serve is what was there.
        let far = clients.entries(&ledger.name, 2900, 3001).await.unwrap();
        let far: Vec<_> = far
            .into_iter()
            .flat_map(|message| message.entries)
            .collect();
        assert!(far == log.entries[2900..]);
        server.terminate();
    });
}

#[test]
fn a_changed_tile_is_found_and_never_proven_from() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (ledger, _, log) = flushed(&data).await;
        // Two neighbours stand side by side in a tile and nowhere else.
        let mut neighbours = log.leaf_hashes[300].as_bytes().to_vec();
        neighbours.extend_from_slice(log.leaf_hashes[301].as_bytes());
        let (path, offset) = files::find(&data.join("store"), ".sst", &neighbours);
        files::flip(&path, offset + 5);
        let checked = fsck(&data).expect_code(1);
        assert!(!checked.stderr.contains("panicked"), "{checked:#?}");

        if let Ok(server) = ServerCommand::new(&data).try_start() {
            let clients = Clients::connect(&server).await;
            let leaf = v1::get_inclusion_proof_request::Leaf::LeafIndex(300);
            let status = clients
                .inclusion(&ledger.name, Some(leaf), 0)
                .await
                .unwrap_err();
            assert_eq!(status.code(), Code::DataLoss, "{status:?}");
            server.terminate();
        }
    });
}

#[test]
fn a_store_without_its_newest_file_is_found() {
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let (_, payloads, _) = flushed(&data).await;
        let (path, _) = files::find(&data.join("store"), ".sst", &payloads[2999]);
        let whole = fs::metadata(&path).unwrap().len();
        files::cut(&path, usize::try_from(whole / 2).unwrap());
        fsck(&data).expect_code(1);
        let before = files::fingerprint(&data);
        let ended = ServerCommand::new(&data).refused();
        assert!(ended.code().is_some_and(|code| code != 0), "{ended:#?}");
        assert!(
            files::fingerprint(&data) == before,
            "the refusal changed nothing"
        );
    });
}

// ---- quiet

#[test]
fn logs_hold_neither_secrets_nor_payloads() {
    run(async {
        const MARK: &str = "Passenger-Mia-Li-3668";
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let mut logged = String::new();
        for format in ["text", "json"] {
            let server = ServerCommand::new(&data)
                .rust_log("debug")
                .arguments(["--log-format", format])
                .start();
            let clients = Clients::connect(&server).await;
            let ledger = TestLedger::create(&clients, &format!("quiet-{format}")).await;
            let mut producer = Producer::new(ledger.id, 1);
            let recorded = producer.intent(&format!("orders/{MARK}"));
            let (receipts, head) = ledger
                .append(&clients, std::slice::from_ref(&recorded))
                .await;
            receipt::verify(&receipts[0], &recorded, &head, false).unwrap();
            // What is refused must not be repeated either.
            let junk = Bytes::from(format!("{MARK}: no statement at all"));
            let mut message = producer.message(deed_tests::statements::intent(MARK));
            message.producer = format!("{MARK}\n");
            let broken = Bytes::from(prost::Message::encode_to_vec(&message));
            ledger.try_append(&clients, &[junk, broken]).await.unwrap();
            let odd = v1::AppendRequest {
                ledger: "nobody".to_owned(),
                envelopes: vec![envelope(&recorded)],
                ..v1::AppendRequest::default()
            };
            clients.ledger.clone().append(odd).await.unwrap_err();
            clients.entries(&ledger.name, 0, 0).await.unwrap();
            let ended = server.stop();
            assert!(
                ended.stderr.contains("ledger created"),
                "it does log: {ended:#?}"
            );
            logged += &ended.stderr;
            logged += &ended.stdout;
        }
        assert!(!logged.contains(MARK), "a payload's text is in the log");
        let key = fs::read_to_string(data.join("server.key")).unwrap();
        let secret = key
            .lines()
            .find_map(|line| line.strip_prefix("secret "))
            .unwrap();
        assert!(!logged.contains(secret), "the secret is in the log");
        assert!(
            !logged.contains(&secret[..20]),
            "some of the secret is in the log"
        );
        // The payload itself is where it belongs.
        assert!(files::contains(&data.join("store"), MARK.as_bytes()));
        assert!(!files::contains(&data.join("store"), secret.as_bytes()));
    });
}
