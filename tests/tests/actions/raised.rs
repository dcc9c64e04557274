//! A ledger of rules version 1 that an authority brings to version 2, as an auditor sees it. The
//! server no longer makes such ledgers, so the test makes the entries.

use std::fs;

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, PayloadDigest,
    entry::{Entry, KeyedSignature, TrustLink},
    genesis::Genesis,
};
use deed_proto::v1::{self, RiskTier, statement::Body};
use deed_tests::{
    forgery::write_mirror,
    keys::{Authority, authority},
    process::{Deed, Ended},
    statements::{Producer, intent, policy_set},
};
use deed_tlog::{LeafIndex, NoteSigner, Origin, leaf_hash};
use serde_json::{Value, json};

use crate::TASK;

const ORIGIN: &str = "old.example/logs/payments";

/// Receive time of its entries.
const TIME_US: i64 = 1_760_000_000_000_000;

/// Returns the log's signing key.
fn signer() -> NoteSigner {
    let origin: Origin = ORIGIN.parse().unwrap();
    NoteSigner::from_seed(origin.key_name().clone(), &[7; 32])
}

/// Returns the entries: Intent, PolicySet, TaskOpened, Outcome of the first Intent, another Intent
/// with its Outcome.
fn entries() -> Vec<Bytes> {
    let genesis = Genesis {
        origin: ORIGIN.parse().unwrap(),
        log_key: signer().verifier_key().clone(),
        authority_keys: vec![*authority().public_key().as_bytes()],
        created_at: Micros::new(TIME_US),
        nonce: [5; 32],
        rules_version: 1,
    };
    let first = genesis.to_entry().unwrap();
    let at = Micros::new(TIME_US + 1);
    let link = TrustLink {
        leaf_index: LeafIndex::new(0),
        leaf_hash: leaf_hash(&first),
    };
    let id = LedgerId::new(link.leaf_hash);
    let mut agent = Producer::new(id, 1);
    let policies = "permit (principal, action, resource);";
    let raised = Authority::new(id, 900).says(Body::PolicySet(policy_set(policies)));
    // The statement has a session of its own, so that it may be anywhere in the log.
    let opened = Authority::new(id, 901).says_in(
        TASK,
        Body::TaskOpened(v1::TaskOpened {
            requested_by: "ticket:4711".to_owned(),
            risk_tier: RiskTier::Low.into(),
            ..v1::TaskOpened::default()
        }),
    );
    let session = agent.session();
    let outcome = |sequence: u64, of: &Bytes| {
        Body::Outcome(v1::Outcome {
            intent: Some(v1::StatementRef {
                session: session.clone(),
                sequence,
                payload_digest: Bytes::copy_from_slice(PayloadDigest::of(of).as_bytes()),
            }),
            status: v1::OutcomeStatus::Succeeded.into(),
            ..v1::Outcome::default()
        })
    };
    let before = agent.make_in(TASK, intent("order/7"));
    let late = agent.make_in(TASK, outcome(0, &before));
    let after = agent.make_in(TASK, intent("order/8"));
    let done = agent.make_in(TASK, outcome(2, &after));
    let unsigned = |payload: &Bytes| Entry::unsigned(payload, at).encode();
    vec![
        first,
        unsigned(&before),
        signed(&raised, |payload, keyed| {
            Entry::trust(payload, keyed, at, link)
        }),
        signed(&opened, |payload, keyed| Entry::signed(payload, keyed, at)),
        unsigned(&late),
        unsigned(&after),
        unsigned(&done),
    ]
}

fn signed<'e>(
    said: &'e v1::Envelope,
    entry: impl FnOnce(&'e [u8], KeyedSignature<'e>) -> Entry<'e>,
) -> Bytes {
    let keyed = KeyedSignature {
        key_id: said.key_id[..].try_into().unwrap(),
        signature: said.signature[..].try_into().unwrap(),
    };
    entry(&said.payload, keyed).encode()
}

fn audit(entries: &[Bytes]) -> Ended {
    let deed = Deed::new("http://127.0.0.1:1", "payments");
    let (dir, policy) = (deed.file("mirror"), deed.file("policy"));
    write_mirror(&dir, ORIGIN, entries, &signer());
    let vkey = signer().verifier_key().to_string();
    fs::write(&policy, format!("log {vkey}\nquorum none\n")).unwrap();
    let (dir, policy) = (dir.to_str().unwrap(), policy.to_str().unwrap());
    deed.run(["audit", "--json", "--dir", dir, "--policy", policy])
}

#[test]
fn an_old_ledger_is_audited_across_its_change_of_rules() {
    let entries = entries();
    let ended = audit(&entries).expect_code(0);
    let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["holds"], true, "{said}");
    // An Intent that was recorded before the change is no act.
    assert_eq!(said["intents"], json!({"completed": 1}), "{said}");
    assert_eq!(said["findings"], json!({"unproven_claim": 1}));
    // The entries before the change are not assessed.
    let ended = audit(&entries[..2]).expect_code(0);
    let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["intents"], json!({}), "{said}");

    // A body of the new rules cannot have been recorded before the change.
    let mut early = entries;
    early.swap(2, 3);
    let ended = audit(&early).expect_code(1);
    let said: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(said["difference"]["leaf_index"], 2, "{said}");
    let words = "before the rules that take it are in force";
    assert!(ended.stderr.contains(words), "{ended:#?}");
}
