//! A story: what is said in a ledger, unit after unit.

use bytes::Bytes;
use deed_evidence::{
    assess::Assessor,
    statement::{self, BodyKind},
    trust::TrustStatement,
};
use deed_proto::v1::{self, statement::Body};
use prost::Message as _;

use super::script::Script;
use crate::ledger::{AUTHORITY, CAST, Ledger, Place, TIME_US, Who, key_revoked, policy_set};

/// What was recorded, and by whom.
pub(super) struct Story {
    pub(super) ledger: Ledger,
    pub(super) places: Vec<(Who, Place)>,
    /// Which of them are Intents, and which are grants.
    pub(super) intents: Vec<usize>,
    pub(super) grants: Vec<usize>,
    pub(super) clock_s: i64,
}

impl Story {
    /// Takes the next unit: its first byte says which.
    pub(super) fn unit(&mut self, script: &mut Script<'_>) {
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
