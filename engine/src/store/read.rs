//! Reads of committed records.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
pub use deed_evidence::session::Run;
use deed_evidence::{Micros, Sequence, SessionId, session::Session};

use deed_tlog::{Hash, TileHashes, TileId, TileReader};
use prost::Message as _;
use rocksdb::{DBIterator, Direction, IteratorMode};

use super::{
    FAMILIES, Family, LedgerNumber, Store, StoreError, keys,
    pack::Unpacked,
    records::{LedgerRecord, RunRecord, SessionRecord, TrustRecord},
};

/// A key and its value, as RocksDB returns them.
pub(super) type KeyAndValue = (Box<[u8]>, Box<[u8]>);

/// The purpose of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    /// A few records.
    Lookup,
    /// All records, once.
    Whole,
}

impl Store {
    pub fn value(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let options = self.read_options();
        let value = self
            .db
            .get_pinned_cf_opt(self.family(family), key, &options)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(super) fn record<R: prost::Message + Default>(
        &self,
        family: Family,
        ledger: LedgerNumber,
        key: &[u8],
    ) -> Result<Option<R>, StoreError> {
        self.value(family, key)?
            .map(|value| {
                R::decode(value).map_err(|error| {
                    StoreError::corrupt(
                        family,
                        ledger,
                        format!("record under {}: {error}", hex::encode(key)),
                    )
                })
            })
            .transpose()
    }

    /// Returns the number for the next ledger.
    pub(crate) fn next_ledger(&self) -> Result<LedgerNumber, StoreError> {
        let Some(value) = self.value(Family::Meta, keys::NEXT_LEDGER)? else {
            return Ok(LedgerNumber(0));
        };
        let bytes = value.as_ref().try_into().map_err(|_| {
            StoreError::corrupt(Family::Meta, LedgerNumber(0), "next_ledger has not 4 bytes")
        })?;
        Ok(LedgerNumber(u32::from_be_bytes(bytes)))
    }

    /// Returns a ledger's record by its name.
    pub fn ledger(&self, name: &str) -> Result<Option<LedgerRecord>, StoreError> {
        self.record(Family::Meta, LedgerNumber(0), &keys::ledger(name))
    }

    /// Returns up to `limit` ledgers after the name `after`, in order of their names.
    pub(crate) fn ledgers_after(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<LedgerRecord>, StoreError> {
        let begin = keys::ledger(after);
        let mut found = Vec::new();
        for item in self.iterate(Family::Meta, &begin, Direction::Forward) {
            let (key, value) = item?;
            if !key.starts_with(keys::LEDGER_PREFIX) || found.len() == limit {
                break;
            }
            if *key == *begin {
                continue;
            }
            found.push(LedgerRecord::decode(&value[..]).map_err(|error| {
                StoreError::corrupt(
                    Family::Meta,
                    LedgerNumber(0),
                    format!("ledger record: {error}"),
                )
            })?);
        }
        Ok(found)
    }

    /// Returns the leaves of a ledger's trust statements from `start` on, in order, each with the
    /// effective time at it.
    pub fn trust_leaves(
        &self,
        ledger: LedgerNumber,
        start: u64,
    ) -> impl Iterator<Item = Result<(u64, Micros), StoreError>> {
        self.scan(
            Scan::Lookup,
            Family::State,
            ledger,
            &keys::trust(ledger, start),
        )
        .map_while(move |item| match item {
            Ok((key, value)) => keys::trust_leaf(&key).map(|leaf| {
                let record = TrustRecord::decode(value).map_err(|error| {
                    let what = format!("trust statement {leaf}: {error}");
                    StoreError::corrupt(Family::State, ledger, what)
                })?;
                Ok((leaf, Micros::new(record.effective_time_us)))
            }),
            Err(error) => Some(Err(error)),
        })
    }

    /// Returns a session's state and its last run.
    pub fn session(
        &self,
        ledger: LedgerNumber,
        id: &SessionId,
    ) -> Result<Option<(Session, Run)>, StoreError> {
        let key = keys::session(ledger, id);
        let Some(record) = self.record::<SessionRecord>(Family::State, ledger, &key)? else {
            return Ok(None);
        };
        let first = Sequence::new(record.last_run);
        let corrupt = |what: &str| {
            StoreError::corrupt(Family::State, ledger, format!("session {id}: {what}"))
        };
        let session = record
            .session()
            .ok_or_else(|| corrupt("its last digest has not 32 bytes"))?;
        let run: RunRecord = self
            .record(Family::State, ledger, &keys::run(ledger, id, first))?
            .ok_or_else(|| corrupt("its last run is missing"))?;
        let run = Run {
            first,
            first_leaf: run.first_leaf,
            count: run.count,
        };
        Ok(Some((session, run)))
    }

    /// Returns the run of a session that holds `sequence`, or else the last one before it.
    pub fn run_before(
        &self,
        ledger: LedgerNumber,
        id: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<Run>, StoreError> {
        let key = keys::run(ledger, id, sequence);
        let Some((found, value)) = self.last_before(Family::State, &key)? else {
            return Ok(None);
        };
        let Some(first) =
            keys::run_first(&found).filter(|_| found.starts_with(keys::run_prefix(&key)))
        else {
            return Ok(None);
        };
        let record = RunRecord::decode(&value[..]).map_err(|error| {
            StoreError::corrupt(
                Family::State,
                ledger,
                format!("run of session {id}: {error}"),
            )
        })?;
        Ok(Some(Run {
            first,
            first_leaf: record.first_leaf,
            count: record.count,
        }))
    }

    /// Returns the entry of one leaf.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is missing: callers ask only below the tree's size.
    pub fn entry(&self, ledger: LedgerNumber, index: u64) -> Result<Bytes, StoreError> {
        let (first, pack) = self.pack_of(ledger, index)?;
        pack.entry(index - first)
            .ok_or_else(|| missing(ledger, index))
    }

    /// Returns the pack that holds a leaf, with the pack's first leaf.
    pub(crate) fn pack_of(
        &self,
        ledger: LedgerNumber,
        index: u64,
    ) -> Result<(u64, Unpacked), StoreError> {
        let missing = || missing(ledger, index);
        let key = keys::entries(ledger, index);
        let (found, value) = self
            .last_before(Family::Entries, &key)?
            .ok_or_else(missing)?;
        if !found.starts_with(&keys::ledger_prefix(ledger)) {
            return Err(missing());
        }
        let (first, pack) = unpack(ledger, &found, value.into_vec().into())?;
        if index - first < pack.len() {
            Ok((first, pack))
        } else {
            Err(missing())
        }
    }

    /// Returns the ledger of each shard's newest turn, with the shard's slot, for all shards that
    /// ever were.
    pub fn newest(&self) -> Result<Vec<(u8, LedgerRecord)>, StoreError> {
        let mut newest = Vec::new();
        for item in self.iterate(Family::Meta, keys::NEWEST_PREFIX, Direction::Forward) {
            let (key, name) = item?;
            let Some(slot) = keys::newest_slot(&key) else {
                break;
            };
            let record = std::str::from_utf8(&name)
                .ok()
                .map(|name| self.ledger(name))
                .transpose()?
                .flatten();
            newest.push((
                slot,
                record.ok_or_else(|| {
                    StoreError::corrupt(
                        Family::Meta,
                        LedgerNumber(0),
                        "the newest turn is of no ledger",
                    )
                })?,
            ));
        }
        Ok(newest)
    }

    /// Returns the first ledger number that has records in a family and is not one of `known`.
    pub(crate) fn unknown_ledger(
        &self,
        known: &BTreeSet<u32>,
    ) -> Result<Option<(&'static str, u32)>, StoreError> {
        for family in FAMILIES
            .into_iter()
            .filter(|family| *family != Family::Meta && self.has_family(*family))
        {
            let mut from = Some(0_u32);
            while let Some(number) = from {
                let key = number.to_be_bytes();
                let mut at = self.iterate(family, &key, Direction::Forward);
                let Some(item) = at.next() else {
                    break;
                };
                let (key, _) = item?;
                let found = key
                    .first_chunk()
                    .map_or(u32::MAX, |n| u32::from_be_bytes(*n));
                if !known.contains(&found) {
                    return Ok(Some((family.name(), found)));
                }
                from = found.checked_add(1);
            }
        }
        Ok(None)
    }

    /// Returns the entries from leaf `start` on, in order, to the end of the store.
    pub fn entries(
        &self,
        ledger: LedgerNumber,
        start: u64,
    ) -> impl Iterator<Item = Result<(u64, Bytes), StoreError>> {
        // The pack that holds `start` may begin before it.
        let (begin, failed) = match self.pack_before(ledger, start) {
            Ok(begin) => (begin.unwrap_or(start), None),
            Err(error) => (u64::MAX, Some(Err(error))),
        };
        let packs = self.packs_for(Scan::Lookup, ledger, begin);
        failed
            .into_iter()
            .chain(packs.flat_map(move |pack| match pack {
                Ok((first, pack)) => {
                    let skip = start.saturating_sub(first);
                    let entries: Vec<_> = (skip..pack.len())
                        .filter_map(|position| Some(Ok((first + position, pack.entry(position)?))))
                        .collect();
                    entries
                }
                Err(error) => vec![Err(error)],
            }))
    }

    fn pack_before(&self, ledger: LedgerNumber, index: u64) -> Result<Option<u64>, StoreError> {
        let key = keys::entries(ledger, index);
        let found = self.last_before(Family::Entries, &key)?;
        Ok(found
            .filter(|(key, _)| key.starts_with(&keys::ledger_prefix(ledger)))
            .and_then(|(key, _)| keys::entries_first(&key)))
    }

    /// Returns the packs from the one that begins at or after `first` on, in order; for reading all
    /// of them.
    pub(crate) fn packs(
        &self,
        ledger: LedgerNumber,
        first: u64,
    ) -> impl Iterator<Item = Result<(u64, Unpacked), StoreError>> {
        self.packs_for(Scan::Whole, ledger, first)
    }

    fn packs_for(
        &self,
        scan: Scan,
        ledger: LedgerNumber,
        first: u64,
    ) -> impl Iterator<Item = Result<(u64, Unpacked), StoreError>> + use<'_> {
        self.scan(scan, Family::Entries, ledger, &keys::entries(ledger, first))
            .map(move |item| {
                let (key, value) = item?;
                unpack(ledger, &key, value)
            })
    }

    /// Returns one full tile as bytes.
    pub fn tile(
        &self,
        ledger: LedgerNumber,
        level: u8,
        index: u64,
    ) -> Result<Option<Bytes>, StoreError> {
        self.value(Family::Tiles, &keys::tile(ledger, level, index))
    }

    /// Returns full tiles in order of (level, index).
    pub fn tiles(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<((u8, u64), Bytes), StoreError>> {
        self.scan(
            Scan::Whole,
            Family::Tiles,
            ledger,
            &keys::tile(ledger, 0, 0),
        )
        .map(move |item| {
            let (key, value) = item?;
            let id = keys::tile_of(&key).ok_or_else(|| {
                StoreError::corrupt(Family::Tiles, ledger, "a key has the wrong length")
            })?;
            Ok((id, value))
        })
    }

    /// Returns raw records of the state family, for comparing two stores.
    pub fn state(
        &self,
        ledger: LedgerNumber,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> {
        self.scan(
            Scan::Whole,
            Family::State,
            ledger,
            &keys::ledger_prefix(ledger),
        )
    }

    /// Returns the records of a family from a key on.
    fn iterate(&self, family: Family, from: &[u8], direction: Direction) -> DBIterator<'_> {
        let mode = IteratorMode::From(from, direction);
        let options = self.read_options();
        self.db.iterator_cf_opt(self.family(family), options, mode)
    }

    /// Returns the last record of a family at or before a key.
    pub(super) fn last_before(
        &self,
        family: Family,
        key: &[u8],
    ) -> Result<Option<KeyAndValue>, StoreError> {
        let mut before = self.iterate(family, key, Direction::Reverse);
        Ok(before.next().transpose()?)
    }

    /// Returns the records of a ledger in a family from a key on, in order.
    pub(super) fn scan(
        &self,
        scan: Scan,
        family: Family,
        ledger: LedgerNumber,
        from: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + use<'_> {
        let prefix = keys::ledger_prefix(ledger);
        let mut options = self.read_options();
        if scan == Scan::Whole {
            options.set_readahead_size(2 << 20);
            // Blocks that are read once must not push out those that are read often.
            options.fill_cache(false);
        }
        let mode = IteratorMode::From(from, Direction::Forward);
        self.db
            .iterator_cf_opt(self.family(family), options, mode)
            .map_while(move |item| match item {
                Ok((key, _)) if !key.starts_with(&prefix) => None,
                Ok((key, value)) => Some(Ok((key.into_vec().into(), value.into_vec().into()))),
                Err(error) => Some(Err(error.into())),
            })
    }

    /// Returns the keys of a family from one on, in order, without reading the values.
    pub(super) fn keys_from(
        &self,
        family: Family,
        from: &[u8],
    ) -> impl Iterator<Item = Result<Box<[u8]>, StoreError>> + use<'_> {
        let options = self.read_options();
        let mut at = self.db.raw_iterator_cf_opt(self.family(family), options);
        at.seek(from);
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed {
                return None;
            }
            if let Some(key) = at.key() {
                let key = key.into();
                at.next();
                return Some(Ok(key));
            }
            failed = true;
            at.status().err().map(|error| Err(error.into()))
        })
    }

    /// Returns the numbers of the ledgers that have records in a family.
    pub(super) fn ledgers_in(&self, family: Family) -> Result<Vec<LedgerNumber>, StoreError> {
        let mut found = Vec::new();
        let mut from = Some(0_u32);
        while let Some(number) = from.filter(|_| self.has_family(family)) {
            let Some(key) = self.keys_from(family, &number.to_be_bytes()).next() else {
                break;
            };
            let number = key?
                .first_chunk()
                .map_or(u32::MAX, |n| u32::from_be_bytes(*n));
            found.push(LedgerNumber(number));
            from = number.checked_add(1);
        }
        Ok(found)
    }

    /// Returns one bucket of a segment's leaf hashes.
    pub(crate) fn leaf_hash_bucket(
        &self,
        ledger: LedgerNumber,
        segment: u64,
        bucket: u8,
    ) -> Result<Option<Bytes>, StoreError> {
        self.value(
            Family::Index,
            &keys::leaf_hash_bucket(ledger, segment, bucket),
        )
    }

    /// Returns a reader of this ledger's full tiles.
    pub(crate) fn full_tiles(self: &Arc<Self>, ledger: LedgerNumber) -> FullTiles {
        FullTiles {
            store: Arc::clone(self),
            ledger,
        }
    }
}

fn missing(ledger: LedgerNumber, index: u64) -> StoreError {
    StoreError::corrupt(Family::Entries, ledger, format!("leaf {index} is missing"))
}

fn unpack(ledger: LedgerNumber, key: &[u8], value: Bytes) -> Result<(u64, Unpacked), StoreError> {
    let first = keys::entries_first(key).ok_or_else(|| {
        StoreError::corrupt(Family::Entries, ledger, "a key has the wrong length")
    })?;
    let pack = Unpacked::parse(value).ok_or_else(|| {
        StoreError::corrupt(
            Family::Entries,
            ledger,
            format!("the pack of leaf {first} is damaged"),
        )
    })?;
    Ok((first, pack))
}

/// Reads full tiles of one ledger.
pub(crate) struct FullTiles {
    store: Arc<Store>,
    ledger: LedgerNumber,
}

impl TileReader for FullTiles {
    type Error = StoreError;

    fn read_tiles(&self, tiles: &[TileId]) -> Result<Vec<TileHashes>, StoreError> {
        let keys: Vec<_> = tiles
            .iter()
            .map(|tile| keys::tile(self.ledger, tile.level(), tile.index()))
            .collect();
        let family = self.store.family(Family::Tiles);
        let options = self.store.read_options();
        let db = &self.store.db;
        let values = db.batched_multi_get_cf_opt(family, &keys, false, &options);
        tiles
            .iter()
            .zip(values)
            .map(|(tile, value)| {
                let corrupt = |what: &str| {
                    let what = format!("tile {} {}: {what}", tile.level(), tile.index());
                    StoreError::corrupt(Family::Tiles, self.ledger, what)
                };
                let value = value?.ok_or_else(|| corrupt("is missing"))?;
                let hashes: Vec<Hash> = tile
                    .to_full()
                    .parse_bytes(&value)
                    .map_err(|error| corrupt(&error.to_string()))?;
                Ok(Arc::new(hashes))
            })
            .collect()
    }
}
