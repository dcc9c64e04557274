//! Intents that ask for nothing but their open task: no cell is kept of them, and they are acts as
//! any other.

use bytes::Bytes;
use deed_evidence::{
    assess::cells::{Act, CellKey},
    replay::Replay,
};
use deed_proto::v1::{FindingKind, IntentState, OutcomeStatus, RiskTier, Verdict, statement::Body};

use crate::ledger::*;

fn nothing_asked() -> Body {
    let mut said = intent("orders/7", 0, None);
    said.amount = None;
    Body::Intent(said)
}

fn opened(forgets: bool) -> Ledger {
    let mut ledger = if forgets {
        Ledger::forgetting()
    } else {
        Ledger::new()
    };
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    ledger
}

fn is_kept(ledger: &Ledger, intent: &Place) -> bool {
    ledger.kept.cells.contains_key(&CellKey::Act(intent.leaf))
}

#[test]
fn a_cell_comes_with_the_first_thing_that_is_said_of_it() {
    for forgets in [false, true] {
        let mut ledger = opened(forgets);
        let signed = ledger.say(AGENT, Some(1), nothing_asked());
        let unsigned = ledger.say(ANYBODY, Some(1), nothing_asked());
        let batch = vec![(Some(1), nothing_asked()), (Some(1), nothing_asked())];
        let batched = ledger.say_batch(HELPER, batch);
        let all = [&signed, &unsigned, &batched[0], &batched[1]];
        for (place, who) in all.iter().zip([AGENT, ANYBODY, HELPER, HELPER]) {
            assert_eq!(place.state(), Some(IntentState::Cleared));
            assert!(place.kinds().is_empty());
            assert!(!is_kept(&ledger, place), "{who:?}");
            let act = ledger.act(place.leaf);
            assert_eq!(act.state(), IntentState::Cleared);
            let key = who.key().map(|key| Bytes::copy_from_slice(key.as_bytes()));
            assert_eq!(act.key, key.unwrap_or_default());
        }
        assert_eq!(ledger.task(1).acts, 4);
        let summary = |ledger: &Ledger| {
            let mut replay = Replay::over(ledger.entries()).unwrap();
            replay.end().unwrap();
            replay.summary().intents
        };
        assert_eq!(summary(&ledger), [("cleared".to_owned(), 4)].into());

        for (place, who) in all.iter().zip([AGENT, ANYBODY, HELPER, HELPER]) {
            let done = outcome(place, OutcomeStatus::Succeeded, Vec::new());
            let done = ledger.say(who, Some(1), done);
            assert!(done.kinds().is_empty(), "{who:?}: {:?}", done.kinds());
            assert!(is_kept(&ledger, place));
            assert_eq!(ledger.act(place.leaf).state(), IntentState::Completed);
        }
        assert_eq!(summary(&ledger), [("completed".to_owned(), 4)].into());
    }
}

/// What follows from an entry is what would have been kept.
#[test]
fn it_is_the_same_act() {
    let mut ledger = opened(false);
    let implicit = ledger.say(AGENT, Some(1), nothing_asked());
    let Body::Intent(mut with_deadline) = nothing_asked() else {
        unreachable!()
    };
    with_deadline.deadline_us = seconds(500);
    let kept = ledger.say(AGENT, Some(1), Body::Intent(with_deadline));
    assert!(!is_kept(&ledger, &implicit) && is_kept(&ledger, &kept));
    let apart_from_the_entry = |place: &Place| Act {
        leaf: 0,
        leaf_hash: Bytes::new(),
        payload_digest: Bytes::new(),
        deadline_us: 0,
        ..ledger.act(place.leaf)
    };
    assert_eq!(apart_from_the_entry(&implicit), apart_from_the_entry(&kept));
    assert_eq!(
        ledger.act(implicit.leaf).leaf_hash,
        implicit.hash.as_bytes()[..]
    );
}

#[test]
fn whatever_is_asked_for_is_kept() {
    let said = |change: fn(&mut deed_proto::v1::Intent)| {
        let Body::Intent(mut said) = nothing_asked() else {
            unreachable!()
        };
        change(&mut said);
        Body::Intent(said)
    };
    let mut ledger = opened(false);
    let deadline = ledger.say(AGENT, Some(1), said(|said| said.deadline_us = seconds(500)));
    let grant = ledger.say(
        AGENT,
        Some(1),
        said(|said| said.grant = Bytes::from_static(&[7; 32])),
    );
    let unopened = ledger.say(AGENT, Some(2), nothing_asked());
    ledger.say(PLATFORM, Some(1), task_closed());
    let closed = ledger.say(AGENT, Some(1), nothing_asked());
    for (place, state) in [
        (deadline, IntentState::Cleared),
        (grant, IntentState::Denied),
        (unopened, IntentState::Denied),
        (closed, IntentState::Denied),
    ] {
        assert_eq!(place.state(), Some(state));
        assert!(is_kept(&ledger, &place));
    }
    let mut ledger = Ledger::new();
    ledger.set_default_policy();
    ledger.at(100);
    ledger.say(PLATFORM, Some(1), task_opened(RiskTier::Low, 0));
    let judged = ledger.say(AGENT, Some(1), nothing_asked());
    assert_eq!(judged.state(), Some(IntentState::Cleared));
    assert!(is_kept(&ledger, &judged));
}

#[test]
fn a_second_statement_for_a_place_is_no_act() {
    for forgets in [false, true] {
        let mut ledger = opened(forgets);
        let first = ledger.say(AGENT, Some(1), nothing_asked());
        let mut other = intent("orders/8", 0, None);
        other.amount = None;
        let second = ledger
            .equivocate(AGENT, &first, Some(1), Body::Intent(other))
            .unwrap();
        assert_eq!(second.kinds(), [FindingKind::Equivocation]);
        assert_eq!(ledger.kept.act(second.leaf), None);
        let now = ledger.now();
        let approved = ledger.say(APPROVER, Some(1), approval(&second, Verdict::Allow, now));
        assert_eq!(approved.kinds(), [FindingKind::ApprovalOfOtherIntent]);
        // Nor is a leaf that is none, or that is not there.
        for leaf in [0, approved.leaf, u64::MAX] {
            let mut nowhere = first.clone();
            nowhere.leaf = leaf;
            let said = ledger.say(APPROVER, Some(1), approval(&nowhere, Verdict::Allow, now));
            assert_eq!(said.kinds(), [FindingKind::ApprovalOfOtherIntent]);
        }
        let done = outcome(&first, OutcomeStatus::Succeeded, Vec::new());
        assert!(ledger.say(AGENT, Some(1), done).kinds().is_empty());
        Replay::over(ledger.entries()).unwrap();
    }
}
