//! The rules of trust statements.

use bytes::Bytes;
use deed_evidence::Problem;
use deed_proto::v1;

use super::*;

const KEY: Problem = Problem::Rule("must be an Ed25519 key, canonical and not of small order");
const LEDGERS_OWN: Problem = Problem::Rule("must not begin with deed:, which is the ledger's own");
const PRODUCER: Problem = Problem::Rule("must be deed:authority for this body");
const ASCENDING: Problem = Problem::Rule("must be strictly ascending");
const LATER: Problem = Problem::Rule("must be later than valid_from_us");

fn key(bytes: [u8; 32]) -> v1::AuthorityKey {
    v1::AuthorityKey {
        public_key: bytes.to_vec().into(),
    }
}

/// The neutral element, which has order 1.
fn weak() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
}

/// 2^255 - 16: another spelling of 3, which is a key.
fn not_canonical() -> [u8; 32] {
    let mut bytes = [0xff; 32];
    (bytes[0], bytes[31]) = (0xf0, 0x7f);
    bytes
}

pub(super) fn key_rows() -> Vec<Row> {
    let by = |change: fn(&mut v1::Statement)| {
        let mut made = fixtures::retention_set();
        change(&mut made);
        made
    };
    let mut keys: Vec<_> = (0..17).map(fixtures::public_key).collect();
    keys.sort_unstable();
    let (first, second) = (keys[0], keys[1]);
    let mut bad: [[u8; 32]; 2] = [weak(), fixtures::public_key(2)];
    bad.sort_unstable();
    let many: Vec<_> = keys.iter().copied().map(key).collect();
    let ks = "authorities_changed.authority_keys";
    let producer = "key_registered.producer";
    vec![
        (by(|s| s.producer = "a:b".into()), "producer", PRODUCER),
        (
            by(|s| s.producer = "deed:authority2".into()),
            "producer",
            PRODUCER,
        ),
        (
            by(|s| s.producer = "Deed:authority".into()),
            "producer",
            PRODUCER,
        ),
        (
            by(|s| s.ledger_id = Bytes::new()),
            "ledger_id",
            Problem::Missing,
        ),
        (
            by(|s| s.session = Bytes::new()),
            "session",
            Problem::Missing,
        ),
        (
            authorities_changed(|a| a.authority_keys.clear()),
            ks,
            count(0, 1, 16),
        ),
        (
            authorities_changed(|a| a.authority_keys = many.clone()),
            ks,
            count(17, 1, 16),
        ),
        (
            authorities_changed(|a| a.authority_keys = vec![key(first); 2]),
            ks,
            AUTHORITY_ORDER,
        ),
        (
            authorities_changed(|a| a.authority_keys = vec![key(second), key(first)]),
            ks,
            AUTHORITY_ORDER,
        ),
        (
            authorities_changed(|a| a.authority_keys = bad.map(key).into()),
            "authorities_changed.authority_keys[0].public_key",
            KEY,
        ),
        (
            authorities_changed(|a| a.authority_keys[1].public_key.truncate(31)),
            "authorities_changed.authority_keys[1].public_key",
            length(31, 32, 32),
        ),
        (
            authorities_changed(|a| a.reason = x(1025)),
            "authorities_changed.reason",
            length(1025, 1, 1024),
        ),
        (
            key_registered(|k| k.public_key = Bytes::new()),
            "key_registered.public_key",
            Problem::Missing,
        ),
        (
            key_registered(|k| k.public_key = weak().to_vec().into()),
            "key_registered.public_key",
            KEY,
        ),
        (
            key_registered(|k| k.public_key = not_canonical().to_vec().into()),
            "key_registered.public_key",
            KEY,
        ),
        (
            key_registered(|k| k.role = 0),
            "key_registered.role",
            Problem::Missing,
        ),
        (
            key_registered(|k| k.role = 7),
            "key_registered.role",
            Problem::UnknownEnum { value: 7 },
        ),
        (
            key_registered(|k| k.producer.clear()),
            producer,
            Problem::Missing,
        ),
        (
            key_registered(|k| k.producer = "agent".into()),
            producer,
            URI,
        ),
        (
            key_registered(|k| k.producer = format!("a:{}", x(511))),
            producer,
            length(513, 1, 512),
        ),
        (
            key_registered(|k| k.producer = "deed:authority".into()),
            producer,
            LEDGERS_OWN,
        ),
        (
            key_registered(|k| k.producer = "dEEd:x".into()),
            producer,
            LEDGERS_OWN,
        ),
        (
            key_registered(|k| k.controller = "payments".into()),
            "key_registered.controller",
            URI,
        ),
        (
            key_registered(|k| k.controller.clear()),
            "key_registered.controller",
            Problem::Missing,
        ),
        (
            key_registered(|k| k.valid_from_us = -1),
            "key_registered.valid_from_us",
            NEGATIVE,
        ),
        (
            key_registered(|k| k.valid_until_us = -1),
            "key_registered.valid_until_us",
            NEGATIVE,
        ),
        (
            key_registered(|k| k.valid_until_us = k.valid_from_us),
            "key_registered.valid_until_us",
            LATER,
        ),
        (
            key_registered(|k| k.possession = Bytes::new()),
            "key_registered.possession",
            Problem::Missing,
        ),
        (
            key_registered(|k| k.possession = bytes(1, 63)),
            "key_registered.possession",
            length(63, 64, 64),
        ),
        (
            key_revoked(|k| k.key_id = Bytes::new()),
            "key_revoked.key_id",
            Problem::Missing,
        ),
        (
            key_revoked(|k| k.key_id = bytes(1, 32)),
            "key_revoked.key_id",
            length(32, 16, 16),
        ),
        (
            key_revoked(|k| k.compromised_since_us = Some(-1)),
            "key_revoked.compromised_since_us",
            NEGATIVE,
        ),
        (
            key_revoked(|k| k.reason = x(1025)),
            "key_revoked.reason",
            length(1025, 1, 1024),
        ),
        (
            principal_bound(|p| p.principal.clear()),
            "principal_bound.principal",
            Problem::Missing,
        ),
        (
            principal_bound(|p| p.principal = "a\nb".into()),
            "principal_bound.principal",
            CONTROL,
        ),
        (
            principal_bound(|p| p.principal = x(513)),
            "principal_bound.principal",
            length(513, 1, 512),
        ),
        (
            principal_bound(|p| p.producer = "agent".into()),
            "principal_bound.producer",
            URI,
        ),
        (
            principal_bound(|p| p.producer = "deed:authority".into()),
            "principal_bound.producer",
            LEDGERS_OWN,
        ),
        (
            principal_bound(|p| p.valid_until_us = -1),
            "principal_bound.valid_until_us",
            NEGATIVE,
        ),
    ]
}

pub(super) fn policy_rows() -> Vec<Row> {
    let version = Problem::Rule("must be 2");
    vec![
        (
            policy_set(|p| p.policies.clear()),
            "policy_set.policies",
            Problem::Missing,
        ),
        (
            policy_set(|p| p.policies = x(32_769)),
            "policy_set.policies",
            length(32_769, 1, 32_768),
        ),
        (
            policy_set(|p| p.schema.clear()),
            "policy_set.schema",
            Problem::Missing,
        ),
        (
            policy_set(|p| p.schema = x(16_385)),
            "policy_set.schema",
            length(16_385, 1, 16_384),
        ),
        (
            policy_set(|p| p.digest = Bytes::new()),
            "policy_set.digest",
            Problem::Missing,
        ),
        (
            policy_set(|p| p.digest = bytes(1, 64)),
            "policy_set.digest",
            length(64, 32, 32),
        ),
        (
            policy_set(|p| p.cedar_version.clear()),
            "policy_set.cedar_version",
            Problem::Missing,
        ),
        (
            policy_set(|p| p.cedar_version = x(17)),
            "policy_set.cedar_version",
            length(17, 1, 16),
        ),
        (
            policy_set(|p| p.cedar_version = "4\n5".into()),
            "policy_set.cedar_version",
            CONTROL,
        ),
        (
            policy_set(|p| p.rules_version = 0),
            "policy_set.rules_version",
            Problem::Missing,
        ),
        (
            policy_set(|p| p.rules_version = 1),
            "policy_set.rules_version",
            version.clone(),
        ),
        (
            policy_set(|p| p.rules_version = 3),
            "policy_set.rules_version",
            version,
        ),
        (
            policy_set(|p| p.reason = x(1025)),
            "policy_set.reason",
            length(1025, 1, 1024),
        ),
    ]
}

pub(super) fn log_key_rows() -> Vec<Row> {
    let vkey = "log_key_rotated.log_key.vkey";
    let signer = Problem::Rule("must be the verifier key of an Ed25519 key that signs checkpoints");
    let with = |vkey: String| {
        log_key_rotated(|rotated| rotated.log_key.as_mut().unwrap().vkey = vkey.clone())
    };
    let good = fixtures::log_signer(9).verifier_key().to_string();
    let name: deed_tlog::KeyName = "deed.example/logs/refunds".parse().unwrap();
    let witness = deed_tlog::Cosigner::from_seed(name, &[9; 32]);
    vec![
        (
            log_key_rotated(|rotated| rotated.log_key = None),
            "log_key_rotated.log_key",
            Problem::Missing,
        ),
        (with(String::new()), vkey, Problem::Missing),
        (with(x(641)), vkey, length(641, 1, 640)),
        (with(format!("{good}=")), vkey, signer.clone()),
        (with(good.replace('+', "-")), vkey, signer.clone()),
        (
            with(good.replacen("refunds", "refundz", 1)),
            vkey,
            signer.clone(),
        ),
        (with(witness.verifier_key().to_string()), vkey, signer),
        (
            log_key_rotated(|rotated| rotated.reason.clear()),
            "log_key_rotated.reason",
            Problem::Missing,
        ),
        (
            log_key_rotated(|rotated| rotated.reason = x(1025)),
            "log_key_rotated.reason",
            length(1025, 1, 1024),
        ),
    ]
}

pub(super) fn content_rows() -> Vec<Row> {
    use v1::legal_hold_placed::Scope;
    let digests = |list: &[u8]| {
        let list: Vec<Bytes> = list.iter().map(|byte| bytes(*byte, 32)).collect();
        erasure(|e| e.commitments = list)
    };
    let many: Vec<u8> = (0..65).collect();
    let short = erasure(|e| e.commitments[1] = bytes(0xc1, 31));
    let empty = erasure(|e| e.commitments[1] = Bytes::new());
    vec![
        (
            retention_set(|r| r.floor_us = -1),
            "retention_set.floor_us",
            NEGATIVE,
        ),
        (
            retention_set(|r| r.reason = x(1025)),
            "retention_set.reason",
            length(1025, 1, 1024),
        ),
        (
            legal_hold_placed(|h| h.hold = Bytes::new()),
            "legal_hold_placed.hold",
            Problem::Missing,
        ),
        (
            legal_hold_placed(|h| h.hold = bytes(1, 15)),
            "legal_hold_placed.hold",
            length(15, 16, 16),
        ),
        (
            legal_hold_placed(|h| h.scope = Some(Scope::Task(Bytes::new()))),
            "legal_hold_placed.task",
            length(0, 16, 16),
        ),
        (
            legal_hold_placed(|h| h.scope = Some(Scope::Commitment(bytes(1, 16)))),
            "legal_hold_placed.commitment",
            length(16, 32, 32),
        ),
        (
            legal_hold_placed(|h| h.reason.clear()),
            "legal_hold_placed.reason",
            Problem::Missing,
        ),
        (
            legal_hold_released(|h| h.hold = bytes(1, 17)),
            "legal_hold_released.hold",
            length(17, 16, 16),
        ),
        (
            legal_hold_released(|h| h.reason.clear()),
            "legal_hold_released.reason",
            Problem::Missing,
        ),
        (digests(&[]), "erasure.commitments", count(0, 1, 64)),
        (digests(&many), "erasure.commitments", count(65, 1, 64)),
        (digests(&[1, 1]), "erasure.commitments", ASCENDING),
        (digests(&[1, 3, 2]), "erasure.commitments", ASCENDING),
        (short, "erasure.commitments[1]", length(31, 32, 32)),
        (empty, "erasure.commitments[1]", length(0, 32, 32)),
        (
            erasure(|e| e.requested_by.clear()),
            "erasure.requested_by",
            Problem::Missing,
        ),
        (
            erasure(|e| e.reason.clear()),
            "erasure.reason",
            Problem::Missing,
        ),
        (
            erasure(|e| e.legal_basis.clear()),
            "erasure.legal_basis",
            Problem::Missing,
        ),
        (
            erasure(|e| e.legal_basis = x(257)),
            "erasure.legal_basis",
            length(257, 1, 256),
        ),
    ]
}
