//! The full check of a stopped server's data directory.
//!
//! Nothing stored is believed: leaf hashes, tiles, roots and session records are computed again
//! from the entries alone, with the functions that the server and every verifier use, and then
//! compared with what is there. What must not be there counts as a difference too.

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use deed_evidence::{
    LedgerId,
    genesis::Genesis,
    replay::{Fault, Replay},
    statement::BodyKind,
    trust::LogKeys,
};
use deed_tlog::{FullTile, Hash, Origin, RightEdge, TileId, TreeHead, VerifierKey, leaf_hash};
use prost::Message as _;

use crate::{
    content, guard,
    identity::Identity,
    ledger::index,
    options::ContentOptions,
    search::segment,
    store::{
        DirectoryLock, LedgerNumber, Store, StoreError, StoreOptions,
        heads::StoredTree,
        keys,
        records::{HeadRecord, LedgerRecord, RunRecord, SessionRecord, TrustRecord},
    },
};

pub use report::{FsckError, Progress, Report};

/// Leaves between two reports of progress.
const PROGRESS_LEAVES: u64 = 1 << 20;

/// Checks everything below `data_dir`, which may be on a volume that cannot be written: nothing in it
/// is changed or created. Opens contents with the key file where it is by default, if it is there.
///
/// # Errors
/// [`FsckError`] with the first difference in the log. Damaged contents are listed in the report.
pub fn check(data_dir: &Path, on_progress: &mut dyn FnMut(&Progress)) -> Result<Report, FsckError> {
    let key_file = ContentOptions::new(data_dir).key_file;
    check_with(data_dir, &key_file, on_progress)
}

/// Checks with the key file `key_file`, in another place than the default.
///
/// # Errors
/// As [`check`].
pub fn check_with(
    data_dir: &Path,
    content_key_file: &Path,
    on_progress: &mut dyn FnMut(&Progress),
) -> Result<Report, FsckError> {
    let no_server = || FsckError::NoServer {
        path: data_dir.to_owned(),
    };
    let identity = Identity::load(data_dir)?.ok_or_else(no_server)?;
    let _lock = DirectoryLock::share(data_dir)?;
    let store = Store::open_read_only(data_dir, &StoreOptions::default())?.ok_or_else(no_server)?;
    let store = Arc::new(store);
    let guarded = guard::verify(data_dir, &store)?;
    let mut report = Report {
        guarded: guarded.heads as u64,
        damaged_guards: guarded.damaged,
        ..Report::default()
    };
    let mut after = String::new();
    let mut numbers = BTreeSet::new();
    let mut ids = BTreeMap::new();
    loop {
        let page = store.ledgers_after(&after, 1000)?;
        let Some(last) = page.last() else {
            check_numbers(&store, &numbers)?;
            report.contents = content::check(data_dir, content_key_file, &store, &ids)?;
            return Ok(report);
        };
        after = last.name.clone();
        for record in page {
            if !numbers.insert(record.number) {
                return Err(FsckError::Difference {
                    ledger: record.name,
                    what: format!("its number {} is another ledger's too", record.number),
                });
            }
            let mut check = LedgerCheck::new(&store, &identity, record)?;
            check.partition()?;
            check.run(on_progress, &mut report)?;
            ids.insert(check.number.0, check.id);
            report.ledgers += 1;
        }
    }
}

/// Fails if records belong to ledgers that do not exist, or the next ledger's number is taken.
fn check_numbers(store: &Store, numbers: &BTreeSet<u32>) -> Result<(), FsckError> {
    let orphaned = |what: String| FsckError::Difference {
        ledger: String::new(),
        what,
    };
    if let Some((family, number)) = store.unknown_ledger(numbers)? {
        let what = format!("{family} holds records of number {number}, which no ledger has");
        return Err(orphaned(what));
    }
    let next = store.next_ledger()?.0;
    match numbers.last() {
        Some(&last) if next <= last => Err(orphaned(format!(
            "the next ledger would get number {next}, which is taken"
        ))),
        _ => Ok(()),
    }
}

struct LedgerCheck<'s> {
    store: &'s Arc<Store>,
    identity: &'s Identity,
    record: LedgerRecord,
    number: LedgerNumber,
    id: LedgerId,
    origin: Origin,
    /// The key of the newest tree, as the ledger's record has it.
    vkey: VerifierKey,
    edge: RightEdge,
    /// The state of the replay; `None` before the genesis entry.
    replay: Option<Replay>,
}

impl<'s> LedgerCheck<'s> {
    fn new(
        store: &'s Arc<Store>,
        identity: &'s Identity,
        record: LedgerRecord,
    ) -> Result<Self, FsckError> {
        let differs = |what: String| FsckError::Difference {
            ledger: record.name.clone(),
            what,
        };
        let vkey: VerifierKey = record
            .vkey
            .parse()
            .map_err(|error| differs(format!("its verifier key: {error}")))?;
        let id = Hash::try_from(&record.ledger_id[..])
            .map_err(|_| differs("its id has not 32 bytes".to_owned()))?;
        let origin: Origin = record
            .origin
            .parse()
            .map_err(|error| differs(format!("its origin: {error}")))?;
        let signer = identity.log_signer_of(&origin, record.key_generation, &vkey);
        if signer.is_none() {
            return Err(differs("server.key does not give its log key".to_owned()));
        }
        Ok(Self {
            store,
            identity,
            origin,
            number: LedgerNumber(record.number),
            id: LedgerId::new(id),
            vkey,
            edge: RightEdge::new(),
            replay: None,
            record,
        })
    }

    /// Fails unless the record names one of the partitions that ledgers are spread over. The store has no
    /// number of partitions if it is of an earlier version, or was being laid out anew when a process
    /// ended; the next start lays it out.
    fn partition(&self) -> Result<(), FsckError> {
        if self.store.partitions()?.is_some() {
            self.store.partition_of(&self.record)?;
        }
        Ok(())
    }

    fn replay(&self) -> Result<&Replay, FsckError> {
        let missing = || self.differs("the genesis entry is missing");
        self.replay.as_ref().ok_or_else(missing)
    }

    fn differs(&self, what: impl Into<String>) -> FsckError {
        FsckError::Difference {
            ledger: self.record.name.clone(),
            what: what.into(),
        }
    }

    fn run(
        &mut self,
        on_progress: &mut dyn FnMut(&Progress),
        report: &mut Report,
    ) -> Result<(), FsckError> {
        let tree = self
            .store
            .newest_tree(self.number)?
            .ok_or_else(|| self.differs("its newest tree is missing"))?;
        let mut progress = Progress {
            ledger: self.record.name.clone(),
            leaves: 0,
            size: tree.head.size.get(),
        };
        on_progress(&progress);

        let store = Arc::clone(self.store);
        let mut signed = store.signed_heads(self.number)?.peekable();
        let mut leaf_hashes = Vec::new();
        let (mut expected, mut heads, mut signed_size) = (0, 0, 0);
        for item in store.packs(self.number, 0) {
            let (first, pack) = item?;
            if first != expected {
                return Err(self.differs(format!("leaf {expected} is missing")));
            }
            for position in 0..pack.len() {
                let index = first + position;
                if index == tree.head.size.get() {
                    return Err(self.differs(format!("leaf {index} is beyond the newest tree")));
                }
                let entry = pack
                    .entry(position)
                    .ok_or_else(|| self.differs(format!("leaf {index} is missing")))?;
                self.leaf(index, &entry)?;
                leaf_hashes.push(leaf_hash(&entry));
                // Every signed head is compared with the tree at exactly its size.
                while let Some(size) = head_at(&mut signed, index + 1) {
                    self.grow(&mut leaf_hashes)?;
                    let (_, record) = signed.next().transpose()?.ok_or_else(|| {
                        self.differs(format!("the head of size {size} is missing"))
                    })?;
                    self.signed_head(size, &record)?;
                    heads += 1;
                    signed_size = size;
                }
            }
            expected = first + pack.len();
            self.grow(&mut leaf_hashes)?;
            if expected / PROGRESS_LEAVES > progress.leaves / PROGRESS_LEAVES {
                progress.leaves = expected;
                on_progress(&progress);
            }
        }
        if let Some(beyond) = signed.next() {
            let (size, _) = beyond?;
            return Err(self.differs(format!(
                "a head of size {size} is signed, beyond the leaves"
            )));
        }
        // Each kept head is written with a newest one. A ledger has none if a crash came right after its
        // creation.
        if heads > 0 && store.latest_head(self.number)?.is_none() {
            return Err(self.differs("heads are kept, and the newest signed head is missing"));
        }
        report.heads += heads;
        report.unsigned += expected - signed_size;
        let ended = self.replay.as_mut().map_or(Ok(()), Replay::end);
        ended.map_err(|error| self.differs(error.to_string()))?;
        self.newest_tree(expected, &tree)?;
        self.log_keys()?;
        let trust = self.replay()?.trust();
        if let Err(unreadable) = trust.can_judge(BodyKind::Intent) {
            let name = &self.record.name;
            report
                .unreadable
                .push(format!("ledger {name:?}: {unreadable}"));
        }
        report.leaves += expected;
        report.tiles += self.tiles()?;
        report.records += self.records()?;
        self.erasures()?;
        self.index()?;
        progress.leaves = expected;
        on_progress(&progress);
        Ok(())
    }

    /// Replays one entry: judges and assesses it as when it was recorded.
    fn leaf(&mut self, index: u64, bytes: &Bytes) -> Result<(), FsckError> {
        let judged = match &mut self.replay {
            Some(replay) => replay.leaf(index, bytes).map(drop),
            None => {
                self.check_genesis(bytes)?;
                Replay::begin(bytes).map(|replay| self.replay = Some(replay))
            }
        };
        judged.map_err(|error| match *error.fault {
            Fault::PolicyUnreadable(_) => FsckError::Unjudgeable {
                ledger: self.record.name.clone(),
                what: error.to_string(),
            },
            _ => self.differs(error.to_string()),
        })
    }

    fn check_genesis(&self, bytes: &Bytes) -> Result<(), FsckError> {
        let (genesis, id) =
            Genesis::from_entry(bytes).map_err(|error| self.differs(error.to_string()))?;
        let fits = id == self.id
            && genesis.origin.as_str() == self.record.origin
            && *bytes == self.record.genesis_entry;
        if fits {
            Ok(())
        } else {
            Err(self.differs("the genesis entry is not the one in the ledger's record"))
        }
    }

    /// Returns the keys that sign heads, as far as the entries have been replayed.
    fn keys(&self) -> Result<&LogKeys, FsckError> {
        Ok(self.replay()?.trust().log_keys())
    }

    /// Opens a head whose leaves have all been replayed, with the keys that sign its size.
    fn open(&self, checkpoint: &[u8]) -> Result<TreeHead, FsckError> {
        self.keys()?
            .open(checkpoint)
            .map_err(|error| self.differs(format!("a signed head: {error}")))
    }

    /// Fails unless the record names the newest key that the entries give, and the server has all
    /// keys.
    fn log_keys(&self) -> Result<(), FsckError> {
        let keys = self.keys()?;
        let newest = keys.all().len() - 1;
        if keys.newest().key != self.vkey || self.record.key_generation as usize != newest {
            return Err(self.differs(format!(
                "its record names log key {} of number {}, the entries give {} of number {newest}",
                self.vkey,
                self.record.key_generation,
                keys.newest().key
            )));
        }
        for (generation, known) in (0..).zip(keys.all()) {
            let signer = self
                .identity
                .log_signer_of(&self.origin, generation, &known.key);
            if signer.is_none() {
                return Err(self.differs(format!(
                    "server.key does not give its log key number {generation}"
                )));
            }
        }
        Ok(())
    }

    /// Compares a signed head, which is stored for `size`, with the tree that the entries give so far.
    fn signed_head(&self, size: u64, record: &HeadRecord) -> Result<(), FsckError> {
        let head = self.open(&record.checkpoint)?;
        if head != self.edge.head() {
            return Err(self.differs(format!(
                "the signed head stored for size {size} says {} leaves with root {}, the entries \
                 give root {}",
                head.size,
                head.root,
                self.edge.root()
            )));
        }
        self.effective_time(record.effective_time_us)
    }

    /// Compares an effective time in the store with the one that the entries give so far.
    fn effective_time(&self, stored_us: i64) -> Result<(), FsckError> {
        let effective_time = self.replay()?.effective_time();
        if stored_us == effective_time.get() {
            return Ok(());
        }
        Err(self.differs(format!(
            "effective time is stored as {stored_us} us, the entries give {effective_time}"
        )))
    }

    /// Compares the record of the newest tree with the one that all entries give.
    fn newest_tree(&self, leaves: u64, tree: &StoredTree) -> Result<(), FsckError> {
        if leaves != tree.head.size.get() {
            return Err(self.differs(format!(
                "the newest tree has {} leaves, {leaves} are there",
                tree.head.size
            )));
        }
        if self.edge.root() != tree.head.root {
            return Err(self.differs(format!(
                "the newest tree has root {}, the entries give {}",
                tree.head.root,
                self.edge.root()
            )));
        }
        self.effective_time(tree.effective_time.get())
    }

    /// Appends leaf hashes to the tree and compares the tiles that become full with the stored
    /// ones.
    fn grow(&mut self, leaf_hashes: &mut Vec<Hash>) -> Result<(), FsckError> {
        let mut computed: Vec<FullTile> = Vec::new();
        self.edge
            .append(leaf_hashes, &mut |tile| computed.push(tile));
        leaf_hashes.clear();
        for tile in computed {
            let name = format!("tile {} {}", tile.level, tile.index);
            match self.store.tile(self.number, tile.level, tile.index)? {
                None => return Err(self.differs(format!("{name} is missing"))),
                Some(stored) if stored != tile.to_bytes() => {
                    return Err(self.differs(format!("{name} is not what the entries give")));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Fails if a tile is stored that the tree does not have; the others were compared. Returns
    /// their number.
    fn tiles(&self) -> Result<u64, FsckError> {
        let mut count = 0;
        for item in self.store.tiles(self.number) {
            let ((level, index), _) = item?;
            let in_tree = TileId::in_tree(level, index, self.edge.size());
            if !in_tree.is_some_and(|tile| tile.is_full()) {
                return Err(self.differs(format!("tile {level} {index} is beyond the tree")));
            }
            count += 1;
        }
        Ok(count)
    }

    /// Compares every session, run, cell, finding and timer, and fails if there are other records.
    /// Returns their number.
    fn records(&self) -> Result<u64, FsckError> {
        let computed = computed_records(self.number, self.replay()?);
        let mut stored = self.store.state(self.number);
        for (key, record) in &computed {
            let name = keys::state_name(key);
            match stored.next().transpose()? {
                Some((found, value)) if found == key => {
                    if value != record {
                        return Err(self.differs(format!("{name} is not what the entries give")));
                    }
                }
                Some((found, _)) if found[..] < key[..] => {
                    let extra = keys::state_name(&found);
                    return Err(self.differs(format!("{extra} belongs to nothing in the log")));
                }
                _ => return Err(self.differs(format!("{name} is missing"))),
            }
        }
        match stored.next().transpose()? {
            None => Ok(computed.len() as u64),
            Some((key, _)) => {
                let extra = keys::state_name(&key);
                Err(self.differs(format!("{extra} belongs to nothing in the log")))
            }
        }
    }

    /// Fails unless the store marks exactly those contents as erased that the log says were erased.
    fn erasures(&self) -> Result<(), FsckError> {
        for (content, leaf) in self.replay()?.erased() {
            let stored = self.store.erased(self.number, content)?;
            if stored != Some(*leaf) {
                return Err(self.differs(format!(
                    "content {content} was erased by leaf {leaf}, the store does not say so"
                )));
            }
        }
        Ok(())
    }

    /// Compares the segments of the leaf-hash index that exist.
    fn index(&self) -> Result<(), FsckError> {
        let reader = deed_tlog::EdgeReader::new(&self.edge, self.store.full_tiles(self.number));
        for segment in 0..self.edge.size().get() / index::SEGMENT_LEAVES {
            if !index::is_indexed(self.store, self.number, segment)? {
                // The index is derived; this segment will be made later.
                break;
            }
            let leaf_hashes = index::leaf_hashes(&reader, segment)?;
            for (bucket, records) in index::buckets(&leaf_hashes) {
                let stored = self.store.leaf_hash_bucket(self.number, segment, bucket)?;
                if stored.as_deref() != Some(&records[..]) {
                    return Err(self.differs(format!(
                        "index segment {segment}, bucket {bucket} is not what the entries give"
                    )));
                }
            }
        }
        self.terms()
    }

    /// Compares the segments of the search index that exist.
    fn terms(&self) -> Result<(), FsckError> {
        let indexed = self.store.term_segments(self.number)?;
        let complete = self.edge.size().get() / index::SEGMENT_LEAVES;
        if indexed > complete {
            let what = format!("terms of segment {} are indexed", indexed - 1);
            return Err(self.differs(what + ", which is not complete"));
        }
        for number in 0..indexed {
            let differs = |what: &str| {
                let what = format!("index segment {number}, {what}");
                self.differs(what + " is not what the entries give")
            };
            let segment = segment::build(self.store, self.number, number)?;
            for (bucket, terms) in (0..=u8::MAX).zip(&segment.buckets) {
                let stored = self.store.term_bucket(self.number, number, bucket)?;
                if stored.as_deref() != Some(&terms[..]) {
                    return Err(differs(&format!("terms {bucket}")));
                }
            }
            // The times with which `build` begins were compared with the segment before this one.
            let stored = self.store.segment_times(self.number, number)?;
            if stored.as_deref() != Some(&segment.times[..]) {
                return Err(differs("its times"));
            }
        }
        Ok(())
    }
}

/// Returns the records of the state family that a ledger's entries give, by their keys.
fn computed_records(ledger: LedgerNumber, replay: &Replay) -> BTreeMap<Vec<u8>, Bytes> {
    let mut computed: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
    for (id, (session, runs)) in replay.sessions() {
        let last = runs.last().map_or_else(Default::default, |run| run.first);
        let record = SessionRecord::new(session, last).encode_to_vec();
        computed.insert(keys::session(ledger, id).to_vec(), record.into());
        for run in runs {
            let record = RunRecord {
                first_leaf: run.first_leaf,
                count: run.count,
            };
            let key = keys::run(ledger, id, run.first).to_vec();
            computed.insert(key, record.encode_to_vec().into());
        }
    }
    for (leaf, effective_time) in replay.trust_leaves() {
        let record = TrustRecord {
            effective_time_us: effective_time.get(),
        };
        let key = keys::trust(ledger, *leaf).to_vec();
        computed.insert(key, record.encode_to_vec().into());
    }
    let kept = replay.kept();
    for (key, cell) in &kept.cells {
        computed.insert(keys::cell(ledger, key), cell.clone());
    }
    for (due, owner) in &kept.timers {
        let owner = Bytes::copy_from_slice(owner.as_bytes());
        computed.insert(keys::due(ledger, due), owner);
    }
    for ((leaf, number), finding) in &kept.findings {
        let key = keys::finding(ledger, *leaf, *number).to_vec();
        computed.insert(key, finding.encode_to_vec().into());
    }
    computed
}

/// Returns the size of the next signed head if that is `size` or smaller.
fn head_at<T>(
    signed: &mut std::iter::Peekable<impl Iterator<Item = Result<(u64, T), StoreError>>>,
    size: u64,
) -> Option<u64> {
    match signed.peek() {
        Some(Ok((next, _))) if *next <= size => Some(*next),
        Some(Err(_)) => Some(size),
        _ => None,
    }
}
