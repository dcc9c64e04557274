//! The writers and readers of the overload test.

use std::{
    collections::VecDeque,
    path::Path,
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
use deed_evidence::{Nonce, TaskId};
use deed_proto::v1::{self, get_inclusion_proof_request::Leaf};
use deed_tests::{
    access,
    keys::{self, signed},
    random::Random,
    rpc::TestLedger,
    statements::intent,
    until, within,
};
use deed_tlog::{Hash, SigningKey, TreeHead};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::{BUSY, LEDGER};

const BUSY_REQUESTS_UNDER_WAY: usize = 4;
const BUSY_STATEMENTS: usize = 256;

pub(crate) const GREEDY_CONNECTIONS: usize = 16;
const GREEDY_STREAMS: usize = 16;
const GREEDY_REQUESTS: usize = 8;
const GREEDY_STATEMENTS: usize = 256;

const SLOW_STATEMENTS: usize = 10;
const SLOW_REQUESTS_UNDER_WAY: usize = 8;

const BUSY_SESSION: u64 = 1;
const SLOW_SESSION: u64 = 2;
const GREEDY_SESSION: u64 = 3;

const TASK: TaskId = TaskId::new([0x7a; 16]);

/// The receipts of producers that use the library.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Statements that have a receipt.
    pub(crate) receipts: AtomicU64,
    /// Number of retries.
    pub(crate) retries: AtomicU64,
}

/// Chooses the counters of a kind of producer.
pub(crate) type Which = fn(&Shared) -> &Told;

/// The counters of all clients.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    pub(crate) busy: Told,
    pub(crate) slow: Told,
    /// A client that writes as the greedy principal, and follows the server's advice.
    pub(crate) polite: Told,
    /// Receipts of the greedy one; all but the first few are for duplicates.
    pub(crate) greedy: AtomicU64,
    /// Requests of the greedy one that were refused for lack of room.
    pub(crate) greedy_refused: AtomicU64,
    pub(crate) acknowledged: Mutex<Vec<(u64, Hash)>>,
    pub(crate) heads: Mutex<Vec<TreeHead>>,
}

impl Shared {
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Every statement must have a verified receipt.
    pub(crate) fn take(&self, answer: &Answer, which: Which) {
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
        let count = answer.items.len() as u64;
        which(self).receipts.fetch_add(count, Relaxed);
        let head = answer.head.expect("a head that covers them");
        self.heads.lock().unwrap().push(head);
    }

    /// Returns the number of statements that the slow producer wants by now: half of those of a
    /// busy one.
    pub(crate) fn slow_wants(&self) -> u64 {
        self.busy.receipts.load(Relaxed) / BUSY as u64 / 2
    }
}

/// One of the 64 principals: its name is that of its only producer, so that the log shows its
/// share.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    pub(crate) number: u64,
    pub(crate) token: Token,
}

impl Principal {
    pub(crate) fn name(number: u64) -> String {
        format!("spiffe://example.org/agent/{number}")
    }

    /// Makes its token; the server need not be running.
    pub(crate) fn new(data: &Path, number: u64) -> Self {
        let roles = ["--ledger", LEDGER, "--role", "append,read"];
        let token = access::Token::create(data, &Self::name(number), &roles);
        Self {
            number,
            token: Token::parse(&token.0).expect("a token"),
        }
    }

    pub(crate) fn access(&self) -> Access {
        Access::new().token(self.token.clone())
    }

    pub(crate) async fn connect(&self, url: &str) -> Connection {
        until("a connection", || async {
            Connection::open_with(url, self.access()).await.ok()
        })
        .await
    }

    pub(crate) fn key(number: u64) -> SigningKey {
        keys::key(u8::try_from(2 + number).expect("a small number"))
    }

    /// Returns a verifying appender that counts its retries.
    pub(crate) async fn appender(
        &self,
        url: &str,
        requests_in_flight_max: usize,
        signing: Signing,
        shared: &Arc<Shared>,
        which: Which,
    ) -> Appender {
        let retry = RetryPolicy {
            initial_ms: 20,
            pause_ms_max: 500,
            attempts_max: 10_000,
            total_ms_max: 120_000,
        };
        let counting = Arc::clone(shared);
        let options = Options::new(url, LEDGER)
            .access(self.access())
            .retry(retry)
            .observer(move |event| {
                if matches!(event, Event::Retrying { .. }) {
                    which(&counting).retries.fetch_add(1, Relaxed);
                }
            });
        let ledger = until("a verified connection", || async {
            Ledger::connect(options.clone()).await.ok()
        })
        .await;
        ledger.appender(AppenderOptions {
            requests_in_flight_max,
            // With proofs the clients would have most of the work. The log is checked as a whole.
            with_proofs: false,
            answer_timeout_ms: 120_000,
            signing,
            ..AppenderOptions::default()
        })
    }

    /// Begins a session of its producer.
    pub(crate) fn session(&self, ledger: &TestLedger, number: u64) -> Session {
        let mut nonce = [0x5e; 16];
        nonce[..8].copy_from_slice(&self.number.to_be_bytes());
        nonce[8..].copy_from_slice(&number.to_be_bytes());
        Session::with_nonce(ledger.id, Self::name(self.number), Nonce::new(nonce))
    }
}

pub(crate) fn intents(session: &mut Session, count: usize) -> Vec<Bytes> {
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

/// Sends as many requests as it may, all the time.
pub(crate) async fn busy(
    principal: Principal,
    url: String,
    ledger: TestLedger,
    shared: Arc<Shared>,
    which: Which,
) {
    let signing = Signing::Each(Principal::key(principal.number).into());
    let appender = principal
        .appender(&url, BUSY_REQUESTS_UNDER_WAY, signing, &shared, which)
        .await;
    let mut session = principal.session(&ledger, BUSY_SESSION);
    let mut under_way = VecDeque::new();
    while !shared.stopping() {
        let payloads = intents(&mut session, BUSY_STATEMENTS);
        let pending = appender.send(payloads).await;
        under_way.push_back(pending.expect("the appender lives"));
        if under_way.len() == BUSY_REQUESTS_UNDER_WAY
            && let Some(pending) = under_way.pop_front()
        {
            let answer = pending.await.expect("an answer in the end");
            shared.take(&answer, which);
        }
    }
    for pending in under_way {
        let answer = pending.await.expect("an answer in the end");
        shared.take(&answer, which);
    }
    appender.finish().await.expect("all heads on one line");
}

/// Sends a little at a time, whenever it has asked for less than it wants.
pub(crate) async fn slow(
    principal: Principal,
    url: String,
    ledger: TestLedger,
    shared: Arc<Shared>,
) {
    let which: Which = |shared| &shared.slow;
    // Waiting statements become one batch, as by default: a stream has its turn request by request.
    let signing = Signing::Batch(Principal::key(principal.number).into());
    let appender = principal
        .appender(&url, SLOW_REQUESTS_UNDER_WAY, signing, &shared, which)
        .await;
    let mut session = principal.session(&ledger, SLOW_SESSION);
    let mut under_way = VecDeque::new();
    while !shared.stopping() {
        if session.next().get() < shared.slow_wants() && under_way.len() < SLOW_REQUESTS_UNDER_WAY {
            let payloads = intents(&mut session, SLOW_STATEMENTS);
            let pending = appender.send(payloads).await;
            under_way.push_back(pending.expect("the appender lives"));
            continue;
        }
        // The loop continues with an answer, or checks again what it wants.
        let look_again = Duration::from_millis(5);
        match under_way.front_mut() {
            Some(pending) => {
                if let Ok(answer) = tokio::time::timeout(look_again, pending).await {
                    under_way.pop_front();
                    shared.take(&answer.expect("an answer in the end"), which);
                }
            }
            None => tokio::time::sleep(look_again).await,
        }
    }
    for pending in under_way {
        let answer = pending.await.expect("an answer in the end");
        shared.take(&answer, which);
    }
    appender.finish().await.expect("all heads on one line");
}

/// Makes the greedy one's requests: signed, in the order of one session.
pub(crate) fn greedy_requests(
    principal: &Principal,
    ledger: &TestLedger,
) -> Vec<v1::AppendRequest> {
    let mut session = principal.session(ledger, GREEDY_SESSION);
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

/// Runs all connections and streams of the greedy one.
pub(crate) async fn greedy(
    principal: Principal,
    url: String,
    ledger: TestLedger,
    shared: Arc<Shared>,
) {
    let requests = greedy_requests(&principal, &ledger);
    let mut streams = JoinSet::new();
    for _ in 0..GREEDY_CONNECTIONS {
        let connection = principal.connect(&url).await;
        for stream in 0..GREEDY_STREAMS {
            streams.spawn(greedy_streams(
                connection.clone(),
                requests.clone(),
                // One stream of each connection is never read from.
                stream > 0,
                Arc::clone(&shared),
            ));
        }
    }
    while let Some(ended) = streams.join_next().await {
        ended.expect("refusals with a time to come back");
    }
}

/// Runs streams one after the other, each of which sends everything that flow control allows, until
/// the server ends it.
pub(crate) async fn greedy_streams(
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

pub(crate) async fn greedy_stream(
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

/// Reads heads and proofs of random leaves, one after the other; returns the time that each took.
pub(crate) async fn reader(
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
            min_size: 0,
        };
        let head = within("a head", connection.log().get_tree_head(request)).await;
        let head = ledger.open(&head.expect("a head").into_inner().checkpoint);
        took[0].push(begun.elapsed());
        let request = v1::GetInclusionProofRequest {
            ledger: ledger.name.clone(),
            leaf: Some(Leaf::LeafIndex(random.between(0, head.size.get() - 1))),
            tree_size: 0,
            min_size: 0,
        };
        let begun = Instant::now();
        let proof = within("a proof", connection.log().get_inclusion_proof(request)).await;
        ledger.check_inclusion(&proof.expect("a proof").into_inner());
        took[1].push(begun.elapsed());
    }
    took
}
