//! 200,000 malformed requests while another client works: the server stays up, its memory does not
//! grow, and the other client notices nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deed_proto::v1::{self, put_content_request::Part};
use deed_tests::{
    PATIENCE,
    access::{frame, send},
    contents::{Content, part},
    keys::{Authority, batch, key, signed},
    oracle::Log,
    process::{ServerCommand, ServerProcess, fsck_clean},
    random::Random,
    rpc::{Clients, TestLedger},
    run_within,
    statements::Producer,
    wire::varint,
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

fn bytes(random: &mut Random, max: u64) -> Vec<u8> {
    let length = random.between(0, max);
    (0..length).map(|_| (random.next() & 0xff) as u8).collect()
}

fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> &'a T {
    let at = random.next() % all.len() as u64;
    &all[usize::try_from(at).expect("a short list")]
}

/// Changes, inserts, removes or repeats some bytes.
fn mutate(random: &mut Random, original: &[u8]) -> Vec<u8> {
    let mut changed = original.to_vec();
    for _ in 0..random.between(1, 4) {
        let at = usize::try_from(random.next() % (changed.len().max(1) as u64)).expect("a place");
        let byte = (random.next() & 0xff) as u8;
        match random.between(0, 5) {
            _ if changed.is_empty() => changed.push(byte),
            0 => changed[at] ^= 1 << random.between(0, 7),
            1 => changed[at] = byte,
            2 => changed.insert(at, byte),
            3 => drop(changed.remove(at)),
            4 => changed.truncate(at),
            _ => changed.extend_from_within(at..),
        }
    }
    changed
}

/// Returns random bytes, some of which begin like a request.
fn random_protocol(random: &mut Random) -> Vec<u8> {
    let begins: [&[u8]; 8] = [
        b"",
        b"GET ",
        b"GET /logs/payments/checkpoint HTTP/1.1\r\n",
        b"POST /deed.v1.Ledger/Append HTTP/1.1\r\nhost: x\r\ncontent-length: ",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: ",
    ];
    [pick(random, &begins), &bytes(random, 600)[..]].concat()
}

/// Returns HTTP/2's preface and frames whose type, flags, stream and length are random or nearly
/// right.
fn http2_frames(random: &mut Random) -> Vec<u8> {
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    if random.once_in(2) {
        out.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    }
    for _ in 0..random.between(1, 12) {
        let payload = bytes(random, 80);
        let said = match random.between(0, 3) {
            0 => random.next() & 0x00ff_ffff,
            _ => payload.len() as u64,
        };
        let kind = random.between(0, 10) as u8;
        let flags = (random.next() & 0xff) as u8;
        let stream = match random.between(0, 2) {
            0 => 0,
            1 => random.between(1, 9) as u32,
            _ => (random.next() & 0xffff_ffff) as u32,
        };
        out.extend(&(said as u32).to_be_bytes()[1..]);
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend(payload);
    }
    out
}

/// Returns endless headers, over HTTP/1.1, or over HTTP/2 as one HEADERS and many CONTINUATIONs.
fn header_flood(random: &mut Random) -> Vec<u8> {
    if random.once_in(2) {
        let mut out = b"GET /logs/payments/checkpoint HTTP/1.1\r\nhost: x\r\n".to_vec();
        for n in 0..random.between(101, 600) {
            out.extend(format!("x-{n}: {}\r\n", "y".repeat(200)).bytes());
        }
        out.extend(b"\r\n");
        return out;
    }
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // The field is a literal header without indexing, whose name and value are not compressed.
    let mut fields = Vec::new();
    while fields.len() < 16_000 {
        fields.extend([0, 3, b'x', b'-', b'y', 100]);
        fields.extend([b'z'; 100]);
    }
    let frames = random.between(2, 30);
    for frame in 0..frames {
        let kind = if frame == 0 { 1 } else { 9 };
        let flags = if frame + 1 == frames { 4 } else { 0 };
        out.extend(&u32::try_from(fields.len()).expect("short").to_be_bytes()[1..]);
        out.extend([kind, flags, 0, 0, 0, 1]);
        out.extend(&fields);
    }
    out
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

const RPCS: [&str; 21] = [
    "/deed.v1.Ledger/Append",
    "/deed.v1.Ledger/AppendStream",
    "/deed.v1.Ledger/CreateLedger",
    "/deed.v1.Ledger/ListLedgers",
    "/deed.v1.Ledger/GetLedger",
    "/deed.v1.Log/GetTreeHead",
    "/deed.v1.Log/WatchTreeHeads",
    "/deed.v1.Log/GetInclusionProof",
    "/deed.v1.Log/GetConsistencyProof",
    "/deed.v1.Log/GetEntries",
    "/deed.v1.Log/GetBatchProof",
    "/deed.v1.Log/GetTrustChain",
    "/deed.v1.Log/GetLogKeys",
    "/deed.v1.Log/GetSession",
    "/deed.v1.Content/PutContent",
    "/deed.v1.Content/GetContent",
    "/deed.v1.Content/EraseContent",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/deed.v1.Nobody/Nothing",
];

/// Returns path and body of a malformed request.
fn grpc_request(target: &Target, kind: Kind, random: &mut Random) -> (String, Bytes) {
    let (path, body) = match kind {
        Kind::GrpcFrame => (*pick(random, &RPCS), bad_frame(target, random)),
        Kind::Protobuf => (*pick(random, &RPCS), frame(&bad_message(target, random))),
        Kind::Append => {
            let original: &Vec<u8> = pick(random, &target.appends);
            let message = mutate(random, original);
            let path = *pick(random, &RPCS[..2]);
            (path, frame(&message))
        }
        Kind::Erase => {
            let message = mutate(random, &target.erasure);
            ("/deed.v1.Content/EraseContent", frame(&message))
        }
        _ => ("/deed.v1.Content/PutContent", upload(random)),
    };
    (path.to_owned(), body)
}

/// A body that is no sequence of messages.
fn bad_frame(target: &Target, random: &mut Random) -> Bytes {
    let message = pick(random, &target.appends);
    let mut body = frame(message).to_vec();
    match random.between(0, 7) {
        // The announced length is larger than the body, by a little or by gigabytes.
        0 => body[4] = body[4].wrapping_add(random.between(1, 100) as u8),
        1 => body[1..5].copy_from_slice(&u32::MAX.to_be_bytes()),
        2 => body[1..5].copy_from_slice(&(random.next() as u32).to_be_bytes()),
        // The announced length is smaller than the body.
        3 => body[4] /= 2,
        // The flag says that it is compressed, which was not agreed on; or has an undefined value.
        4 => body[0] = 1,
        5 => body[0] = random.between(2, 255) as u8,
        6 => body.truncate(random.between(0, 4) as usize),
        _ => body = bytes(random, 300),
    }
    body.into()
}

/// Returns bytes that are no message, or hardly one.
fn bad_message(target: &Target, random: &mut Random) -> Vec<u8> {
    match random.between(0, 4) {
        0 => bytes(random, 300),
        1 => {
            let message = pick(random, &target.appends);
            let length = random.next() % message.len() as u64;
            message[..usize::try_from(length).expect("short")].to_vec()
        }
        // Messages are nested deeper than any valid one.
        2 => {
            let mut message = bytes(random, 10);
            for _ in 0..random.between(90, 400) {
                message = [&[0x12][..], &varint(message.len() as u64), &message].concat();
            }
            message
        }
        // The ledger's name is valid, and nothing after it.
        3 => [b"\x0a\x08payments", &bytes(random, 100)[..]].concat(),
        // The numbers are out of range.
        _ => {
            let mut message = b"\x0a\x08payments".to_vec();
            for field in 2..random.between(3, 6) {
                message.extend(varint(field << 3));
                message.extend(varint(random.next() | 1 << 63));
            }
            message
        }
    }
}

/// Returns the messages of an upload in a wrong order.
fn upload(random: &mut Random) -> Bytes {
    let content = Content::new(random.next(), bytes(random, 400));
    let mut parts = content.parts("payments", 100);
    let begin = parts[0].clone();
    match random.between(0, 5) {
        0 => drop(parts.remove(0)),
        1 => parts.push(begin),
        2 => parts.rotate_left(1),
        3 => parts.push(part(Part::Chunk(Bytes::from_static(b"more")))),
        4 => parts.insert(1, v1::PutContentRequest { part: None }),
        _ => {
            if let Some(Part::Begin(begin)) = &mut parts[0].part {
                let digest = mutate(random, &begin.commitment);
                begin.commitment = digest.into();
            }
        }
    }
    // An empty upload has the same order whatever is changed.
    if content.bytes.is_empty() {
        parts.clear();
    }
    let frames = parts.iter().map(|part| frame(&part.encode_to_vec()));
    frames.collect::<Vec<_>>().concat().into()
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
