//! What the assessment keeps: cells, and what is due.

use bytes::Bytes;
use deed_evidence::{
    Micros,
    assess::{Due, cells::CellKey},
};

use super::{Family, LedgerNumber, Store, StoreError, keys, read::Scan};

impl Store {
    /// A cell's bytes.
    pub(crate) fn cell(
        &self,
        ledger: LedgerNumber,
        cell: &CellKey,
    ) -> Result<Option<Bytes>, StoreError> {
        match cell {
            CellKey::Finding(leaf, number) => {
                self.value(Family::State, &keys::finding(ledger, *leaf, *number))
            }
            other => self.value(Family::State, &keys::cell(ledger, other)),
        }
    }

    /// Everything that is due in a ledger, the earliest first.
    pub(crate) fn dues(&self, ledger: LedgerNumber) -> Result<Vec<Due>, StoreError> {
        self.due_from(ledger).collect()
    }

    /// When something is due in a ledger next.
    pub(crate) fn next_due(&self, ledger: LedgerNumber) -> Result<Option<Micros>, StoreError> {
        let first = self.due_from(ledger).next().transpose()?;
        Ok(first.map(|due| due.at))
    }

    fn due_from(&self, ledger: LedgerNumber) -> impl Iterator<Item = Result<Due, StoreError>> {
        let prefix = keys::due_prefix(ledger);
        self.scan(Scan::Lookup, Family::State, ledger, &prefix)
            .map_while(move |item| match item {
                Ok((key, _)) if !key.starts_with(&prefix) => None,
                Ok((key, _)) => Some(Due::from_bytes(keys::behind_kind(&key)).ok_or_else(|| {
                    let what = format!("what is due under {} is damaged", hex::encode(&key));
                    StoreError::corrupt(Family::State, ledger, what)
                })),
                Err(error) => Some(Err(error)),
            })
    }

    /// All cells of a ledger but its findings: key bytes behind the kind, and value.
    pub(crate) fn cells(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), StoreError>> {
        let prefix = keys::cell_prefix(ledger);
        self.scan(Scan::Lookup, Family::State, ledger, &prefix)
            .map_while(move |item| match item {
                Ok((key, _)) if !key.starts_with(&prefix) => None,
                Ok((key, value)) => Some(Ok((keys::behind_kind(&key).to_vec(), value))),
                Err(error) => Some(Err(error)),
            })
    }
}
