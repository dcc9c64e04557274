//! Partitions. Each has an order of turns, and the ledgers that belong to it. One shard makes its
//! turns.
//!
//! A ledger's record names its partition. It is chosen when the ledger is created, and only
//! [`Store::lay_out`] changes it: when the server starts with another number of shards than before,
//! and before any turn is made. A turn of a ledger belongs to the partition that the record names
//! at that time. On one machine nothing depends on which partition that was, because all of them
//! are written to one store, whose log is in one order.

use prost::Message as _;

use super::{Batch, Family, LedgerNumber, Store, StoreError, keys, records::LedgerRecord};

/// Most partitions: the head guard has a slot for each.
pub(crate) const PARTITIONS_MAX: usize = 64;

/// Number of ledgers that are moved in one write.
const MOVED_AT_ONCE: usize = 1000;

/// A partition's number, less than [`PARTITIONS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Partition(u8);

impl Partition {
    /// Returns the partition of a ledger among `partitions`: ledgers are given them in turn.
    fn given(ledger: LedgerNumber, partitions: usize) -> Self {
        let number = ledger.0 as usize % partitions.clamp(1, PARTITIONS_MAX);
        Self(number as u8)
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Store {
    /// Returns the partition that a ledger's record names.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if the record names none, or one that does not exist.
    pub(crate) fn partition_of(&self, record: &LedgerRecord) -> Result<Partition, StoreError> {
        let corrupt =
            |what: String| StoreError::corrupt(Family::Meta, LedgerNumber(record.number), what);
        let partitions = self.laid_out()?;
        let number = record
            .partition
            .ok_or_else(|| corrupt("its record names no partition".to_owned()))?;
        u8::try_from(number)
            .ok()
            .filter(|number| usize::from(*number) < partitions)
            .map(Partition)
            .ok_or_else(|| {
                let what = format!("its record names partition {number} of {partitions}");
                corrupt(what)
            })
    }

    /// Returns the partition of a new ledger.
    pub(crate) fn partition_for(&self, ledger: LedgerNumber) -> Result<Partition, StoreError> {
        Ok(Partition::given(ledger, self.laid_out()?))
    }

    fn laid_out(&self) -> Result<usize, StoreError> {
        self.partitions()?.ok_or_else(|| {
            let what = "the number of partitions is missing";
            StoreError::corrupt(Family::Meta, LedgerNumber(0), what)
        })
    }

    /// Returns the number of partitions that the ledgers are spread over; `None` before version 4
    /// of the layout, and while they are laid out anew.
    pub(crate) fn partitions(&self) -> Result<Option<usize>, StoreError> {
        let Some(value) = self.value(Family::Meta, keys::PARTITIONS)? else {
            return Ok(None);
        };
        value
            .as_ref()
            .try_into()
            .ok()
            .map(|bytes| u32::from_be_bytes(bytes) as usize)
            .filter(|partitions| (1..=PARTITIONS_MAX).contains(partitions))
            .map(Some)
            .ok_or_else(|| {
                let what = "`partitions` is no number from 1 to 64";
                StoreError::corrupt(Family::Meta, LedgerNumber(0), what)
            })
    }

    /// Spreads the ledgers over `partitions` anew, unless they are spread over that number already.
    /// Returns the number of ledgers that were moved. Must be called while nobody makes turns.
    pub(crate) fn lay_out(&self, partitions: usize) -> Result<usize, StoreError> {
        let partitions = partitions.clamp(1, PARTITIONS_MAX);
        if self.partitions()? == Some(partitions) {
            return Ok(0);
        }
        // After a crash below, records name partitions of two layouts. Without a number the next
        // start lays all of them out, whichever number it wants.
        let mut batch = Batch::default();
        batch.delete(self, Family::Meta, keys::PARTITIONS);
        self.commit(batch)?;
        let mut moved = 0;
        let mut after = String::new();
        loop {
            let page = self.ledgers_after(&after, MOVED_AT_ONCE)?;
            let Some(last) = page.last() else {
                break;
            };
            after.clone_from(&last.name);
            let mut batch = Batch::default();
            for record in page {
                let given = Partition::given(LedgerNumber(record.number), partitions);
                let partition = Some(u32::from(given.number()));
                if record.partition != partition {
                    let key = keys::ledger(&record.name);
                    let record = LedgerRecord {
                        partition,
                        ..record
                    };
                    self.put(&mut batch, Family::Meta, &key, &record.encode_to_vec());
                    moved += 1;
                }
            }
            if !batch.is_empty() {
                self.commit(batch)?;
            }
        }
        // This comes last: after a crash before it, all of this is done again.
        let mut batch = Batch::default();
        let number = (partitions as u32).to_be_bytes();
        self.put(&mut batch, Family::Meta, keys::PARTITIONS, &number);
        self.commit(batch)?;
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::StoreOptions;

    fn record(partition: Option<u32>) -> LedgerRecord {
        LedgerRecord {
            number: 300,
            name: "acme".to_owned(),
            origin: "example.org/logs/acme".to_owned(),
            key_generation: 1,
            ledger_id: Bytes::from_static(&[0xaa; 32]),
            vkey: "vkey".to_owned(),
            genesis_entry: Bytes::from_static(b"entry"),
            partition,
        }
    }

    /// The layout never changes: a change here is a migration.
    #[test]
    fn golden_records() {
        let before = format!(
            "08ac02120461636d651a156578616d706c652e6f72672f6c6f67732f61636d6520012a20{}3204766b6579\
             3a05656e747279",
            "aa".repeat(32)
        );
        assert_eq!(hex::encode(record(None).encode_to_vec()), before);
        for (partition, end) in [(0, "4000"), (5, "4005"), (63, "403f")] {
            let now = format!("{before}{end}");
            let record = record(Some(partition));
            assert_eq!(hex::encode(record.encode_to_vec()), now);
            let bytes = hex::decode(now).unwrap();
            assert_eq!(LedgerRecord::decode(&bytes[..]).unwrap(), record);
        }
    }

    #[test]
    fn a_record_names_one_of_the_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        store.lay_out(3).unwrap();
        let of = |partition| {
            let partition = store.partition_of(&record(partition));
            partition.map(Partition::number)
        };
        assert_eq!(of(Some(2)).unwrap(), 2);
        for (partition, words) in [
            (None, "no partition"),
            (Some(3), "partition 3 of 3"),
            (Some(300), "partition 300 of 3"),
        ] {
            let error = of(partition).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn ledgers_move_when_the_number_of_shards_changes_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.partitions().unwrap(), Some(1));
        let mut batch = Batch::default();
        for number in 0..2500 {
            let record = LedgerRecord {
                number,
                name: format!("ledger-{number}"),
                partition: Some(0),
                ..LedgerRecord::default()
            };
            let key = keys::ledger(&record.name);
            store.put(&mut batch, Family::Meta, &key, &record.encode_to_vec());
        }
        store.commit(batch).unwrap();
        let laid_out = |store: &Store| {
            let all = store.ledgers_after("", 3000).unwrap();
            assert_eq!(all.len(), 2500);
            let all = all.iter().map(|record| {
                let partition = store.partition_of(record).unwrap();
                (record.number, partition.index())
            });
            all.collect::<Vec<_>>()
        };
        // With the same number of partitions nothing changes, whatever a record names.
        let by_hand = LedgerRecord {
            number: 7,
            name: "ledger-7".to_owned(),
            partition: Some(3),
            ..LedgerRecord::default()
        };
        let mut batch = Batch::default();
        let key = keys::ledger(&by_hand.name);
        store.put(&mut batch, Family::Meta, &key, &by_hand.encode_to_vec());
        store.commit(batch).unwrap();
        assert_eq!(store.lay_out(1).unwrap(), 0);
        assert_eq!(store.ledger("ledger-7").unwrap(), Some(by_hand));

        assert_eq!(store.lay_out(4).unwrap(), 1874);
        for (number, partition) in laid_out(&store) {
            assert_eq!(partition, number as usize % 4);
        }
        assert_eq!(store.lay_out(4).unwrap(), 0);
        drop(store);
        let store = Store::open(dir.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.partitions().unwrap(), Some(4));
        assert_eq!(store.lay_out(1).unwrap(), 1875);
        assert!(
            laid_out(&store)
                .iter()
                .all(|(_, partition)| *partition == 0)
        );
    }
}
