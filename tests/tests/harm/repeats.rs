//! An attack with one request, made once and sent over and over: it costs the sender nothing,
//! records nothing new, and is not counted by any quota on what is stored.

use std::time::Duration;

use bytes::Bytes;
use deed_proto::v1::{self, PayloadType, rejection::Reason, statement::Body};
use deed_tests::{
    keys::{Authority, authority, registration, signed},
    rpc::{accepted, duplicate, rejected},
    run_within,
};
use deed_tlog::SigningKey;

use crate::{AGENT, SIGNER, Scene, Sessions, flood::Wave, signer};

/// As many trust statements as a request may have, and as many authorities as a ledger may have.
const TRUST: u16 = 256;
const AUTHORITIES: u16 = 16;

/// Nearly as many statements as a request may have.
const SIGNED: usize = 4000;

fn numbered_key(number: u16) -> SigningKey {
    let mut seed = [0xd0; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(&seed)
}

/// Records trust statements, and then sends them again and again.
async fn repeat(make: impl FnOnce(&mut Authority, &Scene) -> Vec<v1::Envelope>) {
    let scene = Scene::new().await;
    let mut authority = Authority::new(scene.noisy.id, 901);
    let request = scene.noisy.request_of(make(&mut authority, &scene));
    for result in &scene.send(request.clone()).await {
        accepted(result);
    }
    for result in &scene.send(request.clone()).await {
        duplicate(result);
    }
    scene
        .expect_flood_without_harm(move |_| Wave::patient(request.clone()))
        .await;
}

#[test]
fn changes_of_authorities_that_are_sent_again_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        repeat(|owner, _| {
            let mut keys: Vec<_> = (1..AUTHORITIES)
                .map(|number| *numbered_key(number).public_key().as_bytes())
                .chain([*authority().public_key().as_bytes()])
                .collect();
            keys.sort_unstable();
            let keys: Vec<_> = keys
                .iter()
                .map(|key| v1::AuthorityKey {
                    public_key: Bytes::copy_from_slice(key),
                })
                .collect();
            (0..TRUST)
                .map(|number| {
                    owner.says(Body::AuthoritiesChanged(v1::AuthoritiesChanged {
                        authority_keys: keys.clone(),
                        reason: number.to_string(),
                    }))
                })
                .collect()
        })
        .await;
    });
}

#[test]
fn registrations_that_are_sent_again_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        repeat(|owner, scene| {
            (0..TRUST)
                .map(|number| {
                    let key = numbered_key(number);
                    let registered = registration(scene.noisy.id, &key, AGENT);
                    owner.says(Body::KeyRegistered(registered))
                })
                .collect()
        })
        .await;
    });
}

#[test]
fn statements_with_wrong_signatures_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        let scene = Scene::new().await;
        let mut producer = Sessions::default().next(scene.noisy.id, SIGNER);
        let payloads = producer.intents(SIGNED);
        // Each has a signature by the right key, over something else.
        let of_another = signed(&Bytes::from_static(b"something else"), &signer());
        let envelopes = payloads.into_iter().map(|payload| v1::Envelope {
            payload_type: PayloadType::Statement.into(),
            payload,
            ..of_another.clone()
        });
        let request = scene.noisy.request_of(envelopes.collect());
        for result in &scene.send(request.clone()).await {
            assert_eq!(rejected(result).reason(), Reason::SignatureInvalid);
        }
        scene
            .expect_flood_without_harm(move |_| Wave::patient(request.clone()))
            .await;
    });
}
