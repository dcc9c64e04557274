//! The journal: where a shard writes its turns, and what it waits for before it tells anybody of them.
//!
//! Neither the step nor the pipeline knows which journal it has. [`LocalJournal`] is the only one: one
//! server, its store and its head guard. One that several servers share keeps the same contract.

use std::{io, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{CommitFn, Disk, GuardFn};
use crate::{
    guard::GuardedHead,
    store::{Batch, Store, StoreError, turn::TurnRecord},
};

/// The order of a partition's turns, which survives a crash.
///
/// *Chain rule:* each turn names the one before it, by number and digest. One that does not continue the
/// newest turn is void, for every reader, for ever, whatever else is lost, repeated or late. So no place
/// has two turns, and there is one history.
pub(crate) trait Journal: Send + Sync {
    /// Returns the newest turn of the partition: the one that the next has to continue.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn newest(&self) -> Result<TurnRecord, StoreError>;

    /// Makes a turn the next one of the partition, or not at all. Returns when it is decided which.
    /// Callers propose one turn at a time, and none behind one whose outcome is unknown.
    fn append(&self, proposed: ProposedTurn) -> Appended;

    /// Confirms the turn that `head` names, and with it all before: from the return on, a store that lost
    /// one of them does not open again. Must be called only for turns that were appended, in their order.
    ///
    /// # Errors
    /// An error of the disk, after which it is unknown whether the turn is confirmed; or because another
    /// digest was confirmed for the turn's number.
    fn confirm(&self, head: &GuardedHead) -> io::Result<()>;
}

/// A turn on its way into the journal.
pub(crate) struct ProposedTurn {
    /// The turn that it continues.
    pub(crate) after: TurnRecord,
    /// Its own number and digest.
    pub(crate) turn: TurnRecord,
    /// Everything that it writes, its record among it.
    pub(crate) records: Batch,
}

/// The outcome of an append.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is the next turn. It and every turn before it survive a crash.
    Next,
    /// It is void: another turn is in its place, and nothing of this one is or will be recorded. That
    /// turn, and all before it, are in the store and confirmed.
    Superseded,
    /// A write failed; it may be the next turn or not.
    Unknown(StoreError),
}

/// One server's journal: a synced batch of its own store is a turn, and the head guard confirms it.
pub(crate) struct LocalJournal {
    store: Arc<Store>,
    partition: u8,
    writing: Mutex<Writing>,
    confirming: Mutex<Confirming>,
}

struct Confirming {
    guard: GuardFn,
    /// Number and digest of the newest turn that was confirmed since the start, when the store was held
    /// against the guard; 0 before the first.
    newest: (u64, Bytes),
}

struct Writing {
    commit: CommitFn,
    /// The newest turn; `None` until it was read, and when it is unknown after an error.
    newest: Option<TurnRecord>,
}

impl Writing {
    fn newest(&mut self, store: &Store, partition: u8) -> Result<&TurnRecord, StoreError> {
        if self.newest.is_none() {
            self.newest = Some(store.newest_turn(partition)?);
        }
        Ok(self.newest.get_or_insert_with(TurnRecord::none))
    }
}

impl LocalJournal {
    /// Returns the journal of a partition of `store`, which writes to `disk`.
    pub(crate) fn new(store: Arc<Store>, partition: u8, disk: Disk) -> Self {
        let Disk { commit, guard } = disk;
        Self {
            store,
            partition,
            writing: Mutex::new(Writing {
                commit,
                newest: None,
            }),
            confirming: Mutex::new(Confirming {
                guard,
                newest: Default::default(),
            }),
        }
    }
}

impl Journal for LocalJournal {
    fn newest(&self) -> Result<TurnRecord, StoreError> {
        let mut writing = self.writing.lock();
        writing.newest(&self.store, self.partition).cloned()
    }

    fn append(&self, proposed: ProposedTurn) -> Appended {
        let mut writing = self.writing.lock();
        match writing.newest(&self.store, self.partition) {
            Ok(newest) if newest.is_continued_by(&proposed.after) => {}
            Ok(_) => return Appended::Superseded,
            Err(error) => return Appended::Unknown(error),
        }
        writing.newest = None;
        match (writing.commit)(proposed.records) {
            Ok(()) => {
                writing.newest = Some(proposed.turn);
                Appended::Next
            }
            Err(error) => Appended::Unknown(error),
        }
    }

    fn confirm(&self, head: &GuardedHead) -> io::Result<()> {
        let mut confirming = self.confirming.lock();
        let (number, digest) = &confirming.newest;
        if head.turn < *number || (head.turn == *number && head.digest != *digest) {
            return Err(io::Error::other(format!(
                "turn {number} was confirmed with digest {}, and this is turn {} with digest {}",
                hex::encode(digest),
                head.turn,
                hex::encode(&head.digest)
            )));
        }
        confirming.newest = (head.turn, head.digest.clone());
        (confirming.guard)(head)
    }
}
