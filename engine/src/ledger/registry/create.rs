//! New ledgers.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{
    LedgerId,
    genesis::{Genesis, GenesisError},
    trust::TrustState,
};
use deed_tlog::{Origin, PublicKey, leaf_hash};
use parking_lot::RwLock;
use prost::Message as _;

use super::{LedgerRegistry, LedgerRegistryError, Loading};
use crate::{
    ledger::{
        Ledger, Tree,
        step::{LedgerState, Records},
        write,
    },
    ledger_name::LedgerName,
    store::{Batch, Family, Store, keys, records::LedgerRecord},
};

/// A ledger that is about to be created; its shard will commit its records.
pub struct NewLedger {
    pub ledger: Arc<Ledger>,
    pub tree: Arc<Tree>,
    pub state: LedgerState,
    records: Records,
}

impl NewLedger {
    /// Adds all records of the new ledger to a batch.
    pub fn write(&self, store: &Store, batch: &mut Batch) {
        let (number, name) = (self.ledger.number, self.ledger.name());
        let next = (number.0 + 1).to_be_bytes();
        store.put(batch, Family::Meta, keys::NEXT_LEDGER, &next);
        let record = self.ledger.record_at(self.tree.size()).encode_to_vec();
        store.put(batch, Family::Meta, &keys::ledger(name), &record);
        write::write_records(store, batch, number, &self.records);
        write::write_tree(store, batch, number, &self.tree);
    }
}

impl LedgerRegistry {
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
        let id = LedgerId::new(leaf_hash(&entry));
        let trust = Arc::new(RwLock::new(TrustState::genesis(id, &genesis)));
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
        let tree = Arc::new(Tree {
            head: state.edge().head(),
            edge: state.edge().clone(),
            effective_time: created_at,
            next_due: None,
            due: 0,
            clock: None,
        });
        let ledger = Arc::new(self.unpublished(record, Arc::clone(&tree), trust)?);
        Ok(NewLedger {
            ledger,
            tree,
            state,
            records,
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
