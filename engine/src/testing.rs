//! A server without a face, for tests of this crate and of those above it.

#![allow(
    clippy::unwrap_used,
    reason = "only tests call it, and a test fails by panicking"
)]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::Micros;
use deed_proto::v1;
use parking_lot::Mutex;
use prost::Message as _;

use crate::{
    admission::Sender,
    append::{Answered, AppendError, AppendService, QuotaPolicy},
    clock::{Clock, keeper::Timekeeper},
    content::ContentStore,
    data_dir::{self, DataDir},
    guard::GuardSlot,
    ledger::{Ledger, registry::LedgerRegistry},
    metrics::Metrics,
    options::{ClockOptions, ContentOptions, LimitOptions},
    pressure::{Pressure, QUEUE_WAIT, Source, SourceKey, quota::MachineTicks},
    shard::{
        Disk, ShardThreads, Shards,
        journal::{Journal, LocalJournal},
    },
    store::{Batch, DirectoryLock, Family, Store, StoreOptions, keys},
};

#[cfg(test)]
pub use deed_testkit::statements::*;

/// The authority of its ledgers, as deed-testkit has it: RFC 8032 section 7.1, test 1.
pub(crate) const AUTHORITY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// A clock that the test moves.
#[derive(Debug, Default)]
pub struct TestClock {
    now: Mutex<i64>,
    /// The time since boot and the boot's id, on a machine that has them.
    boot: Mutex<Option<(i64, String)>>,
}

impl TestClock {
    pub fn at(micros: i64) -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::new(micros),
            boot: Mutex::new(None),
        })
    }

    pub fn set(&self, micros: i64) {
        *self.now.lock() = micros;
    }

    /// Boots the machine, which has a boot time and an id from now on.
    pub fn boots(&self, id: &str) {
        *self.boot.lock() = Some((0, id.to_owned()));
    }

    /// Lets time pass.
    pub fn pass(&self, micros: i64) {
        *self.now.lock() += micros;
        if let Some((since, _)) = &mut *self.boot.lock() {
            *since += micros;
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Micros {
        Micros::new(*self.now.lock())
    }

    fn since_boot(&self) -> Option<Micros> {
        let boot = self.boot.lock();
        boot.as_ref().map(|(since, _)| Micros::new(*since))
    }

    fn boot_id(&self) -> Option<String> {
        let boot = self.boot.lock();
        boot.as_ref().map(|(_, id)| id.clone())
    }
}

/// A server without a listener.
pub struct Engine {
    pub store: Arc<Store>,
    pub registry: Arc<LedgerRegistry>,
    pub appends: AppendService,
    pub clock: Arc<TestClock>,
    threads: ShardThreads,
    _lock: DirectoryLock,
}

impl Engine {
    /// Opens a data directory as the server does, on the real disk.
    pub fn open(data_dir: &Path) -> Self {
        Self::open_on(data_dir, |disk| disk)
    }

    /// Opens a data directory with faults put between the shard and its disk.
    pub fn open_on(data_dir: &Path, wrap: impl FnOnce(Disk) -> Disk) -> Self {
        // The long turn makes each request one turn, however busy this machine is.
        let whole = Duration::from_secs(3600);
        Self::open_by(data_dir, TestClock::at(1_000_000), whole, wrap)
    }

    /// Opens a data directory with faults, and with turns of at most this time.
    pub fn open_with(
        data_dir: &Path,
        turn_time: Duration,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Self {
        Self::open_by(data_dir, TestClock::at(1_000_000), turn_time, wrap)
    }

    /// Opens a data directory with the test's clock.
    pub fn open_at(
        data_dir: &Path,
        clock: Arc<TestClock>,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Self {
        Self::open_by(data_dir, clock, Duration::from_secs(3600), wrap)
    }

    fn open_by(
        data_dir: &Path,
        clock: Arc<TestClock>,
        turn_time: Duration,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Self {
        Self::open_through(data_dir, clock, turn_time, wrap, |journal| journal)
    }

    /// Opens a data directory with a journal in front of its own, and with turns of at most this time.
    #[cfg(test)]
    pub(crate) fn open_behind(
        data_dir: &Path,
        turn_time: Duration,
        journal: impl FnOnce(Box<dyn Journal>) -> Box<dyn Journal>,
    ) -> Self {
        let clock = TestClock::at(1_000_000);
        Self::open_through(data_dir, clock, turn_time, |disk| disk, journal)
    }

    fn open_through(
        data_dir: &Path,
        clock: Arc<TestClock>,
        turn_time: Duration,
        wrap: impl FnOnce(Disk) -> Disk,
        journal: impl FnOnce(Box<dyn Journal>) -> Box<dyn Journal>,
    ) -> Self {
        let options = StoreOptions::default();
        let opened = data_dir::open(data_dir, Some("test"), &options, 1, &[]).unwrap();
        let DataDir {
            lock,
            store,
            identity,
            ..
        } = opened;
        let slot = GuardSlot::open(data_dir, 0).unwrap();
        let disk = wrap(Disk::new(Arc::clone(&store), slot));
        let journals = vec![journal(Box::new(LocalJournal::new(
            Arc::clone(&store),
            0,
            disk,
        )))];
        let metrics = Arc::new(Metrics::default());
        let (shards, threads) = Shards::start_on(journals, &store, 1 << 20, turn_time, &metrics);
        // If the clock has no boot time, it is believed, also after a restart.
        let recorded = match clock.since_boot() {
            Some(_) => store.newest_times().unwrap(),
            None => Vec::new(),
        };
        let time = Arc::new(Timekeeper::open(
            Arc::clone(&clock) as _,
            ClockOptions::default(),
            Some(data_dir.to_owned()),
            recorded,
        ));
        let registry = Arc::new(LedgerRegistry::new(
            Arc::clone(&store),
            identity,
            Arc::clone(&time),
        ));
        let content = ContentOptions {
            // The file is inside, so that it is removed with the directory.
            key_file: data_dir.join("content.key"),
            ..ContentOptions::new(data_dir)
        };
        let contents = ContentStore::open(data_dir, &content, 0, &store, Arc::clone(&time) as _);
        let appends = AppendService {
            registry: Arc::clone(&registry),
            shards: Arc::new(shards),
            contents: contents.unwrap(),
            clock: time,
            pressure: Arc::new(Pressure::new(
                &LimitOptions::default(),
                Arc::new(MachineTicks::default()),
            )),
            queue_wait: QUEUE_WAIT,
            metrics,
        };
        Self {
            store,
            registry,
            appends,
            clock,
            threads,
            _lock: lock,
        }
    }

    /// Creates a ledger; `Err` if the shard stopped before it was known to be there.
    pub fn create(&self, name: &str) -> Result<Arc<Ledger>, String> {
        self.create_under(deed_evidence::RULES_VERSION, name)
    }

    /// Creates a ledger under older rules.
    pub fn create_under(&self, rules: u32, name: &str) -> Result<Arc<Ledger>, String> {
        let keys = [Bytes::from_static(&AUTHORITY)];
        self.registry
            .create_under(rules, name, &keys, |new| {
                let shards = &self.appends.shards;
                let reservation = block_on(shards.reserve(&new.ledger, SourceKey::Server, 0));
                reservation.create(new).blocking_answer()?;
                Ok(())
            })
            .map_err(|error| error.to_string())
    }

    pub fn append(
        &self,
        ledger: &str,
        envelopes: Vec<v1::Envelope>,
    ) -> Result<v1::AppendResponse, AppendError> {
        self.append_from(&self.appends.pressure.unknown(), ledger, envelopes)
    }

    /// Appends as this source.
    pub fn append_from(
        &self,
        source: &Source,
        ledger: &str,
        envelopes: Vec<v1::Envelope>,
    ) -> Result<v1::AppendResponse, AppendError> {
        let name = ledger;
        let ledger = self.registry.ledger(name)?;
        let request = v1::AppendRequest {
            ledger: name.to_owned(),
            envelopes,
            ..v1::AppendRequest::default()
        };
        let request = self.appends.check(request)?;
        block_on(async {
            self.appends
                .begin(
                    ledger,
                    request,
                    &Sender::anybody(),
                    source,
                    QuotaPolicy::Refuse,
                    self.appends.shards.superseded(),
                )
                .await?
                .finish()
                .await
                .map(Answered::into_response)
        })
    }

    /// Writes findings as a turn does, under the leaves and numbers that they have.
    pub fn find(&self, ledger: &Ledger, findings: &[v1::Finding]) {
        let mut batch = Batch::default();
        for finding in findings {
            let key = keys::finding(ledger.number, finding.leaf_index, finding.number);
            let record = finding.encode_to_vec();
            self.store.put(&mut batch, Family::State, &key, &record);
        }
        self.store.commit(batch).unwrap();
    }

    /// Stops the threads and closes the store.
    pub fn close(self) {
        self.appends.contents.close();
        self.appends.shards.stop();
        self.threads.join();
    }
}

/// Runs a future to its end on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
        .block_on(future)
}
