//! Collection: deletes contents that no leaf names, and what crashes and clients left behind.

use std::{collections::BTreeMap, sync::Arc};

use deed_evidence::CommitmentDigest;

use super::{
    ContentError, ContentStore, Shared,
    content_keys::KeyId,
    erase::Erasing,
    off_thread,
    orphans::Orphans,
    pieces::UploadOf,
    writer::{Job, is_orphaned_key},
};
use crate::store::{LedgerNumber, StoreError};

/// Most contents, and most keys, that one round examines.
const LOOKED_AT_MAX: usize = 4096;

/// Contents of a ledger, or uploads, that are deleted together: the ledger's gate is closed for
/// that long.
const DELETED_MAX: usize = 256;

/// Time that a content may wait to be named when the disk is nearly full, in microseconds.
const PRESSED_ORPHAN_US: i64 = 60_000_000;

/// The places at which the next round goes on.
#[derive(Default)]
pub(super) struct Cursors {
    contents: Option<(LedgerNumber, CommitmentDigest)>,
    keys: Option<KeyId>,
    orphans: Orphans,
}

/// The result of a round.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Contents that no leaf named in time.
    pub contents: usize,
    /// Uploads that were not finished.
    pub uploads: usize,
    /// Keys without a content.
    pub keys: usize,
    /// Contents whose interrupted erasure was finished.
    pub(crate) erasures: usize,
    /// True if everything has been examined since a round that began at the first content and key.
    pub complete: bool,
}

/// The findings of a round, before anything is deleted.
#[derive(Default)]
pub(super) struct Found {
    contents: BTreeMap<LedgerNumber, Vec<CommitmentDigest>>,
    uploads: Vec<UploadOf>,
    keys: Vec<KeyId>,
    erasing: BTreeMap<LedgerNumber, Vec<CommitmentDigest>>,
    complete: bool,
}

impl ContentStore {
    /// Runs one round of collection. A round examines a bounded number of contents and keys; the
    /// next one goes on there.
    ///
    /// # Errors
    /// [`ContentError`] if the disk fails.
    pub async fn collect(&self) -> Result<Collected, ContentError> {
        let shared = Arc::clone(&self.shared);
        let found = off_thread(move || Ok(shared.find()?)).await?;
        let mut done = Collected {
            complete: found.complete,
            ..Collected::default()
        };
        for (ledger, digests) in found.erasing {
            let gate = self.shared.gates.enter_alone(ledger).await;
            // Another thread may have finished it during the wait; repeating it does no harm.
            done.erasures += digests.len();
            self.erase(Erasing { ledger, digests }, gate).await?;
        }
        for (ledger, digests) in found.contents {
            for digests in digests.chunks(DELETED_MAX) {
                let gate = self.shared.gates.enter_alone(ledger).await;
                done.contents += self
                    .ask(|reply| Job::Collect {
                        ledger,
                        digests: digests.to_vec(),
                        gate,
                        reply,
                    })
                    .await??;
            }
        }
        for uploads in found.uploads.chunks(DELETED_MAX) {
            let uploads = uploads.to_vec();
            done.uploads += self
                .ask(|reply| Job::CollectUploads { uploads, reply })
                .await??;
        }
        if !found.keys.is_empty() {
            let keys = found.keys;
            done.keys += self.ask(|reply| Job::CollectKeys { keys, reply }).await??;
        }
        self.ask(|reply| Job::Purge { reply }).await??;
        // RocksDB would give the space of deleted contents back only at some later time.
        if done.contents + done.uploads > 0 && self.shared.store.disk().is_pressed().is_some() {
            let shared = Arc::clone(&self.shared);
            off_thread(move || Ok(shared.store.reclaim_contents()?)).await?;
        }
        Ok(done)
    }
}

impl Shared {
    fn find(&self) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let ledgers = self.store.content_ledgers()?;
        for &ledger in &ledgers {
            let erasing = self.store.erasing(ledger).take(DELETED_MAX);
            let erasing = erasing.collect::<Result<Vec<_>, _>>()?;
            if !erasing.is_empty() {
                found.erasing.insert(ledger, erasing);
            }
            let live = self.uploads.lock().clone();
            for upload in self.pieces.list(ledger).take(LOOKED_AT_MAX) {
                let upload = upload?;
                if !live.contains(&upload.id) {
                    found.uploads.push(upload);
                }
            }
        }
        let mut cursors = self.cursors.lock();
        cursors.contents = self.find_contents(&ledgers, cursors.contents, &mut found)?;
        self.find_keys(&mut cursors, &mut found)?;
        found.complete = cursors.contents.is_none() && cursors.keys.is_none();
        Ok(found)
    }

    /// Finds keys without a content: those of erased contents, which came back with an old copy of
    /// the keys, and others that have been orphans for long enough.
    fn find_keys(&self, cursors: &mut Cursors, found: &mut Found) -> Result<(), StoreError> {
        let after = cursors.keys;
        let keys = self.keys.after(after, LOOKED_AT_MAX)?;
        cursors.keys = (keys.len() == LOOKED_AT_MAX)
            .then(|| keys.last().map(|(ledger, digest, _)| (*ledger, *digest)))
            .flatten();
        let mut orphans = Vec::new();
        for (ledger, digest, _) in keys {
            if !is_orphaned_key(self, ledger, &digest)? {
                continue;
            }
            if self.store.erased(ledger, &digest)?.is_some() {
                found.keys.push((ledger, digest));
            } else {
                orphans.push((ledger, digest));
            }
        }
        let now_us = self.clock.now().get();
        let ripe = cursors
            .orphans
            .note(after, cursors.keys, &orphans, now_us, self.orphan_us);
        found.keys.extend(ripe);
        if cursors.keys.is_none() {
            cursors.orphans.tell(self.orphan_us);
        }
        Ok(())
    }

    /// Returns the time before which a content must have been stored to be collected. When the disk
    /// is nearly full, contents that no leaf names are collected earlier.
    pub(super) fn orphaned_before_us(&self) -> i64 {
        let age_us = if self.store.disk().is_pressed().is_some() {
            self.orphan_us.min(PRESSED_ORPHAN_US)
        } else {
            self.orphan_us
        };
        self.clock.now().get().saturating_sub(age_us)
    }

    /// Finds contents that no leaf names and that are old enough; returns where the next round goes
    /// on.
    fn find_contents(
        &self,
        ledgers: &[LedgerNumber],
        after: Option<(LedgerNumber, CommitmentDigest)>,
        found: &mut Found,
    ) -> Result<Option<(LedgerNumber, CommitmentDigest)>, StoreError> {
        let oldest = self.orphaned_before_us();
        let mut looked_at = 0;
        for &ledger in ledgers {
            if after.is_some_and(|(begun, _)| ledger < begun) {
                continue;
            }
            let begun = after.filter(|(begun, _)| *begun == ledger);
            let from = begun.map_or(CommitmentDigest::new([0; 32]), |(_, digest)| digest);
            for content in self.store.contents(ledger, &from) {
                let (digest, record) = content?;
                if looked_at == LOOKED_AT_MAX {
                    return Ok(Some((ledger, digest)));
                }
                looked_at += 1;
                if record.stored_at_us <= oldest && !self.store.is_named(ledger, &digest)? {
                    found.contents.entry(ledger).or_default().push(digest);
                }
            }
        }
        Ok(None)
    }
}
