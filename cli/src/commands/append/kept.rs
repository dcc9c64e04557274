//! A session on disk, shared by who makes statements and who reads their receipts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use deed_client::{
    Appended, Error, Ledger, SessionError, Signing, StateDir, Statement, StoredSession, Sync,
};
use deed_evidence::{Nonce, PayloadDigest, Sequence, SessionId, statement};

/// The session that `--session` names, once it is known whose it is.
#[derive(Clone)]
pub(super) struct Kept {
    state: StateDir,
    name: String,
    signing: Signing,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    stored: Option<StoredSession>,
    /// A statement was rejected, and nothing may be sent any more that was made before that was known.
    set_back: bool,
}

/// The position at which a session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) session: SessionId,
    /// The nonce that its first statement carries.
    pub(super) nonce: Option<Nonce>,
    pub(super) next: Sequence,
    pub(super) previous: Option<PayloadDigest>,
    /// First sequence of the hole that the next statement owns up to, if there is one.
    pub(super) skipped_from: Option<Sequence>,
}

impl Kept {
    /// Opens the session if it was begun. Returns it with what an earlier process left without a
    /// receipt.
    pub(super) fn find(
        state: StateDir,
        ledger: &Ledger,
        name: &str,
        signing: Signing,
    ) -> Result<(Self, Vec<Statement>), Error> {
        let kept = Self {
            state,
            name: name.to_owned(),
            signing,
            shared: Arc::default(),
        };
        let found = StoredSession::find(&kept.state, ledger.ledger_id(), name)?;
        let Some(found) = found else {
            return Ok((kept, Vec::new()));
        };
        let producer = found.producer().to_owned();
        // Dropping it gives the lock back, so that `open` can check producer and signing.
        drop(found);
        kept.open(ledger, &producer)?;
        let left = match &kept.lock().stored {
            Some(stored) => stored.unacknowledged().cloned().collect(),
            None => Vec::new(),
        };
        Ok((kept, left))
    }

    /// Returns the position at which the session goes on; begins it if it was not begun.
    pub(super) fn open(&self, ledger: &Ledger, producer: &str) -> Result<Position, SessionError> {
        let mut shared = self.lock();
        let stored = match &mut shared.stored {
            Some(stored) => stored,
            none => none.insert(StoredSession::open(
                &self.state,
                ledger.ledger_id(),
                &self.name,
                producer,
                &self.signing,
                Sync::Each,
            )?),
        };
        let (next, previous) = stored.next();
        Ok(Position {
            session: stored.id(),
            nonce: stored.nonce(),
            next,
            previous,
            skipped_from: stored.skipped_from(),
        })
    }

    /// Keeps statements before they are sent. `false` if nothing may follow a rejected one.
    pub(super) fn append(&self, statements: &[Statement]) -> Result<bool, SessionError> {
        let mut shared = self.lock();
        if shared.set_back {
            return Ok(false);
        }
        match &mut shared.stored {
            Some(stored) => stored.append(statements).map(|()| true),
            None => Ok(true),
        }
    }

    /// Takes in what came of statements, in their order.
    pub(super) fn settle(
        &self,
        payloads: &[Bytes],
        items: &[Appended],
    ) -> Result<(), SessionError> {
        let mut shared = self.lock();
        let Shared { stored, set_back } = &mut *shared;
        let Some(stored) = stored else {
            return Ok(());
        };
        let mut acknowledged = None;
        for (payload, item) in payloads.iter().zip(items) {
            let sequence = statement::parse(payload)?.sequence;
            if item.receipt().is_some() {
                acknowledged = sequence.get().checked_add(1).map(Sequence::new);
                continue;
            }
            if let Some(acknowledged) = acknowledged.take() {
                stored.acknowledge(acknowledged)?;
            }
            // Later statements are refused only because of this one.
            if !*set_back {
                *set_back = true;
                stored.refused(sequence, expected(item))?;
            }
        }
        acknowledged.map_or(Ok(()), |below| stored.acknowledge(below))
    }

    /// The sequence at which the session goes on, if a statement was rejected.
    pub(super) fn set_back_to(&self) -> Option<Sequence> {
        let shared = self.lock();
        let stored = shared.stored.as_ref().filter(|_| shared.set_back);
        stored.map(|stored| stored.next().0)
    }

    /// Each change is one call, which leaves a session that can go on.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sequence that the server says it wants instead of a rejected one.
pub(in crate::commands) fn expected(item: &Appended) -> Option<Sequence> {
    match item {
        Appended::Rejected(rejection) => rejection.expected_sequence.map(Sequence::new),
        _ => None,
    }
}
