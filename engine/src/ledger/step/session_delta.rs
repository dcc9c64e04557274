//! Sessions during a turn.

use std::{collections::HashMap, convert::Infallible};

use deed_evidence::{
    Micros, PayloadDigest, SessionId,
    entry::Entry,
    session::{BatchStep, Binding, Session},
    trust::Speaker,
};

use super::StepError;
use crate::{
    admission::{Admitted, AdmittedBatch},
    store::{pack::Packer, read::Run},
};

/// Sessions that a turn has used, changed or not.
#[derive(Debug, Default)]
pub(super) struct SessionDeltas {
    places: HashMap<SessionId, usize>,
    all: Vec<(SessionId, SessionDelta)>,
    /// Position of the session that was asked for last: most statements are of the same session as
    /// the one before, and ask for it more than once.
    last: usize,
}

impl SessionDeltas {
    fn place(&self, id: &SessionId) -> Option<usize> {
        match self.all.get(self.last) {
            Some((last, _)) if last == id => Some(self.last),
            _ => self.places.get(id).copied(),
        }
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<&SessionDelta> {
        self.place(id).map(|place| &self.all[place].1)
    }

    /// Returns a session. Calls `look_up` if the turn has not used it yet.
    pub(super) fn get_or_insert<E>(
        &mut self,
        id: SessionId,
        look_up: impl FnOnce() -> Result<SessionDelta, E>,
    ) -> Result<&mut SessionDelta, E> {
        self.last = match self.place(&id) {
            Some(place) => place,
            None => {
                self.all.push((id, look_up()?));
                self.places.insert(id, self.all.len() - 1);
                self.all.len() - 1
            }
        };
        Ok(&mut self.all[self.last].1)
    }

    /// Returns a session. If the turn has not used it yet, nothing is recorded in it.
    pub(super) fn of(&mut self, id: SessionId) -> &mut SessionDelta {
        let Ok(delta) = self.get_or_insert(id, || Ok::<_, Infallible>(SessionDelta::default()));
        delta
    }

    pub(super) fn into_all(self) -> Vec<(SessionId, SessionDelta)> {
        self.all
    }
}

/// The result of judging a session's speaker. It holds until the trust state changes or `until` comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct CachedAuthorization {
    pub(super) speaker: Speaker,
    pub(super) trust_version: u64,
    pub(super) until: Micros,
}

/// A session during a turn.
#[derive(Debug, Default)]
pub(super) struct SessionDelta {
    /// `None` as long as nothing was ever recorded in the session.
    pub(super) session: Option<Session>,
    /// The last stored run, if there is one, and then those of this turn.
    pub(super) runs: Vec<Run>,
    /// Number of `runs` that are stored unchanged: 1, or 0 once the stored run has grown.
    pub(super) unchanged_runs: usize,
    /// The last leaf, if the digest of its payload is not computed yet: most digests are never
    /// needed.
    undigested: Option<u64>,
    pub(super) changed: bool,
    /// The authorization of the last statement's speaker.
    pub(super) authorization: Option<CachedAuthorization>,
}

impl SessionDelta {
    pub(super) fn stored((session, last_run): (Session, Run)) -> Self {
        Self {
            session: Some(session),
            runs: vec![last_run],
            unchanged_runs: 1,
            undigested: None,
            changed: false,
            authorization: None,
        }
    }

    /// Advances the session by a statement, which will be `leaf`.
    pub(super) fn record(&mut self, batch: &AdmittedBatch, statement: &Admitted, leaf: u64) {
        let header = batch.header(statement);
        let digest = self.put_off(statement, leaf);
        match &mut self.session {
            Some(session) => session.advance(&header, digest),
            None => {
                let binding = batch.binding(statement);
                self.session = Some(Session::opened(&header, digest, binding));
            }
        }
        let before = self.runs.len();
        Run::extend(&mut self.runs, header.sequence, leaf);
        if self.runs.len() == before && before == self.unchanged_runs {
            self.unchanged_runs = 0;
        }
        self.changed = true;
    }

    /// Advances the session by a whole batch, whose first statement will be `leaf`.
    pub(super) fn record_batch(
        &mut self,
        producer: &str,
        binding: Binding,
        step: &BatchStep,
        leaf: u64,
    ) {
        self.undigested = None;
        match &mut self.session {
            Some(session) => session.advance_over(step),
            None => self.session = Some(Session::opened_over(producer, step, binding)),
        }
        // The manifest lies between the last run and this one, so this is a new run.
        self.runs.push(Run {
            first: step.first_sequence,
            first_leaf: leaf,
            count: step.count.get().into(),
        });
        self.changed = true;
    }

    /// Returns the digest of a statement's payload; `None` if it is computed only when it is
    /// needed.
    fn put_off(&mut self, statement: &Admitted, leaf: u64) -> Option<PayloadDigest> {
        self.undigested = statement.payload_digest.is_none().then_some(leaf);
        statement.payload_digest
    }

    /// Computes the digest of the last payload, if that was put off.
    pub(super) fn digest(&mut self, packer: &Packer) -> Result<(), StepError> {
        let (Some(leaf), Some(session)) = (self.undigested.take(), &mut self.session) else {
            return Ok(());
        };
        let entry = packer.entry(leaf).unwrap_or_default();
        let entry = Entry::parse(&entry).map_err(|error| StepError::Entry {
            leaf,
            reason: error.to_string(),
        })?;
        session.last_payload = Some(PayloadDigest::of(entry.payload));
        Ok(())
    }
}
