//! Connections that are cut, delayed and repeated: every statement is in the log exactly once, in
//! the order of its session.
//!
//! Producers that sign batches, sign each statement, or sign nothing stream through the library's
//! appender. Another one is the real `deed append --session`, killed and started again. Each of
//! them is behind a proxy of its own ([`deed_tests::proxy`]). At the end the log is read as a whole
//! and computed again.
//!
//! It runs three seeds with 80 cuts each; `DEED_RECONNECT_ROUNDS` sets more seeds,
//! `DEED_RECONNECT_CUTS` more cuts, `DEED_TEST_SEED` one seed alone.

mod killed;

use std::{
    collections::{HashMap, HashSet},
    env,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_client::{
    Answer, Appended, AppenderOptions, ErrorKind, Header, Ledger, Options, Pending, RetryPolicy,
    Session, Signing, StateDir,
};
use deed_evidence::{
    Nonce, PayloadDigest, SessionId, TaskId,
    batch::{self, Manifest},
    entry::Entry,
    statement,
};
use deed_proto::v1::{self, Author, PayloadType};
use deed_tests::{
    keys::{self, Authority},
    oracle::Log,
    process::{ServerProcess, fsck_clean},
    proxy::{Faults, Proxy, Report},
    random::Random,
    rpc::{Clients, TestLedger, accepted},
    run_within,
    statements::intent,
    until, within,
};
use deed_tlog::{Hash, SigningKey, TreeHead};
use tempfile::TempDir;

use killed::{KILLED, kill_again_and_again, resource, step};

const ROUNDS: u64 = 3;

/// Cuts in each round, over all producers.
const CUTS: u64 = 80;

/// Cuts that each single producer must have lived through.
const CUTS_EACH: u64 = 5;

/// A request has about 6 KB and its answer, with proofs, 15 KB: some go through before the next
/// cut.
const FAULTS: Faults = Faults {
    cut_bytes_max: 96 << 10,
    delay_once_in: 20,
    delay_ms_max: 30,
};

/// Statements that one session has at most, in requests of up to [`REQUEST_MAX`].
const REQUESTS_MAX: u64 = 30;
const REQUEST_MAX: u64 = 25;

const UNDER_WAY_MAX: usize = 8;

/// The authority's session has a number that no producer has.
const AUTHORITY_SESSION: u64 = 0xa << 60;

const LEDGER: &str = "cut";

const TASK: TaskId = TaskId::new([0x7a; 16]);

/// The producers' statements and receipts.
#[derive(Debug, Default)]
struct Shared {
    /// All statements that were ever handed over, by session, in order.
    sent: Mutex<HashMap<[u8; 16], Sent>>,
    acknowledged: Mutex<Vec<Acknowledged>>,
    heads: Mutex<Vec<TreeHead>>,
    stop: AtomicBool,
}

#[derive(Debug)]
struct Sent {
    author: Author,
    digests: Vec<PayloadDigest>,
}

#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    leaf: u64,
    leaf_hash: Hash,
    digest: PayloadDigest,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Must be called before a statement leaves.
    fn send(&self, session: SessionId, author: Author, payloads: &[Bytes]) {
        let mut sent = self.sent.lock().unwrap();
        let sent = sent.entry(*session.as_bytes()).or_insert_with(|| Sent {
            author,
            digests: Vec::new(),
        });
        let digests = payloads.iter().map(|payload| PayloadDigest::of(payload));
        sent.digests.extend(digests);
    }

    /// Every statement must have a verified receipt: it was sent until it had one.
    fn take(&self, answer: &Answer, payloads: &[Bytes]) {
        assert_eq!(answer.items.len(), payloads.len());
        let items = answer.items.iter().zip(payloads);
        let acknowledged: Vec<_> = items
            .map(|(item, payload)| {
                let (Appended::Accepted(receipt) | Appended::Duplicate(receipt)) = item else {
                    panic!("rejected: {item:?}");
                };
                assert!(receipt.inclusion_verified, "{receipt:?}");
                Acknowledged {
                    leaf: receipt.leaf_index.get(),
                    leaf_hash: receipt.leaf_hash,
                    digest: PayloadDigest::of(payload),
                }
            })
            .collect();
        self.acknowledged.lock().unwrap().extend(acknowledged);
        let head = answer.head.expect("a head that covers them");
        self.heads.lock().unwrap().push(head);
    }
}

/// A producer that streams through the library.
struct Streamer {
    number: u64,
    name: String,
    signing: Signing,
    url: String,
    ledger: TestLedger,
    state: TempDir,
    random: Random,
    shared: Arc<Shared>,
}

impl Streamer {
    fn author(&self) -> Author {
        match self.signing {
            Signing::None => Author::Unsigned,
            Signing::Each(_) => Author::Signed,
            Signing::Batch(_) => Author::Batched,
        }
    }

    async fn connect(&self) -> Ledger {
        connect(&self.url, self.state.path()).await
    }

    /// Sends sessions of some hundred statements, one after the other.
    async fn stream(mut self) {
        let client = self.connect().await;
        assert_eq!(client.ledger_id(), self.ledger.id);
        let appender = client.appender(AppenderOptions {
            requests_in_flight_max: UNDER_WAY_MAX,
            answer_timeout_ms: 5_000,
            signing: self.signing.clone(),
            ..AppenderOptions::default()
        });
        let mut under_way: Vec<(Pending, Vec<Bytes>)> = Vec::new();
        let mut sessions = 0_u64;
        while !self.shared.stopping() {
            let mut nonce = [0x5e; 16];
            nonce[8..].copy_from_slice(&(self.number << 32 | sessions).to_be_bytes());
            sessions += 1;
            let mut session = Session::with_nonce(self.ledger.id, &self.name, Nonce::new(nonce));
            let id = session.id();
            for _ in 0..self.random.between(1, REQUESTS_MAX) {
                let payloads = self.request(&mut session);
                self.shared.send(id, self.author(), &payloads);
                let pending = appender.send(payloads.clone()).await;
                under_way.push((pending.expect("the appender lives"), payloads));
                if under_way.len() == UNDER_WAY_MAX {
                    let (pending, payloads) = under_way.remove(0);
                    let answer = pending.await.expect("an answer in the end");
                    self.shared.take(&answer, &payloads);
                }
            }
        }
        for (pending, payloads) in under_way {
            let answer = pending.await.expect("an answer in the end");
            self.shared.take(&answer, &payloads);
        }
        appender.finish().await.expect("all heads on one line");
    }

    fn request(&mut self, session: &mut Session) -> Vec<Bytes> {
        let header = Header {
            task: Some(TASK),
            ..Header::default()
        };
        (0..self.random.between(1, REQUEST_MAX))
            .map(|_| {
                let bytes = usize::try_from(self.random.between(1, 300)).expect("a length");
                let body = intent(&"r".repeat(bytes));
                let made = session.make(&header, body);
                made.expect("a statement by the rules").payload
            })
            .collect()
    }
}

async fn connect(url: &str, state: &Path) -> Ledger {
    let retry = RetryPolicy {
        initial_ms: 2,
        pause_ms_max: 20,
        attempts_max: 10_000,
        total_ms_max: 60_000,
    };
    let options = Options::new(url, LEDGER)
        .state(StateDir::new(state))
        .retry(retry)
        .timeout_ms(5_000)
        .link_interval_ms(100);
    // The first connection is tried once, and may be cut like any other.
    until("a connection that lasts for a while", || async {
        match Ledger::connect(options.clone()).await {
            Ok(client) => Some(client),
            Err(error) if error.kind() == ErrorKind::Unavailable => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await
}

fn name_of(number: u64) -> String {
    format!("spiffe://example.org/agent/{number}")
}

fn key_of(number: u64) -> SigningKey {
    keys::key(u8::try_from(0xc0 + number).expect("a small number"))
}

/// Counts of a log's contents.
#[derive(Debug, Default)]
struct Found {
    statements: usize,
    manifests: usize,
    trust: usize,
    /// Statements of the process that was killed.
    killed: usize,
}

/// Compares the log with everything that was sent and acknowledged.
fn check(log: &Log, shared: &Shared) -> Found {
    let sent = shared.sent.lock().unwrap();
    let entries: Vec<Entry<'_>> = log
        .entries
        .iter()
        .map(|bytes| Entry::parse(bytes).expect("an entry"))
        .collect();
    let mut found = Found::default();
    let mut killed_session = None;
    let mut next: HashMap<[u8; 16], usize> = HashMap::new();
    let mut digests = HashMap::new();
    // Leaf 0 is the ledger's own.
    for (leaf, entry) in entries.iter().enumerate().skip(1) {
        if entry.payload_type == PayloadType::BatchManifest {
            check_batch(leaf, &entries);
            found.manifests += 1;
            continue;
        }
        let header = entry.statement().expect("a statement");
        if header.producer == statement::AUTHORITY_PRODUCER {
            found.trust += 1;
            continue;
        }
        let session = *header.session.as_bytes();
        if header.producer == name_of(KILLED) {
            assert_eq!(*killed_session.get_or_insert(session), session);
            assert_eq!(header.sequence.get(), found.killed as u64, "leaf {leaf}");
            assert_eq!(resource(entry.payload), step(header.sequence.get()));
            assert_eq!(entry.author, Author::Signed);
            found.killed += 1;
            continue;
        }
        let sent = sent.get(&session).expect("a session that somebody began");
        let position = next.entry(session).or_default();
        assert_eq!(
            header.sequence.get(),
            *position as u64,
            "leaf {leaf}: every sequence once, in order"
        );
        let digest = PayloadDigest::of(entry.payload);
        let wanted = sent.digests.get(*position).expect("no more than was sent");
        assert_eq!(digest, *wanted, "leaf {leaf}: another statement");
        assert_eq!(entry.author, sent.author, "leaf {leaf}");
        *position += 1;
        found.statements += 1;
        digests.insert(leaf as u64, digest);
    }
    for (session, sent) in sent.iter() {
        let recorded = next.get(session).copied().unwrap_or_default();
        assert_eq!(recorded, sent.digests.len(), "every statement of a session");
    }
    let acknowledged = shared.acknowledged.lock().unwrap();
    let mut leaves = HashSet::new();
    for one in acknowledged.iter() {
        assert!(leaves.insert(one.leaf), "one receipt a statement");
        assert_eq!(digests.get(&one.leaf), Some(&one.digest));
        let leaf = usize::try_from(one.leaf).expect("a leaf");
        assert_eq!(log.leaf_hashes[leaf], one.leaf_hash);
    }
    assert_eq!(leaves.len(), found.statements, "a receipt for each");
    log.expect_heads(shared.heads.lock().unwrap().iter().copied());
    let Found {
        statements,
        manifests,
        trust,
        killed,
    } = found;
    assert_eq!(
        1 + statements + manifests + trust + killed,
        log.entries.len()
    );
    found
}

/// Checks that the statements of a batch are right behind their manifest, and are those that were
/// signed.
fn check_batch(leaf: usize, entries: &[Entry<'_>]) {
    let manifest = Manifest::parse(entries[leaf].payload).expect("a manifest");
    let count = manifest.count.get() as usize;
    let members = &entries[leaf + 1..leaf + 1 + count];
    assert!(members.iter().all(|entry| entry.author == Author::Batched));
    let statements = members.iter().map(|entry| {
        let header = entry.statement().expect("a statement");
        (header, entry.payload)
    });
    batch::check(&manifest, statements).expect("the batch that was signed");
}

async fn round(seed: u64, cuts: u64) {
    let mut random = Random::new(seed);
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    let server = ServerProcess::start(&data);
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, LEDGER).await;
    let shared = Arc::new(Shared::default());

    let mut proxies = Vec::new();
    let mut producers = Vec::new();
    let mut authority = Authority::new(ledger.id, AUTHORITY_SESSION);
    let signed = (2..=KILLED).map(|number| authority.registers(&key_of(number), &name_of(number)));
    let request = v1::AppendRequest {
        envelopes: signed.collect(),
        ..ledger.request(&[])
    };
    let registered = within("the registrations", clients.append(request)).await;
    for result in &registered.expect("an answer").results {
        accepted(result);
    }
    for number in 1..KILLED {
        let name = name_of(number);
        let signing = match number {
            1 => Signing::None,
            2 => Signing::Each(key_of(number).into()),
            _ => Signing::Batch(key_of(number).into()),
        };
        let proxy = Proxy::start(server.address(), FAULTS, random.fork()).await;
        let streamer = Streamer {
            number,
            name,
            signing,
            url: proxy.url(),
            ledger: ledger.clone(),
            state: TempDir::new().unwrap(),
            random: random.fork(),
            shared: Arc::clone(&shared),
        };
        proxies.push(Arc::new(proxy));
        producers.push(tokio::spawn(streamer.stream()));
    }

    let proxy = Arc::new(Proxy::start(server.address(), FAULTS, random.fork()).await);
    let killing = tokio::spawn(kill_again_and_again(
        Arc::clone(&proxy),
        server.url(),
        random.fork(),
    ));
    proxies.push(proxy);

    let report = || proxies.iter().map(|proxy| proxy.report());
    loop {
        let before: Report = report().sum();
        if before.cuts >= cuts && report().all(|one| one.cuts >= CUTS_EACH) {
            break;
        }
        until("another cut", || async {
            let gave_up = producers.iter().any(tokio::task::JoinHandle::is_finished);
            let now: Report = report().sum();
            (gave_up || now.cuts > before.cuts).then_some(())
        })
        .await;
        let gave_up = producers.iter().any(tokio::task::JoinHandle::is_finished);
        assert!(!gave_up, "a producer gave up");
    }
    let killed = killing
        .await
        .expect("a session that survives its processes");
    shared.stop.store(true, Ordering::Relaxed);
    // Everything that was begun is finished, on a network without faults.
    for proxy in &proxies {
        proxy.heal();
    }
    for producer in producers {
        within("the end of a producer", producer)
            .await
            .expect("a producer without a failure");
    }

    let log = Log::read(&clients, &ledger).await;
    let found = check(&log, &shared);
    assert_eq!(found.trust, 4);
    assert_eq!(found.killed as u64, killed, "a receipt for each");
    assert!(killed > 0);
    assert!(found.manifests > 0);
    let total: Report = report().sum();
    eprintln!("seed {seed}: {found:?}, {total:?}");
    drop(proxies);
    server.stop();
    eprintln!("{}", fsck_clean(&data).trim());
}

#[test]
fn every_statement_is_there_once_whatever_the_network_does() {
    let number = |name, default| match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    };
    let rounds = match env::var_os("DEED_TEST_SEED") {
        Some(_) => 1,
        None => number("DEED_RECONNECT_ROUNDS", ROUNDS),
    };
    let cuts = number("DEED_RECONNECT_CUTS", CUTS);
    let max = Duration::from_secs(rounds * (60 + cuts));
    run_within(max, async move {
        let mut random = Random::seeded();
        for _ in 0..rounds {
            let seed = match rounds {
                // A single round repeats exactly the seed that was printed.
                1 => number("DEED_TEST_SEED", random.next()),
                _ => random.next(),
            };
            eprintln!("round with DEED_TEST_SEED={seed}");
            round(seed, cuts).await;
        }
    });
}
