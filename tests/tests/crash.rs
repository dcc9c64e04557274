//! kill -9 at random moments: nothing that was acknowledged is lost, and nothing is recorded twice.
//!
//! Producers stream into two ledgers all the time: two through the client library's pipelined
//! appender, and one over plain gRPC whose only rule is "send the same bytes again". Watchers note
//! every head that is shown. Meanwhile the server is killed and started again on the same directory
//! and port, with another number of shards. After each start both logs are read as a whole and
//! computed again.
//!
//! It runs 20 rounds; `DEED_CRASH_ROUNDS` sets more, `DEED_TEST_SEED` repeats the same moments.

use std::{
    collections::HashMap,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_client::{
    Answer, Appended, AppenderOptions, Ledger, Options, Pending, RetryPolicy, StateDir,
};
use deed_evidence::{PayloadDigest, receipt};
use deed_proto::v1::{self, append_result};
use deed_tests::{
    oracle::Log,
    process::{Launched, ServerCommand, ServerProcess, fsck_clean},
    random::Random,
    rpc::{Clients, TestLedger},
    run_within,
    statements::Producer,
    until, wait_for, within,
};
use deed_tlog::{Hash, TreeHead};
use tempfile::TempDir;

const ROUNDS: u64 = 20;

/// Rounds between two runs of `fsck`, which needs a stopped server and reads everything; it also
/// runs at the end.
const FSCK_EVERY: u64 = 5;

/// Longest time from the first acknowledgement of a round to its kill.
const LIFE_MS_MAX: u64 = 250;

/// The producers' receipts. None of them may ever turn out wrong.
#[derive(Debug, Clone, Default)]
struct Told {
    acknowledged: Vec<Acknowledged>,
    heads: Vec<TreeHead>,
}

#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    leaf: u64,
    leaf_hash: Hash,
    digest: PayloadDigest,
}

/// All statements that were ever sent, in the order of each session.
type Sent = HashMap<[u8; 16], Vec<PayloadDigest>>;

/// State that the producers and the killer share.
#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Told>,
    sent: Mutex<Sent>,
    stop: AtomicBool,
    /// Set while the log is read and computed again: otherwise it would grow faster than it is
    /// checked.
    pause: AtomicBool,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits until new statements may be sent. Requests under way go on.
    async fn may_send(&self) {
        while self.pause.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn acknowledged(&self) -> usize {
        self.told.lock().unwrap().acknowledged.len()
    }

    /// Must be called before a statement leaves.
    fn send(&self, producer: &Producer, payloads: &[Bytes]) {
        let session = producer.session().as_ref().try_into().unwrap();
        let digests = payloads.iter().map(|payload| PayloadDigest::of(payload));
        self.sent
            .lock()
            .unwrap()
            .entry(session)
            .or_default()
            .extend(digests);
    }

    /// Every statement must have a receipt: whatever happened, it was sent until it had one.
    fn take(&self, answer: &Answer, payloads: &[Bytes]) {
        assert_eq!(answer.items.len(), payloads.len());
        let mut told = self.told.lock().unwrap();
        for (item, payload) in answer.items.iter().zip(payloads) {
            let (Appended::Accepted(receipt) | Appended::Duplicate(receipt)) = item else {
                panic!("rejected: {item:?}");
            };
            told.acknowledged.push(Acknowledged {
                leaf: receipt.leaf_index.get(),
                leaf_hash: receipt.leaf_hash,
                digest: PayloadDigest::of(payload),
            });
        }
        told.heads
            .push(answer.head.expect("a head that covers them"));
    }
}

/// Compares the log with all statements that were acknowledged and sent. `told` must be from before
/// the log was read, `sent` from after.
fn check(log: &Log, told: &Told, sent: &Sent) {
    for acknowledged in &told.acknowledged {
        let found = log
            .leaf_hashes
            .get(usize::try_from(acknowledged.leaf).unwrap());
        assert_eq!(
            found,
            Some(&acknowledged.leaf_hash),
            "acknowledged leaf {} is not there",
            acknowledged.leaf
        );
    }
    log.expect_heads(told.heads.iter().copied());
    // In every session the statements are those that were sent, in order, once each; the last ones
    // may be under way.
    let mut digests = HashMap::new();
    for (session, recorded) in log.sessions() {
        let sent = sent.get(&session).expect("a session that somebody made");
        assert!(recorded.len() <= sent.len(), "more than was ever sent");
        for (recorded, sent) in recorded.iter().zip(sent) {
            assert_eq!(
                recorded.digest, *sent,
                "leaf {}: another statement",
                recorded.leaf
            );
            digests.insert(recorded.leaf, recorded.digest);
        }
    }
    for acknowledged in &told.acknowledged {
        assert_eq!(digests.get(&acknowledged.leaf), Some(&acknowledged.digest));
    }
}

/// Sends sessions of a few hundred statements, one after the other, through the library's appender.
async fn stream_with_library(
    url: String,
    ledger: TestLedger,
    state: TempDir,
    number: u64,
    mut random: Random,
    shared: Arc<Shared>,
) {
    let retry = RetryPolicy {
        initial_ms: 5,
        pause_ms_max: 50,
        attempts_max: 10_000,
        total_ms_max: 60_000,
    };
    let options = Options::new(url, &ledger.name)
        .state(StateDir::new(state.path()))
        .retry(retry)
        .link_interval_ms(100);
    let client = until("the library's connection", || async {
        match Ledger::connect(options.clone()).await {
            Ok(client) => Some(client),
            Err(deed_client::Error::Unreachable { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(client.ledger_id(), ledger.id);
    let appender = client.appender(AppenderOptions {
        requests_in_flight_max: 8,
        answer_timeout_ms: 10_000,
        ..AppenderOptions::default()
    });
    let mut under_way: Vec<(Pending, Vec<Bytes>)> = Vec::new();
    let mut sessions = 0;
    while !shared.stopping() {
        let mut producer = Producer::new(ledger.id, number << 32 | sessions);
        sessions += 1;
        for _ in 0..random.between(1, 12) {
            let size = usize::try_from(random.between(1, 40)).unwrap();
            let payloads = producer.intents(size);
            shared.may_send().await;
            shared.send(&producer, &payloads);
            let pending = appender
                .send(payloads.clone())
                .await
                .expect("the appender lives");
            under_way.push((pending, payloads));
            if under_way.len() == 8 {
                let (pending, payloads) = under_way.remove(0);
                shared.take(&pending.await.expect("an answer in the end"), &payloads);
            }
        }
    }
    for (pending, payloads) in under_way {
        shared.take(&pending.await.expect("an answer in the end"), &payloads);
    }
    appender.finish().await.expect("all heads on one line");
}

/// Sends one request at a time over plain gRPC: the same bytes until there is an answer.
async fn stream_plainly(
    url: String,
    ledger: TestLedger,
    number: u64,
    mut random: Random,
    shared: Arc<Shared>,
) {
    let mut clients = Clients::open(&url).await;
    let mut sessions = 0;
    while !shared.stopping() {
        let mut producer = Producer::new(ledger.id, number << 32 | sessions);
        sessions += 1;
        for _ in 0..random.between(1, 12) {
            let size = usize::try_from(random.between(1, 40)).unwrap();
            let payloads = producer.intents(size);
            shared.may_send().await;
            shared.send(&producer, &payloads);
            let answer = until("an answer in the end", || {
                let (ledger, clients, payloads) = (&ledger, clients.clone(), &payloads);
                async move { ledger.try_append(&clients, payloads).await.ok() }
            })
            .await;
            let head = ledger.open(&answer.checkpoint);
            let mut told = shared.told.lock().unwrap();
            for (result, payload) in answer.results.iter().zip(&payloads) {
                let (Some(append_result::Result::Accepted(found))
                | Some(append_result::Result::Duplicate(found))) = &result.result
                else {
                    panic!("rejected: {result:?}");
                };
                receipt::verify(found, &receipt::Sent::unsigned(payload), &head, false)
                    .expect("a receipt that holds");
                told.acknowledged.push(Acknowledged {
                    leaf: found.leaf_index,
                    leaf_hash: deed_tests::rpc::hash(&found.leaf_hash),
                    digest: PayloadDigest::of(payload),
                });
            }
            told.heads.push(head);
        }
        // Now and then the producer opens a new connection, as one that was restarted does.
        if random.once_in(4) {
            clients = Clients::open(&url).await;
        }
    }
}

/// Notes every head that the server shows, through all crashes.
async fn watch(url: String, ledger: TestLedger, shared: Arc<Shared>) {
    while !shared.stopping() {
        let clients = Clients::open(&url).await;
        let request = v1::WatchTreeHeadsRequest {
            ledger: ledger.name.clone(),
            consistency_from: None,
            min_size: 0,
        };
        let Ok(heads) = clients.log.clone().watch_tree_heads(request).await else {
            continue;
        };
        let mut heads = heads.into_inner();
        while let Ok(Some(answer)) = heads.message().await {
            let head = ledger.open(&answer.checkpoint);
            shared.told.lock().unwrap().heads.push(head);
        }
    }
}

/// Starts the server on the address of before; the port may be taken for a moment.
fn start(command: &ServerCommand) -> ServerProcess {
    wait_for("the port", || match command.try_start() {
        Ok(server) => Some(server),
        Err(ended) if ended.stderr.contains("cannot listen") => None,
        Err(ended) => panic!("the server does not start again: {ended:#?}"),
    })
}

/// Kills a server that does not listen yet: in the middle of recovery, or before.
async fn kill_while_starting(launched: Launched, random: &mut Random) {
    tokio::time::sleep(Duration::from_millis(random.between(0, 60))).await;
    launched.kill9();
}

/// One ledger, with everything that was told of it.
struct Watched {
    ledger: TestLedger,
    shared: Arc<Shared>,
    /// The newest head that was read outside of all producers.
    trusted: TreeHead,
}

impl Watched {
    async fn new(clients: &Clients, name: &str) -> Self {
        let ledger = TestLedger::create(clients, name).await;
        Self {
            trusted: ledger.head(clients).await,
            shared: Arc::default(),
            ledger,
        }
    }

    /// Compares the server's log with everything that was ever told.
    async fn check(&mut self, clients: &Clients) -> Log {
        self.trusted = self.ledger.check_grown(clients, &self.trusted).await;
        let told = self.shared.told.lock().unwrap().clone();
        let log = Log::read(clients, &self.ledger).await;
        check(&log, &told, &self.shared.sent.lock().unwrap());
        log
    }

    /// Checks that every statement that was sent is recorded once, and that a producer has a
    /// receipt of it.
    async fn check_complete(&mut self, clients: &Clients) -> Log {
        let log = self.check(clients).await;
        let (told, sent) = (
            self.shared.told.lock().unwrap(),
            self.shared.sent.lock().unwrap(),
        );
        let sessions = log.sessions();
        assert_eq!(sessions.len(), sent.len(), "every session");
        for (session, recorded) in &sessions {
            assert_eq!(
                recorded.len(),
                sent[session].len(),
                "every statement of a session"
            );
        }
        assert_eq!(
            told.acknowledged.len() + 1,
            log.entries.len(),
            "one receipt a statement"
        );
        log
    }
}

/// State of all rounds.
struct Crashes {
    command: ServerCommand,
    ledgers: [Watched; 2],
    random: Random,
}

impl Crashes {
    fn command(&mut self) -> ServerCommand {
        let shards = self.random.between(1, 3);
        self.command
            .clone()
            .arguments(["--shards".to_owned(), shards.to_string()])
    }

    fn acknowledged(&self) -> [usize; 2] {
        self.ledgers
            .each_ref()
            .map(|watched| watched.shared.acknowledged())
    }

    async fn recover(&mut self) -> ServerProcess {
        let server = start(&self.command());
        let clients = Clients::connect(&server).await;
        let pause = |ledgers: &[Watched], pause| {
            for watched in ledgers {
                watched.shared.pause.store(pause, Ordering::Relaxed);
            }
        };
        pause(&self.ledgers, true);
        for watched in &mut self.ledgers {
            watched.check(&clients).await;
        }
        pause(&self.ledgers, false);
        server
    }

    /// Runs from one start to the next crash.
    async fn round(&mut self, number: u64) {
        if self.random.once_in(4) {
            kill_while_starting(self.command().launch(), &mut self.random).await;
        }
        let before = self.acknowledged();
        let server = self.recover().await;
        until(
            "an acknowledgement in each ledger in this round",
            || async {
                let now = self.acknowledged();
                (now[0] > before[0] && now[1] > before[1]).then_some(())
            },
        )
        .await;
        // This is not a wait for an event: it is the time until the crash.
        let life = self.random.between(0, LIFE_MS_MAX);
        tokio::time::sleep(Duration::from_millis(life)).await;
        server.kill9();
        let now = self.acknowledged();
        eprintln!("round {number}: killed {life} ms after the checks, {now:?} acknowledged");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let rounds = match env::var("DEED_CRASH_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("DEED_CRASH_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    run_within(Duration::from_secs(120 + 15 * rounds), async move {
        let mut random = Random::seeded();
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        let server = ServerProcess::start(&data);
        let (url, address) = (server.url(), server.address());
        let clients = Clients::connect(&server).await;
        let ledgers = [
            Watched::new(&clients, "first").await,
            Watched::new(&clients, "second").await,
        ];
        server.kill9();

        let mut producers = Vec::new();
        let mut watchers = Vec::new();
        for (number, watched) in (1..).zip(&ledgers) {
            let streaming = stream_with_library(
                url.clone(),
                watched.ledger.clone(),
                TempDir::new().unwrap(),
                number,
                random.fork(),
                Arc::clone(&watched.shared),
            );
            producers.push(tokio::spawn(streaming));
            let watching = watch(
                url.clone(),
                watched.ledger.clone(),
                Arc::clone(&watched.shared),
            );
            watchers.push(tokio::spawn(watching));
        }
        let (ledger, shared) = (ledgers[0].ledger.clone(), Arc::clone(&ledgers[0].shared));
        producers.push(tokio::spawn(stream_plainly(
            url,
            ledger,
            3,
            random.fork(),
            shared,
        )));

        let mut crashes = Crashes {
            command: ServerCommand::new(&data).listen(address),
            ledgers,
            random,
        };
        for number in 1..=rounds {
            crashes.round(number).await;
            if number % FSCK_EVERY == 0 {
                fsck_clean(&data);
            }
            for task in producers.iter().chain(&watchers) {
                assert!(!task.is_finished(), "a producer or watcher gave up");
            }
        }

        // All producers finish what they began; then every statement is recorded, once.
        let server = crashes.recover().await;
        for watched in &crashes.ledgers {
            watched.shared.stop.store(true, Ordering::Relaxed);
        }
        for producer in producers {
            within("the end of a producer", producer)
                .await
                .expect("a producer without a failure");
        }
        let clients = Clients::connect(&server).await;
        for watched in &mut crashes.ledgers {
            let log = watched.check_complete(&clients).await;
            let heads = watched.shared.told.lock().unwrap().heads.len();
            let name = &watched.ledger.name;
            eprintln!(
                "{name}: {rounds} crashes, {} leaves, {heads} heads",
                log.head.size
            );
        }
        server.stop();
        for watcher in watchers {
            within("the end of a watcher", watcher)
                .await
                .expect("a watcher without a failure");
        }
        eprintln!("{}", fsck_clean(&data).trim());
    });
}
