//! Far more requests than the server can take: its memory stays bounded, no receipt is lost, no
//! caller is starved, and readers are served meanwhile.
//!
//! 64 principals, each with a token and a key, write into one ledger whose bounds are small. 62 are
//! *busy*: they have several requests under way all the time. One is *slow*: it wants half of what
//! a busy one gets. One is *greedy*: it has many connections with many streams each, opens new ones
//! at once for those that are refused, and does not read its answers. It sends the same signed
//! requests over and over, which costs it nothing, and the server a verification each time.
//! Together they want many times more under way than the bounds allow.
//!
//! All clients share the machine's cores with the server. So that the server is what is measured,
//! the slow one, the greedy one, the readers and the watch over memory have a thread of their own
//! each.
//!
//! It takes 6 seconds; `DEED_OVERLOAD_SECONDS=60` makes it a minute.

mod producers;

use std::{
    env,
    future::ready,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use deed_evidence::entry::Entry;
use deed_proto::v1::{self, PayloadType};
use deed_tests::{
    admin::Admin,
    apart,
    keys::Authority,
    oracle::Log,
    process::{ServerCommand, fsck_clean},
    random::Random,
    rpc::{Clients, TestLedger, accepted},
    run_within, until, within,
};
use tempfile::TempDir;

use producers::{GREEDY_CONNECTIONS, Principal, Shared, busy, greedy, reader, slow};

const SECONDS: u64 = 6;

const MIB: u64 = 1 << 20;

/// The bounds that are set, in MiB.
const CONNECTION_MIB: u64 = 8;
const LEDGER_MIB: u64 = 16;
const SERVER_MIB: u64 = 16;
const QUEUE_MIB: u64 = 16;
const BLOCK_CACHE_MIB: u64 = 16;
const MEMTABLE_MIB: u64 = 4;

/// Bytes of requests that HTTP/2's flow control lets a connection send before the server reads them
/// (`CONNECTION_WINDOW_BYTES` of the server).
const WINDOW_MIB: u64 = 8;

/// RocksDB's families, and the memtables that each may have.
const FAMILIES: u64 = 7;
const MEMTABLES_MAX: u64 = 4;

/// MiB that the allocator and other small parts may take in addition.
const SLACK_MIB: u64 = 64;

const BUSY: usize = 62;

/// The authority's session has a number that no producer has.
const AUTHORITY_SESSION: u64 = 0xa << 60;

const LEDGER: &str = "crowded";

/// The largest values that the admin port reported.
#[derive(Debug, Default)]
struct Peak {
    resident_bytes: u64,
    queue_bytes: u64,
    looks: u64,
}

impl Peak {
    async fn look(&mut self, admin: Admin) -> u64 {
        let figures = admin.figures().await;
        let resident = figures.get("process_resident_memory_bytes");
        self.resident_bytes = self.resident_bytes.max(resident);
        self.queue_bytes = self
            .queue_bytes
            .max(figures.get("deed_queue_bytes{shard=\"0\"}"));
        self.looks += 1;
        resident
    }
}

async fn watch_memory(admin: Admin, shared: Arc<Shared>) -> Peak {
    let mut peak = Peak::default();
    while !shared.stopping() {
        peak.look(admin).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    peak
}

/// Returns the most memory that the server may take by its settings, in MiB beyond that without
/// callers.
fn bound_mib() -> u64 {
    // The requests that have room, and those that wait for it; the queue is part of the former.
    let requests = 2 * SERVER_MIB;
    // The greedy one fills its windows. All others together have less than one window under way.
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

/// Creates the ledger, in which each principal has a key and is bound to its producer.
async fn prepare(data: &Path, principals: u64) -> TestLedger {
    let server = command(data).start();
    let clients = Clients::connect(&server).await;
    let ledger = TestLedger::create(&clients, LEDGER).await;
    let mut authority = Authority::new(ledger.id, AUTHORITY_SESSION);
    let mut envelopes = Vec::new();
    for number in 0..principals {
        let name = Principal::name(number);
        envelopes.push(authority.registers(&Principal::key(number), &name));
        envelopes.push(authority.binds(&name, &name));
    }
    let request = v1::AppendRequest {
        envelopes,
        ..ledger.request(&[])
    };
    let answer = within("the registrations", clients.append(request)).await;
    for result in &answer.expect("an answer").results {
        accepted(result);
    }
    server.stop();
    ledger
}

/// Prints the times of answers, and returns their number.
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
        if entry.payload_type == PayloadType::BatchManifest {
            continue;
        }
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
    let admin = Admin::of(&server);
    let at_rest = Peak::default().look(admin).await;

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
    let watching = apart(watch_memory(admin, Arc::clone(&shared)));
    let readers = [0, 1].map(|_| {
        let (principal, url, ledger, shared) = run(&reading);
        apart(reader(principal, url, random.fork(), ledger, shared))
    });
    let (principal, slow_url, slow_ledger, slow_shared) = run(&slow_one);
    let slow_producer = apart(slow(principal, slow_url, slow_ledger, slow_shared));
    let mut producers: Vec<_> = principals
        .iter()
        .map(|principal| {
            let (principal, url, ledger, shared) = run(principal);
            tokio::spawn(busy(principal, url, ledger, shared, |shared| &shared.busy))
        })
        .collect();
    let (principal, polite_url, polite_ledger, polite_shared) = run(&greedy_one);
    producers.push(tokio::spawn(busy(
        principal,
        polite_url,
        polite_ledger,
        polite_shared,
        |shared| &shared.polite,
    )));
    let (principal, greedy_url, greedy_ledger, greedy_shared) = run(&greedy_one);
    let hostile = apart(greedy(principal, greedy_url, greedy_ledger, greedy_shared));

    // This is the duration of the test, not a wait for an event.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    // The test goes on until the slow one has what it wanted by then.
    let wanted = shared.slow_wants();
    // The busy ones go on meanwhile, so both numbers are read at the same moment.
    let (slow_has, slow_wants) = until("all that the slow one wanted", || {
        let (has, wants) = (shared.slow.receipts.load(Relaxed), shared.slow_wants());
        ready((has >= wanted && has * 2 >= wants).then_some((has, wants)))
    })
    .await;
    let (busy_mean, greedy_has) = (
        shared.busy.receipts.load(Relaxed) / BUSY as u64,
        shared.greedy.load(Relaxed),
    );
    until("the library to be asked to come back later", || {
        ready((shared.polite.retries.load(Relaxed) > 0).then_some(()))
    })
    .await;
    shared.stop.store(true, Relaxed);
    within("the end of the greedy one", hostile)
        .await
        .expect("refusals with a time to come back");
    for producer in producers {
        within("the end of a producer", producer)
            .await
            .expect("a receipt for every statement");
    }
    within("the end of the slow one", slow_producer)
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

    // The server runs without access control here, for the oracle.
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
    let [busy_retries, slow_retries, polite_retries] =
        [&shared.busy, &shared.slow, &shared.polite].map(|told| told.retries.load(Relaxed));
    eprintln!(
        "refused: busy {busy_retries} times, slow {slow_retries}, greedy {refused}, and \
         {polite_retries} times one that is polite in its name"
    );
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
    assert!(slow_has * 2 >= slow_wants, "the slow one is starved");
    assert!(peak.resident_bytes <= at_rest + bound * MIB, "memory");
    assert!(peak.queue_bytes <= QUEUE_MIB * MIB, "the queue");
    // The acknowledged statements are the recorded ones, except those whose callers did not wait.
    let polite = shared.polite.receipts.load(Relaxed);
    let own = of(&slow_one) + busy_leaves.iter().sum::<u64>() + polite;
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
