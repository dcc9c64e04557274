//! The transition table: the moves of tasks, grants, Intents, Outcomes and sessions, and the findings
//! that come of them. Every move of a task, a grant, an Intent and an Outcome is looked up here,
//! and there is no other; that a receipt is written, a grant spent, and a session begun and closed are
//! rows for whoever reads the table. Tests walk all of them.
//!
//! Moves by time that nobody has to be told of at once (a grant that expires) are worked out when
//! somebody asks; their rows say so.

use deed_proto::v1::FindingKind;

/// A kind of state machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Machine {
    /// A task.
    Task,
    /// A grant.
    Grant,
    /// An Intent.
    Intent,
    /// An Outcome.
    Outcome,
    /// A session.
    Session,
}

/// A state. Not every machine has every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "as the states of assessment.proto say")]
pub enum State {
    New,
    Open,
    Closed,
    Receipted,
    Pending,
    Active,
    Exhausted,
    Expired,
    Revoked,
    TaskClosed,
    Invalid,
    Waiting,
    Cleared,
    Denied,
    Lapsed,
    Completed,
    Overdue,
    Unobserved,
    Corroborated,
    Contradicted,
    Uncorroborated,
    Running,
    Silent,
}

/// An event that moves a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// TaskOpened.
    Opened,
    /// TaskClosed.
    Closed,
    /// Its deadline has passed.
    DeadlinePassed,
    /// A TaskReceipt was written.
    ReceiptWritten,
    /// A root grant of an authority, or one that nobody signed.
    Granted,
    /// A grant within its parent.
    Delegated,
    /// A grant that is wider than its parent, or not its author's to give.
    Escalated,
    /// GrantAccepted by its subject.
    Accepted,
    /// The last use, or the last of the amount.
    Spent,
    /// Its expiry has come.
    TimeOver,
    /// Revocation of it, or of a grant above it.
    Revoked,
    /// Its task has ended.
    TaskEnded,
    /// Judged: everything that is asked is there.
    JudgedClear,
    /// Judged: something is missing that may still come.
    JudgedWait,
    /// Judged: no.
    JudgedNo,
    /// The evidence policy could not be evaluated.
    PolicyFailed,
    /// An approver refused.
    Refused,
    /// A policy engine denied.
    DecisionDenied,
    /// An Outcome of something that was done or tried.
    OutcomeDone,
    /// An Outcome that says that nothing was done.
    OutcomeNotDone,
    /// An independent Observation of all its effects, and of nothing else.
    ObservedSame,
    /// An independent Observation of something else.
    ObservedOther,
    /// A statement of the session.
    Spoke,
    /// SessionClosed.
    SessionClosed,
    /// The statement that a Heartbeat promised did not come.
    PromiseBroken,
}

/// The moment at which a transition takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    /// At the leaf of the statement.
    AtLeaf,
    /// At the first leaf whose effective time has reached the moment, before its statement.
    WhenDue,
    /// At the leaf of the entry that the ledger writes for it.
    AtLedgerEntry,
    /// Worked out from effective time when it is asked for.
    WhenAsked,
}

/// A transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The machine that moves.
    pub machine: Machine,
    /// Its state before.
    pub from: State,
    /// The event.
    pub event: Event,
    /// Its state afterwards.
    pub to: State,
    /// The finding that comes of it.
    pub finding: Option<FindingKind>,
    /// The moment at which it takes effect.
    pub time: Time,
}

const fn row(
    machine: Machine,
    from: State,
    event: Event,
    to: State,
    finding: Option<FindingKind>,
    time: Time,
) -> Transition {
    Transition {
        machine,
        from,
        event,
        to,
        finding,
        time,
    }
}

use Event as E;
use FindingKind as F;
use Machine::{Grant, Intent, Outcome, Session, Task};
use State as S;
use Time::{AtLeaf, AtLedgerEntry, WhenAsked, WhenDue};

/// The table.
#[rustfmt::skip]
pub static TRANSITIONS: &[Transition] = &[
    row(Task, S::New, E::Opened, S::Open, None, AtLeaf),
    row(Task, S::Open, E::Closed, S::Closed, None, AtLeaf),
    row(Task, S::Open, E::DeadlinePassed, S::Closed, None, WhenDue),
    row(Task, S::Closed, E::ReceiptWritten, S::Receipted, None, AtLedgerEntry),

    row(Grant, S::New, E::Granted, S::Active, None, AtLeaf),
    row(Grant, S::New, E::Delegated, S::Pending, None, AtLeaf),
    row(Grant, S::New, E::Escalated, S::Invalid, Some(F::DelegationEscalation), AtLeaf),
    row(Grant, S::Pending, E::Accepted, S::Active, None, AtLeaf),
    row(Grant, S::Active, E::Spent, S::Exhausted, None, AtLeaf),
    row(Grant, S::Active, E::TimeOver, S::Expired, None, WhenAsked),
    row(Grant, S::Pending, E::TimeOver, S::Expired, None, WhenAsked),
    row(Grant, S::Exhausted, E::TimeOver, S::Expired, None, WhenAsked),
    row(Grant, S::Pending, E::Revoked, S::Revoked, None, AtLeaf),
    row(Grant, S::Active, E::Revoked, S::Revoked, None, AtLeaf),
    row(Grant, S::Exhausted, E::Revoked, S::Revoked, None, AtLeaf),
    row(Grant, S::Pending, E::TaskEnded, S::TaskClosed, None, WhenAsked),
    row(Grant, S::Active, E::TaskEnded, S::TaskClosed, None, WhenAsked),
    row(Grant, S::Exhausted, E::TaskEnded, S::TaskClosed, None, WhenAsked),

    row(Intent, S::New, E::JudgedClear, S::Cleared, None, AtLeaf),
    row(Intent, S::New, E::JudgedWait, S::Waiting, None, AtLeaf),
    row(Intent, S::New, E::JudgedNo, S::Denied, None, AtLeaf),
    row(Intent, S::New, E::PolicyFailed, S::Denied, Some(F::PolicyError), AtLeaf),
    row(Intent, S::Waiting, E::JudgedClear, S::Cleared, None, AtLedgerEntry),
    row(Intent, S::Waiting, E::JudgedNo, S::Denied, None, AtLeaf),
    row(Intent, S::Waiting, E::PolicyFailed, S::Denied, Some(F::PolicyError), AtLeaf),
    row(Intent, S::Waiting, E::Refused, S::Denied, Some(F::DecisionDenied), AtLeaf),
    row(Intent, S::Waiting, E::DecisionDenied, S::Denied, Some(F::DecisionDenied), AtLeaf),
    row(Intent, S::Waiting, E::DeadlinePassed, S::Lapsed, Some(F::IntentLapsed), WhenDue),
    row(Intent, S::Waiting, E::TaskEnded, S::Lapsed, None, WhenAsked),
    row(Intent, S::Cleared, E::OutcomeDone, S::Completed, None, AtLeaf),
    row(Intent, S::Cleared, E::OutcomeNotDone, S::Completed, None, AtLeaf),
    row(Intent, S::Cleared, E::DeadlinePassed, S::Overdue, Some(F::IntentOverdue), WhenDue),
    row(Intent, S::Overdue, E::OutcomeDone, S::Completed, Some(F::OutcomeLate), AtLeaf),
    row(Intent, S::Overdue, E::OutcomeNotDone, S::Completed, Some(F::OutcomeLate), AtLeaf),
    row(Intent, S::Waiting, E::OutcomeDone, S::Waiting, Some(F::OutcomeWithoutClearance), AtLeaf),
    row(Intent, S::Denied, E::OutcomeDone, S::Denied, Some(F::OutcomeWithoutClearance), AtLeaf),
    row(Intent, S::Lapsed, E::OutcomeDone, S::Lapsed, Some(F::OutcomeWithoutClearance), AtLeaf),
    row(Intent, S::Waiting, E::OutcomeNotDone, S::Waiting, None, AtLeaf),
    row(Intent, S::Denied, E::OutcomeNotDone, S::Denied, None, AtLeaf),
    row(Intent, S::Lapsed, E::OutcomeNotDone, S::Lapsed, None, AtLeaf),

    row(Outcome, S::New, E::OutcomeDone, S::Unobserved, None, AtLeaf),
    row(Outcome, S::New, E::OutcomeNotDone, S::Unobserved, None, AtLeaf),
    row(Outcome, S::Unobserved, E::ObservedSame, S::Corroborated, None, AtLeaf),
    row(Outcome, S::Unobserved, E::ObservedOther, S::Contradicted, None, AtLeaf),
    row(Outcome, S::Unobserved, E::DeadlinePassed, S::Uncorroborated, Some(F::Uncorroborated), WhenDue),
    row(Outcome, S::Uncorroborated, E::ObservedSame, S::Corroborated, None, AtLeaf),
    row(Outcome, S::Uncorroborated, E::ObservedOther, S::Contradicted, None, AtLeaf),
    row(Outcome, S::Corroborated, E::ObservedOther, S::Contradicted, None, AtLeaf),

    row(Session, S::New, E::Spoke, S::Running, None, AtLeaf),
    row(Session, S::Running, E::PromiseBroken, S::Silent, Some(F::SessionSilent), WhenDue),
    row(Session, S::Silent, E::Spoke, S::Running, None, AtLeaf),
    row(Session, S::Running, E::SessionClosed, S::Closed, None, AtLeaf),
];

const MACHINES: usize = Machine::Session as usize + 1;
const STATES: usize = State::Silent as usize + 1;
const EVENTS: usize = Event::PromiseBroken as usize + 1;

/// For each move the number of its row, counted from 1; 0 for none.
static INDEX: [[[u8; EVENTS]; STATES]; MACHINES] = index();

const fn index() -> [[[u8; EVENTS]; STATES]; MACHINES] {
    let mut index = [[[0; EVENTS]; STATES]; MACHINES];
    let mut at = 0;
    while at < TRANSITIONS.len() {
        let row = &TRANSITIONS[at];
        at += 1;
        assert!(at <= u8::MAX as usize, "rows are numbered by bytes");
        index[row.machine as usize][row.from as usize][row.event as usize] = at as u8;
    }
    index
}

/// The transition of a machine in state `from` by an event; `None` if nothing moves.
#[must_use]
pub fn find(machine: Machine, from: State, event: Event) -> Option<&'static Transition> {
    let number = INDEX[machine as usize][from as usize][event as usize];
    usize::from(number)
        .checked_sub(1)
        .map(|at| &TRANSITIONS[at])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_move_has_one_row() {
        let mut seen = HashSet::new();
        for row in TRANSITIONS {
            assert!(seen.insert((row.machine, row.from, row.event)), "{row:?}");
            assert_eq!(find(row.machine, row.from, row.event), Some(row));
        }
        assert_eq!(find(Machine::Task, State::Closed, Event::Opened), None);
    }

    #[test]
    fn every_state_can_be_reached_and_nothing_begins_anew() {
        for row in TRANSITIONS {
            assert_ne!(row.to, State::New);
            let reached = |state| {
                state == State::New
                    || TRANSITIONS
                        .iter()
                        .any(|r| r.machine == row.machine && r.to == state)
            };
            assert!(reached(row.from), "{row:?}");
        }
    }
}
