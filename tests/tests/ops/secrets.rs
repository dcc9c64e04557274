//! The server's key, and secrets that must not be in logs.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use bytes::Bytes;
use deed_evidence::receipt::{self, Sent};
use deed_proto::v1;
use deed_tests::{
    files,
    process::{ServerCommand, ServerProcess, fsck, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    statements::{Producer, envelope},
};
use tempfile::TempDir;
use tonic::Code;

use crate::{data_in, expect_words, up};

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

        // The key is made once.
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

        // The key is another server's, with this server's name.
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
            // The server may start, but must not sign for this ledger.
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
            receipt::verify(&receipts[0], &Sent::unsigned(&recorded), &head, false).unwrap();
            // A refused text must not be logged either.
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
            clients.append(odd).await.unwrap_err();
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
        // The payload is in the store, where it belongs.
        assert!(files::contains(&data.join("store"), MARK.as_bytes()));
        assert!(!files::contains(&data.join("store"), secret.as_bytes()));
    });
}
