//! Time: timers that fire in portions, whose they are, and clocks that an operator confirms.

use std::collections::BTreeMap;

use bytes::Bytes;
use deed_evidence::{
    Micros,
    assess::{
        FIRE_MAX, Owner, TIMERS_MAX,
        cells::{CellKey, Clock, Promise, TimerCount},
        share, share_unsigned,
    },
    entry::Entry,
    replay::{Fault, Replay},
};
use deed_proto::v1::{self, FindingKind as F, RiskTier, statement::Body};
use prost::Message as _;

use super::*;
use crate::one_task::Given;

/// Intents of the agent, each with a deadline of its own: every second one at the same time.
fn intents_until(stage: &mut Stage, count: usize) -> Vec<Place> {
    let bodies = |from: usize, to: usize| -> Vec<_> {
        let one = |n: usize| {
            let until = if n.is_multiple_of(2) {
                200
            } else {
                201 + i64::try_from(n).unwrap()
            };
            let said = v1::Intent {
                deadline_us: seconds(until),
                ..intent("orders/7", 500, None)
            };
            (Some(1), Body::Intent(said))
        };
        (from..to).map(one).collect()
    };
    let mut places = Vec::new();
    while places.len() < count {
        let to = count.min(places.len() + 200);
        places.extend(stage.ledger.say_batch(AGENT, bodies(places.len(), to)));
    }
    places
}

fn cell<T: prost::Message + Default>(stage: &Stage, key: &CellKey) -> T {
    let bytes = stage.ledger.kept.cells.get(key);
    bytes.map_or_else(T::default, |bytes| T::decode(bytes.clone()).unwrap())
}

fn held(stage: &Stage, owner: Owner) -> u64 {
    cell::<TimerCount>(stage, &CellKey::Timers(owner)).held
}

fn ticks(stage: &Stage) -> Vec<v1::Tick> {
    let entries = stage.ledger.entries().iter();
    let bodies = entries.filter_map(|bytes| {
        let entry = Entry::parse(bytes).unwrap();
        v1::Statement::decode(entry.payload).ok()?.body
    });
    let ticks = bodies.filter_map(|body| match body {
        Body::Tick(tick) => Some(tick),
        _ => None,
    });
    ticks.collect()
}

/// What is due fires in portions, each in front of an entry of its own; all of it before the statement
/// that time has come with; and the entries alone say so.
#[test]
fn timers_fire_in_portions_that_the_entries_tell() {
    for forgets in [false, true] {
        let ledger = if forgets {
            Ledger::forgetting()
        } else {
            Ledger::new()
        };
        let mut stage = Stage::of(ledger);
        stage.open(RiskTier::Low);
        let places = intents_until(&mut stage, 700);
        assert_eq!(held(&stage, Owner::ALL), 700);
        stage.mark();
        stage.ledger.at(2_000);
        let first = stage.ledger.next_leaf();
        stage.intend(None, |_| {});
        // 256 and 256 with a Tick, the others in front of the statement.
        assert_eq!(stage.ledger.next_leaf(), first + 3);
        let found = stage.found();
        let leaves = found.iter().map(|one| one.leaf_index - first);
        let leaves: Vec<_> = leaves.collect();
        let wanted = [
            [0; FIRE_MAX].as_slice(),
            &[1; FIRE_MAX],
            &[2; 700 - 2 * FIRE_MAX],
        ]
        .concat();
        assert_eq!(leaves, wanted);
        // In order of their deadlines, and then of leaves.
        let about: Vec<_> = found.iter().map(|one| one.about_leaf).collect();
        let (even, odd): (Vec<_>, Vec<_>) = (0..700).partition(|n: &usize| n.is_multiple_of(2));
        let wanted = even.iter().chain(&odd).map(|n: &usize| places[*n].leaf);
        assert_eq!(about, wanted.collect::<Vec<_>>());
        assert!(found.iter().all(|one| one.kind() == F::IntentOverdue));
        assert_eq!(held(&stage, Owner::ALL), 0);
        stage.replays();
    }
}

/// A ledger that lets a statement pass before all that is due has fired is caught.
#[test]
fn a_portion_that_is_left_out_is_noticed() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    intents_until(&mut stage, FIRE_MAX + 1);
    let honest = stage.ledger.next_leaf();
    stage.ledger.at(2_000);
    stage.intend(None, |_| {});
    let entries = stage.ledger.entries();
    let mut without: Vec<Bytes> = entries.to_vec();
    let tick = Entry::parse(&without[honest as usize]).unwrap();
    assert_eq!(tick.statement().unwrap().body.name(), "tick");
    without.remove(honest as usize);
    let error = Replay::over(&without).unwrap_err();
    assert_eq!(error.leaf, honest);
    assert!(
        matches!(*error.fault, Fault::LeftOut { body: "tick" }),
        "{error}"
    );
}

/// A reader of one task has no Ticks, and comes to the same.
#[test]
fn one_task_is_judged_alike_where_its_timers_fired_in_portions() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let places = intents_until(&mut stage, 600);
    stage.ledger.at(2_000);
    stage.ledger.tick();
    stage.close();
    let given = Given::over(stage.ledger.entries(), PLATFORM.task_id(1));
    let verdict = given.judge().unwrap();
    assert_eq!(verdict.acts.len(), 600);
    let states: BTreeMap<_, _> = verdict
        .acts
        .iter()
        .map(|act| (act.intent_leaf, act.state()))
        .collect();
    for place in &places {
        assert_eq!(states[&place.leaf], stage.state(place));
    }
    let kinds = verdict.findings.iter().map(v1::Finding::kind);
    assert_eq!(kinds.filter(|kind| *kind == F::IntentOverdue).count(), 600);
}

/// Timers are counted by controller, and given back.
#[test]
fn timers_have_owners() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.deadline_us = seconds(500));
    stage.ledger.say(AGENT, None, heartbeat(1, 60));
    assert_eq!(held(&stage, Owner::ALL), 2);
    let owners: Vec<_> = stage.ledger.kept.timers.values().copied().collect();
    assert_eq!(owners[0], owners[1]);
    assert_eq!(held(&stage, owners[0]), 2);
    // Nobody signs: each producer is an owner, and all of them are counted together.
    let unsigned = v1::Intent {
        deadline_us: seconds(700),
        ..crate::ledger::intent("orders/8", 500, None)
    };
    let other = Who {
        producer: "https://example.org/another",
        ..ANYBODY
    };
    for who in [ANYBODY, ANYBODY, other] {
        let said = Body::Intent(unsigned.clone());
        stage.ledger.say(who, Some(1), said);
    }
    let of = |who: Who| Owner::producer(who.producer);
    assert_eq!((held(&stage, of(ANYBODY)), held(&stage, of(other))), (2, 1));
    assert_eq!(held(&stage, Owner::UNSIGNED), 3);
    stage.done(&intent);
    // The Outcome is the session's next statement, too.
    assert_eq!(held(&stage, owners[0]), 0);
    assert_eq!(held(&stage, Owner::ALL), 3);
    stage.ledger.at(1_000);
    stage.ledger.tick();
    for owner in [of(ANYBODY), of(other), Owner::UNSIGNED, Owner::ALL] {
        assert_eq!(held(&stage, owner), 0);
    }
    // Nobody takes a controller's room by its name.
    assert_ne!(
        Owner::producer("https://a.example"),
        Owner::controller("https://a.example")
    );
    stage.replays();
}

/// What the policy wants seen of an Outcome is not its speaker's choice: the timer is charged to nobody.
#[test]
fn timers_of_outcomes_are_charged_to_nobody() {
    let mut stage = Stage::new();
    stage
        .ledger
        .set_policy("@corroborate(\"60\") permit (principal, action, resource) when { true };");
    stage.open(RiskTier::Low);
    let timers = |stage: &Stage| cell::<TimerCount>(stage, &CellKey::Timers(Owner::ALL));
    for _ in 0..2 {
        let intent = stage.intend(None, |_| {});
        stage.done(&intent);
    }
    assert_eq!((timers(&stage).held, timers(&stage).uncharged), (2, 2));
    let owners: Vec<_> = stage.ledger.kept.timers.values().copied().collect();
    assert_eq!(owners, [Owner::ALL; 2]);
    assert_eq!(held(&stage, Owner::controller(AGENT.controller)), 0);
    // They leave all the room that there was.
    let (trust, kept) = (stage.ledger.trust.clone(), &mut stage.ledger.kept);
    let room = stage
        .ledger
        .assessor
        .timers_of(kept, &trust, AGENT.producer, AGENT.key());
    assert_eq!(room, Ok((0, share(0))));
    stage.ledger.at(1_000);
    stage.ledger.tick();
    assert_eq!((timers(&stage).held, timers(&stage).uncharged), (0, 0));
    stage.replays();
}

/// One alone may hold a fifth, and whoever comes next always finds room.
#[test]
fn a_share_leaves_room_for_others() {
    let fills = |owners: u64| {
        let mut held = vec![0_u64; owners as usize];
        loop {
            let all = held.iter().sum();
            let share = share(all);
            let before = all;
            for one in &mut held {
                *one = (*one).max(share.min(*one + 4096));
            }
            if held.iter().sum::<u64>() == before {
                return held;
            }
        }
    };
    let alone = fills(1)[0];
    assert!(alone <= TIMERS_MAX / 5 + 4096, "{alone}");
    for owners in [2, 16] {
        let held = fills(owners);
        assert!(share(held.iter().sum()) > 4096, "{held:?}");
    }
}

/// A producer that does not sign leaves room for the next ones. Names cost it nothing, so under very many
/// it can use up what is theirs; but however many there are, all of them together leave controllers as much
/// as one controller does.
#[test]
fn unsigned_producers_share_one_share() {
    for producers in [1, 8, 1_000] {
        let mut all = 0;
        for _ in 0..producers {
            let mut held = 0;
            while held + 16 <= share_unsigned(all, all) {
                held += 16;
                all += 16;
            }
        }
        assert!(all <= TIMERS_MAX / 5, "{all} of {producers}");
        let room = share_unsigned(all, all);
        assert!(producers > 8 || room > 1_000, "{room} of {producers}");
        assert!(share(all) >= TIMERS_MAX / 5, "{all} of {producers}");
    }
    assert_eq!(share_unsigned(TIMERS_MAX, 0), 0);
}

/// A promise is kept or broken also where everything was forgotten since it was given.
#[test]
fn promises_are_kept_on_record() {
    let mut stage = Stage::of(Ledger::forgetting());
    stage.open(RiskTier::Low);
    let promise = stage.ledger.say(AGENT, None, heartbeat(0, 60));
    let key = CellKey::Promise(promise.session);
    let given: Promise = cell(&stage, &key);
    assert_eq!(given.leaf, promise.leaf);
    assert_eq!(given.at_us, seconds(160));
    stage.intend(None, |_| {});
    assert_eq!(cell::<Promise>(&stage, &key), Promise::default());
    stage.ledger.at(1_000);
    assert!(!stage.ledger.tick());
    stage.replays();
}

/// A leap that an operator confirmed is an entry, with a finding, and fires what is due by then.
#[test]
fn a_confirmed_leap_is_an_entry_and_a_finding() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    let intent = stage.intend(None, |said| said.deadline_us = seconds(500));
    stage.mark();
    let (leaf, leapt) = (stage.ledger.next_leaf(), 100_000_000);
    stage.ledger.at(leapt);
    let clock = Micros::new(seconds(leapt - 1));
    stage.ledger.confirm_clock(clock);
    assert_eq!(stage.kinds(), [F::IntentOverdue, F::ClockSkew]);
    let found = stage.found();
    assert_eq!(found[1].leaf_index, leaf);
    assert_eq!(found[1].severity(), v1::Severity::Warning);
    assert!(found[1].detail.contains("99999899 s ahead"), "{found:?}");
    assert_eq!(found[0].about_leaf, intent.leaf);
    let wanted = v1::Tick {
        due_us: seconds(500),
        clock_us: clock.get(),
    };
    assert_eq!(ticks(&stage), [wanted]);
    let kept: Clock = cell(&stage, &CellKey::Clock);
    assert_eq!(kept.clock_us, clock.get());
    assert_eq!((kept.at_us, kept.leaf), (seconds(leapt), leaf));
    stage.replays();
}

/// A ledger whose time is ahead stands still: its entries bear the time that it has, and say by how
/// much it was wrong.
#[test]
fn a_ledger_ahead_of_a_confirmed_clock_says_so() {
    let mut stage = Stage::new();
    stage.open(RiskTier::Low);
    stage.ledger.at(10_000);
    stage.intend(None, |_| {});
    stage.mark();
    let clock = Micros::new(seconds(50));
    stage.ledger.confirm_clock(clock);
    let found = stage.found();
    assert_eq!(stage.kinds(), [F::ClockSkew]);
    assert!(found[0].detail.contains("9950 s behind"), "{found:?}");
    let kept: Clock = cell(&stage, &CellKey::Clock);
    assert_eq!((kept.clock_us, kept.at_us), (seconds(50), seconds(10_000)));
    stage.intend(None, |_| {});
    stage.replays();
}
