//! Every row of the transition table happens, as it says and when it says.

mod grants;
mod intents;
mod outcomes;

use std::collections::HashSet;

use deed_evidence::{
    assess::{
        digest, finding, layers, state_at,
        table::{Event as E, Machine, State as S, TRANSITIONS, Time, Transition},
    },
    entry::Entry,
    statement::{self, LEDGER_PRODUCER},
};
use deed_proto::v1::{
    self, FindingKind, GrantState, IntentState, OutcomeState, OutcomeStatus, RiskTier, TaskState,
    Verdict, statement::Body,
};
use deed_tlog::Hash;

use super::*;

/// What moved.
#[derive(Debug, Clone, Copy)]
enum Of {
    Task,
    Grant(Hash),
    Intent(u64),
    Outcome(u64),
    Session(Who),
}

/// What a story came to.
struct Told {
    of: Of,
    /// Where it stood before.
    from: S,
    /// The leaf at which it moved.
    leaf: u64,
    /// Of the row's finding.
    about: u64,
    contradicts: Option<u64>,
    /// Other moves in the same unit, and findings that are not the row's.
    also: Vec<digest::Event>,
    others: Vec<FindingKind>,
}

impl Told {
    fn about(mut self, leaf: u64, contradicts: Option<u64>) -> Self {
        (self.about, self.contradicts) = (leaf, contradicts);
        self
    }

    fn also(mut self, event: digest::Event) -> Self {
        self.also.push(event);
        self
    }
}

/// Where something stands; a task as of a leaf, because its receipt follows at once.
fn state(ledger: &Ledger, of: Of, leaf: u64) -> S {
    match of {
        Of::Task => {
            let task = ledger.task(1);
            match task.state() {
                TaskState::Unspecified => S::New,
                TaskState::Open => S::Open,
                TaskState::Closed if task.receipt_leaf.is_some_and(|at| at <= leaf) => S::Receipted,
                TaskState::Closed => S::Closed,
            }
        }
        Of::Grant(hash) => {
            let closed = ledger.task(1).state() == TaskState::Closed;
            match state_at(&ledger.grant(hash), closed, ledger.now()) {
                GrantState::Unspecified => S::New,
                GrantState::Pending => S::Pending,
                GrantState::Active => S::Active,
                GrantState::Exhausted => S::Exhausted,
                GrantState::Expired => S::Expired,
                GrantState::Revoked => S::Revoked,
                GrantState::TaskClosed => S::TaskClosed,
                GrantState::Invalid => S::Invalid,
            }
        }
        Of::Intent(leaf) => match layers::standing(&ledger.act(leaf), Some(&ledger.task(1))) {
            IntentState::Unspecified => S::New,
            IntentState::Waiting => S::Waiting,
            IntentState::Cleared => S::Cleared,
            IntentState::Denied => S::Denied,
            IntentState::Lapsed => S::Lapsed,
            IntentState::Completed => S::Completed,
            IntentState::Overdue => S::Overdue,
        },
        Of::Outcome(leaf) => match ledger.act(leaf).outcome.map(|outcome| outcome.state()) {
            None | Some(OutcomeState::Unspecified) => S::New,
            Some(OutcomeState::Unobserved) => S::Unobserved,
            Some(OutcomeState::Corroborated) => S::Corroborated,
            Some(OutcomeState::Contradicted) => S::Contradicted,
            Some(OutcomeState::Uncorroborated) => S::Uncorroborated,
        },
        Of::Session(who) => match ledger.session(who) {
            None => S::New,
            Some(session) if session.closed => S::Closed,
            Some(session) => {
                let last = deed_evidence::Sequence::new(session.next.get() - 1);
                let last = ledger.kept.places[&(who.session(), last)];
                let silent = |finding: &v1::Finding| {
                    finding.kind() == FindingKind::SessionSilent && finding.about_leaf == last
                };
                if ledger.findings().any(silent) {
                    S::Silent
                } else {
                    S::Running
                }
            }
        },
    }
}

/// What is told of a state: it stands there now, and moves next.
fn at(stage: &mut Stage, of: Of) -> impl FnOnce(u64) -> Told + use<> {
    stage.mark();
    let from = state(&stage.ledger, of, stage.ledger.next_leaf());
    move |leaf| told(of, from, leaf)
}

/// The same of what is not there yet.
fn anew(of: Of, leaf: u64) -> Told {
    told(of, S::New, leaf)
}

fn told(of: Of, from: S, leaf: u64) -> Told {
    Told {
        of,
        from,
        leaf,
        about: leaf,
        contradicts: None,
        also: Vec::new(),
        others: Vec::new(),
    }
}

fn moved(leaf: u64, intent: u64, state: IntentState) -> digest::Event {
    digest::Event::Intent {
        leaf,
        intent,
        state,
    }
}

fn unobserved(leaf: u64, intent: u64) -> digest::Event {
    let state = OutcomeState::Unobserved;
    digest::Event::Outcome {
        leaf,
        intent,
        state,
    }
}

fn closed(leaf: u64) -> digest::Event {
    let state = TaskState::Closed;
    digest::Event::Task { leaf, state }
}

type Story = fn(&mut Stage) -> Told;

fn stories() -> Vec<(Machine, S, E, Story)> {
    let mut all = grants::task_stories();
    all.extend(grants::grant_stories());
    all.extend(intents::stories());
    all.extend(outcomes::stories());
    all.extend(outcomes::session_stories());
    all
}

#[test]
fn every_row_has_a_story_and_every_story_a_row() {
    let told: Vec<_> = stories()
        .into_iter()
        .map(|(a, b, c, _)| (a, b, c))
        .collect();
    let rows: HashSet<_> = TRANSITIONS
        .iter()
        .map(|row| (row.machine, row.from, row.event))
        .collect();
    let once: HashSet<_> = told.iter().copied().collect();
    assert_eq!(once.len(), told.len(), "a story is told twice");
    let untold: Vec<_> = rows.difference(&once).collect();
    assert!(untold.is_empty(), "rows without a story: {untold:?}");
    let unfounded: Vec<_> = once.difference(&rows).collect();
    assert!(unfounded.is_empty(), "stories without a row: {unfounded:?}");
}

#[test]
fn every_row_happens_as_it_says() {
    for (thing, from, event, story) in stories() {
        let row = TRANSITIONS
            .iter()
            .find(|row| (row.machine, row.from, row.event) == (thing, from, event))
            .unwrap();
        let mut stage = Stage::new();
        check(row, &mut stage, story);
        stage.replays();
        // An assessor that forgets everything between two units comes to the same.
        let mut again = Stage::of(Ledger::forgetting());
        check(row, &mut again, story);
        assert_eq!(again.ledger.kept, stage.ledger.kept, "{row:?}");
        assert_eq!(again.ledger.entries(), stage.ledger.entries(), "{row:?}");
    }
}

fn check(row: &Transition, stage: &mut Stage, story: Story) {
    let told = story(stage);
    let ledger = &stage.ledger;
    assert_eq!(told.from, row.from, "{row:?}");
    assert_eq!(state(ledger, told.of, told.leaf), row.to, "{row:?}");

    let found = stage.found();
    let mut wanted: Vec<_> = row.finding.into_iter().collect();
    wanted.extend(&told.others);
    assert_eq!(stage.kinds(), wanted, "{row:?}");
    for one in &found {
        assert_eq!(one.leaf_index, told.leaf, "{row:?}");
        assert_eq!(one.severity(), finding::severity(one.kind()), "{row:?}");
    }
    if row.finding.is_some() {
        let (about, contradicts) = (found[0].about_leaf, found[0].contradicts_leaf);
        assert_eq!(
            (about, contradicts),
            (told.about, told.contradicts),
            "{row:?}"
        );
    }
    check_time(row, stage, &told);

    // The task's digest has taken exactly these moves and findings, at these leaves.
    let mut events = told.also.clone();
    let in_task = found.iter().filter(|finding| !finding.task.is_empty());
    events.extend(in_task.map(found_event));
    if row.from != row.to && row.time != Time::WhenAsked {
        events.extend(own_move(&told, row.to));
    }
    let before = digest_in(&stage.cells, stage.ledger.task_id(1));
    let after = stage.digest(1);
    let fits = orders(&events)
        .into_iter()
        .any(|order| fold(before, order) == after);
    assert!(
        fits,
        "{row:?}: the digest has taken something else than {events:?}"
    );
}

fn check_time(row: &Transition, stage: &Stage, told: &Told) {
    let leaf = usize::try_from(told.leaf).unwrap();
    let by_ledger = stage.ledger.entries().get(leaf).map(|entry| {
        let entry = Entry::parse(entry).unwrap();
        statement::parse(entry.payload).unwrap().producer == LEDGER_PRODUCER
    });
    match row.time {
        Time::AtLeaf => assert_eq!(by_ledger, Some(false), "{row:?}"),
        // Stories let time pass with a Tick.
        Time::WhenDue | Time::AtLedgerEntry => assert_eq!(by_ledger, Some(true), "{row:?}"),
        Time::WhenAsked => {
            let key = match told.of {
                Of::Grant(hash) => CellKey::Grant(hash),
                Of::Intent(leaf) => CellKey::Act(leaf),
                of => unreachable!("{of:?}"),
            };
            let kept = &stage.ledger.kept.cells;
            assert_eq!(kept[&key], stage.cells[&key], "{row:?}");
        }
    }
}

/// What a task's digest takes for the move itself.
fn own_move(told: &Told, to: S) -> Option<digest::Event> {
    let leaf = told.leaf;
    match told.of {
        Of::Task => {
            let state = match to {
                S::Open => TaskState::Open,
                S::Closed => TaskState::Closed,
                _ => return None,
            };
            Some(digest::Event::Task { leaf, state })
        }
        Of::Intent(intent) => {
            let state = match to {
                S::Waiting => IntentState::Waiting,
                S::Cleared => IntentState::Cleared,
                S::Denied => IntentState::Denied,
                S::Lapsed => IntentState::Lapsed,
                S::Completed => IntentState::Completed,
                S::Overdue => IntentState::Overdue,
                _ => return None,
            };
            Some(moved(leaf, intent, state))
        }
        Of::Outcome(intent) => {
            let state = match to {
                S::Unobserved => OutcomeState::Unobserved,
                S::Corroborated => OutcomeState::Corroborated,
                S::Contradicted => OutcomeState::Contradicted,
                S::Uncorroborated => OutcomeState::Uncorroborated,
                _ => return None,
            };
            Some(digest::Event::Outcome {
                leaf,
                intent,
                state,
            })
        }
        Of::Grant(_) | Of::Session(_) => None,
    }
}

fn orders(events: &[digest::Event]) -> Vec<Vec<digest::Event>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..events.len() {
        let mut rest = events.to_vec();
        let first = rest.remove(at);
        for mut order in orders(&rest) {
            order.insert(0, first);
            all.push(order);
        }
    }
    all
}

/// What is due fires before the next statement, whatever that is, at its leaf.
#[test]
fn what_is_due_fires_before_the_next_statement() {
    let mut stage = Stage::new();
    let intent = stage.waits(500);
    stage.ledger.at(500);
    let late = stage.decide(&intent, Verdict::Allow);
    assert_eq!(stage.kinds(), [FindingKind::IntentLapsed]);
    assert_eq!(stage.found()[0].leaf_index, late.leaf);
    assert_eq!(stage.state(&intent), IntentState::Lapsed);
    assert!(
        late.assessed.findings.is_empty(),
        "it is not its own finding"
    );
    stage.replays();
}
