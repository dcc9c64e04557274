//! Assessing statements of a task again.

use bytes::Bytes;

use super::{AuthoredStatement, Covered, LeafStatement, TaskReplay, past::Past};
use crate::{
    assess::{Assessed, Assessor, body, body::ParsedBody},
    entry::Entry,
    replay::Fault,
};

impl TaskReplay {
    pub(super) fn record(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<Assessed>, Fault> {
        let at = self.at;
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        self.shared |= authored.header.task == Some(self.task) && names_what_others_may(&parsed);
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        registry.can_judge(authored.header.body)?;
        let assessed = assessor.record(&mut past, registry, &authored.recorded(&parsed, at))?;
        let implicit = assessor.implicit(authored.leaf).cloned();
        if let Some(implicit) = implicit {
            self.implicit.insert(authored.leaf, implicit);
        }
        Ok(Some(assessed))
    }

    pub(super) fn equivocation(
        &mut self,
        authored: AuthoredStatement<'_>,
        first: u64,
    ) -> Result<Assessed, Fault> {
        let (at, sequence) = (self.at, authored.header.sequence);
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Err(Fault::Again { sequence });
        };
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        assessor.equivocation(&mut past, registry, &authored.recorded(&parsed, at), first)
    }

    /// Takes a statement of a batch that is kept as evidence, and that contradicts nothing itself.
    pub(super) fn beside(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<Assessed>, Fault> {
        let at = self.at;
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        assessor
            .beside(&mut past, registry, &authored.recorded(&parsed, at))
            .map(Some)
    }

    pub(super) fn judge_alone(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<Assessed, Fault> {
        let entry = Entry::parse(bytes)?;
        let header = entry.statement()?;
        if header.ledger_id != Some(self.id) || header.task != Some(self.task) {
            return Err(Fault::OtherLedger);
        }
        let statement = LeafStatement {
            leaf: index,
            bytes,
            entry: &entry,
            header: &header,
        };
        let speaker = self.speaker(statement, batch)?;
        self.signed.remove(&index);
        let authored = statement.by(speaker);
        let body = header.body.name();
        if self.assessor.is_none() {
            return Err(Fault::BeyondRules { body });
        }
        let at = self.at.max(entry.received_at);
        let mut past = Past {
            kept: &self.kept,
            implicit: &self.implicit,
            places: &self.places,
            sessions: &self.sessions,
        };
        let registry = self.chain.registry();
        registry.can_judge(header.body)?;
        let mut assessor = Assessor::restore(self.id);
        assessor.look_ahead(&mut past)?;
        while assessor.is_due(at) {
            assessor.advance(&mut past, registry, index, at)?;
        }
        let parsed = ParsedBody::read(&bytes.slice_ref(entry.payload))?;
        assessor.record(&mut past, registry, &authored.recorded(&parsed, at))
    }
}

/// Returns true if a statement adds to a list that all tasks share.
fn names_what_others_may(parsed: &ParsedBody) -> bool {
    match &parsed.body {
        body::Body::Intent(_) => !parsed.correlation_keys.is_empty(),
        body::Body::Grant(grant) => grant.outside_token.is_some(),
        _ => false,
    }
}
