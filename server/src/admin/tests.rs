//! Tests of the admin port: its metrics, its health, and who may reach it.

use std::collections::BTreeMap;

use bytes::Bytes;

use deed_evidence::LedgerId;
use deed_proto::v1::{self, ledger_client::LedgerClient, statement::Body};
use deed_tlog::Hash;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::transport::Channel;

use super::*;
use deed_engine::shard::Disk;

use crate::{
    Clock as _, Server, ServerOptions, StartError, SystemClock,
    testing::{AUTHORITY_KEY, Engine, Producer, TASK, briefs, context},
};

/// Requests `path` and returns status, media type and body.
async fn ask(address: SocketAddr, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nhost: admin\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let media_type = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap_or_default();
    (status, media_type.to_owned(), body.to_owned())
}

/// Returns every sample by its name and labels; fails unless the whole text is OpenMetrics.
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut samples = BTreeMap::new();
    let mut described = String::new();
    for line in text.lines() {
        if let Some(described_as) = line.strip_prefix("# TYPE ") {
            described_as
                .split(' ')
                .next()
                .unwrap()
                .clone_into(&mut described);
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&described), "{name} under {described}");
            let before = samples.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(before, None, "{name} is told twice");
        }
    }
    samples
}

/// Returns options of a server with an admin port.
fn with_admin(dir: &TempDir) -> ServerOptions {
    ServerOptions {
        admin: Some(SocketAddr::from(([127, 0, 0, 1], 0)).into()),
        ..ServerOptions::new(dir.path().join("data"))
    }
}

async fn start(options: ServerOptions) -> Server {
    Server::start(options, Arc::new(SystemClock)).await.unwrap()
}

/// Creates the ledger `counted`, and returns a producer for it.
async fn counted_ledger(server: &Server) -> (LedgerClient<Channel>, Producer) {
    let url = format!("http://{}", server.address());
    let mut client = LedgerClient::connect(url).await.unwrap();
    let created = client.create_ledger(v1::CreateLedgerRequest {
        name: "counted".to_owned(),
        authority_keys: vec![Bytes::from_static(&AUTHORITY_KEY)],
    });
    let created = created.await.unwrap().into_inner().ledger.unwrap();
    let id = LedgerId::new(Hash::try_from(&created.ledger_id[..]).unwrap());
    (client, Producer::new(id, 1))
}

#[tokio::test]
async fn figures_move_with_what_is_asked_of_the_server() {
    let dir = TempDir::new().unwrap();
    let options = with_admin(&dir);
    let server = start(options).await;
    let admin = server.admin_address().unwrap();
    assert_eq!(ask(admin, "/healthz").await.0, 200);
    assert_eq!(
        ask(admin, "/readyz").await,
        (
            200,
            "text/plain; charset=utf-8".to_owned(),
            "ready\n".to_owned()
        )
    );
    assert_eq!(ask(admin, "/").await.0, 404);
    let (status, media_type, before) = ask(admin, "/metrics").await;
    assert_eq!((status, media_type.as_str()), (200, OPEN_METRICS));
    let before = samples(&before);

    let (mut client, mut producer) = counted_ledger(&server).await;
    let mut envelopes: Vec<_> = (0..3).map(|_| producer.intent("orders/1")).collect();
    let payload_bytes: usize = envelopes.iter().map(|e| e.payload.len()).sum();
    // A duplicate, and an envelope that is malformed.
    envelopes.push(envelopes[0].clone());
    envelopes.push(v1::Envelope::default());
    let request = v1::AppendRequest {
        ledger: "counted".to_owned(),
        envelopes,
        ..v1::AppendRequest::default()
    };
    let answer = client.append(request).await.unwrap().into_inner();
    assert_eq!(
        briefs(&answer)[..4],
        ["accepted 1", "accepted 2", "accepted 3", "duplicate 1"]
    );
    client
        .append(v1::AppendRequest::default())
        .await
        .unwrap_err();
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let stream = client.append_stream(requests).await.unwrap();

    // The client may have its answer before the server has counted it, and the stream before its
    // task began.
    let append = r#"deed_requests_total{rpc="deed.v1.Ledger/Append",status="#;
    let refused = format!("{append}\"INVALID_ARGUMENT\"}}");
    let after = loop {
        let after = samples(&ask(admin, "/metrics").await.2);
        if after.contains_key(&refused) && after["deed_streams_open"] > 0.0 {
            break after;
        }
        tokio::task::yield_now().await;
    };
    drop((stream, sender));
    let moved = |name: &str| {
        after
            .get(name)
            .unwrap_or_else(|| panic!("{name} in {after:#?}"))
            - before.get(name).unwrap_or(&0.0)
    };
    for (name, by) in [
        (format!("{append}\"OK\"}}").as_str(), 1.0),
        (refused.as_str(), 1.0),
        (
            r#"deed_request_seconds_count{rpc="deed.v1.Ledger/Append"}"#,
            2.0,
        ),
        (r#"deed_statements_total{result="accepted"}"#, 3.0),
        (r#"deed_statements_total{result="duplicate"}"#, 1.0),
        (r#"deed_rejections_total{reason="REASON_MALFORMED"}"#, 1.0),
        ("deed_entries_total", 4.0),
        ("deed_turn_leaves_count", 2.0),
        ("deed_turn_leaves_sum", 4.0),
        (r#"deed_stage_seconds_count{stage="admission"}"#, 1.0),
        (r#"deed_stage_seconds_count{stage="room"}"#, 1.0),
        (r#"deed_stage_seconds_count{stage="queue"}"#, 2.0),
        (r#"deed_stage_seconds_count{stage="step"}"#, 2.0),
        (r#"deed_stage_seconds_count{stage="commit"}"#, 2.0),
        (r#"deed_stage_seconds_count{stage="guard"}"#, 2.0),
        (r#"deed_stage_seconds_count{stage="answer"}"#, 1.0),
        (r#"deed_sync_seconds_count{file="store"}"#, 2.0),
        (r#"deed_sync_seconds_count{file="head_guard"}"#, 2.0),
        ("deed_sessions", 1.0),
        ("deed_ledgers_loaded", 1.0),
        ("deed_leaves", 4.0),
        // Nobody has opened the task of these Intents.
        (r#"deed_intents_total{state="denied"}"#, 3.0),
        (r#"deed_intents_total{state="cleared"}"#, 0.0),
        (r#"deed_findings_total{kind="unknown_task"}"#, 1.0),
        (r#"deed_findings_total{kind="equivocation"}"#, 0.0),
        (r#"deed_own_entries_total{body="tick"}"#, 0.0),
        ("deed_due", 0.0),
        ("deed_unindexed_leaves", 4.0),
        ("deed_streams_open", 1.0),
        ("deed_connections_max", 0.0),
        ("deed_head_guard_damaged_slots", 0.0),
    ] {
        assert_eq!(moved(name), by, "{name}");
    }
    assert!(moved("deed_entry_bytes_total") > payload_bytes as f64);
    assert!(after["process_resident_memory_bytes"] > 1e6);
    assert!(after["process_open_fds"] > 3.0);
    assert!(after["process_max_fds"] >= after["process_open_fds"]);
    assert!(after["deed_connections_max"] > 0.0);
    assert!(after[r#"deed_store_memory_bytes{part="memtables"}"#] > 0.0);
    // Quotas that were never exceeded are reported as zero.
    assert_eq!(after[r#"deed_over_quota_total{quota="streams"}"#], 0.0);
    assert!(
        !after.keys().any(|name| name.contains("counted")),
        "no ledger is named"
    );
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_ledgers_find_and_write_is_counted_and_what_is_due_is_told() {
    let dir = TempDir::new().unwrap();
    let options = with_admin(&dir);
    let server = start(options.clone()).await;
    let (mut client, mut producer) = counted_ledger(&server).await;
    let far_us = SystemClock.now().get() + 365 * 86_400_000_000;
    let opened = v1::TaskOpened {
        requested_by: "https://example.org/people/dee".to_owned(),
        risk_tier: v1::RiskTier::Low.into(),
        deadline_us: far_us,
        ..v1::TaskOpened::default()
    };
    let wanted = v1::Intent {
        action: "refund".to_owned(),
        resource: "orders/1".to_owned(),
        deadline_us: far_us,
        ..v1::Intent::default()
    };
    let closed = v1::TaskClosed {
        end: v1::TaskEnd::Completed.into(),
        ..v1::TaskClosed::default()
    };
    let opening = producer.opens(TASK, opened);
    let mut said = |body| producer.statement(|statement| statement.body = Some(body));
    let mut envelopes = vec![
        opening,
        said(Body::Intent(wanted.clone())),
        said(Body::TaskClosed(closed)),
    ];
    let after_end = said(Body::Intent(wanted));
    let mut append = async |envelopes: Vec<v1::Envelope>| {
        let request = v1::AppendRequest {
            ledger: "counted".to_owned(),
            envelopes,
            ..v1::AppendRequest::default()
        };
        client.append(request).await.unwrap().into_inner()
    };
    let due = async || samples(&ask(server.admin_address().unwrap(), "/metrics").await.2);
    let (last, rest) = (envelopes.pop().unwrap(), envelopes);
    append(rest).await;
    // The deadlines of the task and of the Intent.
    assert_eq!(due().await["deed_due"], 2.0);
    append(vec![last, after_end]).await;
    let figures = due().await;
    for (name, value) in [
        (r#"deed_intents_total{state="cleared"}"#, 1.0),
        (r#"deed_intents_total{state="denied"}"#, 1.0),
        (r#"deed_intents_total{state="waiting"}"#, 0.0),
        // The Intent that came after the end has no signature.
        (r#"deed_findings_total{kind="task_closed"}"#, 0.0),
        (r#"deed_findings_total{kind="unproven_claim"}"#, 1.0),
        (r#"deed_findings_total{kind="unknown_task"}"#, 0.0),
        (r#"deed_own_entries_total{body="task_receipt"}"#, 1.0),
        (r#"deed_own_entries_total{body="clearance"}"#, 0.0),
        ("deed_due", 1.0),
    ] {
        assert_eq!(figures[name], value, "{name}");
    }
    drop(client);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_stays_open_does_not_keep_the_store_open() {
    let dir = TempDir::new().unwrap();
    let options = with_admin(&dir);
    let server = start(options.clone()).await;
    let mut open = TcpStream::connect(server.admin_address().unwrap())
        .await
        .unwrap();
    let request = b"GET /readyz HTTP/1.1\r\nhost: admin\r\n\r\n";
    let mut answer = [0; 1024];
    open.write_all(request).await.unwrap();
    let read = open.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    server.stop().await.unwrap();
    // The connection was closed or refused, and nothing is held for it.
    let asked = open.write_all(request).await;
    let read = match asked {
        Ok(()) => open.read(&mut answer).await.unwrap_or(0),
        Err(_) => 0,
    };
    assert!(!answer[..read].starts_with(b"HTTP/1.1 200"));
    let again = start(options).await;
    again.stop().await.unwrap();
}

/// A probe gets its answer, however many connections send nothing or half a request.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_probes_out() {
    let dir = TempDir::new().unwrap();
    let options = ServerOptions {
        admin_connections: 2,
        ..with_admin(&dir)
    };
    let server = start(options).await;
    let admin = server.admin_address().unwrap();
    let mut held = Vec::new();
    for _ in 0..20 {
        let silent = TcpStream::connect(admin).await.unwrap();
        let mut half = TcpStream::connect(admin).await.unwrap();
        let _ = half.write_all(b"GET /readyz HTTP/1.1\r\nhost: ").await;
        held.push([silent, half]);
        assert_eq!(ask(admin, "/healthz").await.0, 200);
    }
    // The first connections were ended for the later ones.
    for stream in &mut held[0] {
        assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    }
    // A head is bounded, and a connection serves one request.
    let mut long = TcpStream::connect(admin).await.unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(20_000));
    let _ = long.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = long.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 431 "));
    let mut twice = TcpStream::connect(admin).await.unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n".repeat(2);
    let _ = twice.write_all(&request).await;
    let mut answer = String::new();
    let _ = twice.read_to_string(&mut answer).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn beyond_loopback_it_has_to_be_said() {
    let dir = TempDir::new().unwrap();
    let mut options = ServerOptions {
        admin: Some(SocketAddr::from(([0, 0, 0, 0], 0)).into()),
        ..ServerOptions::new(dir.path().join("data"))
    };
    let refused = Server::start(options.clone(), Arc::new(SystemClock)).await;
    let error = refused.err().unwrap();
    assert!(
        matches!(error, StartError::AdminNotLoopback { .. }),
        "{error}"
    );
    assert!(!dir.path().join("data").exists());
    options.admin_insecure = true;
    let server = start(options).await;
    server.stop().await.unwrap();
}

#[test]
fn a_shard_that_failed_and_a_server_that_stops_are_not_ready() {
    let dir = TempDir::new().unwrap();
    let engine = Engine::open_on(dir.path(), |mut disk| {
        let mut writes = 0;
        Disk {
            commit: Box::new(move |batch| (disk.commit)(batch)),
            guard: Box::new(move |head| {
                writes += 1;
                if writes > 1 {
                    return Err(std::io::Error::other("the disk is gone"));
                }
                (disk.guard)(head)
            }),
        }
    });
    let (context, stopping) = context(&engine);
    let admin = Admin {
        context,
        stuck: Duration::from_secs(3600),
    };
    let ledger = engine.create("fails").unwrap();
    let disk = engine.store.disk();
    disk.pretend(100 << 30);
    assert_eq!(admin.ready(), Ok(()));
    assert_eq!(admin.ready_words(), "ready\n");
    disk.pretend(600 << 20);
    assert_eq!(admin.ready(), Ok(()));
    let said = admin.ready_words();
    assert!(said.starts_with("ready\nno contents are taken: "), "{said}");
    disk.pretend(500 << 20);
    let NotReady(full) = admin.ready().unwrap_err();
    assert!(full.contains("no statements are taken"), "{full}");
    assert!(full.contains("500 MiB free, of which 512"), "{full}");
    disk.pretend(100 << 30);
    let mut producer = Producer::new(ledger.id, 1);
    engine
        .append("fails", vec![producer.intent("a")])
        .unwrap_err();
    let NotReady(why) = admin.ready().unwrap_err();
    assert!(
        why.contains("a shard has failed") && why.contains("the disk is gone"),
        "{why}"
    );
    stopping.send_replace(true);
    assert_eq!(admin.ready(), Err(NotReady::stopping()));
}

#[test]
fn a_read_only_disk_is_not_ready() {
    assert_eq!(writable(false), Ok(()));
    let NotReady(read_only) = writable(true).unwrap_err();
    assert!(read_only.contains("read-only"), "{read_only}");
}
