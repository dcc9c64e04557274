//! The ledgers of a server, which are loaded when they are first asked for.

mod create;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use deed_evidence::{LedgerId, Micros, statement::BodyKind};
use deed_tlog::{Hash, Origin, TreeHead};
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::watch;

pub use create::NewLedger;

use super::{
    Ledger, PublishedTree, Tree,
    due::next_look,
    past_trust::PastTrust,
    policies::{self, Policies},
    step::SharedTrust,
};
use crate::{
    clock::Clock as _,
    clock::keeper::{ClockFault, Timekeeper},
    identity::{Identity, log_signers::LogSigners},
    ledger_name::LedgerName,
    store::{
        Family, LedgerNumber, Store, StoreError,
        records::LedgerRecord,
        recover::{self, LoadError},
    },
};

/// The reason for which a ledger cannot be created or loaded.
#[derive(Debug, Error)]
pub enum LedgerRegistryError {
    #[error("no ledger is named {name:?}; `deed ledger list` shows those there are")]
    NotFound { name: String },
    #[error("a ledger named {name:?} is there already")]
    AlreadyExists { name: String },
    #[error("use 1 to 63 of a-z, 0-9 and '-', not beginning or ending with '-'")]
    Name,
    #[error("authority keys: {0}")]
    AuthorityKeys(String),
    #[error("ledger {name:?} cannot be loaded: {cause}")]
    Load { name: String, cause: LoadError },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("too much waits to be written already")]
    Overloaded,
    #[error(transparent)]
    Clock(#[from] ClockFault),
    #[error("{0}")]
    Defect(String),
    #[error(
        "the server stopped before the ledger was known to be on disk; look whether it is there"
    )]
    Stopped,
    #[error("another writer's turn came first, and the ledger was not created; try again")]
    Superseded,
}

/// Bounds on the ledgers in memory, and on the bytes of their evidence policies. Beyond them,
/// unused ledgers are dropped, the least recently used first.
const LOADED_MAX: usize = 1024;
const POLICY_BYTES_MAX: usize = 256 << 20;

/// All ledgers of a server.
pub struct LedgerRegistry {
    store: Arc<Store>,
    identity: Arc<Identity>,
    clock: Arc<Timekeeper>,
    loaded: RwLock<HashMap<String, Loaded>>,
    /// Number of times that a ledger was brought into memory.
    loads: AtomicU64,
    /// Names of ledgers that are being loaded, each with a lock that is held meanwhile: each name
    /// has one ledger in memory, and loading one does not delay another.
    loading: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    policies: Arc<Policies>,
    /// Held while a ledger is created, until it is on disk: each name gets one number.
    creating: Mutex<()>,
    /// Name of the ledger that is being created. It is on disk before it is in memory; loading it
    /// in between would make a second one, with a trust state of its own.
    coming: Mutex<Option<String>>,
}

/// A ledger in memory.
struct Loaded {
    ledger: Arc<Ledger>,
    /// Value of [`LedgerRegistry::loads`] when the ledger was last asked for.
    used: AtomicU64,
}

impl Loaded {
    /// Returns true if only the registry holds the ledger and its trust state, so that it can be
    /// dropped and loaded again from the store. (Its shard, as long as it keeps its state, holds
    /// its trust state.) A ledger with a deadline before the next look at unloaded ledgers
    /// (`due_by`) is kept.
    fn is_unused(&self, due_by: Micros) -> bool {
        Arc::strong_count(&self.ledger) == 1
            && Arc::strong_count(&self.ledger.trust) == 1
            && self.ledger.readable.receiver_count() == 0
            && self
                .ledger
                .readable()
                .next_due
                .is_none_or(|due| due > due_by)
    }

    fn policy_bytes(&self) -> usize {
        policies::bytes_in_force(&self.ledger.trust)
    }
}

/// A name that is being loaded, as long as a caller holds or waits for its lock.
struct Loading<'a> {
    registry: &'a LedgerRegistry,
    name: &'a str,
    held: Arc<Mutex<()>>,
}

impl<'a> Loading<'a> {
    fn of(registry: &'a LedgerRegistry, name: &'a str) -> Self {
        let mut loading = registry.loading.lock();
        let held = Arc::clone(loading.entry(name.to_owned()).or_default());
        Self {
            registry,
            name,
            held,
        }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut loading = self.registry.loading.lock();
        // The table and this value hold the lock: copies are made only while the table is locked.
        if Arc::strong_count(&self.held) == 2 {
            loading.remove(self.name);
        }
    }
}

/// A page of ledgers, in the order of their names.
pub struct Page {
    /// Ledgers, each with its newest head if that can be read.
    pub ledgers: Vec<(LedgerRecord, Option<TreeHead>)>,
    /// True if there are more ledgers behind these.
    pub more: bool,
}

impl LedgerRegistry {
    pub fn new(store: Arc<Store>, identity: Identity, clock: Arc<Timekeeper>) -> Self {
        Self {
            store,
            identity: Arc::new(identity),
            clock,
            loaded: RwLock::default(),
            loads: AtomicU64::new(0),
            loading: Mutex::default(),
            policies: Arc::default(),
            creating: Mutex::default(),
            coming: Mutex::default(),
        }
    }

    /// Returns the compiler of evidence policies.
    pub fn policies(&self) -> &Arc<Policies> {
        &self.policies
    }

    /// Returns the number of ledgers in memory whose evidence policy this build cannot read.
    pub fn policies_unreadable(&self) -> u64 {
        let loaded = self.loaded.read();
        let unreadable = loaded.values().filter(|one| {
            let trust = one.ledger.trust.read();
            trust.can_judge(BodyKind::Intent).is_err()
        });
        unreadable.count() as u64
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Returns the ledger `name` if it is in memory. Never blocks for long.
    pub fn loaded(&self, name: &str) -> Option<Arc<Ledger>> {
        let loaded = self.loaded.read();
        let one = loaded.get(name)?;
        let loads = self.loads.load(Relaxed);
        if one.used.load(Relaxed) != loads {
            one.used.store(loads, Relaxed);
        }
        Some(Arc::clone(&one.ledger))
    }

    /// Keeps a ledger in memory, and drops others to make room.
    fn keep(&self, ledger: &Arc<Ledger>) {
        let loads = self.loads.fetch_add(1, Relaxed) + 1;
        let one = Loaded {
            ledger: Arc::clone(ledger),
            used: AtomicU64::new(loads),
        };
        self.loaded.write().insert(ledger.name().to_owned(), one);
        self.let_go(LOADED_MAX, POLICY_BYTES_MAX);
    }

    /// Drops unused ledgers while there are more than `ledgers_max` of them, or more bytes of
    /// policies than `policy_bytes_max`.
    pub(super) fn let_go(&self, ledgers_max: usize, policy_bytes_max: usize) {
        let due_by = next_look(self.clock.now());
        let mut loaded = self.loaded.write();
        let mut policy_bytes: usize = loaded.values().map(Loaded::policy_bytes).sum();
        let is_enough = |ledgers, bytes| ledgers <= ledgers_max && bytes <= policy_bytes_max;
        if is_enough(loaded.len(), policy_bytes) {
            return;
        }
        let unused = loaded.iter().filter(|(_, one)| one.is_unused(due_by));
        let mut unused: Vec<_> = unused
            .map(|(name, one)| (one.used.load(Relaxed), name.clone()))
            .collect();
        unused.sort_unstable();
        let mut gone = Vec::new();
        for (_, name) in unused {
            if is_enough(loaded.len(), policy_bytes) {
                break;
            }
            let bytes = loaded[&name].policy_bytes();
            if loaded.len() > ledgers_max || bytes > 0 {
                policy_bytes -= bytes;
                gone.extend(loaded.remove(&name));
            }
        }
        drop(loaded);
        tracing::debug!(ledgers = gone.len(), "ledgers that nobody uses were let go");
    }

    /// Returns names of ledgers that are not loaded and that have, or may have, a deadline up to
    /// `by`.
    pub fn due_unloaded(&self, by: Micros) -> Result<Vec<String>, StoreError> {
        self.names_of(|record| {
            // A record that cannot be read is reported when the ledger is loaded.
            self.loaded(&record.name).is_none()
                && self
                    .store
                    .next_due(LedgerNumber(record.number))
                    .map_or(true, |first| first.is_some_and(|first| first <= by))
        })
    }

    /// Returns names of the ledgers whose newest entry was received after `time`. Reads one record
    /// of each.
    pub fn ahead_of(&self, time: Micros) -> Result<Vec<String>, StoreError> {
        self.names_of(|record| {
            let newest = self.store.effective_time(LedgerNumber(record.number));
            // A ledger that cannot be read is reported when it is loaded, and does not hinder
            // the others.
            newest.ok().flatten().is_some_and(|newest| newest > time)
        })
    }

    /// Returns the names of the ledgers in the store of whose records `is_wanted` returns true.
    fn names_of(
        &self,
        is_wanted: impl Fn(&LedgerRecord) -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.store.ledgers_after(&after, 1000)?;
            let Some(last) = page.last() else {
                return Ok(names);
            };
            after.clone_from(&last.name);
            let wanted = page.into_iter().filter(&is_wanted);
            names.extend(wanted.map(|record| record.name));
        }
    }

    /// Returns every ledger in memory.
    pub fn all_loaded(&self) -> Vec<Arc<Ledger>> {
        let loaded = self.loaded.read();
        loaded.values().map(|one| Arc::clone(&one.ledger)).collect()
    }

    /// Returns the ledger `name`; loads it from the store if it is not in memory.
    pub fn ledger(&self, name: &str) -> Result<Arc<Ledger>, LedgerRegistryError> {
        if let Some(ledger) = self.loaded(name) {
            return Ok(ledger);
        }
        let not_found = || LedgerRegistryError::NotFound {
            name: name.chars().take(64).collect(),
        };
        let name = LedgerName::parse(name).ok_or_else(not_found)?.as_str();
        // This check comes before the lock, so that unknown names do not queue for it.
        if self.store.ledger(name)?.is_none() {
            return Err(not_found());
        }
        let loading = Loading::of(self, name);
        let _loading = loading.held.lock();
        if let Some(ledger) = self.loaded(name) {
            return Ok(ledger);
        }
        if self.coming.lock().as_deref() == Some(name) {
            return Err(not_found());
        }
        let record = self.store.ledger(name)?.ok_or_else(not_found)?;
        let ledger = Arc::new(self.load(record)?);
        tracing::info!(ledger = name, size = %ledger.readable().size(), "ledger loaded");
        self.keep(&ledger);
        Ok(ledger)
    }

    /// Runs `what` while a ledger of this name is being loaded.
    #[cfg(test)]
    pub(crate) fn while_loading(&self, name: &str, what: impl FnOnce()) {
        let loading = Loading::of(self, name);
        let _held = loading.held.lock();
        what();
    }

    /// Returns up to `limit` ledgers after the name `after`, and loads none of them. A head that
    /// cannot be read is `None`: one damaged ledger must not hide the others.
    pub fn page(&self, after: &str, limit: usize) -> Result<Page, LedgerRegistryError> {
        // One that is being created may be in the store, and is not guarded yet.
        let coming = self.coming.lock().clone();
        let mut records = self.store.ledgers_after(after, limit + 2)?;
        records.retain(|record| Some(&record.name) != coming.as_ref());
        let more = records.len() > limit;
        records.truncate(limit);
        let ledgers = records
            .into_iter()
            .map(|record| {
                let head = match self.loaded(&record.name) {
                    Some(ledger) => Some(ledger.readable().head),
                    None => {
                        let tree = self.store.newest_tree(LedgerNumber(record.number));
                        tree.ok().flatten().map(|tree| tree.head)
                    }
                };
                (record, head)
            })
            .collect();
        Ok(Page { ledgers, more })
    }

    fn load(&self, record: LedgerRecord) -> Result<Ledger, LedgerRegistryError> {
        let number = LedgerNumber(record.number);
        let corrupt = |what: &str| StoreError::corrupt(Family::Meta, number, what);
        let failed = |cause| LedgerRegistryError::Load {
            name: record.name.clone(),
            cause,
        };
        let loaded = recover::right_edge(&self.store, number)
            .map_err(failed)?
            .ok_or_else(|| {
                StoreError::corrupt(Family::Heads, number, "the newest tree is missing")
            })?;
        let trust = recover::trust(&self.store, number, &record.genesis_entry).map_err(failed)?;
        recover::check_signed_head(&self.store, number, &loaded.edge, trust.log_keys())
            .map_err(failed)?;
        // Both were written in one batch.
        let newest = trust.log_keys().all().len() - 1;
        if let Some(in_force) = trust.policy() {
            self.policies.load(&in_force.policy);
        }
        if let Err(unreadable) = trust.can_judge(BodyKind::Intent) {
            tracing::error!(
                ledger = record.name,
                %unreadable,
                "the ledger takes no Intents, Decisions and Approvals"
            );
        }
        let key = &trust.log_keys().newest().key;
        if record.key_generation as usize != newest || record.vkey != key.to_string() {
            let what = "its record names another log key than its trust statements do";
            return Err(corrupt(what).into());
        }
        let tree = Arc::new(Tree::from(loaded));
        let ledger = self.unpublished(record, Arc::clone(&tree), Arc::new(RwLock::new(trust)))?;
        // The guard covers everything in the store since the start, so the tree may be signed and read.
        ledger.publish_stored(tree);
        Ok(ledger)
    }

    /// Returns a ledger in memory whose tree has no signed head before it is published.
    fn unpublished(
        &self,
        record: LedgerRecord,
        tree: Arc<Tree>,
        trust: SharedTrust,
    ) -> Result<Ledger, LedgerRegistryError> {
        let number = LedgerNumber(record.number);
        let corrupt = |what: &str| StoreError::corrupt(Family::Meta, number, what);
        let id = Hash::try_from(&record.ledger_id[..])
            .map_err(|_| corrupt("the ledger id has not 32 bytes"))?;
        let origin: Origin = record
            .origin
            .parse()
            .map_err(|_| corrupt("the origin is malformed"))?;
        let identity = Arc::clone(&self.identity);
        let log_signers = LogSigners::open(identity, origin.clone(), trust.read().log_keys());
        let log_signers = log_signers.ok_or_else(|| {
            corrupt(
                "server.key does not give this ledger's log keys; restore the one that created it",
            )
        })?;
        Ok(Ledger {
            number,
            partition: self.store.partition_of(&record)?,
            id: LedgerId::new(id),
            origin,
            trust,
            log_signers,
            store: Arc::clone(&self.store),
            readable: watch::Sender::new(Arc::new(PublishedTree::unsigned(tree))),
            consistency_proofs: Mutex::default(),
            past_trust: PastTrust::default(),
            epoch: AtomicU64::new(0),
            restorations: AtomicU64::new(0),
            record,
        })
    }
}
