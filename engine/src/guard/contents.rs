//! The content guard: the last acknowledged write of contents that no leaf names yet.
//!
//! A content that a leaf names lies in the store's log before the leaf's turn, which the head guard
//! covers. A content that was uploaded by itself has no turn behind it: RocksDB drops a damaged end
//! of its log without an error, and the loss would not be noticed. So each write of contents puts a
//! number (*serial*) into its own batch, and before an upload is acknowledged the serial is written
//! here and synced. A store with a lower serial has lost acknowledged contents.
//!
//! The file `content-guard` has the form of one slot of the head guard. It is made with the first
//! upload; without it there is no record of acknowledged uploads.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use prost::Message as _;

use super::{GuardError, HALF_BYTES, SLOT_BYTES, encode_half, newest_half};
use crate::store::{Store, StoreError};

/// The record of one half.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Acknowledged {
    #[prost(uint64, tag = "1")]
    serial: u64,
}

/// The guard's file, open for writing.
pub(crate) struct ContentGuard {
    path: PathBuf,
    /// `None` before the first acknowledgement.
    file: Option<File>,
    turn: u64,
    serial: u64,
}

/// The contents of the guard's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Found {
    turn: u64,
    serial: u64,
    /// True if one half is damaged.
    damaged: bool,
}

/// Name of the guard's file in the data directory.
pub(super) const FILE: &str = "content-guard";

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// Checks that the store holds all contents that were acknowledged. Returns true if one half of the
/// guard is damaged.
pub(super) fn verify(data_dir: &Path, store: &Store) -> Result<bool, GuardError> {
    let path = path_in(data_dir);
    let Some(found) = read(&path)? else {
        return Ok(false);
    };
    let serial = store.content_serial()?;
    if serial < found.serial {
        return Err(GuardError::ContentsLost {
            acknowledged: found.serial,
            found: serial,
            store: data_dir.join("store"),
            guard: path,
        });
    }
    Ok(found.damaged)
}

fn read(path: &Path) -> Result<Option<Found>, GuardError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => {
            let path = path.to_owned();
            return Err(GuardError::Io { path, cause });
        }
    };
    let found = if bytes.len() as u64 == SLOT_BYTES {
        decode(&bytes).ok_or("it has no valid half".to_owned())
    } else {
        Err(format!("it has {} bytes", bytes.len()))
    };
    found.map(Some).map_err(|reason| GuardError::Missing {
        path: path.to_owned(),
        reason,
    })
}

fn decode(bytes: &[u8]) -> Option<Found> {
    let (newest, damaged) = newest_half::<Acknowledged>(bytes)?;
    // A file without a valid half was just created, and nothing was acknowledged.
    let (turn, Acknowledged { serial }) = newest.unwrap_or_default();
    Some(Found {
        turn,
        serial,
        damaged,
    })
}

impl ContentGuard {
    /// Opens the guard in `data_dir`, which was verified before.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be opened.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = path_in(data_dir);
        let io = |cause| StoreError::io(&path, cause);
        let found = match read(&path) {
            Ok(found) => found,
            Err(error) => return Err(io(io::Error::other(error.to_string()))),
        };
        let file = match found {
            Some(_) => Some(File::options().write(true).open(&path).map_err(io)?),
            None => None,
        };
        let Found { turn, serial, .. } = found.unwrap_or_default();
        Ok(Self {
            path,
            file,
            turn,
            serial,
        })
    }

    /// Records that every write up to `serial` is acknowledged, and returns when that is on disk.
    /// Must be called only for writes that the store has synced.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the writes must not be acknowledged then.
    pub(crate) fn acknowledge(&mut self, serial: u64) -> Result<(), StoreError> {
        if serial <= self.serial {
            return Ok(());
        }
        self.write(serial)
            .map_err(|cause| StoreError::io(&self.path, cause))?;
        self.serial = serial;
        Ok(())
    }

    fn write(&mut self, serial: u64) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        self.turn += 1;
        let half = encode_half(self.turn, &Acknowledged { serial }.encode_to_vec())?;
        file.write_all_at(&half, (self.turn % 2) * HALF_BYTES as u64)?;
        file.sync_data()
    }
}

/// Creates the file. All of its blocks are allocated and synced, and its name as well.
fn create(path: &Path) -> io::Result<File> {
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)?;
    file.write_all_at(&[0; SLOT_BYTES as usize], 0)?;
    file.sync_all()?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let mut guard = ContentGuard::open(dir.path()).unwrap();
        guard.acknowledge(0).unwrap();
        assert_eq!(read(&path).unwrap(), None);
        for serial in [1, 2, 2, 1, 7] {
            guard.acknowledge(serial).unwrap();
        }
        let wanted = Found {
            turn: 3,
            serial: 7,
            damaged: false,
        };
        assert_eq!(read(&path).unwrap(), Some(wanted));
        let mut again = ContentGuard::open(dir.path()).unwrap();
        again.acknowledge(7).unwrap();
        assert_eq!(read(&path).unwrap(), Some(wanted));
        again.acknowledge(8).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().serial, 8);
    }

    #[test]
    fn damage_is_noticed_and_one_good_half_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_in(dir.path());
        let mut guard = ContentGuard::open(dir.path()).unwrap();
        for serial in [4, 5, 6] {
            guard.acknowledge(serial).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for (half, left) in [(0, 6), (HALF_BYTES, 5)] {
            for damage in [1, 0xff] {
                let mut bytes = whole.clone();
                if damage == 1 {
                    bytes[half + 9] ^= damage;
                } else {
                    bytes[half..half + HALF_BYTES].fill(0);
                }
                fs::write(&path, &bytes).unwrap();
                let found = read(&path).unwrap().unwrap();
                assert_eq!((found.serial, found.damaged), (left, true));
            }
        }
        let mut none = whole.clone();
        none[9] ^= 1;
        none[HALF_BYTES + 9] ^= 1;
        fs::write(&path, &none).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(
            error.contains("content-guard is missing or damaged"),
            "{error}"
        );
        assert!(error.contains("remove what is left of it"), "{error}");
        fs::write(&path, &whole[1..]).unwrap();
        assert!(matches!(read(&path), Err(GuardError::Missing { .. })));
        fs::write(&path, vec![0; SLOT_BYTES as usize]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(Found::default()));
    }
}
