//! The assessed half of a step: effective time, the assessment of recorded statements, and the
//! entries that the ledger writes itself. `deed_evidence::assess` decides about them; [`StepView`]
//! answers what it asks about the past.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    KeyId, Micros, RULES_ASSESSED, Sequence, SessionId, TaskId, WireError,
    assess::{
        AHEAD_MAX_US, ImplicitIntent, Owner, RecordedStatement, Timer, View,
        body::{Body, ParsedBody},
        cells::CellKey,
    },
    session::Session,
};
use deed_tlog::{Hash, leaf_hash};

use super::{
    Confirmed, LedgerState, RejectReason, StateReader, StepError, Turn,
    session_delta::SessionDeltas,
};
use crate::{
    admission::{Admitted, AdmittedBatch, StatementBatch},
    store::{pack::Packer, read::Run},
};

impl LedgerState {
    /// Returns true if the ledger's rules assess entries.
    pub(super) fn assesses(&self) -> bool {
        self.trust.read().rules_version() >= RULES_ASSESSED
    }

    /// Advances effective time to that of an entry that is about to be recorded, and returns it.
    /// Timers that are due by then fire first, and the ledger's own entries about them are written.
    pub(super) fn advance_time(
        &mut self,
        turn: &mut Turn,
        received_at: Micros,
        reader: &mut impl StateReader,
    ) -> Result<Micros, StepError> {
        let at = self.effective_time.max(received_at);
        while self.fire_portion(turn, at, reader)? {}
        self.effective_time = at;
        if self.assessor.is_due(at) {
            let trust = Arc::clone(&self.trust);
            let leaf = turn.next_leaf();
            let mut view = StepView::new(turn, &self.sessions, reader);
            self.assessor.advance(&mut view, &trust.read(), leaf, at)?;
            self.write_ledger_entries(turn, reader)?;
        }
        Ok(at)
    }

    /// Writes a Tick if more timers are due by `at` than may fire in front of one entry. Returns
    /// true if it did; then more of them may be left.
    fn fire_portion(
        &mut self,
        turn: &mut Turn,
        at: Micros,
        reader: &mut impl StateReader,
    ) -> Result<bool, StepError> {
        let mut view = StepView::new(turn, &self.sessions, reader);
        if !self.assessor.is_due(at) || !self.assessor.crowded(&mut view, at)? {
            return Ok(false);
        }
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor.tick(&mut view, &trust.read(), leaf, at)?;
        self.write_ledger_entries(turn, reader)?;
        Ok(true)
    }

    /// Fires one portion of the timers that are due by `received_at`, if those are more than may
    /// fire in front of one entry. Returns true if what is left is still more than that. The caller
    /// goes on while its turn lasts, and leaves the rest to a later turn, so that the timers of one
    /// ledger hold up no other. The entries are the same either way.
    pub(crate) fn is_behind(
        &mut self,
        turn: &mut Turn,
        received_at: Micros,
        reader: &mut impl StateReader,
    ) -> Result<bool, StepError> {
        let at = self.effective_time.max(received_at);
        if !self.fire_portion(turn, at, reader)? {
            return Ok(false);
        }
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor.crowded(&mut view, at)
    }

    /// Reads the next timers, their number, and the ledger's clock, if they are not in memory.
    pub(super) fn look_at_timers(
        &mut self,
        turn: &Turn,
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor.look_ahead(&mut view)?;
        self.due = self.assessor.timers_held(&mut view)?;
        self.clock = self.assessor.clock(&mut view)?;
        Ok(())
    }

    /// Returns the reason why a statement's deadline is refused: it is too far away, or its speaker
    /// may not hold `count` more timers. An Outcome is never refused for a timer, because it is
    /// evidence, and its speaker does not choose what the policy requires to be observed of it.
    pub(super) fn beyond_timers(
        &mut self,
        turn: &Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        count: u64,
        reader: &mut impl StateReader,
    ) -> Result<Option<RejectReason>, StepError> {
        if statement.said.is_none() && !self.assesses() {
            // Admission did not parse the statement, and nobody needs to.
            return Ok(None);
        }
        let at = self.effective_time.max(batch.received_at());
        let Some(deadline) = deadline(batch, statement, at) else {
            return Ok(None);
        };
        if !self.assesses() {
            return Ok(None);
        }
        let latest = Micros::new(at.get().saturating_add(AHEAD_MAX_US));
        if deadline > latest {
            let found = deadline;
            return Ok(Some(RejectReason::DeadlineFar { found, latest }));
        }
        let header = batch.header(statement);
        let (producer, key) = (header.producer, statement.authorship.key());
        let trust = self.trust.read();
        let mut view = StepView::new(turn, &self.sessions, reader);
        let (held, share) = self.assessor.timers_of(&mut view, &trust, producer, key)?;
        let many = held.saturating_add(count) > share;
        let speaker = match key {
            Some(_) => "controller",
            None => "producer (unsigned)",
        };
        Ok(many.then_some(RejectReason::DeadlinesMany {
            speaker,
            held,
            share,
        }))
    }

    /// Returns the first member of a batch whose deadline is refused, with the reason. One key has
    /// signed the whole batch.
    pub(super) fn batch_beyond_timers<'b>(
        &mut self,
        turn: &Turn,
        batch: &AdmittedBatch,
        group: &'b StatementBatch,
        reader: &mut impl StateReader,
    ) -> Result<Option<(&'b Admitted, RejectReason)>, StepError> {
        if !self.assesses() {
            return Ok(None);
        }
        let mut count = 0;
        for member in &group.members {
            let at = self.effective_time.max(batch.received_at());
            if deadline(batch, member, at).is_none() {
                continue;
            }
            count += 1;
            if let Some(refusal) = self.beyond_timers(turn, batch, member, count, reader)? {
                return Ok(Some((member, refusal)));
            }
        }
        Ok(None)
    }

    /// Records that an operator has confirmed the clock, in a ledger whose entries are older than
    /// the confirmed time, or whose own time is ahead of the clock. Does nothing in other ledgers,
    /// or if that was recorded before.
    pub fn confirm_clock(
        &mut self,
        turn: &mut Turn,
        confirmed: Confirmed,
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let Confirmed { clock, now } = confirmed;
        let from = self.effective_time;
        let stands = super::super::stands_still(self.clock, from, now);
        if !self.assesses() || (from >= clock && (from <= now || stands)) {
            return Ok(());
        }
        let at = from.max(now).max(clock);
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor
            .confirm_clock(&mut view, &trust.read(), leaf, (from, at), clock)?;
        self.write_ledger_entries(turn, reader)?;
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.clock = self.assessor.clock(&mut view)?;
        Ok(())
    }

    /// Assesses a statement that was recorded.
    pub(super) fn assess(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        (leaf, leaf_hash): (u64, Hash),
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let trust = self.trust.read();
        if trust.rules_version() < RULES_ASSESSED {
            return Ok(());
        }
        let parsed;
        let said = match &statement.said {
            Some(said) => said,
            None => {
                parsed = said(batch, statement).map_err(|error| unreadable(leaf, &error))?;
                &parsed
            }
        };
        let header = batch.header(statement);
        let recorded = RecordedStatement {
            leaf,
            leaf_hash,
            at: self.effective_time,
            received_at: batch.received_at(),
            header: &header,
            payload: batch.payload(statement),
            payload_digest: statement.payload_digest,
            parsed: said,
            key: statement.authorship.key(),
        };
        let mut view = StepView::new(turn, &self.sessions, reader);
        let assessed = self.assessor.record(&mut view, &trust, &recorded)?;
        turn.assessments.recorded(&assessed);
        if assessed.intent.is_some() || !assessed.findings.is_empty() {
            turn.assessed.push((statement.envelope, assessed));
        }
        Ok(())
    }

    /// Writes the entries that the ledger has to write itself.
    pub(super) fn write_ledger_entries(
        &mut self,
        turn: &mut Turn,
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        while self.assessor.has_pending() {
            let leaf = turn.next_leaf();
            let trust = self.trust.read();
            let mut view = StepView::new(turn, &self.sessions, reader);
            let entry = self
                .assessor
                .ledger_entry(&mut view, &trust, leaf, self.effective_time)?;
            let Some(entry) = entry else { break };
            turn.push(&entry, leaf_hash(&entry));
            turn.assessments.written(&entry);
        }
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.due = self.assessor.timers_held(&mut view)?;
        Ok(())
    }

    /// Advances time to `now` with one Tick, in a ledger that receives nothing. More may be due
    /// after that. If nothing is due, nothing is recorded.
    pub fn tick(
        &mut self,
        turn: &mut Turn,
        now: Micros,
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let at = self.effective_time.max(now);
        if !self.assessor.is_due(at) {
            return Ok(());
        }
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor.tick(&mut view, &trust.read(), leaf, at)?;
        self.write_ledger_entries(turn, reader)
    }

    /// Writes a receipt of a task and returns its leaf; `None` if the ledger does not have the
    /// task.
    pub fn receipt(
        &mut self,
        turn: &mut Turn,
        task: TaskId,
        now: Micros,
        reader: &mut impl StateReader,
    ) -> Result<Option<u64>, StepError> {
        let mut view = StepView::new(turn, &self.sessions, reader);
        if !self.assesses() || self.assessor.task(&mut view, task)?.is_none() {
            return Ok(None);
        }
        self.advance_time(turn, now, reader)?;
        let mut view = StepView::new(turn, &self.sessions, reader);
        self.assessor.request_receipt(&mut view, task)?;
        let leaf = turn.next_leaf();
        self.write_ledger_entries(turn, reader)?;
        Ok(Some(leaf))
    }
}

/// Returns the time that a statement itself sets for something to happen, unless something else
/// comes first. A statement that cannot be parsed has none; it is refused for that.
fn deadline(batch: &AdmittedBatch, statement: &Admitted, at: Micros) -> Option<Micros> {
    let parsed;
    let said = match &statement.said {
        Some(said) => said,
        None => {
            parsed = said(batch, statement).ok()?;
            &parsed
        }
    };
    let deadline = match &said.body {
        Body::TaskOpened { deadline, .. } => *deadline,
        Body::Intent(intent) => intent.deadline,
        Body::Heartbeat { next_within_us } if *next_within_us > 0 => {
            Micros::new(at.get().saturating_add(*next_within_us))
        }
        _ => Micros::new(0),
    };
    (deadline.get() > 0).then_some(deadline)
}

/// Parses the body of a statement, where admission did not know that it would be needed.
pub(super) fn said(batch: &AdmittedBatch, statement: &Admitted) -> Result<ParsedBody, WireError> {
    let payload = Bytes::copy_from_slice(batch.payload(statement));
    ParsedBody::read(&payload)
}

/// Returns the reason for rejecting a statement that cannot be parsed. So its sender is told, and
/// the statements of others go on. Admission has parsed those that it knew to be assessed.
pub(super) fn unread(batch: &AdmittedBatch, statement: &Admitted) -> Option<RejectReason> {
    match statement.said {
        Some(_) => None,
        None => said(batch, statement).err().map(RejectReason::Unread),
    }
}

/// Makes the error for a recorded statement that cannot be parsed, although [`unread`] accepted it.
pub(super) fn unreadable(leaf: u64, error: &WireError) -> StepError {
    let reason = error.to_string();
    StepError::Entry { leaf, reason }
}

/// The assessor's view of the past during a turn.
pub(super) struct StepView<'t, P> {
    packer: &'t Packer,
    next_leaf: u64,
    deltas: &'t SessionDeltas,
    sessions: &'t HashMap<SessionId, (Session, Run)>,
    reader: &'t mut P,
}

impl<'t, P> StepView<'t, P> {
    pub(super) fn new(
        turn: &'t Turn,
        sessions: &'t HashMap<SessionId, (Session, Run)>,
        reader: &'t mut P,
    ) -> Self {
        Self {
            packer: &turn.packer,
            next_leaf: turn.next_leaf(),
            deltas: &turn.deltas,
            sessions,
            reader,
        }
    }
}

impl<P: StateReader> StepView<'_, P> {
    /// Returns the answer of `ask` about a session; `None` if nothing was recorded in it.
    fn of_session<T>(
        &mut self,
        session: &SessionId,
        ask: impl Fn(&Session) -> T,
    ) -> Result<Option<T>, StepError> {
        if let Some(delta) = self.deltas.get(session) {
            return Ok(delta.session.as_ref().map(ask));
        }
        if let Some((session, _)) = self.sessions.get(session) {
            return Ok(Some(ask(session)));
        }
        let stored = self.reader.session(session)?;
        Ok(stored.map(|(session, _)| ask(&session)))
    }

    /// Returns the key that a session is bound to.
    fn bound_to(&mut self, session: &SessionId) -> Result<Option<KeyId>, StepError> {
        let key = self.of_session(session, |session| session.bound_to.key())?;
        Ok(key.flatten())
    }
}

impl<P: StateReader> View for StepView<'_, P> {
    type Error = StepError;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StepError> {
        Ok(self.reader.cell(key)?)
    }

    fn leaf_of(
        &mut self,
        session: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<u64>, StepError> {
        let delta = self.deltas.get(session);
        let known = match delta {
            Some(delta) => delta
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
        let run = self.reader.run_before(session, sequence)?;
        Ok(run.and_then(|run| run.leaf_of(sequence)))
    }

    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, StepError> {
        self.of_session(session, |session| session.producer.clone())
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, StepError> {
        if leaf >= self.next_leaf {
            return Ok(None);
        }
        let entry = match self.packer.entry(leaf) {
            Some(entry) => entry,
            None => self.reader.entry(leaf)?,
        };
        let recorded = ImplicitIntent::read(leaf, &entry, |session| self.bound_to(&session))?;
        let Some(recorded) = recorded else {
            return Ok(None);
        };
        // If the Intent was kept as evidence, another statement has its sequence, or none has.
        let at_place = self.leaf_of(&recorded.session, recorded.sequence)?;
        Ok((at_place == Some(leaf)).then_some(recorded))
    }

    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, StepError> {
        Ok(self.reader.due(timer)?)
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StepError> {
        Ok(self.reader.timers_after(after, limit)?)
    }

    fn damaged(&self, key: &CellKey) -> StepError {
        StepError::Cell { key: *key }
    }
}
