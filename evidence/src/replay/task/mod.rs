//! One task judged again, from its own entries and the ledger's trust chain.
//!
//! A reader who does not read the whole ledger cannot run a [`Replay`](super::Replay). But what a
//! ledger says of a task follows from few of its entries: the trust statements, the task's own, and
//! Observations elsewhere that reach into it. [`TaskReplay`] runs the same assessment over these. It
//! believes as little as a whole replay does: forms, signatures, each author's standing at that leaf,
//! and every Clearance and TaskReceipt, which must be the one that the entries before it give.
//!
//! Facts that only the other entries can show stay the operator's word. [`TaskVerdict::unshown`]
//! lists them. It is for the caller to prove that the entries are in the log.
//!
//! Effective time is the highest receive time so far. Of a part of the entries that is a lower bound,
//! and exact wherever receive times do not go back, and at each entry of the ledger itself, which
//! bears it.

mod assess;
mod covered;
mod own;
mod past;
mod speaker;
mod unshown;
mod verdict;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deed_proto::v1::{self, Author, PayloadType, statement::Body};
use deed_tlog::{Hash, LeafIndex, leaf_hash};
use prost::Message as _;

pub use covered::{Covered, WholeBatch};
pub use unshown::Unshown;
pub use verdict::{Close, Receipted, Signed, TaskVerdict};

use past::Past;

use super::{AuthoredStatement, Fault, Kept, ReplayError, assesses, speaker};
use crate::{
    KeyId, LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    assess::{
        Assessed, Assessor, ImplicitIntent,
        body::{self, ParsedBody},
        digest,
    },
    entry::{Entry, is_late},
    genesis::Genesis,
    session::Binding,
    statement::{AUTHORITY_PRODUCER, BodyKind, Header},
    trust::{Speaker, TrustChain, TrustState},
};

/// The last statement that was seen of a session.
#[derive(Debug)]
struct Last {
    producer: String,
    bound_to: Binding,
    sequence: Sequence,
    payload: PayloadDigest,
    closed: bool,
}

/// The first statement that is known at a place in a session.
#[derive(Debug, Clone, Copy)]
struct Placed {
    leaf: u64,
    payload: PayloadDigest,
    /// `None` if nobody has signed it.
    key: Option<KeyId>,
}

/// The batch of the newest batched statement.
#[derive(Debug, Clone, Copy)]
struct SeenBatch {
    manifest: u64,
    /// All of it is kept as evidence of an equivocation, and says nothing.
    evidence: bool,
    /// Its first statement was given and has its place, or the verdict says that this is not known.
    told: bool,
}

/// The running digest of a task's entries.
#[derive(Debug, Clone, Copy)]
struct Running {
    count: u64,
    digest: Hash,
    last_leaf: u64,
}

/// Some entries of a ledger, judged in the order of their leaves.
#[derive(Debug)]
pub struct TaskReplay {
    id: LedgerId,
    task: TaskId,
    chain: TrustChain,
    /// `None` as long as the rules do not have the ledger assess.
    assessor: Option<Assessor>,
    kept: Kept,
    implicit: HashMap<u64, ImplicitIntent>,
    /// Effective time, as far as these entries show it.
    at: Micros,
    next_leaf: u64,
    sessions: HashMap<SessionId, Last>,
    places: HashMap<(SessionId, Sequence), Placed>,
    batch: Option<SeenBatch>,
    running: Running,
    /// The leaf behind which the ledger writes what it owes: the end of the newest unit.
    unit_end: u64,
    intents: Vec<u64>,
    grants: Vec<(u64, Hash)>,
    /// True if something is found by names that other tasks may share.
    shared: bool,
    receipts: Vec<Receipted>,
    signed: BTreeMap<u64, Signed>,
    unshown: Vec<Unshown>,
    buffer: Vec<u8>,
}

/// The part that an entry plays for this task.
enum Part {
    /// A trust statement.
    Trust,
    /// The ledger's own, of this task.
    Own,
    /// The ledger's own, of another task or of none.
    OthersOwn,
    /// The task's.
    Task,
    /// An Observation elsewhere, or a disposition: it may reach into the task.
    Outside,
    /// Anything else: it shows how late it is.
    Time,
}

/// A statement at its leaf.
#[derive(Clone, Copy)]
struct LeafStatement<'a> {
    leaf: u64,
    bytes: &'a Bytes,
    entry: &'a Entry<'a>,
    header: &'a Header<'a>,
}

impl<'a> LeafStatement<'a> {
    fn by(self, speaker: Speaker) -> AuthoredStatement<'a> {
        let Self {
            leaf,
            bytes,
            entry,
            header,
        } = self;
        AuthoredStatement {
            leaf,
            bytes,
            entry,
            header,
            speaker,
        }
    }
}

impl TaskReplay {
    /// Begins with the genesis entry's bytes. Whether it is the ledger that was meant is for the
    /// caller to compare: [`TaskReplay::registry`].
    ///
    /// # Errors
    /// [`Fault::Genesis`].
    pub fn begin(genesis_entry: &Bytes, task: TaskId) -> Result<Self, ReplayError> {
        let fails = ReplayError::at(0);
        let (genesis, id) = Genesis::from_entry(genesis_entry).map_err(|e| fails(e.into()))?;
        let chain = TrustChain::begin(genesis_entry).map_err(|e| fails(e.into()))?;
        Ok(Self {
            id,
            task,
            assessor: assesses(chain.registry()).then(|| Assessor::new(id)),
            chain,
            kept: Kept::default(),
            implicit: HashMap::new(),
            at: genesis.created_at,
            next_leaf: 1,
            sessions: HashMap::new(),
            places: HashMap::new(),
            batch: None,
            running: Running {
                count: 0,
                digest: digest::START,
                last_leaf: 0,
            },
            unit_end: 0,
            intents: Vec::new(),
            grants: Vec::new(),
            shared: false,
            receipts: Vec::new(),
            signed: BTreeMap::new(),
            unshown: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// Takes an entry that is proven to be at leaf `index`; leaves rise. All trust statements have to
    /// be given, and all entries of the task that are known. Others show how late it was, and
    /// Observations among them what they saw of the task. A batched statement needs its proof.
    ///
    /// Returns what its assessment says, if it was assessed.
    ///
    /// # Errors
    /// [`ReplayError`] if a ledger would not have it at that leaf; the replay must not be used after
    /// that.
    pub fn leaf(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<Option<Assessed>, ReplayError> {
        let taken = self.take(index, bytes, batch);
        taken.map_err(ReplayError::at(index))
    }

    /// Judges a statement of this task as if it came now, at leaf `index`. Nothing is kept of it.
    ///
    /// # Errors
    /// As [`TaskReplay::leaf`].
    pub fn would(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<Assessed, ReplayError> {
        let judged = self.judge_alone(index, bytes, batch);
        judged.map_err(ReplayError::at(index))
    }

    /// Checks that the author of the statement at leaf `index` could speak there: the signature
    /// holds, and its key was registered for the producer and in force. Nothing is kept of it.
    ///
    /// The trust statements up to there were given before, so a trust statement that was not is one
    /// that whoever showed the others left out.
    ///
    /// # Errors
    /// [`ReplayError`] with what is wrong.
    pub fn speaks(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<(), ReplayError> {
        let before = self.at;
        let mut judge = || -> Result<Speaker, Fault> {
            let entry = Entry::parse(bytes)?;
            let header = entry.statement()?;
            if header.ledger_id != Some(self.id) {
                return Err(Fault::OtherLedger);
            }
            if header.body.is_trust() {
                return Err(Fault::TrustLeftOut);
            }
            self.at = before.max(entry.received_at);
            let statement = LeafStatement {
                leaf: index,
                bytes,
                entry: &entry,
                header: &header,
            };
            self.speaker(statement, batch)
        };
        let judged = judge();
        self.at = before;
        self.signed.remove(&index);
        judged.map(|_| ()).map_err(ReplayError::at(index))
    }

    /// Takes an entry elsewhere that is proven to be at leaf `index`, for the time that it shows, and
    /// for nothing that it says.
    ///
    /// # Errors
    /// As [`TaskReplay::leaf`].
    pub fn passes(&mut self, index: u64, bytes: &Bytes) -> Result<(), ReplayError> {
        let mut pass = || -> Result<(), Fault> {
            let (entry, at) = self.at_leaf(index, bytes)?;
            let is_ledgers = entry.author == Author::Ledger;
            if is_ledgers {
                self.advance(index, at)?;
            } else {
                self.advance_time(index, at)?;
            }
            self.settle();
            Ok(())
        };
        pass().map_err(ReplayError::at(index))
    }

    /// The trust state, as far as trust statements were given.
    #[must_use]
    pub const fn registry(&self) -> &TrustState {
        self.chain.registry()
    }

    /// Reads the entry at a leaf behind those before, with the effective time there.
    fn at_leaf<'b>(&mut self, index: u64, bytes: &'b Bytes) -> Result<(Entry<'b>, Micros), Fault> {
        if index < self.next_leaf {
            return Err(Fault::Order {
                wanted: self.next_leaf,
            });
        }
        self.next_leaf = index.saturating_add(1);
        let entry = Entry::parse(bytes)?;
        if assesses(self.chain.registry()) && is_late(entry.received_at, self.at) {
            return Err(Fault::Late {
                received_at: entry.received_at,
                effective_time: self.at,
            });
        }
        let at = self.at.max(entry.received_at);
        Ok((entry, at))
    }

    fn take(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<Option<Assessed>, Fault> {
        let (entry, at) = self.at_leaf(index, bytes)?;
        if entry.payload_type == PayloadType::BatchManifest {
            self.advance_time(index, at)?;
            return Ok(None);
        }
        let header = entry.statement()?;
        if header.ledger_id != Some(self.id) {
            return Err(Fault::OtherLedger);
        }
        let part = self.part(&entry, &header);
        match part {
            Part::Own => {
                self.ledgers_own(index, bytes, &header, at)?;
                self.count(index, bytes);
                self.signed.insert(index, Signed::Ledger);
                self.settle();
                return Ok(None);
            }
            Part::OthersOwn => {
                self.advance(index, at)?;
                self.settle();
                return Ok(None);
            }
            _ => self.advance_time(index, at)?,
        }
        let statement = LeafStatement {
            leaf: index,
            bytes,
            entry: &entry,
            header: &header,
        };
        if matches!(part, Part::Time) {
            self.elsewhere(statement, batch);
            return Ok(None);
        }
        let assessed = if matches!(part, Part::Trust) {
            let assessed = self.trust(statement)?;
            if header.task == Some(self.task) {
                self.count(index, bytes);
            }
            assessed
        } else {
            let speaker = self.speaker(statement, batch)?;
            self.unit_end = batch.map_or(index, Covered::last_leaf);
            self.say(statement.by(speaker), &part, batch)?
        };
        self.settle();
        Ok(assessed)
    }

    fn part(&self, entry: &Entry<'_>, header: &Header<'_>) -> Part {
        let ours = header.task == Some(self.task);
        match (entry.author, header.body) {
            (Author::Ledger, _) if ours => Part::Own,
            (Author::Ledger, _) => Part::OthersOwn,
            (_, body) if body.is_trust() => Part::Trust,
            _ if ours => Part::Task,
            (_, BodyKind::Observation | BodyKind::FindingDisposition) => Part::Outside,
            _ => Part::Time,
        }
    }

    fn machine(&mut self) -> Option<(&mut Assessor, Past<'_>, &TrustState)> {
        let past = Past {
            kept: &self.kept,
            implicit: &self.implicit,
            places: &self.places,
            sessions: &self.sessions,
        };
        Some((self.assessor.as_mut()?, past, self.chain.registry()))
    }

    fn trust(&mut self, statement: LeafStatement<'_>) -> Result<Option<Assessed>, Fault> {
        let leaf = statement.leaf;
        self.chain.push(LeafIndex::new(leaf), statement.bytes)?;
        self.unit_end = leaf;
        if self.assessor.is_none() && assesses(self.chain.registry()) {
            self.assessor = Some(Assessor::new(self.id));
        }
        let entry = statement.entry;
        let speaker = speaker(entry, entry.signature.map(|signed| signed.key()));
        self.record(statement.by(speaker))
    }

    /// Takes a statement of the task, or one that reaches into it.
    fn say(
        &mut self,
        authored: AuthoredStatement<'_>,
        part: &Part,
        batch: Option<&Covered>,
    ) -> Result<Option<Assessed>, Fault> {
        let header = authored.header;
        let owners = header.producer == AUTHORITY_PRODUCER && !header.body.is_trust();
        if self.assessor.is_none() && (owners || header.body.needs_assessment()) {
            let body = header.body.name();
            return Err(Fault::BeyondRules { body });
        }
        let beside = self.is_evidence(batch);
        let first = if beside {
            self.contradicted(authored)?
        } else {
            self.batch_is_shown();
            self.place(authored)?
        };
        let is_task = matches!(part, Part::Task);
        if is_task {
            self.count(authored.leaf, authored.bytes);
        }
        if let Some(first) = first {
            return self.equivocation(authored, first).map(Some);
        }
        if beside {
            return self.beside(authored);
        }
        if let Some(breach) = header.breach
            && super::assesses(self.registry())
        {
            return Err(Fault::Breach(breach));
        }
        match header.body {
            BodyKind::FindingDisposition => return self.disposition(authored),
            BodyKind::Intent if is_task => self.intents.push(authored.leaf),
            BodyKind::Grant if is_task => {
                self.grants.push((authored.leaf, leaf_hash(authored.bytes)));
            }
            BodyKind::Observation => self.correlated(authored)?,
            _ => {}
        }
        self.record(authored)
    }

    /// A disposition names a finding by leaf and number, and the number counts findings of all tasks:
    /// at any leaf a deadline of another one may have come. So which finding it is of is never shown
    /// here, and the verdict's findings have none.
    fn disposition(&mut self, authored: AuthoredStatement<'_>) -> Result<Option<Assessed>, Fault> {
        let parsed = ParsedBody::read(&authored.bytes.slice_ref(authored.entry.payload))?;
        let is_ours = authored.header.task == Some(self.task);
        if let body::Body::Disposition { leaf, .. } = parsed.body {
            let mut found = self.kept.findings.range((leaf, 0)..=(leaf, u32::MAX));
            if is_ours || found.any(|(_, one)| one.task == self.task.as_bytes()[..]) {
                let leaf = authored.leaf;
                self.unshown.push(Unshown::Disposition { leaf });
            }
        }
        match is_ours {
            true => self.record(authored),
            false => Ok(None),
        }
    }

    /// Notes an Observation that names no Intent: its act is found among those with the same keys.
    fn correlated(&mut self, authored: AuthoredStatement<'_>) -> Result<(), Fault> {
        let payload = authored.bytes.slice_ref(authored.entry.payload);
        let statement = v1::Statement::decode(payload).unwrap_or_default();
        if let Some(Body::Observation(observation)) = statement.body
            && observation.intent.is_none()
            && !statement.correlation_keys.is_empty()
        {
            let leaf = authored.leaf;
            self.unshown.push(Unshown::Correlated { leaf });
        }
        Ok(())
    }

    /// Takes an entry of the task into its running digest.
    fn count(&mut self, leaf: u64, bytes: &Bytes) {
        self.running = Running {
            count: self.running.count + 1,
            digest: digest::entries(&self.running.digest, &leaf_hash(bytes)),
            last_leaf: leaf,
        };
    }

    fn settle(&mut self) {
        if let Some(assessor) = &mut self.assessor {
            self.kept.take(assessor.take_changes());
        }
    }
}
