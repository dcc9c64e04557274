//! A task's stream is read while the task goes on: its parts agree with each other at any moment.

use std::{sync::Arc, time::Duration};

use deed_client::{Ledger, Options, StateDir};
use deed_evidence::TaskId;
use deed_proto::v1::{self, RiskTier, statement::Body};
use deed_tests::run_within;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::{AGENT, LOW, Scene, grant};

/// The stream is read until this many reads gave something new, however fast the reader is and however slow
/// the disk.
const MOMENTS: usize = 50;

/// Makes one round of statements of a task: a grant, an act under it that is cleared at once, its
/// Outcome, and in every fourth round an Observation of it, a denial of another act, and a key that
/// is registered and revoked.
async fn round(scene: &mut Scene, n: usize) {
    let given = scene.grant(LOW, 3, Some(5_000)).await;
    let intent = v1::Intent {
        grant: given,
        amount: Some(crate::euros(1999)),
        ..crate::payment(&bytes::Bytes::new(), 1999)
    };
    let announced = scene.announce(LOW, intent).await;
    let done = scene.agent.says_in(LOW, announced.outcome());
    scene.record(done).await;
    if n.is_multiple_of(4) {
        let seen = Body::Observation(v1::Observation {
            intent: Some(announced.leaf.clone()),
            effects: vec![crate::refunded()],
            ..v1::Observation::default()
        });
        let seen = scene.bank.says_in(LOW, seen);
        scene.record(seen).await;
        let expired = scene.authority.says_in(LOW, grant(1, None));
        scene.record(expired).await;
        let disposed = Body::FindingDisposition(v1::FindingDisposition {
            leaf_index: announced.leaf.leaf_index,
            number: 0,
            kind: v1::DispositionKind::Explained.into(),
            reviewed_by: AGENT.to_owned(),
            reason: "seen".to_owned(),
        });
        let disposed = scene.authority.says(disposed);
        scene.record(disposed).await;
    }
    if n.is_multiple_of(16)
        && let Ok(seed) = u8::try_from(100 + n / 16)
    {
        let key = deed_tests::keys::key(seed);
        let registered = scene.authority.registers(&key, AGENT);
        scene.record(registered).await;
        let revoked = scene.authority.revokes(&key);
        scene.record(revoked).await;
    }
}

#[test]
fn a_story_holds_whenever_it_is_read() {
    run_within(Duration::from_secs(300), async {
        let mut scene = Scene::set().await;
        scene.open([0x11; 16], RiskTier::Low, 0).await;
        let state = TempDir::new().expect("a directory");
        let options = Options::new(scene.server().url(), &scene.ledger.name)
            .state(StateDir::new(state.path()));
        let ledger = Ledger::connect(options).await.expect("a connection");
        let task = TaskId::new(scene.task_id(LOW));
        // A round for each read, and while it reads: so the task grows no faster than it can be read.
        let reads = Arc::new(Semaphore::new(1));
        let writer = tokio::spawn({
            let reads = Arc::clone(&reads);
            async move {
                let mut n = 0;
                while let Ok(read) = reads.acquire().await {
                    read.forget();
                    round(&mut scene, n).await;
                    n += 1;
                }
                (scene, n)
            }
        });
        let (mut sizes, mut acts) = (Vec::new(), 0);
        while sizes.len() < MOMENTS || acts <= 4 {
            if reads.available_permits() == 0 {
                reads.add_permits(1);
            }
            let judged = ledger.judged_task(task).await.expect("a story");
            let verdict = judged.agreed().expect("an honest story");
            acts = verdict.acts.len();
            let size = judged.report.head.head.size;
            assert!(
                sizes.last().is_none_or(|last| *last <= size),
                "it goes back"
            );
            sizes.push(size);
            sizes.dedup();
        }
        reads.close();
        let (scene, rounds) = writer.await.expect("the writer");
        assert!(rounds > acts / 2, "{acts} acts, {rounds} rounds");
        scene.ends_clean();
    });
}
