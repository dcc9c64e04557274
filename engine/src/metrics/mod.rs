//! The server's metrics, for `/metrics`.
//!
//! Counting is a few relaxed additions, where possible once for each turn or request and not for
//! each statement. No label has values that callers choose (no ledgers, principals or paths), so
//! callers cannot make the set grow.
//!
//! The text is encoded by prometheus-client, from counters of our own: arrays of atomics. Its `Family`
//! looks a counter up by its labels (260 ns, where an atomic takes 6) and prints them in random order,
//! its `Histogram` takes a lock (40 ns, where ours takes 14; 140 and 40 with two threads), and its
//! `Registry` changes the descriptions.

mod assessed;
mod histogram;
mod rpcs;
mod text;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use deed_evidence::assess::finding::KINDS;
use deed_proto::v1::rejection::Reason;

pub(crate) use assessed::Assessments;
use assessed::{INTENT_STATES, OWN_BODIES};
use histogram::{Histogram, LEAVES};
pub use rpcs::Rpc;
use rpcs::Rpcs;
pub use text::{Connections, Contents, Observed};

/// Number of gRPC statuses, 0 to 16.
pub const CODES: usize = 17;

/// Numbers of rejection reasons below this are counted by name; a test checks that it is above all
/// of them.
const REASONS: usize = 64;

/// A stage of an append. The times of all stages together are what an append takes on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for room in the queue, until admission can begin.
    Room,
    /// Decoding and checking the statements of a request, and hashing their entries.
    Admission,
    /// Waiting in the shard's queue, until a turn takes the request.
    Queue,
    /// A turn's step: recording what waits, growing the tree.
    Step,
    /// Waiting from the step's end until the turn is in the store.
    Commit,
    /// Waiting from then until the head guard has the turn and its heads are signed.
    Guard,
    /// Building the answer after a request's release, proofs included.
    Answer,
}

impl Stage {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Room, "room"),
        (Self::Admission, "admission"),
        (Self::Queue, "queue"),
        (Self::Step, "step"),
        (Self::Commit, "commit"),
        (Self::Guard, "guard"),
        (Self::Answer, "answer"),
    ];
}

/// A file whose syncs are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// RocksDB's log, by a turn's commit.
    Store,
    /// The head guard.
    HeadGuard,
}

impl Synced {
    const ALL: [(Self, &'static str); 2] =
        [(Self::Store, "store"), (Self::HeadGuard, "head_guard")];
}

/// Numbers of entries that a search has examined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    /// Entries that the index, or a finding, named.
    pub indexed: u64,
    /// Entries that were scanned, because no index covers them.
    pub(crate) scanned: u64,
}

/// All counters. Threads share them by reference; every method is cheap and never waits.
#[derive(Debug)]
pub struct Metrics {
    rpcs: Rpcs,
    /// Counts by rpc, then by status.
    requests: Vec<[AtomicU64; CODES]>,
    request_times: Vec<Histogram>,
    stages: [Histogram; Stage::ALL.len()],
    syncs: [Histogram; Synced::ALL.len()],
    accepted: AtomicU64,
    duplicates: AtomicU64,
    rejected: [AtomicU64; REASONS],
    entries: AtomicU64,
    entry_bytes: AtomicU64,
    turn_leaves: Histogram,
    /// Counts in the order of [`KINDS`].
    findings: [AtomicU64; KINDS.len()],
    /// Counts in the order of [`INTENT_STATES`].
    intents: [AtomicU64; INTENT_STATES.len()],
    /// Counts in the order of [`OWN_BODIES`].
    own_entries: [AtomicU64; OWN_BODIES.len()],
    sessions: AtomicI64,
    streams_open: AtomicI64,
    overload_refusals: AtomicU64,
    abandoned: AtomicU64,
    cut: AtomicU64,
    log_key_rotations: AtomicU64,
    damaged_guard_slots: AtomicU64,
    searches: AtomicU64,
    /// Entries that searches examined: those that the index named, and those that were scanned.
    searched_indexed: AtomicU64,
    searched_scanned: AtomicU64,
    index_segments: AtomicU64,
}

/// An open stream; it counts in `gauge` until it is dropped.
#[derive(Debug)]
pub struct Open {
    metrics: Arc<Metrics>,
    gauge: fn(&Metrics) -> &AtomicI64,
}

impl Open {
    fn new(metrics: &Arc<Metrics>, gauge: fn(&Metrics) -> &AtomicI64) -> Self {
        gauge(metrics).fetch_add(1, Relaxed);
        Self {
            metrics: Arc::clone(metrics),
            gauge,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).fetch_sub(1, Relaxed);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Metrics {
    /// Counts requests by the rpcs of the protocol, and of these further descriptor sets.
    pub fn new(further: &[&[u8]]) -> Self {
        let rpcs = Rpcs::new(further);
        Self {
            requests: rpcs.all().map(|_| zeros()).collect(),
            request_times: rpcs.all().map(|_| Histogram::latency()).collect(),
            rpcs,
            stages: std::array::from_fn(|_| Histogram::latency()),
            syncs: std::array::from_fn(|_| Histogram::latency()),
            accepted: AtomicU64::default(),
            duplicates: AtomicU64::default(),
            rejected: zeros(),
            entries: AtomicU64::default(),
            entry_bytes: AtomicU64::default(),
            turn_leaves: Histogram::new(LEAVES),
            findings: zeros(),
            intents: zeros(),
            own_entries: zeros(),
            sessions: AtomicI64::default(),
            streams_open: AtomicI64::default(),
            overload_refusals: AtomicU64::default(),
            abandoned: AtomicU64::default(),
            cut: AtomicU64::default(),
            log_key_rotations: AtomicU64::default(),
            damaged_guard_slots: AtomicU64::default(),
            searches: AtomicU64::default(),
            searched_indexed: AtomicU64::default(),
            searched_scanned: AtomicU64::default(),
            index_segments: AtomicU64::default(),
        }
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Metrics {
    /// Returns the name under which a request's path is counted.
    pub fn rpc(&self, path: &str) -> Rpc {
        self.rpcs.of(path)
    }

    /// Returns the text of that name.
    pub fn rpc_name(&self, rpc: Rpc) -> &str {
        self.rpcs.name(rpc)
    }

    /// Counts a request that has ended with the gRPC status of this number, `took` after it came.
    pub fn answered(&self, rpc: Rpc, status: usize, took: Duration) {
        self.requests[rpc.0][status % CODES].fetch_add(1, Relaxed);
        if self.rpcs.is_unary(rpc) {
            self.request_times[rpc.0].record_time(took);
        }
    }

    /// Adds a time that a request or turn spent in a stage.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].record_time(took);
    }

    /// Adds the time of a synced write, from its call to its return.
    pub fn synced(&self, file: Synced, took: Duration) {
        self.syncs[file as usize].record_time(took);
    }

    /// Counts statements of one request that were answered with a receipt.
    pub fn statements(&self, accepted: u64, duplicates: u64) {
        self.accepted.fetch_add(accepted, Relaxed);
        if duplicates > 0 {
            self.duplicates.fetch_add(duplicates, Relaxed);
        }
    }

    /// Counts a rejected statement.
    pub fn rejected(&self, reason: Reason) {
        let number = usize::try_from(reason as i32).unwrap_or_default();
        self.rejected[number.min(REASONS - 1)].fetch_add(1, Relaxed);
    }

    /// Counts a turn in the store, with its new leaves and the bytes of its entries.
    pub(crate) fn committed(&self, leaves: u64, entry_bytes: u64) {
        self.entries.fetch_add(leaves, Relaxed);
        self.entry_bytes.fetch_add(entry_bytes, Relaxed);
        self.turn_leaves.record(leaves);
    }

    /// Adds the assessment's results of a turn that is in the store.
    pub fn assessed(&self, assessments: &Assessments) {
        let add = |counters: &[AtomicU64], counts: &[u64]| {
            for (counter, count) in counters.iter().zip(counts) {
                if *count > 0 {
                    counter.fetch_add(*count, Relaxed);
                }
            }
        };
        add(&self.findings, &assessments.findings);
        add(&self.intents, &assessments.intents);
        add(&self.own_entries, &assessments.own_entries);
    }

    /// Changes the number of sessions in memory by `by`.
    pub(crate) fn sessions_changed(&self, by: i64) {
        self.sessions.fetch_add(by, Relaxed);
    }

    /// Counts an append stream until the returned value is dropped.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> Open {
        Open::new(self, |metrics| &metrics.streams_open)
    }

    /// Counts a request that waited too long for room.
    pub(crate) fn overloaded(&self) {
        self.overload_refusals.fetch_add(1, Relaxed);
    }

    /// Counts a request that was dropped before any turn began it, because its caller had gone.
    pub(crate) fn abandoned(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    /// Counts a request that did not fit into a turn and goes on in a later one.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Relaxed);
    }

    /// Returns the number of dropped requests, for tests.
    #[doc(hidden)]
    pub fn abandonments(&self) -> u64 {
        self.abandoned.load(Relaxed)
    }

    /// Returns the number of cut requests, for tests.
    #[cfg(test)]
    pub(crate) fn cuts(&self) -> u64 {
        self.cut.load(Relaxed)
    }

    /// Counts log keys that came into force.
    pub(crate) fn log_keys_rotated(&self, keys: u64) {
        self.log_key_rotations.fetch_add(keys, Relaxed);
    }

    /// Counts slots of the head guard that had only one good half when the server started.
    pub fn found_damaged_guard_slots(&self, slots: u64) {
        self.damaged_guard_slots.store(slots, Relaxed);
    }

    /// Counts a search that has begun.
    pub fn search(&self) {
        self.searches.fetch_add(1, Relaxed);
    }

    /// Counts entries that a step of a search has examined.
    pub fn searched(&self, looked: Looked) {
        self.searched_indexed.fetch_add(looked.indexed, Relaxed);
        self.searched_scanned.fetch_add(looked.scanned, Relaxed);
    }

    /// Counts a segment of terms that was written.
    pub fn segment_indexed(&self) {
        self.index_segments.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_stands_at_its_own_place() {
        fn places<T: Copy + Into<usize>>(all: &[T]) {
            for (place, item) in all.iter().enumerate() {
                assert_eq!((*item).into(), place);
            }
        }
        places(&Stage::ALL.map(|(stage, _)| stage as usize));
        places(&Synced::ALL.map(|(file, _)| file as usize));
    }

    #[test]
    fn there_is_room_for_every_reason() {
        let known = (0..1000).filter(|&number| Reason::try_from(number).is_ok());
        let last = known.max().unwrap();
        assert!(usize::try_from(last).unwrap() < REASONS - 1, "{last}");
    }

    #[test]
    fn what_is_open_counts_until_it_is_dropped() {
        let metrics = Arc::new(Metrics::default());
        let (first, second) = (metrics.stream(), metrics.stream());
        drop(first);
        assert_eq!(metrics.streams_open.load(Relaxed), 1);
        drop(second);
        assert_eq!(metrics.streams_open.load(Relaxed), 0);
    }
}
