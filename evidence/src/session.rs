//! Strict sequence: which statement a session takes next.
//!
//! One pure function, [`judge`], called by the server's step, by `fsck` and by an offline
//! verifier that replays a ledger.

use thiserror::Error;

use crate::{PayloadDigest, Sequence, statement::BodyKind, statement::Header};

/// What the ledger knows of a session after some of its statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who speaks in it; bound by its first statement.
    pub producer: String,
    /// The sequence that it takes next; the last one of all if that was taken.
    pub next: Sequence,
    /// Digest of its last payload.
    pub last_payload: PayloadDigest,
    /// Statements recorded in it.
    pub recorded: u64,
    /// Sequences that the producer said it lost.
    pub skipped: u64,
    /// Whether SessionClosed was recorded.
    pub closed: bool,
}

/// What to do with a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// It is the next one: record it.
    Next,
    /// Its sequence lies behind: it is a duplicate if its payload is the one that was recorded
    /// there, and [`Refusal::SequenceReused`] otherwise. (A sequence inside of a gap was never
    /// recorded; that too is a reuse.)
    Behind,
}

/// Why a session does not take a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The session is bound to somebody else.
    #[error("the session belongs to another producer; begin a session of your own")]
    SessionTaken,
    /// Nothing comes after SessionClosed.
    #[error("the session is closed; begin a new one")]
    SessionClosed,
    /// A statement is missing in between.
    #[error(
        "the session takes sequence {expected} next; send from there, or own up to the hole with skipped_from"
    )]
    NotNext {
        /// The sequence that it takes next.
        expected: Sequence,
    },
    /// Other bytes are recorded at this sequence.
    #[error("this sequence is recorded with another payload; the session takes {expected} next")]
    SequenceReused {
        /// The sequence that it takes next.
        expected: Sequence,
    },
    /// The chain is broken.
    #[error("previous is not the digest of the session's last payload")]
    PreviousMismatch {
        /// The sequence that it takes next.
        expected: Sequence,
    },
}

/// Judges a statement by its session's state; `None` is a session that nothing was recorded in.
///
/// # Errors
/// [`Refusal`] if it must not be recorded.
pub fn judge(session: Option<&Session>, header: &Header<'_>) -> Result<Judgement, Refusal> {
    let expected = session.map_or(Sequence::FIRST, |session| session.next);
    if let Some(session) = session {
        if session.producer != header.producer {
            return Err(Refusal::SessionTaken);
        }
        if session.has_passed(header.sequence) {
            return Ok(Judgement::Behind);
        }
        if session.closed {
            return Err(Refusal::SessionClosed);
        }
    }
    let is_next = match header.skipped_from {
        None => header.sequence == expected,
        Some(from) => from == expected && header.sequence > from,
    };
    if !is_next {
        return Err(Refusal::NotNext { expected });
    }
    match (header.previous, session) {
        (Some(previous), Some(session)) if previous != session.last_payload => {
            Err(Refusal::PreviousMismatch { expected })
        }
        (Some(_), None) => Err(Refusal::PreviousMismatch { expected }),
        _ => Ok(Judgement::Next),
    }
}

impl Session {
    /// A session after its first statement, which [`judge`] found to be the next.
    #[must_use]
    pub fn opened(header: &Header<'_>, payload_digest: PayloadDigest) -> Self {
        let mut session = Self {
            producer: header.producer.to_owned(),
            next: Sequence::FIRST,
            last_payload: payload_digest,
            recorded: 0,
            skipped: 0,
            closed: false,
        };
        session.advance(header, payload_digest);
        session
    }

    /// Whether `sequence` was recorded or skipped.
    fn has_passed(&self, sequence: Sequence) -> bool {
        // `next` cannot say that the last sequence of all was taken. The number of sequences
        // passed can: it is 2^64 then, 0 in 64 bits, and at least 1 in any other session.
        let none_left = self.recorded.wrapping_add(self.skipped) == 0;
        sequence < self.next || none_left
    }

    /// Takes a statement that [`judge`] found to be the next.
    pub fn advance(&mut self, header: &Header<'_>, payload_digest: PayloadDigest) {
        let sequence = header.sequence.get();
        self.skipped += sequence.saturating_sub(self.next.get());
        // Nothing comes after the last sequence of all.
        self.closed |= header.body == BodyKind::SessionClosed || sequence == u64::MAX;
        self.next = Sequence::new(sequence.saturating_add(1));
        self.last_payload = payload_digest;
        self.recorded += 1;
    }
}
