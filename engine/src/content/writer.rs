//! The thread that writes contents and keys. Requests that wait at the same time are written
//! together.

use std::{
    collections::HashSet,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
};

use bytes::Bytes;
use deed_evidence::CommitmentDigest;
use prost::Message as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    Binding, ContentError, ContentStatus, LedgerRef, NewContent, Shared, UploadId,
    content_keys::{ContentKeys, KeyBatch, KeyId, WrappedKey},
    erase::{self, Erasing},
    gate::LoneGate,
    pieces::UploadOf,
    quota::Reservation,
    seal::{self, Sealer, Tag},
};
use crate::guard::contents::ContentGuard;
use crate::store::{Batch, Family, LedgerNumber, Store, StoreError, content::ContentRecord, keys};

/// Bytes of contents that are written together, roughly.
const GROUP_BYTES: usize = 8 << 20;

/// Most requests that are written together.
const GROUP_JOBS: usize = 256;

/// A content that is ready to be written.
pub(super) struct Sealed {
    pub(super) ledger: LedgerNumber,
    pub(super) digest: CommitmentDigest,
    pub(super) size: u64,
    pub(super) chunks: u32,
    pub(super) key: WrappedKey,
    /// The pieces that are not in the store already, with their numbers.
    pub(super) pieces: Vec<(u32, Vec<u8>)>,
    pub(super) reservation: Reservation,
}

impl Sealed {
    fn byte_len(&self) -> usize {
        self.pieces.iter().map(|(_, piece)| piece.len()).sum()
    }

    fn upload(&self) -> UploadOf {
        UploadOf {
            ledger: self.ledger,
            digest: self.digest,
            id: self.key.upload,
        }
    }

    /// Returns true if pieces were written before the content was complete.
    fn was_uploaded(&self) -> bool {
        self.pieces.len() < self.chunks as usize
    }
}

/// A request to the writer thread.
pub(super) enum Job {
    Hold {
        contents: Vec<Sealed>,
        /// True if the caller is told at once that the contents are held. Otherwise a turn follows,
        /// which the head guard covers.
        told: bool,
        reply: oneshot::Sender<Result<usize, ContentError>>,
        /// The contents' room in the queue.
        room: OwnedSemaphorePermit,
    },
    /// Restarts the time within which a held content must be named.
    Keep {
        ledger: LedgerNumber,
        digest: CommitmentDigest,
        reply: oneshot::Sender<Result<bool, ContentError>>,
    },
    Erase {
        erasing: Erasing,
        /// Keeps the gate closed until the erasure is done, even if the caller gives up.
        gate: LoneGate,
        reply: oneshot::Sender<Result<u32, ContentError>>,
    },
    /// Deletes contents that no leaf named when the collection looked.
    Collect {
        ledger: LedgerNumber,
        digests: Vec<CommitmentDigest>,
        gate: LoneGate,
        reply: oneshot::Sender<Result<usize, ContentError>>,
    },
    /// Deletes uploads that were unfinished when the collection looked.
    CollectUploads {
        uploads: Vec<UploadOf>,
        reply: oneshot::Sender<Result<usize, ContentError>>,
    },
    /// Deletes keys that had no content when the collection looked.
    CollectKeys {
        keys: Vec<KeyId>,
        reply: oneshot::Sender<Result<usize, ContentError>>,
    },
    /// Removes the keys that were collected from the files.
    Purge {
        reply: oneshot::Sender<Result<(), ContentError>>,
    },
}

/// The writes, as functions that a test can make fail.
pub(super) struct Disk {
    /// Writes keys, and syncs.
    pub(super) keys: KeysFn,
    /// Writes to the store, and syncs.
    pub(super) contents: ContentsFn,
    /// See [`ContentKeys::destroy`].
    pub(super) destroy: DestroyFn,
    /// See [`ContentGuard::acknowledge`].
    pub(super) guard: GuardFn,
}

pub(super) type KeysFn = Box<dyn FnMut(KeyBatch) -> Result<(), StoreError> + Send>;
pub(super) type ContentsFn = Box<dyn FnMut(Batch) -> Result<(), StoreError> + Send>;
pub(super) type DestroyFn = Box<dyn FnMut(&[KeyId]) -> Result<(), StoreError> + Send>;
pub(super) type GuardFn = Box<dyn FnMut(u64) -> Result<(), StoreError> + Send>;

impl Disk {
    pub(super) fn new(
        store: &Arc<Store>,
        keys: &Arc<dyn ContentKeys>,
        mut guard: ContentGuard,
    ) -> Self {
        let (store, destroying, keys) = (Arc::clone(store), Arc::clone(keys), Arc::clone(keys));
        Self {
            keys: Box::new(move |batch| keys.write(batch)),
            contents: Box::new(move |batch| store.commit(batch)),
            destroy: Box::new(move |deleted| destroying.destroy(deleted)),
            guard: Box::new(move |serial| guard.acknowledge(serial)),
        }
    }
}

/// Starts the thread; it ends when every sender of jobs is dropped.
pub(super) fn start(
    shared: Arc<Shared>,
    disk: Disk,
    serial: u64,
    jobs: mpsc::Receiver<Job>,
) -> io::Result<thread::JoinHandle<()>> {
    let mut writer = Writer {
        shared,
        disk,
        serial,
        unpurged: Vec::new(),
    };
    thread::Builder::new()
        .name("contents".to_owned())
        .spawn(move || {
            // A defect must stop the server; without this thread it would run on and write no
            // contents. The state that the thread held is never read again.
            let failing = Arc::clone(&writer.shared);
            if catch_unwind(AssertUnwindSafe(|| writer.run(jobs))).is_err() {
                failing.fail("the thread panicked");
            }
        })
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Disk,
    /// Number of the last write of contents.
    pub(super) serial: u64,
    /// Keys that were collected and may still be in files.
    pub(super) unpurged: Vec<KeyId>,
}

/// A hold that was taken into a group.
struct Taken {
    contents: Vec<Sealed>,
    told: bool,
    reply: oneshot::Sender<Result<usize, ContentError>>,
    _room: OwnedSemaphorePermit,
}

impl Writer {
    fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut next = None;
        while let Some(job) = next.take().or_else(|| jobs.blocking_recv()) {
            // Jobs of a failed writer are dropped, which their callers notice.
            if self.shared.has_failed() {
                continue;
            }
            match job {
                Job::Hold {
                    contents,
                    told,
                    reply,
                    room,
                } => {
                    let first = Taken {
                        contents,
                        told,
                        reply,
                        _room: room,
                    };
                    let group;
                    (group, next) = gather(first, &mut jobs);
                    self.hold(group);
                }
                Job::Keep {
                    ledger,
                    digest,
                    reply,
                } => {
                    let done = self.keep(ledger, &digest);
                    self.answer(done, reply);
                }
                Job::Erase {
                    erasing,
                    gate,
                    reply,
                } => {
                    let shared = Arc::clone(&self.shared);
                    let (pieces, keys) = (&*shared.pieces, &*shared.keys);
                    let done = erase::run(&shared.store, pieces, keys, &mut self.disk, &erasing);
                    let done = done.map(|erased| {
                        for (principal, size) in erased.released {
                            shared.tally.erased.fetch_add(1, Relaxed);
                            shared.tally.erased_bytes.fetch_add(size, Relaxed);
                            shared.quota.release(&principal, size);
                        }
                        erased.keys
                    });
                    self.answer(done, reply);
                    drop(gate);
                }
                Job::Collect {
                    ledger,
                    digests,
                    gate,
                    reply,
                } => {
                    let done = self.collect(ledger, &digests);
                    self.answer(done, reply);
                    drop(gate);
                }
                Job::CollectUploads { uploads, reply } => {
                    let done = self.collect_uploads(&uploads);
                    self.answer(done, reply);
                }
                Job::CollectKeys { keys, reply } => {
                    let done = self.collect_keys(&keys);
                    self.answer(done, reply);
                }
                Job::Purge { reply } => {
                    let done = self.purge();
                    self.answer(done, reply);
                }
            }
        }
    }

    fn answer<T>(
        &self,
        done: Result<T, StoreError>,
        reply: oneshot::Sender<Result<T, ContentError>>,
    ) {
        let answer = done.map_err(|error| {
            self.fail(&error);
            ContentError::Stopped
        });
        // The caller may have given up.
        let _ = reply.send(answer);
    }

    /// Stops all writing: whether the failed write is on disk is unknown until a restart.
    fn fail(&self, error: &StoreError) {
        self.shared.fail(&error.to_string());
    }

    /// Restarts the time within which a held content must be named. Returns true if it is held.
    fn keep(
        &mut self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<bool, StoreError> {
        if self.shared.state(ledger, digest)? != ContentStatus::Held {
            return Ok(false);
        }
        let mut batch = Batch::default();
        self.shared.renew(&mut batch, ledger, digest)?;
        self.write(batch)?;
        // The client that stored the content may not have been told yet, so the guard may not cover
        // it.
        (self.disk.guard)(self.serial)?;
        Ok(true)
    }

    /// Writes contents under the next number, and syncs.
    fn write(&mut self, mut batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let serial = self.serial + 1;
        self.shared.store.put_content_serial(&mut batch, serial);
        (self.disk.contents)(batch)?;
        self.serial = serial;
        Ok(())
    }

    /// Writes many requests with one sync of each database.
    fn hold(&mut self, group: Vec<Taken>) {
        let mut plan = Plan::default();
        let mut answers = Vec::new();
        let mut told = false;
        for taken in group {
            told |= taken.told;
            match plan.add(&self.shared, taken.contents) {
                Ok(judged) => answers.push((taken.reply, judged, taken._room)),
                Err(error) => return self.fail(&error),
            }
        }
        // Keys are written first. After a crash behind this line they belong to no content and are
        // collected.
        if !plan.keys.is_empty()
            && let Err(error) = (self.disk.keys)(plan.keys)
        {
            return self.fail(&error);
        }
        // Commit point: from here the contents are held.
        if let Err(error) = self.write(plan.contents) {
            return self.fail(&error);
        }
        // Release point of contents that no turn follows: from here a store that lost them does not
        // open.
        if told && let Err(error) = (self.disk.guard)(self.serial) {
            return self.fail(&error);
        }
        for reservation in plan.kept {
            reservation.keep();
        }
        for reservation in plan.given_up {
            reservation.release();
        }
        for (reply, judged, _room) in answers {
            let _ = reply.send(judged);
        }
    }
}

/// Returns true if a key belongs to no content. The answer stays true only on the writer thread.
pub(super) fn is_orphaned_key(
    shared: &Shared,
    ledger: LedgerNumber,
    digest: &CommitmentDigest,
) -> Result<bool, StoreError> {
    Ok(shared.store.content(ledger, digest)?.is_none())
}

/// Takes more holds that wait in the queue, up to the bounds; returns them, and the other job that
/// ended the group.
fn gather(first: Taken, jobs: &mut mpsc::Receiver<Job>) -> (Vec<Taken>, Option<Job>) {
    let bytes_of = |taken: &Taken| taken.contents.iter().map(Sealed::byte_len).sum::<usize>();
    let mut bytes = bytes_of(&first);
    let mut group = vec![first];
    while bytes < GROUP_BYTES && group.len() < GROUP_JOBS {
        match jobs.try_recv() {
            Ok(Job::Hold {
                contents,
                told,
                reply,
                room,
            }) => {
                let taken = Taken {
                    contents,
                    told,
                    reply,
                    _room: room,
                };
                bytes += bytes_of(&taken);
                group.push(taken);
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// The writes of a group.
#[derive(Default)]
struct Plan {
    keys: KeyBatch,
    contents: Batch,
    kept: Vec<Reservation>,
    /// Reservations of uploads that are not needed, whose pieces are deleted.
    given_up: Vec<Reservation>,
    /// Contents that are held once this is written.
    planned: HashSet<(LedgerNumber, CommitmentDigest)>,
}

impl Plan {
    /// Adds a request whole, or not at all. The outer error is fatal, the inner one is the
    /// request's answer.
    fn add(
        &mut self,
        shared: &Shared,
        contents: Vec<Sealed>,
    ) -> Result<Result<usize, ContentError>, StoreError> {
        let mut states = Vec::with_capacity(contents.len());
        let mut refused = None;
        for content in &contents {
            let state = shared.state(content.ledger, &content.digest)?;
            if let ContentStatus::Erased(leaf) = state {
                let digest = content.digest;
                refused = Some(ContentError::Erased { digest, leaf });
            }
            states.push(state);
        }
        let mut new = 0;
        for (content, state) in contents.into_iter().zip(states) {
            let id = (content.ledger, content.digest);
            let wanted =
                refused.is_none() && state != ContentStatus::Held && self.planned.insert(id);
            if wanted {
                self.put(shared, content)?;
                new += 1;
                continue;
            }
            if refused.is_none() && state == ContentStatus::Held {
                // The client is told that the content is held, and may name it as late as one that
                // stored it.
                shared.renew(&mut self.contents, content.ledger, &content.digest)?;
            }
            if content.was_uploaded() {
                let upload = content.upload();
                shared.pieces.give_up(&mut self.contents, &upload)?;
                self.given_up.push(content.reservation);
            }
        }
        Ok(refused.map_or(Ok(new), Err))
    }

    fn put(&mut self, shared: &Shared, content: Sealed) -> Result<(), StoreError> {
        let (ledger, digest, upload) = (content.ledger, content.digest, content.upload());
        let (store, pieces) = (&shared.store, &shared.pieces);
        // The record without a key is of no use to readers; the content that is held now replaces
        // it.
        if let Some(old) = store.content(ledger, &digest)? {
            if let Some(upload) = UploadOf::of_record(ledger, &digest, &old) {
                pieces.delete(&mut self.contents, &upload, old.chunks)?;
            }
            shared.quota.release(&old.principal, old.size);
        }
        let record = ContentRecord {
            size: content.size,
            chunks: content.chunks,
            upload: Bytes::copy_from_slice(upload.id.as_bytes()),
            stored_at_us: shared.clock.now().get(),
            principal: content.reservation.principal().to_owned(),
        };
        if content.was_uploaded() {
            pieces.finish(&mut self.contents, &upload)?;
        }
        for (number, piece) in &content.pieces {
            pieces.put(&mut self.contents, &upload, *number, piece)?;
        }
        let key = keys::content(ledger, &digest);
        store.put(
            &mut self.contents,
            Family::Content,
            &key,
            &record.encode_to_vec(),
        );
        self.keys.put(ledger, &digest, &content.key);
        shared.tally.stored.fetch_add(1, Relaxed);
        let stored_bytes = &shared.tally.stored_bytes;
        stored_bytes.fetch_add(content.size, Relaxed);
        self.kept.push(content.reservation);
        Ok(())
    }
}

impl Shared {
    fn fail(&self, what: &str) {
        let why = format!("contents: {what}");
        tracing::error!(why, "no more contents are written; restart the server");
        self.failing.send_replace(Some(why.into()));
    }

    /// Adds to a batch that a content which no leaf names counts as stored now.
    fn renew(
        &self,
        batch: &mut Batch,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<(), StoreError> {
        if self.store.is_named(ledger, digest)? {
            return Ok(());
        }
        if let Some(mut record) = self.store.content(ledger, digest)? {
            record.stored_at_us = record.stored_at_us.max(self.clock.now().get());
            self.store.put(
                batch,
                Family::Content,
                &keys::content(ledger, digest),
                &record.encode_to_vec(),
            );
        }
        Ok(())
    }

    /// Encrypts a content, if it opens its commitment.
    pub(super) fn seal(
        &self,
        ledger: LedgerRef,
        content: NewContent,
    ) -> Result<Sealed, ContentError> {
        let size = content.bytes.len() as u64;
        let too_large = ContentError::TooLarge {
            size,
            max: self.bytes_max,
        };
        let chunks = seal::pieces(size).filter(|_| size <= self.bytes_max);
        let chunks = chunks.ok_or(too_large)?;
        let reservation = self.quota.reserve(&content.principal, size)?;
        let binding = Binding {
            ledger_id: ledger.id,
            digest: content.digest,
        };
        let data_key = seal::new_key().map_err(ContentError::Random)?;
        let mut sealer = Sealer::new(&data_key, binding, &content.salt, size);
        let mut pieces = Vec::with_capacity(chunks as usize);
        sealer.update(&content.bytes, &mut |number, piece| {
            pieces.push((number, piece));
        });
        let (number, piece, digest) = sealer.finish();
        if digest != content.digest {
            let digest = content.digest;
            return Err(ContentError::Mismatch { digest });
        }
        pieces.push((number, piece));
        debug_assert_eq!(pieces.len(), chunks as usize, "the pieces are as planned");
        let wrapped =
            seal::wrap(&self.wrapping, &binding, &data_key).map_err(ContentError::Random)?;
        Ok(Sealed {
            ledger: ledger.number,
            digest,
            size,
            chunks,
            key: WrappedKey {
                upload: UploadId::random().map_err(ContentError::Random)?,
                tag: Tag::of(&self.wrapping, ledger.id, &content.bytes),
                wrapped,
            },
            pieces,
            reservation,
        })
    }
}
