//! An attack with the most expensive policies that are allowed, and acts that they judge: in large
//! requests, in batches, and with callers that are gone before the answer.

use std::time::Duration;

use bytes::Bytes;
use deed_evidence::policy::{DEFAULT_SCHEMA, EvidencePolicy, JUDGEMENT_UNITS_MAX};
use deed_proto::v1::{rejection::Reason, statement::Body};
use deed_tests::{
    keys::batch,
    rpc::{accepted, rejected},
    run_within,
    statements::{Producer, policy_set},
};

use crate::{AGENT, SIGNER, Scene, Sessions, flood::Wave, signer};

/// Longest name of an act's resource, in bytes.
const NAME: usize = 1024;

/// A permit that waits for approvals, in a form for which every number of them has to be tried.
const PERMIT: &str =
    "permit (principal, action, resource) when { context.evidence.approvals * 1 >= 16 };\n";

/// Returns policies that compare the name with a pattern of so many characters each.
fn forbids(count: usize, characters: usize) -> String {
    let pattern = "a".repeat(characters);
    let forbid = |number| {
        format!(
            "forbid (principal, action, resource) when \
             {{ resource.name like \"*{pattern}b{number}\" }};\n"
        )
    };
    (0..count).map(forbid).collect()
}

/// Returns 60 long patterns: when such a set was accepted, one Intent took over a second.
fn beyond_the_limits() -> String {
    forbids(60, 420) + PERMIT
}

/// Returns the accepted policies under which an Intent takes the longest: long patterns, and all
/// numbers of approvals tried.
fn dearest() -> String {
    let mut found = (0, String::new());
    for (patterns, permits) in (0..=6).flat_map(|n| (1..=6).map(move |m| (n, m))) {
        let policies = forbids(patterns, 56) + &PERMIT.repeat(permits);
        if let Ok(policy) = EvidencePolicy::compile(&policies, DEFAULT_SCHEMA) {
            found = found.max((policy.cost().units, policies));
        }
    }
    let (units, policies) = found;
    assert!(units > JUDGEMENT_UNITS_MAX * 3 / 4, "{units}: {policies}");
    policies
}

/// Returns acts on a resource with the longest name.
fn acts(mut producer: Producer, count: usize) -> Vec<Bytes> {
    let name = "a".repeat(NAME);
    (0..count).map(|_| producer.intent(&name)).collect()
}

#[test]
fn the_dearest_policies_that_are_taken_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        let scene = Scene::set(
            |authority| {
                let set = |policies: String| Body::PolicySet(policy_set(&policies));
                // A refused statement uses no sequence of the session.
                let refused = authority.clone().says(set(beyond_the_limits()));
                vec![refused, authority.says(set(dearest()))]
            },
            &[("drain_ms", "2000")],
        )
        .await;
        let [refused, taken] = &scene.prepared[..] else {
            panic!("two answers: {:?}", scene.prepared);
        };
        let refused = rejected(refused);
        assert_eq!(refused.reason(), Reason::PolicyInvalid, "{refused:?}");
        assert!(refused.message.contains("like"), "{refused:?}");
        accepted(taken);
        let sessions = Sessions::shared();
        let noisy = scene.noisy.clone();
        scene
            .expect_flood_without_harm(move |round| {
                let (envelopes, patience) = match round % 4 {
                    0 => {
                        let payloads = acts(sessions.next(noisy.id, AGENT), 1000);
                        (noisy.request(&payloads).envelopes, 500)
                    }
                    1 => {
                        let payloads = acts(sessions.next(noisy.id, SIGNER), 64);
                        (batch(&payloads, &signer()), 5000)
                    }
                    _ => {
                        let payloads = acts(sessions.next(noisy.id, AGENT), 40);
                        (noisy.request(&payloads).envelopes, 500)
                    }
                };
                Wave {
                    request: noisy.request_of(envelopes),
                    patience: Duration::from_millis(patience),
                }
            })
            .await;
    });
}
