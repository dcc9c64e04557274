//! How Outcomes and sessions move.

use super::*;

/// Another system sees the act's Outcome.
fn sees(s: &mut Stage, intent: &Place, minor_units: i64) -> Told {
    let then = at(s, Of::Outcome(intent.leaf));
    let mut told = then(s.seen(intent, minor_units).leaf);
    if minor_units != 500 {
        told.others.push(FindingKind::EffectMismatch);
    }
    told
}

fn unconfirmed(s: &mut Stage) -> Place {
    let intent = s.cleared(0);
    s.done(&intent);
    intent
}

/// Nobody confirmed it within a day.
fn uncorroborated(s: &mut Stage) -> Place {
    let intent = unconfirmed(s);
    s.tick(100 + 86_400);
    intent
}

pub(super) fn stories() -> Vec<(Machine, S, E, Story)> {
    let of = |from, event, story: Story| (Machine::Outcome, from, event, story);
    fn begins(s: &mut Stage, status: OutcomeStatus) -> Told {
        let intent = s.cleared(0);
        let then = at(s, Of::Outcome(intent.leaf));
        let leaf = s.outcome(&intent, status).leaf;
        then(leaf).also(moved(leaf, intent.leaf, IntentState::Completed))
    }
    vec![
        of(S::New, E::OutcomeDone, |s| {
            begins(s, OutcomeStatus::Succeeded)
        }),
        of(S::New, E::OutcomeNotDone, |s| {
            begins(s, OutcomeStatus::NotDone)
        }),
        of(S::Unobserved, E::ObservedSame, |s| {
            let intent = unconfirmed(s);
            sees(s, &intent, 500)
        }),
        of(S::Unobserved, E::ObservedOther, |s| {
            let intent = unconfirmed(s);
            sees(s, &intent, 501)
        }),
        of(S::Unobserved, E::DeadlinePassed, |s| {
            let intent = s.cleared(0);
            let outcome = s.done(&intent);
            let then = at(s, Of::Outcome(intent.leaf));
            then(s.tick(100 + 86_400)).about(intent.leaf, Some(outcome.leaf))
        }),
        of(S::Uncorroborated, E::ObservedSame, |s| {
            let intent = uncorroborated(s);
            sees(s, &intent, 500)
        }),
        of(S::Uncorroborated, E::ObservedOther, |s| {
            let intent = uncorroborated(s);
            sees(s, &intent, 501)
        }),
        of(S::Corroborated, E::ObservedOther, |s| {
            let intent = unconfirmed(s);
            s.seen(&intent, 500);
            // The same once more: it was declared once.
            let then = at(s, Of::Outcome(intent.leaf));
            let mut told = then(s.seen(&intent, 500).leaf);
            told.others.push(FindingKind::HiddenSideEffect);
            told
        }),
    ]
}

pub(super) fn session_stories() -> Vec<(Machine, S, E, Story)> {
    let of = |from, event, story: Story| (Machine::Session, from, event, story);
    vec![
        of(S::New, E::Spoke, |s| {
            let then = at(s, Of::Session(AGENT));
            then(s.ledger.say(AGENT, None, heartbeat(0, 60)).leaf)
        }),
        of(S::Running, E::PromiseBroken, |s| {
            let promise = s.ledger.say(AGENT, None, heartbeat(0, 60));
            let then = at(s, Of::Session(AGENT));
            then(s.tick(160)).about(promise.leaf, None)
        }),
        of(S::Silent, E::Spoke, |s| {
            s.ledger.say(AGENT, None, heartbeat(0, 60));
            s.tick(160);
            let then = at(s, Of::Session(AGENT));
            then(s.ledger.say(AGENT, None, heartbeat(1, 60)).leaf)
        }),
        of(S::Running, E::SessionClosed, |s| {
            s.ledger.say(AGENT, None, heartbeat(0, 60));
            let then = at(s, Of::Session(AGENT));
            let (last_sequence, count) = (1, 2);
            let end = Body::SessionClosed(v1::SessionClosed {
                last_sequence,
                count,
            });
            let told = then(s.ledger.say(AGENT, None, end).leaf);
            // It has promised nothing any more.
            s.ledger.at(1_000);
            assert!(!s.ledger.tick());
            told
        }),
    ]
}
