//! A task judged in this process: its story fetched, and assessed by the code that the ledger runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use deed_evidence::{
    TaskId,
    entry::Entry,
    replay::{
        Fault, ReplayError,
        task::{Covered, TaskReplay, TaskVerdict, WholeBatch},
    },
    trust::KeyRecord,
};
use deed_proto::v1::Author;
use deed_tlog::{LeafIndex, TreeSize};

use super::{
    compare::{self, Compared, Difference},
    story::ProvenTask,
};
use crate::{
    error::{Error, InputError},
    ledger::Ledger,
    proofs::KnownTrust,
    read::{Leaf, ProvenEntry},
    trust::TrustError,
};

/// Entries elsewhere that a story points to and that are fetched at most; what more there is stays
/// the server's word.
const ELSEWHERE_MAX: usize = 4_096;

/// A task's story, judged again from its own entries.
#[derive(Debug)]
pub struct JudgedTask {
    /// As the server tells it.
    pub told: ProvenTask,
    /// The verdict over its entries, or the reason why they cannot be those of an honest ledger.
    pub verdict: Result<TaskVerdict, TrustError>,
    /// Parts of the server's story that the entries contradict.
    pub differences: Vec<Difference>,
    /// Parts of the server's story that the entries neither show nor contradict: time may have
    /// passed by entries elsewhere.
    pub by_word: Vec<Difference>,
}

impl JudgedTask {
    /// The verdict, if the server's story agrees with it.
    ///
    /// # Errors
    /// [`TrustError`] naming the first thing that is not as the server says.
    pub fn agreed(&self) -> Result<&TaskVerdict, TrustError> {
        let verdict = self.verdict.as_ref().map_err(Clone::clone)?;
        match self.differences.first() {
            None => Ok(verdict),
            Some(first) => Err(TrustError::Task {
                reason: first.to_string(),
            }),
        }
    }
}

impl Ledger {
    /// Fetches a task's story, verifies it as [`task`](Self::task) does, and judges it: signatures,
    /// standing, clearances, receipts, states, layers and findings are worked out here from its
    /// entries and the trust chain, and compared with the server's.
    ///
    /// # Errors
    /// As [`task`](Self::task); [`Error::Input`] with verification switched off. That the story does
    /// not hold is no error here: see [`JudgedTask::agreed`].
    pub async fn judged_task(&self, task: TaskId) -> Result<JudgedTask, Error> {
        if self.shared.belief.is_none() {
            return Err(InputError::Unverified.into());
        }
        let told = self.task(task).await?;
        let size = told.head.head.size;
        let trust = self.follow_trust().await?;
        let mut given: BTreeMap<u64, Bytes> = BTreeMap::new();
        let statements = trust.entries.iter().skip(1);
        for (index, entry) in statements.filter(|(index, _)| index.get() < size.get()) {
            given.insert(index.get(), entry.clone());
        }
        for entry in &told.entries {
            given.insert(entry.index.get(), entry.entry.clone());
        }
        for leaf in elsewhere(&told, size).into_iter().take(ELSEWHERE_MAX) {
            if leaf > 0 && !given.contains_key(&leaf) {
                let entry = self.entry(LeafIndex::new(leaf), Some(size)).await?;
                given.insert(leaf, entry.bytes);
            }
        }
        let mut replay = TaskReplay::begin(&self.shared.genesis_entry, task).map_err(unfit)?;
        let verdict = match self.replay(&mut replay, &given, size).await? {
            Ok(()) => replay.end(size.get()).map_err(unfit),
            Err(error) => Err(error),
        };
        let Compared {
            differences,
            by_word,
        } = match &verdict {
            Ok(verdict) => compare::with(&told, verdict, &given),
            Err(_) => Compared::default(),
        };
        Ok(JudgedTask {
            told,
            verdict,
            differences,
            by_word,
        })
    }

    async fn replay(
        &self,
        replay: &mut TaskReplay,
        given: &BTreeMap<u64, Bytes>,
        size: TreeSize,
    ) -> Result<Result<(), TrustError>, Error> {
        let mut batches = Batches::default();
        for (leaf, entry) in given {
            let covered = self.covering(&mut batches, replay, *leaf, entry, size);
            let covered = match covered.await {
                Ok(covered) => covered,
                Err(Error::Trust(error)) => return Ok(Err(*error)),
                Err(error) => return Err(error),
            };
            if let Err(error) = replay.leaf(*leaf, entry, covered.as_ref()) {
                return Ok(Err(unfit(error)));
            }
        }
        Ok(Ok(()))
    }

    /// The signature over a batched statement, followed to its manifest.
    async fn covering(
        &self,
        batches: &mut Batches,
        replay: &TaskReplay,
        leaf: u64,
        entry: &Bytes,
        size: TreeSize,
    ) -> Result<Option<Covered>, Error> {
        let parsed = Entry::parse(entry);
        if !parsed.is_ok_and(|parsed| parsed.author == Author::Batched) {
            return Ok(None);
        }
        if let Some(covered) = self.sibling(batches, leaf, entry).await? {
            return Ok(Some(covered));
        }
        let registry = replay.registry();
        let key = |id| registry.key(id).map(|record| record.public_key.clone());
        let proven = self
            .prove_batched(Leaf::Index(LeafIndex::new(leaf)), Some(size), key)
            .await;
        match proven {
            Ok(proven) => {
                let covered = Covered::of(&proven.proof, proven.path);
                let covered = covered.map_err(|fault| unfit_at(leaf, &fault))?;
                batches.newest = Some((covered.clone(), None));
                Ok(Some(covered))
            }
            Err(Error::Refused {
                code: tonic::Code::FailedPrecondition,
                ..
            }) => Err(fails(format!(
                "the entry at leaf {leaf} is one of a batch, and the server shows no manifest that \
                 covers it: nobody's signature stands behind it"
            ))
            .into()),
            Err(error) => Err(error),
        }
    }

    /// The same for a further statement of the batch that came before: the whole of it is read once,
    /// in place of a proof for each of its statements.
    async fn sibling(
        &self,
        batches: &mut Batches,
        leaf: u64,
        entry: &Bytes,
    ) -> Result<Option<Covered>, Error> {
        let Some((first, whole)) = &mut batches.newest else {
            return Ok(None);
        };
        let manifest = first.path().manifest_index.get();
        let count = u64::from(first.path().manifest.count.get());
        let begin = manifest.saturating_add(1);
        if !(begin..begin.saturating_add(count)).contains(&leaf) {
            return Ok(None);
        }
        let whole = match whole {
            Some(whole) => whole,
            None => {
                let end = TreeSize::new(begin.saturating_add(count));
                let mut entries = self.entries(LeafIndex::new(begin), end);
                let mut payloads = Vec::new();
                while let Some((index, bytes)) = entries.next().await? {
                    let parsed = Entry::parse(&bytes);
                    let parsed = parsed.map_err(|error| unfit_at(index.get(), &error.into()))?;
                    payloads.push(bytes.slice_ref(parsed.payload));
                }
                let read = WholeBatch::of(&first.path().manifest, &payloads);
                whole.insert(read.map_err(|fault| unfit_at(manifest, &fault))?)
            }
        };
        let covered = first.sibling(leaf, entry, whole);
        Ok(Some(covered.map_err(|fault| unfit_at(leaf, &fault))?))
    }

    /// An entry, and how its author is known: its signature is verified, and that the key was in
    /// force there.
    ///
    /// # Errors
    /// As [`entry`](Self::entry).
    pub async fn vouched_entry(&self, index: LeafIndex) -> Result<VouchedEntry, Error> {
        let entry = self.entry(index, None).await?;
        let voice = self.voices().of(index.get(), &entry.bytes).await?;
        Ok(VouchedEntry { entry, voice })
    }

    /// Tells of proven entries how their authors are known.
    #[must_use]
    pub fn voices(&self) -> Voices {
        Voices {
            ledger: self.clone(),
            batches: Batches::default(),
            known: None,
        }
    }
}

/// Tells of proven entries how their authors are known. Made by [`Ledger::voices`]; entries are best
/// given in the order of their leaves.
#[derive(Debug)]
pub struct Voices {
    ledger: Ledger,
    batches: Batches,
    known: Option<Known>,
}

/// The batch whose statements are being looked at.
#[derive(Debug, Default)]
struct Batches {
    /// One of its statements, and all of them once a second one was asked for.
    newest: Option<(Covered, Option<WholeBatch>)>,
}

/// The trust chain, applied up to a leaf.
#[derive(Debug)]
struct Known {
    trust: Arc<KnownTrust>,
    replay: TaskReplay,
    /// Number of trust entries applied.
    applied: usize,
    leaf: u64,
}

impl Voices {
    /// Checks the author of the entry that is proven to be at `leaf`, and returns the result.
    ///
    /// # Errors
    /// Any [`Error`] of fetching the trust chain and, for a batched statement, its proof.
    pub async fn of(&mut self, leaf: u64, entry: &Bytes) -> Result<Voice, Error> {
        let Ok(parsed) = Entry::parse(entry) else {
            return Ok(Voice::Refused("it cannot be read".to_owned()));
        };
        match parsed.author {
            Author::Signed | Author::Batched => {}
            Author::Ledger => return Ok(Voice::Ledger),
            _ => return Ok(Voice::Nobody),
        }
        if self.ledger.shared.belief.is_none() {
            return Ok(Voice::Unchecked);
        }
        let ledger = self.ledger.clone();
        let mut batches = std::mem::take(&mut self.batches);
        let known = self.known_at(leaf).await?;
        let applied = known.applied.checked_sub(1);
        let last = applied.and_then(|at| known.trust.entries.get(at));
        if last.is_some_and(|(index, _)| index.get() == leaf) {
            // The chain verifies its own.
            return Ok(Voice::Verified);
        }
        let newest = match ledger.shared.name_base() {
            Some(base) if base.head.size.get() > leaf => base.head.size,
            _ => ledger.head().await?.signed.head.size,
        };
        let covered = ledger.covering(&mut batches, &known.replay, leaf, entry, newest);
        let covered = match covered.await {
            Ok(covered) => covered,
            Err(Error::Trust(error)) => return Ok(Voice::Refused(error.to_string())),
            Err(error) => return Err(error),
        };
        let key = match &covered {
            Some(covered) => Some(covered.path().key_id),
            None => parsed.signature.map(|signature| signature.key()),
        };
        // A later statement may say that somebody else had the key by then.
        let doubtful = key.and_then(|key| known.trust.registry().key(key));
        let doubtful = doubtful.filter(|record| record.is_doubtful(parsed.received_at));
        let voice = match known.replay.speaks(leaf, entry, covered.as_ref()) {
            Ok(()) => doubtful.map_or(Voice::Verified, |record| {
                Voice::Refused(compromised(record))
            }),
            Err(error) => Voice::Refused(error.fault.to_string()),
        };
        self.batches = batches;
        Ok(voice)
    }

    async fn known_at(&mut self, leaf: u64) -> Result<&mut Known, Error> {
        let before = self.known.take().filter(|known| known.leaf <= leaf);
        let mut known = match before {
            Some(known) => known,
            None => {
                let trust = self.ledger.follow_trust().await?;
                // Nothing is assessed but who speaks, so the task does not matter.
                let genesis = &self.ledger.shared.genesis_entry;
                let replay = TaskReplay::begin(genesis, TaskId::new([0; 16])).map_err(unfit)?;
                Known {
                    trust,
                    replay,
                    applied: 1,
                    leaf: 0,
                }
            }
        };
        while let Some((index, entry)) = known.trust.entries.get(known.applied)
            && index.get() <= leaf
        {
            known.replay.leaf(index.get(), entry, None).map_err(unfit)?;
            known.applied += 1;
        }
        known.leaf = leaf;
        Ok(self.known.insert(known))
    }
}

fn compromised(record: &KeyRecord) -> String {
    let leaf = record.revoked_leaf.map_or(0, LeafIndex::get);
    let since = record.compromised_since.map(|since| since.to_string());
    format!(
        "its key was reported compromised at leaf {leaf}, since {}",
        since.unwrap_or_default()
    )
}

/// An entry that is proven to be in the log, and how its author is known.
#[derive(Debug)]
pub struct VouchedEntry {
    /// The entry.
    pub entry: ProvenEntry,
    /// The result of the check of its author.
    pub voice: Voice,
}

/// The result of checking the author of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voice {
    /// The signature, or that of the batch's manifest, holds under a key that was registered for the
    /// producer and in force, and that no known statement reports compromised by then.
    Verified,
    /// Nobody signed: the producer is claimed.
    Nobody,
    /// The ledger wrote it. Whether what stands before it calls for it was not looked at.
    Ledger,
    /// It is signed, and that proves nothing: why.
    Refused(String),
    /// Verification is switched off.
    Unchecked,
}

/// Leaves outside of the task that the server's story points to: when time had passed, who saw
/// something. The newest one shows how late it is.
fn elsewhere(told: &ProvenTask, size: TreeSize) -> BTreeSet<u64> {
    let size = size.get();
    let mut leaves: BTreeSet<u64> = BTreeSet::from([size.saturating_sub(1)]);
    for act in &told.acts {
        leaves.extend(&act.observation_leaves);
    }
    for finding in &told.findings {
        leaves.insert(finding.leaf_index);
        leaves.extend(finding.contradicts_leaf);
        leaves.extend(finding.disposition_leaf);
    }
    leaves.retain(|leaf| *leaf < size);
    leaves
}

pub(super) fn unfit(error: ReplayError) -> TrustError {
    unfit_at(error.leaf, &error.fault)
}

fn unfit_at(leaf: u64, fault: &Fault) -> TrustError {
    fails(format!(
        "leaf {leaf} is not one that an honest ledger would have: {fault}"
    ))
}

fn fails(reason: String) -> TrustError {
    TrustError::Task { reason }
}
