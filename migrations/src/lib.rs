//! Versions of the store's layout on disk, and the steps between them.
//!
//! The version is a big-endian u32 under the key [`VERSION_KEY`] in the column family
//! [`VERSION_FAMILY`]. A store without it is new. Each step lives in a file of its own with a
//! frozen copy of the layout that it starts from, and writes the new version in the same batch as
//! its last change: if we crash in between, the step runs again from the start, and must bear
//! that.
//!
//! Architecture invariant: no step uses the server's current code for keys or records. What that
//! code says tomorrow must not change what a step did yesterday.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod v1;
mod v2;
#[cfg(test)]
mod v2_tests;
mod v3;
#[cfg(test)]
mod v3_tests;

use rocksdb::{DB, WriteBatch, WriteOptions};
use thiserror::Error;

/// Family of the version, in every layout.
pub const VERSION_FAMILY: &str = "meta";

/// Key of the version, in every layout.
pub const VERSION_KEY: &[u8] = b"schema_version";

/// One step from a layout to the next.
#[derive(Clone, Copy)]
struct Step {
    /// The version that it leads to, from the one before.
    to: u32,
    /// What it does, for the log.
    what: &'static str,
    /// Prepares the changes that belong in one batch with the version.
    run: fn(&DB, &mut WriteBatch) -> Result<(), rocksdb::Error>,
}

const STEPS: &[Step] = &[
    Step {
        to: 1,
        what: "first layout",
        run: v1::run,
    },
    Step {
        to: 2,
        what: "contents beside the log",
        run: v2::run,
    },
    Step {
        to: 3,
        what: "assessment and search",
        run: v3::run,
    },
];

/// The version that this program reads and writes.
pub const CURRENT: u32 = STEPS.len() as u32;

/// A store that cannot be brought to [`CURRENT`].
#[derive(Debug, Error)]
pub enum MigrationError {
    /// A later program has written it.
    #[error(
        "the store has schema version {found}, this program knows up to {known}: use the version \
         of deed-server that wrote it, or a later one"
    )]
    Newer {
        /// Version in the store.
        found: u32,
        /// Version of this program.
        known: u32,
    },
    /// The version is not four bytes.
    #[error("the schema version in the store has {found} bytes, not 4")]
    Malformed {
        /// Bytes found.
        found: usize,
    },
    /// The family that holds the version is missing.
    #[error("the store lacks the column family {VERSION_FAMILY:?}")]
    NoVersionFamily,
    /// RocksDB failed.
    #[error("schema version: {0}")]
    Store(rocksdb::Error),
}

impl From<rocksdb::Error> for MigrationError {
    fn from(cause: rocksdb::Error) -> Self {
        Self::Store(cause)
    }
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Version after it.
    pub version: u32,
    /// What it did.
    pub what: &'static str,
}

/// Reads the store's version; 0 for a new store.
///
/// # Errors
/// [`MigrationError`] if it cannot be read, or is newer than this program.
pub fn version(db: &DB) -> Result<u32, MigrationError> {
    version_up_to(db, CURRENT)
}

/// Brings the store to [`CURRENT`], a step at a time, each synced. Says which steps it took.
///
/// # Errors
/// [`MigrationError`] as [`version`], or if RocksDB fails; the store then has the version of the
/// last step that is complete.
pub fn migrate(db: &DB) -> Result<Vec<Applied>, MigrationError> {
    migrate_with(db, STEPS)
}

fn version_up_to(db: &DB, known: u32) -> Result<u32, MigrationError> {
    let family = db
        .cf_handle(VERSION_FAMILY)
        .ok_or(MigrationError::NoVersionFamily)?;
    let Some(bytes) = db.get_pinned_cf(family, VERSION_KEY)? else {
        return Ok(0);
    };
    let bytes: [u8; 4] = bytes
        .as_ref()
        .try_into()
        .map_err(|_| MigrationError::Malformed { found: bytes.len() })?;
    match u32::from_be_bytes(bytes) {
        found if found > known => Err(MigrationError::Newer { found, known }),
        found => Ok(found),
    }
}

fn migrate_with(db: &DB, steps: &[Step]) -> Result<Vec<Applied>, MigrationError> {
    let known = steps.last().map_or(0, |step| step.to);
    let from = version_up_to(db, known)?;
    let family = db
        .cf_handle(VERSION_FAMILY)
        .ok_or(MigrationError::NoVersionFamily)?;
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    let mut applied = Vec::new();
    for step in steps.iter().filter(|step| step.to > from) {
        let mut batch = WriteBatch::default();
        (step.run)(db, &mut batch)?;
        batch.put_cf(family, VERSION_KEY, step.to.to_be_bytes());
        // If we crash before this write, the step is taken again; after it, never.
        db.write_opt(batch, &synced)?;
        applied.push(Applied {
            version: step.to,
            what: step.what,
        });
    }
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use rocksdb::Options;

    use super::*;

    fn open(path: &std::path::Path) -> DB {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        DB::open_cf(&options, path, [VERSION_FAMILY]).unwrap()
    }

    fn set_version(db: &DB, bytes: &[u8]) {
        let family = db.cf_handle(VERSION_FAMILY).unwrap();
        db.put_cf(family, VERSION_KEY, bytes).unwrap();
    }

    #[test]
    fn steps_count_up_from_one() {
        let versions: Vec<u32> = STEPS.iter().map(|step| step.to).collect();
        assert_eq!(versions, (1..=CURRENT).collect::<Vec<_>>());
    }

    #[test]
    fn a_new_store_gets_every_step_once() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        assert_eq!(version(&db).unwrap(), 0);
        assert_eq!(migrate(&db).unwrap().len(), STEPS.len());
        assert_eq!(version(&db).unwrap(), CURRENT);
        assert_eq!(migrate(&db).unwrap(), []);
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        set_version(&db, &(CURRENT + 1).to_be_bytes());
        let error = migrate(&db).unwrap_err();
        assert!(matches!(error, MigrationError::Newer { found, known }
            if found == CURRENT + 1 && known == CURRENT));
        let family = db.cf_handle(VERSION_FAMILY).unwrap();
        let stored = db.get_cf(family, VERSION_KEY).unwrap().unwrap();
        assert_eq!(stored, (CURRENT + 1).to_be_bytes());
    }

    #[test]
    fn a_malformed_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        set_version(&db, b"one");
        assert!(matches!(
            migrate(&db).unwrap_err(),
            MigrationError::Malformed { found: 3 }
        ));
    }

    #[test]
    fn a_later_step_runs_alone_and_with_its_version() {
        fn mark(db: &DB, batch: &mut WriteBatch) -> Result<(), rocksdb::Error> {
            batch.put_cf(db.cf_handle(VERSION_FAMILY).unwrap(), b"mark", b"x");
            Ok(())
        }
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path());
        migrate(&db).unwrap();
        let mut steps = STEPS.to_vec();
        steps.push(Step {
            to: CURRENT + 1,
            what: "marks the store",
            run: mark,
        });
        let applied = migrate_with(&db, &steps).unwrap();
        assert_eq!(applied.len(), 1);
        assert_eq!(version_up_to(&db, CURRENT + 1).unwrap(), CURRENT + 1);
        let family = db.cf_handle(VERSION_FAMILY).unwrap();
        assert!(db.get_cf(family, b"mark").unwrap().is_some());
    }
}
