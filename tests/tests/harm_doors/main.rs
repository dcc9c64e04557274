//! Strangers at the server's doors: connections that say nothing, resets, and what they leave in the
//! log. Whatever they do, a ledger goes on.

use std::path::{Path, PathBuf};

use deed_tests::{
    http,
    process::{ServerCommand, ServerProcess, fsck_clean},
    rpc::{Clients, TestLedger},
    run,
    statements::Producer,
    until, wait_for, within,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The usual soft limit of open files. Here it is the hard one too, so that it cannot be raised.
const FILES: u32 = 1024;

/// More connections than that.
const SILENT: usize = 1100;

fn data_in(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

/// This test's own sockets need as many.
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

/// Status and body of an answer of the admin port. A connection may be ended for others before it
/// is answered; then it is asked again, as probes do.
async fn probe(server: &ServerProcess, path: &str) -> (u16, String) {
    let address = server.admin_address();
    until("an answer of the admin port", || async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    })
    .await
}

/// A figure of /metrics, with its labels.
async fn figure(server: &ServerProcess, name: &str) -> f64 {
    let (_, text) = probe(server, "/metrics").await;
    http::figure(&text, name)
}

/// Appends a MiB or two, so that a memtable of that size has to be written out.
async fn append_much(clients: &Clients, ledger: &TestLedger, producer: &mut Producer) {
    let payloads = producer.intents(4000);
    let appended = ledger.append(clients, &payloads);
    let (receipts, _) = within("an append", appended).await;
    assert_eq!(receipts.len(), payloads.len());
}

/// Neither port's silent connections take what the store needs for its next file.
#[test]
fn silent_connections_on_both_ports_do_not_end_the_server() {
    raise_own_limit();
    run(async {
        let dir = TempDir::new().unwrap();
        let data = data_in(&dir);
        let server = with_admin(&data)
            .open_files(FILES)
            .arguments(["--set", "store.memtable_mib=1"])
            .start();
        let clients = Clients::connect(&server).await;
        let ledger = TestLedger::create(&clients, "payments").await;
        let mut producer = Producer::new(ledger.id, 1);

        let mut silent = Vec::new();
        for round in 0..4 {
            // The server closes those that were silent for too long: there are always new ones.
            for port in [server.address(), server.admin_address()] {
                for _ in 0..SILENT {
                    let opened = within("a connection", TcpStream::connect(port)).await;
                    silent.push(opened.unwrap());
                }
            }
            append_much(&clients, &ledger, &mut producer).await;
            // Whoever comes now and asks is served, and so are probes.
            let newcomer = Clients::connect(&server).await;
            let mut another = Producer::new(ledger.id, 100 + round);
            ledger.append(&newcomer, &another.intents(1)).await;
            assert_eq!(probe(&server, "/readyz").await.0, 200);
            if round > 0 {
                silent.drain(..2 * SILENT);
            }
        }
        let lowered = server.log();
        for word in ["lowered", "limits.connections", "LimitNOFILE"] {
            assert!(lowered.contains(word), "{word} in {lowered}");
        }
        let max = figure(&server, "process_max_fds").await;
        assert_eq!(max, f64::from(FILES));
        let open = figure(&server, "process_open_fds").await;
        assert!(open < max - 64.0, "{open} of {max}: the reserve is there");
        assert!(figure(&server, "deed_connections_refused_total{why=\"gave_way\"}").await > 0.0);
        drop(silent);
        server.stop();
        fsck_clean(&data);
    });
}

/// Where the system gives no descriptor, connections wait; nothing ends and nothing spins.
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
        // Who has waited is served.
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

/// The soft limit that shells and service managers give is raised by the server itself.
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

/// HTTP/2's preface and empty settings, and then streams that are opened and reset at once
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

/// Whatever a stranger makes a library or the server say: not often, and the rest is counted.
#[test]
fn strangers_do_not_fill_the_log() {
    run(async {
        let dir = TempDir::new().unwrap();
        let server = with_admin(&data_in(&dir)).start();
        let attack = resets(200);
        for _ in 0..300 {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let _ = stream.write_all(&attack).await;
            // Until the server has had enough of it.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        let lines = |log: &str| log.lines().filter(|line| line.contains("WARN")).count();
        let log = server.log();
        assert!(lines(&log) > 0, "there is something to tell: {log}");
        assert!(lines(&log) <= 150, "{} lines", lines(&log));
        assert!(figure(&server, "deed_log_lines_left_out_total").await > 100.0);
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
