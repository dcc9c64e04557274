//! The trust state: who speaks for whom, what is refused, and that a chain replays to the same.

mod chain;

pub(crate) use chain::{Chain, registered_body, rotated_body};

use crate::{
    fixtures::{self, TIME_US, signing_key},
    fuzz,
    mutations::any_mutation,
    statements::any_trust_statement,
};
use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, HoldId, KeyId, LedgerId, Micros, TaskId,
    entry::{Entry, KeyedSignature},
    genesis::Genesis,
    signature::{self, key_id},
    statement,
    trust::{
        ChainError, ErasureRefusal, HoldScope, KeyRefusal, KeyRegistration, Reference, TrustChain,
        TrustLink, TrustRefusal, TrustState, TrustStatement,
    },
};
use deed_proto::v1::{self, KeyRole, PayloadType, statement::Body};
use deed_tlog::{Hash, KeyName, LeafIndex, NoteSigner, SigningKey, TreeSize, leaf_hash};
use proptest::{collection::vec, prelude::*};
const AGENT: &str = "spiffe://example.org/agent";
const OTHER: &str = "spiffe://example.org/other";
fn at(seconds: i64) -> Micros {
    Micros::new(TIME_US + seconds * 1_000_000)
}
fn id(seed: u8) -> KeyId {
    key_id(signing_key(seed).public_key())
}
fn ledger() -> LedgerId {
    let entry = fixtures::genesis().to_entry().unwrap();
    Genesis::from_entry(&entry).unwrap().1
}
/// A trust state, and leaves to apply statements at.
struct Ledger {
    trust: TrustState,
    next: u64,
}
impl Ledger {
    /// Keys 2 and 3 are its authorities.
    fn new() -> Self {
        let trust = TrustState::genesis(ledger(), &fixtures::genesis());
        Self { trust, next: 1 }
    }

    fn refused(&self, statement: &TrustStatement, time: Micros) -> TrustRefusal {
        self.trust.judge(statement, id(2), time).unwrap_err()
    }

    fn take(&mut self, statement: &TrustStatement, time: Micros) -> LeafIndex {
        self.trust.judge(statement, id(2), time).unwrap();
        let leaf = LeafIndex::new(self.next);
        let hash = leaf_hash(&self.next.to_be_bytes());
        let version = self.trust.version();
        self.trust.apply(statement, time, leaf, hash);
        assert_ne!(self.trust.version(), version);
        let head = TrustLink {
            leaf_index: leaf,
            leaf_hash: hash,
        };
        assert_eq!(self.trust.head(), head);
        self.next += 3;
        leaf
    }
}
fn registration(seed: u8, producer: &str) -> KeyRegistration {
    let key = signing_key(seed);
    let mut registration = KeyRegistration {
        public_key: key.public_key().clone(),
        role: KeyRole::Agent,
        producer: producer.into(),
        controller: "https://example.org/payments".into(),
        valid_from: Micros::new(0),
        valid_until: Micros::MAX,
        possession: [0; 64],
        acts_for: Vec::new(),
        resources: Vec::new(),
    };
    registration.possession = registration.possession_of(ledger()).sign(&key);
    registration
}
fn register(seed: u8, producer: &str) -> TrustStatement {
    TrustStatement::KeyRegistered(registration(seed, producer))
}
fn revoke(seed: u8) -> TrustStatement {
    TrustStatement::KeyRevoked {
        key_id: id(seed),
        compromised_since: Some(at(-5)),
    }
}
fn authorities(seeds: &[u8]) -> TrustStatement {
    let keys = seeds
        .iter()
        .map(|seed| signing_key(*seed).public_key().clone());
    TrustStatement::AuthoritiesChanged(keys.collect())
}
fn bind(producer: &str, valid_until: Micros) -> TrustStatement {
    TrustStatement::PrincipalBound {
        principal: "gateway".into(),
        producer: producer.into(),
        valid_until,
    }
}
fn place(hold: u8, scope: HoldScope) -> TrustStatement {
    TrustStatement::LegalHoldPlaced {
        hold: HoldId::new([hold; 16]),
        scope,
    }
}
fn release(hold: u8) -> TrustStatement {
    TrustStatement::LegalHoldReleased {
        hold: HoldId::new([hold; 16]),
    }
}
fn rotate(seed: u8) -> TrustStatement {
    TrustStatement::LogKeyRotated {
        log_key: fixtures::log_signer(seed).verifier_key().clone(),
    }
}
fn content(byte: u8) -> CommitmentDigest {
    CommitmentDigest::new([byte; 32])
}
#[test]
fn a_new_ledger_has_its_authorities_alone() {
    let trust = Ledger::new().trust;
    let genesis = TrustLink {
        leaf_index: LeafIndex::new(0),
        leaf_hash: *ledger().hash(),
    };
    assert_eq!(trust.head(), genesis);
    assert_eq!(trust.ledger_id(), ledger());
    for seed in [2, 3] {
        let key = trust.is_authority(id(seed));
        assert_eq!(key, Some(signing_key(seed).public_key()));
    }
    assert_eq!(trust.is_authority(id(4)), None);
    assert_eq!(trust.authorities().count(), 2);
    assert_eq!(trust.keys().count(), 0);
    assert_eq!(trust.stable_until(at(0)), Micros::MAX);
    assert_eq!(trust.retention_floor_us(), 0);
    assert_eq!(trust.log_keys().all().len(), 1);
    assert_eq!(trust.log_keys().newest().key, fixtures::genesis().log_key);
    assert!(trust.log_key_leaves().is_empty());
    assert_eq!(trust.holds().count(), 0);
    assert!(!trust.has_had_key(AGENT));
    assert_eq!(trust.binding("gateway", AGENT, at(0)), None);
}
/// One row for each reason to refuse a trust statement.
#[test]
fn every_refusal() {
    let mut ledger = Ledger::new();
    ledger.take(&register(5, AGENT), at(0));
    ledger.take(&register(6, AGENT), at(0));
    ledger.take(&revoke(6), at(1));
    ledger.take(&authorities(&[2, 4]), at(1));
    ledger.take(&place(1, HoldScope::Ledger), at(1));
    ledger.take(&place(2, HoldScope::Commitment(content(9))), at(1));
    ledger.take(&release(1), at(1));
    let rotated = ledger.take(&rotate(8), at(1));
    let first_size = TreeSize::new(rotated.get() + 1);
    let other_log = NoteSigner::from_seed(
        "deed.example/logs/refund".parse::<KeyName>().unwrap(),
        &[9; 32],
    );

    let ended = TrustStatement::KeyRegistered(KeyRegistration {
        valid_until: at(2),
        ..registration(7, OTHER)
    });
    let held = ErasureRefusal::LegalHold {
        commitment: content(9),
        hold: HoldId::new([2; 16]),
    };
    let hold = |hold| HoldId::new([hold; 16]);
    let before = |seed| TrustRefusal::KeyRegisteredBefore { key_id: id(seed) };
    let authority = |seed| TrustRefusal::KeyOfAuthority { key_id: id(seed) };
    let taken = |seed| TrustRefusal::AuthorityRegistered { key_id: id(seed) };
    let rows = [
        (register(5, AGENT), before(5)),
        (register(5, OTHER), before(5)),
        (register(6, AGENT), before(6)), // revoked
        (register(2, AGENT), authority(2)),
        (register(3, AGENT), authority(3)), // of once
        (
            ended,
            TrustRefusal::KeyEnded {
                key_id: id(7),
                valid_until: at(2),
                at: at(2),
            },
        ),
        (authorities(&[2, 5]), taken(5)),
        (authorities(&[6]), taken(6)),
        (revoke(7), TrustRefusal::KeyNotRegistered { key_id: id(7) }),
        (revoke(2), TrustRefusal::KeyNotRegistered { key_id: id(2) }),
        (
            revoke(6),
            TrustRefusal::KeyRevokedBefore {
                key_id: id(6),
                revoked_at: at(1),
            },
        ),
        (
            place(1, HoldScope::Ledger),
            TrustRefusal::HoldUsed { hold: hold(1) },
        ),
        (
            place(2, HoldScope::Ledger),
            TrustRefusal::HoldUsed { hold: hold(2) },
        ),
        (release(1), TrustRefusal::HoldNotInForce { hold: hold(1) }),
        (release(3), TrustRefusal::HoldNotInForce { hold: hold(3) }),
        (
            TrustStatement::Erasure(vec![content(8), content(9)]),
            TrustRefusal::Erasure(held),
        ),
        (rotate(8), TrustRefusal::LogKeyUsed { first_size }),
        (
            TrustStatement::LogKeyRotated {
                log_key: fixtures::genesis().log_key,
            },
            TrustRefusal::LogKeyUsed {
                first_size: TreeSize::new(1),
            },
        ),
        (
            TrustStatement::LogKeyRotated {
                log_key: other_log.verifier_key().clone(),
            },
            TrustRefusal::LogKeyName,
        ),
    ];
    for (statement, wanted) in rows {
        assert_eq!(ledger.refused(&statement, at(2)), wanted, "{statement:?}");
    }
    for (seed, wanted) in [
        (5, TrustRefusal::SignerNotAuthority { signer: id(5) }),
        (3, TrustRefusal::SignerUnknown { signer: id(3) }), // an authority once
        (9, TrustRefusal::SignerUnknown { signer: id(9) }),
    ] {
        let judged = ledger.trust.judge(&release(2), id(seed), at(2));
        assert_eq!(judged, Err(wanted));
    }
    // And what lies just beside the refusals.
    for statement in [
        register(7, AGENT),
        authorities(&[3]),
        revoke(5),
        release(2),
        place(3, HoldScope::Ledger),
        TrustStatement::Erasure(vec![content(8)]),
        rotate(9),
    ] {
        ledger.trust.judge(&statement, id(4), at(2)).unwrap();
    }
}
#[test]
fn a_key_speaks_from_its_beginning_to_its_end() {
    let mut ledger = Ledger::new();
    let key = KeyRegistration {
        valid_from: at(10),
        valid_until: at(20),
        ..registration(5, AGENT)
    };
    let leaf = ledger.take(&TrustStatement::KeyRegistered(key.clone()), at(0));
    let key_id = id(5);
    let not_yet = |time| KeyRefusal::NotYet {
        key_id,
        valid_from: at(10),
        at: time,
    };
    let ended = |time| KeyRefusal::Ended {
        key_id,
        valid_until: at(20),
        at: time,
    };
    let before = Micros::new(at(10).get() - 1);
    let last = Micros::new(at(20).get() - 1);
    let rows = [
        (at(0), Some(not_yet(at(0))), at(10)),
        (before, Some(not_yet(before)), at(10)),
        (at(10), None, at(20)),
        (last, None, at(20)),
        (at(20), Some(ended(at(20))), Micros::MAX),
        (Micros::MAX, Some(ended(Micros::MAX)), Micros::MAX),
    ];
    for (time, refusal, stable) in rows {
        let trust = &ledger.trust;
        assert_eq!(trust.speaks(key_id, AGENT, time).err(), refusal, "{time}");
        assert!(trust.has_had_key(AGENT), "whether it is in force or not");
        assert_eq!(trust.stable_until(time), stable, "{time}");
    }
    let trust = &ledger.trust;
    let record = trust.key(key_id).unwrap();
    assert_eq!(record.registered_leaf, leaf);
    assert_eq!(&record.public_key, signing_key(5).public_key());
    assert_eq!((record.role, &record.producer), (key.role, &key.producer));
    let other = KeyRefusal::OtherProducer { key_id };
    assert_eq!(trust.speaks(key_id, OTHER, at(10)), Err(other));
    let unknown = KeyRefusal::Unknown { key_id: id(9) };
    assert_eq!(trust.speaks(id(9), AGENT, at(10)), Err(unknown));
    let authority = KeyRefusal::Authority { key_id: id(2) };
    assert_eq!(trust.speaks(id(2), AGENT, at(10)), Err(authority));

    let leaf = ledger.take(&revoke(5), at(11));
    let trust = &ledger.trust;
    let revoked = KeyRefusal::Revoked {
        key_id,
        revoked_at: at(11),
    };
    assert_eq!(trust.speaks(key_id, AGENT, at(12)), Err(revoked));
    assert!(trust.has_had_key(AGENT), "a revoked key opens no door");
    let record = trust.key(key_id).unwrap();
    assert_eq!(record.revoked_leaf, Some(leaf));
    assert_eq!(record.compromised_since, Some(at(-5)));

    // Another key of the same producer is not touched.
    ledger.take(&register(6, AGENT), at(13));
    assert!(ledger.trust.has_had_key(AGENT));
    assert!(!ledger.trust.has_had_key(OTHER));
}
#[test]
fn a_binding_is_replaced_and_ends() {
    let mut ledger = Ledger::new();
    let first = ledger.take(&bind(AGENT, at(10)), at(0));
    let bound = |ledger: &Ledger, time| ledger.trust.binding("gateway", AGENT, time);
    assert_eq!(bound(&ledger, at(0)), Some(first));
    assert_eq!(bound(&ledger, at(9)), Some(first));
    assert_eq!(bound(&ledger, at(10)), None);
    assert_eq!(ledger.trust.stable_until(at(0)), at(10));
    assert_eq!(ledger.trust.binding("gateway", OTHER, at(0)), None);
    assert_eq!(ledger.trust.binding("other", AGENT, at(0)), None);
    let second = ledger.take(&bind(AGENT, Micros::MAX), at(1));
    assert_eq!(bound(&ledger, at(100)), Some(second));
    let third = ledger.take(&bind(OTHER, Micros::MAX), at(1));
    assert_eq!(bound(&ledger, at(100)), Some(second));
    assert_eq!(ledger.trust.binding("gateway", OTHER, at(1)), Some(third));
    ledger.take(&bind(AGENT, Micros::new(1)), at(2));
    assert_eq!(bound(&ledger, at(2)), None, "ended at once");
}
#[test]
fn what_may_be_erased() {
    let mut ledger = Ledger::new();
    let (own, other) = (TaskId::new([1; 16]), TaskId::new([2; 16]));
    let reference = |seconds, task| Reference {
        leaf: LeafIndex::new(9),
        recorded_at: at(seconds),
        task: Some(task),
    };
    let references = [reference(5, own), reference(30, other), reference(1, own)];
    let ask = |ledger: &Ledger, references: &[Reference], time| {
        ledger.trust.erasable(&content(7), references, time)
    };
    assert_eq!(ask(&ledger, &references, at(31)), Ok(()));

    ledger.take(
        &TrustStatement::RetentionSet {
            floor_us: 10_000_000,
        },
        at(31),
    );
    assert_eq!(ledger.trust.retention_floor_us(), 10_000_000);
    let until = |until, time| ErasureRefusal::Retention {
        commitment: content(7),
        until,
        at: time,
    };
    // Counted from the newest statement that has it.
    assert_eq!(
        ask(&ledger, &references, at(39)),
        Err(until(at(40), at(39)))
    );
    assert_eq!(ask(&ledger, &references, at(40)), Ok(()));
    assert_eq!(ask(&ledger, &references[..1], at(15)), Ok(()));
    assert_eq!(
        ask(&ledger, &[], at(0)),
        Ok(()),
        "nothing was recorded with it"
    );
    ledger.take(&TrustStatement::RetentionSet { floor_us: i64::MAX }, at(40));
    assert_eq!(
        ask(&ledger, &references, at(50)),
        Err(until(Micros::MAX, at(50)))
    );
    ledger.take(&TrustStatement::RetentionSet { floor_us: 0 }, at(40));
    assert_eq!(ask(&ledger, &references, at(30)), Ok(()));

    let held = |hold| ErasureRefusal::LegalHold {
        commitment: content(7),
        hold: HoldId::new([hold; 16]),
    };
    ledger.take(&place(5, HoldScope::Task(other)), at(41));
    assert_eq!(ask(&ledger, &references, at(50)), Err(held(5)));
    assert_eq!(
        ask(&ledger, &references[..1], at(50)),
        Ok(()),
        "of another task"
    );
    ledger.take(&place(4, HoldScope::Commitment(content(7))), at(41));
    assert_eq!(ask(&ledger, &[], at(50)), Err(held(4)));
    assert_eq!(ledger.trust.erasable(&content(8), &[], at(50)), Ok(()));
    ledger.take(&release(4), at(42));
    assert_eq!(ask(&ledger, &references, at(50)), Err(held(5)));
    ledger.take(&release(5), at(42));
    assert_eq!(ask(&ledger, &references, at(50)), Ok(()));
    ledger.take(&place(6, HoldScope::Ledger), at(42));
    assert_eq!(ask(&ledger, &references, at(50)), Err(held(6)));
    assert_eq!(ledger.trust.holds().count(), 1);
    let erasure = TrustStatement::Erasure(vec![content(7)]);
    let refused = TrustRefusal::Erasure(held(6));
    assert_eq!(ledger.refused(&erasure, at(50)), refused);
}
/// The fixtures' statements mean what they say.
#[test]
fn statements_are_read() {
    // Not everything that an authority says changes what later entries mean.
    let no_trust = ["grant-root", "revocation", "finding_disposition"];
    for (name, made) in fixtures::all() {
        if name == "policy_set" {
            // Read by what compiles policies.
            continue;
        }
        let payload = statement::encode(&made).unwrap();
        let parsed = fuzz::trust::check(&payload).unwrap();
        let by_authority = made.producer == "deed:authority";
        let wanted = by_authority && !no_trust.contains(&name);
        assert_eq!(parsed.is_some(), wanted, "{name}");
    }
    let parse = |made| TrustStatement::parse(&statement::encode(&made).unwrap());
    let Ok(Some(registered)) = parse(fixtures::key_registered()) else {
        panic!("registers a key");
    };
    registered.verify_possession(fixtures::LEDGER).unwrap();
    registered.verify_possession(ledger()).unwrap_err();
    assert_eq!(
        parse(fixtures::key_revoked()),
        Ok(Some(TrustStatement::KeyRevoked {
            key_id: id(5),
            compromised_since: Some(Micros::new(0)),
        }))
    );
    let mut bound = fixtures::principal_bound();
    if let Some(Body::PrincipalBound(body)) = &mut bound.body {
        body.valid_until_us = 0;
    }
    assert_eq!(
        parse(bound),
        Ok(Some(TrustStatement::PrincipalBound {
            principal: "CN=gateway 1, O=Example Ä".into(),
            producer: "spiffe://example.org/agent/refunds".into(),
            valid_until: Micros::MAX,
        }))
    );
    assert_eq!(
        parse(fixtures::erasure()),
        Ok(Some(TrustStatement::Erasure(vec![
            content(0xc0),
            content(0xc1),
            content(0xff)
        ])))
    );
    assert_eq!(
        parse(fixtures::legal_hold_placed_on_content()),
        Ok(Some(place(0x1d, HoldScope::Commitment(content(0xc0)))))
    );
}
/// Statements about few keys, holds and producers, so that they meet.
fn any_step() -> impl Strategy<Value = (TrustStatement, u8, i64)> {
    let key = 2..12_u8;
    let producer = || prop_oneof![Just(AGENT), Just(OTHER)];
    let time = || prop_oneof![Just(Micros::MAX), (-5..80_i64).prop_map(at)];
    let scope = prop_oneof![
        Just(HoldScope::Ledger),
        (0..3_u8).prop_map(|task| HoldScope::Task(TaskId::new([task; 16]))),
        (0..3_u8).prop_map(|byte| HoldScope::Commitment(content(byte))),
    ];
    let registered = (key.clone(), producer(), time(), time());
    let statement = prop_oneof![
        3 => registered.prop_map(|(seed, producer, valid_from, valid_until)| {
            TrustStatement::KeyRegistered(KeyRegistration {
                valid_from,
                valid_until,
                ..registration(seed, producer)
            })
        }),
        2 => key.clone().prop_map(revoke),
        1 => vec(key, 1..3).prop_map(|seeds| authorities(&seeds)),
        1 => (producer(), time()).prop_map(|(producer, until)| bind(producer, until)),
        1 => (0..50_000_000_i64).prop_map(|floor_us| TrustStatement::RetentionSet { floor_us }),
        1 => (0..4_u8, scope).prop_map(|(hold, scope)| place(hold, scope)),
        1 => (0..4_u8).prop_map(release),
        1 => (0..4_u8).prop_map(|byte| TrustStatement::Erasure(vec![content(byte)])),
        1 => (6..10_u8).prop_map(rotate),
    ];
    (statement, 2..5_u8, 0..10_i64)
}
proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was judged is applied; the same again from the start is the same; and each answer holds
    /// for as long as it is said to.
    #[test]
    fn replay_gives_the_same_trust_state(steps in vec(any_step(), 1..40)) {
        let mut trust = Ledger::new().trust;
        let mut taken = Vec::new();
        let mut time = at(0);
        for (position, (statement, signer, later)) in steps.iter().enumerate() {
            time = Micros::new(time.get() + later * 1_000_000);
            if trust.judge(statement, id(*signer), time).is_err() {
                continue;
            }
            let leaf = LeafIndex::new(position as u64 + 1);
            let hash = leaf_hash(&position.to_be_bytes());
            trust.apply(statement, time, leaf, hash);
            taken.push((statement, *signer, time, leaf, hash));
            prop_assert_eq!(trust.version(), taken.len() as u64);

            // No key is both, none is registered twice, and the short cut says what the keys say.
            for key in trust.keys() {
                prop_assert_eq!(trust.is_authority(key.key_id), None);
            }
            let moment = trust.stable_until(time);
            prop_assert!(moment > time);
            let last = Micros::new(moment.get() - 1);
            for producer in [AGENT, OTHER] {
                let registered = trust.keys().any(|key| key.producer == producer);
                prop_assert_eq!(trust.has_had_key(producer), registered);
                for key in trust.keys() {
                    let now = trust.speaks(key.key_id, producer, time).is_ok();
                    let then = trust.speaks(key.key_id, producer, last).is_ok();
                    prop_assert_eq!(now, then);
                }
                prop_assert_eq!(
                    trust.binding("gateway", producer, time),
                    trust.binding("gateway", producer, last)
                );
            }
        }
        let mut again = Ledger::new().trust;
        for (statement, signer, time, leaf, hash) in taken {
            prop_assert_eq!(again.judge(statement, id(signer), time), Ok(()));
            again.apply(statement, time, leaf, hash);
        }
        prop_assert_eq!(again, trust);
    }

    /// Whatever becomes of a trust statement's bytes: parsed as its header says, judged and applied
    /// without a panic (`fuzz::trust::check` asserts it).
    #[test]
    fn any_trust_statement_is_taken_or_refused(
        made in any_trust_statement(),
        changes in vec(any_mutation(), 0..3),
    ) {
        let payload = prost::Message::encode_to_vec(&made);
        let changed = changes.iter().fold(payload, |bytes, change| change.apply(&bytes));
        let parsed = fuzz::trust::check(&changed);
        if changes.is_empty() {
            prop_assert!(matches!(parsed, Ok(Some(_))), "{:?}", parsed);
        }
    }
}
#[test]
fn a_hash_is_not_taken_for_another() {
    // Two trust states that differ in one leaf's hash are not equal: the next link would differ.
    let mut one = Ledger::new().trust;
    let mut two = one.clone();
    let statement = register(5, AGENT);
    one.apply(&statement, at(0), LeafIndex::new(1), Hash::new([1; 32]));
    two.apply(&statement, at(0), LeafIndex::new(1), Hash::new([2; 32]));
    assert_ne!(one, two);
}
