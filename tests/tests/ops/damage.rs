//! Damage to a store: found by the checker, and never served.

use std::{fs, path::Path};

use bytes::Bytes;
use deed_proto::v1;
use deed_tests::{
    files,
    oracle::Log,
    process::{ServerCommand, ServerProcess, fsck, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use tempfile::TempDir;
use tonic::Code;

use crate::{data_in, up};

/// Makes a directory whose records are in sorted files: opening a store flushes the log.
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
        // The entries that it still serves are the true ones.
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
        // These two neighbours are next to each other only in a tile.
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
