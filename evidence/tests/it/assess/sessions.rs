//! Attacks by silence: what does not come any more, or comes too late.

use deed_proto::v1::{self, FindingKind as F, IntentState, RiskTier, Verdict, statement::Body};

use super::*;

/// The tail of a session is cut off: its promise is broken, and its Intent never completed.
#[test]
fn a_suppressed_tail_is_found() {
    let mut stage = Stage::new();
    let intent = stage.cleared(400);
    let promise = stage
        .ledger
        .try_say(AGENT, Some(1), heartbeat(1, 60), |_| {});
    let promise = promise.unwrap();
    assert!(stage.kinds().is_empty());
    stage.ledger.at(1_000);
    let leaf = stage.ledger.next_leaf();
    // Whatever comes next, from whomever, brings it up; in order of time.
    stage.ledger.say(
        ENGINE,
        None,
        Body::Heartbeat(v1::Heartbeat {
            last_sequence: 1,
            count: 2,
            next_within_us: 0,
        }),
    );
    assert_eq!(stage.kinds(), [F::SessionSilent, F::IntentOverdue]);
    let found = stage.found();
    assert_eq!(
        (found[0].leaf_index, found[0].about_leaf),
        (leaf, promise.leaf)
    );
    assert_eq!(
        (found[1].leaf_index, found[1].about_leaf),
        (leaf, intent.leaf)
    );
    assert_eq!(found[1].number, 1);
    // It is said once.
    stage.ledger.at(100_000);
    assert!(!stage.ledger.tick());
    stage.replays();
}

/// A promise binds until it is kept, and only the session itself keeps it.
#[test]
fn a_promise_is_kept_by_its_session() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    stage.ledger.say(AGENT, None, heartbeat(0, 60));
    stage.ledger.at(159);
    stage.intend(None, |_| {});
    stage.ledger.at(1_000);
    assert!(
        !stage.ledger.tick(),
        "it has spoken, and promised nothing more"
    );
    let beats = |sequence| {
        let mut beat = heartbeat(sequence, 60);
        if let Body::Heartbeat(beat) = &mut beat {
            beat.next_within_us = i64::MAX;
        }
        beat
    };
    // As far away as time goes: no overflow, and no end.
    stage.ledger.say(AGENT, None, beats(2));
    stage.ledger.at(10_000_000);
    assert!(!stage.ledger.tick());
    // Another session of the same agent does not keep it.
    stage.ledger.say(AGENT, None, heartbeat(3, 60));
    let elsewhere = |made: &mut v1::Statement| {
        made.sequence = 0;
        move_to_session(made, 0x77);
    };
    stage
        .ledger
        .try_say(AGENT, None, heartbeat(0, 0), elsewhere)
        .unwrap();
    stage.ledger.at(10_000_060);
    assert!(stage.ledger.tick());
    assert_eq!(stage.kinds(), [F::SessionSilent]);
    stage.replays();
}

/// Evidence that comes late does not clear, whatever is written when.
#[test]
fn a_deadline_is_the_first_moment_that_is_too_late() {
    for (at, wanted) in [(499, IntentState::Cleared), (500, IntentState::Lapsed)] {
        let mut stage = Stage::new();
        let intent = stage.waits(500);
        stage.decide(&intent, Verdict::Allow);
        stage.ledger.at(at);
        stage.approve(APPROVER, &intent, Verdict::Allow);
        assert_eq!(stage.state(&intent), wanted);
        stage.replays();
    }
}
