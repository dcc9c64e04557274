//! A ledger's story: whatever is said in it, by whomever, in whatever order, assessment does not
//! panic, what the ledger writes itself is canonical, and a replay of the entries alone comes to
//! the same.
//!
//! The bytes are choices, each taken modulo what there is to choose from, and 0 where they have
//! ended. The first one: bit 0 sets the default policy, bit 1 has the assessor thrown away and restored
//! after every unit. Then come units, the first byte of each says which (see [`Story::unit`]).

#[path = "assess_script.rs"]
mod script;

use std::sync::LazyLock;

use bytes::Bytes;
use deed_evidence::{
    assess::Assessor,
    entry::Entry,
    replay::Replay,
    statement::{self, BodyKind},
    trust::TrustStatement,
};
use deed_proto::v1::{
    self, AuthenticationStrength, Author, DispositionKind, OutcomeStatus, RiskTier, TaskEnd,
    statement::Body,
};
use prost::Message as _;

use script::Script;

use crate::ledger::{
    AGENT, ANYBODY, AUTHORITY, CAST, HELPER, Ledger, Place, TIME_US, Who, committed, intent,
    key_revoked, policy_set, task_opened,
};

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
    assert_eq!(*replay.registry(), ledger.registry);
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
        ledger.kept.timers.keys().all(|due| due.leaf < leaves),
        "{:?}",
        ledger.kept.timers
    );
}

const UNITS_MAX: usize = 64;

/// What was recorded, and by whom.
struct Story {
    ledger: Ledger,
    places: Vec<(Who, Place)>,
    /// Which of them are Intents, and which are grants.
    intents: Vec<usize>,
    grants: Vec<usize>,
    clock_s: i64,
}

impl Story {
    fn unit(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.pass(script),
            1 => self.batch(script),
            2 => drop(self.ledger.tick()),
            3 => {
                let task = script.byte() % 4;
                self.ledger.request_receipt(task);
            }
            4 => self.ledger.assessor = Assessor::restore(self.ledger.id),
            5 => self.equivocate(script),
            6 => self.raw(script),
            7 => self.trust(script),
            _ => self.single(script),
        }
    }

    fn pass(&mut self, script: &mut Script<'_>) {
        /// Up to where receive times are numbers.
        const LAST_S: i64 = (i64::MAX - TIME_US) / 1_000_000;
        let by = i64::from(script.byte());
        let by_s = match script.byte() % 8 {
            0 => by,
            1 => by * 60,
            2 => by * 3600,
            3 => by * 86_400,
            // No more than once: time does not go back.
            7 if by == 255 => LAST_S,
            _ => 0,
        };
        self.clock_s = self.clock_s.saturating_add(by_s).min(LAST_S);
        self.ledger.at(self.clock_s);
    }

    fn single(&mut self, script: &mut Script<'_>) {
        let (who, task) = (script.who(), script.task());
        let body = self.body(script);
        let now = self.ledger.now().get();
        // Bits: correlation keys, a hole, another clock.
        let header = script.byte();
        let keys = if header & 1 != 0 {
            script.correlation_keys()
        } else {
            Vec::new()
        };
        let lost = if header & 2 != 0 { script.byte() } else { 0 };
        let occurred = (header & 4 != 0).then(|| script.moment(now));
        let said = self.ledger.try_say(who, task, body, |made| {
            made.correlation_keys = keys;
            if lost > 0 {
                made.skipped_from = Some(made.sequence);
                made.sequence += u64::from(lost);
            }
            made.occurred_at_us = occurred.unwrap_or(made.occurred_at_us);
            closes_at(made);
        });
        if let Ok(place) = said {
            self.recorded(who, place);
        }
    }

    fn batch(&mut self, script: &mut Script<'_>) {
        let who = script.who();
        let count = 1 + script.byte() % 4;
        let mut bodies = Vec::new();
        for position in 0..u64::from(count) {
            let (task, body) = (script.task(), self.body(script));
            let mut made = self.ledger.statement(who, task, body);
            made.sequence += position;
            closes_at(&mut made);
            bodies.extend(made.body.map(|body| (task, body)));
        }
        for place in self.ledger.try_say_batch(who, bodies).unwrap_or_default() {
            self.recorded(who, place);
        }
    }

    fn equivocate(&mut self, script: &mut Script<'_>) {
        let back = usize::from(script.byte());
        let (task, body) = (script.task(), self.body(script));
        let Some(at) = self.places.len().checked_sub(1 + back) else {
            return;
        };
        let (who, first) = self.places[at].clone();
        if let Ok(place) = self.ledger.equivocate(who, &first, task, body) {
            self.recorded(who, place);
        }
    }

    /// Somebody's own statement, put into its place here if it is canonical.
    fn raw(&mut self, script: &mut Script<'_>) {
        let (who, keeps) = (script.who(), script.byte());
        let length = u16::from_le_bytes([script.byte(), script.byte()]);
        let bytes = script.take(length.into());
        let Ok(mut made) = v1::Statement::decode(bytes) else {
            return;
        };
        let Some(body) = made.body.clone() else {
            return;
        };
        let next = self.ledger.statement(who, None, body);
        made.ledger_id = next.ledger_id;
        // Bits: its producer, its place, its hole, its chain, its time.
        if keeps & 1 == 0 {
            made.producer = next.producer;
        }
        if keeps & 2 == 0 {
            (made.session, made.sequence) = (next.session, next.sequence);
            made.nonce = next.nonce;
        }
        if keeps & 4 == 0 {
            made.skipped_from = None;
        }
        if keeps & 8 == 0 {
            made.previous = Bytes::new();
        }
        if keeps & 16 == 0 {
            made.occurred_at_us = next.occurred_at_us;
        }
        let Ok(payload) = statement::encode(&made) else {
            return;
        };
        let Ok(header) = statement::parse(&payload) else {
            panic!("encoded, but not canonical: {made:?}");
        };
        if header.body.is_ledgers() || header.body == BodyKind::Genesis {
            return;
        }
        // As admission does, before anything is taken.
        match TrustStatement::parse(&payload) {
            Ok(Some(trust))
                if who.seed.is_none() || trust.verify_possession(self.ledger.id).is_err() =>
            {
                return;
            }
            _ => {}
        }
        if let Ok(place) = self.ledger.take(who, &payload) {
            self.recorded(who, place);
        }
    }

    /// What an authority says about keys and policies.
    fn trust(&mut self, script: &mut Script<'_>) {
        let body = match script.byte() % 4 {
            0 | 1 => {
                let since = script.pick(&[None, Some(1), Some(100), Some(i64::from(u32::MAX))]);
                key_revoked(script.pick(&CAST), since)
            }
            2 => policy_set(script.pick(&[
                "permit (principal, action, resource);",
                "permit (principal, action, resource) when { context.evidence.decision };",
                "@corroborate(\"60\") permit (principal, action, resource);",
                // Fails for an amount that is large.
                "permit (principal, action, resource) when { context has amount && \
                 context.amount.minor_units * 9223372036854775807 > 0 };",
            ])),
            _ => {
                let who = script.pick(&CAST);
                let seed = script.pick(&[30, 31, who.seed.unwrap_or(0)]);
                let seed = Some(seed);
                self.ledger.registration(Who { seed, ..who })
            }
        };
        if let Ok(place) = self.ledger.try_say(AUTHORITY, None, body, |_| {}) {
            self.recorded(AUTHORITY, place);
        }
    }

    fn recorded(&mut self, who: Who, place: Place) {
        let at = self.places.len();
        match statement::parse(&place.payload).map(|header| header.body) {
            Ok(BodyKind::Intent) => self.intents.push(at),
            Ok(BodyKind::Grant) => self.grants.push(at),
            _ => {}
        }
        self.places.push((who, place));
    }

    fn body(&self, script: &mut Script<'_>) -> Body {
        let now = self.ledger.now().get();
        match script.byte() % 16 {
            0 => {
                let mut body = task_opened(
                    script.pick(&[
                        RiskTier::Low,
                        RiskTier::Payment,
                        RiskTier::CustomerCommunication,
                        RiskTier::Deployment,
                        RiskTier::Deletion,
                    ]),
                    0,
                );
                if let Body::TaskOpened(opened) = &mut body {
                    opened.deadline_us = script.moment(now);
                }
                body
            }
            1 => Body::TaskClosed(v1::TaskClosed {
                end: script
                    .pick(&[TaskEnd::Completed, TaskEnd::HandedOver])
                    .into(),
                reason: String::new(),
            }),
            2 | 3 => Body::Grant(self.grant(script)),
            4 => Body::GrantAccepted(v1::GrantAccepted {
                grant: self.grant_hash(script),
            }),
            5 => Body::Revocation(v1::Revocation {
                grant: self.grant_hash(script),
                reason: String::new(),
            }),
            6 | 7 => Body::Intent(self.intent(script, now)),
            8 => Body::Outcome(self.outcome(script)),
            9 => Body::Decision(v1::Decision {
                intent: Some(self.leaf_ref(script)),
                verdict: script.verdict(),
                engine: "rules".into(),
                ..v1::Decision::default()
            }),
            10 => Body::Approval(v1::Approval {
                intent: Some(self.leaf_ref(script)),
                verdict: script.verdict(),
                shown: Some(committed("shown")),
                shown_at_us: script.moment(now),
                opened_at_us: script.moment(now),
                decided_at_us: script.moment(now),
                strength: script
                    .pick(&[
                        AuthenticationStrength::MultiFactor,
                        AuthenticationStrength::SingleFactor,
                        AuthenticationStrength::PhishingResistant,
                    ])
                    .into(),
                rationale: String::new(),
                assertion: None,
            }),
            11 | 12 => Body::Observation(v1::Observation {
                intent: script.pick(&[true, false]).then(|| self.leaf_ref(script)),
                effects: script.effects(),
                ..v1::Observation::default()
            }),
            13 => Body::Heartbeat(v1::Heartbeat {
                next_within_us: script.number(),
                ..v1::Heartbeat::default()
            }),
            14 => Body::SessionClosed(v1::SessionClosed::default()),
            _ => self.disposition(script),
        }
    }

    fn grant(&self, script: &mut Script<'_>) -> v1::Grant {
        let subject = script.pick(&[AGENT, HELPER, ANYBODY]);
        let parent = script.pick(&[false, true]);
        v1::Grant {
            subject: subject.producer.into(),
            subject_key: script
                .pick(&[None, subject.key()])
                .map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes())),
            actions: script
                .pick(&[&["refund", "refund/*"][..], &["refund"], &["*"]])
                .iter()
                .map(ToString::to_string)
                .collect(),
            resources: vec![script.pick(&["orders/*", "orders/7", "*"]).into()],
            not_before_us: script.moment(self.ledger.now().get()),
            expires_us: script
                .moment(self.ledger.now().get())
                .max(script.pick(&[i64::MAX, 1])),
            uses: script.pick(&[0, 1, 2, u64::MAX]),
            amount: script.amount(),
            parent: if parent {
                self.grant_hash(script)
            } else {
                Bytes::new()
            },
            outside_token: script.token(),
            gateways: Vec::new(),
        }
    }

    fn intent(&self, script: &mut Script<'_>, now: i64) -> v1::Intent {
        let grant = script.pick(&[false, true]);
        v1::Intent {
            action: script.pick(&["refund", "refund/part", "mail"]).into(),
            amount: script.amount(),
            grant: if grant {
                self.grant_hash(script)
            } else {
                Bytes::new()
            },
            deadline_us: script.moment(now),
            arguments: script.commitment(),
            prompt: script.commitment(),
            model: script.pick(&["model-1", ""]).into(),
            ..intent(&script.resource(), 0, None)
        }
    }

    fn outcome(&self, script: &mut Script<'_>) -> v1::Outcome {
        let mut of = match self.intent_at(script) {
            Some(place) => place.statement_ref(),
            None => v1::StatementRef {
                payload_digest: vec![0; 32].into(),
                ..v1::StatementRef::default()
            },
        };
        match script.byte() {
            250 => of.session = Bytes::new(),
            251 => of.sequence += 1,
            252 => of.sequence = u64::MAX,
            253 => of.payload_digest = vec![0; 32].into(),
            _ => {}
        }
        v1::Outcome {
            intent: Some(of),
            status: script
                .pick(&[
                    OutcomeStatus::Succeeded,
                    OutcomeStatus::Failed,
                    OutcomeStatus::Reverted,
                    OutcomeStatus::NotDone,
                ])
                .into(),
            effects: script.effects(),
            tool_call: script.commitment(),
            response: script.commitment(),
            result: script.commitment(),
            arguments: script.commitment(),
        }
    }

    fn disposition(&self, script: &mut Script<'_>) -> Body {
        let nth = usize::from(script.byte());
        let (leaf_index, number) = match self.ledger.findings().nth(nth) {
            Some(finding) => (finding.leaf_index, finding.number),
            None => (u64::MAX, u32::MAX),
        };
        Body::FindingDisposition(v1::FindingDisposition {
            leaf_index,
            number,
            kind: script
                .pick(&[
                    DispositionKind::Explained,
                    DispositionKind::Disputed,
                    DispositionKind::Reviewed,
                ])
                .into(),
            reviewed_by: "https://example.org/people/ann".into(),
            reason: String::new(),
        })
    }

    /// The last Intent, the one before it, ...; from 240 on anything that was said.
    fn intent_at(&self, script: &mut Script<'_>) -> Option<&Place> {
        let back = usize::from(script.byte());
        let at = match back.checked_sub(240) {
            None => *nth_last(&self.intents, back)?,
            Some(back) => self.places.len().checked_sub(1 + back)?,
        };
        Some(&self.places[at].1)
    }

    /// The place of an Intent, or garbage.
    fn leaf_ref(&self, script: &mut Script<'_>) -> v1::LeafRef {
        let right = self.intent_at(script).map(Place::leaf_ref);
        let mut leaf = right.unwrap_or_else(|| v1::LeafRef {
            leaf_index: self.ledger.next_leaf(),
            leaf_hash: vec![0; 32].into(),
        });
        match script.byte() {
            250 => leaf.leaf_index += 1,
            251 => leaf.leaf_index = u64::MAX,
            252 => leaf.leaf_hash = vec![0; 32].into(),
            _ => {}
        }
        leaf
    }

    /// The last grant, the one before it, ...; or the leaf hash of something else, or none.
    fn grant_hash(&self, script: &mut Script<'_>) -> Bytes {
        let back = usize::from(script.byte());
        let at = match back.checked_sub(240) {
            None => nth_last(&self.grants, back).copied(),
            Some(back) => self.places.len().checked_sub(1 + back),
        };
        let hash = at.map(|at| self.places[at].1.hash);
        hash.map_or_else(
            || vec![0; 32].into(),
            |hash| Bytes::copy_from_slice(hash.as_bytes()),
        )
    }
}

fn nth_last<T>(all: &[T], back: usize) -> Option<&T> {
    all.get(all.len().checked_sub(1 + back)?)
}

/// Heartbeat and SessionClosed say at which sequence they stand.
fn closes_at(made: &mut v1::Statement) {
    let sequence = made.sequence;
    let count = sequence.saturating_add(1);
    match &mut made.body {
        Some(Body::Heartbeat(beat)) => (beat.last_sequence, beat.count) = (sequence, count),
        Some(Body::SessionClosed(end)) => (end.last_sequence, end.count) = (sequence, count),
        _ => {}
    }
}
