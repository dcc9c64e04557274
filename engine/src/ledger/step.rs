//! The step: the only place that assigns leaf indexes and changes a tree.
//!
//! The step is a deterministic function of a ledger's state and the admitted entries in their
//! order. It reads no clock, draws no random number, and does not depend on where turns are cut:
//! two machines with the same entries have the same root and the same records. (The cuts decide
//! which heads are signed and how entries are packed; neither is part of the ledger's meaning.)

mod assessing;
mod batch;
mod evidence;
mod held;
mod placement;
mod session_delta;
mod turn;

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, RULES_ASSESSED, Sequence, SessionId,
    assess::{Assessor, Owner, Timer, cells, cells::CellKey},
    entry::{Entry, is_late},
    session::{self, Session},
    statement::{AUTHORITY_PRODUCER, SessionHeader},
    trust::{self, Speaker, SpeakerRefusal, TrustRefusal, TrustStatement},
};
use deed_tlog::{LeafIndex, RightEdge, leaf_hash};
use parking_lot::RwLock;

use assessing::unread;
pub(crate) use held::forget_most;
pub use placement::{Placement, RecordedLeaf, RejectReason, StepError};
use session_delta::{CachedAuthorization, SessionDelta, SessionDeltas};
pub(crate) use turn::{Records, Turn};

use crate::{
    admission::{Admitted, AdmittedBatch, Piece},
    content::ContentStatus,
    metrics::Assessments,
    store::{StoreError, pack::Packer, read::Run},
};

/// A ledger's trust state. The step changes it, and admission reads it. Admission may see changes
/// that are not on disk yet: whatever depends on them is written after them, or not at all.
pub(crate) type SharedTrust = Arc<RwLock<trust::TrustState>>;

/// The step's reads of earlier records, from a store that may be a turn or two behind.
pub trait StateReader {
    /// Waits until every finished turn is in the store. Those turns are settled then.
    fn settle(&mut self) -> Result<(), StoreError>;
    /// Returns a session and its last run. Called only for sessions that no unsettled turn has
    /// used.
    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError>;
    /// Returns the run that holds `sequence`, or else the last one before it. Settles first, if
    /// need be.
    fn run_before(&mut self, id: &SessionId, sequence: Sequence)
    -> Result<Option<Run>, StoreError>;
    /// Returns the entry at `leaf`, which is from before this turn. Settles first, if need be.
    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError>;
    /// Returns a cell of the assessment. Called only for cells that no unsettled turn has changed.
    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, StoreError>;
    /// Returns the owner of a timer, if it is set. Called only for timers that no unsettled turn
    /// has changed.
    fn due(&mut self, due: &Timer) -> Result<Option<Owner>, StoreError>;
    /// Returns the first timers behind `after`. Those that unsettled turns have changed may be
    /// missing.
    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, StoreError>;
    /// Returns true if the turn must be given up, because the server ends and does not wait for a
    /// batch.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// An operator's confirmation of the clock, which said `clock` at that moment, and says `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    pub clock: Micros,
    pub now: Micros,
}

/// The state of a ledger between two turns.
#[derive(Debug)]
pub struct LedgerState {
    edge: RightEdge,
    effective_time: Micros,
    trust: SharedTrust,
    /// Sessions that were used lately: a cache of the store, bounded in bytes.
    sessions: HashMap<SessionId, (Session, Run)>,
    /// Bytes of the producers' names in `sessions`.
    producer_bytes: usize,
    /// The assessment of all entries so far. Rules that assess nothing leave it as it is.
    assessor: Assessor,
    /// Number of timers that the ledger holds.
    due: u64,
    /// The last confirmation of the clock by an operator.
    clock: Option<cells::Clock>,
}

impl LedgerState {
    pub fn new(id: LedgerId, edge: RightEdge, effective_time: Micros, trust: SharedTrust) -> Self {
        let mut assessor = Assessor::restore(id);
        assessor.begins_at(edge.size().get());
        Self {
            edge,
            effective_time,
            trust,
            sessions: HashMap::new(),
            producer_bytes: 0,
            assessor,
            due: 0,
            clock: None,
        }
    }

    pub fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// Returns the largest receive time of all leaves. Every rule about time uses it.
    pub fn effective_time(&self) -> Micros {
        self.effective_time
    }

    /// Returns the time of the next deadline, at which the ledger records something even if it
    /// receives nothing; `None` if no deadline is set.
    pub fn next_due(&self) -> Option<Micros> {
        self.assessor.next_due()
    }

    /// Returns the number of deadlines that are set.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Returns the last confirmation of the clock by an operator.
    pub fn clock(&self) -> Option<cells::Clock> {
        self.clock
    }

    /// Returns the number of timers in memory.
    #[cfg(test)]
    pub(crate) fn timers_at_hand(&self) -> usize {
        self.assessor.timers_at_hand()
    }

    /// Begins a turn.
    pub fn begin(&mut self, reader: &mut impl StateReader) -> Result<Turn, StepError> {
        self.keep_bounds(reader)?;
        let turn = self.begin_cached();
        self.look_at_timers(&turn, reader)?;
        Ok(turn)
    }

    fn begin_cached(&self) -> Turn {
        let first_leaf = self.edge.size().get();
        Turn {
            packer: Packer::new(first_leaf),
            leaf_hashes: Vec::new(),
            first_leaf,
            deltas: SessionDeltas::default(),
            trust_leaves: Vec::new(),
            references: Vec::new(),
            erased: Vec::new(),
            assessed: Vec::new(),
            assessments: Assessments::default(),
        }
    }

    /// Makes a new ledger, whose tree has only the genesis entry, and the records of it.
    pub fn create(
        genesis: &[u8],
        created_at: Micros,
        trust: SharedTrust,
    ) -> Result<(Self, Records), StepError> {
        let id = LedgerId::new(leaf_hash(genesis));
        let mut state = Self::new(id, RightEdge::new(), created_at, trust);
        state.assessor = Assessor::new(id);
        let mut turn = state.begin_cached();
        turn.packer.push(genesis);
        turn.leaf_hashes.push(*id.hash());
        let records = state.finish(turn)?;
        Ok((state, records))
    }

    /// Places every payload of a request, in order.
    pub fn apply(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        reader: &mut impl StateReader,
    ) -> Result<Vec<Placement>, StepError> {
        let mut placements = Vec::new();
        self.apply_some(turn, batch, &mut placements, reader, &mut |_| false)?;
        Ok(placements)
    }

    /// Places payloads of a request, in order, from the end of `placements` on, and appends to
    /// `placements`. After each piece, `is_enough` gets the bytes of its entries, and placing ends
    /// if it returns true. So a request may be cut between two of its statements, because it
    /// promises nothing as a whole, but never within a batch. The cut changes no record, except
    /// that others may record something in between.
    pub(crate) fn apply_some(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        placements: &mut Vec<Placement>,
        reader: &mut impl StateReader,
        is_enough: &mut impl FnMut(usize) -> bool,
    ) -> Result<(), StepError> {
        let placed = placements.len();
        placements.reserve_exact(batch.payloads().count() - placed);
        let mut end = 0;
        let left = batch.pieces().iter().skip_while(|piece| {
            end += piece.payloads().count();
            end <= placed
        });
        for piece in left {
            match piece {
                Piece::Single(statement, None) => {
                    placements.push(self.place(turn, batch, statement, reader)?);
                }
                Piece::Single(statement, Some(trust)) => {
                    placements.push(self.place_trust(turn, batch, statement, trust, reader)?);
                }
                Piece::Batch(group) => {
                    placements.extend(self.place_batch(turn, batch, group, reader)?);
                }
            }
            let entries = piece.payloads().map(|payload| batch.entry(payload));
            if is_enough(entries.map(<[u8]>::len).sum()) {
                break;
            }
        }
        Ok(())
    }

    /// Judges a statement by its session, and if it is the next one there, by its speaker.
    fn judge(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        reader: &mut impl StateReader,
    ) -> Result<Judgement, StepError> {
        let header = batch.header(statement);
        let delta = turn.deltas.get_or_insert(header.session, || {
            let known = match self.take_session(&header.session) {
                Some(known) => Some(known),
                None => reader.session(&header.session)?,
            };
            Ok::<_, StepError>(known.map(SessionDelta::stored).unwrap_or_default())
        })?;
        if header.previous.is_some() {
            delta.digest(&turn.packer)?;
        }
        let binding = batch.binding(statement);
        match session::judge(delta.session.as_ref(), &header, binding) {
            Ok(session::SequencePosition::Next) => {}
            Ok(session::SequencePosition::Behind) => {
                let next = delta.session.as_ref().map(|session| session.next);
                let at = delta
                    .runs
                    .iter()
                    .find_map(|run| run.leaf_of(header.sequence));
                let expected = next.unwrap_or(Sequence::FIRST);
                return Ok(Judgement::Behind { at, expected });
            }
            Err(refusal) => return Ok(Judgement::Refused(refusal.into())),
        }
        if header.body.is_trust() {
            // The trust state judges later whether this authority may say it.
            return Ok(Judgement::Next);
        }
        let at = self.effective_time.max(batch.received_at());
        let speaker = Speaker {
            key: statement.authorship.key(),
            principal_leaf: statement.principal_leaf.map(LeafIndex::new),
        };
        let trust = self.trust.read();
        let stands = delta.authorization.is_some_and(|authorization| {
            authorization.speaker == speaker
                && authorization.trust_version == trust.version()
                && at < authorization.until
        });
        if !stands {
            if let Err(refusal) = trust.may_speak(&speaker, header.producer, at) {
                return Ok(Judgement::Refused(refusal.into()));
            }
            delta.authorization = Some(CachedAuthorization {
                speaker,
                trust_version: trust.version(),
                until: trust.stable_until(at),
            });
        }
        Ok(Judgement::Next)
    }

    fn place(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        reader: &mut impl StateReader,
    ) -> Result<Placement, StepError> {
        let beyond_timers = self.beyond_timers(turn, batch, statement, 1, reader)?;
        match self.judge(turn, batch, statement, reader)? {
            Judgement::Next if self.is_late(batch) => Ok(Placement::Late),
            Judgement::Next if let Some(refusal) = brings_erased(batch, statement) => {
                Ok(Placement::Refused(refusal))
            }
            Judgement::Next if let Some(refusal) = self.beyond_rules(batch, statement) => {
                Ok(Placement::Refused(refusal))
            }
            Judgement::Next if let Some(refusal) = &beyond_timers => {
                Ok(Placement::Refused(refusal.clone()))
            }
            Judgement::Next => {
                let at = self.advance_time(turn, batch.received_at(), reader)?;
                let leaf = turn.next_leaf();
                let session = turn.deltas.of(statement.session());
                session.record(batch, statement, leaf);
                turn.push(batch.entry(statement), statement.leaf_hash);
                turn.refer(batch, statement, leaf, at);
                let placed = (leaf, statement.leaf_hash);
                self.assess(turn, batch, statement, placed, reader)?;
                self.write_ledger_entries(turn, reader)?;
                Ok(Placement::Recorded { leaf })
            }
            Judgement::Refused(refusal) => Ok(Placement::Refused(refusal)),
            Judgement::Behind { at, expected } => {
                let header = batch.header(statement);
                let recorded = recorded_at(turn, &header, at, reader)?;
                match recorded {
                    Some((placed, payload)) if payload == batch.payload(statement) => {
                        turn.refer_again(batch, statement, &placed);
                        Ok(Placement::Duplicate(placed))
                    }
                    Some((first, _)) => {
                        self.equivocation(turn, batch, statement, first.leaf, expected, reader)
                    }
                    None => Ok(Placement::Refused(
                        session::Refusal::SequenceReused { expected }.into(),
                    )),
                }
            }
        }
    }

    /// Returns true if a request was received so long before the newest entry that its receive time
    /// would say something false. The receive time is read at admission, so this happens only if
    /// the clock was set or the queue stood still.
    fn is_late(&self, batch: &AdmittedBatch) -> bool {
        is_late(batch.received_at(), self.effective_time) && self.assesses()
    }

    /// Returns the reason why the rules in force refuse a statement's body, or its form.
    fn beyond_rules(&self, batch: &AdmittedBatch, statement: &Admitted) -> Option<RejectReason> {
        let header = batch.header(statement);
        let trust = self.trust.read();
        if header.body.needs_policy()
            && let Err(unreadable) = trust.can_judge(header.body)
        {
            return Some(unreadable.into());
        }
        let found = trust.rules_version();
        drop(trust);
        if found >= RULES_ASSESSED {
            let breach = header.breach.map(RejectReason::Form);
            return breach.or_else(|| unread(batch, statement));
        }
        let owners = header.producer == AUTHORITY_PRODUCER && !header.body.is_trust();
        let needs_assessment = owners || header.body.needs_assessment();
        needs_assessment.then_some(RejectReason::RulesVersion {
            found,
            wanted: RULES_ASSESSED,
        })
    }

    /// Places a trust statement. The trust state at its leaf judges it, and is then changed by it.
    /// Its entry names the trust statement before it, so the entry is completed here.
    fn place_trust(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        said: &TrustStatement,
        reader: &mut impl StateReader,
    ) -> Result<Placement, StepError> {
        match self.judge(turn, batch, statement, reader)? {
            Judgement::Next => {}
            Judgement::Refused(refusal) => return Ok(Placement::Refused(refusal)),
            Judgement::Behind { .. } => return self.place(turn, batch, statement, reader),
        }
        if let Some(refusal) = self.beyond_rules(batch, statement) {
            return Ok(Placement::Refused(refusal));
        }
        if self.is_late(batch) {
            return Ok(Placement::Late);
        }
        let at = self.effective_time.max(batch.received_at());
        let Some(signer) = statement.authorship.key() else {
            let refusal = SpeakerRefusal::SignatureRequired;
            return Ok(Placement::Refused(refusal.into()));
        };
        let trust = Arc::clone(&self.trust);
        let trust = trust.read();
        if let Err(refusal) = trust.judge(said, signer, at) {
            return Ok(Placement::Refused(refusal.into()));
        }
        if let TrustStatement::PolicySet { policy, .. } = said
            && !policy.is_compiled()
        {
            // Admission did not compile the policy, because its signer was no authority then. The
            // step does not compile it either.
            return Ok(Placement::Late);
        }
        if matches!(said, TrustStatement::Erasure(_)) {
            let Some(known) = batch.erasable() else {
                return Ok(Placement::Refused(RejectReason::ErasureElsewhere));
            };
            for one in known {
                let content = one.content;
                let refusal = match one.state {
                    ContentStatus::Held => trust
                        .erasable(&content, &one.references, at)
                        .err()
                        .map(|refusal| TrustRefusal::Erasure(refusal).into()),
                    ContentStatus::Erased(leaf) => {
                        Some(RejectReason::ContentErased { content, leaf })
                    }
                    ContentStatus::Unknown => Some(RejectReason::ContentUnknown { content }),
                };
                if let Some(refusal) = refusal {
                    return Ok(Placement::Refused(refusal));
                }
            }
        }
        drop(trust);
        self.advance_time(turn, batch.received_at(), reader)?;
        if let TrustStatement::Erasure(contents) = said {
            let leaf = turn.next_leaf();
            turn.erased
                .extend(contents.iter().map(|content| (*content, leaf)));
        }
        let assesses = self.assesses();
        let mut trust = self.trust.write();
        let link = trust.head();
        let unlinked = batch.entry(statement);
        let leaf = turn.next_leaf();
        let malformed = |error| StepError::malformed(leaf, &error);
        let entry = Entry {
            previous_trust: Some(link),
            ..Entry::parse(unlinked).map_err(malformed)?
        }
        .encode();
        let hash = leaf_hash(&entry);
        trust.apply(said, at, LeafIndex::new(leaf), hash);
        drop(trust);
        turn.deltas
            .of(statement.session())
            .record(batch, statement, leaf);
        turn.push(&entry, hash);
        turn.trust_leaves.push((leaf, at));
        if assesses {
            self.assess(turn, batch, statement, (leaf, hash), reader)?;
            self.write_ledger_entries(turn, reader)?;
        }
        Ok(Placement::Linked(RecordedLeaf {
            leaf,
            leaf_hash: hash,
            received_at: batch.received_at(),
            principal_leaf: None,
            previous_trust: Some(link),
        }))
    }

    /// Ends a turn: appends its leaves to the tree, and returns the records to be written.
    pub fn finish(&mut self, turn: Turn) -> Result<Records, StepError> {
        let mut tiles = Vec::new();
        self.edge
            .append(&turn.leaf_hashes, &mut |tile| tiles.push(tile));
        let mut sessions = Vec::new();
        for (id, mut delta) in turn.deltas.into_all() {
            delta.digest(&turn.packer)?;
            let (Some(session), Some(&last)) = (delta.session, delta.runs.last()) else {
                // Nothing was ever recorded in this session.
                continue;
            };
            self.keep_session(id, session.clone(), last);
            if delta.changed {
                delta.runs.drain(..delta.unchanged_runs);
                sessions.push((id, session, delta.runs));
            }
        }
        // This order does not depend on where turns are cut.
        sessions.sort_unstable_by_key(|(id, ..)| *id);
        let assessment = self.assessor.take_changes();
        let mut assessments = turn.assessments;
        assessments.changed(&assessment, turn.first_leaf);
        Ok(Records {
            packs: turn.packer.finish(),
            tiles,
            sessions,
            trust_leaves: turn.trust_leaves,
            references: turn.references,
            erased: turn.erased,
            assessment,
            assessments,
        })
    }

    /// Returns the number of sessions in memory.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// Returns the reason for rejecting a new statement that brings erased content back. (A statement
/// that was recorded before the erasure is a duplicate when it is sent again.)
fn brings_erased(batch: &AdmittedBatch, statement: &Admitted) -> Option<RejectReason> {
    let (content, leaf) = batch.erased_attachment(statement)?;
    Some(RejectReason::AttachmentErased { content, leaf })
}

/// The judgement of a statement by its session and its speaker.
enum Judgement {
    /// The statement is the next one of its session.
    Next,
    /// The statement must not be recorded.
    Refused(RejectReason),
    /// The session is past the statement's sequence. `at` is the leaf of that sequence, if the turn
    /// knows it.
    Behind { at: Option<u64>, expected: Sequence },
}

/// Returns the leaf and the payload that were recorded at a statement's session and sequence;
/// `None` if the sequence lies in a gap. `at` is the leaf, if the turn knows it.
fn recorded_at(
    turn: &Turn,
    header: &SessionHeader<'_>,
    at: Option<u64>,
    reader: &mut impl StateReader,
) -> Result<Option<(RecordedLeaf, Bytes)>, StepError> {
    let leaf = match at {
        Some(leaf) => leaf,
        None => {
            let run = reader.run_before(&header.session, header.sequence)?;
            match run.and_then(|run| run.leaf_of(header.sequence)) {
                Some(leaf) => leaf,
                None => return Ok(None),
            }
        }
    };
    entry_at(turn, leaf, reader).map(Some)
}

/// Returns a recorded leaf with its payload.
fn entry_at(
    turn: &Turn,
    leaf: u64,
    reader: &mut impl StateReader,
) -> Result<(RecordedLeaf, Bytes), StepError> {
    let bytes = match turn.packer.entry(leaf) {
        Some(bytes) => bytes,
        None => reader.entry(leaf)?,
    };
    let entry = Entry::parse(&bytes).map_err(|error| StepError::Entry {
        leaf,
        reason: error.to_string(),
    })?;
    let placed = RecordedLeaf {
        leaf,
        leaf_hash: leaf_hash(&bytes),
        received_at: entry.received_at,
        principal_leaf: entry.principal_leaf,
        previous_trust: entry.previous_trust,
    };
    let payload = bytes.slice_ref(entry.payload);
    Ok((placed, payload))
}
