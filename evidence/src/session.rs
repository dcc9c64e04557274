//! Strict sequence: the statement that a session takes next.
//!
//! One pure function, [`judge`], called by the server's step, by `fsck` and by an offline
//! verifier that replays a ledger.

use thiserror::Error;

use deed_tlog::BatchCount;

use crate::{
    KeyId, PayloadDigest, PrincipalHash, Sequence,
    statement::{BodyKind, SessionHeader},
};

/// The owner of a session, besides its producer: bound by its first statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Binding {
    /// The key that signs its statements, or the manifests over them.
    Key(KeyId),
    /// The authenticated principal that delivers its unsigned statements.
    Principal(PrincipalHash),
    /// Nobody in particular: unsigned statements from a caller without a name.
    Nobody,
}

impl Binding {
    /// The key that the session is bound to, if it is bound to one.
    #[must_use]
    pub const fn key(&self) -> Option<KeyId> {
        match self {
            Self::Key(key) => Some(*key),
            Self::Principal(_) | Self::Nobody => None,
        }
    }
}

/// A session after some of its statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its producer; bound by its first statement.
    pub producer: String,
    /// The key or principal that speaks in it.
    pub bound_to: Binding,
    /// The sequence that it takes next; the last one of all if that was taken.
    pub next: Sequence,
    /// Digest of its last payload; `None` until somebody computes it. It is computed before it is
    /// compared or stored.
    pub last_payload: Option<PayloadDigest>,
    /// Statements recorded in it.
    pub recorded: u64,
    /// Sequences that the producer said it lost.
    pub skipped: u64,
    /// True if SessionClosed was recorded.
    pub closed: bool,
}

/// The position of a statement's sequence in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequencePosition {
    /// It is the next one: record it.
    Next,
    /// Its sequence lies behind: it is a duplicate if its payload is the one that was recorded
    /// there, and [`Refusal::SequenceReused`] otherwise. (A sequence inside of a gap was never
    /// recorded; that too is a reuse.)
    Behind,
}

/// The reason why a session does not take a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The session is bound to somebody else.
    #[error(
        "the session belongs to another producer, key or principal; begin a session of your own"
    )]
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

/// Judges a statement of `speaker` by its session's state; `None` is a session that nothing was
/// recorded in.
///
/// # Errors
/// [`Refusal`] if it must not be recorded.
pub fn judge(
    session: Option<&Session>,
    header: &SessionHeader<'_>,
    speaker: Binding,
) -> Result<SequencePosition, Refusal> {
    let expected = session.map_or(Sequence::FIRST, |session| session.next);
    if let Some(session) = session {
        if session.bound_to != speaker || session.producer != header.producer {
            return Err(Refusal::SessionTaken);
        }
        if session.has_passed(header.sequence) {
            return Ok(SequencePosition::Behind);
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
        (Some(previous), Some(session)) if session.last_payload != Some(previous) => {
            Err(Refusal::PreviousMismatch { expected })
        }
        (Some(_), None) => Err(Refusal::PreviousMismatch { expected }),
        _ => Ok(SequencePosition::Next),
    }
}

impl Session {
    /// A session after its first statement, which [`judge`] found to be the next.
    #[must_use]
    pub fn opened(
        header: &SessionHeader<'_>,
        payload_digest: impl Into<Option<PayloadDigest>>,
        speaker: Binding,
    ) -> Self {
        let mut session = Self::fresh(header.producer, speaker);
        session.advance(header, payload_digest);
        session
    }

    /// A session after a batch that begins it.
    #[must_use]
    pub fn opened_over(producer: &str, batch: &BatchStep, speaker: Binding) -> Self {
        let mut session = Self::fresh(producer, speaker);
        session.advance_over(batch);
        session
    }

    fn fresh(producer: &str, bound_to: Binding) -> Self {
        Self {
            producer: producer.to_owned(),
            bound_to,
            next: Sequence::FIRST,
            last_payload: None,
            recorded: 0,
            skipped: 0,
            closed: false,
        }
    }

    /// Returns true if `sequence` was recorded or skipped.
    fn has_passed(&self, sequence: Sequence) -> bool {
        // `next` cannot say that the last sequence of all was taken. The number of sequences
        // passed can: it is 2^64 then, 0 in 64 bits, and at least 1 in any other session.
        let none_left = self.recorded.wrapping_add(self.skipped) == 0;
        sequence < self.next || none_left
    }

    /// Takes a statement that [`judge`] found to be the next.
    pub fn advance(
        &mut self,
        header: &SessionHeader<'_>,
        payload_digest: impl Into<Option<PayloadDigest>>,
    ) {
        self.advance_by(
            header.sequence.get(),
            1,
            payload_digest.into(),
            header.body == BodyKind::SessionClosed,
        );
    }

    /// Takes a whole batch: the same as taking its statements one by one, after [`judge`] found
    /// the first one to be the next and [`batch::check`](crate::batch::check) the others to follow
    /// it.
    pub fn advance_over(&mut self, batch: &BatchStep) {
        self.advance_by(
            batch.first_sequence.get(),
            batch.count.get().into(),
            Some(batch.last_payload),
            batch.closed,
        );
    }

    fn advance_by(
        &mut self,
        first: u64,
        count: u64,
        last_payload: Option<PayloadDigest>,
        closes: bool,
    ) {
        self.skipped += first.saturating_sub(self.next.get());
        // A manifest whose last sequence does not fit 64 bits is not parsed.
        let last = first.saturating_add(count - 1);
        // Nothing comes after the last sequence of all.
        self.closed |= closes || last == u64::MAX;
        self.next = Sequence::new(last.saturating_add(1));
        self.last_payload = last_payload;
        self.recorded += count;
    }
}

/// A step of a session over a batch that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStep {
    /// Sequence of its first statement.
    pub first_sequence: Sequence,
    /// Statements.
    pub count: BatchCount,
    /// Digest of its last payload.
    pub last_payload: PayloadDigest,
    /// True if its last statement is SessionClosed.
    pub closed: bool,
}

/// Statements of a session that lie next to each other, in sequence and in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Sequence of the first one.
    pub first: Sequence,
    /// Its leaf.
    pub first_leaf: u64,
    /// Number of its statements.
    pub count: u64,
}

impl Run {
    /// Adds one statement to a session's runs: the last one grows if both sequence and leaf are
    /// the next, otherwise a new one begins. Depends on nothing but the leaves' order.
    pub fn extend(runs: &mut Vec<Self>, sequence: Sequence, leaf: u64) {
        if let Some(run) = runs.last_mut()
            && run.first.get().checked_add(run.count) == Some(sequence.get())
            && run.first_leaf + run.count == leaf
        {
            run.count += 1;
        } else {
            runs.push(Self {
                first: sequence,
                first_leaf: leaf,
                count: 1,
            });
        }
    }

    /// The leaf of `sequence`, if the run holds it.
    #[must_use]
    pub fn leaf_of(&self, sequence: Sequence) -> Option<u64> {
        let offset = sequence.get().checked_sub(self.first.get())?;
        (offset < self.count).then(|| self.first_leaf + offset)
    }
}
