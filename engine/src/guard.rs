//! The head guard: a small file beside the store that holds the newest tree heads.
//!
//! RocksDB's recovery drops a damaged end of its log without an error, and a ledger that lost
//! acknowledged leaves must stop, not sign another history. So the newest head is also written
//! here, after the store's sync and before the head is signed: an ordinary crash never leaves the
//! store behind the guard. At the start [`verify`] checks that the store has every guarded head.
//!
//! The file is written in place and never grows:
//!
//! ```text
//! slot 0 | slot 1 | ... | slot 63         one a shard, 8192 bytes each
//! slot: half 0 (4096 bytes) | half 1
//! half: magic "DEEDGRD1" | write (u64) | length (u32) | GuardedHead | BLAKE3 of all before (32)
//! ```
//!
//! A record names the turn that the store had when it was written, by number and digest. Records
//! from before turns were numbered name none, and are compared by their head alone. Records from before
//! heads were signed behind the guard have the signed head in place of size and root.
//!
//! The halves of a slot are written alternately, and never share a disk's sector. A half that was
//! torn by a crash held a head that was never released, and the other half is still valid.
//!
//! Contents that no leaf names yet have a guard of their own ([`contents`]).
//!
//! The guard does not catch a data directory that was copied whole and restored later, guard
//! included. Only a witness, which remembers heads elsewhere, can notice that.

pub mod contents;
mod turn;
#[cfg(test)]
mod turn_tests;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use deed_tlog::{Checkpoint, Hash, TreeHead, TreeSize, VerifierKey};
use prost::Message as _;
use thiserror::Error;

use crate::store::{Family, LedgerNumber, Store, StoreError};

/// Number of shards that a guard has room for.
pub(crate) const SLOTS: usize = 64;

const SLOT_BYTES: u64 = 8192;
const HALF_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"DEEDGRD1";
const DIGEST_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + 8 + 4;

/// The newest tree head of one shard.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GuardedHead {
    #[prost(uint32, tag = "1")]
    pub ledger: u32,
    /// The ledger's name, for messages.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The key of `checkpoint`.
    #[prost(string, tag = "3")]
    pub vkey: String,
    /// The signed head, in a record of before version 6 of the layout; now empty.
    #[prost(bytes = "bytes", tag = "4")]
    pub checkpoint: Bytes,
    /// The shard's newest turn when it was written, which the store had; 0 in a record of before
    /// version 5 of the layout, which says nothing of turns.
    #[prost(uint64, tag = "5")]
    pub turn: u64,
    /// The digest of that turn, 32 bytes; empty with turn 0.
    #[prost(bytes = "bytes", tag = "6")]
    pub digest: Bytes,
    /// The tree's size; 0 in a record with a signed head.
    #[prost(uint64, tag = "7")]
    pub size: u64,
    /// The tree's root, 32 bytes; empty with size 0.
    #[prost(bytes = "bytes", tag = "8")]
    pub root: Bytes,
}

/// The reason for which a store does not fit its guard.
#[allow(missing_docs, reason = "the message of each variant names its fields")]
#[derive(Debug, Error)]
pub enum GuardError {
    /// The store lost acknowledged leaves.
    #[error(
        "head guard: ledger {name:?} was acknowledged up to {guarded} leaves, but the store {found}. \
         Acknowledged statements are lost or damaged, so the server does not start and nothing was \
         changed. Restore the directory {store} from a copy that holds them, and keep this one \
         for the investigation"
    )]
    NotReproduced {
        name: String,
        /// Size of the guarded head.
        guarded: u64,
        /// A description of the store's tree, for the message.
        found: String,
        store: PathBuf,
    },
    /// The store lost a turn that was acknowledged, or has another one in its place.
    #[error(
        "head guard: turn {turn} of partition {partition} was acknowledged, but the store {found}. \
         Acknowledged statements are lost or damaged, so the server does not start and nothing was \
         changed. Restore the directory {store} from a copy that holds them, and keep this one \
         for the investigation"
    )]
    TurnMissing {
        /// The partition, which is the guard's slot.
        partition: u8,
        /// The number of the partition's newest turn, by the guard.
        turn: u64,
        /// A description of the store's newest turn, for the message.
        found: String,
        /// The store's directory.
        store: PathBuf,
    },
    /// The store lost contents that were acknowledged and that no leaf names yet.
    #[error(
        "content guard: contents were acknowledged up to write {acknowledged}, but the store ends with \
         write {found}. Acknowledged contents are lost, so the server does not start and nothing was \
         changed. Restore the directory {store} from a copy that holds them. If they are lost for \
         good, remove {guard}, start, and have what no statement names yet sent again"
    )]
    ContentsLost {
        /// Number of the last write that was acknowledged.
        acknowledged: u64,
        /// Number of the last write that the store has.
        found: u64,
        store: PathBuf,
        guard: PathBuf,
    },
    /// The guard's file is missing or damaged.
    #[error(
        "{path} is missing or damaged ({reason}). Without it, nobody can say whether the store is \
         complete: restore it from where it was lost{}",
        way_out(.path)
    )]
    Missing { path: PathBuf, reason: String },
    /// The file system failed.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: io::Error },
    /// The store cannot be read.
    #[error("head guard: {0}")]
    Store(StoreError),
}

impl From<StoreError> for GuardError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

/// Returns the end of a message about a missing guard, without which the server does not start.
fn way_out(path: &Path) -> &'static str {
    if path.ends_with(contents::FILE) {
        ". If it is lost for good, remove what is left of it: uploads that no statement names are then \
         not guarded"
    } else {
        ""
    }
}

/// Returns the path of the head guard in `data_dir`.
fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join("head-guard")
}

/// Creates the guard of a new data directory. All of its blocks are allocated and synced.
pub fn create(data_dir: &Path) -> Result<(), GuardError> {
    let path = path_in(data_dir);
    let io = |cause| GuardError::Io {
        path: path.clone(),
        cause,
    };
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .map_err(io)?;
    file.write_all_at(&vec![0; SLOTS * SLOT_BYTES as usize], 0)
        .map_err(io)?;
    file.sync_all().map_err(io)
}

/// Checks that the store reproduces every guarded head: the tree of that size must have that root.
///
/// # Errors
/// [`GuardError`] if it does not, or if the guard is missing while there are ledgers.
pub fn verify(data_dir: &Path, store: &Arc<Store>) -> Result<Guarded, GuardError> {
    let path = path_in(data_dir);
    let Slots { newest, damaged } = read(&path).map_err(|reason| GuardError::Missing {
        path: path.clone(),
        reason,
    })?;
    let guarded: Vec<_> = (0_u8..)
        .zip(newest)
        .filter_map(|(slot, newest)| Some((slot, newest?.1)))
        .collect();
    if guarded.is_empty() && !is_nearly_new(store)? {
        return Err(GuardError::Missing {
            path,
            reason: "it holds no head".to_owned(),
        });
    }
    for (slot, head) in &guarded {
        let wanted = guarded_head(head).map_err(|reason| GuardError::Missing {
            path: path.clone(),
            reason: format!("its head of ledger {:?}: {reason}", head.name),
        })?;
        reproduces(head, wanted, store).map_err(|found| GuardError::NotReproduced {
            name: head.name.clone(),
            guarded: wanted.size.get(),
            found,
            store: data_dir.join("store"),
        })?;
        if let Some(found) = turn::missing_turn(*slot, head, store)? {
            return Err(GuardError::TurnMissing {
                partition: *slot,
                turn: head.turn,
                found,
                store: data_dir.join("store"),
            });
        }
    }
    let mut damaged: Vec<_> = damaged
        .into_iter()
        .map(|slot| format!("slot {slot} of {}", path.display()))
        .collect();
    if contents::verify(data_dir, store)? {
        damaged.push(format!("{}", data_dir.join(contents::FILE).display()));
    }
    Ok(Guarded {
        heads: guarded.len(),
        damaged,
    })
}

/// The result of verifying a data directory's guards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Guarded {
    /// Number of heads that the store reproduces.
    pub heads: usize,
    /// Descriptions of the slots that have only one good half.
    pub damaged: Vec<String>,
}

/// Returns true if nothing was ever acknowledged from this store: at most the very first turn,
/// which creates a ledger, was committed, and the server ended before the turn was guarded.
fn is_nearly_new(store: &Arc<Store>) -> Result<bool, StoreError> {
    let ledgers = store.ledgers_after("", 2)?;
    let [only] = &ledgers[..] else {
        return Ok(ledgers.is_empty());
    };
    let mut entries = store.entries(LedgerNumber(only.number), 0);
    Ok(entries.nth(1).transpose()?.is_none())
}

/// Brings the guard up to the store, which may be a turn ahead, before that turn is published.
///
/// Returns the number of heads written.
pub fn catch_up(data_dir: &Path, store: &Arc<Store>) -> Result<usize, GuardError> {
    let path = path_in(data_dir);
    let mut written = 0;
    for (slot, ledger) in store.newest()? {
        let number = LedgerNumber(ledger.number);
        if usize::from(slot) >= SLOTS {
            let what = format!("the newest turn of shard {slot}, and there are only {SLOTS}");
            return Err(StoreError::corrupt(Family::Meta, number, what).into());
        }
        let tree = store.stored_tree(number)?;
        let turn = store.newest_turn(slot)?;
        let head = GuardedHead {
            turn: turn.number,
            digest: if turn.number == 0 {
                Bytes::new()
            } else {
                turn.digest
            },
            ..GuardedHead::of(number, &ledger.name, tree.head)
        };
        let mut slot = GuardSlot::open(data_dir, usize::from(slot))?;
        if slot.newest.as_ref() != Some(&head) {
            slot.write(&head).map_err(|cause| GuardError::Io {
                path: path.clone(),
                cause,
            })?;
            written += 1;
        }
    }
    Ok(written)
}

/// Fails with a description of the store's tree unless that reproduces the guarded head.
fn reproduces(guarded: &GuardedHead, head: TreeHead, store: &Arc<Store>) -> Result<(), String> {
    let ledger = LedgerNumber(guarded.ledger);
    let cannot = |error: &dyn std::fmt::Display| format!("cannot rebuild its tree ({error})");
    store
        .ledger(&guarded.name)
        .map_err(|error| cannot(&error))?
        .filter(|record| record.number == guarded.ledger)
        .ok_or_else(|| "does not know it".to_owned())?;
    // The store may be a turn ahead.
    let edge = crate::store::recover::right_edge(store, ledger)
        .map_err(|error| cannot(&error))?
        .ok_or_else(|| "does not know it".to_owned())?
        .edge;
    if edge.size() < head.size {
        return Err(format!("holds only {}", edge.size()));
    }
    let reader = deed_tlog::EdgeReader::new(&edge, store.full_tiles(ledger));
    let root = deed_tlog::root_at(head.size, &reader).map_err(|error| cannot(&error))?;
    if root == head.root {
        Ok(())
    } else {
        Err(format!("has another root for them ({root})"))
    }
}

impl GuardedHead {
    /// Returns the record of a tree head. The turn's number and digest are filled in when it is committed.
    pub(crate) fn of(ledger: LedgerNumber, name: &str, head: TreeHead) -> Self {
        Self {
            ledger: ledger.0,
            name: name.to_owned(),
            size: head.size.get(),
            root: head.root.as_bytes().to_vec().into(),
            ..Self::default()
        }
    }
}

fn guarded_head(guarded: &GuardedHead) -> Result<TreeHead, String> {
    if guarded.size > 0 {
        let root = Hash::try_from(&guarded.root[..]).map_err(|_| "its root has not 32 bytes")?;
        return Ok(TreeHead::new(TreeSize::new(guarded.size), root));
    }
    let vkey: VerifierKey = guarded
        .vkey
        .parse()
        .map_err(|error| format!("its key: {error}"))?;
    let (checkpoint, _) =
        Checkpoint::open(&guarded.checkpoint, &vkey).map_err(|error| error.to_string())?;
    Ok(checkpoint.head)
}

type Slot = Option<(u64, GuardedHead)>;

struct Slots {
    newest: Vec<Slot>,
    damaged: Vec<usize>,
}

/// Reads every slot's newest valid half, and notes where the other one is damaged: torn by a crash,
/// which the shard's next turn repairs, or damaged by the disk.
fn read(path: &Path) -> Result<Slots, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    if bytes.len() as u64 != SLOTS as u64 * SLOT_BYTES {
        return Err(format!("it has {} bytes", bytes.len()));
    }
    let mut slots = Slots {
        newest: Vec::with_capacity(SLOTS),
        damaged: Vec::new(),
    };
    for (slot, bytes) in bytes.chunks_exact(SLOT_BYTES as usize).enumerate() {
        let (newest, damaged) =
            newest_half(bytes).ok_or_else(|| format!("slot {slot} has no valid half"))?;
        if damaged {
            slots.damaged.push(slot);
        }
        slots.newest.push(newest);
    }
    Ok(slots)
}

/// Returns the newest valid half of a slot, `None` in it if the slot was never written, and true if
/// the other half is damaged. Returns `None` if the slot was written and neither half is valid.
fn newest_half<M: prost::Message + Default>(slot: &[u8]) -> Option<(Option<(u64, M)>, bool)> {
    let halves = || slot.chunks_exact(HALF_BYTES);
    let untouched = halves()
        .filter(|half| half.iter().all(|&byte| byte == 0))
        .count();
    let good: Vec<(u64, M)> = halves().filter_map(decode_half).collect();
    if good.is_empty() && untouched < 2 {
        return None;
    }
    let alone = good.len() == 1;
    let newest = good.into_iter().max_by_key(|half| half.0);
    // The halves are written alternately: from the second turn on, neither is empty.
    let turns = newest.as_ref().map_or(0, |(turn, _)| *turn);
    Some((newest, alone && (untouched == 0 || turns > 1)))
}

/// Returns the bytes of a half of a slot.
fn encode_half(turn: u64, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut half = Vec::with_capacity(HALF_BYTES);
    half.extend_from_slice(MAGIC);
    half.extend_from_slice(&turn.to_be_bytes());
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    half.extend_from_slice(&length.to_be_bytes());
    half.extend_from_slice(body);
    let digest = blake3::hash(&half);
    half.extend_from_slice(digest.as_bytes());
    if half.len() > HALF_BYTES {
        return Err(io::Error::other(format!(
            "{} bytes do not fit a half of {HALF_BYTES} bytes",
            half.len()
        )));
    }
    Ok(half)
}

fn decode_half<M: prost::Message + Default>(bytes: &[u8]) -> Option<(u64, M)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_be_bytes(*header.last_chunk::<4>()?) as usize;
    let turn = u64::from_be_bytes(header.get(MAGIC.len()..MAGIC.len() + 8)?.try_into().ok()?);
    let (body, rest) = rest.split_at_checked(length)?;
    let digest = blake3::hash(bytes.get(..HEADER_BYTES + length)?);
    if !header.starts_with(MAGIC) || !rest.starts_with(digest.as_bytes()) {
        return None;
    }
    Some((turn, M::decode(body).ok()?))
}

/// Writes one shard's slot.
pub struct GuardSlot {
    file: File,
    slot: usize,
    turn: u64,
    /// The head that the slot held when it was opened.
    newest: Option<GuardedHead>,
}

impl GuardSlot {
    /// Opens the slot of shard `slot`, which must be less than [`SLOTS`].
    pub fn open(data_dir: &Path, slot: usize) -> Result<Self, GuardError> {
        let path = path_in(data_dir);
        let slots = read(&path).map_err(|reason| GuardError::Missing {
            path: path.clone(),
            reason,
        })?;
        let (turn, newest) = match slots.newest.into_iter().nth(slot).flatten() {
            Some((turn, head)) => (turn, Some(head)),
            None => (0, None),
        };
        let file = File::options()
            .write(true)
            .open(&path)
            .map_err(|cause| GuardError::Io { path, cause })?;
        Ok(Self {
            file,
            slot,
            turn,
            newest,
        })
    }

    /// Returns the head that the slot held when it was opened.
    #[cfg(test)]
    pub fn head(&self) -> Option<TreeHead> {
        let newest = self.newest.as_ref();
        newest.map(|head| guarded_head(head).expect("a head"))
    }

    /// Writes `head` and returns when it is on disk. Must be called only for heads that the store
    /// has synced.
    pub fn write(&mut self, head: &GuardedHead) -> io::Result<()> {
        self.turn += 1;
        let half = encode_half(self.turn, &head.encode_to_vec())?;
        let offset = self.slot as u64 * SLOT_BYTES + (self.turn % 2) * HALF_BYTES as u64;
        self.file.write_all_at(&half, offset)?;
        self.file.sync_data()
    }
}

const _: () = assert!(HEADER_BYTES + DIGEST_BYTES < HALF_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn head(name: &str) -> GuardedHead {
        GuardedHead {
            ledger: 1,
            name: name.to_owned(),
            vkey: "key".to_owned(),
            checkpoint: Bytes::from_static(b"head"),
            ..GuardedHead::default()
        }
    }

    fn slots(dir: &Path) -> Vec<Slot> {
        let read = read(&path_in(dir)).unwrap();
        assert_eq!(read.damaged, [0_usize; 0]);
        read.newest
    }

    #[test]
    fn slots_keep_their_newest_head() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        assert!(slots(dir.path()).iter().all(Option::is_none));
        let mut first = GuardSlot::open(dir.path(), 0).unwrap();
        let mut last = GuardSlot::open(dir.path(), SLOTS - 1).unwrap();
        for turn in 1..=5 {
            first.write(&head(&format!("first {turn}"))).unwrap();
        }
        last.write(&head("last")).unwrap();
        let found = slots(dir.path());
        assert_eq!(found[0], Some((5, head("first 5"))));
        assert_eq!(found[SLOTS - 1], Some((1, head("last"))));
        assert_eq!(found.iter().flatten().count(), 2);
        // After a restart the turns are counted on.
        let mut again = GuardSlot::open(dir.path(), 0).unwrap();
        again.write(&head("first 6")).unwrap();
        assert_eq!(slots(dir.path())[0], Some((6, head("first 6"))));
    }

    #[test]
    fn a_torn_half_leaves_the_other_one() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let mut slot = GuardSlot::open(dir.path(), 0).unwrap();
        slot.write(&head("one")).unwrap();
        slot.write(&head("two")).unwrap();
        let path = path_in(dir.path());
        let whole = fs::read(&path).unwrap();
        // Turn 2 is in half 0. The digest covers all of its bytes and is one of them, so any change
        // shows.
        let length = whole[..HALF_BYTES]
            .iter()
            .rposition(|&byte| byte != 0)
            .unwrap();
        for at in 0..=length {
            let mut torn = whole.clone();
            torn[at] ^= 0x40;
            fs::write(&path, &torn).unwrap();
            let read = read(&path).unwrap();
            assert_eq!(read.newest[0], Some((1, head("one"))), "byte {at}");
            assert_eq!(read.damaged, [0], "byte {at}");
        }
        // The damage also shows in an emptied half and in the other half, once both were written.
        fs::write(&path, &whole).unwrap();
        slot.write(&head("three")).unwrap();
        let whole = fs::read(&path).unwrap();
        for (half, left) in [(0, (3, head("three"))), (HALF_BYTES, (2, head("two")))] {
            let mut empty = whole.clone();
            empty[half..half + HALF_BYTES].fill(0);
            fs::write(&path, &empty).unwrap();
            let read = read(&path).unwrap();
            assert_eq!(read.newest[0], Some(left));
            assert_eq!(read.damaged, [0]);
        }
    }

    #[test]
    fn a_half_that_was_torn_heals_with_the_next_turns() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let mut slot = GuardSlot::open(dir.path(), 0).unwrap();
        slot.write(&head("one")).unwrap();
        slot.write(&head("two")).unwrap();
        let path = path_in(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap().damaged, [0]);
        let mut slot = GuardSlot::open(dir.path(), 0).unwrap();
        slot.write(&head("two again")).unwrap();
        assert_eq!(slots(dir.path())[0], Some((2, head("two again"))));
    }

    #[test]
    fn a_guard_without_a_valid_half_is_no_guard() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let path = path_in(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[9] = 1;
        fs::write(&path, &bytes).unwrap();
        assert!(read(&path).err().unwrap().contains("slot 0"));
        fs::write(&path, &bytes[1..]).unwrap();
        assert!(read(&path).err().unwrap().contains("524287 bytes"));
        assert!(GuardSlot::open(dir.path(), 0).is_err());
    }

    #[test]
    fn a_head_that_does_not_fit_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        let mut slot = GuardSlot::open(dir.path(), 0).unwrap();
        assert!(slot.write(&head(&"x".repeat(HALF_BYTES))).is_err());
        assert_eq!(slots(dir.path())[0], None);
    }
}
