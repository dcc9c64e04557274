//! What the server's own tests have in common: statements, and an engine without a network.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use deed_evidence::{LedgerId, Micros, PayloadDigest, SessionId, statement};
use deed_proto::v1::{self, append_result::Result as Outcome, statement::Body};
use parking_lot::Mutex;

use crate::{
    append::{Appends, QUEUE_WAIT},
    clock::Clock,
    guard::{self, GuardSlot},
    identity::Identity,
    ledger::{
        Ledger,
        registry::{Registry, RegistryError},
    },
    metrics::Metrics,
    shard::{Disk, NoAnswer, ShardThreads, Shards},
    status::Refusal,
    store::{DirectoryLock, Store, StoreOptions},
};

/// The public key of RFC 8032 section 7.1, test 1.
pub(crate) const AUTHORITY_KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// A clock that the test moves.
#[derive(Debug, Default)]
pub(crate) struct TestClock(Mutex<i64>);

impl TestClock {
    pub(crate) fn at(micros: i64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(micros)))
    }

    pub(crate) fn set(&self, micros: i64) {
        *self.0.lock() = micros;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Micros {
        Micros::new(*self.0.lock())
    }
}

/// Statements of one session, as its producer makes them.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) ledger_id: LedgerId,
    pub(crate) producer: String,
    pub(crate) session: SessionId,
    pub(crate) next: u64,
    pub(crate) previous: Option<PayloadDigest>,
}

impl Producer {
    pub(crate) fn new(ledger_id: LedgerId, session: u8) -> Self {
        Self {
            ledger_id,
            producer: "spiffe://example.org/agent".to_owned(),
            session: SessionId::new([session; 16]),
            next: 0,
            previous: None,
        }
    }

    fn envelope(&mut self, skipped_from: Option<u64>, chained: bool, body: Body) -> v1::Envelope {
        let previous = self.previous.filter(|_| chained);
        let payload = statement::encode(&v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: Bytes::copy_from_slice(self.session.as_bytes()),
            sequence: self.next,
            previous: previous.map_or_else(Bytes::new, |d| Bytes::copy_from_slice(d.as_bytes())),
            skipped_from,
            task: Bytes::from_static(&[9; 16]),
            body: Some(body),
            ..v1::Statement::default()
        })
        .expect("a valid statement");
        self.next += 1;
        self.previous = Some(PayloadDigest::of(&payload));
        v1::Envelope {
            payload_type: v1::PayloadType::Statement.into(),
            payload,
            ..v1::Envelope::default()
        }
    }

    pub(crate) fn intent(&mut self, resource: &str) -> v1::Envelope {
        self.envelope(None, false, intent(resource))
    }

    pub(crate) fn chained_intent(&mut self, resource: &str) -> v1::Envelope {
        self.envelope(None, true, intent(resource))
    }

    /// Loses `lost` statements and says so.
    pub(crate) fn intent_after_gap(&mut self, lost: u64) -> v1::Envelope {
        let from = self.next;
        self.next += lost;
        self.envelope(Some(from), false, intent("after a gap"))
    }

    pub(crate) fn closed(&mut self) -> v1::Envelope {
        let body = v1::SessionClosed {
            last_sequence: self.next,
            count: self.next + 1,
        };
        self.envelope(None, false, Body::SessionClosed(body))
    }
}

fn intent(resource: &str) -> Body {
    Body::Intent(v1::Intent {
        action: "test.act".to_owned(),
        resource: resource.to_owned(),
        ..v1::Intent::default()
    })
}

/// A server without a listener.
pub(crate) struct Engine {
    pub(crate) store: Arc<Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) appends: Appends,
    pub(crate) clock: Arc<TestClock>,
    threads: ShardThreads,
    _lock: DirectoryLock,
}

impl Engine {
    /// Opens a data directory as the server does, on the real disk.
    pub(crate) fn open(data_dir: &Path) -> Self {
        Self::open_on(data_dir, |disk| disk)
    }

    /// The same, with faults put between the shard and its disk.
    pub(crate) fn open_on(data_dir: &Path, wrap: impl FnOnce(Disk) -> Disk) -> Self {
        let lock = DirectoryLock::acquire(data_dir).unwrap();
        let options = StoreOptions::default();
        let identity = match Identity::load(data_dir).unwrap() {
            Some(identity) => {
                let store = Store::open_read_only(data_dir, &options).unwrap().unwrap();
                guard::verify(data_dir, &Arc::new(store)).unwrap();
                identity
            }
            None => {
                drop(Store::create(data_dir, &options).unwrap());
                guard::create(data_dir).unwrap();
                Identity::create(data_dir, Some("test")).unwrap()
            }
        };
        let store = Arc::new(Store::open(data_dir, &options).unwrap());
        guard::catch_up(data_dir, &store).unwrap();
        let slot = GuardSlot::open(data_dir, 0).unwrap();
        let disk = wrap(Disk::new(Arc::clone(&store), slot));
        let metrics = Arc::new(Metrics::default());
        let (shards, threads) = Shards::start_on(vec![disk], &store, 1 << 20, &metrics);
        let clock = TestClock::at(1_000_000);
        let registry = Arc::new(Registry::new(
            Arc::clone(&store),
            identity,
            Arc::clone(&clock) as _,
        ));
        let appends = Appends {
            registry: Arc::clone(&registry),
            shards: Arc::new(shards),
            clock: Arc::clone(&clock) as _,
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
    pub(crate) fn create(&self, name: &str) -> Result<Arc<Ledger>, String> {
        let keys = [Bytes::from_static(&AUTHORITY_KEY)];
        self.registry
            .create(name, &keys, |new| {
                let number = new.ledger.number;
                let room = block_on(self.appends.shards.reserve(number, 0));
                let answer = room.create(new).blocking_answer();
                answer
                    .map(drop)
                    .map_err(|NoAnswer::Stopped| RegistryError::Stopped)
            })
            .map_err(|error| error.to_string())
    }

    pub(crate) fn append(
        &self,
        ledger: &str,
        envelopes: Vec<v1::Envelope>,
    ) -> Result<v1::AppendResponse, Refusal> {
        let request = v1::AppendRequest {
            ledger: ledger.to_owned(),
            envelopes,
            ..v1::AppendRequest::default()
        };
        block_on(async { self.appends.begin(request).await?.finish().await })
    }

    /// Stops the threads and closes the store.
    pub(crate) fn close(self) {
        self.appends.shards.close();
        self.threads.join();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// A result in short: `accepted 3`, `duplicate 3`, or the reason of the rejection.
pub(crate) fn brief(result: &v1::AppendResult) -> String {
    match &result.result {
        Some(Outcome::Accepted(receipt)) => format!("accepted {}", receipt.leaf_index),
        Some(Outcome::Duplicate(receipt)) => format!("duplicate {}", receipt.leaf_index),
        Some(Outcome::Rejected(rejection)) => rejection.reason().as_str_name().to_owned(),
        None => "nothing".to_owned(),
    }
}

/// All results of an answer in short.
pub(crate) fn briefs(response: &v1::AppendResponse) -> Vec<String> {
    response.results.iter().map(brief).collect()
}
