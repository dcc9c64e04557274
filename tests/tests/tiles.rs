//! The C2SP tlog-tiles read interface over plain HTTP/1.1.

use deed_proto::v1::get_inclusion_proof_request::Leaf;
use deed_tests::{
    access::{Token, ask},
    http::{Answer, Http},
    oracle::Log,
    process::{ServerCommand, ServerProcess},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
};
use deed_tlog::{EntryBundleId, RightEdge, TileId, TreeSize, decode_entry_bundle};
use http::{HeaderMap, Method, StatusCode};
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

/// What a browser's page needs, by the Fetch standard: the header that lets it read an answer, and an
/// answer to the browser's question before it asks with headers of its own.
fn expect_open(status: StatusCode, headers: &HeaderMap, method: &Method, what: &str) {
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(value("access-control-allow-origin"), Some("*"), "{what}");
    // No answer depends on who calls, so no page may send what says that.
    assert_eq!(value("access-control-allow-credentials"), None, "{what}");
    assert_eq!(
        value("access-control-allow-private-network"),
        None,
        "{what}"
    );
    if method == Method::OPTIONS {
        assert_eq!(status, StatusCode::NO_CONTENT, "{what}");
        assert_eq!(value("access-control-allow-methods"), Some("GET, HEAD"));
        assert_eq!(value("access-control-allow-headers"), Some("*"));
        assert!(value("access-control-max-age").is_some());
    }
}

fn expect_closed(headers: &HeaderMap, what: &str) {
    let names = headers.keys().map(http::HeaderName::as_str);
    let opened: Vec<_> = names
        .filter(|name| name.starts_with("access-control-"))
        .collect();
    assert!(opened.is_empty(), "{what}: {opened:?}");
}

#[test]
fn pages_read_what_needs_no_role_and_nothing_else() {
    run(async {
        for access in [false, true] {
            let dir = TempDir::new().unwrap();
            let data = dir.path().join("data");
            let role = ["--ledger", "*", "--role", "append,read,admin"];
            let owner = access.then(|| Token::create(&data, "spiffe://example.org/a", &role));
            let server = ServerCommand::new(&data)
                .arguments(["--set", &format!("access.required={access}")])
                .start();
            let clients = Clients::connect(&server).await;
            let ledger = TestLedger::create_by(&clients, "tiles", owner.as_ref()).await;
            let mut http = Http::connect(server.address()).await;
            let methods = [Method::GET, Method::HEAD, Method::OPTIONS];
            for (path, open, found) in [
                ("checkpoint", true, 200),
                ("tile/0/000.p/1", true, 200),
                // A page can tell what is not there from a server that is not.
                ("tile/0/000.p/200", true, 404),
                ("tile/entries/000.p/1", false, 0),
                ("tile/%65ntries/000.p/1", false, 0),
            ] {
                let path = format!("/logs/{}/{path}", ledger.name);
                for method in &methods {
                    let over_1 = http.request(method.clone(), &path).await;
                    let over_2 = ask(&clients.channel, method.clone(), &path).await;
                    let answers = [
                        (over_1.status, over_1.headers),
                        (over_2.status(), over_2.headers().clone()),
                    ];
                    for (version, (status, headers)) in ["1.1", "2"].iter().zip(answers) {
                        let what = format!("{method} {path} over HTTP/{version}: {status}");
                        if open {
                            expect_open(status, &headers, method, &what);
                        } else {
                            expect_closed(&headers, &what);
                            let refused = access || method == Method::OPTIONS;
                            assert_eq!(status.is_client_error(), refused, "{what}");
                        }
                        if open && method != Method::OPTIONS {
                            assert_eq!(status.as_u16(), found, "{what}");
                        }
                    }
                }
            }
            // What is no path of tiles, other services, and other methods.
            for (method, path) in [
                (Method::OPTIONS, "/logs/tiles/tile/nonsense"),
                (Method::OPTIONS, "/deed.v1.Log/GetTreeHead"),
                (Method::OPTIONS, "/deed.v1.Ledger/Append"),
                (Method::OPTIONS, "/"),
                (Method::GET, "/"),
                (Method::POST, "/logs/tiles/checkpoint"),
                (Method::DELETE, "/logs/tiles/tile/0/000.p/1"),
            ] {
                let what = format!("{method} {path}");
                let answer = http.request(method.clone(), path).await;
                expect_closed(&answer.headers, &what);
                let answer = ask(&clients.channel, method, path).await;
                expect_closed(answer.headers(), &what);
            }
            server.stop();
        }
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
