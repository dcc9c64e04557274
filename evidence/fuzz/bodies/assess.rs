//! A ledger's story: whatever is said in it, by whomever, in whatever order, assessment does not
//! panic, what the ledger writes itself is canonical, and a replay of the entries alone comes to
//! the same.
//!
//! The bytes are choices, each taken modulo what there is to choose from, and 0 where they have
//! ended. The first one: bit 0 sets the default policy, bit 1 has the assessor thrown away and restored
//! after every unit. Then come units, the first byte of each says which (see [`Story::unit`]).

use std::sync::LazyLock;

use deed_evidence::{entry::Entry, replay::Replay, statement};
use deed_proto::v1::{self, Author};
use prost::Message as _;

use crate::ledger::Ledger;
use script::Script;
use story::Story;

#[path = "assess/bodies.rs"]
mod bodies;
#[path = "assess/script.rs"]
mod script;
#[path = "assess/story.rs"]
mod story;

#[allow(dead_code, reason = "for the long run")]
pub(crate) fn run(data: &[u8]) {
    replays(&told(data));
}

/// The same, and a replay for one input in eight: its signatures cost more than all else.
#[allow(dead_code, reason = "for the short run inside of the tests")]
pub(crate) fn run_short(data: &[u8]) {
    let ledger = told(data);
    if data.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) % 8 == 0 {
        replays(&ledger);
    }
}

/// Tells a story, and looks at what the ledger has made of it.
pub(crate) fn told(data: &[u8]) -> Ledger {
    /// Without and with a policy: keys are registered and policies compiled once.
    static BEGUN: LazyLock<[Ledger; 2]> = LazyLock::new(|| {
        let mut with_policy = Ledger::new();
        with_policy.set_default_policy();
        [Ledger::new(), with_policy]
    });
    let mut script = Script(data);
    let begins = script.byte();
    let mut story = Story {
        ledger: BEGUN[usize::from(begins & 1)].copied(begins & 2 != 0),
        places: Vec::new(),
        intents: Vec::new(),
        grants: Vec::new(),
        clock_s: 1,
    };
    for _ in 0..UNITS_MAX {
        if script.0.is_empty() {
            break;
        }
        story.unit(&mut script);
    }
    own_entries_are_canonical(&story.ledger);
    findings_are_in_range(&story.ledger);
    story.ledger
}

/// A ledger's entries alone must come to the same.
pub(crate) fn replays(ledger: &Ledger) {
    let replay = Replay::over(ledger.entries()).unwrap();
    assert_eq!(replay.kept().cells, ledger.kept.cells);
    assert_eq!(replay.kept().findings, ledger.kept.findings);
    assert_eq!(replay.kept().timers, ledger.kept.timers);
    assert_eq!(*replay.trust(), ledger.trust);
}

fn own_entries_are_canonical(ledger: &Ledger) {
    for bytes in ledger.entries() {
        let entry = Entry::parse(bytes).unwrap();
        if entry.author != Author::Ledger {
            continue;
        }
        assert_eq!(entry.encode(), bytes);
        let header = entry.statement().unwrap();
        assert!(header.body.is_ledgers());
        let decoded = v1::Statement::decode(entry.payload).unwrap();
        assert_eq!(statement::encode(&decoded).unwrap(), entry.payload);
    }
}

fn findings_are_in_range(ledger: &Ledger) {
    let leaves = ledger.next_leaf();
    for finding in ledger.findings() {
        assert!(finding.leaf_index < leaves, "{finding:?}");
        assert!(finding.about_leaf < leaves, "{finding:?}");
        assert!(finding.contradicts_leaf.is_none_or(|leaf| leaf < leaves));
        assert!(finding.disposition_leaf.is_none_or(|leaf| leaf < leaves));
    }
    assert!(
        ledger.kept.timers.keys().all(|timer| timer.leaf < leaves),
        "{:?}",
        ledger.kept.timers
    );
}

const UNITS_MAX: usize = 64;
