//! Far more than the server can take: what it holds stays bounded, nobody loses a receipt, nobody
//! is starved, and readers are served meanwhile.
//!
//! 64 principals, each with a token and a key, write into one ledger whose bounds are small. 62 are
//! *busy*: they have several requests under way all the time. One is *slow*: it asks for half of
//! what a busy one gets. One is *greedy*: many connections with many streams each, new ones at once
//! for those that are refused, and answers that it does not read. It sends the same signed requests
//! over and over: that costs it nothing, and the server a verification each time. What all of them
//! want to have under way is many times what the bounds let the server hold.
//!
//! Everybody shares the machine's cores with the server. So that what is measured is the server, the
//! slow one, the readers and the watch over memory have a thread of their own each.
//!
//! 6 seconds; `DEED_OVERLOAD_SECONDS=60` for a minute.

use std::{
    collections::VecDeque,
    env,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use deed_client::{
    Access, Answer, Appended, Appender, AppenderOptions, Connection, Event, Header, Ledger,
    Options, RetryPolicy, Session, Signing, Token,
};
use deed_evidence::{
    SessionId, TaskId,
    entry::Entry,
    signature::{self, Possession},
    statement,
};
use deed_proto::v1::{self, PayloadType, get_inclusion_proof_request::Leaf, statement::Body};
use deed_tests::{
    http::Http,
    oracle::Log,
    process::{ServerCommand, ServerProcess, fsck_clean, program},
    random::Random,
    rpc::{Clients, TestLedger, accepted},
    run_within,
    statements::{Producer, envelope, intent},
    until, within,
};
use deed_tlog::{Hash, SigningKey, TreeHead};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const SECONDS: u64 = 6;

const MIB: u64 = 1 << 20;

/// The bounds that are set, in MiB.
const CONNECTION_MIB: u64 = 8;
const LEDGER_MIB: u64 = 16;
const SERVER_MIB: u64 = 16;
const QUEUE_MIB: u64 = 16;
const BLOCK_CACHE_MIB: u64 = 16;
const MEMTABLE_MIB: u64 = 4;

/// Bytes of requests that HTTP/2's flow control lets a connection send before anybody looks at
/// them (`CONNECTION_WINDOW_BYTES` of the server).
const WINDOW_MIB: u64 = 8;

/// RocksDB's: families, and memtables that each may have.
const FAMILIES: u64 = 6;
const MEMTABLES_MAX: u64 = 4;

/// What the allocator and everything that is small may take beyond all that.
const SLACK_MIB: u64 = 64;

const BUSY: usize = 62;
const BUSY_REQUESTS_UNDER_WAY: usize = 4;
const BUSY_STATEMENTS: usize = 256;

const GREEDY_CONNECTIONS: usize = 16;
const GREEDY_STREAMS: usize = 16;
const GREEDY_REQUESTS: usize = 8;
const GREEDY_STATEMENTS: usize = 256;

const SLOW_STATEMENTS: usize = 10;
const SLOW_REQUESTS_UNDER_WAY: usize = 8;

const LEDGER: &str = "crowded";

const TASK: TaskId = TaskId::new([0x7a; 16]);

/// What producers were told, and how often they were turned away.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    /// Statements of all busy producers that have a receipt.
    busy: AtomicU64,
    /// Those of the slow one.
    slow: AtomicU64,
    /// Receipts of the greedy one, all but the first few of them for duplicates.
    greedy: AtomicU64,
    /// Its requests that were refused for lack of room.
    greedy_refused: AtomicU64,
    acknowledged: Mutex<Vec<(u64, Hash)>>,
    heads: Mutex<Vec<TreeHead>>,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Every statement must have a verified receipt.
    fn take(&self, answer: &Answer, count: &AtomicU64) {
        let receipts: Vec<_> = answer
            .items
            .iter()
            .map(|item| match item {
                Appended::Accepted(receipt) | Appended::Duplicate(receipt) => {
                    (receipt.leaf_index.get(), receipt.leaf_hash)
                }
                Appended::Rejected(_) => panic!("rejected: {item:?}"),
            })
            .collect();
        self.acknowledged.lock().unwrap().extend(receipts);
        count.fetch_add(answer.items.len() as u64, Relaxed);
        let head = answer.head.expect("a head that covers them");
        self.heads.lock().unwrap().push(head);
    }

    /// What the slow producer wants to have by now: half of what a busy one has.
    fn slow_wants(&self) -> u64 {
        self.busy.load(Relaxed) / BUSY as u64 / 2
    }
}

/// One of the 64: its name is that of its only producer, so that the log tells who got how much.
#[derive(Debug, Clone)]
struct Principal {
    number: u64,
    token: Token,
}

impl Principal {
    fn name(number: u64) -> String {
        format!("spiffe://example.org/agent/{number}")
    }

    /// Makes its token; the server need not run.
    fn new(data: &Path, number: u64) -> Self {
        let made = Command::new(program("deed-server"))
            .args(["token", "create", "--principal", &Self::name(number)])
            .args(["--ledger", LEDGER, "--role", "append,read", "--data-dir"])
            .arg(data)
            .output()
            .expect("deed-server runs");
        assert!(made.status.success(), "{made:?}");
        let text = String::from_utf8(made.stdout).expect("text");
        Self {
            number,
            token: Token::parse(&text).expect("a token"),
        }
    }

    fn access(&self) -> Access {
        Access::new().token(self.token.clone())
    }

    async fn connect(&self, url: &str) -> Connection {
        until("a connection", || async {
            Connection::open_with(url, self.access()).await.ok()
        })
        .await
    }

    fn key(number: u64) -> SigningKey {
        let mut seed = [0xc0; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        SigningKey::from_seed(&seed)
    }

    /// A verifying appender, with a count of the times that it tried again.
    async fn appender(
        &self,
        url: &str,
        requests_in_flight_max: usize,
        with_proofs: bool,
    ) -> (Appender, Arc<AtomicU64>) {
        let retry = RetryPolicy {
            initial_ms: 20,
            pause_ms_max: 500,
            attempts_max: 10_000,
            total_ms_max: 120_000,
        };
        let retries = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&retries);
        let options = Options::new(url, LEDGER)
            .access(self.access())
            .retry(retry)
            .observer(move |event| {
                if matches!(event, Event::Retrying { .. }) {
                    counting.fetch_add(1, Relaxed);
                }
            });
        let ledger = until("a verified connection", || async {
            Ledger::connect(options.clone()).await.ok()
        })
        .await;
        let appender = ledger.appender(AppenderOptions {
            requests_in_flight_max,
            with_proofs,
            signing: Signing::Each(Self::key(self.number).into()),
            ..AppenderOptions::default()
        });
        (appender, retries)
    }

    /// Its session.
    fn session(&self, ledger: &TestLedger) -> Session {
        let mut id = [0x5e; 16];
        id[..8].copy_from_slice(&self.number.to_be_bytes());
        Session::with_id(ledger.id, Self::name(self.number), SessionId::new(id))
    }
}

fn intents(session: &mut Session, count: usize) -> Vec<Bytes> {
    let header = Header {
        task: Some(TASK),
        ..Header::default()
    };
    (0..count)
        .map(|_| {
            let made = session.make(&header, intent("orders/7"));
            made.expect("a statement by the rules").payload
        })
        .collect()
}

/// As many requests as it may, all the time. Returns how often it had to try again.
async fn busy(principal: Principal, url: String, ledger: TestLedger, shared: Arc<Shared>) -> u64 {
    let (appender, retries) = principal
        .appender(&url, BUSY_REQUESTS_UNDER_WAY, false)
        .await;
    let mut session = principal.session(&ledger);
    let mut under_way = VecDeque::new();
    while !shared.stopping() {
        let payloads = intents(&mut session, BUSY_STATEMENTS);
        let pending = appender.send(payloads).await;
        under_way.push_back(pending.expect("the appender lives"));
        if under_way.len() == BUSY_REQUESTS_UNDER_WAY
            && let Some(pending) = under_way.pop_front()
        {
            let answer = pending.await.expect("an answer in the end");
            shared.take(&answer, &shared.busy);
        }
    }
    for pending in under_way {
        let answer = pending.await.expect("an answer in the end");
        shared.take(&answer, &shared.busy);
    }
    appender.finish().await.expect("all heads on one line");
    retries.load(Relaxed)
}

/// A little at a time, whenever it has asked for less than it wants. Returns the same.
async fn slow(principal: Principal, url: String, ledger: TestLedger, shared: Arc<Shared>) -> u64 {
    let (appender, retries) = principal
        .appender(&url, SLOW_REQUESTS_UNDER_WAY, true)
        .await;
    let mut session = principal.session(&ledger);
    let mut under_way = VecDeque::new();
    while !shared.stopping() {
        if session.next().get() < shared.slow_wants() && under_way.len() < SLOW_REQUESTS_UNDER_WAY {
            let payloads = intents(&mut session, SLOW_STATEMENTS);
            let pending = appender.send(payloads).await;
            under_way.push_back(pending.expect("the appender lives"));
            continue;
        }
        // An answer, or another look at what it wants.
        let look_again = Duration::from_millis(5);
        match under_way.front_mut() {
            Some(pending) => {
                if let Ok(answer) = tokio::time::timeout(look_again, pending).await {
                    under_way.pop_front();
                    shared.take(&answer.expect("an answer in the end"), &shared.slow);
                }
            }
            None => tokio::time::sleep(look_again).await,
        }
    }
    for pending in under_way {
        let answer = pending.await.expect("an answer in the end");
        shared.take(&answer, &shared.slow);
    }
    appender.finish().await.expect("all heads on one line");
    retries.load(Relaxed)
}

/// What the greedy one sends: signed, in the order of one session.
fn greedy_requests(principal: &Principal, ledger: &TestLedger) -> Vec<v1::AppendRequest> {
    let mut session = principal.session(ledger);
    let key = Principal::key(principal.number);
    (0..GREEDY_REQUESTS)
        .map(|_| {
            let payloads = intents(&mut session, GREEDY_STATEMENTS);
            v1::AppendRequest {
                envelopes: payloads
                    .iter()
                    .map(|payload| signed(payload, &key))
                    .collect(),
                ..ledger.request(&[])
            }
        })
        .collect()
}

/// Streams, one after the other, each of which sends all that flow control lets it send, until the
/// server has had enough of it.
async fn greedy(
    connection: Connection,
    requests: Vec<v1::AppendRequest>,
    reads: bool,
    shared: Arc<Shared>,
) {
    while !shared.stopping() {
        if let Err(status) = greedy_stream(&connection, requests.clone(), reads, &shared).await
            && status.code() == Code::ResourceExhausted
        {
            let retry = status.get_details_retry_info();
            let delay = retry.and_then(|retry| retry.retry_delay);
            assert!(delay.is_some_and(|delay| !delay.is_zero()), "{status:?}");
            shared.greedy_refused.fetch_add(1, Relaxed);
        }
        // It does not wait for as long as it was asked to.
        tokio::task::yield_now().await;
    }
}

async fn greedy_stream(
    connection: &Connection,
    requests: Vec<v1::AppendRequest>,
    reads: bool,
    shared: &Shared,
) -> Result<(), Status> {
    let requests = tokio_stream::iter(requests.into_iter().cycle());
    let mut client = connection.ledger();
    let mut answers = client.append_stream(requests).await?.into_inner();
    while !shared.stopping() {
        if !reads {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        match answers.message().await? {
            Some(answer) => {
                let receipts = answer.results.len() as u64;
                shared.greedy.fetch_add(receipts, Relaxed);
            }
            None => break,
        }
    }
    Ok(())
}

/// Reads heads and proofs of any leaf, one after the other, and returns how long each took.
async fn reader(
    principal: Principal,
    url: String,
    mut random: Random,
    ledger: TestLedger,
    shared: Arc<Shared>,
) -> [Vec<Duration>; 2] {
    let connection = principal.connect(&url).await;
    let mut took = [Vec::new(), Vec::new()];
    while !shared.stopping() {
        let begun = Instant::now();
        let request = v1::GetTreeHeadRequest {
            ledger: ledger.name.clone(),
            consistency_from: None,
        };
        let head = within("a head", connection.log().get_tree_head(request)).await;
        let head = ledger.open(&head.expect("a head").into_inner().checkpoint);
        took[0].push(begun.elapsed());
        let request = v1::GetInclusionProofRequest {
            ledger: ledger.name.clone(),
            leaf: Some(Leaf::LeafIndex(random.between(0, head.size.get() - 1))),
            tree_size: 0,
        };
        let begun = Instant::now();
        let proof = within("a proof", connection.log().get_inclusion_proof(request)).await;
        ledger.check_inclusion(&proof.expect("a proof").into_inner());
        took[1].push(begun.elapsed());
    }
    took
}

/// What the admin port said, at most.
#[derive(Debug, Default)]
struct Peak {
    resident_bytes: u64,
    queue_bytes: u64,
    looks: u64,
}

impl Peak {
    async fn look(&mut self, admin: &mut Http) -> u64 {
        let text = admin.fetch("/metrics").await;
        let text = String::from_utf8(text.into()).expect("text");
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.rsplit(' ').next());
            let value: Option<u64> = value.and_then(|value| value.parse().ok());
            value.unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let resident = value("process_resident_memory_bytes");
        self.resident_bytes = self.resident_bytes.max(resident);
        self.queue_bytes = self.queue_bytes.max(value("deed_queue_bytes"));
        self.looks += 1;
        resident
    }
}

async fn watch_memory(admin: SocketAddr, shared: Arc<Shared>) -> Peak {
    let mut admin = Http::connect(admin).await;
    let mut peak = Peak::default();
    while !shared.stopping() {
        peak.look(&mut admin).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peak
}

/// What the server may hold by its settings, beyond what it held when nobody had called.
fn bound_mib() -> u64 {
    // What has room, and what waits for it; the queue is in the former.
    let requests = 2 * SERVER_MIB;
    // The greedy one fills its windows. The others have less under way than that, all together
    // less than one window.
    let windows = (GREEDY_CONNECTIONS as u64 + 1) * WINDOW_MIB;
    let store = BLOCK_CACHE_MIB + FAMILIES * MEMTABLES_MAX * MEMTABLE_MIB;
    requests + windows + store + SLACK_MIB
}

fn command(data: &Path) -> ServerCommand {
    let settings = [
        ("limits.connection_mib", CONNECTION_MIB),
        ("limits.ledger_mib", LEDGER_MIB),
        ("limits.server_mib", SERVER_MIB),
        ("limits.connections", 128),
        ("queue_mib", QUEUE_MIB),
        ("store.block_cache_mib", BLOCK_CACHE_MIB),
        ("store.memtable_mib", MEMTABLE_MIB),
    ];
    let settings = settings.map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
    ServerCommand::new(data).arguments(settings.concat())
}

/// Makes the ledger, in which each principal has a key and is bound to its producer.
async fn prepare(data: &Path, principals: u64) -> TestLedger {
    let server = command(data).start();
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, LEDGER).await;
    // As in `TestLedger::create`.
    let authority = SigningKey::from_seed(&[1; 32]);
    // In a session of its own each time.
    let says = |session: u64, body: Body| {
        let payload = statement::encode(&v1::Statement {
            producer: statement::AUTHORITY_PRODUCER.to_owned(),
            task: Bytes::new(),
            ..Producer::new(ledger.id, session).message(body)
        });
        signed(&payload.expect("a statement by the rules"), &authority)
    };
    let register = |number: u64| {
        let (name, key) = (Principal::name(number), Principal::key(number));
        let controller = "https://example.org/team";
        let possession = Possession {
            ledger_id: ledger.id,
            public_key: key.public_key().as_bytes(),
            role: v1::KeyRole::Agent,
            producer: &name,
            controller,
        };
        let body = Body::KeyRegistered(v1::KeyRegistered {
            public_key: Bytes::copy_from_slice(key.public_key().as_bytes()),
            role: v1::KeyRole::Agent.into(),
            producer: name.clone(),
            controller: controller.to_owned(),
            possession: Bytes::copy_from_slice(&possession.sign(&key)),
            ..v1::KeyRegistered::default()
        });
        let bound = Body::PrincipalBound(v1::PrincipalBound {
            principal: name.clone(),
            producer: name,
            valid_until_us: 0,
        });
        [says(number << 1, body), says(number << 1 | 1, bound)]
    };
    let request = v1::AppendRequest {
        envelopes: (0..principals).flat_map(register).collect(),
        ..ledger.request(&[])
    };
    let answer = within("the registrations", clients.append(request)).await;
    for result in &answer.expect("an answer").results {
        accepted(result);
    }
    server.stop();
    ledger
}

fn signed(payload: &Bytes, key: &SigningKey) -> v1::Envelope {
    let signed = signature::sign(key, PayloadType::Statement, payload);
    let key_id = signature::key_id(key.public_key());
    v1::Envelope {
        key_id: Bytes::copy_from_slice(key_id.as_bytes()),
        signature: Bytes::copy_from_slice(&signed),
        ..envelope(payload)
    }
}

/// Runs something on a thread of its own, so that it does not wait for others of this process.
fn apart<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the runtime starts");
        let _ = sender.send(runtime.block_on(task));
    });
    receiver
}

fn admin_address(server: &ServerProcess) -> SocketAddr {
    let stdout = server.stdout();
    let line = stdout
        .lines()
        .find_map(|line| line.strip_prefix("metrics and health on http://"));
    line.expect("an admin port").parse().expect("an address")
}

/// Tells how long answers took, and returns how many there were.
fn tell(what: &str, mut took: Vec<Duration>) -> usize {
    took.sort_unstable();
    let at = |percent: usize| {
        let last = took.len().saturating_sub(1);
        let at = (took.len() * percent / 100).min(last);
        took.get(at).copied().unwrap_or_default()
    };
    let (p50, p99, max) = (at(50), at(99), at(100));
    let count = took.len();
    eprintln!("{what}: {count} answered, p50 {p50:?}, p99 {p99:?}, longest {max:?}");
    count
}

/// Statements in the log by principal.
fn shares(log: &Log, principals: u64) -> Vec<u64> {
    let mut shares = vec![0; usize::try_from(principals).expect("a count")];
    for bytes in log.entries.iter().skip(1) {
        let entry = Entry::parse(bytes).expect("an entry");
        let header = entry.statement().expect("a statement");
        let number = header.producer.rsplit('/').next();
        if let Some(Ok(number)) = number.map(str::parse::<usize>) {
            shares[number] += 1;
        }
    }
    shares
}

async fn overload(seconds: u64, mut random: Random) {
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let count = BUSY as u64 + 3;
    let ledger = prepare(&data, count).await;
    let mut principals: Vec<_> = (0..count).map(|n| Principal::new(&data, n)).collect();
    let server = command(&data)
        .arguments(["--set", "access.required=true", "--admin", "127.0.0.1:0"])
        .start();
    let url = server.url();
    let mut admin = Http::connect(admin_address(&server)).await;
    let at_rest = Peak::default().look(&mut admin).await;

    let shared = Arc::new(Shared::default());
    let (reading, greedy_one, slow_one) = (
        principals.pop().expect("a principal"),
        principals.pop().expect("a principal"),
        principals.pop().expect("a principal"),
    );
    let run = |principal: &Principal| {
        let (principal, url) = (principal.clone(), url.clone());
        (principal, url, ledger.clone(), Arc::clone(&shared))
    };
    let watching = apart(watch_memory(admin_address(&server), Arc::clone(&shared)));
    let readers = [0, 1].map(|_| {
        let (principal, url, ledger, shared) = run(&reading);
        apart(reader(principal, url, random.fork(), ledger, shared))
    });
    let (principal, slow_url, slow_ledger, slow_shared) = run(&slow_one);
    let slow_producer = apart(slow(principal, slow_url, slow_ledger, slow_shared));
    let producers: Vec<_> = principals
        .iter()
        .map(|principal| {
            let (principal, url, ledger, shared) = run(principal);
            tokio::spawn(busy(principal, url, ledger, shared))
        })
        .collect();
    let requests = greedy_requests(&greedy_one, &ledger);
    let mut hostile = Vec::new();
    for _ in 0..GREEDY_CONNECTIONS {
        let connection = greedy_one.connect(&url).await;
        for stream in 0..GREEDY_STREAMS {
            hostile.push(tokio::spawn(greedy(
                connection.clone(),
                requests.clone(),
                // One stream of each connection is never read from.
                stream > 0,
                Arc::clone(&shared),
            )));
        }
    }

    // How long it goes on, not a wait for something.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (busy_mean, slow_has, greedy_has) = (
        shared.busy.load(Relaxed) / BUSY as u64,
        shared.slow.load(Relaxed),
        shared.greedy.load(Relaxed),
    );
    let slow_wants = shared.slow_wants();
    shared.stop.store(true, Relaxed);
    for task in hostile {
        within("the end of a greedy stream", task)
            .await
            .expect("refusals with a time to come back");
    }
    let mut retries = 0;
    for producer in producers {
        retries += within("the end of a producer", producer)
            .await
            .expect("a receipt for every statement");
    }
    let slow_retries = within("the end of the slow one", slow_producer)
        .await
        .expect("a receipt for every statement");
    let mut took = [Vec::new(), Vec::new()];
    for reader in readers {
        let one = within("the end of a reader", reader).await;
        let [heads, proofs] = one.expect("an answer to every read");
        took[0].extend(heads);
        took[1].extend(proofs);
    }
    let peak = watching.await.expect("figures all the time");
    server.stop();
    eprintln!("{}", fsck_clean(&data).trim());

    // Without access control, for the oracle.
    let server = command(&data).start();
    let clients = Clients::connect(&server).await;
    let log = Log::read(&clients, &ledger).await;
    let acknowledged = shared.acknowledged.lock().unwrap();
    for (leaf, leaf_hash) in acknowledged.iter() {
        let at = usize::try_from(*leaf).expect("a leaf");
        assert_eq!(log.leaf_hashes.get(at), Some(leaf_hash), "leaf {leaf}");
    }
    log.expect_heads(shared.heads.lock().unwrap().iter().copied());
    let shares = shares(&log, count);
    let of = |principal: &Principal| shares[usize::try_from(principal.number).expect("a count")];
    let mut busy_leaves: Vec<u64> = principals.iter().map(of).collect();
    busy_leaves.sort_unstable();
    let total: u64 = shares.iter().sum();
    let refused = shared.greedy_refused.load(Relaxed);
    eprintln!(
        "{seconds} s: {total} statements recorded, busy ones {} to {}; within the time: busy ones \
         {busy_mean} on average, slow {slow_has} of {slow_wants} wanted, greedy {greedy_has}",
        busy_leaves[0],
        busy_leaves[BUSY - 1],
    );
    eprintln!("refused: busy {retries} times, slow {slow_retries}, greedy {refused}");
    let bound = bound_mib();
    eprintln!(
        "memory: {} MiB at rest, {} MiB at most in {} looks, bound {} MiB; queue {} KiB at most",
        at_rest / MIB,
        peak.resident_bytes / MIB,
        peak.looks,
        at_rest / MIB + bound,
        peak.queue_bytes >> 10,
    );
    let [heads, proofs] = took;
    let reads = [tell("heads", heads), tell("inclusion proofs", proofs)];

    assert!(reads.iter().all(|count| *count > 0), "reads are answered");
    assert!(refused > 0, "it was no overload");
    assert!(retries > 0, "the library was never asked to come back later");
    assert!(peak.resident_bytes <= at_rest + bound * MIB, "memory");
    assert!(peak.queue_bytes <= QUEUE_MIB * MIB, "the queue");
    // Acknowledged and recorded are the same, but for what nobody waited for.
    let own = of(&slow_one) + busy_leaves.iter().sum::<u64>();
    assert_eq!(acknowledged.len() as u64, own, "one receipt a statement");
    server.stop();
}

#[test]
fn overload_is_shared_out_and_nothing_is_lost() {
    let seconds = match env::var("DEED_OVERLOAD_SECONDS") {
        Ok(seconds) => seconds.parse().expect("DEED_OVERLOAD_SECONDS is a number"),
        Err(_) => SECONDS,
    };
    let random = Random::seeded();
    run_within(
        Duration::from_secs(180 + 4 * seconds),
        overload(seconds, random),
    );
}
