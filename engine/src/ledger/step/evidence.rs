//! Second statements for a sequence of a session, which are kept as evidence against the author who
//! signed both.
//!
//! The leaf of such a statement consumes no sequence, is no act, and refers to no content. One is
//! kept for each sequence. A batch is kept whole, because only all of it can be held against its
//! manifest, and only if it shows an equivocation that is not on record yet.

use deed_evidence::{Sequence, assess::RecordedStatement, session, trust::Speaker};
use deed_tlog::LeafIndex;

use super::{
    LedgerState, Placement, RejectReason, StateReader, StepError, Turn,
    assessing::{StepView, said, unread, unreadable},
    brings_erased, recorded_at,
};
use crate::admission::{Admitted, AdmittedBatch, Authorship, StatementBatch};

impl LedgerState {
    /// Places a second statement for a sequence of a session. If its author signed it, it is
    /// evidence against that author: it is recorded once, and has no other effect.
    pub(super) fn equivocation(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        first: u64,
        expected: Sequence,
        reader: &mut impl StateReader,
    ) -> Result<Placement, StepError> {
        let reused = Placement::Refused(session::Refusal::SequenceReused { expected }.into());
        let is_evidence = matches!(statement.authorship, Authorship::Signed(_))
            && !batch.header(statement).body.is_trust()
            && brings_erased(batch, statement).is_none()
            && self.may_be_evidence(batch, statement)
            && unread(batch, statement).is_none()
            && !self.is_equivocated(turn, batch, statement, reader)?;
        if !is_evidence {
            return Ok(reused);
        }
        if self.is_late(batch) {
            return Ok(Placement::Late);
        }
        self.advance_time(turn, batch.received_at(), reader)?;
        let leaf = turn.next_leaf();
        self.keep(turn, batch, statement, Some(first), reader)?;
        self.write_ledger_entries(turn, reader)?;
        Ok(Placement::Equivocation { leaf, expected })
    }

    /// Places a batch whose first sequence is used, by something else than this batch.
    pub(super) fn equivocating_batch(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        group: &StatementBatch,
        expected: Sequence,
        reader: &mut impl StateReader,
    ) -> Result<Vec<Placement>, StepError> {
        let members = &group.members;
        let reused = |member: &Admitted| {
            let refusal = session::Refusal::SequenceReused { expected };
            group.refused(member, refusal.into())
        };
        let Some(first) = members.first() else {
            return Ok(Vec::new());
        };
        let refused = members
            .iter()
            .any(|one| brings_erased(batch, one).is_some() || unread(batch, one).is_some());
        if refused || !self.may_be_evidence(batch, first) {
            return Ok(reused(first));
        }
        let mut contradicted = Vec::with_capacity(members.len());
        for member in members {
            let leaf = self.contradicted(turn, batch, member, expected, reader)?;
            contradicted.push(leaf);
        }
        let mut pairs = contradicted.iter().zip(members);
        let culprit = pairs.find_map(|(leaf, member)| leaf.map(|_| member));
        let Some(culprit) = culprit else {
            return Ok(reused(first));
        };
        if self.is_late(batch) {
            return Ok(group.late());
        }

        self.advance_time(turn, batch.received_at(), reader)?;
        turn.push(batch.entry(&group.manifest), group.manifest.leaf_hash);
        let whole = RejectReason::Batch {
            culprit: culprit.envelope,
        };
        let mut placements = vec![Placement::Refused(whole.clone())];
        for (member, first) in members.iter().zip(contradicted) {
            let leaf = turn.next_leaf();
            self.keep(turn, batch, member, first, reader)?;
            placements.push(match first {
                Some(_) => Placement::Equivocation { leaf, expected },
                None => Placement::Refused(whole.clone()),
            });
        }
        // These come behind the batch, which must lie in one piece.
        self.write_ledger_entries(turn, reader)?;
        Ok(placements)
    }

    /// Returns the leaf of the statement that a member of a second batch contradicts; `None` if it
    /// contradicts none, or if that is on record already.
    fn contradicted(
        &mut self,
        turn: &Turn,
        batch: &AdmittedBatch,
        member: &Admitted,
        expected: Sequence,
        reader: &mut impl StateReader,
    ) -> Result<Option<u64>, StepError> {
        let header = batch.header(member);
        if header.sequence >= expected && expected.get() != u64::MAX {
            // Nothing was recorded at this sequence.
            return Ok(None);
        }
        let delta = turn.deltas.get(&header.session);
        let at = delta.and_then(|delta| {
            let runs = delta.runs.iter();
            runs.rev().find_map(|run| run.leaf_of(header.sequence))
        });
        match recorded_at(turn, &header, at, reader)? {
            Some((first, payload)) if payload != batch.payload(member) => {
                let known = self.is_equivocated(turn, batch, member, reader)?;
                Ok((!known).then_some(first.leaf))
            }
            _ => Ok(None),
        }
    }

    /// Returns true if a second statement can be held against its author: the rules provide for
    /// that, and the author may still speak.
    fn may_be_evidence(&self, batch: &AdmittedBatch, statement: &Admitted) -> bool {
        let header = batch.header(statement);
        let at = self.effective_time.max(batch.received_at());
        let speaker = Speaker {
            key: statement.authorship.key(),
            principal_leaf: statement.principal_leaf.map(LeafIndex::new),
        };
        let may_speak = || self.trust.read().may_speak(&speaker, header.producer, at);
        self.assesses() && may_speak().is_ok()
    }

    fn is_equivocated(
        &mut self,
        turn: &Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        reader: &mut impl StateReader,
    ) -> Result<bool, StepError> {
        let header = batch.header(statement);
        let mut view = StepView::new(turn, &self.sessions, reader);
        let (session, sequence) = (header.session, header.sequence);
        let known = self.assessor.equivocated(&mut view, session, sequence)?;
        Ok(known.is_some())
    }

    /// Keeps a statement as evidence. `first` is the leaf of the statement that it contradicts, if
    /// any.
    fn keep(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        first: Option<u64>,
        reader: &mut impl StateReader,
    ) -> Result<(), StepError> {
        let leaf = turn.next_leaf();
        turn.push(batch.entry(statement), statement.leaf_hash);
        let said = said(batch, statement).map_err(|error| unreadable(leaf, &error))?;
        let header = batch.header(statement);
        let recorded = RecordedStatement {
            leaf,
            leaf_hash: statement.leaf_hash,
            at: self.effective_time,
            received_at: batch.received_at(),
            header: &header,
            payload: batch.payload(statement),
            payload_digest: statement.payload_digest,
            parsed: &said,
            key: statement.authorship.key(),
        };
        let trust = self.trust.read();
        let mut view = StepView::new(turn, &self.sessions, reader);
        match first {
            Some(first) => self
                .assessor
                .equivocation(&mut view, &trust, &recorded, first)?,
            None => self.assessor.beside(&mut view, &trust, &recorded)?,
        };
        Ok(())
    }
}
