//! The C2SP tlog-tiles read interface over plain HTTP/1.1.

use deed_proto::v1::get_inclusion_proof_request::Leaf;
use deed_tests::{
    http::{Answer, Http},
    oracle::Log,
    process::ServerProcess,
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use deed_tlog::{EntryBundleId, RightEdge, TileId, TreeSize, decode_entry_bundle};
use http::{Method, StatusCode};
use tempfile::TempDir;

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";

#[track_caller]
fn expect_found(answer: &Answer, content_type: &str) {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.content_type, content_type);
}

#[track_caller]
fn expect_immutable(answer: &Answer) {
    expect_found(answer, BYTES);
    assert!(
        answer.cache_control.contains("immutable"),
        "{}",
        answer.cache_control
    );
    let age = answer
        .cache_control
        .split(", ")
        .find_map(|part| part.strip_prefix("max-age="))
        .and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(
        age.is_some_and(|seconds| seconds >= 86_400),
        "{}",
        answer.cache_control
    );
}

/// Checks every tile of a tree of 600 leaves, in every width that it ever had.
#[test]
fn every_width_of_every_tile_is_served() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(dir.path());
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "tiles").await;
        let mut producer = Producer::new(ledger.id, 1).unchained();
        for batch in [100, 155, 1, 200, 143] {
            ledger.append(&clients, &producer.intents(batch)).await;
        }
        let log = Log::read(&clients, &ledger).await;
        let size = log.head.size;
        assert_eq!(size, TreeSize::new(600));
        let mut full = Vec::new();
        let mut edge = RightEdge::new();
        edge.append(&log.leaf_hashes, &mut |tile| full.push(tile));

        let mut http = Http::connect(server.address()).await;
        let base = "/logs/tiles";
        let checkpoint = http.get(&format!("{base}/checkpoint")).await;
        expect_found(&checkpoint, TEXT);
        assert_eq!(ledger.open(&checkpoint.body), log.head);
        assert!(
            !checkpoint.cache_control.contains("immutable"),
            "{checkpoint:?}"
        );
        let age = checkpoint
            .cache_control
            .split("max-age=")
            .nth(1)
            .expect("a short time");
        assert!(
            age.parse::<u64>().is_ok_and(|seconds| seconds <= 60),
            "{age}"
        );

        for index in 0..3 {
            let there = TileId::in_tree(0, index, size).unwrap().width();
            let first = usize::try_from(index * 256).unwrap();
            for width in 1..=there {
                let last = first + usize::from(width);
                let tile = TileId::new(0, index, width).unwrap();
                let answer = http.get(&format!("{base}/{}", tile.path())).await;
                expect_immutable(&answer);
                let hashes = tile.parse_bytes(&answer.body).expect("so many hashes");
                assert_eq!(hashes, log.leaf_hashes[first..last], "{}", tile.path());

                let bundle = EntryBundleId::new(index, width).unwrap();
                let answer = http.get(&format!("{base}/{}", bundle.path())).await;
                expect_immutable(&answer);
                let entries = decode_entry_bundle(&answer.body).expect("a bundle");
                assert_eq!(entries, log.entries[first..last], "{}", bundle.path());
            }
        }
        // Level 1 has the roots of the full tiles below; partial tiles are never hashed upward.
        for width in 1..=2 {
            let tile = TileId::new(1, 0, width).unwrap();
            let answer = http.get(&format!("{base}/{}", tile.path())).await;
            expect_immutable(&answer);
            let hashes = tile.parse_bytes(&answer.body).unwrap();
            for (hash, below) in hashes
                .iter()
                .zip(full.iter().filter(|tile| tile.level == 0))
            {
                assert_eq!(*hash, deed_tests::oracle::root(&below.hashes));
            }
        }
        server.stop();
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerProcess::start(dir.path());
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "tiles").await;
        ledger
            .append(&clients, &Producer::new(ledger.id, 1).intents(299))
            .await;
        let mut http = Http::connect(server.address()).await;
        // The paths are beyond the tree, or not in the standard's form.
        for path in [
            "tile/0/001",
            "tile/0/001.p/45",
            "tile/0/002",
            "tile/0/002.p/1",
            "tile/1/000",
            "tile/1/000.p/2",
            "tile/2/000.p/1",
            "tile/63/000.p/1",
            "tile/64/000.p/1",
            "tile/0/000.p/256",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/0",
            "tile/0/x000/000",
            "tile/00/000",
            "tile/-1/000",
            "tile/0/000/",
            "tile/0/000.p",
            "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
            "tile/entries/001",
            "tile/entries/001.p/45",
            "tile/entries/002.p/1",
            "tile/entries/x999/x999/x999/x999/x999/999",
            "tile/entries/",
            "tile/entries",
            "tile/data/000",
            "tile/",
            "tile",
            "checkpoint/",
            "checkpoints",
            "",
        ] {
            let answer = http.get(&format!("/logs/tiles/{path}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
            assert!(
                !answer.cache_control.contains("immutable"),
                "{path}: {answer:?}"
            );
        }
        for path in [
            "/",
            "/logs",
            "/logs/",
            "/logs/tiles",
            "/logs/nobody/checkpoint",
            "/logs/nobody/tile/0/000.p/1",
            "/logs/Tiles/checkpoint",
            "/logs/%2e%2e/checkpoint",
            "/logs/tiles/../tiles/checkpoint",
            "/metrics",
            "/favicon.ico",
        ] {
            let answer = http.get(path).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}: {answer:?}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            let answer = http.request(method, "/logs/tiles/checkpoint").await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{answer:?}");
        }
        let found = http.get("/logs/tiles/tile/0/001.p/44").await;
        expect_immutable(&found);

        // A tile that does not exist yet exists once the tree has grown, and was never cached as
        // missing.
        let mut producer = Producer::new(ledger.id, 2);
        ledger.append(&clients, &producer.intents(1)).await;
        expect_immutable(&http.get("/logs/tiles/tile/0/001.p/45").await);
        let size = ledger.head(&clients).await.size.get();
        let proof = clients
            .inclusion("tiles", Some(Leaf::LeafIndex(size - 1)), 0)
            .await;
        ledger.check_inclusion(&proof.unwrap());
    });
}
