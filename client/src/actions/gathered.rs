//! The entries that a task is judged from: its own, the trust chain, and what else reaches into it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use deed_evidence::{
    KeyId, Sequence, TaskId,
    entry::Entry,
    replay::task::{Covered, WholeBatch},
    statement::BodyKind,
};
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{LeafIndex, PublicKey, TreeSize};
use tonic::Code;

use super::{
    checked::{fails, unfit_at},
    task_report::ProvenTask,
};
use crate::{error::Error, ledger::Ledger, proofs::KnownTrust, read::Leaf, trust::TrustError};

/// Entries elsewhere that a report points to and that are fetched at most; what more there is stays
/// the server's word.
const ELSEWHERE_MAX: usize = 4_096;

/// Batches of which it is asked what is at the place of their first statement; of what more there are
/// that stays the server's word.
const BATCHES_MAX: usize = 1_024;

/// Further places of a batch that are looked at if nothing is at that of its first statement.
const PLACES_MAX: u64 = 16;

/// The entries that a task is judged from.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) report: ProvenTask,
    /// Entries by leaf, each proven to be in the tree of the report.
    pub(super) given: BTreeMap<u64, Bytes>,
    /// The signatures over the batched ones.
    pub(super) covered: BTreeMap<u64, Covered>,
    /// Leaves that the report points to, and that were too many.
    pub(super) missed: BTreeSet<u64>,
    /// A leaf of the task that the report does not tell.
    pub(super) unreported: Option<u64>,
    /// The newest leaf, if the report does not point to it.
    pub(super) time_only: Option<u64>,
    /// The reason why an entry has no valid signature.
    pub(super) refused: Option<TrustError>,
    pub(super) task: TaskId,
}

impl Gathered {
    fn begin(reported: ProvenTask, task: TaskId, trust: &KnownTrust) -> Self {
        let size = reported.head.head.size.get();
        let statements = trust.entries.iter().skip(1);
        let statements = statements.filter(|(index, _)| index.get() < size);
        let trusted = statements.map(|(index, entry)| (index.get(), entry.clone()));
        let own = reported.entries.iter();
        let own = own.map(|entry| (entry.index.get(), entry.entry.clone()));
        Self {
            given: trusted.chain(own).collect(),
            covered: BTreeMap::new(),
            missed: BTreeSet::new(),
            unreported: None,
            time_only: None,
            refused: None,
            report: reported,
            task,
        }
    }

    /// Returns true if a leaf shows how late it is, and nothing else: the report does not point to it.
    pub(super) fn shows_time(&self, leaf: u64) -> bool {
        self.time_only == Some(leaf)
    }

    fn size(&self) -> TreeSize {
        self.report.head.head.size
    }

    /// Takes an entry from elsewhere. One of the task itself is in its report, or the report is of an
    /// earlier moment than its head, or a lie.
    fn take(&mut self, leaf: u64, entry: Bytes) {
        if self.given.contains_key(&leaf) {
            return;
        }
        if named(&entry).is_some_and(|(task, _)| task == Some(self.task)) {
            self.unreported = Some(leaf);
        } else {
            self.given.insert(leaf, entry);
        }
    }

    /// Leaves elsewhere that the report points to. How late it is, and what others saw, comes first: it
    /// decides about acts. So a report with very many findings does not push it out.
    fn elsewhere(&mut self) -> BTreeSet<u64> {
        let size = self.size().get();
        let acts = self.report.acts.iter();
        let seen: BTreeSet<u64> = acts
            .flat_map(|act| act.observation_leaves.iter().copied())
            .chain([size.saturating_sub(1)])
            .collect();
        let findings = self.report.findings.iter();
        let found: BTreeSet<u64> = findings
            .flat_map(|one| {
                let further = one.contradicts_leaf.into_iter().chain(one.disposition_leaf);
                further.chain([one.leaf_index])
            })
            .collect();
        let newest = size.saturating_sub(1);
        let mut pointed_to = self
            .report
            .acts
            .iter()
            .flat_map(|act| &act.observation_leaves);
        let is_pointed_to = pointed_to.any(|leaf| *leaf == newest) || found.contains(&newest);
        let is_given = self.given.contains_key(&newest);
        self.time_only = (!is_pointed_to && !is_given).then_some(newest);
        let wanted = seen.iter().chain(found.difference(&seen)).copied();
        let wanted = wanted.filter(|leaf| *leaf > 0 && *leaf < size);
        let mut wanted = wanted.filter(|leaf| !self.given.contains_key(leaf));
        let fetched = wanted.by_ref().take(ELSEWHERE_MAX).collect();
        self.missed = wanted.collect();
        fetched
    }
}

/// The batch whose statements are being looked at.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// A statement of the newest batch, and the whole batch once a second statement was asked for.
    newest: Option<(Covered, Option<WholeBatch>)>,
}

impl Ledger {
    /// Fetches what a task is judged from, beside its report.
    pub(super) async fn gather(
        &self,
        reported: ProvenTask,
        task: TaskId,
    ) -> Result<Gathered, Error> {
        let trust = self.follow_trust().await?;
        let mut gathered = Gathered::begin(reported, task, &trust);
        let elsewhere = gathered.elsewhere();
        self.fetch(&mut gathered, &elsewhere).await?;
        if gathered.unreported.is_none() {
            self.cover(&mut gathered, &trust).await?;
        }
        Ok(gathered)
    }

    /// Fetches entries, each proven to be in the report's tree.
    async fn fetch(&self, gathered: &mut Gathered, leaves: &BTreeSet<u64>) -> Result<(), Error> {
        let size = gathered.size();
        for leaf in leaves {
            if !gathered.given.contains_key(leaf) {
                let entry = self.entry(LeafIndex::new(*leaf), Some(size)).await?;
                gathered.take(*leaf, entry.bytes);
            }
        }
        Ok(())
    }

    /// Follows every batched entry to the signature over its batch, and looks whether its batch counts.
    async fn cover(&self, gathered: &mut Gathered, trust: &KnownTrust) -> Result<(), Error> {
        let size = gathered.size();
        let state = trust.state();
        let key = |id| state.key(id).map(|record| record.public_key.clone());
        let (mut batches, mut manifests) = (Batches::default(), BTreeMap::new());
        let mut doubtful = BTreeSet::new();
        let (mut waiting, mut looked_at) = (gathered.given.clone(), BTreeSet::new());
        while let Some((leaf, entry)) = waiting.pop_first() {
            looked_at.insert(leaf);
            if gathered.shows_time(leaf) {
                // The entry only shows the time. Its text is not judged, so its signature is not needed.
                continue;
            }
            let covered = self.covering(&mut batches, key, leaf, &entry, size).await;
            let covered = match covered {
                Ok(Some(covered)) => covered,
                Ok(None) => continue,
                Err(Error::Trust(error)) => {
                    gathered.refused = Some(*error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            if says_something(&entry, gathered.task) {
                let manifest = covered.path().manifest_index.get();
                let placed = match manifests.get(&manifest) {
                    Some(placed) => *placed,
                    None if manifests.len() >= BATCHES_MAX => false,
                    None => {
                        let (placed, fetched) = self.place(gathered, &covered).await?;
                        manifests.insert(manifest, placed);
                        for leaf in fetched.difference(&looked_at) {
                            let new = gathered.given.get(leaf).cloned();
                            waiting.extend(new.map(|entry| (*leaf, entry)));
                        }
                        placed
                    }
                };
                if !placed {
                    doubtful.insert(manifest);
                }
            }
            gathered.covered.insert(leaf, covered);
        }
        for covered in gathered.covered.values_mut() {
            if doubtful.contains(&covered.path().manifest_index.get()) {
                *covered = covered.clone().in_doubt();
            }
        }
        Ok(())
    }

    /// Fetches a batch's first statement, and what was at that one's place in the session before: then
    /// the batch is evidence of an equivocation and says nothing. Returns true if it was found out which
    /// it is, and the leaves that show it.
    async fn place(
        &self,
        gathered: &mut Gathered,
        covered: &Covered,
    ) -> Result<(bool, BTreeSet<u64>), Error> {
        let manifest = &covered.path().manifest;
        let manifest_leaf = covered.path().manifest_index.get();
        let begin = manifest_leaf.saturating_add(1);
        let first = manifest.first_sequence.get();
        let end = first.saturating_add(manifest.count.get().into());
        // A batch that counts has all of its places. Of one that does not, the first may be one that
        // the producer has skipped, which is nobody's: then another place shows the equivocation.
        for sequence in first..end.min(first.saturating_add(PLACES_MAX)) {
            let leaf = Leaf::Statement(manifest.session, Sequence::new(sequence));
            let there = match self.prove_leaf(leaf, Some(gathered.size())).await {
                Ok(proven) => proven.index.get(),
                Err(Error::Refused {
                    code: Code::NotFound | Code::OutOfRange,
                    ..
                }) => continue,
                Err(error) => return Err(error),
            };
            let counts = there == begin && sequence == first;
            if !counts && there >= manifest_leaf {
                break;
            }
            let both = BTreeSet::from([there, begin]);
            self.fetch(gathered, &both).await?;
            return Ok((true, both));
        }
        Ok((false, BTreeSet::new()))
    }

    /// The signature over a batched statement, followed to its manifest; `None` for one that is not
    /// batched.
    pub(super) async fn covering(
        &self,
        batches: &mut Batches,
        key: impl Fn(KeyId) -> Option<PublicKey>,
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
                code: Code::FailedPrecondition,
                ..
            }) => Err(fails(format!(
                "the entry at leaf {leaf} is one of a batch, and the server shows no manifest that \
                 covers it: nobody's signature stands behind it"
            ))
            .into()),
            Err(error) => Err(error),
        }
    }

    /// Does the same for a further statement of the batch before: the whole batch is read once,
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
}

/// The task that a statement names, and what it is.
fn named(entry: &Bytes) -> Option<(Option<TaskId>, BodyKind)> {
    let entry = Entry::parse(entry).ok()?;
    if entry.payload_type != PayloadType::Statement {
        return None;
    }
    let header = entry.statement().ok()?;
    Some((header.task, header.body))
}

/// Returns true if a statement is the task's, or may reach into it: then it matters whether its batch
/// counts.
fn says_something(entry: &Bytes, task: TaskId) -> bool {
    named(entry).is_some_and(|(of, body)| of == Some(task) || body == BodyKind::Observation)
}
