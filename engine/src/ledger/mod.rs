//! One ledger in memory: its record, its keys, its trust state and its published tree.

pub mod batch_proof;
pub mod due;
#[cfg(test)]
mod encoded_tests;
#[cfg(test)]
mod evidence_tests;
pub mod index;
pub mod past_trust;
pub mod policies;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
mod raised_tests;
pub mod read;
pub mod registry;
#[cfg(test)]
pub(crate) mod registry_tests;
mod restore;
#[cfg(test)]
mod rotation_tests;
#[cfg(test)]
mod signed_tests;
pub mod step;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod timer_tests;
pub mod write;

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicU64},
};

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros, assess::cells::Clock};
use deed_tlog::{Origin, RightEdge, TreeHead, TreeSize, VerifierKey};
use parking_lot::Mutex;
use tokio::sync::watch;

use self::past_trust::PastTrust;
use crate::{
    clock::keeper::BEHIND_MAX_US,
    content::LedgerRef,
    identity::log_signers::LogSigners,
    store::{
        Batch, LedgerNumber, Store, StoreError, heads::StoredTree, partition::Partition,
        records::LedgerRecord, recover::Loaded,
    },
};

/// A ledger that is in use.
pub struct Ledger {
    pub number: LedgerNumber,
    /// The shard that makes its turns.
    pub partition: Partition,
    pub id: LedgerId,
    pub origin: Origin,
    /// The record as it was when the ledger was loaded; [`Ledger::record_at`] has the log key of a
    /// later tree.
    record: LedgerRecord,
    pub trust: step::SharedTrust,
    pub log_signers: LogSigners,
    store: Arc<Store>,
    readable: watch::Sender<Arc<PublishedTree>>,
    consistency_proofs: Mutex<read::ConsistencyProofs>,
    pub past_trust: PastTrust,
    /// The epoch of its shard in which it was last read from the store, and how often that replaced its
    /// trust state (`restore`).
    epoch: AtomicU64,
    restorations: AtomicU64,
}

/// The published tree: what readers see, and its signed head. It is signed, and replaces the one before,
/// when its turn is on disk, under the head guard, and about to be answered; never before.
#[derive(Debug, Clone)]
pub struct PublishedTree {
    tree: Arc<Tree>,
    /// The signed head.
    pub checkpoint: Bytes,
}

/// The result of publishing a tree.
pub(crate) struct Publication {
    /// The published tree before. It has no signed head if there was none.
    pub(crate) before: Arc<PublishedTree>,
    pub(crate) now: Arc<PublishedTree>,
    /// Number of log keys that came into force with it.
    pub(crate) keys_rotated: usize,
}

/// A tree of a ledger, with what goes on from it. Nobody may be told of it before it is published.
#[derive(Debug, Clone)]
pub struct Tree {
    pub edge: RightEdge,
    pub head: TreeHead,
    pub effective_time: Micros,
    /// Time of the next deadline, at which the ledger records something even if it receives
    /// nothing.
    pub next_due: Option<Micros>,
    /// Number of deadlines that are set.
    pub due: u64,
    /// The last confirmation of the clock by an operator.
    pub clock: Option<Clock>,
}

/// Returns true if a ledger's time stands still now because an operator has confirmed a clock that
/// is behind it. A confirmed time that is ahead of the clock was wrong, and does not count.
pub(crate) fn stands_still(confirmed: Option<Clock>, time: Micros, now: Micros) -> bool {
    confirmed.is_some_and(|known| {
        known.at_us == time.get() && now.get() >= known.clock_us.saturating_sub(BEHIND_MAX_US)
    })
}

impl From<Loaded> for Tree {
    fn from(loaded: Loaded) -> Self {
        Self {
            head: loaded.edge.head(),
            edge: loaded.edge,
            effective_time: loaded.effective_time,
            next_due: loaded.next_due,
            due: loaded.due,
            clock: loaded.clock,
        }
    }
}

impl Deref for PublishedTree {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl PublishedTree {
    /// Returns a tree that is about to be published.
    fn unsigned(tree: Arc<Tree>) -> Self {
        Self {
            tree,
            checkpoint: Bytes::new(),
        }
    }

    /// Returns the tree without its signed head.
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }
}

impl From<&Tree> for StoredTree {
    fn from(tree: &Tree) -> Self {
        Self {
            head: tree.head,
            effective_time: tree.effective_time,
        }
    }
}

fn second(effective_time: Micros) -> i64 {
    effective_time.get().div_euclid(1_000_000)
}

impl Tree {
    /// Returns the second of effective time in which the last leaf was recorded.
    pub(crate) fn second(&self) -> i64 {
        second(self.effective_time)
    }

    /// Returns true if the ledger's time is ahead of a clock that an operator has confirmed. It
    /// stands still until the clock has reached it, unless the clock is set back once more.
    pub(crate) fn stands_still(&self, now: Micros) -> bool {
        stands_still(self.clock, self.effective_time, now)
    }

    /// Returns true if the clock is behind the ledger's time, and no operator has confirmed it.
    pub(crate) fn is_ahead_of(&self, now: Micros) -> bool {
        let ahead = self.effective_time.get().saturating_sub(now.get());
        ahead > BEHIND_MAX_US && !self.stands_still(now)
    }

    /// Returns the number of leaves.
    pub fn size(&self) -> TreeSize {
        self.head.size
    }
}

impl Ledger {
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Returns the published tree.
    pub fn readable(&self) -> Arc<PublishedTree> {
        self.readable.borrow().clone()
    }

    /// Follows the published tree. A watcher sees the newest one, and skips those in between.
    pub fn watch(&self) -> watch::Receiver<Arc<PublishedTree>> {
        self.readable.subscribe()
    }

    /// Signs a tree and publishes it. It must be on disk and guarded. A smaller tree than the published one
    /// is passed over.
    pub(crate) fn publish(&self, tree: Arc<Tree>) -> Publication {
        let signed = Arc::new(PublishedTree {
            checkpoint: self.sign(tree.head),
            tree,
        });
        let mut before = Arc::clone(&signed);
        let mut now = Arc::clone(&signed);
        self.readable.send_if_modified(|current| {
            before = Arc::clone(current);
            let is_newer = signed.size() >= current.size();
            if is_newer {
                *current = signed;
            } else {
                now = Arc::clone(current);
            }
            is_newer
        });
        let old = self.key_generation(before.size());
        let new = self.key_generation(now.size());
        if new > old {
            let (key, size) = (self.log_key(now.size()), now.size());
            tracing::info!(ledger = self.name(), generation = new, %key, %size, "log key rotated");
        }
        Publication {
            before,
            now,
            keys_rotated: new - old,
        }
    }

    /// Signs and publishes the tree that the store has. The signed head is added to the store if a crash
    /// came before a turn took it there.
    pub(crate) fn publish_stored(&self, tree: Arc<Tree>) {
        let published = self.publish(tree).now;
        if let Err(error) = self.store_head(&published) {
            // It is signed again at the next start, and stored with the ledger's next turn.
            tracing::warn!(ledger = self.name(), %error, "a signed head could not be written");
        }
    }

    fn store_head(&self, published: &PublishedTree) -> Result<(), StoreError> {
        let stored = self.store.latest_head(self.number)?;
        if let Some(stored) = &stored
            && stored.checkpoint == published.checkpoint
        {
            return Ok(());
        }
        let keep = stored.is_none_or(|stored| {
            second(Micros::new(stored.effective_time_us)) != published.second()
        });
        let mut batch = Batch::default();
        write::write_head(&self.store, &mut batch, self.number, published, keep);
        self.store.commit_derived(batch)
    }

    /// Signs a tree head. The signature is deterministic: the same head gives the same bytes.
    ///
    /// The caller must know that the head is consistent with every other head of this ledger: it is
    /// the shard's newest, or was proven to be a prefix of that. The trust state may be ahead of
    /// it: a rotation behind the head's last leaf changes nothing for its size.
    pub fn sign(&self, head: TreeHead) -> Bytes {
        self.log_signers.sign(self.trust.read().log_keys(), head)
    }

    /// Returns the number of log keys before the one that signs the tree of `size` leaves.
    pub(crate) fn key_generation(&self, size: TreeSize) -> usize {
        self.trust.read().log_keys().at(size).generation
    }

    /// Returns the key that signs the tree of `size` leaves; if two do, the new one.
    pub fn log_key(&self, size: TreeSize) -> VerifierKey {
        self.trust.read().log_keys().at(size).key.clone()
    }

    /// Returns the log key that an authority can put in force next.
    pub fn next_log_key(&self) -> VerifierKey {
        self.log_signers.next(self.trust.read().log_keys())
    }

    /// Returns the ledger's record for the tree of `size` leaves.
    pub fn record_at(&self, size: TreeSize) -> LedgerRecord {
        LedgerRecord {
            key_generation: u32::try_from(self.key_generation(size))
                .expect("a ledger has at most 256 log keys"),
            vkey: self.log_key(size).to_string(),
            ..self.record.clone()
        }
    }
}

impl From<&Ledger> for LedgerRef {
    fn from(ledger: &Ledger) -> Self {
        Self {
            number: ledger.number,
            id: ledger.id,
        }
    }
}
