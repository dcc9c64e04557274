//! Packs: consecutive entries in one RocksDB value.
//!
//! ```text
//! count (u32) | end offset of each entry (u32 each) | the entries, one after the other
//! ```
//!
//! Integers are big-endian; offsets count from the first entry's first byte. A pack holds entries
//! of one commit, ends at every multiple of 256 leaves (so that a tile's entries never share a pack
//! with the next tile's), and is closed once it has reached 64 KiB: reading one entry then costs
//! little more than its own bytes. One key for each entry would cost two thirds of the throughput.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of entries after which a pack takes no more of them.
const PACK_BYTES: usize = 64 * 1024;

/// Leaves of a full tile; packs end at its multiples.
const TILE_WIDTH: u64 = 256;

/// Collects consecutive entries into packs.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    first: u64,
    ends: Vec<u32>,
    bytes: Vec<u8>,
    done: Vec<Pack>,
}

/// A finished pack, which is written under the key of its first leaf.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pack {
    /// Index of the pack's first leaf.
    pub first: u64,
    /// The value, as it is stored.
    pub value: Vec<u8>,
}

impl Packer {
    /// Begins the first pack with leaf `first`.
    pub(crate) fn new(first: u64) -> Self {
        Self {
            first,
            ..Self::default()
        }
    }

    /// Takes the next entry. Entries have at most 65,535 bytes, so offsets fit easily.
    pub(crate) fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends
            .push(u32::try_from(self.bytes.len()).expect("a pack is closed at 64 KiB"));
        let next = self.first + self.ends.len() as u64;
        if next.is_multiple_of(TILE_WIDTH) || self.bytes.len() >= PACK_BYTES {
            self.close();
        }
    }

    /// Returns the entry of leaf `index` if it is among those that were pushed.
    pub(crate) fn entry(&self, index: u64) -> Option<Bytes> {
        if let Some(position) = index.checked_sub(self.first)
            && let Ok(position) = usize::try_from(position)
            && position < self.ends.len()
        {
            let begin = position
                .checked_sub(1)
                .map_or(0, |before| self.ends[before]);
            return Some(Bytes::copy_from_slice(
                &self.bytes[begin as usize..self.ends[position] as usize],
            ));
        }
        let at = self.done.partition_point(|pack| pack.first <= index);
        let pack = self.done.get(at.checked_sub(1)?)?;
        let range = entry_range(&pack.value, usize::try_from(index - pack.first).ok()?)?;
        Some(Bytes::copy_from_slice(&pack.value[range]))
    }

    /// Returns the packs, in order.
    pub(crate) fn finish(mut self) -> Vec<Pack> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let count = self.ends.len();
        let mut value = Vec::with_capacity(4 + 4 * count + self.bytes.len());
        value.extend_from_slice(&u32::try_from(count).expect("at most 256").to_be_bytes());
        for end in self.ends.drain(..) {
            value.extend_from_slice(&end.to_be_bytes());
        }
        value.append(&mut self.bytes);
        self.done.push(Pack {
            first: self.first,
            value,
        });
        self.first += count as u64;
    }
}

/// A pack as it was read from the store.
#[derive(Debug, Clone)]
pub(crate) struct Unpacked {
    value: Bytes,
    count: usize,
}

impl Unpacked {
    /// Checks the offset table; returns `None` if the value is not a pack.
    pub(crate) fn parse(value: Bytes) -> Option<Self> {
        let count = u32::from_be_bytes(*value.first_chunk::<4>()?) as usize;
        let pack = Self { value, count };
        let data_len = pack.value.len().checked_sub(4 + 4 * count)?;
        let mut last = 0;
        for position in 0..count {
            let end = end_at(&pack.value, position)?;
            if end < last {
                return None;
            }
            last = end;
        }
        (count > 0 && last == data_len).then_some(pack)
    }

    /// Returns the number of entries; at least one.
    pub(crate) fn len(&self) -> u64 {
        self.count as u64
    }

    /// Returns the entry at `position` in this pack, without copying.
    pub(crate) fn entry(&self, position: u64) -> Option<Bytes> {
        let range = entry_range(&self.value, usize::try_from(position).ok()?)?;
        Some(self.value.slice(range))
    }
}

/// Returns the range of an entry in the value of a pack.
fn entry_range(value: &[u8], position: usize) -> Option<Range<usize>> {
    let count = u32::from_be_bytes(*value.first_chunk::<4>()?) as usize;
    if position >= count {
        return None;
    }
    let data = 4 + 4 * count;
    let begin = match position.checked_sub(1) {
        Some(before) => end_at(value, before)?,
        None => 0,
    };
    let end = end_at(value, position)?;
    (data + end <= value.len()).then_some(data + begin..data + end)
}

fn end_at(value: &[u8], position: usize) -> Option<usize> {
    let at = 4 + 4 * position;
    let bytes = value.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_pack() {
        let mut packer = Packer::new(7);
        packer.push(b"ab");
        packer.push(b"cde");
        let packs = packer.finish();
        assert_eq!(packs.len(), 1);
        assert_eq!(packs[0].first, 7);
        assert_eq!(
            hex::encode(&packs[0].value),
            "0000000200000002000000056162636465"
        );
    }

    proptest! {
        #[test]
        fn entries_read_back(
            first in 0_u64..1000,
            lengths in prop::collection::vec(1_usize..3000, 1..700),
        ) {
            let entries: Vec<Vec<u8>> =
                lengths.iter().enumerate().map(|(i, &n)| vec![(i % 251) as u8; n]).collect();
            let mut packer = Packer::new(first);
            for (position, entry) in entries.iter().enumerate() {
                packer.push(entry);
                // An entry can be read while the pack is still open.
                prop_assert_eq!(&packer.entry(first + position as u64).unwrap()[..], &entry[..]);
                prop_assert!(packer.entry(first + position as u64 + 1).is_none());
            }
            let mut next = first;
            for pack in packer.finish() {
                prop_assert_eq!(pack.first, next);
                let unpacked = Unpacked::parse(pack.value.into()).unwrap();
                for position in 0..unpacked.len() {
                    let entry = unpacked.entry(position).unwrap();
                    prop_assert_eq!(&entry[..], &entries[(next - first) as usize][..]);
                    next += 1;
                    // No pack goes across a tile's end.
                    prop_assert!(next % 256 != 0 || position + 1 == unpacked.len());
                }
                prop_assert!(unpacked.entry(unpacked.len()).is_none());
            }
            prop_assert_eq!(next, first + entries.len() as u64);
        }

        #[test]
        fn no_bytes_panic(value in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(pack) = Unpacked::parse(value.into()) {
                for position in 0..pack.len() {
                    prop_assert!(pack.entry(position).is_some());
                }
            }
        }
    }
}
