//! The store: one RocksDB database with a family for each kind of record.
//!
//! Architecture invariant: only [`keys`] knows the bytes of keys, and only [`pack`] and [`records`]
//! those of values. Everything that the log promises is written by [`Store::commit`]: one synced
//! batch for each turn of a shard.

pub mod assessment;
pub mod content;
pub mod disk;
#[cfg(test)]
mod effects;
pub mod figures;
mod frozen;
pub mod heads;
pub mod keys;
pub(crate) mod pack;
pub mod partition;
pub mod read;
pub mod records;
pub mod recover;
pub mod search;
pub mod turn;
#[cfg(test)]
mod upgrade_tests;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use deed_migrations::MigrationError;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, Options,
    WriteBatch, WriteOptions,
};
use thiserror::Error;

use disk::Disk;
pub use disk::DiskOptions;
use frozen::Frozen;
pub use keys::LedgerNumber;

/// The families of schema version 6, as `deed-migrations` counts it; they are those of version 2.
const FAMILIES: [Family; 7] = [
    Family::Meta,
    Family::Entries,
    Family::Tiles,
    Family::Heads,
    Family::State,
    Family::Index,
    Family::Content,
];

/// A family: one kind of records, stored apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Meta,
    Entries,
    Tiles,
    Heads,
    State,
    Index,
    /// Sealed contents and their records; since version 2.
    Content,
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::Meta => deed_migrations::VERSION_FAMILY,
            Self::Entries => "entries",
            Self::Tiles => "tiles",
            Self::Heads => "heads",
            Self::State => "state",
            Self::Index => "index",
            Self::Content => "content",
        }
    }
}

/// Bounds on the store's memory, open files and disk space.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Size of the cache of blocks read from disk, in bytes. Direct I/O bypasses the page cache
    /// while writing, so reads of recent data depend on this cache.
    pub block_cache_bytes: usize,
    /// Size at which a family's memtable is flushed, in bytes.
    pub memtable_bytes: usize,
    /// Files that stay open. Beyond this number the least recently read ones are closed.
    pub open_files: usize,
    /// Space of the disk that is left free.
    pub disk: DiskOptions,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            memtable_bytes: 64 << 20,
            open_files: 512,
            disk: DiskOptions::default(),
        }
    }
}

/// The store cannot be opened, or a read or a write failed.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another server has the data directory open.
    #[error("{path} is in use by another deed-server; stop that one first")]
    Locked { path: PathBuf },
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// The schema version is not one that this program can open.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// RocksDB failed.
    #[error("rocksdb: {0}")]
    RocksDb(rocksdb::Error),
    /// A content's key is damaged.
    #[error("the key of content {digest} of ledger {ledger} has {found} bytes")]
    CorruptKey {
        ledger: u32,
        digest: String,
        found: usize,
    },
    /// Stored data contradicts itself.
    #[error("{family} of ledger {ledger}: {what}")]
    Corrupt {
        family: &'static str,
        ledger: u32,
        what: String,
    },
}

impl From<rocksdb::Error> for StoreError {
    fn from(cause: rocksdb::Error) -> Self {
        Self::RocksDb(cause)
    }
}

impl StoreError {
    /// Returns true if stored data is damaged, and false if it could not be had.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::CorruptKey { .. } | Self::Migration(_) => true,
            // RocksDB reports damaged blocks this way.
            Self::RocksDb(inner) => inner.kind() == rocksdb::ErrorKind::Corruption,
            Self::Io { .. } | Self::Locked { .. } => false,
        }
    }

    pub(crate) fn corrupt(family: Family, ledger: LedgerNumber, what: impl Into<String>) -> Self {
        Self::Corrupt {
            family: family.name(),
            ledger: ledger.0,
            what: what.into(),
        }
    }

    pub fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            cause,
        }
    }
}

/// Keeps servers out of a data directory as long as it lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `data_dir`.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the lock; [`StoreError::Io`] if the file
    /// system fails.
    pub fn acquire(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|cause| StoreError::io(&path, cause))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
            Err(fs::TryLockError::Error(cause)) => Err(StoreError::io(&path, cause)),
        }
    }

    /// Takes the lock together with other readers, and writes nothing. Returns `None` if the
    /// directory has no lock file, as a copy has none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a server has it; [`StoreError::Io`].
    pub(crate) fn share(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = data_dir.join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::io(&path, cause)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
            Err(fs::TryLockError::Error(cause)) => Err(StoreError::io(&path, cause)),
        }
    }
}

/// An open store: the present state, or that of one moment ([`Store::frozen`]).
pub struct Store {
    db: Arc<DB>,
    /// The moment that reads see; `None` for the present.
    at: Option<Frozen>,
    disk: Arc<Disk>,
}

impl Store {
    /// Creates the store below `data_dir`, or finishes what an interrupted creation began.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be created.
    pub fn create(data_dir: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_or_create(data_dir, options, true)
    }

    /// Opens the store below `data_dir` for writing and brings it to the current schema version. A
    /// missing store is an error: there was one, because its ledgers' keys are there.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be opened; [`MigrationError::Newer`] before anything is changed.
    pub fn open(data_dir: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        Self::open_or_create(data_dir, options, false)
    }

    fn open_or_create(
        data_dir: &Path,
        options: &StoreOptions,
        create: bool,
    ) -> Result<Self, StoreError> {
        let path = directory(data_dir);
        if exists(&path) {
            // Families that this program does not know would make the open below fail with a
            // misleading message.
            Self::check_version(&path)?;
        }
        let mut db_options = database_options(options);
        db_options.create_if_missing(create);
        db_options.create_missing_column_families(true);
        if direct_io_works(data_dir) {
            // Measured: the worst commit over 6 GB goes from 179 ms to 15 ms.
            db_options.set_use_direct_io_for_flush_and_compaction(true);
        } else {
            tracing::warn!("the file system has no direct I/O; commits will stall on flushes");
        }
        let db = DB::open_cf_descriptors(&db_options, &path, descriptors(options))?;
        for step in deed_migrations::migrate(&db)? {
            tracing::info!(version = step.version, what = step.what, "schema migrated");
        }
        Ok(Self::now(db, data_dir, options))
    }

    fn now(db: DB, data_dir: &Path, options: &StoreOptions) -> Self {
        Self {
            db: Arc::new(db),
            at: None,
            disk: Arc::new(Disk::of(data_dir, options.disk)),
        }
    }

    /// Returns the file system that the store is on.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Opens the store as it is and writes nothing, not even RocksDB's own LOG file. Records of
    /// RocksDB's log that were not flushed into files are read into memory. Returns `None` if there
    /// is no store yet.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be opened.
    pub fn open_read_only(
        data_dir: &Path,
        options: &StoreOptions,
    ) -> Result<Option<Self>, StoreError> {
        let path = directory(data_dir);
        if !exists(&path) {
            return Ok(None);
        }
        Self::check_version(&path)?;
        // A store of an earlier version has fewer families.
        let present = DB::list_cf(&Options::default(), &path)?;
        let descriptors = descriptors(options)
            .into_iter()
            .filter(|descriptor| present.iter().any(|name| name == descriptor.name()));
        let db = DB::open_cf_descriptors_read_only(
            &database_options(options),
            &path,
            descriptors,
            false,
        )?;
        Ok(Some(Self::now(db, data_dir, options)))
    }

    fn check_version(path: &Path) -> Result<(), StoreError> {
        let meta = [Family::Meta.name()];
        // A creation that was interrupted early has neither families nor a version.
        if !DB::list_cf(&Options::default(), path)?.contains(&meta[0].to_owned()) {
            return Ok(());
        }
        let db = DB::open_cf_for_read_only(&Options::default(), path, meta, false)?;
        deed_migrations::version(&db)?;
        Ok(())
    }

    /// Writes a turn's batch, whole or not at all, and returns when it is on disk.
    ///
    /// # Errors
    /// [`StoreError::RocksDb`]. It is unknown then whether the batch is on disk, and the store must
    /// be reopened before anything else is written.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        Ok(self.db.write_opt(batch.batch, &synced)?)
    }

    /// Writes derived records, without waiting for the disk.
    pub(crate) fn commit_derived(&self, batch: Batch) -> Result<(), StoreError> {
        Ok(self.db.write(batch.batch)?)
    }

    /// Adds a record to a batch.
    pub fn put(&self, batch: &mut Batch, family: Family, key: &[u8], value: &[u8]) {
        batch.batch.put_cf(self.family(family), key, value);
    }

    /// Returns true if a store that was opened read-only has this family.
    fn has_family(&self, family: Family) -> bool {
        self.db.cf_handle(family.name()).is_some()
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("open fails unless every family of the store's version is there")
    }
}

/// Writes that are applied together.
#[derive(Default)]
pub struct Batch {
    batch: WriteBatch,
}

impl Batch {
    pub fn delete(&mut self, store: &Store, family: Family, key: &[u8]) {
        self.batch.delete_cf(store.family(family), key);
    }

    /// Deletes every key from `from` up to `beyond`, exclusive.
    pub(crate) fn delete_range(
        &mut self,
        store: &Store,
        family: Family,
        from: &[u8],
        beyond: &[u8],
    ) {
        self.batch
            .delete_range_cf(store.family(family), from, beyond);
    }

    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("store")
}

/// RocksDB writes CURRENT last when it creates a store.
fn exists(path: &Path) -> bool {
    path.join("CURRENT").exists()
}

fn database_options(options: &StoreOptions) -> Options {
    let mut db = Options::default();
    // A log file is reused from its start instead of growing a new one, so that no new blocks are
    // touched for the first time (measured: 0.6 M to 1.8 M statements/s).
    db.set_recycle_log_file_num(4);
    // Without this, a family that is seldom written would pin old log files and prevent their
    // reuse.
    db.set_atomic_flush(true);
    // Each turn is written by one thread; concurrency inside of a memtable only costs.
    db.set_allow_concurrent_memtable_write(false);
    db.set_max_background_jobs(2);
    db.set_bytes_per_sync(1 << 20);
    db.set_keep_log_file_num(4);
    db.set_max_log_file_size(16 << 20);
    db.set_stats_dump_period_sec(0);
    db.set_max_open_files(i32::try_from(options.open_files).unwrap_or(i32::MAX));
    db.set_write_buffer_size(options.memtable_bytes);
    db
}

/// Returns the families with their options, which take effect only here.
fn descriptors(options: &StoreOptions) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(options.block_cache_bytes);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_block_size(16 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    FAMILIES
        .map(|family| {
            let mut cf = Options::default();
            cf.set_block_based_table_factory(&blocks);
            // Hashes and signatures do not compress, entries are read back one at a time.
            cf.set_compression_type(DBCompressionType::None);
            cf.set_write_buffer_size(options.memtable_bytes);
            cf.set_max_write_buffer_number(4);
            cf.set_target_file_size_base(64 << 20);
            cf.set_max_bytes_for_level_base(512 << 20);
            if family == Family::Content {
                keep_contents_apart(&mut cf);
            }
            ColumnFamilyDescriptor::new(family.name(), cf)
        })
        .into()
}

/// Contents arrive in the random order of their digests: as blobs they are written once, and
/// compactions move only their keys.
fn keep_contents_apart(cf: &mut Options) {
    cf.set_enable_blob_files(true);
    // Records of contents, references and tombstones stay among the keys, where scans find them.
    cf.set_min_blob_size(1 << 10);
    cf.set_blob_file_size(256 << 20);
    cf.set_blob_compression_type(DBCompressionType::None);
    // Erased and collected contents take room until their file is rewritten: this is done for the
    // oldest half of the files, once half of their bytes are garbage.
    cf.set_enable_blob_gc(true);
    cf.set_blob_gc_age_cutoff(0.5);
    cf.set_blob_gc_force_threshold(0.5);
}

/// Opens a file with O_DIRECT, as a probe; some file systems (tmpfs, some overlays) refuse it.
fn direct_io_works(data_dir: &Path) -> bool {
    use rustix::fs::{Mode, OFlags};
    let path = data_dir.join("direct-io-probe");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let works = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).is_ok();
    // An error is ignored: the file is empty.
    let _ = fs::remove_file(&path);
    works
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::{
        records::{HeadRecord, LedgerRecord},
        *,
    };

    /// The families of version 1, which never change.
    const V1: [&str; 6] = ["meta", "entries", "tiles", "heads", "state", "index"];

    #[test]
    fn a_store_of_version_1_opens_as_it_is_and_is_brought_up_to_date() {
        let dir = tempfile::tempdir().unwrap();
        let number = LedgerNumber(0);
        let ledger = LedgerRecord {
            name: "acme".to_owned(),
            ..LedgerRecord::default()
        };
        let head = HeadRecord {
            effective_time_us: 5,
            ..HeadRecord::default()
        };
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        let db = DB::open_cf(&options, directory(dir.path()), V1).unwrap();
        for (family, key, value) in [
            ("meta", b"schema_version".to_vec(), vec![0, 0, 0, 1]),
            ("meta", b"ledger/acme".to_vec(), ledger.encode_to_vec()),
            (
                "heads",
                vec![0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0],
                head.encode_to_vec(),
            ),
        ] {
            db.put_cf(db.cf_handle(family).unwrap(), key, value)
                .unwrap();
        }
        drop(db);

        let same = |store: &Store, partition| {
            let ledger = LedgerRecord {
                partition,
                ..ledger.clone()
            };
            assert_eq!(store.ledger("acme").unwrap(), Some(ledger));
            assert_eq!(store.latest_head(number).unwrap().as_ref(), Some(&head));
            assert_eq!(store.content_ledgers().unwrap(), []);
            assert_eq!(store.unknown_ledger(&[0].into()).unwrap(), None);
        };
        let options = StoreOptions::default();
        // The head guard reads this before anything is changed, and so does fsck.
        same(
            &Store::open_read_only(dir.path(), &options)
                .unwrap()
                .unwrap(),
            None,
        );
        let store = Store::open(dir.path(), &options).unwrap();
        same(&store, Some(0));
        assert_eq!(
            deed_migrations::version(&store.db).unwrap(),
            deed_migrations::CURRENT
        );
    }
    #[test]
    fn a_store_of_version_2_is_brought_up_to_date_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::default();
        let store = Store::create(dir.path(), &options).unwrap();
        let meta = store.family(Family::Meta);
        let version = 2_u32.to_be_bytes();
        store.db.put_cf(meta, b"schema_version", version).unwrap();
        drop(store);
        let version = |store: &Store| deed_migrations::version(&store.db).unwrap();
        let as_it_is = Store::open_read_only(dir.path(), &options).unwrap();
        assert_eq!(version(&as_it_is.unwrap()), 2);
        let store = Store::open(dir.path(), &options).unwrap();
        assert_eq!(version(&store), deed_migrations::CURRENT);
    }
}
