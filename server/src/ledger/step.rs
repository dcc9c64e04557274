//! The step: the only place that assigns leaf indexes and changes a tree.
//!
//! A deterministic function of a ledger's state and the admitted entries in their order. It reads
//! no clock, draws no random number and does not depend on where turns are cut: two machines
//! that are fed the same entries have the same root and the same records. (Which heads are signed
//! and how entries are packed does depend on the cuts; neither is part of the ledger's meaning.)

use std::collections::{HashMap, hash_map::Entry as MapEntry};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, PayloadDigest, Sequence, SessionId,
    entry::Entry,
    session::{self, Judgement, Refusal, Session},
    statement::Header,
};
use deed_tlog::{FullTile, Hash, RightEdge};
use thiserror::Error;

use crate::{
    admission::{Admitted, AdmittedBatch},
    store::{StoreError, pack::Pack, pack::Packer, read::Run},
};

/// What the step may ask about the past: the store, which may be a turn or two behind.
pub(crate) trait Past {
    /// Waits until every finished turn is in the store.
    fn settle(&mut self) -> Result<(), StoreError>;
    /// Called only for sessions that no unsettled turn has touched.
    fn session(&mut self, id: &SessionId) -> Result<Option<(Session, Run)>, StoreError>;
    /// The run that holds `sequence`, or else the last one before it. Settles first.
    fn run_before(&mut self, id: &SessionId, sequence: Sequence)
    -> Result<Option<Run>, StoreError>;
    /// Settles first.
    fn entry(&mut self, leaf: u64) -> Result<Bytes, StoreError>;
}

/// What became of one admitted statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placement {
    Recorded { leaf: u64 },
    Duplicate(Placed),
    Refused(Refusal),
}

/// A leaf that was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) leaf: u64,
    pub(crate) leaf_hash: Hash,
    pub(crate) received_at: Micros,
    pub(crate) principal_leaf: Option<u64>,
}

/// The past contradicts itself; the ledger must not go on.
#[derive(Debug, Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("leaf {leaf} is not an entry: {reason}")]
    Entry { leaf: u64, reason: String },
}

/// A ledger between two turns.
#[derive(Debug)]
pub(crate) struct LedgerState {
    id: LedgerId,
    edge: RightEdge,
    effective_time: Micros,
    /// Sessions seen lately: a cache of what the store has. Bounded by [`SESSIONS_MAX`].
    sessions: HashMap<SessionId, (Session, Run)>,
}

/// Sessions that a ledger keeps in memory; about 200 bytes each.
const SESSIONS_MAX: usize = 65_536;

/// The changes of one turn to one ledger.
#[derive(Debug)]
pub(crate) struct Turn {
    packer: Packer,
    leaf_hashes: Vec<Hash>,
    first_leaf: u64,
    /// Sessions that the turn has looked at, changed or not. One look-up a statement.
    touched: HashMap<SessionId, Touched>,
}

/// A session during a turn.
#[derive(Debug, Default)]
struct Touched {
    /// `None` as long as nothing was ever recorded in it.
    session: Option<Session>,
    /// The last run that is stored, if there is one, then those of this turn.
    runs: Vec<Run>,
    /// How many of `runs` are stored as they are: 1 until the stored one grows.
    unchanged_runs: usize,
    /// The last leaf, while the digest of its payload is not computed: most are never asked for.
    undigested: Option<u64>,
    changed: bool,
}

impl Touched {
    fn stored((session, last_run): (Session, Run)) -> Self {
        Self {
            session: Some(session),
            runs: vec![last_run],
            unchanged_runs: 1,
            undigested: None,
            changed: false,
        }
    }

    fn record(&mut self, header: &Header<'_>, digest: Option<PayloadDigest>, leaf: u64) {
        self.undigested = digest.is_none().then_some(leaf);
        let digest = digest.unwrap_or(PayloadDigest::new([0; 32]));
        match &mut self.session {
            Some(session) => session.advance(header, digest),
            None => self.session = Some(Session::opened(header, digest)),
        }
        let before = self.runs.len();
        Run::extend(&mut self.runs, header.sequence, leaf);
        if self.runs.len() == before && before == self.unchanged_runs {
            self.unchanged_runs = 0;
        }
        self.changed = true;
    }

    /// Computes the digest of the last payload if that was put off.
    fn digest(&mut self, packer: &Packer) -> Result<(), StepError> {
        let (Some(leaf), Some(session)) = (self.undigested.take(), &mut self.session) else {
            return Ok(());
        };
        let entry = packer.entry(leaf).unwrap_or_default();
        let entry = Entry::parse(&entry).map_err(|error| StepError::Entry {
            leaf,
            reason: error.to_string(),
        })?;
        session.last_payload = PayloadDigest::of(entry.payload);
        Ok(())
    }
}

/// What a turn leaves to be written.
#[derive(Debug)]
pub(crate) struct Records {
    pub(crate) packs: Vec<Pack>,
    pub(crate) tiles: Vec<FullTile>,
    /// In order of their ids.
    pub(crate) sessions: Vec<(SessionId, Session, Vec<Run>)>,
}

impl LedgerState {
    pub(crate) fn new(id: LedgerId, edge: RightEdge, effective_time: Micros) -> Self {
        Self {
            id,
            edge,
            effective_time,
            sessions: HashMap::new(),
        }
    }

    pub(crate) fn edge(&self) -> &RightEdge {
        &self.edge
    }

    /// The largest receive time of all leaves; every rule about time uses it.
    pub(crate) fn effective_time(&self) -> Micros {
        self.effective_time
    }

    /// Begins a turn.
    pub(crate) fn begin(&mut self, past: &mut impl Past) -> Result<Turn, StepError> {
        if self.sessions.len() > SESSIONS_MAX {
            // A session that is not cached must be in the store, also if the last turn made it.
            past.settle()?;
            self.sessions.clear();
        }
        Ok(self.begin_cached())
    }

    fn begin_cached(&self) -> Turn {
        let first_leaf = self.edge.size().get();
        Turn {
            packer: Packer::new(first_leaf),
            leaf_hashes: Vec::new(),
            first_leaf,
            touched: HashMap::new(),
        }
    }

    /// A new ledger: the genesis entry in a tree of its own.
    pub(crate) fn create(genesis: &[u8], created_at: Micros) -> Result<(Self, Records), StepError> {
        let id = LedgerId::new(deed_tlog::leaf_hash(genesis));
        let mut state = Self::new(id, RightEdge::new(), created_at);
        let mut turn = state.begin_cached();
        turn.packer.push(genesis);
        turn.leaf_hashes.push(*id.hash());
        let records = state.finish(turn)?;
        Ok((state, records))
    }

    /// Places every statement of a batch, in order.
    pub(crate) fn apply(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        past: &mut impl Past,
    ) -> Result<Vec<Placement>, StepError> {
        let mut placements = Vec::with_capacity(batch.statements().len());
        for statement in batch.statements() {
            placements.push(self.place(turn, batch, statement, past)?);
        }
        Ok(placements)
    }

    fn place(
        &mut self,
        turn: &mut Turn,
        batch: &AdmittedBatch,
        statement: &Admitted,
        past: &mut impl Past,
    ) -> Result<Placement, StepError> {
        let header = batch.header(statement, self.id);
        let leaf = turn.next_leaf();
        let touched = match turn.touched.entry(header.session) {
            MapEntry::Occupied(touched) => touched.into_mut(),
            MapEntry::Vacant(vacant) => {
                let known = match self.sessions.remove(&header.session) {
                    Some(known) => Some(known),
                    None => past.session(&header.session)?,
                };
                vacant.insert(known.map(Touched::stored).unwrap_or_default())
            }
        };
        if header.previous.is_some() {
            touched.digest(&turn.packer)?;
        }
        match session::judge(touched.session.as_ref(), &header) {
            Ok(Judgement::Next) => {
                touched.record(&header, statement.payload_digest, leaf);
                turn.packer.push(batch.entry(statement));
                turn.leaf_hashes.push(statement.leaf_hash);
                self.effective_time = self.effective_time.max(batch.received_at());
                Ok(Placement::Recorded { leaf })
            }
            Ok(Judgement::Behind) => {
                let next = touched.session.as_ref().map(|session| session.next);
                let expected = next.unwrap_or(Sequence::FIRST);
                let at = touched
                    .runs
                    .iter()
                    .find_map(|run| run.leaf_of(header.sequence));
                let recorded = recorded_at(turn, &header, at, past)?;
                Ok(match recorded {
                    Some((placed, payload)) if payload == batch.payload(statement) => {
                        Placement::Duplicate(placed)
                    }
                    _ => Placement::Refused(Refusal::SequenceReused { expected }),
                })
            }
            Err(refusal) => Ok(Placement::Refused(refusal)),
        }
    }

    /// Ends a turn: the tree grows, and what is to be written comes out.
    pub(crate) fn finish(&mut self, turn: Turn) -> Result<Records, StepError> {
        let mut tiles = Vec::new();
        self.edge
            .append(&turn.leaf_hashes, &mut |tile| tiles.push(tile));
        let mut sessions = Vec::new();
        for (id, mut touched) in turn.touched {
            touched.digest(&turn.packer)?;
            let (Some(session), Some(&last)) = (touched.session, touched.runs.last()) else {
                // Nothing was ever recorded in it.
                continue;
            };
            self.sessions.insert(id, (session.clone(), last));
            if touched.changed {
                touched.runs.drain(..touched.unchanged_runs);
                sessions.push((id, session, touched.runs));
            }
        }
        // A hash map's order is not the same twice.
        sessions.sort_unstable_by_key(|(id, ..)| *id);
        Ok(Records {
            packs: turn.packer.finish(),
            tiles,
            sessions,
        })
    }

    /// Sessions in memory.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

impl Turn {
    /// Leaves that it has recorded.
    pub(crate) fn len(&self) -> usize {
        self.leaf_hashes.len()
    }

    fn next_leaf(&self) -> u64 {
        self.first_leaf + self.leaf_hashes.len() as u64
    }
}

/// The leaf and payload that were recorded at a statement's session and sequence; `None` if it
/// lies in a gap. `at` is the leaf, where the turn knows it.
fn recorded_at(
    turn: &Turn,
    header: &Header<'_>,
    at: Option<u64>,
    past: &mut impl Past,
) -> Result<Option<(Placed, Bytes)>, StepError> {
    let leaf = match at {
        Some(leaf) => leaf,
        None => {
            let run = past.run_before(&header.session, header.sequence)?;
            match run.and_then(|run| run.leaf_of(header.sequence)) {
                Some(leaf) => leaf,
                None => return Ok(None),
            }
        }
    };
    let bytes = match turn.packer.entry(leaf) {
        Some(bytes) => bytes,
        None => past.entry(leaf)?,
    };
    let entry = Entry::parse(&bytes).map_err(|error| StepError::Entry {
        leaf,
        reason: error.to_string(),
    })?;
    let placed = Placed {
        leaf,
        leaf_hash: deed_tlog::leaf_hash(&bytes),
        received_at: entry.received_at,
        principal_leaf: entry.principal_leaf,
    };
    let payload = bytes.slice_ref(entry.payload);
    Ok(Some((placed, payload)))
}
