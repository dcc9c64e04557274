//! How Intents move.

use super::{grants::ends_with_task, *};

/// An Intent that the policy denies because it names no grant.
fn denied(s: &mut Stage) -> Place {
    s.ledger.set_default_policy();
    s.open(RiskTier::Payment);
    let intent = s.intend(None, |_| {});
    assert_eq!(intent.state(), Some(IntentState::Denied));
    intent
}

/// An Intent that waited in vain.
fn lapsed(s: &mut Stage) -> Place {
    let intent = s.waits(500);
    s.tick(500);
    intent
}

fn overdue(s: &mut Stage) -> Place {
    let intent = s.cleared(500);
    s.tick(500);
    intent
}

/// An Outcome comes, and the Intent moves or not.
fn comes(s: &mut Stage, intent: &Place, status: OutcomeStatus) -> Told {
    let then = at(s, Of::Intent(intent.leaf));
    let leaf = s.outcome(intent, status).leaf;
    let told = then(leaf).about(intent.leaf, Some(leaf));
    told.also(unobserved(leaf, intent.leaf))
}

pub(super) fn stories() -> Vec<(Machine, S, E, Story)> {
    const DONE: OutcomeStatus = OutcomeStatus::Succeeded;
    const NOT: OutcomeStatus = OutcomeStatus::NotDone;
    let of = |from, event, story: Story| (Machine::Intent, from, event, story);
    vec![
        of(S::New, E::JudgedClear, |s| {
            s.ledger.set_default_policy();
            s.open(RiskTier::Low);
            s.mark();
            let leaf = s.intend(None, |_| {}).leaf;
            anew(Of::Intent(leaf), leaf)
        }),
        of(S::New, E::JudgedWait, |s| {
            s.ledger.set_default_policy();
            s.open(RiskTier::Payment);
            let root = s.root(|_| {});
            s.mark();
            let leaf = s.intend(Some(&root), |_| {}).leaf;
            anew(Of::Intent(leaf), leaf)
        }),
        of(S::New, E::JudgedNo, |s| {
            s.ledger.set_default_policy();
            s.open(RiskTier::Payment);
            s.mark();
            let leaf = s.intend(None, |_| {}).leaf;
            anew(Of::Intent(leaf), leaf)
        }),
        of(S::New, E::PolicyFailed, |s| {
            let policy = s.ledger.set_policy(FAILS);
            s.open(RiskTier::Low);
            s.mark();
            let leaf = s.intend(None, |_| {}).leaf;
            anew(Of::Intent(leaf), leaf).about(leaf, Some(policy.leaf))
        }),
        of(S::Waiting, E::JudgedClear, |s| {
            let intent = s.waits(0);
            s.decide(&intent, Verdict::Allow);
            let then = at(s, Of::Intent(intent.leaf));
            let approved = s.approve(APPROVER, &intent, Verdict::Allow);
            let clearance = s.ledger.act(intent.leaf).clearance_leaf;
            assert_eq!(clearance, Some(approved.leaf + 1));
            then(approved.leaf + 1)
        }),
        of(S::Waiting, E::JudgedNo, |s| {
            let intent = s.waits(0);
            s.ledger.set_policy(NOTHING);
            let then = at(s, Of::Intent(intent.leaf));
            then(s.decide(&intent, Verdict::Allow).leaf)
        }),
        of(S::Waiting, E::PolicyFailed, |s| {
            let intent = s.waits(0);
            let policy = s.ledger.set_policy(FAILS);
            let then = at(s, Of::Intent(intent.leaf));
            let leaf = s.decide(&intent, Verdict::Allow).leaf;
            then(leaf).about(intent.leaf, Some(policy.leaf))
        }),
        of(S::Waiting, E::Refused, |s| {
            let intent = s.waits(0);
            let then = at(s, Of::Intent(intent.leaf));
            let leaf = s.approve(APPROVER, &intent, Verdict::Deny).leaf;
            then(leaf).about(intent.leaf, Some(leaf))
        }),
        of(S::Waiting, E::DecisionDenied, |s| {
            let intent = s.waits(0);
            let then = at(s, Of::Intent(intent.leaf));
            let leaf = s.decide(&intent, Verdict::Deny).leaf;
            then(leaf).about(intent.leaf, Some(leaf))
        }),
        of(S::Waiting, E::DeadlinePassed, |s| {
            let intent = s.waits(500);
            let then = at(s, Of::Intent(intent.leaf));
            then(s.tick(500)).about(intent.leaf, None)
        }),
        of(S::Waiting, E::TaskEnded, |s| {
            let intent = s.waits(0);
            ends_with_task(s, Of::Intent(intent.leaf))
        }),
        of(S::Cleared, E::OutcomeDone, |s| {
            let intent = s.cleared(0);
            comes(s, &intent, DONE)
        }),
        of(S::Cleared, E::OutcomeNotDone, |s| {
            let intent = s.cleared(0);
            comes(s, &intent, NOT)
        }),
        of(S::Cleared, E::DeadlinePassed, |s| {
            let intent = s.cleared(500);
            let then = at(s, Of::Intent(intent.leaf));
            then(s.tick(500)).about(intent.leaf, None)
        }),
        of(S::Overdue, E::OutcomeDone, |s| {
            let intent = overdue(s);
            comes(s, &intent, DONE)
        }),
        of(S::Overdue, E::OutcomeNotDone, |s| {
            let intent = overdue(s);
            comes(s, &intent, NOT)
        }),
        of(S::Waiting, E::OutcomeDone, |s| {
            let intent = s.waits(0);
            comes(s, &intent, DONE)
        }),
        of(S::Denied, E::OutcomeDone, |s| {
            let intent = denied(s);
            comes(s, &intent, DONE)
        }),
        of(S::Lapsed, E::OutcomeDone, |s| {
            let intent = lapsed(s);
            comes(s, &intent, DONE)
        }),
        of(S::Waiting, E::OutcomeNotDone, |s| {
            let intent = s.waits(0);
            comes(s, &intent, NOT)
        }),
        of(S::Denied, E::OutcomeNotDone, |s| {
            let intent = denied(s);
            comes(s, &intent, NOT)
        }),
        of(S::Lapsed, E::OutcomeNotDone, |s| {
            let intent = lapsed(s);
            comes(s, &intent, NOT)
        }),
    ]
}
