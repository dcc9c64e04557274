//! The memory in which a ledger keeps what it could read again, and the bounds on it.

use std::{cmp::Reverse, collections::HashMap};

use deed_evidence::{SessionId, session::Session};

use super::{LedgerState, StateReader, StepError};
use crate::{ledger::policies::bytes_in_force, store::read::Run};

/// Most bytes of the assessment that a ledger holds in memory. They are few, because memory that is
/// given back and used again costs more than reading a cell now and then.
pub(crate) const CELLS_HELD_MAX: usize = 8 << 20;

/// Most bytes of sessions that a ledger holds in memory.
const SESSIONS_HELD_MAX: usize = 16 << 20;

/// Most timers that a ledger holds in memory: the next ones, and those that were set or undone
/// lately.
const TIMERS_AT_HAND_MAX: usize = 4_096;

/// Bytes of a timer in memory, its room in the tables included.
const TIMER_BYTES: usize = 100;

/// Bytes of a session in memory without its producer's name: the session itself, and its room in a
/// table of which half may be empty.
const SESSION_BYTES: usize = 2 * size_of::<(SessionId, (Session, Run))>();

impl LedgerState {
    /// Forgets what is in memory beyond the bounds, before a turn begins.
    pub(super) fn keep_bounds(&mut self, reader: &mut impl StateReader) -> Result<(), StepError> {
        if self.assessor.cells_held() > CELLS_HELD_MAX {
            reader.settle()?;
            self.assessor.forget_cells();
            self.assessor.begins_at(self.edge.size().get());
        }
        if self.assessor.timers_at_hand() > TIMERS_AT_HAND_MAX {
            reader.settle()?;
            self.assessor.forget_timers();
        }
        if self.session_bytes() > SESSIONS_HELD_MAX {
            // A session that is not cached must be in the store, also if the last turn made it.
            reader.settle()?;
            self.forget_sessions();
        }
        Ok(())
    }

    /// Returns the bytes that the ledger holds in memory and could read again: sessions, and the
    /// cells and timers of the assessment. It is an estimate, with the containers.
    pub fn held(&self) -> usize {
        let timers = self.assessor.timers_at_hand() * TIMER_BYTES;
        self.session_bytes() + self.assessor.held() + timers
    }

    /// Returns the bytes of the evidence policy in force, which stays in memory as long as this
    /// state.
    pub(crate) fn policy_bytes(&self) -> usize {
        bytes_in_force(&self.trust)
    }

    /// Forgets what can be read again. Every finished turn must be in the store, and none may be
    /// open.
    pub(crate) fn forget(&mut self) {
        self.assessor.forget();
        self.assessor.begins_at(self.edge.size().get());
        self.forget_sessions();
    }

    fn forget_sessions(&mut self) {
        self.sessions = HashMap::new();
        self.producer_bytes = 0;
    }

    fn session_bytes(&self) -> usize {
        self.sessions.len() * SESSION_BYTES + self.producer_bytes
    }

    /// Takes a session out of memory.
    pub(super) fn take_session(&mut self, id: &SessionId) -> Option<(Session, Run)> {
        let known = self.sessions.remove(id)?;
        self.producer_bytes -= known.0.producer.len();
        Some(known)
    }

    pub(super) fn keep_session(&mut self, id: SessionId, session: Session, last: Run) {
        self.producer_bytes += session.producer.len();
        if let Some((before, _)) = self.sessions.insert(id, (session, last)) {
            self.producer_bytes -= before.producer.len();
        }
    }
}

/// Makes the ledgers that hold the most forget what they hold, until all of them hold no more than
/// `most` bytes. Returns the number of sessions that are held then.
pub(crate) fn forget_most(mut states: Vec<&mut LedgerState>, most: usize) -> usize {
    let mut held: usize = states.iter().map(|state| state.held()).sum();
    states.sort_by_key(|state| Reverse(state.held()));
    for state in &mut states {
        if held <= most {
            break;
        }
        held -= state.held();
        state.forget();
        held += state.held();
    }
    states.iter().map(|state| state.sessions()).sum()
}
