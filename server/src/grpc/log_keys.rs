//! The entries that show a client that another log key took over.

use deed_engine::{
    append::hashes,
    ledger::{Ledger, PublishedTree},
};
use deed_proto::v1;
use deed_tlog::{LeafIndex, TreeSize};

use crate::status::ApiError;

/// Most entries of one message; an AuthoritiesChanged has up to some two kilobytes.
const ENTRIES: usize = 32;

/// One message: entries that are proven in one tree.
pub(super) struct Message {
    /// The smallest tree that holds the rotation of the last of these entries' messages.
    handover: TreeSize,
    leaves: Vec<LeafIndex>,
}

/// Returns all messages about the rotations in the tree of `size` leaves, in order.
pub(super) fn messages(ledger: &Ledger, size: TreeSize) -> Vec<Message> {
    let trust = ledger.trust.read();
    let mut leaves = trust.log_key_leaves().iter().copied().peekable();
    let mut messages = Vec::new();
    for key in trust.log_keys().all().iter().skip(1) {
        if key.first_size > size {
            // The trust state may be ahead of the published tree.
            break;
        }
        let handover = key.first_size;
        let mut these = Vec::new();
        while let Some(leaf) = leaves.next_if(|leaf| leaf.get() < handover.get()) {
            these.push(leaf);
        }
        messages.extend(these.chunks(ENTRIES).map(|leaves| Message {
            handover,
            leaves: leaves.to_vec(),
        }));
    }
    messages
}

impl Message {
    /// Reads the entries of this message and proves them.
    pub(super) fn answer(
        &self,
        ledger: &Ledger,
        readable: &PublishedTree,
    ) -> Result<v1::GetLogKeysResponse, ApiError> {
        let mut entries = Vec::with_capacity(self.leaves.len());
        for index in &self.leaves {
            let proof = ledger.inclusion(readable, *index, self.handover)?;
            entries.push(v1::TrustEntry {
                leaf_index: index.get(),
                entry: ledger.entry(readable, *index)?,
                inclusion_proof: hashes(proof.hashes()),
            });
        }
        Ok(v1::GetLogKeysResponse {
            checkpoint: ledger.checkpoint_at(readable, self.handover)?,
            entries,
        })
    }
}
