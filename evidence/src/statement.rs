//! Parsing a statement: canonical form, every field's rule, and the header.

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::Hash;
use prost::Message as _;

mod body_kind;
mod breach;
mod commitments;
pub(crate) mod fields;
mod header;
mod rules;
mod terms;

use body_kind::ProducerKind;
pub use body_kind::{AUTHORITY_PRODUCER, BodyKind, LEDGER_PRODUCER};
pub use breach::Breach;
#[cfg(test)]
pub(crate) use commitments::slot_name;
pub use commitments::{CommitmentSlot, Commitments, commitments, commitments_of};
pub use header::{Header, SessionHeader};
pub use terms::{Term, terms};

use crate::{
    LedgerId, Micros, Nonce, PAYLOAD_BYTES_MAX, Problem, Sequence, SessionId, TaskId, WireError,
    ids::PayloadDigest,
    name,
    schema::{self, number},
    wire::{self, Value},
};

/// Checks a payload and reads its header. Allocates nothing unless it fails.
///
/// # Errors
/// [`WireError`] with the first field that is not canonical or breaks its rule.
pub fn parse(payload: &[u8]) -> Result<Header<'_>, WireError> {
    if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
        let problem = Problem::Length {
            found: payload.len(),
            min: 1,
            max: PAYLOAD_BYTES_MAX,
        };
        return Err(WireError::new("payload", problem));
    }
    let mut fields = Fields::default();
    wire::walk(&schema::STATEMENT, payload, |field, value| {
        fields.take(field.number, value);
    })?;
    fields.into_header()
}

/// Checks a payload and decodes it whole.
///
/// # Errors
/// As [`parse`].
pub fn decode(payload: &Bytes) -> Result<v1::Statement, WireError> {
    parse(payload)?;
    // Cannot fail after the walk; a defect there must not become a panic here.
    v1::Statement::decode(payload.clone())
        .map_err(|_| WireError::rule("message", "does not decode"))
}

/// Encodes a statement and checks it, so that no producer makes one that a ledger refuses for
/// its form.
///
/// # Errors
/// As [`parse`].
pub fn encode(statement: &v1::Statement) -> Result<Bytes, WireError> {
    let payload = Bytes::from(statement.encode_to_vec());
    parse(&payload)?;
    Ok(payload)
}

/// The first level's fields as they pass by.
#[derive(Default)]
struct Fields<'a> {
    ledger_id: &'a [u8],
    producer: &'a [u8],
    session: &'a [u8],
    sequence: u64,
    previous: &'a [u8],
    skipped_from: Option<u64>,
    occurred_at_us: u64,
    task: &'a [u8],
    has_trace: bool,
    has_span: bool,
    last_correlation_key: Option<(&'a [u8], &'a [u8])>,
    correlation_unordered: bool,
    unseen_correlation: bool,
    nonce: &'a [u8],
    body: Option<(BodyKind, &'a [u8])>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, field: u32, value: Value<'a>) {
        match (field, value) {
            (number::LEDGER_ID, Value::Bytes(b)) => self.ledger_id = b,
            (number::PRODUCER, Value::Bytes(b)) => self.producer = b,
            (number::SESSION, Value::Bytes(b)) => self.session = b,
            (number::SEQUENCE, Value::Number(n)) => self.sequence = n,
            (number::PREVIOUS, Value::Bytes(b)) => self.previous = b,
            (number::SKIPPED_FROM, Value::Number(n)) => self.skipped_from = Some(n),
            (number::OCCURRED_AT_US, Value::Number(n)) => self.occurred_at_us = n,
            (number::TASK, Value::Bytes(b)) => self.task = b,
            (number::TRACE_ID, Value::Bytes(_)) => self.has_trace = true,
            (number::SPAN_ID, Value::Bytes(_)) => self.has_span = true,
            (number::CORRELATION_KEYS, Value::Bytes(b)) => self.take_correlation_key(b),
            (number::NONCE, Value::Bytes(b)) => self.nonce = b,
            (_, Value::Bytes(b)) => self.body = BodyKind::of_field(field).map(|kind| (kind, b)),
            (_, Value::Number(_)) => {}
        }
    }

    fn take_correlation_key(&mut self, bytes: &'a [u8]) {
        let mut key: (&[u8], &[u8]) = (&[], &[]);
        // Checked on the way here.
        let _ = wire::walk(&schema::CORRELATION_KEY, bytes, |field, value| {
            match (field.number, value) {
                (1, Value::Bytes(b)) => key.0 = b,
                (2, Value::Bytes(b)) => key.1 = b,
                _ => {}
            }
        });
        self.unseen_correlation |= name::has_unseen_bytes(key.1);
        self.correlation_unordered |= self.last_correlation_key.is_some_and(|last| last >= key);
        self.last_correlation_key = Some(key);
    }

    /// The rules that hold between fields.
    fn into_header(self) -> Result<Header<'a>, WireError> {
        let (body, body_bytes) = self
            .body
            .ok_or_else(|| WireError::new("body", Problem::Missing))?;
        self.check_addressing(body)?;
        if self.has_span && !self.has_trace {
            return Err(WireError::rule("span_id", "needs a trace_id"));
        }
        if self.correlation_unordered {
            let rule = "must be strictly ascending by (kind, value)";
            return Err(WireError::rule("correlation_keys", rule));
        }
        if self.skipped_from.is_some_and(|from| from >= self.sequence) {
            let rule = "must be lower than sequence";
            return Err(WireError::rule("skipped_from", rule));
        }
        match body {
            BodyKind::Heartbeat => self.check_count(&schema::HEARTBEAT, body, body_bytes)?,
            BodyKind::SessionClosed => {
                self.check_count(&schema::SESSION_CLOSED, body, body_bytes)?;
            }
            BodyKind::Tick => self.check_due(body_bytes)?,
            BodyKind::TaskOpened => self.check_task(body_bytes)?,
            // The most frequent ones have no rules between their fields.
            BodyKind::Intent | BodyKind::Outcome => {}
            _ => rules::check(body, body_bytes)?,
        }
        Ok(Header {
            ledger_id: Hash::try_from(self.ledger_id).ok().map(LedgerId::new),
            occurred_at: Micros::new(i64::try_from(self.occurred_at_us).unwrap_or(i64::MAX)),
            in_session: SessionHeader {
                // UTF-8 was checked by the walk; the fallback keeps this free of panics.
                producer: std::str::from_utf8(self.producer).unwrap_or_default(),
                session: SessionId::from_slice(self.session).unwrap_or(SessionId::new([0; 16])),
                sequence: Sequence::new(self.sequence),
                previous: PayloadDigest::from_slice(self.previous),
                skipped_from: self.skipped_from.map(Sequence::new),
                task: TaskId::from_slice(self.task),
                body,
                breach: self.breach(body, body_bytes),
            },
        })
    }

    /// Returns true if a session can begin with it.
    fn is_first(&self) -> bool {
        self.sequence == 0 || self.skipped_from == Some(0)
    }

    fn breach(&self, body: BodyKind, body_bytes: &[u8]) -> Option<Breach> {
        if body.is_ledgers() {
            // It has no session, and no form but the one that the ledger gives it.
            return None;
        }
        let head = breach::Head {
            producer: self.producer,
            is_first: self.is_first(),
            has_nonce: !self.nonce.is_empty(),
            unseen_correlation: self.unseen_correlation,
            occurred_at_us: self.occurred_at_us,
        };
        breach::find(&head, body, body_bytes)
    }

    /// A nonce certifies whose session it is, and stands where the session begins.
    fn check_session(&self) -> Result<(), WireError> {
        let Some(nonce) = Nonce::from_slice(self.nonce) else {
            return Ok(());
        };
        if !self.is_first() {
            let rule = "belongs into the first statement of a session alone";
            return Err(WireError::rule("nonce", rule));
        }
        let (ledger, producer) = self.ledger_and_producer();
        let derived = SessionId::derive(ledger, producer, &nonce);
        if self.session != derived.as_bytes() {
            let rule = "does not follow from ledger_id, producer and nonce";
            return Err(WireError::rule("session", rule));
        }
        Ok(())
    }

    /// The same for the task that it opens.
    fn check_task(&self, opened: &[u8]) -> Result<(), WireError> {
        let [nonce] = fields::texts(opened, [6]);
        let Some(nonce) = Nonce::from_slice(nonce) else {
            return Ok(());
        };
        let (ledger, producer) = self.ledger_and_producer();
        if self.task != TaskId::derive(ledger, producer, &nonce).as_bytes() {
            let rule = "does not follow from ledger_id, producer and task_opened.nonce";
            return Err(WireError::rule("task", rule));
        }
        Ok(())
    }

    /// The walk has checked both; the fallbacks keep this free of panics.
    fn ledger_and_producer(&self) -> (LedgerId, &'a str) {
        let ledger = Hash::try_from(self.ledger_id).unwrap_or(Hash::new([0; 32]));
        let producer = std::str::from_utf8(self.producer).unwrap_or_default();
        (LedgerId::new(ledger), producer)
    }

    /// A genesis statement has no ledger id, session or sequence; every other has them.
    fn check_addressing(&self, body: BodyKind) -> Result<(), WireError> {
        if body == BodyKind::Genesis {
            let rule = "must be empty in a genesis statement";
            for (name, present) in [
                ("ledger_id", !self.ledger_id.is_empty()),
                ("session", !self.session.is_empty()),
                ("sequence", self.sequence != 0),
                ("previous", !self.previous.is_empty()),
                ("skipped_from", self.skipped_from.is_some()),
                ("task", !self.task.is_empty()),
                ("nonce", !self.nonce.is_empty()),
            ] {
                if present {
                    return Err(WireError::rule(name, rule));
                }
            }
            return Ok(());
        }
        if body.is_ledgers() {
            return self.check_ledgers(body);
        }
        self.check_producer(body)?;
        for (name, missing) in [
            ("ledger_id", self.ledger_id.is_empty()),
            ("session", self.session.is_empty()),
            ("task", body.needs_task() && self.task.is_empty()),
        ] {
            if missing {
                return Err(WireError::new(name, Problem::Missing));
            }
        }
        if self.sequence == 0 && !self.previous.is_empty() {
            let rule = "must be empty in the first statement of a session";
            return Err(WireError::rule("previous", rule));
        }
        self.check_session()
    }

    /// Nobody else speaks as the ledger or as an authority, signed or not: readers tell them by
    /// their names.
    fn check_producer(&self, body: BodyKind) -> Result<(), WireError> {
        let by_authority = self.producer == AUTHORITY_PRODUCER.as_bytes();
        let by_ledger = self.producer == LEDGER_PRODUCER.as_bytes();
        let rule = match body.producer_kind() {
            ProducerKind::Authority if !by_authority => "must be deed:authority for this body",
            ProducerKind::Producer if by_authority => "must not be deed:authority for this body",
            _ if by_ledger => "must not be deed:ledger for this body",
            _ => return Ok(()),
        };
        Err(WireError::rule("producer", rule))
    }

    /// The ledger has no sessions: what it says is in place where it stands.
    fn check_ledgers(&self, body: BodyKind) -> Result<(), WireError> {
        if self.producer != LEDGER_PRODUCER.as_bytes() {
            let rule = "must be deed:ledger for this body";
            return Err(WireError::rule("producer", rule));
        }
        let rule = "must be empty in a statement of the ledger";
        for (name, present) in [
            ("session", !self.session.is_empty()),
            ("sequence", self.sequence != 0),
            ("previous", !self.previous.is_empty()),
            ("skipped_from", self.skipped_from.is_some()),
            ("task", body == BodyKind::Tick && !self.task.is_empty()),
            ("trace_id", self.has_trace),
            ("correlation_keys", self.last_correlation_key.is_some()),
            ("nonce", !self.nonce.is_empty()),
        ] {
            if present {
                return Err(WireError::rule(name, rule));
            }
        }
        for (name, missing) in [
            ("ledger_id", self.ledger_id.is_empty()),
            // The effective time is some entry's receive time, and those are positive.
            ("occurred_at_us", self.occurred_at_us == 0),
            ("task", body.needs_task() && self.task.is_empty()),
        ] {
            if missing {
                return Err(WireError::new(name, Problem::Missing));
            }
        }
        Ok(())
    }

    /// A deadline that is due is not ahead, and neither is a clock that was confirmed.
    fn check_due(&self, bytes: &[u8]) -> Result<(), WireError> {
        let (mut due_us, mut clock_us) = (0, 0);
        wire::walk(&schema::TICK, bytes, |field, value| {
            match (field.number, value) {
                (1, Value::Number(n)) => due_us = n,
                (_, Value::Number(n)) => clock_us = n,
                _ => {}
            }
        })?;
        if due_us == 0 && clock_us == 0 {
            return Err(WireError::new("tick.due_us", Problem::Missing));
        }
        for (name, time_us) in [("tick.due_us", due_us), ("tick.clock_us", clock_us)] {
            if time_us > self.occurred_at_us {
                let rule = "must not be later than occurred_at_us";
                return Err(WireError::rule(name, rule));
            }
        }
        Ok(())
    }

    /// `last_sequence` is the statement's own; `count` is no more than there can be.
    fn check_count(
        &self,
        message: &wire::Message,
        body: BodyKind,
        bytes: &[u8],
    ) -> Result<(), WireError> {
        let (mut last_sequence, mut count) = (0, 0);
        wire::walk(message, bytes, |field, value| match (field.number, value) {
            (1, Value::Number(n)) => last_sequence = n,
            (2, Value::Number(n)) => count = n,
            _ => {}
        })?;
        let name = body.name();
        if last_sequence != self.sequence {
            let rule = "must be the sequence of this statement";
            return Err(WireError::rule(format!("{name}.last_sequence"), rule));
        }
        // At the top there is no last_sequence + 1, and no count that is too high.
        if count > last_sequence.saturating_add(1) {
            let rule = "must be at most last_sequence + 1";
            return Err(WireError::rule(format!("{name}.count"), rule));
        }
        Ok(())
    }
}
