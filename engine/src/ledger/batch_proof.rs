//! The proof from a batched statement to the signature that covers it.

use bytes::Bytes;
use deed_evidence::entry::Entry;
use deed_proto::v1::{Author, PayloadType};
use deed_tlog::{
    BATCH_PAYLOADS_MAX, BatchPosition, BatchProof, BatchTree, InclusionProof, LeafIndex, TreeSize,
};

use super::{Ledger, PublishedTree, read::ReadError};
use crate::store::{Family, StoreError};

/// A batched statement, its manifest, and the proofs that tie them together.
#[derive(Debug)]
pub struct BatchedStatement {
    pub manifest_index: LeafIndex,
    pub position: BatchPosition,
    pub manifest_entry: Bytes,
    pub statement_entry: Bytes,
    pub batch_path: BatchProof,
    pub manifest_inclusion: InclusionProof,
    pub statement_inclusion: InclusionProof,
}

impl Ledger {
    /// Returns what ties the statement at `index` to its signature, in the tree of `size` leaves;
    /// `None` if no manifest covers it. Reads the whole batch: at most 4,097 entries.
    pub fn batched_statement(
        &self,
        readable: &PublishedTree,
        index: LeafIndex,
        size: TreeSize,
    ) -> Result<Option<BatchedStatement>, ReadError> {
        let statement_entry = self.entry(readable, index)?;
        if self.parse(index.get(), &statement_entry)?.author != Author::Batched {
            return Ok(None);
        }
        let missing = |leaf: u64, what: &str| {
            let what = format!("leaf {leaf}: {what}");
            ReadError::Store(StoreError::corrupt(Family::Entries, self.number, what))
        };
        let header = self
            .parse(index.get(), &statement_entry)?
            .statement()
            .map_err(|error| missing(index.get(), &error.to_string()))?;
        let run = self
            .store
            .run_before(self.number, &header.session, header.sequence)?
            .filter(|run| run.leaf_of(header.sequence) == Some(index.get()));
        let manifest_leaf = match run {
            // A batch begins a run, because its manifest lies before it and belongs to no session.
            Some(run) => run.first_leaf.checked_sub(1),
            // The statement was kept as evidence, and so is in no run.
            None => self.manifest_before(index)?,
        };
        let manifest_leaf =
            manifest_leaf.ok_or_else(|| missing(index.get(), "no manifest stands before it"))?;
        let manifest_entry = self.entry(readable, LeafIndex::new(manifest_leaf))?;
        if self.parse(manifest_leaf, &manifest_entry)?.payload_type != PayloadType::BatchManifest {
            return Err(missing(
                manifest_leaf,
                "is not the manifest of the batch behind it",
            ));
        }
        let said = deed_evidence::batch::Manifest::parse(
            self.parse(manifest_leaf, &manifest_entry)?.payload,
        )
        .map_err(|error| missing(manifest_leaf, &error.to_string()))?;
        let count = u64::from(said.count.get());
        let mut payloads = Vec::with_capacity(said.count.get() as usize);
        for item in self.entries(manifest_leaf + 1, manifest_leaf + 1 + count) {
            let (leaf, bytes) = item?;
            payloads.push(bytes.slice_ref(self.parse(leaf, &bytes)?.payload));
        }
        let tree = BatchTree::new(&payloads)
            .map_err(|error| missing(manifest_leaf, &error.to_string()))?;
        if tree.head() != said.head() {
            return Err(missing(manifest_leaf, "its batch is not the one behind it"));
        }
        let position = index.get() - manifest_leaf - 1;
        let position = u32::try_from(position)
            .map(BatchPosition::new)
            .map_err(|_| missing(index.get(), "its batch is longer than any"))?;
        let batch_path = tree
            .prove(position)
            .map_err(|error| missing(index.get(), &error.to_string()))?;
        let manifest_index = LeafIndex::new(manifest_leaf);
        Ok(Some(BatchedStatement {
            manifest_index,
            position,
            batch_path,
            manifest_inclusion: self.inclusion(readable, manifest_index, size)?,
            statement_inclusion: self.inclusion(readable, index, size)?,
            manifest_entry,
            statement_entry,
        }))
    }

    /// Returns the leaf of the last manifest before a batched statement.
    fn manifest_before(&self, index: LeafIndex) -> Result<Option<u64>, ReadError> {
        let begin = index.get().saturating_sub(BATCH_PAYLOADS_MAX as u64);
        let mut found = None;
        for item in self.entries(begin, index.get()) {
            let (leaf, bytes) = item?;
            if self.parse(leaf, &bytes)?.payload_type == PayloadType::BatchManifest {
                found = Some(leaf);
            }
        }
        Ok(found)
    }

    fn parse<'b>(&self, leaf: u64, bytes: &'b Bytes) -> Result<Entry<'b>, ReadError> {
        Entry::parse(bytes).map_err(|error| {
            let what = format!("leaf {leaf}: {error}");
            StoreError::corrupt(Family::Entries, self.number, what).into()
        })
    }
}
