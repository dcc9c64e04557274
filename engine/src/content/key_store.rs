//! The second database, `content-keys`: a wrapped data key for each content, and a tag of its bytes.
//!
//! It is apart from the store because deleted keys must disappear from the disk. Its log files are
//! not recycled, its files are small, and [`destroy`](ContentKeys::destroy) returns only when no file of
//! the directory holds what was deleted.

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use deed_evidence::CommitmentDigest;
use rocksdb::{
    BottommostLevelCompaction, CompactOptions, DB, DBCompressionType, IteratorMode, Options,
    WriteBatch, WriteOptions,
};

use super::{
    UploadId,
    content_keys::{ContentKeys, KeyBatch, KeyId, KeyWrite, WrappedKey},
    seal::Tag,
};
use crate::store::{LedgerNumber, StoreError, keys};

/// Bytes of keys in memory before they are flushed: some 10,000 keys.
const MEMTABLE_BYTES: usize = 2 << 20;

/// Size of a file, in bytes: the least that an erasure has to write again.
const FILE_BYTES: u64 = 2 << 20;

/// Time that [`destroy`](ContentKeys::destroy) waits for RocksDB to remove files that it no longer uses.
const REMOVAL_MAX: Duration = Duration::from_secs(60);

/// Most deleted keys for which only the files that overlap them are written again.
const APART_MAX: usize = 16;

const REMOVAL_POLL: Duration = Duration::from_millis(5);

/// Files that the database keeps open.
pub const FILES_OPEN: u16 = 64;

/// The open database.
pub(crate) struct KeyStore {
    db: DB,
    path: PathBuf,
}

impl KeyStore {
    pub(crate) fn path_in(data_dir: &Path) -> PathBuf {
        data_dir.join("content-keys")
    }

    /// Opens the database in `data_dir`, or creates it.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = Self::path_in(data_dir);
        let mut options = options();
        options.create_if_missing(true);
        let db = DB::open(&options, &path)?;
        Ok(Self { db, path })
    }

    /// Opens the database without changing it; returns `None` if there is none.
    pub(crate) fn open_read_only(data_dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = Self::path_in(data_dir);
        if !path.join("CURRENT").exists() {
            return Ok(None);
        }
        let db = DB::open_for_read_only(&options(), &path, false)?;
        Ok(Some(Self { db, path }))
    }

    /// Returns the value that identifies the right wrapping key; `None` in a new database.
    pub(crate) fn check_value(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(keys::KEY_CHECK)?)
    }

    pub(crate) fn put_check_value(&self, value: &[u8]) -> Result<(), StoreError> {
        Ok(self.db.put_opt(keys::KEY_CHECK, value, &synced())?)
    }

    /// Syncs the directory, so that a crash does not bring removed files back.
    fn sync_directory(&self) -> Result<(), StoreError> {
        fs::File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(|cause| StoreError::io(&self.path, cause))
    }

    fn files(&self, suffix: &str) -> Result<BTreeSet<String>, StoreError> {
        let io = |cause| StoreError::io(&self.path, cause);
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            let name = name.to_string_lossy();
            if is_table_or_log(&name, suffix) {
                files.insert(name.into_owned());
            }
        }
        Ok(files)
    }
}

impl ContentKeys for KeyStore {
    fn get(
        &self,
        ledger: LedgerNumber,
        digest: &CommitmentDigest,
    ) -> Result<Option<WrappedKey>, StoreError> {
        let Some(value) = self.db.get_pinned(keys::data_key(ledger, digest))? else {
            return Ok(None);
        };
        decode(&value)
            .map(Some)
            .ok_or_else(|| StoreError::CorruptKey {
                ledger: ledger.0,
                digest: digest.to_string(),
                found: value.len(),
            })
    }

    fn write(&self, batch: KeyBatch) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        for write in batch.0 {
            match write {
                KeyWrite::Put((ledger, digest), key) => {
                    let value = [&key.upload.as_bytes()[..], key.tag.as_bytes(), &key.wrapped];
                    writes.put(keys::data_key(ledger, &digest), value.concat());
                }
                KeyWrite::Delete((ledger, digest)) => {
                    writes.delete(keys::data_key(ledger, &digest));
                }
            }
        }
        Ok(self.db.write_opt(writes, &synced())?)
    }

    /// Returns when no file of the directory holds these keys.
    ///
    /// The memtable is flushed, which begins a new log; the files that overlap the deleted keys are
    /// written again without them, down to the last level; and the call waits until RocksDB has
    /// removed the old files. What the disk keeps of removed files is beyond reach.
    fn destroy(&self, deleted: &[KeyId]) -> Result<(), StoreError> {
        let logs = self.files(".log")?;
        self.db.flush()?;
        let mut whole = CompactOptions::default();
        // Without this, RocksDB would take a file on the last level for compact already.
        whole.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        whole.set_exclusive_manual_compaction(true);
        let ids = || {
            deleted
                .iter()
                .map(|(ledger, digest)| keys::data_key(*ledger, digest))
        };
        if deleted.len() <= APART_MAX {
            for key in ids() {
                self.db.compact_range_opt(Some(key), Some(key), &whole);
            }
        } else {
            // This many keys lie in most files anyway.
            self.db.compact_range_opt(ids().min(), ids().max(), &whole);
        }
        let begun = Instant::now();
        loop {
            let live: BTreeSet<_> = self
                .db
                .live_files()?
                .into_iter()
                .map(|file| file.name.trim_start_matches('/').to_owned())
                .collect();
            let tables = self.files(".sst")?;
            let log_left = self.files(".log")?.intersection(&logs).next().cloned();
            let left = tables.difference(&live).next().cloned().or(log_left);
            let Some(left) = left else {
                return self.sync_directory();
            };
            if begun.elapsed() > REMOVAL_MAX {
                let path = self.path.join(left);
                let why = "a file with erased keys was not removed in time";
                return Err(StoreError::io(&path, io::Error::other(why)));
            }
            std::thread::sleep(REMOVAL_POLL);
        }
    }

    fn after(
        &self,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Vec<(LedgerNumber, CommitmentDigest, Option<UploadId>)>, StoreError> {
        let from = after.map(|(ledger, digest)| keys::data_key(ledger, &digest));
        let mode = match &from {
            Some(from) => IteratorMode::From(from, rocksdb::Direction::Forward),
            None => IteratorMode::Start,
        };
        let mut found = Vec::new();
        for item in self.db.iterator(mode) {
            let (key, value) = item?;
            if found.len() == limit {
                break;
            }
            let Some((ledger, digest)) = keys::data_key_of(&key) else {
                continue;
            };
            if Some((ledger, digest)) != after {
                found.push((ledger, digest, decode(&value).map(|key| key.upload)));
            }
        }
        Ok(found)
    }

    fn tagged(
        &self,
        ledger: LedgerNumber,
        tags: &HashSet<Tag>,
        limit: usize,
    ) -> Result<Vec<CommitmentDigest>, StoreError> {
        let from = keys::data_key(ledger, &CommitmentDigest::new([0; 32]));
        let from = IteratorMode::From(&from, rocksdb::Direction::Forward);
        let mut found = Vec::new();
        for item in self.db.iterator(from) {
            let (key, value) = item?;
            match keys::data_key_of(&key) {
                Some((of, _)) if of != ledger => break,
                Some((_, digest)) if decode(&value).is_some_and(|key| tags.contains(&key.tag)) => {
                    found.push(digest);
                }
                _ => {}
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    #[cfg(test)]
    fn settle(&self) {
        self.db.flush().unwrap();
        self.db.compact_range(None::<&[u8]>, None::<&[u8]>);
    }
}

/// Returns true if RocksDB made the file: its name is a number and the suffix. Other files are not
/// waited for.
fn is_table_or_log(name: &str, suffix: &str) -> bool {
    let number = name.strip_suffix(suffix).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn decode(value: &[u8]) -> Option<WrappedKey> {
    let (upload, rest) = value.split_first_chunk()?;
    let (tag, wrapped) = rest.split_first_chunk()?;
    Some(WrappedKey {
        upload: UploadId::new(*upload),
        tag: Tag::new(*tag),
        wrapped: wrapped.try_into().ok()?,
    })
}

fn synced() -> WriteOptions {
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    synced
}

fn options() -> Options {
    let mut options = Options::default();
    // A recycled log would still contain what was written into it before.
    options.set_recycle_log_file_num(0);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_compression_type(DBCompressionType::None);
    options.set_max_open_files(i32::from(FILES_OPEN));
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options
}
