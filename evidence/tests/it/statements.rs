//! Statements that keep every rule, drawn at random: every body, every field, every limit.

mod bodies;

use bodies::*;

use bytes::Bytes;
use deed_evidence::{LedgerId, Nonce, SessionId, TaskId};
use deed_proto::v1::{self, statement::Body, task_opened::Objective};
use deed_tlog::Hash;
use proptest::{collection::vec, option, prelude::*, sample::select};
/// Text of `min..=max` bytes without control characters: short, of any script, or at the limit.
fn text(min: usize, max: usize) -> BoxedStrategy<String> {
    let any_script = vec(any::<char>(), 0..12).prop_map(move |chars| {
        let mut text = String::new();
        for c in chars.into_iter().filter(|c| !c.is_control()) {
            if text.len() + c.len_utf8() <= max {
                text.push(c);
            }
        }
        text
    });
    prop_oneof![
        6 => "[ -~]{1,24}".prop_map(move |text| text.chars().take(max).collect()),
        2 => any_script,
        1 => Just("x".repeat(max)),
        1 => Just("x".repeat(min)),
    ]
    .prop_filter("too short", move |text: &String| text.len() >= min)
    .boxed()
}
/// Text of `1..=max` bytes in which anything may stand.
fn free_text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof![text(1, max), Just("\0\n\u{7f}\u{9b}".to_owned())]
}
fn reason_or_none() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), free_text(1024)]
}
fn bytes(length: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), length).prop_map(Bytes::from)
}
fn bytes_or_none(length: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![Just(Bytes::new()), bytes(length)]
}
/// Numbers of every length as varints, and the edges.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        (any::<u64>(), 0..64_u32).prop_map(|(n, shift)| n >> shift),
    ]
}
fn time() -> impl Strategy<Value = i64> {
    number().prop_map(|n| i64::try_from(n >> 1).unwrap())
}
fn uri() -> impl Strategy<Value = String> {
    let long = format!("urn:{}", "x".repeat(508));
    prop_oneof![
        9 => "[A-Za-z][A-Za-z0-9+.-]{0,8}:[!-~]{1,40}",
        1 => Just(long),
    ]
}
/// A name that is one text for one thing, of at most `max` bytes.
fn name(max: usize) -> impl Strategy<Value = String> {
    let segments = "[A-Za-z0-9_~@é-][A-Za-z0-9._~é=?*-]{0,7}(/[A-Za-z0-9_*-]{1,7}){0,3}";
    let scheme = select(vec!["", "/", "https://", "order://", "file:///"]);
    prop_oneof![
        6 => (scheme, segments).prop_map(|(scheme, path)| format!("{scheme}{path}")),
        1 => select(vec!["/", "/*", "a b", "a%20b", "100%", "https://*", "a/..b", "urn:a:b"])
            .prop_map(str::to_owned),
        1 => Just("x".repeat(max)),
    ]
}
/// A URI in canonical form.
fn canonical_uri() -> impl Strategy<Value = String> {
    let path = "(/[A-Za-z0-9_~@!:-][A-Za-z0-9._~-]{0,5}){0,3}";
    let scheme = select(vec!["https", "spiffe", "http", "import"]);
    prop_oneof![
        (scheme, "[a-z]{1,8}", path)
            .prop_map(|(scheme, host, path)| format!("{scheme}://{host}.example{path}")),
        "urn:[A-Za-z0-9:_-]{1,20}",
        Just("https://example.org:8443/%C3%A9".to_owned()),
    ]
}
fn controller() -> impl Strategy<Value = String> {
    canonical_uri().prop_map(|uri| match uri.split_once("://") {
        Some((_, rest)) => format!("https://{rest}"),
        None => "spiffe://example.org".to_owned(),
    })
}
/// Text that can be seen.
fn seen_text(max: usize) -> impl Strategy<Value = String> {
    prop_oneof!["[ -~éж中]{1,24}", Just("x".repeat(max))]
}
fn media_type() -> impl Strategy<Value = String> {
    let name = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,20}";
    let parameters = prop_oneof![Just(String::new()), "; [ -~]{0,20}"];
    (name, name, parameters).prop_map(|(kind, subtype, rest)| format!("{kind}/{subtype}{rest}"))
}
fn commitment() -> impl Strategy<Value = v1::Commitment> {
    (bytes(32), media_type()).prop_map(|(digest, media_type)| v1::Commitment { digest, media_type })
}
fn amount() -> impl Strategy<Value = v1::Amount> {
    (number(), "[A-Z0-9]{3,16}").prop_map(|(units, currency)| v1::Amount {
        minor_units: units.cast_signed(),
        currency,
    })
}
fn leaf_ref() -> impl Strategy<Value = v1::LeafRef> {
    (number(), bytes(32)).prop_map(|(leaf_index, leaf_hash)| v1::LeafRef {
        leaf_index,
        leaf_hash,
    })
}
fn effect() -> impl Strategy<Value = v1::Effect> {
    (
        text(1, 128),
        text(1, 1024),
        text(0, 256),
        option::of(amount()),
        bytes_or_none(32),
        bytes_or_none(32),
    )
        .prop_map(
            |(kind, resource, external_id, amount, before_digest, after_digest)| v1::Effect {
                kind,
                resource,
                external_id,
                amount,
                before_digest,
                after_digest,
            },
        )
}
/// What an authority says besides the statements of [`any_trust_statement`]: those of the trust state,
/// which takes no policies of just any text.
fn authoritys_statement() -> impl Strategy<Value = v1::Statement> {
    let body = prop_oneof![
        task_opened().boxed(),
        task_closed().boxed(),
        grant().boxed(),
        revocation().boxed(),
        finding_disposition().boxed(),
        policy_set().boxed(),
    ];
    (addressed(), bytes(16), body).prop_map(|(statement, task, body)| {
        let may_lack_task = matches!(body, Body::FindingDisposition(_) | Body::PolicySet(_));
        let certified = !statement.nonce.is_empty();
        let mut made = v1::Statement {
            producer: "deed:authority".into(),
            task: if may_lack_task { statement.task } else { task },
            nonce: Bytes::new(),
            body: Some(body),
            ..statement
        };
        certify(&mut made, certified, certified);
        made
    })
}
/// What the ledger itself says after its genesis.
fn ledgers_statement() -> impl Strategy<Value = v1::Statement> {
    let task = bytes(16).boxed();
    let no_task = Just(Bytes::new()).boxed();
    let tick = |now| {
        (1..=now, 0..=now).prop_map(|(due_us, clock_us)| Body::Tick(v1::Tick { due_us, clock_us }))
    };
    (bytes(32), 1..=i64::MAX)
        .prop_flat_map(move |(ledger_id, occurred_at_us)| {
            let said = prop_oneof![
                (no_task.clone(), tick(occurred_at_us)),
                (task.clone(), clearance()),
                (task.clone(), task_receipt()),
            ];
            (Just(ledger_id), Just(occurred_at_us), said)
        })
        .prop_map(|(ledger_id, occurred_at_us, (task, body))| v1::Statement {
            ledger_id,
            producer: "deed:ledger".into(),
            occurred_at_us,
            task,
            body: Some(body),
            ..v1::Statement::default()
        })
}
fn clearance() -> impl Strategy<Value = Body> {
    // The Intent is the first of the leaves.
    let leaves = proptest::collection::btree_map(number(), bytes(32), 2..=65);
    (leaves, 1..=u64::MAX).prop_map(|(leaves, policy_leaf)| {
        let leaf = |(leaf_index, leaf_hash)| v1::LeafRef {
            leaf_index,
            leaf_hash,
        };
        let mut leaves = leaves.into_iter().map(leaf);
        Body::Clearance(v1::Clearance {
            intent: leaves.next(),
            policy_leaf,
            evidence: leaves.collect(),
        })
    })
}
fn task_receipt() -> impl Strategy<Value = Body> {
    let counts = (1..=u64::MAX).prop_flat_map(|through| (Just(through), 1..=through));
    (counts, leaf_ref(), bytes(32), bytes(32), any::<bool>()).prop_map(
        |((through_leaf, count), trust_head, digest, assessment_digest, requested)| {
            Body::TaskReceipt(v1::TaskReceipt {
                through_leaf,
                count,
                digest,
                trust_head: Some(trust_head),
                assessment_digest,
                requested,
            })
        },
    )
}
fn trust_body() -> impl Strategy<Value = Body> {
    // Boxed: all of them on the stack are more than a thread of a debug build has.
    prop_oneof![
        authorities_changed().boxed(),
        key_registered().boxed(),
        key_revoked().boxed(),
        principal_bound().boxed(),
        retention_and_holds().boxed(),
        log_key_rotated().boxed(),
        erasure().boxed(),
    ]
}
/// A trust statement that keeps every rule of its form.
pub(crate) fn any_trust_statement() -> impl Strategy<Value = v1::Statement> {
    (addressed().boxed(), trust_body()).prop_map(|(statement, body)| {
        let certified = !statement.nonce.is_empty();
        let mut made = v1::Statement {
            producer: "deed:authority".into(),
            nonce: Bytes::new(),
            body: Some(body),
            ..statement
        };
        certify(&mut made, certified, certified);
        made
    })
}
/// A genesis statement as far as `statement::parse` answers for it: its keys are any bytes.
fn genesis() -> impl Strategy<Value = v1::Statement> {
    let keys = proptest::collection::btree_set(any::<[u8; 32]>(), 1..=16);
    let rules_version = 1..=u32::MAX;
    let body = (
        text(1, 512),
        text(1, 640),
        keys,
        1..=i64::MAX,
        bytes(32),
        rules_version,
    )
        .prop_map(
            |(origin, vkey, keys, created_at_us, nonce, rules_version)| {
                let key = |key: [u8; 32]| v1::AuthorityKey {
                    public_key: key.to_vec().into(),
                };
                Body::Genesis(v1::Genesis {
                    origin,
                    log_keys: vec![v1::LogKey { vkey }],
                    authority_keys: keys.into_iter().map(key).collect(),
                    created_at_us,
                    nonce,
                    rules_version,
                })
            },
        );
    (context(), body).prop_map(|(context, body)| v1::Statement {
        body: Some(body),
        ..context
    })
}
/// The header's fields that hang on nothing else.
fn context() -> impl Strategy<Value = v1::Statement> {
    let key = ("[a-z0-9._-]{1,64}", text(1, 256));
    // Kinds that meet, so that values decide the order.
    let common = (
        select(vec!["txn", "order", "ticket"]).prop_map(str::to_owned),
        text(1, 256),
    );
    let keys = prop_oneof![
        proptest::collection::btree_set(key, 0..=3),
        proptest::collection::btree_set(common, 0..=16),
    ];
    let trace = prop_oneof![
        Just((Bytes::new(), Bytes::new())),
        (bytes(16), bytes_or_none(8))
    ];
    (uri(), time(), keys, trace).prop_map(|(producer, occurred_at_us, keys, trace)| v1::Statement {
        producer,
        occurred_at_us,
        trace_id: trace.0,
        span_id: trace.1,
        correlation_keys: keys
            .into_iter()
            .map(|(kind, value)| v1::CorrelationKey { kind, value })
            .collect(),
        ..Default::default()
    })
}
fn addressed() -> impl Strategy<Value = v1::Statement> {
    let body = |sequence| {
        // Boxed here and below, because one value that has room for each of them is too large for a
        // test's stack.
        prop_oneof![
            task_opened().boxed(),
            task_closed().boxed(),
            grant().boxed(),
            grant_accepted().boxed(),
            intent().boxed(),
            outcome().boxed(),
            decision().boxed(),
            approval().boxed(),
            observation().boxed(),
            count(sequence).boxed(),
        ]
    };
    number()
        .prop_flat_map(move |sequence| {
            let skipped_from = match sequence {
                0 => Just(None).boxed(),
                _ => option::of(prop_oneof![Just(0), 0..sequence]).boxed(),
            };
            let previous = bytes_or_none(if sequence == 0 { 0 } else { 32 });
            let ids = (bytes(32), bytes(16), bytes(16), any::<[bool; 4]>());
            let place = (Just(sequence), skipped_from, previous);
            (context(), ids, place, body(sequence))
        })
        .prop_map(|(context, ids, place, body)| {
            let (ledger_id, session, task, [task_left_out, certified, canonical, named]) = ids;
            let (sequence, skipped_from, previous) = place;
            let may_lack_task = matches!(
                body,
                Body::Observation(_) | Body::Heartbeat(_) | Body::SessionClosed(_)
            );
            let mut made = v1::Statement {
                ledger_id,
                session,
                sequence,
                skipped_from,
                previous,
                task: if may_lack_task && task_left_out {
                    Bytes::new()
                } else {
                    task
                },
                body: Some(body),
                ..context
            };
            if canonical {
                made.producer = "spiffe://example.org/agent".to_owned();
            }
            certify(&mut made, certified, named);
            made
        })
}
/// Derives the ids that a statement may certify, as far as wanted.
fn certify(made: &mut v1::Statement, session: bool, task: bool) {
    let ledger = LedgerId::new(Hash::try_from(&made.ledger_id[..]).unwrap());
    let nonce = |id: &Bytes| Nonce::from_slice(id).unwrap_or(Nonce::new([7; 16]));
    if session && (made.sequence == 0 || made.skipped_from == Some(0)) {
        let nonce = nonce(&made.session);
        let id = SessionId::derive(ledger, &made.producer, &nonce);
        made.nonce = nonce.as_bytes().to_vec().into();
        made.session = id.as_bytes().to_vec().into();
    }
    if let (true, Some(Body::TaskOpened(opened))) = (task, &mut made.body) {
        let nonce = nonce(&made.task);
        let id = TaskId::derive(ledger, &made.producer, &nonce);
        opened.nonce = nonce.as_bytes().to_vec().into();
        made.task = id.as_bytes().to_vec().into();
    }
}
/// A statement that keeps every rule.
pub(crate) fn any_statement() -> impl Strategy<Value = v1::Statement> {
    prop_oneof![
        1 => genesis().boxed(),
        9 => addressed().boxed(),
        4 => any_trust_statement().boxed(),
        3 => authoritys_statement().boxed(),
        2 => ledgers_statement().boxed(),
    ]
}
