//! Making a session's statements, one after the other.

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Nonce, PayloadDigest, Sequence, SessionId, TaskId, WireError, statement,
};
use deed_proto::v1::{self, statement::Body};
use thiserror::Error;

/// The system gives no random bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the system gives no random bytes: {reason}")]
pub struct RandomError {
    /// The system's message.
    pub reason: String,
}

/// Gives out a session's statements with their sequence numbers.
///
/// Each statement names the digest of the one before it, so the session is a chain that nobody
/// can thin out unnoticed.
#[derive(Debug, Clone)]
pub struct Session {
    ledger_id: LedgerId,
    producer: String,
    id: SessionId,
    /// Certifies in the first statement whose session it is.
    nonce: Option<Nonce>,
    next: Sequence,
    previous: Option<PayloadDigest>,
    /// The sequence at which the ledger stands, if that is before `next`.
    skipped_from: Option<Sequence>,
    /// Sequences that were skipped, as far as this session was made here.
    skipped: u64,
}

/// The header of a statement: everything besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header<'a> {
    /// The task that it belongs to; every body but Heartbeat and SessionClosed needs one.
    pub task: Option<TaskId>,
    /// The time of the event.
    pub occurred_at: Micros,
    /// W3C trace and span id, 16 and 8 bytes.
    pub trace: Option<(&'a [u8; 16], &'a [u8; 8])>,
    /// Names of the same thing in other systems: kind and value, strictly ascending.
    pub correlation_keys: &'a [(&'a str, &'a str)],
}

/// A statement, made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The canonical bytes, for [`Ledger::append`](crate::Ledger::append).
    pub payload: Bytes,
    /// The sequence of the statement.
    pub sequence: Sequence,
    /// Digest of the payload.
    pub digest: PayloadDigest,
}

impl Made {
    /// A reference to this statement from another one of the same session.
    #[must_use]
    pub fn reference(&self) -> v1::StatementRef {
        v1::StatementRef {
            session: Bytes::new(),
            sequence: self.sequence.get(),
            payload_digest: Bytes::copy_from_slice(self.digest.as_bytes()),
        }
    }
}

impl Session {
    /// Begins a session with a random nonce.
    ///
    /// # Errors
    /// [`RandomError`] if the system gives no random bytes.
    pub fn begin(ledger_id: LedgerId, producer: impl Into<String>) -> Result<Self, RandomError> {
        Ok(Self::with_nonce(ledger_id, producer, random_nonce()?))
    }

    /// Begins the session that is derived from this nonce, which the producer must not have used for
    /// another one.
    #[must_use]
    pub fn with_nonce(ledger_id: LedgerId, producer: impl Into<String>, nonce: Nonce) -> Self {
        let producer = producer.into();
        Self {
            id: SessionId::derive(ledger_id, &producer, &nonce),
            ledger_id,
            producer,
            nonce: Some(nonce),
            next: Sequence::FIRST,
            previous: None,
            skipped_from: None,
            skipped: 0,
        }
    }

    /// Goes on with a session that was opened: `last` is its last statement's sequence and payload
    /// digest.
    #[must_use]
    pub fn resume(
        ledger_id: LedgerId,
        producer: impl Into<String>,
        id: SessionId,
        (last, digest): (Sequence, PayloadDigest),
    ) -> Self {
        Self {
            ledger_id,
            producer: producer.into(),
            id,
            nonce: None,
            next: Sequence::new(last.get().saturating_add(1)),
            previous: Some(digest),
            skipped_from: None,
            skipped: 0,
        }
    }

    /// A session that an earlier version began and that has no statement yet: only rules version 1
    /// lets it be opened.
    pub(crate) fn uncertified(ledger_id: LedgerId, producer: String, id: SessionId) -> Self {
        Self {
            ledger_id,
            producer,
            id,
            nonce: None,
            next: Sequence::FIRST,
            previous: None,
            skipped_from: None,
            skipped: 0,
        }
    }

    /// The id of the task that this producer opens with `nonce`.
    #[must_use]
    pub fn task_id(&self, nonce: &Nonce) -> TaskId {
        TaskId::derive(self.ledger_id, &self.producer, nonce)
    }

    /// Goes on at `next`, and owns up to the sequences before it: statements were sent for them
    /// which the ledger does not take, by its word. Nothing else may be said in their places, ever:
    /// if the ledger has them after all, two statements for one place are an equivocation.
    pub fn skip_to(&mut self, next: Sequence) {
        if next > self.next {
            self.skipped_from.get_or_insert(self.next);
            self.next = next;
        }
    }

    /// Takes over the sequence that the ledger expects, from the answer to a refused statement. This moves
    /// only the start of the gap that the next statement declares; a used sequence is never used again.
    pub fn stands_at(&mut self, expected: Sequence) {
        let from = self.skipped_from.unwrap_or(self.next);
        if (from..=self.next).contains(&expected) {
            self.skipped_from = (expected < self.next).then_some(expected);
            // The statement that is there now is not known.
            self.previous = None;
        }
    }

    /// Returns the id of the session.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The nonce that its first statement carries, if that is to be made.
    #[must_use]
    pub fn nonce(&self) -> Option<Nonce> {
        let is_first = self.next == Sequence::FIRST || self.skipped_from == Some(Sequence::FIRST);
        self.nonce.filter(|_| is_first)
    }

    /// A session whose next sequence is this one, behind a payload of this digest, if that is known.
    #[must_use]
    pub(crate) const fn at(mut self, next: Sequence, previous: Option<PayloadDigest>) -> Self {
        self.next = next;
        self.previous = previous;
        self
    }

    /// The sequence that the next statement gets.
    #[must_use]
    pub const fn next(&self) -> Sequence {
        self.next
    }

    /// Makes the next statement.
    ///
    /// # Errors
    /// [`WireError`] names the field that breaks a rule; the sequence is then not used up.
    pub fn make(&mut self, header: &Header<'_>, body: Body) -> Result<Made, WireError> {
        let copied = Bytes::copy_from_slice;
        let payload = statement::encode(&v1::Statement {
            ledger_id: copied(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: copied(self.id.as_bytes()),
            sequence: self.next.get(),
            previous: self
                .previous
                .map_or_else(Bytes::new, |digest| copied(digest.as_bytes())),
            skipped_from: self.skipped_from.map(Sequence::get),
            occurred_at_us: header.occurred_at.get(),
            task: header
                .task
                .map_or_else(Bytes::new, |task| copied(task.as_bytes())),
            trace_id: header.trace.map_or_else(Bytes::new, |(id, _)| copied(id)),
            span_id: header.trace.map_or_else(Bytes::new, |(_, id)| copied(id)),
            correlation_keys: header
                .correlation_keys
                .iter()
                .map(|(kind, value)| v1::CorrelationKey {
                    kind: (*kind).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            nonce: self
                .nonce()
                .map_or_else(Bytes::new, |nonce| copied(nonce.as_bytes())),
            body: Some(body),
        })?;
        let (sequence, digest) = (self.next, PayloadDigest::of(&payload));
        if let Some(from) = self.skipped_from.take() {
            self.skipped += sequence.get().saturating_sub(from.get());
        }
        self.next = Sequence::new(sequence.get().saturating_add(1));
        self.previous = Some(digest);
        Ok(Made {
            payload,
            sequence,
            digest,
        })
    }

    /// Makes the session's last statement, SessionClosed.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub fn close(mut self, occurred_at: Micros) -> Result<Made, WireError> {
        let last_sequence = self.next.get();
        let header = Header {
            occurred_at,
            ..Header::default()
        };
        let from = self.skipped_from.map_or(last_sequence, Sequence::get);
        let skipped = self.skipped + last_sequence.saturating_sub(from);
        let closed = v1::SessionClosed {
            last_sequence,
            count: last_sequence.saturating_add(1).saturating_sub(skipped),
        };
        self.make(&header, Body::SessionClosed(closed))
    }
}

/// A nonce for a session or a task.
///
/// # Errors
/// [`RandomError`] if the system gives no random bytes.
pub fn random_nonce() -> Result<Nonce, RandomError> {
    random().map(Nonce::new)
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| RandomError {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deed_tlog::Hash;

    fn begun() -> Session {
        let ledger_id = LedgerId::new(Hash::new([7; 32]));
        Session::with_nonce(ledger_id, "test:agent", Nonce::new([1; 16]))
    }

    /// A task's opening, and what stands beside it.
    fn opened() -> (Header<'static>, Body) {
        let nonce = Nonce::new([2; 16]);
        let header = Header {
            task: Some(begun().task_id(&nonce)),
            ..Header::default()
        };
        let opened = v1::TaskOpened {
            requested_by: "somebody".to_owned(),
            risk_tier: v1::RiskTier::Low.into(),
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
            ..v1::TaskOpened::default()
        };
        (header, Body::TaskOpened(opened))
    }

    #[test]
    fn statements_are_a_chain_that_a_ledger_takes() {
        use deed_evidence::session::{self, Binding, SequencePosition};
        let mut chain = begun();
        let (header, opened) = opened();
        let mut made = vec![
            chain.make(&header, opened.clone()).unwrap(),
            chain.make(&header, opened).unwrap(),
        ];
        made.push(chain.close(Micros::new(5)).unwrap());
        let mut state: Option<session::Session> = None;
        for (sequence, made) in (0..).zip(&made) {
            let header = statement::parse(&made.payload).unwrap();
            assert_eq!(header.sequence.get(), sequence);
            assert_eq!(header.breach, None);
            assert_eq!(
                session::judge(state.as_ref(), &header, Binding::Nobody),
                Ok(SequencePosition::Next)
            );
            match &mut state {
                Some(state) => state.advance(&header, made.digest),
                None => {
                    let opened = session::Session::opened(&header, made.digest, Binding::Nobody);
                    state = Some(opened);
                }
            }
        }
        assert!(state.unwrap().closed);
    }

    #[test]
    fn a_statement_that_is_refused_uses_no_sequence() {
        let mut session = begun();
        // The header names no task.
        assert!(session.make(&Header::default(), opened().1).is_err());
        assert_eq!(session.next(), Sequence::FIRST);
    }

    #[test]
    fn a_place_that_was_used_is_never_used_again() {
        let mut session = begun();
        let (header, opened) = opened();
        let first = session.make(&header, opened.clone()).unwrap();
        // The ledger does not take what was sent for 1 and 2.
        session.skip_to(Sequence::new(3));
        let mut told = session.clone();
        let made = session.make(&header, opened.clone()).unwrap();
        let said = statement::parse(&made.payload).unwrap();
        assert_eq!(
            (said.sequence, said.skipped_from),
            (Sequence::new(3), Some(Sequence::new(1)))
        );
        assert_eq!(said.previous, Some(first.digest));
        // Then the ledger says that it expects 2: it has the statement that was sent for 1.
        told.stands_at(Sequence::new(2));
        let made = told.make(&header, opened).unwrap();
        let said = statement::parse(&made.payload).unwrap();
        assert_eq!(
            (said.sequence, said.skipped_from),
            (Sequence::new(3), Some(Sequence::new(2)))
        );
        assert_eq!(said.previous, None);
        // Wherever else it may say that it stands.
        for lie in [0, 1, 5, u64::MAX] {
            told.stands_at(Sequence::new(lie));
            assert_eq!(told.next(), Sequence::new(4));
        }
        let closed = told.close(Micros::new(1)).unwrap();
        let closed = statement::decode(&closed.payload).unwrap();
        let Some(Body::SessionClosed(closed)) = closed.body else {
            panic!("{closed:?}");
        };
        assert_eq!((closed.last_sequence, closed.count), (4, 4));
    }

    #[test]
    fn a_resumed_session_goes_on_where_it_was() {
        let mut first = begun();
        let (header, opened) = opened();
        let made = first.make(&header, opened.clone()).unwrap();
        let last = (made.sequence, made.digest);
        let mut resumed = Session::resume(first.ledger_id, "test:agent", first.id(), last);
        assert_eq!(
            resumed.make(&header, opened.clone()),
            first.make(&header, opened)
        );
    }
}
