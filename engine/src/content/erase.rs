//! Erasure: the keys are destroyed first, then everything else.
//!
//! ```text
//! begin_erasure       the ledger's gate is taken alone, references are read
//! the turn            the Erasure's entry, tombstones (erased and erasing): one commit
//! complete_erasure    keys deleted and synced, then destroyed; pieces and records deleted, the
//!                     erasing mark with them
//! ```
//!
//! From the commit on the contents count as erased. If the server ends before the keys are gone,
//! the next start finishes the erasure; if only the caller goes away, the next collection does.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use deed_evidence::{CommitmentDigest, TaskId};

use super::{
    ContentError, ContentStatus, ContentStore, Reference, Shared,
    content_keys::{ContentKeys, KeyBatch},
    gate::LoneGate,
    off_thread,
    pieces::{Pieces, UploadOf},
    writer::{Disk, Job},
};
use crate::store::{Batch, Family, LedgerNumber, Store, StoreError, content::ContentRecord, keys};

/// Most tasks whose statements may name a content that is to be erased.
const TASKS_MAX: usize = 100_000;

/// Most contents with the same bytes that are looked up at once.
const TWINS_MAX: usize = 4096;

/// References that are read at once.
const PAGE_MAX: usize = 1 << 16;

/// An erasure that may be recorded now: while it lives, nothing stores or names contents of the
/// ledger.
#[must_use]
pub(crate) struct ErasureGuard {
    shared: Arc<Shared>,
    ledger: LedgerNumber,
    contents: Vec<(CommitmentDigest, ContentStatus)>,
    gate: LoneGate,
}

/// Contents whose tombstones are committed.
pub(super) struct Erasing {
    pub(super) ledger: LedgerNumber,
    pub(super) digests: Vec<CommitmentDigest>,
}

/// The result of an erasure.
pub(super) struct Erased {
    /// Number of keys that were deleted.
    pub(super) keys: u32,
    /// Principal and size, in bytes, of each content that was deleted.
    pub(super) released: Vec<(String, u64)>,
}

/// The newest reference of each task, for a bounded number of tasks.
struct Newest {
    max: usize,
    by_task: BTreeMap<Option<TaskId>, Reference>,
}

impl Newest {
    fn new(max: usize) -> Self {
        Self {
            max,
            by_task: BTreeMap::new(),
        }
    }

    /// Adds a reference; returns false if there is no room for another task.
    fn add(&mut self, reference: Reference) -> bool {
        let full = self.by_task.len() >= self.max;
        match self.by_task.entry(reference.task) {
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(vacant) => {
                vacant.insert(reference);
            }
            Entry::Occupied(mut kept) => {
                let order = |of: &Reference| (of.received_at, of.leaf);
                if order(&reference) > order(kept.get()) {
                    kept.insert(reference);
                }
            }
        }
        true
    }
}

impl ErasureGuard {
    /// Returns the state of each content, in the order in which they were asked for.
    pub(crate) fn contents(&self) -> &[(CommitmentDigest, ContentStatus)] {
        &self.contents
    }

    /// Returns leaves that name a content: the newest one of each task, and of statements without a
    /// task. An older one of the same task can neither be under another hold nor be within the
    /// retention floor for longer. Reads the disk.
    ///
    /// # Errors
    /// [`ContentError::TooManyTasks`] or [`ContentError::Store`].
    pub(crate) fn references(
        &self,
        digest: &CommitmentDigest,
    ) -> Result<Vec<Reference>, ContentError> {
        let store = &self.shared.store;
        let mut newest = Newest::new(TASKS_MAX);
        let mut from = 0;
        // The references are read in pages, so that no snapshot of the store is kept for long. The
        // gate keeps others from adding references in between.
        loop {
            let mut count = 0;
            for reference in store.references(self.ledger, digest, from).take(PAGE_MAX) {
                let reference = reference?;
                count += 1;
                from = reference.leaf.saturating_add(1);
                if !newest.add(reference) {
                    let (digest, max) = (*digest, TASKS_MAX);
                    return Err(ContentError::TooManyTasks { digest, max });
                }
            }
            if count < PAGE_MAX {
                return Ok(newest.by_task.into_values().collect());
            }
        }
    }
}

impl ErasureGuard {
    /// Returns contents of the ledger that are held, have the same bytes as one of these, and are
    /// not among them: other salts give other commitments. They are in ascending order and bounded
    /// in number. Reads the disk.
    ///
    /// Erased contents are not returned. Contents that were stored after another content with their
    /// bytes was erased cannot be found by that one: its tag was destroyed with its key.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub(crate) fn twins(&self) -> Result<Vec<CommitmentDigest>, ContentError> {
        let (shared, ledger) = (&self.shared, self.ledger);
        let mut tags = HashSet::new();
        for (digest, state) in &self.contents {
            // An empty content has no bytes to protect.
            let record = shared.store.content(ledger, digest)?;
            let is_empty = record.is_none_or(|record| record.size == 0);
            if *state == ContentStatus::Held
                && !is_empty
                && let Some(key) = shared.keys.get(ledger, digest)?
            {
                tags.insert(key.tag);
            }
        }
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        let named: HashSet<_> = self.contents.iter().map(|(digest, _)| *digest).collect();
        let limit = TWINS_MAX + named.len();
        let mut twins = Vec::new();
        for digest in shared.keys.tagged(ledger, &tags, limit)? {
            if !named.contains(&digest) && shared.state(ledger, &digest)? == ContentStatus::Held {
                twins.push(digest);
            }
        }
        Ok(twins)
    }
}

impl ContentStore {
    /// Waits until nothing stores or names contents of a ledger, keeps it that way, and looks up
    /// these contents. The caller keeps the result until the Erasure's turn is answered, then
    /// passes it to [`Self::complete_erasure`], or drops it if the Erasure is refused.
    ///
    /// # Errors
    /// [`ContentError::Store`].
    pub(crate) async fn begin_erasure(
        &self,
        ledger: LedgerNumber,
        digests: &[CommitmentDigest],
    ) -> Result<ErasureGuard, ContentError> {
        let gate = self.shared.gates.enter_alone(ledger).await;
        let (shared, digests) = (Arc::clone(&self.shared), digests.to_vec());
        off_thread(move || {
            let contents = digests
                .into_iter()
                .map(|digest| Ok((digest, shared.state(ledger, &digest)?)))
                .collect::<Result<Vec<_>, StoreError>>()?;
            Ok(ErasureGuard {
                shared,
                ledger,
                contents,
                gate,
            })
        })
        .await
    }

    /// Destroys the keys of the contents that the Erasure at `erasure_leaf` took, and returns their
    /// number when no file holds them. Contents that an earlier Erasure took are left to that one.
    ///
    /// The work goes on if the caller gives up.
    ///
    /// # Errors
    /// [`ContentError::Stopped`] if a write failed; the next start finishes.
    pub(crate) async fn complete_erasure(
        &self,
        guard: ErasureGuard,
        erasure_leaf: u64,
    ) -> Result<u32, ContentError> {
        let digests = guard
            .contents
            .iter()
            .map(|(digest, _)| *digest)
            .collect::<Vec<_>>();
        let (shared, ledger) = (Arc::clone(&self.shared), guard.ledger);
        let digests = off_thread(move || {
            let mut taken = Vec::new();
            for digest in digests {
                if shared.store.erased(ledger, &digest)? == Some(erasure_leaf) {
                    taken.push(digest);
                }
            }
            Ok(taken)
        })
        .await?;
        self.erase(Erasing { ledger, digests }, guard.gate).await
    }

    pub(super) async fn erase(
        &self,
        erasing: Erasing,
        gate: LoneGate,
    ) -> Result<u32, ContentError> {
        self.ask(|reply| Job::Erase {
            erasing,
            gate,
            reply,
        })
        .await?
    }
}

/// Erases contents whose tombstones are committed. It is safe to repeat from the start.
pub(super) fn run(
    store: &Store,
    pieces: &dyn Pieces,
    keys: &dyn ContentKeys,
    disk: &mut Disk,
    erasing: &Erasing,
) -> Result<Erased, StoreError> {
    let ledger = erasing.ledger;
    let mut erased = Erased {
        keys: 0,
        released: Vec::new(),
    };
    if erasing.digests.is_empty() {
        return Ok(erased);
    }
    let mut gone = KeyBatch::default();
    for digest in &erasing.digests {
        erased.keys += u32::from(keys.get(ledger, digest)?.is_some());
        gone.delete(ledger, digest);
    }
    (disk.keys)(gone)?;
    let deleted: Vec<_> = erasing
        .digests
        .iter()
        .map(|digest| (ledger, *digest))
        .collect();
    (disk.destroy)(&deleted)?;
    // The marks are deleted last: as long as they are there, everything above is repeated after a
    // crash.
    let mut batch = Batch::default();
    for digest in &erasing.digests {
        if let Some(record) = delete_content(store, pieces, &mut batch, ledger, digest)? {
            erased.released.push((record.principal, record.size));
        }
        batch.delete(store, Family::Content, &keys::erasing(ledger, digest));
    }
    (disk.contents)(batch)?;
    Ok(erased)
}

/// Adds the deletion of a content, its pieces and its references to a batch; returns its record.
pub(super) fn delete_content(
    store: &Store,
    pieces: &dyn Pieces,
    batch: &mut Batch,
    ledger: LedgerNumber,
    digest: &CommitmentDigest,
) -> Result<Option<ContentRecord>, StoreError> {
    let record = store.content(ledger, digest)?;
    if let Some(record) = &record
        && let Some(upload) = UploadOf::of_record(ledger, digest, record)
    {
        pieces.delete(batch, &upload, record.chunks)?;
    }
    store.delete_content(batch, ledger, digest, record.as_ref())?;
    Ok(record)
}

/// Finishes erasures that a crash interrupted; returns the number of contents.
pub(super) fn finish_all(
    store: &Store,
    pieces: &dyn Pieces,
    keys: &dyn ContentKeys,
    disk: &mut Disk,
) -> Result<usize, StoreError> {
    let mut finished = 0;
    for ledger in store.content_ledgers()? {
        let digests = store.erasing(ledger).collect::<Result<Vec<_>, _>>()?;
        finished += digests.len();
        run(store, pieces, keys, disk, &Erasing { ledger, digests })?;
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use deed_evidence::Micros;

    use super::*;

    #[test]
    fn the_newest_reference_of_each_task_is_kept_and_tasks_are_bounded() {
        let reference = |leaf, task: Option<u8>, received_us| Reference {
            leaf,
            task: task.map(|task| TaskId::new([task; 16])),
            received_at: Micros::new(received_us),
        };
        let mut newest = Newest::new(2);
        assert!(newest.add(reference(1, Some(1), 50)));
        assert!(newest.add(reference(2, None, 60)));
        assert!(newest.add(reference(3, Some(1), 40)));
        assert!(newest.add(reference(4, None, 60)));
        assert!(!newest.add(reference(5, Some(2), 70)));
        let leaves: Vec<_> = newest.by_task.values().map(|kept| kept.leaf).collect();
        assert_eq!(leaves, [4, 1]);
    }
}
