//! Contents: the bytes that statements commit to, kept encrypted beside the log and erasable.
//!
//! A content is *held* when its record is in the store (family content) and its wrapped key in the
//! second database, both of the same upload and both synced. The key is written first, the record
//! is the commit point. One thread ([`writer`]) writes both; readers read without it.
//!
//! Each ledger has a *gate*. A request that stores contents, or appends statements that name some,
//! holds it shared until the turn is answered; an erasure and a collection hold it exclusively. So
//! a content that a request is about to name is never collected, and an erasure sees every
//! reference.
//!
//! Architecture invariant: the writer thread never waits for a gate, because holders of a gate wait
//! for the thread.
//!
//! **Copies.** A backup that has both `content-keys` and the key file opens every content that
//! was held when it was made, also those erased since. So the key file is kept elsewhere, and
//! copies of `content-keys` are kept no longer than an erasure may take to reach them. A copy of
//! the store alone holds only ciphertext, which an erasure makes useless wherever it is. When
//! `content-keys` is put back from a copy, the erasures recorded since are not repeated by it:
//! the store's tombstones refuse to read what was erased, and the first collection destroys the
//! keys that came back, in every file. When the store is put back from an older copy than
//! `content-keys`, keys of what is only in the newer store are kept for `orphan_ms` from the start,
//! and the log says so: time to put back the right one.

mod check;
mod collect;
mod content_keys;
mod erase;
mod gate;
mod key_file;
mod key_store;
mod orphans;
mod pieces;
mod quota;
mod read;
mod seal;
mod sweep;
mod upload;
mod writer;

#[cfg(test)]
mod collect_tests;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod erase_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, LedgerId, commitment::Salt};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::{
    clock::Clock,
    guard::contents::ContentGuard,
    metrics::Contents,
    options::ContentOptions,
    pressure::places::{Bounds, Places},
    store::{LedgerNumber, Store, StoreError, content::Reference, disk::NoSpace, keys::UploadId},
};

pub use check::ContentsReport;
pub(crate) use check::check;
pub(crate) use erase::ErasureGuard;
pub(crate) use gate::SharedGate;
pub use key_file::KeyFileError;
pub use read::Reader;
pub use seal::PIECE_BYTES;
pub use upload::Begun;

use collect::Cursors;
use content_keys::ContentKeys;
use gate::Gates;
pub use key_store::FILES_OPEN as KEY_FILES_OPEN;
use key_store::KeyStore;
use pieces::Pieces;
use quota::Quota;
use seal::{Binding, SecretKey};
use writer::{Disk, Job};

/// Largest content of an attachment, in bytes.
pub(crate) const ATTACHMENT_BYTES_MAX: usize = 64 << 10;

/// Bytes of sealed contents that may wait for the writer thread.
const QUEUE_BYTES: usize = 32 << 20;

/// Most jobs that may wait for the writer thread.
const QUEUE_JOBS: usize = 1024;

/// Most uploads that run at once over one connection.
const CONNECTION_UPLOADS_MAX: usize = 8;

/// Most chunks of uploads that are sealed and written at once, so that threads are left for other
/// work.
const UPLOAD_WRITES_MAX: usize = 8;

/// Longest time that a content waits for room in the queue.
const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// The properties of a ledger that its contents need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRef {
    pub number: LedgerNumber,
    pub id: LedgerId,
}

/// A content to be stored.
#[derive(Clone)]
pub struct NewContent {
    pub digest: CommitmentDigest,
    pub salt: Salt,
    pub bytes: Bytes,
    /// Principal whose quota the content counts against; empty without access control.
    pub principal: Arc<str>,
}

/// The state of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentStatus {
    Held,
    /// Erased by the Erasure at this leaf.
    Erased(u64),
    Unknown,
}

/// The reason for which a content is not stored, read or erased.
#[derive(Debug, Error)]
pub enum ContentError {
    #[error("the bytes and the salt do not open the commitment {digest}")]
    Mismatch { digest: CommitmentDigest },
    #[error("a content of {size} bytes is more than the {max} bytes that this server takes")]
    TooLarge { size: u64, max: u64 },
    #[error("{came} bytes came where {said} were announced")]
    Size { said: u64, came: u64 },
    #[error("content {digest} was erased by the entry at leaf {leaf}; it is not taken again")]
    Erased { digest: CommitmentDigest, leaf: u64 },
    #[error("no content is held under the commitment {digest}")]
    Unknown { digest: CommitmentDigest },
    #[error(
        "contents of {held} bytes are held for you, and {wanted} more would pass your {max} bytes: \
         have some erased, or ask the operator for more"
    )]
    Quota { held: u64, wanted: u64, max: u64 },
    #[error(
        "statements of more than {max} tasks name the content {digest}, which is more than one \
         erasure looks through; it is not erased"
    )]
    TooManyTasks {
        digest: CommitmentDigest,
        max: usize,
    },
    #[error(transparent)]
    NoSpace(#[from] NoSpace),
    #[error("too many contents wait to be written")]
    Busy,
    #[error("content {digest}: {what}")]
    Damaged {
        digest: CommitmentDigest,
        what: String,
    },
    #[error("contents cannot be written any more; the server has to be restarted")]
    Stopped,
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The reason for which contents cannot be opened at the start.
#[derive(Debug, Error)]
pub enum ContentStartError {
    /// The key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The database of keys is missing or empty, and the store holds contents.
    #[error(
        "{path} is missing or empty, and the store holds contents whose keys were in it. Restore it \
         from where it was lost"
    )]
    KeysMissing {
        /// Directory of the keys.
        path: std::path::PathBuf,
    },
    /// Stored data cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Counts of contents stored and erased since the start.
#[derive(Debug, Default)]
struct Tally {
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    erased: AtomicU64,
    erased_bytes: AtomicU64,
}

/// The content store of a server.
pub struct ContentStore {
    shared: Arc<Shared>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    room: Arc<Semaphore>,
    /// Places for uploads that run at once.
    pub uploads: Arc<Places>,
    upload_writes: Arc<Semaphore>,
    stall_max: Duration,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// State that all parts of the content store share.
struct Shared {
    store: Arc<Store>,
    pieces: Arc<dyn Pieces>,
    keys: Arc<dyn ContentKeys>,
    wrapping: SecretKey,
    clock: Arc<dyn Clock>,
    bytes_max: u64,
    orphan_us: i64,
    /// Ledgers in which contents may be held. The set only grows; a restart computes it again.
    in_use: RwLock<HashSet<LedgerNumber>>,
    quota: Arc<Quota>,
    tally: Tally,
    gates: Gates,
    /// Uploads under way; the pieces of any other unfinished upload may be collected.
    uploads: Mutex<HashSet<UploadId>>,
    cursors: Mutex<Cursors>,
    failing: watch::Sender<Option<Arc<str>>>,
}

impl ContentStore {
    /// Opens the contents in a data directory and finishes erasures that a crash interrupted. Makes
    /// the key file before the first content.
    ///
    /// # Errors
    /// [`ContentStartError`]; nothing was changed if the key file is missing or holds another key.
    pub fn open(
        data_dir: &Path,
        options: &ContentOptions,
        stored_bytes_max: u64,
        store: &Arc<Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ContentStartError> {
        Self::open_on(data_dir, options, stored_bytes_max, store, clock, |disk| {
            disk
        })
    }

    /// Opens the contents with faults put between the writer and its disk.
    fn open_on(
        data_dir: &Path,
        options: &ContentOptions,
        stored_bytes_max: u64,
        store: &Arc<Store>,
        clock: Arc<dyn Clock>,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Result<Arc<Self>, ContentStartError> {
        if options.key_file.starts_with(data_dir) {
            tracing::warn!(
                "the content key lies inside of the data directory: whoever copies that can read \
                 every content"
            );
        }
        let (keys, wrapping) = open_keys(data_dir, &options.key_file, store)?;
        let keys: Arc<dyn ContentKeys> = Arc::new(keys);
        let pieces = Arc::clone(store) as Arc<dyn Pieces>;
        let mut disk = wrap(Disk::new(store, &keys, ContentGuard::open(data_dir)?));
        let finished = erase::finish_all(store, &*pieces, &*keys, &mut disk)?;
        if finished > 0 {
            tracing::info!(contents = finished, "interrupted erasures finished");
        }
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            pieces,
            keys,
            wrapping,
            clock,
            bytes_max: options.bytes_max,
            orphan_us: i64::try_from(options.orphan_ms.saturating_mul(1000)).unwrap_or(i64::MAX),
            in_use: RwLock::new(store.content_ledgers()?.into_iter().collect()),
            quota: Quota::rebuild(store, stored_bytes_max)?,
            tally: Tally::default(),
            gates: Gates::default(),
            uploads: Mutex::default(),
            cursors: Mutex::default(),
            failing: watch::Sender::new(None),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS);
        let serial = store.content_serial()?;
        let thread = writer::start(Arc::clone(&shared), disk, serial, queue)
            .map_err(|cause| StoreError::io(data_dir, cause))?;
        Ok(Arc::new(Self {
            shared,
            jobs: Mutex::new(Some(jobs)),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            uploads: Places::new(
                "uploads",
                Bounds::shared(options.uploads, CONNECTION_UPLOADS_MAX),
            ),
            upload_writes: Arc::new(Semaphore::new(UPLOAD_WRITES_MAX)),
            stall_max: Duration::from_millis(options.stall_ms),
            thread: Mutex::new(Some(thread)),
        }))
    }

    /// Enters a ledger's gate together with others.
    ///
    /// The caller holds it from before it calls [`Self::held`], or stores contents, until the turn
    /// with the statements that name them is answered. That must not depend on the client reading
    /// its answer: let the shard drop it.
    pub async fn enter(&self, ledger: LedgerNumber) -> SharedGate {
        self.shared.gates.enter(ledger).await
    }

    /// Returns the longest time that an upload waits for its client.
    pub fn stall_max(&self) -> Duration {
        self.stall_max
    }

    /// Returns the numbers for `/metrics`.
    pub fn figures(&self) -> Contents {
        let tally = &self.shared.tally;
        Contents {
            stored: tally.stored.load(Relaxed),
            stored_bytes: tally.stored_bytes.load(Relaxed),
            erased: tally.erased.load(Relaxed),
            erased_bytes: tally.erased_bytes.load(Relaxed),
        }
    }

    /// Returns how often a principal's quota of stored bytes was exceeded.
    pub fn over_quota(&self) -> u64 {
        self.shared.quota.over()
    }

    /// Returns true if a ledger may hold contents: if not, no statement's commitments need be
    /// looked up.
    pub(crate) fn may_hold(&self, ledger: LedgerNumber) -> bool {
        self.shared.in_use.read().contains(&ledger)
    }

    /// Returns the state of a content. Reads the disk.
    pub fn held(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<ContentStatus, ContentError> {
        Ok(self.shared.state(ledger, digest)?)
    }

    /// Stores contents, all of them or none, and returns when they and their keys are synced.
    /// Returns the number of new ones: a content that is held already is not stored again, and is
    /// kept as long as if it were.
    ///
    /// # Errors
    /// [`ContentError`]. The contents that were not held before are not held then, except after
    /// [`ContentError::Stopped`], when only a restart shows which are.
    pub async fn hold(
        &self,
        gate: &SharedGate,
        contents: Vec<NewContent>,
        ledger: LedgerRef,
    ) -> Result<usize, ContentError> {
        debug_assert_eq!(gate.ledger(), ledger.number, "the gate is the ledger's");
        self.shared.mark_in_use(ledger.number);
        if contents.is_empty() {
            return Ok(0);
        }
        let bytes: usize = contents.iter().map(|content| content.bytes.len()).sum();
        self.shared.store.disk().room_for_contents(bytes as u64)?;
        let permits = bytes.clamp(1, QUEUE_BYTES);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        // Room is taken first, because sealing makes a copy.
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        let room = tokio::time::timeout(QUEUE_WAIT, room)
            .await
            .map_err(|_| ContentError::Busy)?
            .map_err(|_| ContentError::Stopped)?;
        let shared = Arc::clone(&self.shared);
        // The permit moves along with the bytes: a caller that gives up does not free the room
        // before the bytes are gone.
        let (sealed, room) = off_thread(move || {
            let sealed = contents
                .into_iter()
                .map(|content| shared.seal(ledger, content))
                .collect::<Result<Vec<_>, _>>()?;
            Ok((sealed, room))
        })
        .await?;
        self.write(sealed, false, room).await
    }

    /// Restarts the time within which a held content must be named, as if it had been stored now.
    /// Returns false if it is no longer held: it may have been collected since it was looked up.
    ///
    /// # Errors
    /// [`ContentError::Stopped`] if the writer thread has failed.
    pub async fn keep_held(
        &self,
        gate: &SharedGate,
        digest: CommitmentDigest,
    ) -> Result<bool, ContentError> {
        let ledger = gate.ledger();
        self.ask(|reply| Job::Keep {
            ledger,
            digest,
            reply,
        })
        .await?
    }

    async fn write(
        &self,
        sealed: Vec<writer::Sealed>,
        told: bool,
        room: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<usize, ContentError> {
        self.ask(|reply| Job::Hold {
            contents: sealed,
            told,
            reply,
            room,
        })
        .await?
    }

    /// Sends a job to the writer thread and waits for its reply.
    async fn ask<T>(&self, job: impl FnOnce(oneshot::Sender<T>) -> Job) -> Result<T, ContentError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs.lock().clone().ok_or(ContentError::Stopped)?;
        jobs.send(job(reply))
            .await
            .map_err(|_| ContentError::Stopped)?;
        answer.await.map_err(|_| ContentError::Stopped)
    }

    /// Returns a channel that becomes `Some` with the reason when a write has failed and nothing
    /// more is written.
    pub fn failure(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.shared.failing.subscribe()
    }

    /// Stops accepting jobs, finishes those that were accepted, and waits for that. Blocks.
    pub fn close(&self) {
        drop(self.jobs.lock().take());
        if let Some(thread) = self.thread.lock().take() {
            // A panic of the thread has been reported already.
            let _ = thread.join();
        }
    }
}

impl Drop for ContentStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn state(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<ContentStatus, StoreError> {
        if let Some(leaf) = self.store.erased(ledger, digest)? {
            return Ok(ContentStatus::Erased(leaf));
        }
        let record = self.store.content(ledger, digest)?;
        let Some(upload) = record.and_then(|record| record.upload_id()) else {
            return Ok(ContentStatus::Unknown);
        };
        let key = self.keys.get(ledger, digest)?;
        if key.is_some_and(|key| key.upload == upload) {
            return Ok(ContentStatus::Held);
        }
        // The content may have been erased between the reads.
        let erased = self.store.erased(ledger, digest)?;
        Ok(erased.map_or(ContentStatus::Unknown, ContentStatus::Erased))
    }

    fn mark_in_use(&self, ledger: LedgerNumber) {
        if !self.in_use.read().contains(&ledger) {
            self.in_use.write().insert(ledger);
        }
    }

    fn has_failed(&self) -> bool {
        self.failing.borrow().is_some()
    }
}

/// Opens the database of keys with the wrapping key, and makes both if there is nothing yet.
fn open_keys(
    data_dir: &Path,
    key_file: &Path,
    store: &Store,
) -> Result<(KeyStore, SecretKey), ContentStartError> {
    let holds_contents = holds_contents(store)?;
    let path = || KeyStore::path_in(data_dir);
    // The first look changes nothing.
    let (check, empty) = match KeyStore::open_read_only(data_dir)? {
        Some(keys) => (keys.check_value()?, keys.is_empty()?),
        None => (None, true),
    };
    if holds_contents && (check.is_none() || empty) {
        return Err(ContentStartError::KeysMissing { path: path() });
    }
    let wrapping = match key_file::load(key_file)? {
        Some(wrapping) => {
            let fits = check.as_deref() == Some(&key_file::check_value(&wrapping)[..]);
            if !fits && (check.is_some() && !empty) {
                let path = key_file.to_owned();
                return Err(KeyFileError::Other { path }.into());
            }
            key_file::remove_second_name(key_file)?;
            wrapping
        }
        None if holds_contents || !empty => {
            let path = key_file.to_owned();
            return Err(KeyFileError::Missing { path }.into());
        }
        None => key_file::create(key_file)?,
    };
    let keys = KeyStore::open(data_dir)?;
    // After a crash before this line the file is there and no key was wrapped with it: the next
    // start uses it.
    keys.put_check_value(&key_file::check_value(&wrapping))?;
    Ok((keys, wrapping))
}

fn holds_contents(store: &Store) -> Result<bool, StoreError> {
    for ledger in store.content_ledgers()? {
        for content in store.contents(ledger, &CommitmentDigest::new([0; 32])) {
            // An interrupted erasure may have deleted the last key.
            if store.erased(ledger, &content?.0)?.is_none() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Runs something that computes or reads for a while, on a thread that serves no connections.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContentError> + Send + 'static,
) -> Result<T, ContentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(ContentError::Stopped),
    }
}
