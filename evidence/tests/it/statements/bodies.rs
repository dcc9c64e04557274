//! Bodies, each within its rules.

use super::*;

pub(super) fn task_opened() -> impl Strategy<Value = Body> {
    let objective = prop_oneof![
        Just(None),
        free_text(4096).prop_map(|text| Some(Objective::ObjectiveText(text))),
        commitment().prop_map(|inner| Some(Objective::ObjectiveCommitment(inner))),
    ];
    (objective, text(1, 512), 1..=5_i32, time()).prop_map(
        |(objective, requested_by, risk_tier, deadline_us)| {
            Body::TaskOpened(v1::TaskOpened {
                objective,
                requested_by,
                risk_tier,
                deadline_us,
                nonce: Bytes::new(),
            })
        },
    )
}

pub(super) fn task_closed() -> impl Strategy<Value = Body> {
    (1..=4_i32, reason_or_none())
        .prop_map(|(end, reason)| Body::TaskClosed(v1::TaskClosed { end, reason }))
}

/// Actions or resources: a few of any length, or as many as there may be.
pub(super) fn patterns(max: usize) -> impl Strategy<Value = Vec<String>> {
    let many: Vec<String> = (10..74).map(|n| format!("orders/{n}/*")).collect();
    prop_oneof![
        9 => proptest::collection::btree_set(name(max), 1..4)
            .prop_map(|set| set.into_iter().collect::<Vec<_>>()),
        1 => Just(many),
    ]
}

pub(super) fn grant() -> impl Strategy<Value = Body> {
    let own = |uri: &String| !uri.to_ascii_lowercase().starts_with("deed:");
    let subject = (
        canonical_uri().prop_filter("the ledger's own", own),
        bytes_or_none(16),
    );
    let times = prop_oneof![
        (Just(0), 1..=i64::MAX),
        Just((i64::MAX - 1, i64::MAX)),
        (0..1000_i64, 1..1000_i64).prop_map(|(from, length)| (from, from + length)),
    ];
    let amount = (time(), "[A-Z0-9]{3,16}").prop_map(|(minor_units, currency)| v1::Amount {
        minor_units,
        currency,
    });
    let token = ("[a-z0-9._-]{1,64}", seen_text(256), bytes_or_none(32)).prop_map(
        |(kind, value, key_thumbprint)| v1::OutsideToken {
            kind,
            value,
            key_thumbprint,
        },
    );
    let bounds = (times, number(), option::of(amount));
    let links = (bytes_or_none(32), option::of(token));
    (subject, patterns(256), patterns(1024), bounds, links).prop_map(
        |(subject, actions, resources, (times, uses, amount), (parent, outside_token))| {
            Body::Grant(v1::Grant {
                subject: subject.0,
                subject_key: subject.1,
                actions,
                resources,
                not_before_us: times.0,
                expires_us: times.1,
                uses,
                amount,
                parent,
                outside_token,
                gateways: vec!["https://example.org/gateway".into()],
            })
        },
    )
}

pub(super) fn grant_accepted() -> impl Strategy<Value = Body> {
    bytes(32).prop_map(|grant| Body::GrantAccepted(v1::GrantAccepted { grant }))
}

pub(super) fn decision() -> impl Strategy<Value = Body> {
    let policy = (text(1, 256), text(0, 256), bytes_or_none(32));
    (leaf_ref(), 1..=2_i32, policy, reason_or_none()).prop_map(
        |(intent, verdict, (engine, policy_version, policy_digest), reason)| {
            Body::Decision(v1::Decision {
                intent: Some(intent),
                verdict,
                engine,
                policy_version,
                policy_digest,
                reason,
            })
        },
    )
}

pub(super) fn approval() -> impl Strategy<Value = Body> {
    let times = ([time(), time(), time()], any::<[bool; 2]>()).prop_map(|(mut times, said)| {
        times.sort_unstable();
        let [shown, opened, decided] = times;
        let if_said = |time, said| if said { time } else { 0 };
        let (shown, opened) = (if_said(shown, said[0]), if_said(opened, said[1]));
        [shown, opened, decided.max(1)]
    });
    let who = (1..=3_i32, reason_or_none());
    (leaf_ref(), 1..=2_i32, commitment(), times, who).prop_map(
        |(intent, verdict, shown, times, (strength, rationale))| {
            Body::Approval(v1::Approval {
                intent: Some(intent),
                verdict,
                shown: Some(shown),
                shown_at_us: times[0],
                opened_at_us: times[1],
                decided_at_us: times[2],
                strength,
                rationale,
                assertion: None,
            })
        },
    )
}

pub(super) fn observation() -> impl Strategy<Value = Body> {
    let effect = (name(128), name(1024), seen_text(256), effect());
    let effect = effect.prop_map(|(kind, resource, external_id, effect)| v1::Effect {
        kind,
        resource,
        external_id,
        ..effect
    });
    let effects = vec(effect, 1..4);
    (option::of(leaf_ref()), effects, text(0, 256), time()).prop_map(
        |(intent, effects, reference, observed_at_us)| {
            Body::Observation(v1::Observation {
                intent,
                effects,
                reference,
                observed_at_us,
            })
        },
    )
}

pub(super) fn intent() -> impl Strategy<Value = Body> {
    let act = (
        prop_oneof![text(1, 256), name(256).boxed()],
        prop_oneof![text(1, 1024), name(1024).boxed()],
        option::of(amount()),
        bytes_or_none(32),
        time(),
    );
    let influence = (
        option::of(commitment()),
        option::of(commitment()),
        text(0, 256),
        bytes_or_none(32),
        bytes_or_none(32),
        text(0, 256),
    );
    (act, influence, effects()).prop_map(|(act, influence, expected_effects)| {
        let (action, resource, amount, grant, deadline_us) = act;
        let (arguments, prompt, model, system_prompt_digest, tool_manifest_digest, tool_call_id) =
            influence;
        Body::Intent(v1::Intent {
            action,
            resource,
            amount,
            grant,
            deadline_us,
            arguments,
            prompt,
            model,
            system_prompt_digest,
            tool_manifest_digest,
            tool_call_id,
            expected_effects,
        })
    })
}

pub(super) fn outcome() -> impl Strategy<Value = Body> {
    let intent =
        (bytes_or_none(16), number(), bytes(32)).prop_map(|(session, sequence, payload_digest)| {
            v1::StatementRef {
                session,
                sequence,
                payload_digest,
            }
        });
    let commitment = || option::of(commitment());
    let contents = (commitment(), commitment(), commitment(), commitment());
    (intent, 1..=4_i32, effects(), contents).prop_map(|(intent, status, effects, contents)| {
        let (tool_call, response, result, arguments) = contents;
        Body::Outcome(v1::Outcome {
            intent: Some(intent),
            status,
            effects,
            tool_call,
            response,
            result,
            arguments,
        })
    })
}

pub(super) fn effects() -> impl Strategy<Value = Vec<v1::Effect>> {
    prop_oneof![
        9 => vec(effect(), 0..4),
        1 => effect().prop_map(|effect| vec![effect; 16]),
        // The limit; as many of the longest would not fit into a payload.
        1 => Just(vec![v1::Effect { kind: "k".into(), resource: "r".into(), ..Default::default() }; 64]),
    ]
}

/// Heartbeat or SessionClosed of a statement with this sequence.
pub(super) fn count(sequence: u64) -> impl Strategy<Value = Body> {
    let most = sequence.saturating_add(1);
    let count = prop_oneof![Just(1), Just(most), 1..=most];
    (count, any::<bool>(), time()).prop_map(move |(count, closed, next_within_us)| {
        let last_sequence = sequence;
        if closed {
            Body::SessionClosed(v1::SessionClosed {
                last_sequence,
                count,
            })
        } else {
            Body::Heartbeat(v1::Heartbeat {
                last_sequence,
                count,
                next_within_us,
            })
        }
    })
}

pub(super) fn key(seed: u8) -> Bytes {
    crate::fixtures::public_key(seed).to_vec().into()
}

pub(super) fn authorities_changed() -> impl Strategy<Value = Body> {
    let keys = proptest::collection::btree_set((0..40_u8).prop_map(key), 1..=16);
    (keys, reason_or_none()).prop_map(|(keys, reason)| {
        let key = |public_key| v1::AuthorityKey { public_key };
        let authority_keys = keys.into_iter().map(key).collect();
        Body::AuthoritiesChanged(v1::AuthoritiesChanged {
            authority_keys,
            reason,
        })
    })
}

pub(super) fn key_registered() -> impl Strategy<Value = Body> {
    let times = prop_oneof![
        Just((0, 0)),
        (time(), Just(0)),
        (0..1000_i64, 1..1000_i64).prop_map(|(from, length)| (from, from + length)),
    ];
    (
        any::<u8>(),
        1..=6_i32,
        uri(),
        controller(),
        times,
        bytes(64),
    )
        .prop_map(|(seed, role, producer, controller, times, possession)| {
            Body::KeyRegistered(v1::KeyRegistered {
                public_key: key(seed),
                role,
                producer,
                controller,
                valid_from_us: times.0,
                valid_until_us: times.1,
                possession,
                acts_for: match role {
                    1 | 4 | 5 => vec!["https://example.org/a".into()],
                    _ => Vec::new(),
                },
                resources: match role {
                    4 => vec!["*".into(), "order/*".into()],
                    _ => Vec::new(),
                },
            })
        })
}

pub(super) fn key_revoked() -> impl Strategy<Value = Body> {
    (bytes(16), option::of(time()), reason_or_none()).prop_map(|(key_id, since, reason)| {
        Body::KeyRevoked(v1::KeyRevoked {
            key_id,
            compromised_since_us: since,
            reason,
        })
    })
}

pub(super) fn principal_bound() -> impl Strategy<Value = Body> {
    (seen_text(512), uri(), time()).prop_map(|(principal, producer, valid_until_us)| {
        Body::PrincipalBound(v1::PrincipalBound {
            principal,
            producer,
            valid_until_us,
        })
    })
}

pub(super) fn retention_and_holds() -> impl Strategy<Value = Body> {
    use v1::legal_hold_placed::Scope;
    let scope = prop_oneof![
        Just(None),
        bytes(16).prop_map(|task| Some(Scope::Task(task))),
        bytes(32).prop_map(|digest| Some(Scope::Commitment(digest))),
    ];
    let set = (time(), reason_or_none());
    prop_oneof![
        set.prop_map(|(floor_us, reason)| {
            Body::RetentionSet(v1::RetentionSet { floor_us, reason })
        }),
        (bytes(16), scope, free_text(1024)).prop_map(|(hold, scope, reason)| {
            Body::LegalHoldPlaced(v1::LegalHoldPlaced {
                hold,
                scope,
                reason,
            })
        }),
        (bytes(16), free_text(1024)).prop_map(|(hold, reason)| {
            Body::LegalHoldReleased(v1::LegalHoldReleased { hold, reason })
        }),
    ]
}

pub(super) fn log_key_rotated() -> impl Strategy<Value = Body> {
    (any::<u8>(), free_text(1024)).prop_map(|(seed, reason)| {
        let vkey = crate::fixtures::log_signer(seed).verifier_key().to_string();
        Body::LogKeyRotated(v1::LogKeyRotated {
            log_key: Some(v1::LogKey { vkey }),
            reason,
        })
    })
}

pub(super) fn erasure() -> impl Strategy<Value = Body> {
    let digests = proptest::collection::btree_set(bytes(32), 1..=64);
    (digests, text(1, 512), free_text(1024), text(1, 256)).prop_map(
        |(digests, requested_by, reason, legal_basis)| {
            Body::Erasure(v1::Erasure {
                commitments: digests.into_iter().collect(),
                requested_by,
                reason,
                legal_basis,
            })
        },
    )
}

/// A policy set as far as `statement::parse` answers for it: any texts, any digest.
pub(super) fn policy_set() -> impl Strategy<Value = Body> {
    let texts = (free_text(32_768), free_text(16_384));
    (texts, bytes(32), text(1, 16), reason_or_none()).prop_map(
        |((policies, schema), digest, cedar_version, reason)| {
            Body::PolicySet(v1::PolicySet {
                policies,
                schema,
                digest,
                cedar_version,
                rules_version: 2,
                reason,
            })
        },
    )
}

pub(super) fn revocation() -> impl Strategy<Value = Body> {
    (bytes(32), reason_or_none())
        .prop_map(|(grant, reason)| Body::Revocation(v1::Revocation { grant, reason }))
}

pub(super) fn finding_disposition() -> impl Strategy<Value = Body> {
    let finding = (1..=u64::MAX, any::<u32>());
    (finding, 1..=3_i32, text(1, 512), free_text(1024)).prop_map(
        |((leaf_index, number), kind, reviewed_by, reason)| {
            Body::FindingDisposition(v1::FindingDisposition {
                leaf_index,
                number,
                kind,
                reviewed_by,
                reason,
            })
        },
    )
}
