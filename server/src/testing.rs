//! What the server's own tests have in common: statements, and an engine without a network.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, Nonce, PayloadDigest, SessionId, TaskId,
    batch::Manifest,
    genesis::Genesis,
    policy::{self, CEDAR_VERSION, DEFAULT_SCHEMA},
    signature::{self, Possession},
    statement,
    trust::Registry as Trust,
};
use deed_proto::v1::{self, append_result::Result as Outcome, statement::Body};
use deed_tlog::SigningKey;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    admission::Sender,
    append::{Answered, AppendError, Appends, OnQuota},
    clock::{Clock, keeper::Timekeeper},
    content::ContentStore,
    context::Context,
    guard::{self, GuardSlot},
    identity::Identity,
    ledger::{
        Ledger,
        registry::{Registry, RegistryError},
        step::SharedTrust,
    },
    metrics::Metrics,
    options::{ClockOptions, ContentOptions, LimitOptions},
    pressure::{Pressure, QUEUE_WAIT, Source, SourceKey, quota::MachineTicks},
    shard::{Disk, NoAnswer, ShardThreads, Shards},
    store::{Batch, DirectoryLock, Family, Store, StoreOptions, keys},
};

/// The public key of RFC 8032 section 7.1, test 1.
pub(crate) const AUTHORITY_KEY: [u8; 32] = [
    0xd7, 0x5a, 0x98, 0x01, 0x82, 0xb1, 0x0a, 0xb7, 0xd5, 0x4b, 0xfe, 0xd3, 0xc9, 0x64, 0x07, 0x3a,
    0x0e, 0xe1, 0x72, 0xf3, 0xda, 0xa6, 0x23, 0x25, 0xaf, 0x02, 0x1a, 0x68, 0xf7, 0x07, 0x51, 0x1a,
];

/// The private key of that test.
pub(crate) fn authority() -> SigningKey {
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let mut bytes = [0; 32];
    hex::decode_to_slice(seed, &mut bytes).expect("64 hex digits");
    SigningKey::from_seed(&bytes)
}

/// Evidence policies under the default schema.
pub(crate) fn policy_set(policies: &str) -> v1::PolicySet {
    v1::PolicySet {
        policies: policies.to_owned(),
        schema: DEFAULT_SCHEMA.to_owned(),
        digest: policy::digest(policies, DEFAULT_SCHEMA).to_vec().into(),
        cedar_version: CEDAR_VERSION.to_owned(),
        rules_version: 2,
        reason: String::new(),
    }
}

/// A genesis entry with that authority, its ledger's id, and the trust state after it.
pub(crate) fn genesis() -> (Bytes, LedgerId, SharedTrust) {
    let origin = "example.org/logs/by-hand";
    let name = deed_tlog::KeyName::new(origin).expect("a key name");
    let genesis = Genesis {
        origin: origin.parse().expect("an origin"),
        log_key: deed_tlog::NoteSigner::from_seed(name, &[7; 32])
            .verifier_key()
            .clone(),
        authority_keys: vec![AUTHORITY_KEY],
        created_at: Micros::new(1),
        nonce: [5; 32],
        rules_version: deed_evidence::RULES_VERSION,
    };
    let entry = genesis.to_entry().expect("a valid genesis");
    let id = LedgerId::new(deed_tlog::leaf_hash(&entry));
    let trust = Trust::genesis(id, &genesis);
    (entry, id, Arc::new(RwLock::new(trust)))
}

/// A clock that the test moves.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    now: Mutex<i64>,
    /// The time since boot, and the id of that, on a machine that tells them.
    boot: Mutex<Option<(i64, String)>>,
}

impl TestClock {
    pub(crate) fn at(micros: i64) -> Arc<Self> {
        Arc::new(Self {
            now: Mutex::new(micros),
            boot: Mutex::new(None),
        })
    }

    pub(crate) fn set(&self, micros: i64) {
        *self.now.lock() = micros;
    }

    /// The machine is booted, and tells of it from now on.
    pub(crate) fn boots(&self, id: &str) {
        *self.boot.lock() = Some((0, id.to_owned()));
    }

    /// Time passes.
    pub(crate) fn pass(&self, micros: i64) {
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

/// The producer, unless a test says otherwise.
pub(crate) const AGENT: &str = "spiffe://example.org/agent";

/// The session that a producer derives from this number.
pub(crate) fn session_of(ledger_id: LedgerId, producer: &str, session: u8) -> SessionId {
    SessionId::derive(ledger_id, producer, &Nonce::new([session; 16]))
}

/// The task that a producer opens as this number.
pub(crate) fn task_of(ledger_id: LedgerId, producer: &str, task: u8) -> TaskId {
    TaskId::derive(ledger_id, producer, &Nonce::new([task; 16]))
}

/// The number of the task that a [`Producer`] speaks of.
pub(crate) const TASK: u8 = 9;

/// Statements of one session, as its producer makes them.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) ledger_id: LedgerId,
    pub(crate) producer: String,
    /// The task that its statements are of; an authority's are of none.
    pub(crate) task: TaskId,
    /// Somebody else's session, in place of its own.
    pub(crate) intrudes: Option<SessionId>,
    session: u8,
    pub(crate) next: u64,
    pub(crate) previous: Option<PayloadDigest>,
}

impl Producer {
    pub(crate) fn new(ledger_id: LedgerId, session: u8) -> Self {
        Self {
            ledger_id,
            producer: AGENT.to_owned(),
            task: task_of(ledger_id, AGENT, TASK),
            intrudes: None,
            session,
            next: 0,
            previous: None,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        let own = || session_of(self.ledger_id, &self.producer, self.session);
        self.intrudes.unwrap_or_else(own)
    }

    fn envelope(&mut self, skipped_from: Option<u64>, chained: bool, body: Body) -> v1::Envelope {
        let previous = self.previous.filter(|_| chained);
        self.statement(|statement| {
            if let Some(digest) = previous {
                statement.previous = Bytes::copy_from_slice(digest.as_bytes());
            }
            statement.skipped_from = skipped_from;
            statement.body = Some(body);
        })
    }

    /// The next statement, with everything that `fill` says beside its place in the session.
    pub(crate) fn statement(&mut self, fill: impl FnOnce(&mut v1::Statement)) -> v1::Envelope {
        let mut statement = v1::Statement {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: Bytes::copy_from_slice(self.session().as_bytes()),
            sequence: self.next,
            task: if self.producer.starts_with("deed:") {
                Bytes::new()
            } else {
                Bytes::copy_from_slice(self.task.as_bytes())
            },
            ..v1::Statement::default()
        };
        fill(&mut statement);
        let is_first = statement.sequence == 0 || statement.skipped_from == Some(0);
        if is_first && self.intrudes.is_none() {
            statement.nonce = vec![self.session; 16].into();
        }
        let payload = statement::encode(&statement).expect("a valid statement");
        self.next += 1;
        self.previous = Some(PayloadDigest::of(&payload));
        v1::Envelope {
            payload_type: v1::PayloadType::Statement.into(),
            payload,
            ..v1::Envelope::default()
        }
    }

    /// Opens the task of this number.
    pub(crate) fn opens(&mut self, task: u8, opened: v1::TaskOpened) -> v1::Envelope {
        let id = task_of(self.ledger_id, &self.producer, task);
        self.statement(|statement| {
            statement.task = Bytes::copy_from_slice(id.as_bytes());
            statement.body = Some(Body::TaskOpened(v1::TaskOpened {
                nonce: vec![task; 16].into(),
                ..opened
            }));
        })
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

/// Signs an envelope's payload.
pub(crate) fn signed(mut envelope: v1::Envelope, key: &SigningKey) -> v1::Envelope {
    let signature = signature::sign(key, envelope.payload_type(), &envelope.payload);
    let id = signature::key_id(key.public_key());
    envelope.key_id = Bytes::copy_from_slice(id.as_bytes());
    envelope.signature = Bytes::copy_from_slice(&signature);
    envelope
}

/// A signed batch manifest over some envelopes, and these.
pub(crate) fn batched(envelopes: Vec<v1::Envelope>, key: &SigningKey) -> Vec<v1::Envelope> {
    let payloads: Vec<_> = envelopes.iter().map(|e| e.payload.clone()).collect();
    let manifest = Manifest::over(&payloads).expect("a batch");
    let mut all = vec![signed(
        v1::Envelope {
            payload_type: v1::PayloadType::BatchManifest.into(),
            payload: manifest.encode(),
            ..v1::Envelope::default()
        },
        key,
    )];
    all.extend(envelopes);
    all
}

/// The authority's session.
#[derive(Clone)]
pub(crate) struct Authority {
    producer: Producer,
    key: SigningKey,
}

impl Authority {
    pub(crate) fn new(ledger_id: LedgerId) -> Self {
        let mut producer = Producer::new(ledger_id, 0xa0);
        producer.producer = "deed:authority".to_owned();
        Self {
            producer,
            key: authority(),
        }
    }

    pub(crate) fn says(&mut self, body: Body) -> v1::Envelope {
        signed(self.producer.envelope(None, false, body), &self.key)
    }

    /// Opens the task of this number.
    pub(crate) fn opens(&mut self, task: u8, opened: v1::TaskOpened) -> v1::Envelope {
        signed(self.producer.opens(task, opened), &self.key)
    }

    /// Registers a key for a producer.
    pub(crate) fn registers(&mut self, key: &SigningKey, producer: &str) -> v1::Envelope {
        let body = registration(self.producer.ledger_id, key, producer);
        self.says(Body::KeyRegistered(body))
    }

    pub(crate) fn revokes(&mut self, key: &SigningKey) -> v1::Envelope {
        let id = signature::key_id(key.public_key());
        self.says(Body::KeyRevoked(v1::KeyRevoked {
            key_id: Bytes::copy_from_slice(id.as_bytes()),
            ..v1::KeyRevoked::default()
        }))
    }
}

/// A key's registration, with its proof of possession.
pub(crate) fn registration(
    ledger_id: LedgerId,
    key: &SigningKey,
    producer: &str,
) -> v1::KeyRegistered {
    let controller = "https://example.org/team";
    let possession = Possession {
        ledger_id,
        public_key: key.public_key().as_bytes(),
        role: v1::KeyRole::Agent,
        producer,
        controller,
    }
    .sign(key);
    v1::KeyRegistered {
        public_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
        role: v1::KeyRole::Agent.into(),
        producer: producer.to_owned(),
        controller: controller.to_owned(),
        possession: Bytes::copy_from_slice(&possession),
        ..v1::KeyRegistered::default()
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
        // What one request is, is one turn, however busy this machine is.
        let whole = Duration::from_secs(3600);
        Self::open_by(data_dir, TestClock::at(1_000_000), whole, wrap)
    }

    /// The same, with turns of so much time.
    pub(crate) fn open_with(
        data_dir: &Path,
        turn_time: Duration,
        wrap: impl FnOnce(Disk) -> Disk,
    ) -> Self {
        Self::open_by(data_dir, TestClock::at(1_000_000), turn_time, wrap)
    }

    /// The same by a clock of the test's.
    pub(crate) fn open_at(
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
        let (shards, threads) = Shards::start_on(vec![disk], &store, 1 << 20, turn_time, &metrics);
        // Of a clock that tells of no boot, the test says what time it is, also after a restart.
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
        let registry = Arc::new(Registry::new(
            Arc::clone(&store),
            identity,
            Arc::clone(&time),
        ));
        let content = ContentOptions {
            // Inside, so that it goes with the directory.
            key_file: data_dir.join("content.key"),
            ..ContentOptions::new(data_dir)
        };
        let contents = ContentStore::open(data_dir, &content, 0, &store, Arc::clone(&time) as _);
        let appends = Appends {
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
    pub(crate) fn create(&self, name: &str) -> Result<Arc<Ledger>, String> {
        self.create_under(deed_evidence::RULES_VERSION, name)
    }

    /// The same under older rules.
    pub(crate) fn create_under(&self, rules: u32, name: &str) -> Result<Arc<Ledger>, String> {
        let keys = [Bytes::from_static(&AUTHORITY_KEY)];
        self.registry
            .create_under(rules, name, &keys, |new| {
                let number = new.ledger.number;
                let room = block_on(self.appends.shards.reserve(number, SourceKey::Server, 0));
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
    ) -> Result<v1::AppendResponse, AppendError> {
        self.append_from(&self.appends.pressure.unknown(), ledger, envelopes)
    }

    /// The same, over a connection.
    pub(crate) fn append_from(
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
        block_on(async {
            self.appends
                .begin(ledger, request, &Sender::anybody(), source, OnQuota::Refuse)
                .await?
                .finish()
                .await
                .map(Answered::into_response)
        })
    }

    /// Writes findings as a turn does, to the leaves and under the numbers that they name.
    pub(crate) fn find(&self, ledger: &Ledger, findings: &[v1::Finding]) {
        let mut batch = Batch::default();
        for finding in findings {
            let key = keys::finding(ledger.number, finding.leaf_index, finding.number);
            let record = finding.encode_to_vec();
            self.store.put(&mut batch, Family::State, &key, &record);
        }
        self.store.commit(batch).unwrap();
    }

    /// Stops the threads and closes the store.
    pub(crate) fn close(self) {
        self.appends.contents.close();
        self.appends.shards.stop();
        self.threads.join();
    }
}

/// The services' context, of a server that is not stopped.
pub(crate) fn context_that_stays(engine: &Engine) -> Context {
    context(engine).0
}

/// The services' context, and the sender that stops them.
pub(crate) fn context(engine: &Engine) -> (Context, watch::Sender<bool>) {
    let (stop, stopping) = watch::channel(false);
    let appends = &engine.appends;
    let context = Context {
        registry: Arc::clone(&engine.registry),
        appends: Arc::new(Appends {
            registry: Arc::clone(&appends.registry),
            shards: Arc::clone(&appends.shards),
            contents: Arc::clone(&appends.contents),
            clock: Arc::clone(&appends.clock),
            pressure: Arc::clone(&appends.pressure),
            queue_wait: appends.queue_wait,
            metrics: Arc::clone(&appends.metrics),
        }),
        contents: Arc::clone(&appends.contents),
        listener: Arc::default(),
        pressure: Arc::clone(&appends.pressure),
        stopping,
        metrics: Arc::clone(&appends.metrics),
    };
    (context, stop)
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
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

/// The lines that are logged on this thread meanwhile.
pub(crate) fn log_of(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    String::from_utf8(log.0.lock().clone()).unwrap()
}
