//! Arguments that several commands take.

use bytes::Bytes;
use deed_client::{Leaf, Ledger, ProvenStatement};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Hash, LeafIndex};

use super::hex_bytes;
use crate::failure::{CommandResult, Failure};

/// An entry by its leaf index or by its leaf hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EntryName {
    Leaf(u64),
    Hash([u8; 32]),
}

/// 64 hex digits are a hash, anything else must be a number.
pub(crate) fn entry_name(text: &str) -> Result<EntryName, String> {
    if text.len() == 64 {
        return hex_bytes(text).map(EntryName::Hash);
    }
    let index = text.parse().map(EntryName::Leaf);
    index.map_err(|_| "must be a leaf index, or a leaf hash of 64 hex digits".to_owned())
}

impl EntryName {
    /// The statement, proven to be in the log.
    pub(crate) async fn statement(self, ledger: &Ledger) -> CommandResult<ProvenStatement> {
        let index = match self {
            Self::Leaf(index) => LeafIndex::new(index),
            Self::Hash(hash) => {
                let hash = Leaf::Hash(Hash::new(hash));
                ledger.prove_leaf(hash, None).await?.index
            }
        };
        Ok(ledger.statement(index).await?)
    }

    /// The grant that it names.
    pub(crate) async fn grant(self, ledger: &Ledger) -> CommandResult<ProvenStatement> {
        let found = self.statement(ledger).await?;
        match found.body() {
            Some(Body::Grant(_)) => Ok(found),
            _ => Err(Failure::usage(format!(
                "the entry at leaf {} is no grant; `deed entry {}` shows what it is",
                found.index, found.index
            ))),
        }
    }

    /// Returns the leaf hash of the grant, by which other grants name it.
    pub(crate) async fn grant_hash(self, ledger: &Ledger) -> CommandResult<Bytes> {
        match self {
            Self::Hash(hash) => Ok(Bytes::copy_from_slice(&hash)),
            Self::Leaf(_) => {
                let found = self.grant(ledger).await?;
                Ok(Bytes::copy_from_slice(found.hash.as_bytes()))
            }
        }
    }
}

/// The Intent at a leaf, proven to be in the log.
pub(crate) async fn intent_at(
    ledger: &Ledger,
    leaf: u64,
) -> CommandResult<(ProvenStatement, v1::Intent)> {
    let found = ledger.statement(LeafIndex::new(leaf)).await?;
    match found.body() {
        Some(Body::Intent(intent)) => {
            let intent = intent.clone();
            Ok((found, intent))
        }
        _ => Err(Failure::usage(format!(
            "the entry at leaf {leaf} is no Intent; `deed entry {leaf}` shows what it is"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_by_index_or_hash() {
        assert_eq!(entry_name("7"), Ok(EntryName::Leaf(7)));
        assert_eq!(entry_name(&"07".repeat(32)), Ok(EntryName::Hash([7; 32])));
        // A number of 64 digits is no leaf, and a shorter hash none either.
        for text in ["", "-1", "0x7", &"g".repeat(64), &"07".repeat(31)] {
            assert!(entry_name(text).is_err(), "{text}");
        }
    }
}
