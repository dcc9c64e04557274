//! How tasks and grants move.

use super::*;

pub(super) fn task_stories() -> Vec<(Machine, S, E, Story)> {
    vec![
        (Machine::Task, S::New, E::Opened, |s| {
            let opened = s.open(RiskTier::Low);
            anew(Of::Task, opened.leaf)
        }),
        (Machine::Task, S::Open, E::Closed, |s| {
            s.open(RiskTier::Low);
            let then = at(s, Of::Task);
            then(s.close().leaf)
        }),
        (Machine::Task, S::Open, E::DeadlinePassed, |s| {
            s.ledger
                .say(PLATFORM, Some(1), task_opened(RiskTier::Low, 500));
            let then = at(s, Of::Task);
            then(s.tick(500))
        }),
        (Machine::Task, S::Closed, E::ReceiptWritten, |s| {
            s.open(RiskTier::Low);
            s.mark();
            let end = s.close().leaf;
            let from = state(&s.ledger, Of::Task, end);
            told(Of::Task, from, end + 1).also(closed(end))
        }),
    ]
}

/// A grant in the state that it begins in, and one that is spent.
fn pending(s: &mut Stage) -> Hash {
    s.open(RiskTier::Low);
    let root = s.root(|_| {});
    s.part(&root, |_| {}).hash
}

fn active(s: &mut Stage) -> Hash {
    s.open(RiskTier::Low);
    s.root(|_| {}).hash
}

fn exhausted(s: &mut Stage) -> Hash {
    s.open(RiskTier::Low);
    let root = s.root(|grant| grant.uses = 1);
    s.intend(Some(&root), |_| {});
    root.hash
}

fn times_out(s: &mut Stage, hash: Hash) -> Told {
    s.ledger.at(9_999);
    let then = at(s, Of::Grant(hash));
    s.ledger.at(10_000);
    then(s.ledger.next_leaf())
}

fn is_revoked(s: &mut Stage, hash: Hash) -> Told {
    let then = at(s, Of::Grant(hash));
    then(s.ledger.say(AUTHORITY, Some(1), revocation(hash)).leaf)
}

pub(super) fn ends_with_task(s: &mut Stage, of: Of) -> Told {
    let then = at(s, of);
    let end = s.close().leaf;
    then(end).also(closed(end))
}

pub(super) fn grant_stories() -> Vec<(Machine, S, E, Story)> {
    let of = |from, event, story: Story| (Machine::Grant, from, event, story);
    vec![
        of(S::New, E::Granted, |s| {
            s.open(RiskTier::Low);
            s.mark();
            let root = s.root(|_| {});
            anew(Of::Grant(root.hash), root.leaf)
        }),
        of(S::New, E::Delegated, |s| {
            s.open(RiskTier::Low);
            let root = s.root(|_| {});
            s.mark();
            let part = s.part(&root, |_| {});
            anew(Of::Grant(part.hash), part.leaf)
        }),
        of(S::New, E::Escalated, |s| {
            s.open(RiskTier::Low);
            let root = s.root(|_| {});
            s.mark();
            let part = s.part(&root, |grant| grant.resources = vec!["stock/*".into()]);
            anew(Of::Grant(part.hash), part.leaf).about(part.leaf, Some(root.leaf))
        }),
        of(S::Pending, E::Accepted, |s| {
            let part = pending(s);
            let then = at(s, Of::Grant(part));
            let accepted = s.ledger.say(HELPER, Some(1), accepted(part)).leaf;
            assert_eq!(s.ledger.grant(part).accepted_leaf, Some(accepted));
            then(accepted)
        }),
        of(S::Active, E::Spent, |s| {
            s.open(RiskTier::Low);
            let root = s.root(|grant| grant.uses = 1);
            let then = at(s, Of::Grant(root.hash));
            let leaf = s.intend(Some(&root), |_| {}).leaf;
            then(leaf).also(moved(leaf, leaf, IntentState::Cleared))
        }),
        of(S::Active, E::TimeOver, |s| {
            let hash = active(s);
            times_out(s, hash)
        }),
        of(S::Pending, E::TimeOver, |s| {
            let hash = pending(s);
            times_out(s, hash)
        }),
        of(S::Exhausted, E::TimeOver, |s| {
            let hash = exhausted(s);
            times_out(s, hash)
        }),
        of(S::Pending, E::Revoked, |s| {
            let hash = pending(s);
            is_revoked(s, hash)
        }),
        of(S::Active, E::Revoked, |s| {
            let hash = active(s);
            is_revoked(s, hash)
        }),
        of(S::Exhausted, E::Revoked, |s| {
            let hash = exhausted(s);
            is_revoked(s, hash)
        }),
        of(S::Pending, E::TaskEnded, |s| {
            let hash = pending(s);
            ends_with_task(s, Of::Grant(hash))
        }),
        of(S::Active, E::TaskEnded, |s| {
            let hash = active(s);
            ends_with_task(s, Of::Grant(hash))
        }),
        of(S::Exhausted, E::TaskEnded, |s| {
            let hash = exhausted(s);
            ends_with_task(s, Of::Grant(hash))
        }),
    ]
}
