//! Turns of a partition, numbered from 1, each bound to the one before it by a digest.
//!
//! The record of a partition's newest turn is written in that turn's own batch. So it tells which
//! turns the store has: all up to that number. The head guard also holds the number and digest of a
//! turn. The digest covers the results of a turn, and not the way in which they are stored:
//!
//! ```text
//! BLAKE3, key derivation mode, context "deed 2026-11 turn of a partition" of
//!   partition (u8) | number (u64) | digest of the turn before (32; zeros before the first)
//!   ledgers that changed (u32), and for each in the order of the turn:
//!     number (u32) | size (u64) | root (32) | effective time in microseconds (i64)
//! ```

use bytes::Bytes;
use deed_evidence::Micros;
use deed_tlog::TreeHead;

use super::{Family, LedgerNumber, Store, StoreError, keys};

const CONTEXT: &str = "deed 2026-11 turn of a partition";
const DIGEST_BYTES: usize = 32;

/// meta: the newest turn of a partition.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct TurnRecord {
    /// Number of the turn, counted from 1.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) digest: Bytes,
}

/// The state of one ledger after a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) ledger: LedgerNumber,
    pub(crate) head: TreeHead,
    pub(crate) effective_time: Micros,
}

impl TurnRecord {
    /// Returns the record that stands for no turn, before the first one of a partition.
    pub(crate) fn none() -> Self {
        Self {
            number: 0,
            digest: Bytes::from_static(&[0; DIGEST_BYTES]),
        }
    }

    /// Returns the record of the next turn of `partition`, which had these `outcomes`.
    pub(crate) fn next(
        &self,
        partition: u8,
        outcomes: impl ExactSizeIterator<Item = Outcome>,
    ) -> Self {
        let number = self.number + 1;
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&[partition]);
        hasher.update(&number.to_be_bytes());
        hasher.update(&self.digest);
        hasher.update(&(outcomes.len() as u32).to_be_bytes());
        for outcome in outcomes {
            hasher.update(&outcome.ledger.0.to_be_bytes());
            hasher.update(&outcome.head.size.get().to_be_bytes());
            hasher.update(outcome.head.root.as_bytes());
            hasher.update(&outcome.effective_time.get().to_be_bytes());
        }
        Self {
            number,
            digest: Bytes::copy_from_slice(hasher.finalize().as_bytes()),
        }
    }

    /// Returns true if a turn behind `after` continues the chain of which this is the newest turn. One
    /// that does not is void.
    pub(crate) fn is_continued_by(&self, after: &Self) -> bool {
        self == after
    }
}

impl Store {
    /// Returns the newest turn of a partition. Its number is 0 if the partition has made no turn
    /// since version 5 of the layout.
    pub(crate) fn newest_turn(&self, partition: u8) -> Result<TurnRecord, StoreError> {
        let ledger = LedgerNumber(0);
        let key = keys::turn(partition);
        let Some(turn) = self.record::<TurnRecord>(Family::Meta, ledger, &key)? else {
            return Ok(TurnRecord::none());
        };
        if turn.digest.len() != DIGEST_BYTES {
            let what = format!("the digest of turn {} has not 32 bytes", turn.number);
            return Err(StoreError::corrupt(Family::Meta, ledger, what));
        }
        Ok(turn)
    }
}

#[cfg(test)]
mod tests {
    use deed_tlog::{Hash, TreeSize};
    use prost::Message as _;

    use super::*;

    fn outcome(ledger: u32, size: u64) -> Outcome {
        Outcome {
            ledger: LedgerNumber(ledger),
            head: TreeHead {
                size: TreeSize::new(size),
                root: Hash::try_from(&[7; 32][..]).unwrap(),
            },
            effective_time: Micros::new(5),
        }
    }

    #[test]
    fn a_digest_binds_everything_that_a_turn_led_to() {
        let none = TurnRecord::none();
        let of = |before: &TurnRecord, partition, outcomes: Vec<Outcome>| {
            before.next(partition, outcomes.into_iter())
        };
        let first = of(&none, 3, vec![outcome(1, 9), outcome(2, 4)]);
        assert_eq!(first.number, 1);
        assert_eq!(first, of(&none, 3, vec![outcome(1, 9), outcome(2, 4)]));
        let mut other_time = outcome(2, 4);
        other_time.effective_time = Micros::new(6);
        let mut other_root = outcome(2, 4);
        other_root.head.root = Hash::try_from(&[8; 32][..]).unwrap();
        let later = TurnRecord {
            number: 1,
            ..none.clone()
        };
        let all = [
            first.clone(),
            of(&none, 4, vec![outcome(1, 9), outcome(2, 4)]),
            of(&none, 3, vec![outcome(2, 4), outcome(1, 9)]),
            of(&none, 3, vec![outcome(1, 9)]),
            of(&none, 3, vec![]),
            of(&none, 3, vec![outcome(1, 8), outcome(2, 4)]),
            of(&none, 3, vec![outcome(3, 9), outcome(2, 4)]),
            of(&none, 3, vec![outcome(1, 9), other_time]),
            of(&none, 3, vec![outcome(1, 9), other_root]),
            of(&later, 3, vec![outcome(1, 9), outcome(2, 4)]),
            of(&first, 3, vec![outcome(1, 9), outcome(2, 4)]),
        ];
        for (position, one) in all.iter().enumerate() {
            for other in &all[position + 1..] {
                assert_ne!(one.digest, other.digest);
            }
        }
    }

    /// The digest and the record never change: a change here is a migration.
    #[test]
    fn golden_turn() {
        let first = TurnRecord::none().next(3, [outcome(1, 9), outcome(2, 4)].into_iter());
        assert_eq!(hex::encode(first.encode_to_vec()), GOLDEN);
        let again = TurnRecord::decode(&hex::decode(GOLDEN).unwrap()[..]).unwrap();
        assert_eq!(again, first);
    }

    const GOLDEN: &str = "08011220f48b31baa77ad35876fd654bf0236aa659fbbb0917963845fb17530a7cb8baf9";
}
