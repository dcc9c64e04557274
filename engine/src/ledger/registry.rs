//! The ledgers of a server. They are created here, and loaded when they are first asked for.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, genesis::Genesis, genesis::GenesisError, statement::BodyKind, trust,
};
use deed_tlog::{Checkpoint, Hash, Origin, PublicKey, TreeHead};
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use thiserror::Error;
use tokio::sync::watch;

use super::{
    Ledger, PublishedTree,
    due::next_look,
    past_trust::PastTrust,
    policies::{self, Policies},
    step::{LedgerState, Records, SharedTrust},
    write,
};
use crate::{
    clock::Clock as _,
    clock::keeper::{ClockFault, Timekeeper},
    identity::{Identity, log_signers::LogSigners},
    ledger_name::LedgerName,
    store::{
        Batch, Family, LedgerNumber, Store, StoreError, keys,
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

/// A ledger that is about to be created; its shard will commit its records.
pub struct NewLedger {
    pub ledger: Arc<Ledger>,
    pub readable: Arc<PublishedTree>,
    pub state: LedgerState,
    records: Records,
}

impl NewLedger {
    /// Adds all records of the new ledger to a batch.
    pub fn write(&self, store: &Store, batch: &mut Batch) {
        let (number, name) = (self.ledger.number, self.ledger.name());
        let next = (number.0 + 1).to_be_bytes();
        store.put(batch, Family::Meta, keys::NEXT_LEDGER, &next);
        let record = self.ledger.record_at(self.readable.size()).encode_to_vec();
        store.put(batch, Family::Meta, &keys::ledger(name), &record);
        write::write_records(store, batch, number, &self.records);
        write::write_head(store, batch, number, &self.readable, true);
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
        let mut due = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.store.ledgers_after(&after, 1000)?;
            let Some(last) = page.last() else {
                return Ok(due);
            };
            after.clone_from(&last.name);
            for record in page {
                if self.loaded(&record.name).is_some() {
                    continue;
                }
                let first = self.store.next_due(LedgerNumber(record.number));
                // A record that cannot be read is reported when the ledger is loaded.
                let may_be = first.map_or(true, |first| first.is_some_and(|first| first <= by));
                if may_be {
                    due.push(record.name);
                }
            }
        }
    }

    /// Returns names of the ledgers whose newest entry was received after `time`. Reads one record
    /// of each.
    pub fn ahead_of(&self, time: Micros) -> Result<Vec<String>, StoreError> {
        let mut ahead = Vec::new();
        let mut after = String::new();
        loop {
            let page = self.store.ledgers_after(&after, 1000)?;
            let Some(last) = page.last() else {
                return Ok(ahead);
            };
            after.clone_from(&last.name);
            for record in page {
                let newest = self.store.effective_time(LedgerNumber(record.number));
                // A ledger that cannot be read is reported when it is loaded, and does not hinder
                // the others.
                if newest.ok().flatten().is_some_and(|newest| newest > time) {
                    ahead.push(record.name);
                }
            }
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
        let failed = |cause| LedgerRegistryError::Load {
            name: name.to_owned(),
            cause,
        };
        let loaded = recover::right_edge(&self.store, LedgerNumber(record.number), &record.vkey)
            .map_err(failed)?
            .ok_or_else(|| {
                let number = LedgerNumber(record.number);
                StoreError::corrupt(Family::Heads, number, "the newest head is missing")
            })?;
        let readable = Arc::new(loaded.into());
        let ledger = Arc::new(self.open(record, readable)?);
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
        let mut records = self.store.ledgers_after(after, limit + 1)?;
        let more = records.len() > limit;
        records.truncate(limit);
        let ledgers = records
            .into_iter()
            .map(|record| {
                let head = match self.loaded(&record.name) {
                    Some(ledger) => Some(ledger.readable().head),
                    None => self.stored_head(&record),
                };
                (record, head)
            })
            .collect();
        Ok(Page { ledgers, more })
    }

    fn stored_head(&self, record: &LedgerRecord) -> Option<TreeHead> {
        let vkey = record.vkey.parse().ok()?;
        let head = self.store.latest_head(LedgerNumber(record.number)).ok()??;
        let (checkpoint, _) = Checkpoint::open(&head.checkpoint, &vkey).ok()?;
        Some(checkpoint.head)
    }

    /// Prepares a new ledger and hands it to `commit`, which must return only when it is on disk.
    /// No other ledger is created meanwhile.
    pub fn create(
        &self,
        name: &str,
        authority_keys: &[Bytes],
        commit: impl FnOnce(NewLedger) -> Result<(), LedgerRegistryError>,
    ) -> Result<Arc<Ledger>, LedgerRegistryError> {
        self.create_under(deed_evidence::RULES_VERSION, name, authority_keys, commit)
    }

    /// Creates a ledger under an older version of the rules.
    pub fn create_under(
        &self,
        rules_version: u32,
        name: &str,
        authority_keys: &[Bytes],
        commit: impl FnOnce(NewLedger) -> Result<(), LedgerRegistryError>,
    ) -> Result<Arc<Ledger>, LedgerRegistryError> {
        let name = LedgerName::parse(name)
            .ok_or(LedgerRegistryError::Name)?
            .as_str();
        let authority_keys = checked_authority_keys(authority_keys)?;
        let _creating = self.creating.lock();
        if self.store.ledger(name)?.is_some() {
            return Err(LedgerRegistryError::AlreadyExists {
                name: name.to_owned(),
            });
        }
        let new = self.prepare(rules_version, name, authority_keys)?;
        let ledger = Arc::clone(&new.ledger);
        {
            // The lock is the one that loading takes, so that no loading is under way.
            let loading = Loading::of(self, name);
            let _loading = loading.held.lock();
            *self.coming.lock() = Some(name.to_owned());
        }
        let committed = commit(new);
        if committed.is_ok() {
            // The ledger that its shard steps is kept before another can be loaded.
            self.keep(&ledger);
        }
        // If the commit failed, the ledger may be on disk or not; either the shard has stopped, or
        // nothing was written.
        *self.coming.lock() = None;
        committed?;
        tracing::info!(ledger = name, origin = %ledger.origin, "ledger created");
        Ok(ledger)
    }

    fn prepare(
        &self,
        rules_version: u32,
        name: &str,
        authority_keys: Vec<[u8; 32]>,
    ) -> Result<NewLedger, LedgerRegistryError> {
        let number = self.store.next_ledger()?;
        let partition = self.store.partition_for(number)?;
        let origin: Origin = format!("{}/logs/{name}", self.identity.name())
            .parse()
            .expect("server and ledger names have only characters that an origin may have");
        let signer = self.identity.log_signer(&origin, 0);
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(LedgerRegistryError::Random)?;
        let created_at = self
            .clock
            .read()
            .inspect_err(|fault| self.clock.refused(fault.is_behind()))?;
        let genesis = Genesis {
            origin: origin.clone(),
            log_key: signer.verifier_key().clone(),
            authority_keys,
            created_at,
            nonce,
            rules_version,
        };
        let entry = genesis.to_entry().map_err(|error| match error {
            GenesisError::Statement(error) => LedgerRegistryError::AuthorityKeys(error.to_string()),
            other => LedgerRegistryError::Defect(other.to_string()),
        })?;
        let id = LedgerId::new(deed_tlog::leaf_hash(&entry));
        let trust = Arc::new(RwLock::new(trust::TrustState::genesis(id, &genesis)));
        let (state, records) = LedgerState::create(&entry, created_at, Arc::clone(&trust))
            .map_err(|error| LedgerRegistryError::Defect(error.to_string()))?;
        let record = LedgerRecord {
            number: number.0,
            name: name.to_owned(),
            origin: origin.to_string(),
            key_generation: 0,
            ledger_id: Bytes::copy_from_slice(id.hash().as_bytes()),
            vkey: signer.verifier_key().to_string(),
            genesis_entry: entry,
            partition: Some(u32::from(partition.number())),
        };
        let head = state.edge().head();
        let mut readable = PublishedTree {
            edge: state.edge().clone(),
            head,
            checkpoint: Bytes::new(),
            effective_time: created_at,
            next_due: None,
            due: 0,
            clock: None,
        };
        let unsigned = Arc::new(readable.clone());
        let ledger = Arc::new(self.open_with(record, unsigned, trust)?);
        readable.checkpoint = ledger.sign(head);
        let readable = Arc::new(readable);

        Ok(NewLedger {
            ledger,
            readable,
            state,
            records,
        })
    }

    fn open(
        &self,
        record: LedgerRecord,
        readable: Arc<PublishedTree>,
    ) -> Result<Ledger, LedgerRegistryError> {
        let number = LedgerNumber(record.number);
        let corrupt = |what: &str| StoreError::corrupt(Family::Meta, number, what);
        let trust =
            recover::trust(&self.store, number, &record.genesis_entry).map_err(|cause| {
                LedgerRegistryError::Load {
                    name: record.name.clone(),
                    cause,
                }
            })?;
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
        self.open_with(record, readable, Arc::new(RwLock::new(trust)))
    }

    fn open_with(
        &self,
        record: LedgerRecord,
        readable: Arc<PublishedTree>,
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
            readable: watch::Sender::new(readable),
            consistency_proofs: Mutex::default(),
            past_trust: PastTrust::default(),
            epoch: AtomicU64::new(0),
            restorations: AtomicU64::new(0),
            record,
        })
    }
}

fn checked_authority_keys(keys: &[Bytes]) -> Result<Vec<[u8; 32]>, LedgerRegistryError> {
    let fail = |what: String| Err(LedgerRegistryError::AuthorityKeys(what));
    if keys.is_empty() || keys.len() > 16 {
        return fail(format!("{} given where 1 to 16 are wanted", keys.len()));
    }
    let mut checked = Vec::with_capacity(keys.len());
    for (position, key) in keys.iter().enumerate() {
        let Ok(key) = <[u8; 32]>::try_from(&key[..]) else {
            return fail(format!("key {position} has {} bytes, not 32", key.len()));
        };
        if PublicKey::from_bytes(&key).is_err() {
            return fail(format!(
                "key {position} is not an Ed25519 public key, or a weak one"
            ));
        }
        checked.push(key);
    }
    checked.sort_unstable();
    if checked.windows(2).any(|pair| pair[0] == pair[1]) {
        return fail("the same key stands twice".to_owned());
    }
    Ok(checked)
}
