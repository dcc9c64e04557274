//! An attack with unsigned Observations that have to be compared with many acts: 16 correlation
//! keys that many acts have, and 64 effects each.

use std::time::Duration;

use bytes::Bytes;
use deed_evidence::PayloadDigest;
use deed_proto::v1::{self, statement::Body};
use deed_tests::{rpc::accepted, run_within, statements::Producer};

use crate::{AGENT, Scene, Sessions, flood::Wave};

/// Acts with these keys, and Observations of a request.
const ACTS: usize = 1024;
const COUNT: usize = 1000;

fn effects(count: usize) -> Vec<v1::Effect> {
    let effect = |number| v1::Effect {
        kind: "orders.update".to_owned(),
        resource: format!("orders/{number:02}"),
        ..v1::Effect::default()
    };
    (0..count).map(effect).collect()
}

fn with_keys(producer: &mut Producer, body: Body) -> Bytes {
    let key = |number| v1::CorrelationKey {
        kind: "order".to_owned(),
        value: format!("{number:02}"),
    };
    let mut message = producer.message(body);
    message.correlation_keys = (0..16).map(key).collect();
    producer.take(&message)
}

#[test]
fn observations_with_much_to_be_compared_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        let scene = Scene::new().await;
        let sessions = Sessions::shared();
        let mut agent = sessions.next(scene.noisy.id, AGENT);
        let intent = v1::Intent {
            action: "orders.update".to_owned(),
            resource: "orders/00".to_owned(),
            expected_effects: effects(1),
            ..v1::Intent::default()
        };
        let intents: Vec<_> = (0..ACTS)
            .map(|_| with_keys(&mut agent, Body::Intent(intent.clone())))
            .collect();
        // Each of them has 64 effects.
        let mut payloads = intents.clone();
        for (sequence, intent) in (0..).zip(&intents) {
            let outcome = v1::Outcome {
                intent: Some(v1::StatementRef {
                    session: agent.session(),
                    sequence,
                    payload_digest: Bytes::copy_from_slice(PayloadDigest::of(intent).as_bytes()),
                }),
                status: v1::OutcomeStatus::Succeeded.into(),
                effects: effects(64),
                ..v1::Outcome::default()
            };
            payloads.push(with_keys(&mut agent, Body::Outcome(outcome)));
        }
        for some in payloads.chunks(512) {
            for result in &scene.send(scene.noisy.request(some)).await {
                accepted(result);
            }
        }
        let noisy = scene.noisy.clone();
        scene
            .expect_flood_without_harm(move |round| {
                let mut producer = sessions.next(noisy.id, AGENT);
                let seen = if round % 2 == 0 { 1 } else { 64 };
                let observed = v1::Observation {
                    effects: effects(seen),
                    reference: "log".to_owned(),
                    ..v1::Observation::default()
                };
                let payloads: Vec<_> = (0..COUNT)
                    .map(|_| with_keys(&mut producer, Body::Observation(observed.clone())))
                    .collect();
                Wave::patient(noisy.request(&payloads))
            })
            .await;
    });
}
