//! 200,000 malformed requests while another client works: the server stays up, its memory does not
//! grow, and the other client notices nothing.

mod requests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_proto::v1;
use deed_tests::{
    PATIENCE,
    access::send,
    contents::Content,
    keys::{Authority, batch, key, signed},
    oracle::Log,
    process::{ServerCommand, ServerProcess, fsck_clean},
    random::Random,
    rpc::{Clients, TestLedger},
    run_within,
    statements::Producer,
    within,
};
use deed_tlog::{Checkpoint, VerifierKey};
use prost::Message as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::{Code, transport::Channel};

use requests::{grpc_request, header_flood, http2_frames, mutate, pick, random_protocol};

/// The seed is fixed, so the requests are always the same.
const SEED: u64 = 0x5eed_0003;

/// Number of requests of each kind, in both rounds together: 200,000.
const KINDS: [(Kind, usize); 9] = [
    (Kind::RandomBytes, 3_000),
    (Kind::Http2Frames, 4_000),
    (Kind::HeaderFlood, 1_000),
    (Kind::TilePath, 60_000),
    (Kind::GrpcFrame, 40_000),
    (Kind::Protobuf, 32_000),
    (Kind::Append, 40_000),
    (Kind::Erase, 10_000),
    (Kind::PutContent, 10_000),
];

/// A first part of them warms the server up: after it, the threads' stacks, RocksDB's memtables and
/// the allocator's pools exist, and only leaks still grow.
const WARM_UP_PART: usize = 5;

/// Most growth of the server's memory from the first part to the end: 100 bytes for each of these
/// 160,000. The good client's statements (memtables of 1 MiB for each family, their index) and
/// variations of the allocator were some 2 MiB when this was written.
const GROWTH_KIB_MAX: u64 = 16 << 10;

/// Connections that are kept open, and requests under way on each.
const CONNECTIONS: usize = 4;
const AT_ONCE: usize = 32;

/// Requests of one write over HTTP/1.1.
const PIPELINED: usize = 50;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Bytes of no protocol.
    RandomBytes,
    /// HTTP/2's preface, and then random frames.
    Http2Frames,
    /// More headers than a request may have.
    HeaderFlood,
    /// HTTP paths of tiles, changed.
    TilePath,
    /// Bodies that are no gRPC messages: wrong lengths, wrong flags.
    GrpcFrame,
    /// gRPC messages that are no Protobuf, to every rpc.
    Protobuf,
    /// Requests to append, changed.
    Append,
    /// Erasures, changed.
    Erase,
    /// Uploads out of order.
    PutContent,
}

/// Valid requests, and answers to them, from which the malformed ones are made.
struct Target {
    server: ServerProcess,
    ledger: TestLedger,
    appends: Vec<Vec<u8>>,
    erasure: Vec<u8>,
    answers: Mutex<BTreeMap<(Kind, String), usize>>,
}

#[test]
fn two_hundred_thousand_malformed_requests() {
    run_within(Duration::from_secs(540), async {
        assert_eq!(KINDS.iter().map(|(_, count)| count).sum::<usize>(), 200_000);
        eprintln!("random numbers: {SEED:#x}");
        let dir = TempDir::new().expect("a temporary directory");
        let data = dir.path().join("data");
        let small = ["store.memtable_mib=1", "store.block_cache_mib=8"];
        let server = ServerCommand::new(&data)
            .arguments(small.iter().flat_map(|setting| ["--set", setting]))
            .rust_log("warn")
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let target = Arc::new(Target::new(server, &clients, ledger).await);

        let stop = Arc::new(AtomicBool::new(false));
        let good = tokio::spawn(good_client(Arc::clone(&target), Arc::clone(&stop)));
        let mut random = Random::new(SEED);
        attack(&target, &mut random, |all| all / WARM_UP_PART).await;
        let warm_kib = target.server.resident_kib();
        attack(&target, &mut random, |all| all - all / WARM_UP_PART).await;
        let after_kib = target.server.resident_kib();
        stop.store(true, Ordering::Relaxed);
        let served = within("the good client's end", good).await;
        let served = served.expect("the good client was served");

        eprintln!("{warm_kib} KiB after warm-up, {after_kib} KiB at the end; good: {served}");
        for ((kind, answer), count) in target.answers.lock().expect("nobody panicked").iter() {
            eprintln!("{count:>7} {kind:?}: {answer}");
        }
        assert!(served > 0, "the good client was served");
        assert!(
            after_kib <= warm_kib + GROWTH_KIB_MAX,
            "{warm_kib} KiB grew to {after_kib} KiB"
        );
        // The log holds the good client's statements, in order, and nothing else.
        let log = Log::read(&clients, &target.ledger).await;
        assert_eq!(log.entries.len(), SETUP_LEAVES + served);
        let log_lines = target.server.log();
        assert!(!log_lines.contains("panicked"), "{log_lines}");
        assert!(!log_lines.contains("request failed"), "{log_lines}");
        drop(clients);
        let target = Arc::into_inner(target).expect("everybody has ended");
        target.server.stop();
        fsck_clean(&data);
    });
}

/// Genesis, a key, a statement, a batch of three with its manifest.
const SETUP_LEAVES: usize = 7;

const AGENT: &str = "spiffe://example.org/agent/known";

impl Target {
    async fn new(server: ServerProcess, clients: &Clients, ledger: TestLedger) -> Self {
        let mut authority = Authority::new(ledger.id, 900);
        let registered = authority.registers(&key(10), AGENT);
        let mut agent = Producer::new(ledger.id, 1).named(AGENT);
        let request = |envelopes| v1::AppendRequest {
            envelopes,
            with_proofs: true,
            ..ledger.request(&[])
        };
        let appends = [
            request(vec![registered]),
            request(vec![signed(&agent.intent("orders/1"), &key(10))]),
            request(batch(&agent.intents(3), &key(10))),
        ];
        for request in &appends {
            let answer = clients.append(request.clone()).await.expect("an answer");
            assert!(!answer.checkpoint.is_empty());
        }
        let erasure = v1::EraseContentRequest {
            ledger: ledger.name.clone(),
            envelope: Some(authority.erases(&Content::new(1, "unknown").digest())),
            ..v1::EraseContentRequest::default()
        };
        Self {
            server,
            appends: appends
                .iter()
                .map(v1::AppendRequest::encode_to_vec)
                .collect(),
            erasure: erasure.encode_to_vec(),
            ledger,
            answers: Mutex::default(),
        }
    }

    fn note(&self, kind: Kind, answer: impl ToString) {
        let mut answers = self.answers.lock().expect("nobody panicked");
        *answers.entry((kind, answer.to_string())).or_default() += 1;
    }
}

/// Sends a part of the requests of every kind, all kinds at the same time.
async fn attack(target: &Arc<Target>, random: &mut Random, part: impl Fn(usize) -> usize) {
    let mut attackers = JoinSet::new();
    for (kind, all) in KINDS {
        let count = part(all);
        for connection in 0..CONNECTIONS {
            let share = count / CONNECTIONS + usize::from(connection < count % CONNECTIONS);
            let (target, random) = (Arc::clone(target), random.fork());
            attackers.spawn(attacker(target, kind, random, share));
        }
    }
    while let Some(ended) = attackers.join_next().await {
        ended.expect("an attacker that ends");
    }
}

async fn attacker(target: Arc<Target>, kind: Kind, mut random: Random, count: usize) {
    match kind {
        Kind::RandomBytes | Kind::Http2Frames | Kind::HeaderFlood => {
            for _ in 0..count {
                let bytes = match kind {
                    Kind::RandomBytes => random_protocol(&mut random),
                    Kind::Http2Frames => http2_frames(&mut random),
                    _ => header_flood(&mut random),
                };
                throw(&target, kind, &bytes).await;
            }
        }
        Kind::TilePath => tile_paths(&target, &mut random, count).await,
        _ => {
            let channel = Clients::open(&target.server.url()).await.channel;
            let mut workers = JoinSet::new();
            for worker in 0..AT_ONCE {
                let share = count / AT_ONCE + usize::from(worker < count % AT_ONCE);
                let (target, channel) = (Arc::clone(&target), channel.clone());
                let mut random = random.fork();
                workers.spawn(async move {
                    for _ in 0..share {
                        let (path, body) = grpc_request(&target, kind, &mut random);
                        let code = call(&channel, &path, body).await;
                        target.note(kind, format!("{code:?}"));
                    }
                });
            }
            while let Some(ended) = workers.join_next().await {
                ended.expect("a worker that ends");
            }
        }
    }
}

async fn call(channel: &Channel, path: &str, body: Bytes) -> Code {
    let status = send(channel, path, body, None).await;
    let message = status.message();
    assert!(
        !message.contains("something went wrong here"),
        "{path}: {status:?}"
    );
    status.code()
}

/// Appends and reads as usual; returns the number of statements, each of which has a receipt.
async fn good_client(target: Arc<Target>, stop: Arc<AtomicBool>) -> usize {
    let clients = Clients::connect(&target.server).await;
    let ledger = &target.ledger;
    let mut producer = Producer::new(ledger.id, 2);
    let mut served = 0;
    let mut head = ledger.head(&clients).await;
    while !stop.load(Ordering::Relaxed) {
        let payload = producer.intent("orders/good");
        let (receipts, _) = ledger
            .append(&clients, std::slice::from_ref(&payload))
            .await;
        let leaf = receipts[0].leaf_index;
        served += 1;
        let answer = within("entries", clients.entries("payments", leaf, leaf + 1)).await;
        let entries = answer.expect("entries").remove(0).entries;
        assert!(
            entries[0].windows(payload.len()).any(|w| w == payload),
            "another entry"
        );
        head = ledger.check_grown(&clients, &head).await;
    }
    served
}

/// Writes bytes to a connection of its own, closes it, and waits until the server does, too.
async fn throw(target: &Target, kind: Kind, bytes: &[u8]) {
    let mut socket = within("a connection", TcpStream::connect(target.server.address()))
        .await
        .expect("a connection");
    // The server may close it before it has read everything.
    let written = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    let read = read.expect("the server ends a connection that is no good");
    let what = match (written, read) {
        (Ok(()), Ok(0)) => "closed".to_owned(),
        (Ok(()), Ok(_)) => first_word(&answer),
        _ => "reset".to_owned(),
    };
    target.note(kind, what);
}

/// Returns the status of an HTTP/1 answer, or a text for any other answer.
fn first_word(answer: &[u8]) -> String {
    match answer.strip_prefix(b"HTTP/1.1 ") {
        Some(rest) => String::from_utf8_lossy(&rest[..rest.len().min(3)]).into_owned(),
        None => "HTTP/2".to_owned(),
    }
}

/// Paths of tiles, changed, many in one write.
async fn tile_paths(target: &Target, random: &mut Random, count: usize) {
    const PATHS: [&str; 7] = [
        "/logs/payments/checkpoint",
        "/logs/payments/tile/0/000.p/7",
        "/logs/payments/tile/1/x001/234",
        "/logs/payments/tile/63/x001/x234/067.p/255",
        "/logs/payments/tile/entries/000.p/7",
        "/logs/payments/tile/entries/x999/999",
        "/logs/elsewhere/tile/0/000",
    ];
    let mut left = count;
    while left > 0 {
        let now = left.min(PIPELINED);
        left -= now;
        let mut requests = String::new();
        for n in 1..=now {
            let path: &&str = pick(random, &PATHS);
            let path = mutate(random, path.as_bytes());
            let path: String = path.iter().map(|byte| written(*byte)).collect();
            let end = if n == now {
                "connection: close\r\n"
            } else {
                ""
            };
            requests += &format!("GET /{path} HTTP/1.1\r\nhost: x\r\n{end}\r\n");
        }
        let mut socket = within("a connection", TcpStream::connect(target.server.address()))
            .await
            .expect("a connection");
        let (mut answers, mut sink) = socket.split();
        let mut answered = Vec::new();
        let (sent, read) = within("the answers", async {
            tokio::join!(
                sink.write_all(requests.as_bytes()),
                answers.read_to_end(&mut answered)
            )
        })
        .await;
        sent.expect("the server takes them all");
        read.expect("the server answers them all");
        let mut found = 0;
        for at in positions(&answered, b"HTTP/1.1 ") {
            let status = String::from_utf8_lossy(&answered[at + 9..at + 12]).into_owned();
            assert!(!status.starts_with('5'), "{status} to one of {requests}");
            target.note(Kind::TilePath, status);
            found += 1;
        }
        assert!(found >= now, "{found} answers to {now} requests");
    }
}

/// Returns a byte of a path: unchanged where that is possible, otherwise percent-encoded.
fn written(byte: u8) -> String {
    match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'/' | b'.' | b'-' | b'_' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02x}"),
    }
}

fn positions<'a>(text: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = text.windows(wanted.len()).enumerate();
    windows
        .filter(move |(_, window)| *window == wanted)
        .map(|(at, _)| at)
}

/// A client that reads a changed checkpoint never takes it for another valid one.
#[test]
fn changed_notes_are_never_read_as_another_checkpoint() {
    run_within(Duration::from_secs(240), async {
        let dir = TempDir::new().expect("a temporary directory");
        let server = ServerProcess::start(&dir.path().join("data"));
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let good = clients.checkpoint("payments").await.expect("a checkpoint");
        let head = ledger.open(&good);
        let vkey: &VerifierKey = &ledger.vkey;
        let mut random = Random::new(SEED);
        let mut accepted = 0;
        for _ in 0..20_000 {
            let changed = mutate(&mut random, &good);
            if let Ok((read, _)) = Checkpoint::open(&changed, vkey) {
                // Signatures of other keys, which are skipped, may differ; the text may not.
                assert_eq!(read.head, head, "{}", String::from_utf8_lossy(&changed));
                accepted += 1;
            }
        }
        assert!(accepted < 1_000, "{accepted} changed notes were taken");
        server.stop();
    });
}
