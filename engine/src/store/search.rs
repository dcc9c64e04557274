//! Reads of searches: findings and the index of terms.

use bytes::Bytes;
use deed_proto::v1;
use prost::Message as _;

use super::{Batch, Family, LedgerNumber, Store, StoreError, keys, read::Scan};

/// The name of a finding: its leaf, and its number at that leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FindingAt {
    pub leaf: u64,
    pub number: u32,
}

impl FindingAt {
    /// Returns the name of the first finding of a leaf.
    pub const fn leaf(leaf: u64) -> Self {
        Self { leaf, number: 0 }
    }
}

impl Store {
    /// Returns a ledger's findings from one on, in order. They may be a turn ahead of the published
    /// tree.
    pub fn findings(
        &self,
        ledger: LedgerNumber,
        from: FindingAt,
    ) -> impl Iterator<Item = Result<(FindingAt, v1::Finding), StoreError>> + use<'_> {
        let from = keys::finding(ledger, from.leaf, from.number);
        self.scan(Scan::Lookup, Family::State, ledger, &from)
            .map_while(move |item| match item {
                Ok((key, value)) => keys::finding_at(&key).map(|(leaf, number)| {
                    let finding = v1::Finding::decode(value).map_err(|error| {
                        let what = format!("finding {number} of leaf {leaf}: {error}");
                        StoreError::corrupt(Family::State, ledger, what)
                    })?;
                    Ok((FindingAt { leaf, number }, finding))
                }),
                Err(error) => Some(Err(error)),
            })
    }

    /// Returns one bucket of a segment's terms.
    pub(crate) fn term_bucket(
        &self,
        ledger: LedgerNumber,
        segment: u64,
        bucket: u8,
    ) -> Result<Option<Bytes>, StoreError> {
        self.value(Family::Index, &keys::term_bucket(ledger, segment, bucket))
    }

    /// Returns the effective times in a segment.
    pub(crate) fn segment_times(
        &self,
        ledger: LedgerNumber,
        segment: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        self.value(Family::Index, &keys::times(ledger, segment))
    }

    /// Returns the number of segments of a ledger's terms; they are written in order, each as a
    /// whole.
    pub(crate) fn term_segments(&self, ledger: LedgerNumber) -> Result<u64, StoreError> {
        let beyond = keys::times(ledger, u64::MAX);
        let last = self.last_before(Family::Index, &beyond)?;
        let last = last
            .filter(|(key, _)| key.starts_with(&keys::ledger_prefix(ledger)))
            .and_then(|(key, _)| keys::times_segment(&key));
        Ok(last.map_or(0, |segment| segment + 1))
    }

    /// Deletes all derived records of a ledger.
    pub(crate) fn drop_index(&self, ledger: LedgerNumber) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let (from, beyond) = keys::whole_ledger(ledger);
        batch.delete_range(self, Family::Index, &from, &beyond);
        self.commit_derived(batch)
    }
}
