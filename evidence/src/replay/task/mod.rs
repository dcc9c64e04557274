//! One task judged again, from its own entries and the ledger's trust chain.
//!
//! A reader who does not read the whole ledger cannot run a [`Replay`](super::Replay). But what a
//! ledger says of a task follows from few of its entries: the trust statements, the task's own, and
//! Observations elsewhere that reach into it. [`TaskReplay`] runs the same assessment over these. It
//! believes as little as a whole replay does: forms, signatures, each author's standing at that leaf,
//! and every Clearance and TaskReceipt, which must be the one that the entries before it give.
//!
//! What only the other entries can show stays the operator's word. [`TaskVerdict::unshown`] lists it.
//! That the entries are in the log is for the caller to prove.
//!
//! Effective time is the highest receive time so far. Of a part of the entries that is a lower bound,
//! and exact wherever receive times do not go back, and at each entry of the ledger itself, which
//! bears it.

mod unshown;
mod verdict;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deed_proto::v1::{self, Author, PayloadType, statement::Body};
use deed_tlog::{BatchPosition, Hash, LeafIndex, TreeHead, leaf_hash};
use prost::Message as _;

pub use unshown::Unshown;
pub use verdict::{Receipted, Signed, TaskVerdict};

use super::{
    Fault, Kept, ReplayError, assesses,
    assessment::{body_of, is_requested, same},
    speaker,
};
use crate::{
    KeyId, LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    assess::{Assessed, Book, Recorded, Spoken, View, cells::CellKey, digest, said},
    batch::{self, PathError, VerifiedPath},
    entry::Entry,
    genesis::Genesis,
    session::{self, Binding},
    signature,
    statement::{self, AUTHORITY_PRODUCER, BodyKind, Header},
    trust::{KeyRefusal, Registry, Speaker, SpeakerRefusal, TrustChain},
};

/// A batched statement's signature, followed to its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    path: VerifiedPath,
    principal_leaf: Option<LeafIndex>,
}

impl Covered {
    /// Verifies a batch proof under the key that `registry` has for its signer. Whether that key was
    /// in force is judged when the statement is taken.
    ///
    /// # Errors
    /// [`Fault`] for what does not hold.
    pub fn verify(
        proof: &v1::GetBatchProofResponse,
        registry: &Registry,
        head: &TreeHead,
    ) -> Result<Self, Fault> {
        let fails = |error: PathError| Fault::BatchPath(Box::new(error));
        let signer = batch::signer(proof).map_err(fails)?;
        let key = registry
            .key(signer)
            .map(|record| &record.public_key)
            .ok_or(Fault::KeyUnknown { key: signer })?;
        let path = batch::verify_path(proof, registry.ledger_id(), key, head).map_err(fails)?;
        Self::of(proof, path)
    }

    /// The same of a path that [`batch::verify_path`] has verified, with the key of its signer.
    ///
    /// # Errors
    /// [`Fault::Entry`] if the manifest's entry cannot be read.
    pub fn of(proof: &v1::GetBatchProofResponse, path: VerifiedPath) -> Result<Self, Fault> {
        let manifest = Entry::parse(&proof.manifest_entry)?;
        Ok(Self {
            path,
            principal_leaf: manifest.principal_leaf.map(LeafIndex::new),
        })
    }

    /// The same for another statement of the batch, which is proven to be at `leaf`: `whole` are the
    /// payloads of all of it.
    ///
    /// # Errors
    /// [`Fault::NoManifest`] if it is none of the batch.
    pub fn sibling(&self, leaf: u64, entry: &Bytes, whole: &WholeBatch) -> Result<Self, Fault> {
        let manifest = self.path.manifest_index.get();
        let position = leaf.checked_sub(manifest.saturating_add(1));
        let position = position.and_then(|position| u32::try_from(position).ok());
        let position = position.ok_or(Fault::NoManifest)?;
        let digest = PayloadDigest::of(Entry::parse(entry)?.payload);
        if whole.0.get(position as usize) != Some(&digest) {
            return Err(Fault::NoManifest);
        }
        Ok(Self {
            path: VerifiedPath {
                statement_index: LeafIndex::new(leaf),
                statement_hash: leaf_hash(entry),
                position: BatchPosition::new(position),
                ..self.path.clone()
            },
            principal_leaf: self.principal_leaf,
        })
    }

    /// Where statement and manifest are, and whose signature it is.
    #[must_use]
    pub const fn path(&self) -> &VerifiedPath {
        &self.path
    }

    /// The batch's last leaf.
    fn last_leaf(&self) -> u64 {
        let manifest = self.path.manifest_index.get();
        manifest.saturating_add(self.path.manifest.count.get().into())
    }
}

/// The payloads of a whole batch, which fit its manifest.
#[derive(Debug, Clone)]
pub struct WholeBatch(Vec<PayloadDigest>);

impl WholeBatch {
    /// Checks them against the manifest.
    ///
    /// # Errors
    /// [`Fault::Batch`] if they are others, [`Fault::Statement`] if one cannot be read.
    pub fn of(manifest: &batch::Manifest, payloads: &[Bytes]) -> Result<Self, Fault> {
        let headers = payloads.iter();
        let headers = headers.map(|payload| Ok((statement::parse(payload)?, &payload[..])));
        let headers = headers.collect::<Result<Vec<_>, crate::WireError>>()?;
        batch::check(manifest, headers)?;
        let digests = payloads.iter().map(|payload| PayloadDigest::of(payload));
        Ok(Self(digests.collect()))
    }
}

/// The last statement that was seen of a session.
#[derive(Debug)]
struct Last {
    producer: String,
    bound_to: Binding,
    sequence: Sequence,
    payload: PayloadDigest,
    closed: bool,
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
    book: Option<Book>,
    kept: Kept,
    unkept: HashMap<u64, Recorded>,
    /// Effective time, as far as these entries show it.
    at: Micros,
    next_leaf: u64,
    sessions: HashMap<SessionId, Last>,
    places: HashMap<(SessionId, Sequence), (u64, PayloadDigest)>,
    running: Running,
    /// The leaf behind which the ledger writes what it owes: the end of the newest unit.
    unit_end: u64,
    intents: Vec<u64>,
    grants: Vec<(u64, Hash)>,
    receipts: Vec<Receipted>,
    signed: BTreeMap<u64, Signed>,
    unshown: Vec<Unshown>,
    buffer: Vec<u8>,
}

/// What the machine may ask for. Nothing is forgotten, so it asks for little.
struct Past<'a> {
    kept: &'a Kept,
    unkept: &'a HashMap<u64, Recorded>,
    places: &'a HashMap<(SessionId, Sequence), (u64, PayloadDigest)>,
}

impl View for Past<'_> {
    type Error = Fault;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, Fault> {
        Ok(self.kept.cell(key))
    }

    fn leaf_of(&mut self, session: &SessionId, sequence: Sequence) -> Result<Option<u64>, Fault> {
        Ok(self
            .places
            .get(&(*session, sequence))
            .map(|(leaf, _)| *leaf))
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<Recorded>, Fault> {
        Ok(self.unkept.get(&leaf).copied())
    }

    fn damaged(&self, key: &CellKey) -> Fault {
        Fault::Damaged {
            key: hex::encode(key.to_bytes()),
        }
    }
}

/// What an entry is for this task.
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

/// A statement with where it stands and who says it.
#[derive(Clone, Copy)]
struct Saying<'a> {
    leaf: u64,
    bytes: &'a Bytes,
    entry: &'a Entry<'a>,
    header: &'a Header<'a>,
    speaker: Speaker,
}

impl TaskReplay {
    /// Begins with the genesis entry's bytes. Whether it is the ledger that was meant is for the
    /// caller to compare: [`TaskReplay::registry`].
    ///
    /// # Errors
    /// [`Fault::Genesis`].
    pub fn begin(genesis_entry: &Bytes, task: TaskId) -> Result<Self, ReplayError> {
        let fails = |fault: Fault| ReplayError {
            leaf: 0,
            fault: Box::new(fault),
        };
        let (genesis, id) = Genesis::from_entry(genesis_entry).map_err(|e| fails(e.into()))?;
        let chain = TrustChain::begin(genesis_entry).map_err(|e| fails(e.into()))?;
        Ok(Self {
            id,
            task,
            book: assesses(chain.registry()).then(|| Book::new(id)),
            chain,
            kept: Kept::default(),
            unkept: HashMap::new(),
            at: genesis.created_at,
            next_leaf: 1,
            sessions: HashMap::new(),
            places: HashMap::new(),
            running: Running {
                count: 0,
                digest: digest::START,
                last_leaf: 0,
            },
            unit_end: 0,
            intents: Vec::new(),
            grants: Vec::new(),
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
        taken.map_err(|fault| ReplayError {
            leaf: index,
            fault: Box::new(fault),
        })
    }

    /// What would be said of a statement of this task if it came now, at leaf `index`: nothing is
    /// kept of it.
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
        judged.map_err(|fault| ReplayError {
            leaf: index,
            fault: Box::new(fault),
        })
    }

    /// Whether the author of the statement at leaf `index` could speak there: the signature holds, and
    /// its key was registered for the producer and in force. Nothing is kept of it.
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
            self.at = before.max(entry.received_at);
            self.speaker(index, bytes, &entry, &header, batch)
        };
        let judged = judge();
        self.at = before;
        self.signed.remove(&index);
        judged.map(|_| ()).map_err(|fault| ReplayError {
            leaf: index,
            fault: Box::new(fault),
        })
    }

    /// Who speaks for whom, as far as trust statements were given.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        self.chain.registry()
    }

    fn take(
        &mut self,
        index: u64,
        bytes: &Bytes,
        batch: Option<&Covered>,
    ) -> Result<Option<Assessed>, Fault> {
        if index < self.next_leaf {
            return Err(Fault::Order {
                wanted: self.next_leaf,
            });
        }
        self.next_leaf = index.saturating_add(1);
        let entry = Entry::parse(bytes)?;
        let at = self.at.max(entry.received_at);
        if entry.payload_type == PayloadType::BatchManifest {
            self.come_to(index, at)?;
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
            _ => self.come_to(index, at)?,
        }
        if matches!(part, Part::Time) {
            let digest = PayloadDigest::of(entry.payload);
            let place = (header.session, header.sequence);
            self.places.entry(place).or_insert((index, digest));
            return Ok(None);
        }
        let assessed = if matches!(part, Part::Trust) {
            self.trust(index, bytes, &entry, &header)?
        } else {
            let speaker = self.speaker(index, bytes, &entry, &header, batch)?;
            let saying = Saying {
                leaf: index,
                bytes,
                entry: &entry,
                header: &header,
                speaker,
            };
            self.unit_end = batch.map_or(index, Covered::last_leaf);
            self.say(saying, &part)?
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

    fn machine(&mut self) -> Option<(&mut Book, Past<'_>, &Registry)> {
        let past = Past {
            kept: &self.kept,
            unkept: &self.unkept,
            places: &self.places,
        };
        Some((self.book.as_mut()?, past, self.chain.registry()))
    }

    /// Before a statement or a manifest at leaf `index`: time comes to `at`, and what the ledger had
    /// to write for the task must be there.
    fn come_to(&mut self, index: u64, at: Micros) -> Result<(), Fault> {
        let inside = index <= self.unit_end;
        if !inside {
            self.owes_nothing(index)?;
        }
        self.advance(index, at)?;
        if inside {
            return Ok(());
        }
        self.owes_nothing(index)
    }

    fn advance(&mut self, index: u64, at: Micros) -> Result<(), Fault> {
        self.at = at;
        match self.machine() {
            Some((book, mut past, registry)) => book.advance(&mut past, registry, index, at),
            None => Ok(()),
        }
    }

    fn owes_nothing(&mut self, index: u64) -> Result<(), Fault> {
        match self.owed(index)? {
            None => Ok(()),
            Some(entry) => Err(Fault::LeftOut {
                body: body_of(&entry).name(),
            }),
        }
    }

    /// The next entry that the ledger has to write for this task.
    fn owed(&mut self, index: u64) -> Result<Option<Bytes>, Fault> {
        let (at, task) = (self.at, self.task);
        let Some((book, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        while book.owes() {
            let Some(entry) = book.ledger_entry(&mut past, registry, index, at)? else {
                return Ok(None);
            };
            // A Tick, or what belongs to a task that an Observation named.
            let ours = Entry::parse(&entry)?.statement()?.task == Some(task);
            if ours {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// An entry of the ledger itself: what stands before it must call for it.
    fn ledgers_own(
        &mut self,
        index: u64,
        bytes: &Bytes,
        header: &Header<'_>,
        at: Micros,
    ) -> Result<(), Fault> {
        let body = header.body;
        if index <= self.unit_end {
            return Err(Fault::InsideBatch);
        }
        if self.book.is_none() {
            return Err(Fault::BeyondRules { body: body.name() });
        }
        self.at = at;
        let mut wanted = self.owed(index)?;
        if wanted.is_none() {
            self.advance(index, at)?;
            wanted = self.owed(index)?;
        }
        if wanted.is_none() && body == BodyKind::TaskReceipt && is_requested(bytes) {
            let task = self.task;
            if let Some((book, mut past, _)) = self.machine() {
                book.request_receipt(&mut past, task)?;
            }
            wanted = self.owed(index)?;
        }
        let wanted = wanted.ok_or(Fault::Uncalled { body: body.name() })?;
        if body == BodyKind::TaskReceipt && body_of(&wanted) == body {
            self.receipt(index, &wanted, bytes)
        } else {
            same(&wanted, bytes, body)
        }
    }

    /// A receipt must be the one that is owed. The digest over the task's assessment may differ: it
    /// holds at which leaves time had passed, and the numbers of findings among those of other tasks.
    fn receipt(&mut self, index: u64, wanted: &Bytes, found: &Bytes) -> Result<(), Fault> {
        let body = BodyKind::TaskReceipt.name();
        let owed = receipt_in(wanted)?.ok_or(Fault::False { body })?;
        let said = receipt_in(found)?.ok_or(Fault::False { body })?;
        // As the running digest is counted here: an earlier receipt with another assessment digest
        // has another hash than the machine knows.
        let owed = v1::TaskReceipt {
            through_leaf: self.running.last_leaf,
            count: self.running.count,
            digest: Bytes::copy_from_slice(self.running.digest.as_bytes()),
            ..owed
        };
        let same_assessment = owed.assessment_digest == said.assessment_digest;
        let but_for_that = v1::TaskReceipt {
            assessment_digest: owed.assessment_digest.clone(),
            ..said.clone()
        };
        if owed != but_for_that {
            return Err(Fault::False { body });
        }
        self.receipts.push(Receipted {
            leaf: index,
            through_leaf: said.through_leaf,
            count: said.count,
            same_assessment,
        });
        Ok(())
    }

    fn trust(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
    ) -> Result<Option<Assessed>, Fault> {
        self.chain.push(LeafIndex::new(index), bytes)?;
        self.unit_end = index;
        if self.book.is_none() && assesses(self.chain.registry()) {
            self.book = Some(Book::new(self.id));
        }
        let saying = Saying {
            leaf: index,
            bytes,
            entry,
            header,
            speaker: speaker(entry, entry.signature.map(|signed| signed.key())),
        };
        self.record(saying)
    }

    /// Who speaks, with the signature verified, and in force at this leaf.
    fn speaker(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
        batch: Option<&Covered>,
    ) -> Result<Speaker, Fault> {
        let (speaker, signed) = match entry.author {
            Author::Signed => {
                let key = self.verify(entry)?;
                (speaker(entry, Some(key)), Signed::Key(key))
            }
            Author::Batched => {
                let covered = batch.ok_or(Fault::NoManifest)?;
                let path = &covered.path;
                let here = (LeafIndex::new(index), leaf_hash(bytes));
                if (path.statement_index, path.statement_hash) != here {
                    return Err(Fault::NoManifest);
                }
                let principal_leaf = entry.principal_leaf.map(LeafIndex::new);
                if principal_leaf != covered.principal_leaf {
                    return Err(Fault::PrincipalLeaf);
                }
                let key = path.key_id;
                let speaker = Speaker {
                    key: Some(key),
                    principal_leaf,
                };
                let manifest = path.manifest_index.get();
                (speaker, Signed::Batch { key, manifest })
            }
            Author::Unsigned => (speaker(entry, None), Signed::Nobody),
            Author::Ledger | Author::Unspecified => return Err(Fault::NotAnAuthor),
        };
        let may = self
            .registry()
            .may_speak(&speaker, header.producer, self.at);
        match may {
            // By then it may have been later than these entries show.
            Ok(()) | Err(SpeakerRefusal::Key(KeyRefusal::NotYet { .. })) => {}
            Err(refusal) => return Err(refusal.into()),
        }
        self.signed.insert(index, signed);
        Ok(speaker)
    }

    fn verify(&mut self, entry: &Entry<'_>) -> Result<KeyId, Fault> {
        let signed = entry.signature.ok_or(Fault::SignatureMissing)?;
        let id = signed.key();
        let registry = self.chain.registry();
        let key = registry
            .was_authority(id)
            .or_else(|| registry.key(id).map(|record| &record.public_key))
            .ok_or(Fault::KeyUnknown { key: id })?;
        let (kind, payload) = (entry.payload_type, entry.payload);
        signature::verify_with(key, kind, payload, signed.signature, &mut self.buffer)?;
        Ok(id)
    }

    /// Takes a statement of the task, or one that reaches into it.
    fn say(&mut self, saying: Saying<'_>, part: &Part) -> Result<Option<Assessed>, Fault> {
        let header = saying.header;
        let owners = header.producer == AUTHORITY_PRODUCER && !header.body.is_trust();
        if self.book.is_none() && (owners || header.body.needs_assessment()) {
            let body = header.body.name();
            return Err(Fault::BeyondRules { body });
        }
        let first = self.place(saying)?;
        let is_task = matches!(part, Part::Task);
        if is_task {
            self.count(saying.leaf, saying.bytes);
        }
        if let Some(first) = first {
            return self.equivocation(saying, first).map(Some);
        }
        match header.body {
            BodyKind::FindingDisposition => return self.disposition(saying),
            BodyKind::Intent if is_task => self.intents.push(saying.leaf),
            BodyKind::Grant if is_task => {
                self.grants.push((saying.leaf, leaf_hash(saying.bytes)));
            }
            BodyKind::Observation => self.correlated(saying)?,
            _ => {}
        }
        self.record(saying)
    }

    /// A disposition names a finding by leaf and number, and the number counts findings of all tasks.
    fn disposition(&mut self, saying: Saying<'_>) -> Result<Option<Assessed>, Fault> {
        let what = said::Said::read(&saying.bytes.slice_ref(saying.entry.payload))?;
        if let said::SaidBody::Disposition { leaf, number, .. } = what.body
            && !self.kept.findings.contains_key(&(leaf, number))
        {
            let leaf = saying.leaf;
            self.unshown.push(Unshown::Disposition { leaf });
            return Ok(None);
        }
        self.record(saying)
    }

    /// Which act an Observation is of that names none is found among those with the same keys.
    fn correlated(&mut self, saying: Saying<'_>) -> Result<(), Fault> {
        let payload = saying.bytes.slice_ref(saying.entry.payload);
        let statement = v1::Statement::decode(payload).unwrap_or_default();
        if let Some(Body::Observation(observation)) = statement.body
            && observation.intent.is_none()
            && !statement.correlation_keys.is_empty()
        {
            let leaf = saying.leaf;
            self.unshown.push(Unshown::Correlated { leaf });
        }
        Ok(())
    }

    /// Compares a statement with the one before it in its session that is known. The leaf of the
    /// first statement at its place, if it is the second.
    fn place(&mut self, saying: Saying<'_>) -> Result<Option<u64>, Fault> {
        let header = saying.header;
        let digest = PayloadDigest::of(saying.entry.payload);
        let bound_to = self.registry().session_binding(&saying.speaker);
        let place = (header.session, header.sequence);
        let again = || Fault::Again {
            sequence: header.sequence,
        };
        if let Some((first, before)) = self.places.get(&place).copied() {
            if before == digest || saying.speaker.key.is_none() {
                return Err(again());
            }
            if let Some((book, mut past, _)) = self.machine()
                && book.equivocated(&mut past, place.0, place.1)?.is_some()
            {
                return Err(again());
            }
            return Ok(Some(first));
        }
        if let Some(last) = self.sessions.get(&header.session) {
            if last.bound_to != bound_to || last.producer != header.producer {
                return Err(session::Refusal::SessionTaken.into());
            }
            if header.sequence <= last.sequence {
                return Err(again());
            }
            if last.closed {
                return Err(session::Refusal::SessionClosed.into());
            }
            let follows = last.sequence.get().checked_add(1) == Some(header.sequence.get());
            let other = |previous| previous != last.payload;
            if follows && header.previous.is_some_and(other) {
                let expected = header.sequence;
                return Err(session::Refusal::PreviousMismatch { expected }.into());
            }
        }
        let last = Last {
            producer: header.producer.to_owned(),
            bound_to,
            sequence: header.sequence,
            payload: digest,
            closed: header.body == BodyKind::SessionClosed,
        };
        self.sessions.insert(header.session, last);
        self.places.insert(place, (saying.leaf, digest));
        Ok(None)
    }

    fn record(&mut self, saying: Saying<'_>) -> Result<Option<Assessed>, Fault> {
        let at = self.at;
        let Some((book, mut past, registry)) = self.machine() else {
            return Ok(None);
        };
        let what = said::Said::read(&saying.bytes.slice_ref(saying.entry.payload))?;
        let assessed = book.record(&mut past, registry, &spoken(saying, &what, at))?;
        let unkept = book.unkept(saying.leaf).copied();
        if let Some(unkept) = unkept {
            self.unkept.insert(saying.leaf, unkept);
        }
        Ok(Some(assessed))
    }

    fn equivocation(&mut self, saying: Saying<'_>, first: u64) -> Result<Assessed, Fault> {
        let (at, sequence) = (self.at, saying.header.sequence);
        let Some((book, mut past, registry)) = self.machine() else {
            return Err(Fault::Again { sequence });
        };
        let what = said::Said::read(&saying.bytes.slice_ref(saying.entry.payload))?;
        book.equivocation(&mut past, registry, &spoken(saying, &what, at), first)
    }

    fn judge_alone(
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
        let speaker = self.speaker(index, bytes, &entry, &header, batch)?;
        self.signed.remove(&index);
        let saying = Saying {
            leaf: index,
            bytes,
            entry: &entry,
            header: &header,
            speaker,
        };
        let body = header.body.name();
        if self.book.is_none() {
            return Err(Fault::BeyondRules { body });
        }
        let at = self.at.max(entry.received_at);
        let mut past = Past {
            kept: &self.kept,
            unkept: &self.unkept,
            places: &self.places,
        };
        let registry = self.chain.registry();
        let mut book = Book::restore(self.id, self.kept.dues.iter().copied());
        book.advance(&mut past, registry, index, at)?;
        let what = said::Said::read(&bytes.slice_ref(entry.payload))?;
        book.record(&mut past, registry, &spoken(saying, &what, at))
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
        if let Some(book) = &mut self.book {
            self.kept.take(book.take_changes());
        }
    }
}

fn spoken<'a>(saying: Saying<'a>, what: &'a said::Said, at: Micros) -> Spoken<'a> {
    Spoken {
        leaf: saying.leaf,
        leaf_hash: leaf_hash(saying.bytes),
        at,
        received_at: saying.entry.received_at,
        header: saying.header,
        payload: saying.entry.payload,
        payload_digest: None,
        said: what,
        key: saying.speaker.key,
    }
}

fn receipt_in(entry: &Bytes) -> Result<Option<v1::TaskReceipt>, Fault> {
    let parsed = Entry::parse(entry)?;
    let decoded = v1::Statement::decode(parsed.payload).unwrap_or_default();
    Ok(match decoded.body {
        Some(Body::TaskReceipt(receipt)) => Some(receipt),
        _ => None,
    })
}
