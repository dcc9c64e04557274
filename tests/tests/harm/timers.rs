//! An attack with as many deadlines as can be set, which pass while more of them come: a
//! microsecond apart, and all at one moment.

use std::time::{Duration, SystemTime};

use deed_proto::v1::{self, RiskTier, statement::Body};
use deed_tests::run_within;

use crate::{AGENT, Scene, Sessions, flood::Wave};

/// Statements of a request.
const COUNT: u32 = 1000;

const SECOND_US: i64 = 1_000_000;

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.expect("a clock behind 1970");
    i64::try_from(since.as_micros()).expect("a time")
}

#[test]
fn deadlines_that_fire_in_a_flood_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        let scene = Scene::new().await;
        let sessions = Sessions::shared();
        let noisy = scene.noisy.clone();
        scene
            .expect_flood_without_harm(move |round| {
                let mut producer = sessions.next(noisy.id, AGENT);
                let soon = now_us() + SECOND_US;
                let payloads: Vec<_> = (0..COUNT)
                    .map(|number| {
                        if round % 2 == 0 {
                            return producer.make(Body::Intent(v1::Intent {
                                action: "orders.update".to_owned(),
                                resource: "orders/7".to_owned(),
                                deadline_us: soon + i64::from(number),
                                ..v1::Intent::default()
                            }));
                        }
                        let mut task = [0; 16];
                        task[..8].copy_from_slice(&round.to_be_bytes());
                        task[8..12].copy_from_slice(&number.to_be_bytes());
                        let opened = v1::TaskOpened {
                            requested_by: "ticket:4711".to_owned(),
                            risk_tier: RiskTier::Low.into(),
                            // The deadline is the second next whole second, the same for all that
                            // come before it.
                            deadline_us: (soon / SECOND_US + 1) * SECOND_US,
                            objective: Some(v1::task_opened::Objective::ObjectiveText(
                                "orders".to_owned(),
                            )),
                            ..v1::TaskOpened::default()
                        };
                        producer.make_in(task, Body::TaskOpened(opened))
                    })
                    .collect();
                Wave::patient(noisy.request(&payloads))
            })
            .await;
    });
}
