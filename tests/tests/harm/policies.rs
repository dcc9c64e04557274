//! A ledger under policies that are as dear as they may be, and acts that have them evaluated: in
//! large requests, in batches, and gone before the answer.

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

/// The longest name that an act has room for.
const NAME: usize = 1024;

const APPROVALS: [&str; 3] = [
    "approvals",
    "approvals_multi_factor",
    "approvals_phishing_resistant",
];

/// A permit that waits for so many approvals of each kind, in a form in which every number of them has
/// to be tried.
fn permit(approvals: u32) -> String {
    let wanted = APPROVALS.map(|kind| format!("context.evidence.{kind} * 1 >= {approvals}"));
    let wanted = wanted.join(" && ");
    format!("permit (principal, action, resource) when {{ {wanted} }};\n")
}

fn forbid(characters: usize) -> String {
    let pattern = "a".repeat(characters);
    format!("forbid (principal, action, resource) when {{ resource.name like \"*{pattern}b\" }};\n")
}

/// 60 long patterns, and so much wanted before the act that it has to be found out what could still
/// come. One Intent took over a second, while such a set was taken.
fn beyond_the_limits() -> String {
    forbid(420).repeat(60) + &permit(16)
}

/// What an Intent costs most under, of all that is taken: a long pattern that is compared for each of
/// as many numbers of approvals as possible.
fn dearest() -> String {
    let mut found = (0, String::new());
    for characters in (4..=60).step_by(4) {
        for approvals in 1..=8 {
            let policies = forbid(characters) + &permit(approvals);
            if let Ok(policy) = EvidencePolicy::compile(&policies, DEFAULT_SCHEMA) {
                found = found.max((policy.cost().units, policies));
            }
        }
    }
    let (units, policies) = found;
    assert!(units > JUDGEMENT_UNITS_MAX * 3 / 4, "{units}: {policies}");
    policies
}

/// Acts on a resource whose name is as long as it may be.
fn acts(mut producer: Producer, count: usize) -> Vec<Bytes> {
    let name = "a".repeat(NAME);
    (0..count).map(|_| producer.intent(&name)).collect()
}

#[test]
fn the_dearest_policies_that_are_taken_harm_no_other_ledger() {
    run_within(Duration::from_secs(600), async {
        let scene = Scene::set(
            |authority| {
                [beyond_the_limits(), dearest()]
                    .map(|policies| authority.says(Body::PolicySet(policy_set(&policies))))
                    .into()
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
