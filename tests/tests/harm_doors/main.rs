//! Attacks by strangers: silent connections, resets, and floods of log lines. Whatever they do, a
//! ledger goes on.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use deed_tests::{
    admin::Admin,
    harm::{Victim, Watch, attack_time, goes_on},
    process::{ServerCommand, fsck_clean},
    rpc::{Clients, TestLedger},
    run, run_within,
    statements::Producer,
    wait_for, within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The usual soft limit of open files. Here it is the hard limit, too, so it cannot be raised.
const FILES: u32 = 1024;

/// More connections than open files.
const SILENT: usize = 1100;

/// Most memory of the server beyond that at rest, in MiB: 1,024 connections that have sent little,
/// a few requests, blocks and memtables of RocksDB, and the allocator.
const HELD_MIB: u64 = 192;

fn data_in(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// Raises this test's own limit, because its sockets need as many files.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let enough = limit.maximum.is_none_or(|hard| hard > 4 * SILENT as u64);
    assert!(enough, "this test needs {} open files", 4 * SILENT);
}

fn with_admin(data: &Path) -> ServerCommand {
    ServerCommand::new(data).arguments(["--admin", "127.0.0.1:0"])
}

/// Appends a MiB or two, so that a memtable of that size has to be flushed.
async fn append_much(clients: &Clients, ledger: &TestLedger, producer: &mut Producer) {
    let payloads = producer.intents(4000);
    let appended = ledger.append(clients, &payloads);
    let (receipts, _) = within("an append", appended).await;
    assert_eq!(receipts.len(), payloads.len());
}

/// Silent connections on either port do not take the descriptor that the store needs for its next
/// file.
#[test]
fn silent_connections_on_both_ports_do_not_end_the_server() {
    raise_own_limit();
    run_within(Duration::from_secs(240) + attack_time(), async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = with_admin(&data)
            .open_files(FILES)
            .arguments(["--set", "store.memtable_mib=1"])
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut producer = Producer::new(ledger.id, 1);
        let victim = Victim::new(&clients).await;
        let admin = Admin::of(&server);

        let (watch, began) = (Watch::begin(&server, &victim), Instant::now());
        let mut silent = Vec::new();
        for round in 0.. {
            if round >= 4 && !goes_on(began) {
                break;
            }
            // The server closes connections that were silent for too long, so new ones are opened
            // all the time.
            for port in [server.address(), server.admin_address()] {
                for _ in 0..SILENT {
                    let opened = within("a connection", TcpStream::connect(port)).await;
                    silent.push(opened.unwrap());
                }
            }
            append_much(&clients, &ledger, &mut producer).await;
            // A new caller that sends a request is served, and so are probes.
            let newcomer = Clients::connect(&server).await;
            let mut another = Producer::new(ledger.id, 100 + round);
            ledger.append(&newcomer, &another.intents(1)).await;
            assert_eq!(admin.ready().await.0, 200);
            if round > 0 {
                silent.drain(..2 * SILENT);
            }
        }
        watch.expect_unharmed(HELD_MIB).await;
        let lowered = server.log();
        for word in ["lowered", "limits.connections", "LimitNOFILE"] {
            assert!(lowered.contains(word), "{word} in {lowered}");
        }
        let figures = admin.figures().await;
        let max = figures.get("process_max_fds");
        assert_eq!(max, u64::from(FILES));
        let open = figures.get("process_open_fds");
        assert!(open < max - 64, "{open} of {max}: the reserve is there");
        assert!(figures.get("deed_connections_refused_total{why=\"gave_way\"}") > 0);
        drop(silent);
        server.stop();
        fsck_clean(&data);
    });
}

/// Without a free descriptor, connections wait; nothing ends and nothing spins.
#[test]
fn a_server_without_descriptors_waits_and_goes_on() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = ServerCommand::new(&data_in(&dir)).start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut producer = Producer::new(ledger.id, 1);
        ledger.append(&clients, &producer.intents(1)).await;
        let before = server.allow_files(Some(1));
        let mut waiting = TcpStream::connect(server.address()).await.unwrap();
        wait_for("an accept that failed twice", || {
            (server.log().matches("cannot accept").count() > 1).then_some(())
        });
        ledger.append(&clients, &producer.intents(1)).await;
        server.allow_files(before);
        // The connections that have waited are served.
        let request = b"GET /logs/none/checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        waiting.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        within("an answer", waiting.read_to_end(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 404 "));
        let newcomer = Clients::connect(&server).await;
        ledger.append(&newcomer, &producer.intents(1)).await;
        server.stop();
    });
}

#[test]
fn too_few_files_are_refused_at_the_start_with_what_to_do() {
    let dir = TempDir::new().unwrap();
    let data = data_in(&dir);
    let refused = with_admin(&data).open_files(200).refused();
    for word in ["200 files", "LimitNOFILE", "ulimit", "admin.connections"] {
        assert!(refused.stderr.contains(word), "{word} in {refused:#?}");
    }
    assert!(!data.exists());
}

/// The server itself raises the soft limit that shells and service managers set.
#[test]
fn the_soft_limit_is_raised_and_core_files_are_off() {
    let dir = TempDir::new().unwrap();
    let server = ServerCommand::new(&data_in(&dir)).start();
    let [soft, hard] = server.bound("Max open files");
    assert!(
        soft == hard || soft == (1 << 20).to_string(),
        "{soft} of {hard}"
    );
    assert_eq!(server.bound("Max core file size"), ["0", "0"]);
    server.stop();
    let command = ServerCommand::new(&data_in(&dir));
    let server = command.arguments(["--set", "core_dumps=true"]).start();
    let [_, hard] = server.bound("Max core file size");
    let own = getrlimit(Resource::Core).maximum;
    assert_eq!(hard == "0", own == Some(0), "as it was started with");
    server.stop();
}

/// Returns HTTP/2's preface and empty settings, and then streams that are opened and reset at once
/// (CVE-2023-44487).
fn resets(count: u32) -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    };
    // HPACK: POST, http, and literal path and authority.
    let path = b"/grpc.health.v1.Health/Check";
    let mut headers = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    headers.extend(path);
    headers.extend(b"\x01\x01x");
    let mut attack = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    attack.extend(frame(4, 0, 0, &[]));
    for number in 0..count {
        attack.extend(frame(1, 4, 2 * number + 1, &headers));
        attack.extend(frame(3, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    attack
}

/// Log lines that a stranger can cause, in a library or in the server, are few; the rest are
/// counted.
#[test]
fn strangers_do_not_fill_the_log() {
    run_within(Duration::from_secs(240) + attack_time(), async {
        let dir = TempDir::new().unwrap();
        let server = with_admin(&data_in(&dir)).start();
        let clients = Clients::connect(&server).await;
        let victim = Victim::new(&clients).await;
        let (watch, began) = (Watch::begin(&server, &victim), Instant::now());
        let attack = resets(200);
        for round in 0.. {
            if round >= 300 && !goes_on(began) {
                break;
            }
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let _ = stream.write_all(&attack).await;
            // The loop goes on until the server closes the connection.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        watch.expect_unharmed(HELD_MIB).await;
        // 50 lines of a kind in each 10 s, and the report at the end of each.
        let most = 150 * (1 + usize::try_from(began.elapsed().as_secs() / 10).unwrap());
        let lines = |log: &str| log.lines().filter(|line| line.contains("WARN")).count();
        let log = server.log();
        assert!(lines(&log) > 0, "there is something to tell: {log}");
        assert!(lines(&log) <= most, "{} lines", lines(&log));
        let left_out = Admin::of(&server).figure("deed_log_lines_left_out_total");
        assert!(left_out.await > 100);
        let told = wait_for("a line about what was left out", || {
            let log = server.log();
            let told = log.lines().find(|line| line.contains("left out"))?;
            Some(told.to_owned())
        });
        assert!(
            told.contains("left_out=") && told.contains("h2::"),
            "{told}"
        );
        server.stop();
    });
}
