//! The machine, row by row, finding by finding, layer by layer, and attack by attack.

mod acts;
mod approvals;
mod delegation;
mod findings;
mod grants;
mod keys;
mod layers;
mod liars;
mod many;
mod seen;
mod sessions;
mod tasks;
mod time;
mod voices;
mod walk;

use std::collections::BTreeMap;

use bytes::Bytes;
use deed_evidence::{
    TaskId,
    assess::{
        cells::CellKey,
        digest::{self, Event},
    },
    replay::Replay,
};
use deed_proto::v1::{
    self, FindingKind, IntentState, OutcomeStatus, RiskTier, Verdict, statement::Body,
};
use deed_tlog::Hash;

use crate::ledger::*;

/// A policy that cannot be evaluated for an amount that is not small.
const FAILS: &str = "permit (principal, action, resource) when { \
    context has amount && context.amount.minor_units + 9223372036854775807 > 0 };";

/// A policy that permits nothing.
const NOTHING: &str =
    "permit (principal, action, resource) when { context.tier == \"no such tier\" };";

/// A story as it goes on, and what was there before its last part.
struct Stage {
    ledger: Ledger,
    /// Findings, cells, and the assessment digest of every task, when [`Stage::mark`] was called.
    findings: usize,
    cells: BTreeMap<CellKey, Bytes>,
}

impl Stage {
    fn of(mut ledger: Ledger) -> Self {
        ledger.at(100);
        Self {
            ledger,
            findings: 0,
            cells: BTreeMap::new(),
        }
    }

    fn new() -> Self {
        Self::of(Ledger::new())
    }

    fn mark(&mut self) {
        self.findings = self.ledger.findings().count();
        self.cells = self.ledger.kept.cells.clone();
    }

    /// What was found since.
    fn found(&self) -> Vec<v1::Finding> {
        // In order of leaves; nothing is found at a leaf of the past.
        self.ledger
            .findings()
            .skip(self.findings)
            .cloned()
            .collect()
    }

    fn open(&mut self, tier: RiskTier) -> Place {
        self.ledger.say(PLATFORM, Some(1), task_opened(tier, 0))
    }

    fn close(&mut self) -> Place {
        self.ledger.say(PLATFORM, Some(1), task_closed())
    }

    /// A root grant to the agent.
    fn root(&mut self, change: impl FnOnce(&mut v1::Grant)) -> Place {
        let mut root = grant(AGENT);
        change(&mut root);
        self.ledger.say(AUTHORITY, Some(1), Body::Grant(root))
    }

    /// A part of a grant of the agent's, handed on to the helper.
    fn part(&mut self, parent: &Place, change: impl FnOnce(&mut v1::Grant)) -> Place {
        let mut part = delegated(HELPER, parent.hash);
        change(&mut part);
        self.ledger.say(AGENT, Some(1), Body::Grant(part))
    }

    /// The agent's Intent to refund 500 of order 7.
    fn intend(&mut self, grant: Option<&Place>, change: impl FnOnce(&mut v1::Intent)) -> Place {
        let mut said = intent("orders/7", 500, grant.map(|grant| grant.hash));
        change(&mut said);
        self.ledger.say(AGENT, Some(1), Body::Intent(said))
    }

    /// A payment that waits for a decision and an approval, and ends at `deadline_s`.
    fn waits(&mut self, deadline_s: i64) -> Place {
        self.ledger.set_default_policy();
        self.open(RiskTier::Payment);
        let root = self.root(|_| {});
        let intent = self.intend(Some(&root), |said| said.deadline_us = seconds(deadline_s));
        assert_eq!(intent.state(), Some(IntentState::Waiting));
        intent
    }

    fn decide(&mut self, intent: &Place, verdict: Verdict) -> Place {
        self.ledger.say(ENGINE, Some(1), decision(intent, verdict))
    }

    fn approve(&mut self, who: Who, intent: &Place, verdict: Verdict) -> Place {
        let said = approval(intent, verdict, self.ledger.now());
        self.ledger.say(who, Some(1), said)
    }

    /// The same with all its evidence.
    fn cleared(&mut self, deadline_s: i64) -> Place {
        let intent = self.waits(deadline_s);
        self.clear(&intent);
        intent
    }

    fn clear(&mut self, intent: &Place) {
        self.decide(intent, Verdict::Allow);
        self.approve(APPROVER, intent, Verdict::Allow);
        assert_eq!(self.state(intent), IntentState::Cleared);
    }

    fn outcome(&mut self, intent: &Place, status: OutcomeStatus) -> Place {
        let effects = match status {
            OutcomeStatus::Succeeded => vec![effect("orders/7", 500)],
            _ => Vec::new(),
        };
        self.ledger
            .say(AGENT, Some(1), outcome(intent, status, effects))
    }

    fn done(&mut self, intent: &Place) -> Place {
        self.outcome(intent, OutcomeStatus::Succeeded)
    }

    fn seen(&mut self, intent: &Place, minor_units: i64) -> Place {
        let effects = vec![effect("orders/7", minor_units)];
        let said = observation(Some(intent), effects);
        self.ledger.say(DOWNSTREAM, Some(1), said)
    }

    /// Time comes to so many seconds, and nothing is said. The leaf of the Tick.
    fn tick(&mut self, seconds: i64) -> u64 {
        let leaf = self.ledger.next_leaf();
        self.ledger.at(seconds - 1);
        assert!(!self.ledger.tick(), "not yet");
        self.ledger.at(seconds);
        assert!(self.ledger.tick());
        leaf
    }

    fn state(&self, intent: &Place) -> IntentState {
        self.ledger.act(intent.leaf).state()
    }

    fn kinds(&self) -> Vec<FindingKind> {
        let found = self.found();
        found.iter().map(v1::Finding::kind).collect()
    }

    fn digest(&self, task: u8) -> Hash {
        digest_in(&self.ledger.kept.cells, self.ledger.task_id(task))
    }

    /// That a replay comes to the same.
    #[track_caller]
    fn replays(&self) {
        let replay = Replay::over(self.ledger.entries()).unwrap();
        assert_eq!(replay.kept().cells, self.ledger.kept.cells);
        assert_eq!(replay.kept().findings, self.ledger.kept.findings);
        assert_eq!(replay.kept().timers, self.ledger.kept.timers);
    }
}

/// A task's assessment digest; where it begins, if there is no such task.
fn digest_in(cells: &BTreeMap<CellKey, Bytes>, task: TaskId) -> Hash {
    use deed_evidence::assess::cells::Task;
    use prost::Message as _;
    let cell = cells.get(&CellKey::Task(task));
    cell.map_or(digest::START, |bytes| {
        let task = Task::decode(bytes.clone()).unwrap();
        Hash::try_from(&task.assessment[..]).unwrap()
    })
}

fn fold(from: Hash, events: impl IntoIterator<Item = Event>) -> Hash {
    let events = events.into_iter();
    events.fold(from, |before, event| digest::assessment(&before, &event))
}

fn found_event(finding: &v1::Finding) -> Event {
    Event::Finding {
        leaf: finding.leaf_index,
        number: finding.number,
        kind: finding.kind(),
        about: finding.about_leaf,
        contradicts: finding.contradicts_leaf,
    }
}

/// The entry of a payload that one of the cast signs.
fn signed(who: Who, payload: &[u8], received_at: deed_evidence::Micros) -> Bytes {
    use deed_evidence::{
        entry::{Entry, KeyedSignature},
        signature,
    };
    let key = signing_key(who.seed.unwrap());
    let key_id = who.key().unwrap();
    let signature = signature::sign(&key, v1::PayloadType::Statement, payload);
    let keyed = KeyedSignature {
        key_id: key_id.as_bytes(),
        signature: &signature,
    };
    Entry::signed(payload, keyed, received_at).encode()
}
