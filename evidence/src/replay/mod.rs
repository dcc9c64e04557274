//! A ledger's entries judged again, one after the other, by the functions that judged them first.
//!
//! [`Replay`] begins with the genesis entry and takes every entry in order. It believes nothing:
//! each one's form, its author's signature and standing, its place in its session and its batch,
//! the chain of trust statements, and, where the rules have the ledger assess, every entry that
//! the ledger itself had to write: receipts, clearances and ticks must be there to the byte, and
//! none may be there that nothing called for. There, too, receive times do not go back by more than
//! a clock may be off. What it does not look at is the tree; fold the leaf
//! hashes into a [`RightEdge`](deed_tlog::RightEdge) beside it.
//!
//! `fsck` compares what a replay comes to with what a server has stored, `deed audit` does it for
//! somebody who has nothing but the entries and a signed head.
//!
//! Everything stays in memory: about 150 bytes for each run of statements that lie next to each
//! other, 16 bytes for each leaf, and, where entries are assessed, the cells (some 400 bytes for an
//! act, 200 for one of which no cell is kept, 300 for a task or a grant) and the findings (some 100
//! bytes each).

mod assessment;
mod fault;
mod summary;
pub mod task;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use deed_proto::v1::{self, Author, PayloadType};
use deed_tlog::{LeafIndex, leaf_hash};

pub use assessment::Kept;
pub use fault::{Fault, ReplayError};
pub use summary::Summary;

use crate::{
    CommitmentDigest, KeyId, LedgerId, Micros, PayloadDigest, RULES_ASSESSED, Sequence, SessionId,
    assess::{Assessed, Assessor, ImplicitIntent, RecordedStatement, body::ParsedBody},
    batch::{self, Manifest},
    entry::{Entry, KeyedSignature, is_late},
    genesis::Genesis,
    session::{self, Judgement, Run, Session},
    signature,
    statement::{self, AUTHORITY_PRODUCER, BodyKind, Header},
    trust::{Speaker, TrustState, TrustStatement},
};

/// A replay of a ledger: the state that its entries so far lead to.
#[derive(Debug)]
pub struct Replay {
    id: LedgerId,
    registry: TrustState,
    effective_time: Micros,
    sessions: BTreeMap<SessionId, (Session, Vec<Run>)>,
    trust_leaves: Vec<(u64, Micros)>,
    erased: BTreeMap<CommitmentDigest, u64>,
    /// The beginning of each leaf's payload digest: what an equivocation is compared with.
    payloads: Vec<PayloadStart>,
    /// `None` as long as the rules do not have the ledger assess.
    assessor: Option<Assessor>,
    kept: Kept,
    /// Intents of which no cell was kept when they were recorded, by leaf; about 200 bytes each.
    implicit: HashMap<u64, ImplicitIntent>,
    /// A manifest whose statements are not all there yet.
    open: Option<OpenBatch>,
    bodies: BTreeMap<&'static str, u64>,
    signatures: u64,
    /// Signatures' inputs are written here.
    buffer: Vec<u8>,
}

/// Half of SHA-256: nobody makes two payloads that share it.
type PayloadStart = [u8; 16];

#[derive(Debug)]
struct OpenBatch {
    manifest: Manifest,
    leaf: u64,
    speaker: Speaker,
    payloads: Vec<Bytes>,
    /// Of a batch that is kept as evidence: how many equivocations it shows so far.
    evidence: Option<usize>,
}

/// A statement with where it stands and who says it.
#[derive(Clone, Copy)]
struct AuthoredStatement<'a> {
    leaf: u64,
    bytes: &'a Bytes,
    entry: &'a Entry<'a>,
    header: &'a Header<'a>,
    speaker: Speaker,
}

impl<'a> AuthoredStatement<'a> {
    /// Returns it as the assessor takes it, recorded at `at`.
    fn recorded(self, parsed: &'a ParsedBody, at: Micros) -> RecordedStatement<'a> {
        RecordedStatement {
            leaf: self.leaf,
            leaf_hash: leaf_hash(self.bytes),
            at,
            received_at: self.entry.received_at,
            header: self.header,
            payload: self.entry.payload,
            payload_digest: None,
            parsed,
            key: self.speaker.key,
        }
    }
}

/// The name under which batch manifests are counted: they are no statements.
const MANIFEST: &str = "batch_manifest";

impl Replay {
    /// Begins with the genesis entry's bytes. Whether it is the ledger that was meant is for the
    /// caller to compare: [`Replay::ledger_id`].
    ///
    /// # Errors
    /// [`Fault::Genesis`].
    pub fn begin(genesis_entry: &Bytes) -> Result<Self, ReplayError> {
        let at_leaf_0 = |error: crate::genesis::GenesisError| ReplayError {
            leaf: 0,
            fault: Box::new(error.into()),
        };
        let (genesis, id) = Genesis::from_entry(genesis_entry).map_err(at_leaf_0)?;
        let registry = TrustState::genesis(id, &genesis);
        Ok(Self {
            id,
            assessor: assesses(&registry).then(|| Assessor::new(id)),
            registry,
            effective_time: genesis.created_at,
            sessions: BTreeMap::new(),
            trust_leaves: Vec::new(),
            erased: BTreeMap::new(),
            payloads: vec![[0; 16]],
            kept: Kept::default(),
            implicit: HashMap::new(),
            open: None,
            bodies: BTreeMap::from([(BodyKind::Genesis.name(), 1)]),
            signatures: 0,
            buffer: Vec::new(),
        })
    }

    /// Replays a whole ledger: its entries in order, the genesis entry first.
    ///
    /// # Errors
    /// [`ReplayError`] for the first entry that is not in place.
    pub fn over<'e>(entries: impl IntoIterator<Item = &'e Bytes>) -> Result<Self, ReplayError> {
        let mut entries = entries.into_iter();
        let nothing = Bytes::new();
        let mut replay = Self::begin(entries.next().unwrap_or(&nothing))?;
        for (leaf, entry) in (1..).zip(entries) {
            replay.leaf(leaf, entry)?;
        }
        replay.end()?;
        Ok(replay)
    }

    /// Takes the next entry. What its assessment says, if it is a statement that was assessed; the
    /// findings of everything that was due before it are in [`Replay::findings`] alone.
    ///
    /// # Errors
    /// [`ReplayError`] if it is not in place; the replay must not be used after that.
    pub fn leaf(&mut self, index: u64, bytes: &Bytes) -> Result<Option<Assessed>, ReplayError> {
        self.take(index, bytes).map_err(ReplayError::at(index))
    }

    /// There are no more entries: no batch may be open, and the ledger may owe nothing.
    ///
    /// # Errors
    /// [`ReplayError`] with the leaf at which something is missing.
    pub fn end(&mut self) -> Result<(), ReplayError> {
        let leaf = self.next_leaf();
        let at_end = |fault| ReplayError {
            leaf,
            fault: Box::new(fault),
        };
        if let Some(open) = &self.open {
            return Err(at_end(Fault::BatchCut {
                manifest: open.leaf,
                found: open.payloads.len(),
                wanted: open.manifest.count.get(),
            }));
        }
        self.nothing_is_pending(leaf).map_err(at_end)?;
        self.settle();
        Ok(())
    }

    fn take(&mut self, index: u64, bytes: &Bytes) -> Result<Option<Assessed>, Fault> {
        let wanted = self.next_leaf();
        if index != wanted {
            return Err(Fault::Order { wanted });
        }
        let entry = Entry::parse(bytes)?;
        if assesses(&self.registry) && is_late(entry.received_at, self.effective_time) {
            return Err(Fault::Late {
                received_at: entry.received_at,
                effective_time: self.effective_time,
            });
        }
        let at = self.effective_time.max(entry.received_at);
        if self.assessor.is_none() && assesses(&self.registry) {
            self.assessor = Some(Assessor::new(self.id));
        }
        let assessed = if entry.payload_type == PayloadType::BatchManifest {
            self.manifest(index, &entry, at)?;
            *self.bodies.entry(MANIFEST).or_default() += 1;
            None
        } else {
            let header = entry.statement()?;
            *self.bodies.entry(header.body.name()).or_default() += 1;
            self.statement(index, bytes, &entry, &header, at)?
        };
        self.effective_time = at;
        let digest = PayloadDigest::of(entry.payload);
        let start = digest.as_bytes().first_chunk().copied();
        self.payloads.push(start.unwrap_or_default());
        if self.payloads.len().is_multiple_of(SETTLE_LEAVES) {
            self.settle();
        }
        Ok(assessed)
    }

    fn statement(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
        at: Micros,
    ) -> Result<Option<Assessed>, Fault> {
        if header.body == BodyKind::Genesis {
            return Err(Fault::SecondGenesis);
        }
        if header.ledger_id != Some(self.id) {
            return Err(Fault::OtherLedger);
        }
        let owners = header.producer == AUTHORITY_PRODUCER && !header.body.is_trust();
        if self.assessor.is_none() && (owners || header.body.needs_assessment()) {
            let body = header.body.name();
            return Err(Fault::BeyondRules { body });
        }
        match entry.author {
            Author::Batched => return self.batched(index, bytes, entry, header, at),
            _ if self.open.is_some() => return Err(Fault::InsideBatch),
            Author::Ledger => {
                self.ledgers_own(index, bytes, header, at)?;
                return Ok(None);
            }
            Author::Signed | Author::Unsigned => {}
            Author::Unspecified => return Err(Fault::NotAnAuthor),
        }
        self.advance_time(index, at)?;
        let key = match entry.author {
            Author::Signed => Some(self.verify(entry)?),
            _ => None,
        };
        let authored = AuthoredStatement {
            leaf: index,
            bytes,
            entry,
            header,
            speaker: speaker(entry, key),
        };
        if header.body.is_trust() {
            self.trust(authored)
        } else {
            self.single(authored)
        }
    }

    fn single(&mut self, authored: AuthoredStatement<'_>) -> Result<Option<Assessed>, Fault> {
        self.may_speak(authored.header, &authored.speaker)?;
        match self.judge(authored.header, &authored.speaker)? {
            Judgement::Next => {
                self.in_form(authored.header)?;
                self.record(authored);
                self.assess(authored)
            }
            Judgement::Behind => match self.contradicted(authored)? {
                Some(first) => self.equivocation(authored, first),
                None => Err(Fault::Again {
                    sequence: authored.header.sequence,
                }),
            },
        }
    }

    fn trust(&mut self, authored: AuthoredStatement<'_>) -> Result<Option<Assessed>, Fault> {
        let AuthoredStatement { leaf, entry, .. } = authored;
        let statement = TrustStatement::parse(entry.payload)?;
        let (Some(statement), Some(signer)) = (statement, authored.speaker.key) else {
            return Err(Fault::SignatureMissing);
        };
        statement.verify_possession(self.id)?;
        statement.check_recorded_policy()?;
        self.is_next(authored.header, &authored.speaker)?;
        self.in_form(authored.header)?;
        let at = self.effective_time;
        self.registry.judge(&statement, signer, at)?;
        let head = self.registry.head();
        if entry.previous_trust != Some(head) {
            return Err(Fault::TrustLink {
                wanted: head.leaf_index.get(),
            });
        }
        let index = LeafIndex::new(leaf);
        self.registry
            .apply(&statement, at, index, leaf_hash(authored.bytes));
        self.trust_leaves.push((leaf, at));
        if let TrustStatement::Erasure(contents) = &statement {
            for content in contents {
                self.erased.entry(*content).or_insert(leaf);
            }
        }
        self.record(authored);
        self.assess(authored)
    }

    fn manifest(&mut self, index: u64, entry: &Entry<'_>, at: Micros) -> Result<(), Fault> {
        if self.open.is_some() {
            return Err(Fault::InsideBatch);
        }
        self.advance_time(index, at)?;
        let key = self.verify(entry)?;
        let manifest = Manifest::parse(entry.payload)?;
        if manifest.ledger_id != self.id {
            return Err(Fault::OtherLedger);
        }
        self.open = Some(OpenBatch {
            payloads: Vec::with_capacity(manifest.count.get() as usize),
            speaker: speaker(entry, Some(key)),
            leaf: index,
            manifest,
            evidence: None,
        });
        Ok(())
    }

    /// A statement of a batch. The others follow, so each is taken at once; whether all of them fit
    /// their manifest is known with the last one.
    fn batched(
        &mut self,
        index: u64,
        bytes: &Bytes,
        entry: &Entry<'_>,
        header: &Header<'_>,
        at: Micros,
    ) -> Result<Option<Assessed>, Fault> {
        let open = self.open.as_mut().ok_or(Fault::NoManifest)?;
        let speaker = open.speaker;
        if entry.principal_leaf.map(LeafIndex::new) != speaker.principal_leaf {
            return Err(Fault::PrincipalLeaf);
        }
        if self.assessor.is_some() && at != self.effective_time {
            // All of a batch is recorded at one time, by which it is assessed.
            return Err(Fault::BatchTime);
        }
        self.effective_time = at;
        open.payloads.push(bytes.slice_ref(entry.payload));
        let first = open.payloads.len() == 1;
        let complete = open.payloads.len() >= open.manifest.count.get() as usize;
        let authored = AuthoredStatement {
            leaf: index,
            bytes,
            entry,
            header,
            speaker,
        };
        if first {
            self.may_speak(header, &speaker)?;
            if self.judge(header, &speaker)? == Judgement::Behind {
                self.open.as_mut().ok_or(Fault::NoManifest)?.evidence = Some(0);
            }
        }
        let assessed = if self
            .open
            .as_ref()
            .is_some_and(|open| open.evidence.is_some())
        {
            self.kept_as_evidence(authored)?
        } else {
            self.is_next(header, &speaker)?;
            self.in_form(header)?;
            self.record(authored);
            self.assess(authored)?
        };
        if complete && let Some(batch) = self.open.take() {
            if batch.evidence == Some(0) {
                // It shows nothing that is not on record.
                let sequence = batch.manifest.first_sequence;
                return Err(Fault::Again { sequence });
            }
            let headers = batch.payloads.iter();
            let headers = headers.map(|payload| Ok((statement::parse(payload)?, &payload[..])));
            let headers = headers.collect::<Result<Vec<_>, crate::WireError>>()?;
            batch::check(&batch.manifest, headers)?;
        }
        Ok(assessed)
    }

    /// Verifies a signature under a key of the trust state, whether that is in force or not.
    fn verify(&mut self, entry: &Entry<'_>) -> Result<KeyId, Fault> {
        let signed = entry.signature.ok_or(Fault::SignatureMissing)?;
        let KeyedSignature { signature, .. } = signed;
        let id = signed.key();
        let key = self
            .registry
            .was_authority(id)
            .or_else(|| self.registry.key(id).map(|record| &record.public_key))
            .ok_or(Fault::KeyUnknown { key: id })?;
        let buffer = &mut self.buffer;
        signature::verify_with(key, entry.payload_type, entry.payload, signature, buffer)?;
        self.signatures += 1;
        Ok(id)
    }

    fn may_speak(&self, header: &Header<'_>, speaker: &Speaker) -> Result<(), Fault> {
        let at = self.effective_time;
        Ok(self.registry.may_speak(speaker, header.producer, at)?)
    }

    fn judge(&self, header: &Header<'_>, speaker: &Speaker) -> Result<Judgement, Fault> {
        let known = self.sessions.get(&header.session);
        let binding = self.registry.session_binding(speaker);
        let known = known.map(|(session, _)| session);
        Ok(session::judge(known, header, binding)?)
    }

    /// From rules version 2 on. What is evidence of an equivocation counts in any form: that is what
    /// was signed.
    fn in_form(&self, header: &Header<'_>) -> Result<(), Fault> {
        match header.breach {
            Some(breach) if assesses(&self.registry) => Err(Fault::Breach(breach)),
            _ => Ok(()),
        }
    }

    fn is_next(&self, header: &Header<'_>, speaker: &Speaker) -> Result<(), Fault> {
        match self.judge(header, speaker)? {
            Judgement::Next => Ok(()),
            Judgement::Behind => Err(Fault::Again {
                sequence: header.sequence,
            }),
        }
    }

    /// Takes a statement into its session.
    fn record(&mut self, authored: AuthoredStatement<'_>) {
        let header = authored.header;
        let digest = PayloadDigest::of(authored.entry.payload);
        let binding = self.registry.session_binding(&authored.speaker);
        let (_, runs) = self
            .sessions
            .entry(header.session)
            .and_modify(|(session, _)| session.advance(header, digest))
            .or_insert_with(|| (Session::opened(header, digest, binding), Vec::new()));
        Run::extend(runs, header.sequence, authored.leaf);
    }

    fn next_leaf(&self) -> u64 {
        self.payloads.len() as u64
    }
}

/// The result of a replay.
impl Replay {
    /// The ledger's id: the genesis entry's leaf hash.
    #[must_use]
    pub const fn ledger_id(&self) -> LedgerId {
        self.id
    }

    /// Entries so far, the genesis entry among them.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.next_leaf()
    }

    /// The trust state: who speaks for whom, and the rules in force.
    #[must_use]
    pub const fn registry(&self) -> &TrustState {
        &self.registry
    }

    /// The highest receive time.
    #[must_use]
    pub const fn effective_time(&self) -> Micros {
        self.effective_time
    }

    /// Every session with its runs.
    #[must_use]
    pub const fn sessions(&self) -> &BTreeMap<SessionId, (Session, Vec<Run>)> {
        &self.sessions
    }

    /// Leaves of trust statements, each with the effective time at it.
    #[must_use]
    pub fn trust_leaves(&self) -> &[(u64, Micros)] {
        &self.trust_leaves
    }

    /// Contents that were erased, with the leaf of the first Erasure that names them.
    #[must_use]
    pub const fn erased(&self) -> &BTreeMap<CommitmentDigest, u64> {
        &self.erased
    }

    /// The assessment's cells and what is due, after [`Replay::end`].
    #[must_use]
    pub const fn kept(&self) -> &Kept {
        &self.kept
    }

    /// All findings, by leaf and number, after [`Replay::end`].
    pub fn findings(&self) -> impl Iterator<Item = &v1::Finding> {
        self.kept.findings.values()
    }

    /// Entries by their bodies' names; batch manifests as `batch_manifest`.
    #[must_use]
    pub const fn bodies(&self) -> &BTreeMap<&'static str, u64> {
        &self.bodies
    }
}

/// Leaves after which changes are taken out of the machine.
const SETTLE_LEAVES: usize = 1024;

fn assesses(registry: &TrustState) -> bool {
    registry.rules_version() >= RULES_ASSESSED
}

fn speaker(entry: &Entry<'_>, key: Option<KeyId>) -> Speaker {
    Speaker {
        key,
        principal_leaf: entry.principal_leaf.map(LeafIndex::new),
    }
}

/// The leaf at which a session's statement of this sequence was recorded.
fn leaf_of(runs: &[Run], sequence: Sequence) -> Option<u64> {
    let behind = runs.partition_point(|run| run.first <= sequence);
    runs.get(behind.checked_sub(1)?)?.leaf_of(sequence)
}
