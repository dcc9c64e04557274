//! The writes of a turn to the store: its records, the tree that covers them, a new log key; and the signed
//! heads of turns before.

use deed_tlog::TreeSize;
use prost::Message as _;

use super::{Ledger, PublishedTree, Tree, step::Records};
use crate::store::{
    Batch, Family, LedgerNumber, Store,
    content::{self, Reference},
    heads::StoredTree,
    keys,
    records::{HeadRecord, RunRecord, SessionRecord, TreeRecord, TrustRecord},
};

/// Adds a turn's records to the batch that will be committed.
pub(crate) fn write_records(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    records: &Records,
) {
    for pack in &records.packs {
        let key = keys::entries(ledger, pack.first);
        store.put(batch, Family::Entries, &key, &pack.value);
    }
    for tile in &records.tiles {
        let key = keys::tile(ledger, tile.level, tile.index);
        store.put(batch, Family::Tiles, &key, &tile.to_bytes());
    }
    for (id, session, runs) in &records.sessions {
        let last = runs.last().expect("a changed session has a run");
        let record = SessionRecord::new(session, last.first).encode_to_vec();
        store.put(batch, Family::State, &keys::session(ledger, id), &record);
        for run in runs {
            let record = RunRecord {
                first_leaf: run.first_leaf,
                count: run.count,
            };
            let key = keys::run(ledger, id, run.first);
            store.put(batch, Family::State, &key, &record.encode_to_vec());
        }
    }
    content::write_references(
        store,
        batch,
        ledger,
        records.references.iter().map(|(digest, reference)| {
            let reference = Reference {
                leaf: reference.leaf.get(),
                task: reference.task,
                received_at: reference.recorded_at,
            };
            (digest, reference)
        }),
    );
    for (digest, leaf) in &records.erased {
        content::write_tombstone(store, batch, ledger, digest, *leaf);
    }
    for (key, value) in &records.assessment.cells {
        store.put(batch, Family::State, &keys::cell(ledger, key), value);
    }
    for (due, owner) in &records.assessment.timers {
        let key = keys::due(ledger, due);
        match owner {
            Some(owner) => store.put(batch, Family::State, &key, owner.as_bytes()),
            None => batch.delete(store, Family::State, &key),
        }
    }
    for (leaf, effective_time) in &records.trust_leaves {
        let record = TrustRecord {
            effective_time_us: effective_time.get(),
        };
        let key = keys::trust(ledger, *leaf);
        store.put(batch, Family::State, &key, &record.encode_to_vec());
    }
}

/// Adds the newest tree of a ledger to the batch of the turn that made it.
pub(crate) fn write_tree(store: &Store, batch: &mut Batch, ledger: LedgerNumber, tree: &Tree) {
    let record = TreeRecord::from(&StoredTree::from(tree)).encode_to_vec();
    store.put(batch, Family::Heads, &keys::tree_latest(ledger), &record);
}

/// Adds a signed head to a batch, as the newest, and if it is to be kept, under its size too.
pub(crate) fn write_head(
    store: &Store,
    batch: &mut Batch,
    ledger: LedgerNumber,
    published: &PublishedTree,
    keep: bool,
) {
    let record = HeadRecord {
        checkpoint: published.checkpoint.clone(),
        effective_time_us: published.effective_time.get(),
    }
    .encode_to_vec();
    if keep {
        let key = keys::head_at(ledger, published.size().get());
        store.put(batch, Family::Heads, &key, &record);
    }
    store.put(batch, Family::Heads, &keys::head_latest(ledger), &record);
}

/// Adds the ledger's record to the batch, if the log key has changed since the tree of `before`
/// leaves.
pub(crate) fn write_log_key(
    store: &Store,
    batch: &mut Batch,
    ledger: &Ledger,
    before: TreeSize,
    now: TreeSize,
) {
    if ledger.key_generation(before) != ledger.key_generation(now) {
        let record = ledger.record_at(now).encode_to_vec();
        store.put(batch, Family::Meta, &keys::ledger(ledger.name()), &record);
    }
}
