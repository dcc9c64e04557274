//! Versions of the store's layout on disk, and the steps between them.
//!
//! The version is a big-endian u32 under the key [`VERSION_KEY`] in the column family
//! [`VERSION_FAMILY`]. A store without it is new. Each step is in a file of its own, with a frozen
//! copy of the layout that it starts from, and writes the new version in the same batch as its last
//! change: after a crash before that, the step runs again from the start, so it must be safe to
//! repeat.
//!
//! Architecture invariant: no step uses the server's current code for keys or records, because a
//! later change of that code must not change what an earlier step did.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod v1;
mod v2;
#[cfg(test)]
mod v2_tests;
mod v3;
#[cfg(test)]
mod v3_tests;
mod v4;
#[cfg(test)]
mod v4_tests;
mod v5;
mod v6;

use rocksdb::{DB, WriteBatch, WriteOptions};
use thiserror::Error;

/// Family of the version, in every layout.
pub const VERSION_FAMILY: &str = "meta";

/// Key of the version, in every layout.
pub const VERSION_KEY: &[u8] = b"schema_version";

/// One step from a layout to the next.
#[derive(Clone, Copy)]
struct Step {
    /// The version to which the step brings the version before.
    to: u32,
    /// Description of the step, for the log.
    what: &'static str,
    /// Adds the step's changes to the batch that also sets the version.
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
    Step {
        to: 4,
        what: "partitions in the ledgers' records",
        run: v4::run,
    },
    Step {
        to: 5,
        what: "numbered turns",
        run: v5::run,
    },
    Step {
        to: 6,
        what: "heads that are signed behind their turn",
        run: v6::run,
    },
];

/// The version that this program reads and writes.
pub const CURRENT: u32 = STEPS.len() as u32;

/// The reason for which a store cannot be brought to [`CURRENT`].
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum MigrationError {
    /// A later program has written the store.
    #[error(
        "the store has schema version {found}, this program knows up to {known}: use the version \
         of deed-server that wrote it, or a later one"
    )]
    Newer { found: u32, known: u32 },
    /// The version is not four bytes.
    #[error("the schema version in the store has {found} bytes, not 4")]
    Malformed { found: usize },
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

/// A step that was run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Version of the store after the step.
    pub version: u32,
    /// Description of the step.
    pub what: &'static str,
}

/// Reads the store's version; 0 for a new store.
///
/// # Errors
/// [`MigrationError`] if it cannot be read, or is newer than this program.
pub fn version(db: &DB) -> Result<u32, MigrationError> {
    version_up_to(db, CURRENT)
}

/// Brings the store to [`CURRENT`] one step at a time, each with a sync. Returns the steps that it
/// ran.
///
/// # Errors
/// [`MigrationError`] as [`version`], or if RocksDB fails; the store then has the version of the
/// last step that was completed.
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
        // After a crash before this write the step runs again; after it, never.
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
