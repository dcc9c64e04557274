//! The assessed half of a step: time, what is said of what was recorded, and what the ledger writes
//! itself. The machine is `deed_evidence::assess`; here is what it may ask of the past.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    KeyId, Micros, RULES_ASSESSED, Sequence, SessionId, TaskId,
    assess::{Recorded, Spoken, View, cells::CellKey, said::Said},
    session::Session,
};
use deed_tlog::{Hash, leaf_hash};

use super::{LedgerState, Past, StepError, Touched, Turn};
use crate::{
    admission::{Admitted, AdmittedBatch},
    store::{pack::Packer, read::Run},
};

impl LedgerState {
    /// Whether entries are assessed here.
    pub(super) fn assesses(&self) -> bool {
        self.trust.read().rules_version() >= RULES_ASSESSED
    }

    /// Lets effective time come to that of what is about to be recorded: what is due by then happens
    /// first, and the ledger's own entries about it are written.
    pub(super) fn come_to(
        &mut self,
        turn: &mut Turn,
        received_at: Micros,
        past: &mut impl Past,
    ) -> Result<Micros, StepError> {
        let at = self.effective_time.max(received_at);
        self.effective_time = at;
        if self.book.next_due().is_some_and(|due| due <= at) {
            let trust = Arc::clone(&self.trust);
            let leaf = turn.next_leaf();
            let mut view = StepView::new(turn, &self.sessions, past);
            self.book.advance(&mut view, &trust.read(), leaf, at)?;
            self.write_owed(turn, past)?;
        }
        Ok(at)
    }

    /// Assesses a statement that was recorded.
    pub(super) fn assess(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        (leaf, leaf_hash): (u64, Hash),
        past: &mut impl Past,
    ) -> Result<(), StepError> {
        let trust = self.trust.read();
        if trust.rules_version() < RULES_ASSESSED {
            return Ok(());
        }
        let parsed;
        let said = match &statement.said {
            Some(said) => said,
            None => {
                parsed = said(batch, statement, leaf)?;
                &parsed
            }
        };
        let header = batch.header(statement, self.id);
        let spoken = Spoken {
            leaf,
            leaf_hash,
            at: self.effective_time,
            received_at: batch.received_at(),
            header: &header,
            payload: batch.payload(statement),
            payload_digest: statement.payload_digest,
            said,
            key: statement.authorship.key(),
        };
        let mut view = StepView::new(turn, &self.sessions, past);
        let assessed = self.book.record(&mut view, &trust, &spoken)?;
        turn.assessments.recorded(&assessed);
        if assessed.intent.is_some() || !assessed.findings.is_empty() {
            turn.assessed.push((statement.envelope, assessed));
        }
        Ok(())
    }

    /// Writes what the ledger itself has to say.
    pub(super) fn write_owed(
        &mut self,
        turn: &mut Turn,
        past: &mut impl Past,
    ) -> Result<(), StepError> {
        while self.book.owes() {
            let leaf = turn.next_leaf();
            let trust = self.trust.read();
            let mut view = StepView::new(turn, &self.sessions, past);
            let entry = self
                .book
                .ledger_entry(&mut view, &trust, leaf, self.effective_time)?;
            let Some(entry) = entry else { break };
            turn.push(&entry, leaf_hash(&entry));
            turn.assessments.written(&entry);
        }
        Ok(())
    }

    /// Lets time come to `now` in a ledger in which nothing else happens. Nothing is recorded if
    /// nothing is due.
    pub(crate) fn tick(
        &mut self,
        turn: &mut Turn,
        now: Micros,
        past: &mut impl Past,
    ) -> Result<(), StepError> {
        let at = self.effective_time.max(now);
        if self.book.next_due().is_none_or(|due| due > at) {
            return Ok(());
        }
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, past);
        self.book.tick(&mut view, &trust.read(), leaf, at)?;
        self.write_owed(turn, past)
    }

    /// Writes a receipt of a task; its leaf, or `None` if nothing of the task is here.
    pub(crate) fn receipt(
        &mut self,
        turn: &mut Turn,
        task: TaskId,
        now: Micros,
        past: &mut impl Past,
    ) -> Result<Option<u64>, StepError> {
        let mut view = StepView::new(turn, &self.sessions, past);
        if !self.assesses() || self.book.task(&mut view, task)?.is_none() {
            return Ok(None);
        }
        self.come_to(turn, now, past)?;
        let mut view = StepView::new(turn, &self.sessions, past);
        self.book.request_receipt(&mut view, task)?;
        let leaf = turn.next_leaf();
        self.write_owed(turn, past)?;
        Ok(Some(leaf))
    }
}

/// What a statement says; read here only where admission did not know that it would be asked.
pub(super) fn said(
    batch: &AdmittedBatch,
    statement: &Admitted,
    leaf: u64,
) -> Result<Said, StepError> {
    let payload = Bytes::copy_from_slice(batch.payload(statement));
    Said::read(&payload).map_err(|error| StepError::Entry {
        leaf,
        reason: error.to_string(),
    })
}

/// What the assessment asks of the past during a turn.
pub(super) struct StepView<'t, P> {
    packer: &'t Packer,
    next_leaf: u64,
    touched: &'t HashMap<SessionId, Touched>,
    sessions: &'t HashMap<SessionId, (Session, Run)>,
    past: &'t mut P,
}

impl<'t, P> StepView<'t, P> {
    pub(super) fn new(
        turn: &'t Turn,
        sessions: &'t HashMap<SessionId, (Session, Run)>,
        past: &'t mut P,
    ) -> Self {
        Self {
            packer: &turn.packer,
            next_leaf: turn.next_leaf(),
            touched: &turn.touched,
            sessions,
            past,
        }
    }
}

impl<P: Past> StepView<'_, P> {
    /// Returns the answer of `ask` about a session; `None` if nothing was recorded in it.
    fn of_session<T>(
        &mut self,
        session: &SessionId,
        ask: impl Fn(&Session) -> T,
    ) -> Result<Option<T>, StepError> {
        if let Some(touched) = self.touched.get(session) {
            return Ok(touched.session.as_ref().map(ask));
        }
        if let Some((session, _)) = self.sessions.get(session) {
            return Ok(Some(ask(session)));
        }
        let stored = self.past.session(session)?;
        Ok(stored.map(|(session, _)| ask(&session)))
    }

    /// The key that a session is bound to.
    fn bound_to(&mut self, session: &SessionId) -> Result<Option<KeyId>, StepError> {
        let key = self.of_session(session, |session| session.bound_to.key())?;
        Ok(key.flatten())
    }
}

impl<P: Past> View for StepView<'_, P> {
    type Error = StepError;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StepError> {
        Ok(self.past.cell(key)?)
    }

    fn leaf_of(
        &mut self,
        session: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<u64>, StepError> {
        let touched = self.touched.get(session);
        let known = match touched {
            Some(touched) => touched
                .runs
                .iter()
                .rev()
                .find_map(|run| run.leaf_of(sequence)),
            None => self
                .sessions
                .get(session)
                .and_then(|(_, run)| run.leaf_of(sequence)),
        };
        if known.is_some() {
            return Ok(known);
        }
        let run = self.past.run_before(session, sequence)?;
        Ok(run.and_then(|run| run.leaf_of(sequence)))
    }

    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, StepError> {
        self.of_session(session, |session| session.producer.clone())
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<Recorded>, StepError> {
        if leaf >= self.next_leaf {
            return Ok(None);
        }
        let entry = match self.packer.entry(leaf) {
            Some(entry) => entry,
            None => self.past.entry(leaf)?,
        };
        let recorded = Recorded::read(leaf, &entry, |session| self.bound_to(&session))?;
        let Some(recorded) = recorded else {
            return Ok(None);
        };
        // An Intent that is kept as evidence is at the place of something else, or at none.
        let at_place = self.leaf_of(&recorded.session, recorded.sequence)?;
        Ok((at_place == Some(leaf)).then_some(recorded))
    }

    fn damaged(&self, key: &CellKey) -> StepError {
        StepError::Cell { key: *key }
    }
}
