//! Deadlines fire by themselves.

use deed_proto::v1::{self, FindingKind, IntentState, RiskTier, statement::Body};
use deed_tests::{oracle::Log, process::ServerProcess, rpc::Clients, run, until, within};

use super::{change, follow, leaves_with, replays, statement_at};
use crate::{LOW, Scene, TASK, now, payment};

/// Long enough for a request on a busy machine, and short enough to wait for.
const SOON_US: i64 = 2_000_000;

/// Returns the Ticks of a log, with their due times.
fn ticks(log: &Log) -> Vec<(u64, i64)> {
    let leaves = leaves_with(log, |body| matches!(body, Body::Tick(_)));
    let due = |leaf: &u64| match statement_at(log, *leaf).1.body {
        Some(Body::Tick(tick)) => (*leaf, tick.due_us),
        _ => unreachable!("it is a Tick"),
    };
    leaves.iter().map(due).collect()
}

#[test]
fn deadlines_fire_although_nobody_says_anything() {
    run(async {
        let mut scene = Scene::set().await;
        let grant = scene.grant(TASK, 5, Some(10_000)).await;
        let by = now() + SOON_US;
        let lapsing = v1::Intent {
            deadline_us: by,
            ..payment(&grant, 1999)
        };
        let lapsing = scene.announce(TASK, lapsing).await;
        lapsing.expect(IntentState::Waiting, &["approval", "decision"]);
        let overdue = v1::Intent {
            action: "orders.look".to_owned(),
            resource: "order/7".to_owned(),
            deadline_us: by + 1,
            ..v1::Intent::default()
        };
        let overdue = scene.announce(LOW, overdue).await;
        overdue.expect(IntentState::Cleared, &[]);
        scene.open([0x33; 16], RiskTier::Low, by + 2).await;

        let mut stream = follow(&scene, &lapsing).await;
        change(&scene, &mut stream).await.unwrap();
        let lapsed = change(&scene, &mut stream).await.unwrap();
        assert_eq!(lapsed.state(), IntentState::Lapsed);
        let late_by = now() - by;
        assert!(late_by < 10_000_000, "{late_by} us late");
        // Every deadline that has passed has its entry; one Tick is enough for all of them.
        let log = until("the end of the task", || async {
            let log = Log::read(&scene.clients, &scene.ledger).await;
            let receipts = leaves_with(&log, |body| matches!(body, Body::TaskReceipt(_)));
            (!receipts.is_empty()).then_some(log)
        })
        .await;
        let ticks = ticks(&log);
        assert_eq!(ticks[0].1, by, "{ticks:?}");
        let mut kinds = scene.kinds().await;
        kinds.sort_unstable();
        assert_eq!(
            kinds,
            [FindingKind::IntentLapsed, FindingKind::IntentOverdue]
        );
        let acts = scene.acts(LOW).await;
        assert_eq!(acts[0].state(), IntentState::Overdue);
        replays(&scene).await;
        scene.ends_clean();
    });
}

/// Returns the size of a ledger, without loading it.
async fn size_of(clients: &Clients, name: &str) -> u64 {
    let request = v1::ListLedgersRequest::default();
    let mut ledger = clients.ledger.clone();
    let answer = within("the ledgers", ledger.list_ledgers(request)).await;
    let ledgers = answer.expect("the ledgers").into_inner().ledgers;
    let found = ledgers.iter().find(|found| found.name == name);
    found.expect("the ledger").size
}

fn is_loaded(server: &ServerProcess) -> bool {
    server.log().contains("ledger loaded")
}

#[test]
fn deadlines_fire_in_a_ledger_that_nobody_asks_for() {
    run(async {
        let mut scene = Scene::set().await;
        let name = scene.ledger.name.clone();
        // One deadline passes while the server is down, and one after it is up again.
        for (wait, while_down) in [(1_000_000, true), (8_000_000, false)] {
            let grant = scene.grant(TASK, 5, Some(10_000)).await;
            let intent = v1::Intent {
                deadline_us: now() + wait,
                ..payment(&grant, 1999)
            };
            let intent = scene.announce(TASK, intent).await;
            let before = size_of(&scene.clients, &name).await;
            assert_eq!(before, intent.leaf.leaf_index + 1);
            let deadline = now() + wait;
            let address = scene.kill();
            if while_down {
                let left = std::time::Duration::from_micros(u64::try_from(wait).unwrap());
                tokio::time::sleep(left).await;
            }
            scene.restart(address).await;
            until("a Tick", || async {
                (size_of(&scene.clients, &name).await > before).then_some(())
            })
            .await;
            assert!(
                is_loaded(scene.server()),
                "the ticker loads it, and nobody else has"
            );
            let late_by = now() - deadline;
            assert!(late_by < 10_000_000, "{late_by} us late");
            let mut stream = follow(&scene, &intent).await;
            let told = change(&scene, &mut stream).await.unwrap();
            assert_eq!(told.state(), IntentState::Lapsed);
        }
        let log = Log::read(&scene.clients, &scene.ledger).await;
        assert_eq!(ticks(&log).len(), 2);
        replays(&scene).await;
        scene.ends_clean();
    });
}
