//! The checker finds damage to the assessment's records.

use std::path::Path;

use bytes::Bytes;
use deed_proto::v1::{self, statement::Body};
use deed_tests::{
    files,
    process::{ServerProcess, fsck, fsck_clean},
    run,
};

use crate::{Scene, TASK, refunded};

/// Makes a ledger on disk in sorted files, with an act that waits and an effect that nobody
/// declared. Returns the waiting Intent's leaf hash, which is in its cell and nowhere else.
async fn flushed() -> (Scene, Bytes) {
    let mut scene = Scene::set().await;
    let grant = scene.grant(TASK, 5, Some(10_000)).await;
    let intent = scene.intends(&grant).await;
    let hidden = scene.bank.says(Body::Observation(v1::Observation {
        effects: vec![refunded()],
        ..v1::Observation::default()
    }));
    scene.record(hidden).await;
    scene.server.take().expect("a server").stop();
    ServerProcess::start(&scene.data()).stop();
    fsck_clean(&scene.data());
    (scene, intent.leaf.leaf_hash)
}

/// Flips a bit behind these bytes; the checker must find it.
#[track_caller]
fn damaged(data: &Path, bytes: &[u8]) {
    let (path, offset) = files::find(&data.join("store"), ".sst", bytes);
    files::flip(&path, offset + bytes.len() / 2);
    let checked = fsck(data).expect_code(1);
    assert!(!checked.stderr.contains("panicked"), "{checked:#?}");
    assert!(
        !checked.stderr.is_empty() && checked.stdout.is_empty(),
        "{checked:#?}"
    );
}

#[test]
fn a_changed_act_is_found() {
    run(async {
        let (scene, leaf_hash) = flushed().await;
        damaged(&scene.data(), &leaf_hash);
    });
}

#[test]
fn a_changed_finding_is_found() {
    run(async {
        let (scene, _) = flushed().await;
        damaged(&scene.data(), b"belongs to no Intent here");
    });
}
