//! Helpers for the tests of contents.

use std::{path::Path, pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest, LedgerId, Micros, TaskId,
    commitment::{Salt, digest_of},
};

use super::{
    ContentError, ContentStartError, ContentStore, LedgerRef, NewContent, Reference,
    collect::Collected, read::Reader, writer::Disk,
};
use crate::{
    options::ContentOptions,
    store::{
        Batch, DirectoryLock, LedgerNumber, Store, StoreOptions,
        content::{write_references, write_tombstone},
    },
    testing::TestClock,
};

pub(super) const NUMBER: LedgerNumber = LedgerNumber(3);

/// Milliseconds after which a content that no leaf names is collected.
pub(super) const ORPHAN_MS: u64 = 1000;

pub(super) fn ledger() -> LedgerRef {
    LedgerRef {
        number: NUMBER,
        id: LedgerId::new(deed_tlog::leaf_hash(b"ledger")),
    }
}

/// Returns a content of the principal `somebody`, with a salt of its own.
pub(super) fn content(bytes: impl Into<Bytes>) -> NewContent {
    let bytes = bytes.into();
    let salt = Salt::from_bytes(*blake3::hash(&bytes).as_bytes());
    NewContent {
        digest: digest_of(&salt, &bytes),
        salt,
        bytes,
        principal: Arc::from("somebody"),
    }
}

/// Returns bytes that do not repeat.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// A data directory with a store and contents, without a server.
pub(super) struct Fixture {
    pub(super) contents: Arc<ContentStore>,
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<TestClock>,
    runtime: tokio::runtime::Runtime,
    _lock: DirectoryLock,
}

/// Returns the data directory; the key file lies beside it.
pub(super) fn data_dir(dir: &Path) -> std::path::PathBuf {
    let data_dir = dir.join("data");
    std::fs::create_dir_all(&data_dir).unwrap();
    data_dir
}

pub(super) fn options(dir: &Path) -> ContentOptions {
    ContentOptions {
        orphan_ms: ORPHAN_MS,
        ..ContentOptions::new(&data_dir(dir))
    }
}

impl Fixture {
    pub(super) fn open(dir: &Path) -> Self {
        Self::open_on(dir, 0, |disk| disk).unwrap()
    }

    pub(super) fn open_with(dir: &Path, change: impl FnOnce(&mut ContentOptions)) -> Self {
        let mut options = options(dir);
        change(&mut options);
        Self::open_by(dir, &options, 0, |disk| disk).unwrap()
    }

    pub(super) fn open_on(
        dir: &Path,
        stored_bytes_max: u64,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Result<Self, ContentStartError> {
        Self::open_by(dir, &options(dir), stored_bytes_max, wrap)
    }

    fn open_by(
        dir: &Path,
        options: &ContentOptions,
        stored_bytes_max: u64,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Result<Self, ContentStartError> {
        let data_dir = data_dir(dir);
        let lock = DirectoryLock::acquire(&data_dir)?;
        let store = Arc::new(Store::create(&data_dir, &StoreOptions::default())?);
        let clock = TestClock::at(1_000_000);
        let contents = ContentStore::open_on(
            &data_dir,
            options,
            stored_bytes_max,
            &store,
            Arc::clone(&clock) as _,
            wrap,
        )?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        Ok(Self {
            contents,
            store,
            clock,
            runtime,
            _lock: lock,
        })
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(super) fn hold(&self, contents: Vec<NewContent>) -> Result<usize, ContentError> {
        self.block_on(async {
            let gate = self.contents.enter(NUMBER).await;
            self.contents.hold(&gate, contents, ledger()).await
        })
    }

    pub(super) fn read(&self, digest: CommitmentDigest) -> Result<Vec<u8>, ContentError> {
        read_all(self.contents.open_content(ledger(), digest)?)
    }

    /// Records leaves that name a content, as a turn does.
    pub(super) fn refer(&self, digest: CommitmentDigest, leaves: &[u64]) {
        let references = leaves.iter().map(|&leaf| {
            let reference = Reference {
                leaf,
                task: leaf.is_multiple_of(2).then(|| TaskId::new([7; 16])),
                received_at: Micros::new(1_000_000 + leaf.cast_signed()),
            };
            (&digest, reference)
        });
        let mut batch = Batch::default();
        write_references(&self.store, &mut batch, NUMBER, references);
        self.store.commit(batch).unwrap();
    }

    /// Records that the Erasure at `leaf` takes contents, as a turn does.
    pub(super) fn record_erasure(&self, digests: &[CommitmentDigest], leaf: u64) {
        let mut batch = Batch::default();
        for digest in digests {
            write_tombstone(&self.store, &mut batch, NUMBER, digest, leaf);
        }
        self.store.commit(batch).unwrap();
    }

    /// Runs a whole erasure.
    pub(super) fn erase(
        &self,
        digests: &[CommitmentDigest],
        leaf: u64,
    ) -> Result<u32, ContentError> {
        self.block_on(async {
            let guard = self.contents.begin_erasure(NUMBER, digests).await?;
            self.record_erasure(digests, leaf);
            self.contents.complete_erasure(guard, leaf).await
        })
    }

    pub(super) fn collect(&self) -> Result<Collected, ContentError> {
        self.block_on(self.contents.collect())
    }

    pub(super) fn close(self) {
        self.contents.close();
    }
}

pub(super) fn read_all(mut reader: Reader) -> Result<Vec<u8>, ContentError> {
    let mut all = Vec::new();
    while let Some(piece) = reader.next_piece()? {
        all.extend_from_slice(&piece.bytes);
    }
    assert_eq!(all.len() as u64, reader.size());
    Ok(all)
}

/// Returns true if the future is pending. It must not be polled again if it is not.
pub(super) async fn waits(future: &mut (impl Future + Unpin)) -> bool {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending()))
        .await
}
