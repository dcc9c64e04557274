//! The assessed half of a step: time, what is said of what was recorded, and what the ledger writes
//! itself. The machine is `deed_evidence::assess`; here is what it may ask of the past.

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
    Confirmed, LedgerState, RejectReason, StateReader, StatementBatch, StepError, Turn,
    touched::SessionDeltas,
};
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
    pub(super) fn advance_time(
        &mut self,
        turn: &mut Turn,
        received_at: Micros,
        past: &mut impl StateReader,
    ) -> Result<Micros, StepError> {
        let at = self.effective_time.max(received_at);
        while self.fire_portion(turn, at, past)? {}
        self.effective_time = at;
        if self.assessor.is_due(at) {
            let trust = Arc::clone(&self.trust);
            let leaf = turn.next_leaf();
            let mut view = StepView::new(turn, &self.sessions, past);
            self.assessor.advance(&mut view, &trust.read(), leaf, at)?;
            self.write_ledger_entries(turn, past)?;
        }
        Ok(at)
    }

    /// Writes a Tick where more is due by `at` than may fire in front of one entry. Returns true if it
    /// did: there may be more of that.
    fn fire_portion(
        &mut self,
        turn: &mut Turn,
        at: Micros,
        past: &mut impl StateReader,
    ) -> Result<bool, StepError> {
        let mut view = StepView::new(turn, &self.sessions, past);
        if !self.assessor.is_due(at) || !self.assessor.crowded(&mut view, at)? {
            return Ok(false);
        }
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor.tick(&mut view, &trust.read(), leaf, at)?;
        self.write_ledger_entries(turn, past)?;
        Ok(true)
    }

    /// Lets time come on by one portion of what is due by `received_at`, if that is more than may fire
    /// in front of one entry. Returns true if it is not there yet: the caller goes on while its turn
    /// lasts, and leaves the rest to a later one, so that what fires in one ledger holds up no other.
    /// The entries are the same either way.
    pub(crate) fn is_behind(
        &mut self,
        turn: &mut Turn,
        received_at: Micros,
        past: &mut impl StateReader,
    ) -> Result<bool, StepError> {
        let at = self.effective_time.max(received_at);
        if !self.fire_portion(turn, at, past)? {
            return Ok(false);
        }
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor.crowded(&mut view, at)
    }

    /// Reads the next timers and what is kept of the ledger's clock, if they are not at hand.
    pub(super) fn look_at_timers(
        &mut self,
        turn: &Turn,
        past: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor.look_ahead(&mut view)?;
        self.due = self.assessor.timers_held(&mut view)?;
        self.clock = self.assessor.clock(&mut view)?;
        Ok(())
    }

    /// Returns the reason why a statement's deadline is not taken: it is too far away, or `count` more
    /// timers are more than its speaker may hold. An Outcome is never refused for a timer: it is
    /// evidence, and what the policy wants seen of it is not its speaker's choice.
    pub(super) fn beyond_timers(
        &mut self,
        turn: &Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        count: u64,
        past: &mut impl StateReader,
    ) -> Result<Option<RejectReason>, StepError> {
        if statement.said.is_none() && !self.assesses() {
            // Nothing was read of it, and nothing needs to be.
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
        let mut view = StepView::new(turn, &self.sessions, past);
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

    /// The same for a batch, all of which one key has signed.
    pub(super) fn batch_beyond_timers<'b>(
        &mut self,
        turn: &Turn,
        group: &StatementBatch<'b>,
        past: &mut impl StateReader,
    ) -> Result<Option<(&'b Admitted, RejectReason)>, StepError> {
        if !self.assesses() {
            return Ok(None);
        }
        let mut count = 0;
        for member in group.members {
            let at = self.effective_time.max(group.batch.received_at());
            if deadline(group.batch, member, at).is_none() {
                continue;
            }
            count += 1;
            if let Some(refusal) = self.beyond_timers(turn, group.batch, member, count, past)? {
                return Ok(Some((member, refusal)));
            }
        }
        Ok(None)
    }

    /// Notes that an operator has confirmed the clock: where entries are older than what it said then,
    /// and where the ledger's own time is ahead of it. Elsewhere, and where that was noted before, it
    /// does nothing.
    pub fn confirm_clock(
        &mut self,
        turn: &mut Turn,
        confirmed: Confirmed,
        past: &mut impl StateReader,
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
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor
            .confirm_clock(&mut view, &trust.read(), leaf, (from, at), clock)?;
        self.write_ledger_entries(turn, past)?;
        let mut view = StepView::new(turn, &self.sessions, past);
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
        past: &mut impl StateReader,
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
        let mut view = StepView::new(turn, &self.sessions, past);
        let assessed = self.assessor.record(&mut view, &trust, &recorded)?;
        turn.assessments.recorded(&assessed);
        if assessed.intent.is_some() || !assessed.findings.is_empty() {
            turn.assessed.push((statement.envelope, assessed));
        }
        Ok(())
    }

    /// Writes what the ledger itself has to say.
    pub(super) fn write_ledger_entries(
        &mut self,
        turn: &mut Turn,
        past: &mut impl StateReader,
    ) -> Result<(), StepError> {
        while self.assessor.has_pending() {
            let leaf = turn.next_leaf();
            let trust = self.trust.read();
            let mut view = StepView::new(turn, &self.sessions, past);
            let entry = self
                .assessor
                .ledger_entry(&mut view, &trust, leaf, self.effective_time)?;
            let Some(entry) = entry else { break };
            turn.push(&entry, leaf_hash(&entry));
            turn.assessments.written(&entry);
        }
        let mut view = StepView::new(turn, &self.sessions, past);
        self.due = self.assessor.timers_held(&mut view)?;
        Ok(())
    }

    /// Lets time come to `now` in a ledger in which nothing else happens, with one Tick: after that more
    /// may be due. Nothing is recorded if nothing is due.
    pub fn tick(
        &mut self,
        turn: &mut Turn,
        now: Micros,
        past: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let at = self.effective_time.max(now);
        if !self.assessor.is_due(at) {
            return Ok(());
        }
        self.effective_time = at;
        let trust = Arc::clone(&self.trust);
        let leaf = turn.next_leaf();
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor.tick(&mut view, &trust.read(), leaf, at)?;
        self.write_ledger_entries(turn, past)
    }

    /// Writes a receipt of a task; its leaf, or `None` if nothing of the task is here.
    pub fn receipt(
        &mut self,
        turn: &mut Turn,
        task: TaskId,
        now: Micros,
        past: &mut impl StateReader,
    ) -> Result<Option<u64>, StepError> {
        let mut view = StepView::new(turn, &self.sessions, past);
        if !self.assesses() || self.assessor.task(&mut view, task)?.is_none() {
            return Ok(None);
        }
        self.advance_time(turn, now, past)?;
        let mut view = StepView::new(turn, &self.sessions, past);
        self.assessor.request_receipt(&mut view, task)?;
        let leaf = turn.next_leaf();
        self.write_ledger_entries(turn, past)?;
        Ok(Some(leaf))
    }
}

/// The time at which something happens because of a statement, unless it comes first; by its own word.
/// Of one that cannot be read there is none: it is refused for that.
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

/// What a statement says; read here only where admission did not know that it would be asked.
pub(super) fn said(batch: &AdmittedBatch, statement: &Admitted) -> Result<ParsedBody, WireError> {
    let payload = Bytes::copy_from_slice(batch.payload(statement));
    ParsedBody::read(&payload)
}

/// Returns the reason why a statement is not recorded that cannot be read: whoever sent it is told, and
/// others' statements go on. Admission has read what it knew to be assessed.
pub(super) fn unread(batch: &AdmittedBatch, statement: &Admitted) -> Option<RejectReason> {
    match statement.said {
        Some(_) => None,
        None => said(batch, statement).err().map(RejectReason::Unread),
    }
}

/// What was recorded cannot be read: [`unread`] has said before that it can.
pub(super) fn unreadable(leaf: u64, error: &WireError) -> StepError {
    let reason = error.to_string();
    StepError::Entry { leaf, reason }
}

/// What the assessment asks of the past during a turn.
pub(super) struct StepView<'t, P> {
    packer: &'t Packer,
    next_leaf: u64,
    touched: &'t SessionDeltas,
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

impl<P: StateReader> StepView<'_, P> {
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

impl<P: StateReader> View for StepView<'_, P> {
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

    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, StepError> {
        if leaf >= self.next_leaf {
            return Ok(None);
        }
        let entry = match self.packer.entry(leaf) {
            Some(entry) => entry,
            None => self.past.entry(leaf)?,
        };
        let recorded = ImplicitIntent::read(leaf, &entry, |session| self.bound_to(&session))?;
        let Some(recorded) = recorded else {
            return Ok(None);
        };
        // An Intent that is kept as evidence is at the place of something else, or at none.
        let at_place = self.leaf_of(&recorded.session, recorded.sequence)?;
        Ok((at_place == Some(leaf)).then_some(recorded))
    }

    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, StepError> {
        Ok(self.past.due(timer)?)
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StepError> {
        Ok(self.past.timers_after(after, limit)?)
    }

    fn damaged(&self, key: &CellKey) -> StepError {
        StepError::Cell { key: *key }
    }
}
