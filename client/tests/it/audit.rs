//! Audits of whole ledgers: honest, cut, and false ones that sign what they say.

use bytes::Bytes;
use deed_client::{Audit, AuditError, Audited};
use deed_evidence::{LedgerId, entry::Entry, genesis::Genesis, replay::Fault};
use deed_proto::v1::{self, OutcomeStatus, RiskTier, Verdict, statement::Body};
use deed_tlog::{Frontier, Hash, TreeHead, leaf_hash};
use prost::Message as _;

use crate::stories::{
    AGENT, APPROVER, AUTHORITY, ENGINE, Ledger, PLATFORM, approval, decision, effect, genesis,
    grant_to, intent, outcome, task_closed, task_opened,
};

fn payment() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Payment, 0));
    let grant = ledger.say(AUTHORITY, Some(1), grant_to(AGENT));
    let wanted = Body::Intent(intent("orders/7", 500, Some(grant.hash)));
    let wanted = ledger.say(AGENT, Some(1), wanted);
    ledger.at(200);
    ledger.say(ENGINE, Some(1), decision(&wanted, Verdict::Allow));
    let now = ledger.now();
    ledger.say(APPROVER, Some(1), approval(&wanted, Verdict::Allow, now));
    let effects = vec![effect("orders/7", 500)];
    let done = outcome(&wanted, OutcomeStatus::Succeeded, effects);
    ledger.say(AGENT, Some(1), done);
    ledger.say(PLATFORM, Some(1), task_closed());
    ledger
}

fn head_of(entries: &[Bytes]) -> TreeHead {
    let mut frontier = Frontier::new();
    for entry in entries {
        frontier.push(leaf_hash(entry));
    }
    frontier.head()
}

fn audited(
    entries: &[Bytes],
    head: &TreeHead,
    genesis: &Genesis,
    id: Option<LedgerId>,
) -> Result<Audited, AuditError> {
    let mut audit = Audit::new();
    for entry in entries {
        audit.take(entry);
    }
    audit.finish(head, &genesis.origin, &genesis.log_key, id)
}

#[test]
fn an_honest_ledger_holds() {
    let ledger = payment();
    let entries = ledger.entries();
    let audited = audited(entries, &head_of(entries), &genesis(), Some(ledger.id)).unwrap();
    assert_eq!(audited.ledger_id, ledger.id);
    let summary = audited.summary;
    assert_eq!(summary.intents["completed"], 1);
    assert_eq!(summary.entries["clearance"], 1);
    assert_eq!(summary.entries["task_receipt"], 1);
    let unsigned = ["genesis", "clearance", "task_receipt"].map(|body| summary.entries[body]);
    let signed = entries.len() as u64 - unsigned.iter().sum::<u64>();
    assert_eq!(summary.signatures, signed);
}

#[test]
fn a_false_ledger_has_signed_it() {
    let ledger = payment();
    let last = ledger.entries().len() - 1;
    let mut entries = ledger.entries().to_vec();
    let receipt = Entry::parse(&entries[last]).unwrap();
    let mut statement = v1::Statement::decode(receipt.payload).unwrap();
    let Some(Body::TaskReceipt(body)) = &mut statement.body else {
        panic!("no receipt");
    };
    let mut digest = body.digest.to_vec();
    digest[0] ^= 1;
    body.digest = digest.into();
    let payload = statement.encode_to_vec();
    entries[last] = Entry::by_ledger(&payload, receipt.received_at).encode();

    // The ledger signs a head over its false entries.
    let error = audited(&entries, &head_of(&entries), &genesis(), None).unwrap_err();
    assert_eq!(error.leaf(), Some(last as u64));
    match &error {
        AuditError::Difference(it) => assert!(matches!(*it.fault, Fault::False { .. })),
        other => panic!("{other}"),
    }
    assert!(
        error
            .to_string()
            .ends_with("the signed head commits to that"),
        "{error}"
    );
    // Somebody on the way changed it.
    let honest = head_of(ledger.entries());
    let error = audited(&entries, &honest, &genesis(), None).unwrap_err();
    assert_eq!(error.leaf(), Some(last as u64));
    assert!(matches!(error, AuditError::OtherEntries { .. }), "{error}");

    // The ledger leaves the last entry out, and signs a head over the rest.
    entries.pop();
    let error = audited(&entries, &head_of(&entries), &genesis(), None).unwrap_err();
    assert_eq!(error.leaf(), Some(last as u64));
    assert!(matches!(error, AuditError::Difference(_)), "{error}");
}

#[test]
fn other_entries_than_the_heads_are_noticed() {
    let ledger = payment();
    let entries = ledger.entries();
    let head = head_of(entries);
    let all = entries.len();
    for entries in [&entries[..0], &entries[..all - 1]] {
        let error = audited(entries, &head, &genesis(), None).unwrap_err();
        assert!(matches!(error, AuditError::OtherEntries { .. }), "{error}");
    }
    let error = audited(&[], &TreeHead::EMPTY, &genesis(), None).unwrap_err();
    assert!(matches!(error, AuditError::Empty), "{error}");
    let other = LedgerId::new(Hash::new([7; 32]));
    let error = audited(entries, &head, &genesis(), Some(other)).unwrap_err();
    assert!(matches!(error, AuditError::OtherLedger { .. }), "{error}");
    let name = deed_tlog::KeyName::new("deed.example/logs/stories").unwrap();
    let impostor = Genesis {
        log_key: deed_tlog::NoteSigner::from_seed(name, &[9; 32])
            .verifier_key()
            .clone(),
        ..genesis()
    };
    let error = audited(entries, &head, &impostor, None).unwrap_err();
    assert!(matches!(error, AuditError::OtherLog { .. }), "{error}");
}
