//! The part of a replay that assesses, and that checks the entries of the ledger itself.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use bytes::Bytes;
use deed_proto::v1;
use prost::Message as _;

use super::{AuthoredStatement, Fault, Replay, leaf_of};
use crate::{
    Micros, Sequence, SessionId,
    assess::{
        Assessed, Assessor, Changes, ImplicitIntent, Owner, Timer, View, body::ParsedBody,
        cells::CellKey,
    },
    entry::Entry,
    session::{Run, Session},
    statement::{self, BodyKind, Header},
    trust::TrustState,
};

/// The cells, findings and timers of an assessment: the same that a server stores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// All cells but the findings, encoded.
    pub cells: BTreeMap<CellKey, Bytes>,
    /// The findings, by leaf and number there.
    pub findings: BTreeMap<(u64, u32), v1::Finding>,
    /// Timers that are set, each with its owner.
    pub timers: BTreeMap<Timer, Owner>,
}

impl Kept {
    /// Takes what a machine says has changed.
    pub fn take(&mut self, changes: Changes) {
        for (key, bytes) in changes.cells {
            match key {
                CellKey::Finding(leaf, number) => {
                    // The machine has encoded it just now.
                    let finding = v1::Finding::decode(&bytes[..]).unwrap_or_default();
                    self.findings.insert((leaf, number), finding);
                }
                _ => {
                    self.cells.insert(key, bytes.into());
                }
            }
        }
        for (due, owner) in changes.timers {
            match owner {
                Some(owner) => self.timers.insert(due, owner),
                None => self.timers.remove(&due),
            };
        }
    }

    /// The first `limit` timers behind `after`: what [`View::timers_after`] wants.
    #[must_use]
    pub fn timers_after(&self, after: Option<&Timer>, limit: usize) -> Vec<(Timer, Owner)> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let dues = self.timers.range((behind, Bound::Unbounded));
        dues.take(limit)
            .map(|(due, owner)| (*due, *owner))
            .collect()
    }

    /// A cell's bytes, findings among them.
    #[must_use]
    pub fn cell(&self, key: &CellKey) -> Option<Bytes> {
        match key {
            CellKey::Finding(leaf, number) => {
                let finding = self.findings.get(&(*leaf, *number))?;
                Some(finding.encode_to_vec().into())
            }
            _ => self.cells.get(key).cloned(),
        }
    }
}

/// Bytes that the machine may hold besides what is kept.
const HELD_MAX: usize = 64 << 20;

struct Past<'a> {
    kept: &'a Kept,
    implicit: &'a HashMap<u64, ImplicitIntent>,
    sessions: &'a BTreeMap<SessionId, (Session, Vec<Run>)>,
}

impl View for Past<'_> {
    type Error = Fault;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, Fault> {
        Ok(self.kept.cell(key))
    }

    fn leaf_of(&mut self, session: &SessionId, sequence: Sequence) -> Result<Option<u64>, Fault> {
        let known = self.sessions.get(session);
        Ok(known.and_then(|(_, runs)| leaf_of(runs, sequence)))
    }

    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, Fault> {
        let known = self.sessions.get(session);
        Ok(known.map(|(session, _)| session.producer.clone()))
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, Fault> {
        Ok(self.implicit.get(&leaf).cloned())
    }

    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, Fault> {
        Ok(self.kept.timers.get(timer).copied())
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, Fault> {
        Ok(self.kept.timers_after(after, limit))
    }

    fn damaged(&self, key: &CellKey) -> Fault {
        Fault::Damaged {
            key: hex::encode(key.to_bytes()),
        }
    }
}

impl Replay {
    /// The machine with what it may ask for; `None` if entries are not assessed.
    fn machine(&mut self) -> Option<(&mut Assessor, Past<'_>, &TrustState)> {
        let past = Past {
            kept: &self.kept,
            implicit: &self.implicit,
            sessions: &self.sessions,
        };
        Some((self.assessor.as_mut()?, past, &self.registry))
    }

    /// Before a statement or a manifest at leaf `index`: time comes to `at`, and nothing that the
    /// ledger had to write may be missing.
    pub(super) fn advance_time(&mut self, index: u64, at: Micros) -> Result<(), Fault> {
        self.nothing_is_pending(index)?;
        self.effective_time = at;
        if let Some((assessor, mut past, registry)) = self.machine() {
            assessor.advance(&mut past, registry, index, at)?;
        }
        self.nothing_is_pending(index)?;
        self.nothing_is_due(at)
    }

    /// More fires in front of one entry than the rules allow: a Tick was left out.
    fn nothing_is_due(&self, at: Micros) -> Result<(), Fault> {
        match &self.assessor {
            Some(assessor) if assessor.is_due(at) => Err(Fault::LeftOut {
                body: BodyKind::Tick.name(),
            }),
            _ => Ok(()),
        }
    }

    /// Fails if the ledger has an entry to write before leaf `index`.
    pub(super) fn nothing_is_pending(&mut self, index: u64) -> Result<(), Fault> {
        match self.pending_entry(index)? {
            None => Ok(()),
            Some(entry) => Err(Fault::LeftOut {
                body: body_of(&entry).name(),
            }),
        }
    }

    /// The next entry that the ledger has to write, if there is one.
    fn pending_entry(&mut self, index: u64) -> Result<Option<Bytes>, Fault> {
        let at = self.effective_time;
        match self.machine() {
            Some((assessor, mut past, registry)) if assessor.has_pending() => {
                assessor.ledger_entry(&mut past, registry, index, at)
            }
            _ => Ok(None),
        }
    }

    /// An entry of the ledger itself: what stands before it must call for it, to the byte.
    pub(super) fn ledgers_own(
        &mut self,
        index: u64,
        bytes: &Bytes,
        header: &Header<'_>,
        at: Micros,
    ) -> Result<(), Fault> {
        let body = header.body;
        if let Some(wanted) = self.pending_entry(index)? {
            return same(&wanted, bytes, body);
        }
        let from = std::mem::replace(&mut self.effective_time, at);
        if let Some((assessor, mut past, registry)) = self.machine() {
            match clock_in(bytes) {
                Some(clock) if body == BodyKind::Tick => {
                    assessor.confirm_clock(&mut past, registry, index, (from, at), clock)?;
                }
                _ if body == BodyKind::Tick => assessor.tick(&mut past, registry, index, at)?,
                _ => assessor.advance(&mut past, registry, index, at)?,
            }
        }
        if body != BodyKind::Tick {
            self.nothing_is_due(at)?;
        }
        if let Some(wanted) = self.pending_entry(index)? {
            return same(&wanted, bytes, body);
        }
        if body == BodyKind::TaskReceipt
            && is_requested(bytes)
            && let (Some(task), Some((assessor, mut past, _))) = (header.task, self.machine())
        {
            assessor.request_receipt(&mut past, task)?;
        }
        match self.pending_entry(index)? {
            Some(wanted) => same(&wanted, bytes, body),
            None => Err(Fault::Uncalled { body: body.name() }),
        }
    }

    /// Assesses a statement that was recorded.
    pub(super) fn assess(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<Assessed>, Fault> {
        let at = self.effective_time;
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        registry.can_judge(authored.header.body)?;
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        let recorded = authored.recorded(&parsed, at);
        let assessed = assessor.record(&mut past, registry, &recorded)?;
        let implicit = assessor.implicit(authored.leaf).cloned();
        if let Some(implicit) = implicit {
            self.implicit.insert(authored.leaf, implicit);
        }
        Ok(Some(assessed))
    }

    /// The leaf of the statement that a second one for the same place in a session contradicts:
    /// evidence against their author, if the author signed both, and recorded once. `None` if there
    /// is nothing that it contradicts, or that is on record.
    pub(super) fn contradicted(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<u64>, Fault> {
        let (session, sequence) = (authored.header.session, authored.header.sequence);
        let known = self.sessions.get(&session);
        let Some(first) = known.and_then(|(_, runs)| leaf_of(runs, sequence)) else {
            // In a gap, or not there yet.
            return Ok(None);
        };
        let digest = crate::PayloadDigest::of(authored.entry.payload);
        let recorded = usize::try_from(first).ok();
        let recorded = recorded.and_then(|first| self.payloads.get(first));
        let same = recorded.is_none_or(|start| digest.as_bytes().starts_with(start));
        if same || authored.speaker.key.is_none() {
            return Ok(None);
        }
        let Some((assessor, mut past, _)) = self.machine() else {
            return Ok(None);
        };
        let known = assessor.equivocated(&mut past, session, sequence)?;
        Ok(known.is_none().then_some(first))
    }

    /// Takes a statement as evidence: it contradicts the one at leaf `first`.
    pub(super) fn equivocation(
        &mut self,
        authored: AuthoredStatement<'_>,
        first: u64,
    ) -> Result<Option<Assessed>, Fault> {
        let at = self.effective_time;
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        let recorded = authored.recorded(&parsed, at);
        assessor
            .equivocation(&mut past, registry, &recorded, first)
            .map(Some)
    }

    /// Takes a statement of a batch that is kept as evidence.
    pub(super) fn kept_as_evidence(
        &mut self,
        authored: AuthoredStatement<'_>,
    ) -> Result<Option<Assessed>, Fault> {
        if let Some(first) = self.contradicted(authored)? {
            let shown = self.open.as_mut().and_then(|open| open.evidence.as_mut());
            if let Some(shown) = shown {
                *shown += 1;
            }
            return self.equivocation(authored, first);
        }
        let at = self.effective_time;
        let Some((assessor, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        let recorded = authored.recorded(&parsed, at);
        assessor.beside(&mut past, registry, &recorded).map(Some)
    }

    /// Takes what has changed out of the machine.
    pub(super) fn settle(&mut self) {
        let Some(assessor) = &mut self.assessor else {
            return;
        };
        self.kept.take(assessor.take_changes());
        if assessor.held() > HELD_MAX {
            assessor.forget();
        }
    }
}

/// The entry that is there must be the one that the entries before it give.
pub(super) fn same(wanted: &Bytes, found: &Bytes, body: BodyKind) -> Result<(), Fault> {
    if wanted == found {
        return Ok(());
    }
    let owed = body_of(wanted);
    if owed == body {
        Err(Fault::False { body: body.name() })
    } else {
        Err(Fault::LeftOut { body: owed.name() })
    }
}

/// The body of an entry that the machine made.
pub(super) fn body_of(entry: &Bytes) -> BodyKind {
    let entry = Entry::parse(entry).ok();
    let header = entry.and_then(|entry| statement::parse(entry.payload).ok());
    header.map_or(BodyKind::Tick, |header| header.body)
}

/// The time of the clock that a Tick confirms, if it confirms one.
fn clock_in(entry: &Bytes) -> Option<Micros> {
    let entry = Entry::parse(entry).ok()?;
    match v1::Statement::decode(entry.payload).ok()?.body? {
        v1::statement::Body::Tick(tick) if tick.clock_us > 0 => Some(Micros::new(tick.clock_us)),
        _ => None,
    }
}

/// Returns true if a receipt was asked for, by its own word.
pub(super) fn is_requested(entry: &Bytes) -> bool {
    let entry = Entry::parse(entry).ok();
    let decoded = entry.and_then(|entry| v1::Statement::decode(entry.payload).ok());
    match decoded.and_then(|decoded| decoded.body) {
        Some(v1::statement::Body::TaskReceipt(receipt)) => receipt.requested,
        _ => false,
    }
}
