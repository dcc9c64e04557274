//! A disk that becomes full.
//!
//! If the test may mount a small file system, a real one is filled. Otherwise the floors are set
//! above the disk's size, which makes it look full.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use deed_proto::v1;
use deed_tests::{
    contents::{Content, Contents, noise},
    harm::{Victim, Watch, attack_time, goes_on},
    process::fsck_clean,
    rpc::{Clients, TestLedger, accepted},
    run_within,
    statements::Producer,
    until,
};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{Scene, command};

/// Most memory of the server beyond that at rest, in MiB, with the settings of the small disk: an
/// upload, blocks and memtables (7 families, 4 each) of RocksDB, and the allocator.
const HELD_MIB: u64 = 8 + 8 + 7 * 4 * 4 + 64;

/// More MiB than any disk has.
const BEYOND_MIB: &str = "1000000000";

fn no_space(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().expect("why");
    assert_eq!(info.reason, "NO_SPACE");
    assert!(status.get_details_retry_info().is_some());
}

#[test]
fn below_the_floors_contents_and_then_statements_are_refused_and_nothing_ends() {
    run_within(Duration::from_secs(60), async {
        let dir = TempDir::new().expect("a temporary directory");
        let scene = Scene::set_in(dir, &[("store.contents_floor_mib", BEYOND_MIB)]);
        let clients = scene.clients().await;
        let ledger = TestLedger::create(&clients, "full").await;
        let mut producer = Producer::new(ledger.id, 1);
        let content = Content::new(1, vec![7; 1000]);
        let contents = Contents::over(clients.channel.clone());
        no_space(&contents.put(content.parts("full", 1000)).await.unwrap_err());
        ledger.append(&clients, &[producer.intent("a")]).await;
        let admin = scene.admin();
        let (status, said) = admin.ready().await;
        assert_eq!(status, 200);
        assert!(said.contains("no contents are taken"), "{said}");
        let refused = "deed_disk_refused_total{what=\"contents\"}";
        assert_eq!(admin.figure(refused).await, 1);
        assert!(admin.figure("deed_disk_free_bytes").await > 0);
        let Scene { server, dir } = scene;
        server.stop();

        let scene = Scene::set_in(dir, &[("store.log_floor_mib", BEYOND_MIB)]);
        let clients = scene.clients().await;
        let payloads = [producer.clone().intent("b")];
        let refused = ledger.try_append(&clients, &payloads).await;
        no_space(&refused.unwrap_err());
        let new = v1::CreateLedgerRequest {
            name: "another".to_owned(),
            authority_keys: vec![deed_tests::rpc::authority_key(1)],
        };
        no_space(&clients.ledger.clone().create_ledger(new).await.unwrap_err());
        // Recorded entries can be read.
        assert_eq!(ledger.head(&clients).await.size.get(), 2);
        let (status, said) = scene.admin().ready().await;
        assert_eq!(status, 503);
        assert!(said.contains("no statements are taken"), "{said}");
        let Scene { server, dir } = scene;
        server.stop();

        let scene = Scene::set_in(dir, &[]);
        ledger
            .append(&scene.clients().await, &[producer.intent("b")])
            .await;
        scene.server.stop();
        fsck_clean(&scene.dir.path().join("data"));
    });
}

/// A file system in memory. It is unmounted when it is dropped.
struct Mounted(TempDir);

impl Mounted {
    /// Mounts one; returns `None` if this process may not.
    fn new(mib: u64) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|mounted| mounted.status.success())
            .then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The unmount is lazy, because a server that a failed test left behind may still have files
        // open.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        drop(unmounted);
    }
}

#[test]
fn a_disk_that_is_filled_with_contents_keeps_room_for_the_log() {
    const DISK_MIB: u64 = 160;
    let Some(mounted) = Mounted::new(DISK_MIB) else {
        eprintln!("skipped: this process may not mount a file system");
        return;
    };
    let data = mounted.path().join("data");
    run_within(Duration::from_secs(100) + attack_time(), async move {
        let settings = [
            ("store.memtable_mib", "4"),
            ("store.block_cache_mib", "8"),
            ("store.contents_floor_mib", "64"),
            ("store.log_floor_mib", "24"),
        ];
        let server = command(&data, &settings).start();
        let clients = Clients::connect(&server).await;
        let victim = Victim::new(&clients).await;
        let (watch, began) = (Watch::begin(&server, &victim), Instant::now());
        let ledger = TestLedger::create(&clients, "full").await;
        let mut producer = Producer::new(ledger.id, 1);
        let mut contents = Contents::over(clients.channel.clone());
        let mut number = 0;
        let refused = loop {
            number += 1;
            let content = Content::new(number, noise(number, 1 << 20));
            if let Err(status) = contents.put(content.parts("full", 1 << 20)).await {
                break status;
            }
            assert!(number < DISK_MIB, "a disk holds no more than it has");
        };
        no_space(&refused);
        // The log goes on in the same process, however often a content is sent again.
        for _ in 0..200 {
            ledger.append(&clients, &[producer.intent("a")]).await;
        }
        while goes_on(began) {
            let content = Content::new(number, noise(number, 1 << 20));
            match contents.put(content.parts("full", 1 << 20)).await {
                // The store has given some room back.
                Ok(_) => number += 1,
                Err(refused) if refused.get_details_error_info().is_some() => no_space(&refused),
                // Very many uploads were refused: the share of incomplete messages is used up, or
                // the connection is closed. The server lives.
                Err(_) => contents = Contents::over(Clients::connect(&server).await.channel),
            }
        }
        watch.expect_unharmed(HELD_MIB).await;
        // Another program takes the rest of the space, and the log stops in time.
        let mut fillers = Vec::new();
        let mut recorded = 201;
        let refused = loop {
            let payloads = [producer.clone().intent("b")];
            match ledger.try_append(&clients, &payloads).await {
                Err(status) => break status,
                Ok(_) => {
                    producer.intent("b");
                    recorded += 1;
                }
            }
            let filler = mounted.path().join(format!("filler-{recorded}"));
            std::fs::write(&filler, vec![1; 1 << 20]).expect("there is room above the floor");
            fillers.push(filler);
            // The server looks at the disk ten times a second.
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let statement = producer.intent("b");
        no_space(&refused);
        assert_eq!(ledger.head(&clients).await.size.get(), recorded);
        // The log goes on by itself when there is room.
        for filler in fillers {
            std::fs::remove_file(filler).expect("a file");
        }
        until("an answer", || async {
            let answer = ledger.try_append(&clients, std::slice::from_ref(&statement));
            let answer = answer.await.ok()?;
            answer.results.iter().map(accepted).next()
        })
        .await;
        server.stop();
        fsck_clean(&data);
    });
}
