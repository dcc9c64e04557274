//! The newest tree of each ledger, and the signed heads.
//!
//! A turn writes the trees that it made. They are signed when the turn is in the store and guarded, and
//! the signed heads are written with a later turn, so the newest signed head in the store may be of an
//! earlier tree than the newest. After a crash it is signed again, with the same bytes, when its ledger is
//! loaded. About one head a second is kept under its size, too.

use deed_evidence::Micros;
use deed_tlog::{Checkpoint, Hash, SignedNote, TreeHead, TreeSize};
use prost::Message as _;

use super::{
    Family, LedgerNumber, Store, StoreError, keys,
    read::Scan,
    records::{HeadRecord, TreeRecord},
};

/// A ledger's newest tree in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredTree {
    pub head: TreeHead,
    /// The effective time of the last leaf.
    pub effective_time: Micros,
}

impl From<&StoredTree> for TreeRecord {
    fn from(tree: &StoredTree) -> Self {
        Self {
            size: tree.head.size.get(),
            root: tree.head.root.as_bytes().to_vec().into(),
            effective_time_us: tree.effective_time.get(),
        }
    }
}

impl Store {
    /// Returns the newest tree of a ledger; `None` if the store does not know the ledger.
    pub fn newest_tree(&self, ledger: LedgerNumber) -> Result<Option<StoredTree>, StoreError> {
        let key = keys::tree_latest(ledger);
        let Some(record) = self.record::<TreeRecord>(Family::Heads, ledger, &key)? else {
            return self.signed_tree(ledger);
        };
        let root = Hash::try_from(&record.root[..]).map_err(|_| {
            StoreError::corrupt(
                Family::Heads,
                ledger,
                "the newest tree's root has not 32 bytes",
            )
        })?;
        Ok(Some(StoredTree {
            head: TreeHead::new(TreeSize::new(record.size), root),
            effective_time: Micros::new(record.effective_time_us),
        }))
    }

    /// Returns the tree of the newest signed head. In layouts before the records of trees that is the newest
    /// tree.
    fn signed_tree(&self, ledger: LedgerNumber) -> Result<Option<StoredTree>, StoreError> {
        let Some(record) = self.latest_head(ledger)? else {
            return Ok(None);
        };
        let head = self.unverified(ledger, &record)?;
        Ok(Some(StoredTree {
            head,
            effective_time: Micros::new(record.effective_time_us),
        }))
    }

    /// Returns what a signed head says. Its signature is not checked.
    fn unverified(
        &self,
        ledger: LedgerNumber,
        record: &HeadRecord,
    ) -> Result<TreeHead, StoreError> {
        let corrupt = |error: &dyn std::fmt::Display| {
            let what = format!("the newest signed head: {error}");
            StoreError::corrupt(Family::Heads, ledger, what)
        };
        let note = SignedNote::parse(&record.checkpoint).map_err(|error| corrupt(&error))?;
        let checkpoint = Checkpoint::parse(note.text()).map_err(|error| corrupt(&error))?;
        Ok(checkpoint.head)
    }

    /// Returns the newest tree of a ledger that the store knows, which may be a turn ahead of the published
    /// one. The turn that made it has written it, so everything that is read at the same moment belongs to
    /// it.
    pub fn stored_tree(&self, ledger: LedgerNumber) -> Result<StoredTree, StoreError> {
        self.newest_tree(ledger)?
            .ok_or_else(|| StoreError::corrupt(Family::Heads, ledger, "the newest tree is missing"))
    }

    /// Returns the newest signed head of a ledger, which may be of an earlier tree than the newest.
    pub(crate) fn latest_head(
        &self,
        ledger: LedgerNumber,
    ) -> Result<Option<HeadRecord>, StoreError> {
        self.record(Family::Heads, ledger, &keys::head_latest(ledger))
    }

    /// Returns the tree head of exactly this size, if it was kept.
    pub(crate) fn head_at(
        &self,
        ledger: LedgerNumber,
        size: u64,
    ) -> Result<Option<HeadRecord>, StoreError> {
        self.record(Family::Heads, ledger, &keys::head_at(ledger, size))
    }

    /// Returns all signed heads that the store has, the newest among the kept ones, in the order of their
    /// sizes.
    pub(crate) fn signed_heads(
        &self,
        ledger: LedgerNumber,
    ) -> Result<impl Iterator<Item = Result<(u64, HeadRecord), StoreError>>, StoreError> {
        let mut newest = match self.latest_head(ledger)? {
            Some(record) => Some((self.unverified(ledger, &record)?.size.get(), record)),
            None => None,
        };
        let mut kept = self.heads(ledger).peekable();
        Ok(std::iter::from_fn(move || match (&newest, kept.peek()) {
            (Some((newest_size, _)), Some(Ok((size, _)))) if size <= newest_size => kept.next(),
            (Some(_), _) => newest.take().map(Ok),
            (None, _) => kept.next(),
        }))
    }

    /// Returns all kept tree heads, in order of their size; the newest head is among them only if
    /// it was kept.
    pub fn heads(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<(u64, HeadRecord), StoreError>> {
        self.scan(
            Scan::Whole,
            Family::Heads,
            ledger,
            &keys::head_at(ledger, 0),
        )
        .map_while(move |item| match item {
            Ok((key, value)) => keys::head_size(&key).map(|size| {
                let record = HeadRecord::decode(value).map_err(|error| {
                    StoreError::corrupt(Family::Heads, ledger, format!("head: {error}"))
                })?;
                Ok((size, record))
            }),
            Err(error) => Some(Err(error)),
        })
    }

    /// Returns the first kept head of `size` or more leaves: its size, and the effective time of
    /// its last leaf.
    pub(crate) fn kept_head_from(
        &self,
        ledger: LedgerNumber,
        size: u64,
    ) -> Result<Option<(u64, Micros)>, StoreError> {
        let from = keys::head_at(ledger, size);
        let mut kept = self.scan(Scan::Lookup, Family::Heads, ledger, &from);
        let Some((key, value)) = kept.next().transpose()? else {
            return Ok(None);
        };
        let Some(size) = keys::head_size(&key) else {
            return Ok(None);
        };
        let head = HeadRecord::decode(value).map_err(|error| {
            StoreError::corrupt(Family::Heads, ledger, format!("head {size}: {error}"))
        })?;
        Ok(Some((size, Micros::new(head.effective_time_us))))
    }

    /// Returns the effective times of the ledgers of each shard's newest turn.
    pub fn newest_times(&self) -> Result<Vec<Micros>, StoreError> {
        let mut times = Vec::new();
        for (_, ledger) in self.newest()? {
            times.extend(self.effective_time(LedgerNumber(ledger.number))?);
        }
        Ok(times)
    }

    /// Returns the effective time at the newest tree of a ledger, without loading it.
    pub fn effective_time(&self, ledger: LedgerNumber) -> Result<Option<Micros>, StoreError> {
        let tree = self.newest_tree(ledger)?;
        Ok(tree.map(|tree| tree.effective_time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The record never changes: a change here is a migration.
    #[test]
    fn golden_tree() {
        let tree = StoredTree {
            head: TreeHead::new(TreeSize::new(300), Hash::try_from(&[0xee; 32][..]).unwrap()),
            effective_time: Micros::new(-1),
        };
        let record = TreeRecord::from(&tree);
        let golden = format!("08ac021220{}18ffffffffffffffffff01", "ee".repeat(32));
        assert_eq!(hex::encode(record.encode_to_vec()), golden);
    }
}
