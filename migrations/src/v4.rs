//! Version 4: a ledger's partition is in its record.
//!
//! Before, the shard that made a ledger's turns was the ledger's number modulo the setting
//! `shards`, which the store does not know. It knows which shards have made turns (`newest/` and a
//! byte). Ledgers are numbered from 0, and a ledger's creation is a turn. So if the setting never
//! changed, every shard up to the highest of these was used, and the number modulo their count is
//! what the server computed. If the setting did change, that is a valid partition, too, and the
//! server that opens the store next lays the ledgers out by its setting.
//!
//! The layout that the step starts from, in the family `meta`: under `ledger/` and a name lies a
//! protobuf message with the fields 1 to 7. Field 1, which is first if it is there, is the ledger's
//! number as a varint (absent for 0). The step adds field 8, the partition, to the end of each
//! message, and the number of partitions under `partitions` (u32, big-endian).

use rocksdb::{DB, Direction, Error, IteratorMode, WriteBatch};

use crate::VERSION_FAMILY;

const LEDGER: &[u8] = b"ledger/";
const NEWEST: &[u8] = b"newest/";
const PARTITIONS: &[u8] = b"partitions";

/// Tag of field 1, and of field 8, both varints.
const NUMBER_TAG: u8 = 1 << 3;
const PARTITION_TAG: u8 = 8 << 3;

pub(crate) fn run(db: &DB, batch: &mut WriteBatch) -> Result<(), Error> {
    let Some(meta) = db.cf_handle(VERSION_FAMILY) else {
        return Ok(());
    };
    let mut partitions = 1;
    for (key, _) in under(db, NEWEST)? {
        if let [slot] = key[NEWEST.len()..] {
            partitions = partitions.max(u32::from(slot) + 1);
        }
    }
    for (key, value) in under(db, LEDGER)? {
        // A damaged record stays as it is; whoever reads it reports that.
        if let Some(number) = number(&value) {
            let mut record = value.into_vec();
            record.push(PARTITION_TAG);
            push_varint(&mut record, number % partitions);
            batch.put_cf(meta, &key, record);
        }
    }
    batch.put_cf(meta, PARTITIONS, partitions.to_be_bytes());
    Ok(())
}

/// A key and its value, as RocksDB hands them out.
type KeyAndValue = (Box<[u8]>, Box<[u8]>);

/// Returns keys and values of the family `meta` under keys that begin with `prefix`.
fn under(db: &DB, prefix: &[u8]) -> Result<Vec<KeyAndValue>, Error> {
    let Some(meta) = db.cf_handle(VERSION_FAMILY) else {
        return Ok(Vec::new());
    };
    let mode = IteratorMode::From(prefix, Direction::Forward);
    db.iterator_cf(meta, mode)
        .take_while(|item| {
            item.as_ref()
                .map_or(true, |(key, _)| key.starts_with(prefix))
        })
        .collect()
}

/// Returns the ledger's number in its record; `None` if that is not a u32.
fn number(record: &[u8]) -> Option<u32> {
    let Some((&NUMBER_TAG, varint)) = record.split_first() else {
        return Some(0);
    };
    let mut number = 0_u64;
    for (position, byte) in varint.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return u32::try_from(number).ok();
        }
    }
    None
}

fn push_varint(record: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        record.push(value as u8 | 0x80);
        value >>= 7;
    }
    record.push(value as u8);
}
