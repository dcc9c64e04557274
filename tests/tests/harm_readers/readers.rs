//! Attacks by readers that ask for everything and take nothing.
//!
//! `DEED_READERS_CONNECTIONS=150` opens 150 connections with 40 streams each (24 without it, and
//! 150 in `make harm`), and prints the server's memory.

use std::{
    env,
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_proto::v1::{
    self, actions_client::ActionsClient, content_client::ContentClient, log_client::LogClient,
};
use deed_tests::{
    admin::Admin,
    contents::{Content, Contents},
    harm::{Victim, Watch, attack_time},
    rpc::TestLedger,
    run_within,
    statements::task_id,
    until, within,
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};

use crate::{MIB, Scene, filled, stingy};

/// Bound on answers that the server may hold, in MiB.
const ANSWERS_MIB: u64 = 16;

/// Most memory of the server beyond that at rest, in MiB: answers, both encoded and in HTTP/2's
/// buffers, and connections, streams, the store's blocks, and the allocator's reserve.
const BOUND_MIB: u64 = 2 * ANSWERS_MIB + 96;

/// Longest time until memory is given back: the allocator does it some 10 s after the memory is
/// free.
const GIVEN_BACK: Duration = Duration::from_secs(60);

const STREAMS: usize = 40;

const SETTINGS: &[(&str, &str)] = &[
    ("limits.answers_mib", "16"),
    ("store.block_cache_mib", "16"),
    ("store.memtable_mib", "8"),
];

/// Requests much, in one of several ways, and takes none of it.
async fn ask(channel: Channel, ledger: TestLedger, content: Bytes, way: usize) {
    let mut log = LogClient::new(channel.clone());
    let mut actions = ActionsClient::new(channel.clone());
    let name = ledger.name.clone();
    let task = Bytes::copy_from_slice(&task_id(ledger.id, [1; 16]));
    // Each caller leaves its answers unread until it is ended.
    match way % 6 {
        0 | 1 => {
            let asked = v1::GetEntriesRequest {
                ledger: name,
                ..v1::GetEntriesRequest::default()
            };
            let _held = log.get_entries(asked).await;
            std::future::pending::<()>().await;
        }
        2 => {
            let asked = v1::GetContentRequest {
                ledger: name,
                commitment: content,
            };
            let _held = ContentClient::new(channel).get_content(asked).await;
            std::future::pending::<()>().await;
        }
        3 => {
            let asked = v1::SearchRequest {
                ledger: name,
                with_proofs: true,
                ..v1::SearchRequest::default()
            };
            let _held = actions.search(asked).await;
            std::future::pending::<()>().await;
        }
        4 => {
            let asked = v1::GetTaskRequest {
                ledger: name,
                task,
                min_size: 0,
            };
            let _held = actions.get_task(asked).await;
            std::future::pending::<()>().await;
        }
        _ => {
            let path = format!("/logs/{name}/tile/entries/000");
            let request = http::Request::get(path).body(tonic::body::Body::empty());
            let request = request.expect("a request");
            let mut channel = channel;
            let ready = std::future::poll_fn(|context| {
                tonic::client::GrpcService::poll_ready(&mut channel, context)
            });
            if ready.await.is_ok() {
                let _held = tonic::client::GrpcService::call(&mut channel, request).await;
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Waits until the server holds answers, and then for some more checks.
async fn loaded(admin: &Admin, scene: &Scene, enough_kib: u64) {
    let full = ANSWERS_MIB * MIB / 4;
    within("a server with unread answers", async {
        while admin.figure("deed_answer_bytes").await < full
            && scene.server.resident_kib() < enough_kib
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[test]
fn slow_readers_hold_what_is_theirs_and_it_is_given_back() {
    let connections = match env::var("DEED_READERS_CONNECTIONS") {
        Ok(count) => count.parse().expect("a number"),
        Err(_) => 24,
    };
    run_within(Duration::from_secs(200) + attack_time(), async move {
        let scene = Scene::set(SETTINGS);
        let clients = scene.clients().await;
        let ledger = filled(&clients, "read").await;
        let other = Victim::new(&clients).await;
        let content = Content::new(1, vec![7; 4 << 20]);
        let contents = Contents::over(clients.channel.clone());
        contents
            .put(content.parts(&ledger.name, 1 << 20))
            .await
            .expect("a content");
        // A caller takes everything once first, so that what remains in memory afterwards does not
        // count.
        assert!(
            !clients
                .entries(&ledger.name, 0, 0)
                .await
                .expect("entries")
                .is_empty()
        );
        let fetched = contents.fetch(&ledger.name, &content.digest()).await;
        assert_eq!(fetched.expect("a content").1, content.bytes);
        let admin = scene.admin();
        let watch = Watch::begin(&scene.server, &other);
        let idle_kib = watch.idle_kib();
        let bound_kib = idle_kib + BOUND_MIB * 1024;

        let mut readers = JoinSet::new();
        for _ in 0..connections {
            let channel = stingy(&scene.server).await;
            for way in 0..STREAMS {
                let (channel, ledger) = (channel.clone(), ledger.clone());
                readers.spawn(ask(channel, ledger, content.digest(), way));
            }
        }
        loaded(&admin, &scene, bound_kib).await;
        let (began, mut held, mut open) = (Instant::now(), 0, 0);
        while began.elapsed() < attack_time() {
            let figures = admin.figures().await;
            held = held.max(figures.get("deed_answer_bytes"));
            open = open.max(figures.get("deed_places_taken{what=\"read_streams\"}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        eprintln!(
            "{connections} connections x {STREAMS} unread answers, {open} streams open, answers {} KiB",
            held >> 10,
        );
        watch.expect_unharmed(BOUND_MIB).await;
        assert!(held <= ANSWERS_MIB * MIB, "answers hold {held} bytes");

        readers.shutdown().await;
        until("all shares to be free again", || async {
            (admin.figure("deed_answer_bytes").await == 0).then_some(())
        })
        .await;
        let begun = Instant::now();
        let most_kib = idle_kib * 3 / 2;
        let mut now_kib = scene.server.resident_kib();
        while now_kib > most_kib && begun.elapsed() < GIVEN_BACK {
            tokio::time::sleep(Duration::from_millis(200)).await;
            now_kib = scene.server.resident_kib();
        }
        eprintln!(
            "{} MiB {:?} after the load",
            now_kib / 1024,
            begun.elapsed()
        );
        assert!(now_kib <= most_kib, "{now_kib} KiB, idle {idle_kib}");
        scene.server.stop();
    });
}

#[test]
fn a_reader_that_takes_nothing_is_ended_and_its_share_is_free_again() {
    run_within(Duration::from_secs(60), async {
        let mut settings = SETTINGS.to_vec();
        settings.push(("limits.stall_ms", "1000"));
        let scene = Scene::set(&settings);
        let clients = scene.clients().await;
        let ledger = filled(&clients, "read").await;
        let admin = scene.admin();
        let asked = v1::GetEntriesRequest {
            ledger: ledger.name.clone(),
            ..v1::GetEntriesRequest::default()
        };
        let mut stuck = LogClient::new(stingy(&scene.server).await);
        let mut answers = stuck.get_entries(asked).await.unwrap().into_inner();
        until("an answer that waits for its reader", || async {
            (admin.figure("deed_answer_bytes").await > 0).then_some(())
        })
        .await;
        // The reader is ended, and so is its connection, because it does not take the end either.
        until("the share to be free again", || async {
            (admin.figure("deed_answer_bytes").await == 0).then_some(())
        })
        .await;
        let ended = within("the end of the answer", async {
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(status.code()),
                }
            }
        })
        .await;
        assert!(ended.is_some_and(|code| code != Code::Ok), "{ended:?}");
        // A reader that takes its answers is not ended, however long it takes.
        let all = clients.entries(&ledger.name, 0, 0).await.expect("entries");
        let count: usize = all.iter().map(|message| message.entries.len()).sum();
        assert_eq!(count, 4097);
        let largest = all.iter().map(|message| {
            let bytes = message.entries.iter().map(Bytes::len);
            bytes.sum::<usize>()
        });
        assert!(largest.max().unwrap() <= 128 << 10);
        scene.server.stop();
    });
}
