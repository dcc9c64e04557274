//! Tests of the listener with clients that are slow, wrong or hostile.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, BytesMut};
use futures::{FutureExt as _, StreamExt as _, stream, stream::FuturesUnordered};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tonic::{Code, body::Body, transport::Channel};

use super::{
    Connection, Counters, RuleError, TlsError,
    activity::Activity,
    io::{GuardedIo, Stream},
    issue,
    places::Places,
    testing::{
        Running, SERVER_NAMES, admin, call, call_as, create_ledgers, data_dir, get, grant, named,
        pem, send, start, start_in, tls_dir, token, with_access, with_tls,
    },
    tls::Certificates,
};
use crate::{
    Server, ServerOptions, StartError, SystemClock,
    access::role::Role,
    clock::Clock as _,
    options::{AccessOptions, TlsOptions},
};

const AGENT: &str = "spiffe://example.org/agent";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const ENTRIES: &str = "/deed.v1.Log/GetEntries";
const LIST: &str = "/deed.v1.Ledger/ListLedgers";

async fn health(channel: &Channel) -> Code {
    call(channel, HEALTH, BytesMut::new(), None).await
}

/// Returns true if a client with this certificate (or none) is served at all.
async fn is_served(running: &Running, tls_dir: &Path, client: Option<&str>) -> bool {
    // A client may have sent its request before it hears that its certificate was refused.
    match running.tls(tls_dir, client).await {
        Ok(channel) => health(&channel).await == Code::Ok,
        Err(_) => false,
    }
}

/// Reads everything until the other side closes.
async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return all,
            Ok(read) => all.extend(&buffer[..read]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_name_principals() {
    let dir = tempfile::tempdir().unwrap();
    let (data, tls) = (data_dir(&dir), tls_dir(&dir));
    let admin = admin(&data);
    grant(&data, AGENT, "mine", Role::Read);
    grant(&data, "CN=subject,O=Example", "mine", Role::Read);
    let (same, other) = (token(&data, AGENT, None), token(&data, "other", None));
    let running = start_in(dir, |options, tls| with_tls(options, tls, true)).await;
    issue::client(&tls, AGENT, None, SystemClock.now()).unwrap();
    issue::client(
        &tls,
        "spiffe://example.org/stranger",
        None,
        SystemClock.now(),
    )
    .unwrap();
    sign_subject(&tls, "subject", &[]);
    let twice = ["spiffe://example.org/a", "spiffe://example.org/b"];
    sign_subject(&tls, "twice", &twice);

    let anonymous = running.tls(&tls, None).await.unwrap();
    create_ledgers(&anonymous, Some(&admin), &["mine"]).await;
    let entries = async |client: Option<&str>, authorization: &[String]| {
        let channel = running.tls(&tls, client).await.unwrap();
        call_as(&channel, ENTRIES, named("mine"), authorization).await
    };
    assert_eq!(entries(None, &[]).await, Code::Unauthenticated);
    assert_eq!(entries(Some("agent"), &[]).await, Code::Ok);
    assert_eq!(entries(Some("subject"), &[]).await, Code::Ok);
    assert_eq!(entries(Some("stranger"), &[]).await, Code::PermissionDenied);
    // If a caller shows both credentials they must agree; otherwise neither is accepted.
    let bearer = |token: &str| [format!("Bearer {token}")];
    assert_eq!(entries(Some("agent"), &bearer(&same)).await, Code::Ok);
    let disagreeing = entries(Some("agent"), &bearer(&other)).await;
    assert_eq!(disagreeing, Code::Unauthenticated);
    // A certificate with two SPIFFE IDs is refused, and one of another authority.
    assert!(is_served(&running, &tls, Some("agent")).await);
    assert!(!is_served(&running, &tls, Some("twice")).await);
    let foreign = tls.join("foreign");
    issue::init(
        &foreign,
        &SERVER_NAMES.map(str::to_owned),
        SystemClock.now(),
    )
    .unwrap();
    issue::client(&foreign, AGENT, None, SystemClock.now()).unwrap();
    fs::copy(tls.join("ca.pem"), foreign.join("ca.pem")).unwrap();
    assert!(!is_served(&running, &foreign, Some("agent")).await);
    running.server.stop().await.unwrap();
}

/// Makes a client certificate that issue::client does not make: with a subject and any URIs.
fn sign_subject(tls: &Path, name: &str, uris: &[&str]) {
    let authority_key = KeyPair::from_pem(&pem(tls, "ca.key")).unwrap();
    let authority = issue::authority_params().unwrap();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Example");
    params.distinguished_name.push(DnType::CommonName, name);
    for uri in uris {
        let uri = rcgen::SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names.push(uri);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(tls.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(tls.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_can_be_required() {
    let running = start(|options, tls| {
        with_tls(options, tls, true);
        options.tls.as_mut().unwrap().require_client_certificate = true;
    })
    .await;
    let tls = running.tls_dir();
    issue::client(&tls, AGENT, None, SystemClock.now()).unwrap();
    assert!(!is_served(&running, &tls, None).await);
    assert!(is_served(&running, &tls, Some("agent")).await);
    running.server.stop().await.unwrap();
}

fn tls_client(
    tls_dir: &Path,
    version: &'static SupportedProtocolVersion,
    protocol: &[u8],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(pem(tls_dir, "ca.pem").as_bytes());
    roots.add(authority.unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_tls_and_of_http_are_spoken() {
    let running = start(|options, tls| with_tls(options, tls, false)).await;
    for (version, found) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        for protocol in [&b"h2"[..], b"http/1.1"] {
            let client = tls_client(&running.tls_dir(), version, protocol);
            let name = ServerName::try_from("localhost").unwrap();
            let mut stream = client.connect(name, running.tcp().await).await.unwrap();
            assert_eq!(stream.get_ref().1.protocol_version(), Some(found));
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
            if protocol == b"http/1.1" {
                let answer = ask_http1(&mut stream, "/logs/none/checkpoint").await;
                assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            }
        }
    }
    running.server.stop().await.unwrap();
}

async fn ask_http1(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8_lossy(&until_closed(stream).await).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn clear_text_and_tls_at_the_wrong_port_fail_and_harm_nobody() {
    let secure = start(|options, tls| with_tls(options, tls, false)).await;
    let answer = ask_http1(&mut secure.tcp().await, "/logs/none/checkpoint").await;
    assert!(!answer.contains("HTTP"), "{answer}");
    let mut stream = secure.tcp().await;
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    until_closed(&mut stream).await;
    assert!(is_served(&secure, &secure.tls_dir(), None).await);

    let plain = start(|_, _| ()).await;
    let client = tls_client(&secure.tls_dir(), &rustls::version::TLS13, b"h2");
    let name = ServerName::try_from("localhost").unwrap();
    assert!(client.connect(name, plain.tcp().await).await.is_err());
    assert_eq!(health(&plain.plain().await).await, Code::Ok);
    plain.server.stop().await.unwrap();
    secure.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_while_old_connections_live_on() {
    let running = start(|options, tls| with_tls(options, tls, false)).await;
    let tls = running.tls_dir();
    let old = running.tls(&tls, None).await.unwrap();
    let finished = Arc::new(AtomicBool::new(false));
    let load = {
        let (old, finished) = (old.clone(), Arc::clone(&finished));
        tokio::spawn(async move {
            let mut answered = 0;
            while !finished.load(Ordering::Relaxed) {
                assert_eq!(health(&old).await, Code::Ok);
                answered += 1;
            }
            answered
        })
    };
    // A different authority makes the new certificates, so a client that trusts only one can tell
    // them apart.
    let new = tls.join("new");
    issue::init(&new, &SERVER_NAMES.map(str::to_owned), SystemClock.now()).unwrap();
    assert!(!is_served(&running, &new, None).await);
    for name in ["server.pem", "server.key"] {
        fs::copy(new.join(name), tls.join(name)).unwrap();
    }
    while !is_served(&running, &new, None).await {
        tokio::task::yield_now().await;
    }
    assert!(!is_served(&running, &tls, None).await);
    finished.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 0);
    assert_eq!(health(&old).await, Code::Ok);
    running.server.stop().await.unwrap();
}

#[test]
fn bad_certificates_keep_the_old_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, new) = (dir.path().join("tls"), dir.path().join("new"));
    let names = SERVER_NAMES.map(str::to_owned);
    issue::init(&tls, &names, SystemClock.now()).unwrap();
    issue::init(&new, &names, SystemClock.now()).unwrap();
    let options = TlsOptions {
        certificate: tls.join("server.pem"),
        key: tls.join("server.key"),
        client_authorities: Some(tls.join("ca.pem")),
        require_client_certificate: true,
    };
    let certificates = Certificates::load(&options).unwrap();
    let first = certificates.current();
    assert!(!certificates.reload().unwrap());
    let good = pem(&tls, "server.pem");
    for (name, bad) in [
        ("server.pem", String::new()),
        ("server.pem", good[..good.len() / 2].to_owned()),
        // In the middle of a replacement the key still belongs to the certificate before.
        ("server.pem", pem(&new, "server.pem")),
        ("server.key", "no key".to_owned()),
        ("server.key", pem(&tls, "server.pem")),
        ("ca.pem", String::new()),
        ("ca.pem", pem(&tls, "ca.key")),
    ] {
        let path = tls.join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, bad).unwrap();
        certificates.reload().unwrap_err();
        // The error is reported once.
        assert!(!certificates.reload().unwrap());
        assert!(Arc::ptr_eq(&first, &certificates.current()));
        fs::write(&path, before).unwrap();
        assert!(certificates.reload().unwrap());
        // The configuration that replaces a bad one is built anew, from the old contents.
        let current = certificates.current();
        assert!(!Arc::ptr_eq(&first, &current));
        certificates.current.store(Arc::clone(&first));
    }
    fs::rename(tls.join("server.key"), dir.path().join("elsewhere")).unwrap();
    assert!(matches!(certificates.reload(), Err(TlsError::Io { .. })));
    assert!(Arc::ptr_eq(&first, &certificates.current()));
    for name in ["server.pem", "server.key"] {
        fs::copy(new.join(name), tls.join(name)).unwrap();
    }
    assert!(certificates.reload().unwrap());
    assert!(!Arc::ptr_eq(&first, &certificates.current()));

    // A key that others can read is refused.
    let key = tls.join("server.key");
    let open_to = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o644, 0o640, 0o660, 0o602] {
        open_to(mode);
        let error = Certificates::load(&options).err().unwrap();
        assert!(matches!(error, TlsError::Exposed { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(matches!(
            certificates.reload(),
            Err(TlsError::Exposed { .. })
        ));
    }
    open_to(0o400);
    assert!(Certificates::load(&options).is_ok());

    let nobody = TlsOptions {
        client_authorities: None,
        ..options
    };
    let error = Certificates::load(&nobody).err().unwrap();
    assert!(matches!(error, TlsError::AuthoritiesMissing));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let running = start(|options, _| options.limits.connections = 2).await;
    let first = running.plain().await;
    assert_eq!(health(&first).await, Code::Ok);
    let second = running.plain().await;
    assert_eq!(health(&second).await, Code::Ok);
    // The third connection gets not a byte, although the server speaks first in HTTP/2.
    let mut third = running.tcp().await;
    let _ = third.write_all(PREFACE).await;
    assert!(until_closed(&mut third).await.is_empty());
    assert_eq!(health(&first).await, Code::Ok);
    drop(second);
    // The place is free as soon as the server has noticed that the connection is gone.
    loop {
        let mut stream = running.tcp().await;
        let _ = stream.write_all(PREFACE).await;
        if matches!(stream.read(&mut [0; 9]).await, Ok(read) if read > 0) {
            break;
        }
    }
    assert_eq!(health(&first).await, Code::Ok);
    drop(first);
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_are_closed() {
    for tls in [false, true] {
        let running = start(|options, tls_dir| {
            if tls {
                with_tls(options, tls_dir, false);
            }
            options.limits.handshake_ms = 100;
        })
        .await;
        // The client sends nothing, half a handshake, or half a request.
        let beginnings: [&[u8]; 5] = [
            b"",
            &[0x16, 3, 1],
            b"PRI * HT",
            PREFACE,
            b"GET / HTTP/1.1\r\nhost: x\r\n",
        ];
        for beginning in beginnings {
            let mut stream = running.tcp().await;
            stream.write_all(beginning).await.unwrap();
            until_closed(&mut stream).await;
        }
        running.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let running = start(|options, _| options.limits.idle_ms = 200).await;
    let busy = running.plain().await;
    // On this watch nothing moves, but it stays open.
    let watch = "/grpc.health.v1.Health/Watch";
    let mut request = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(60));
    let mut client = tonic_health::pb::health_client::HealthClient::new(busy.clone());
    let mut watching = client.watch(request).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some(), "{watch}");

    let mut idle = running.tcp().await;
    idle.write_all(b"GET /logs/none/checkpoint HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = until_closed(&mut idle).await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
    // The busy connection had no traffic but its watch for as long.
    assert_eq!(health(&busy).await, Code::Ok);
    assert!(watching.message().now_or_never().is_none(), "{watch}");
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_sent_to_their_end_are_given_up() {
    let running = start(|options, _| options.limits.stall_ms = 100).await;
    let channel = running.plain().await;
    let pending = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let body = Body::new(axum::body::Body::from_stream(pending));
    let status = send(&channel, LIST, body, &[]).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("100 ms"), "{status}");
    running.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let _peer = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = socket.accept().await.unwrap();
    let hour = Duration::from_secs(3600);
    let activity = Activity::new(hour, hour);
    let connection = Connection {
        peer,
        activity: Arc::clone(&activity),
        ..Connection::none()
    };
    let counters = Arc::new(Counters::default());
    let taken = Places::new(1).take(peer.ip(), &activity).await;
    let (place, _) = taken.ok().unwrap();
    let stall = Duration::from_millis(50);
    let stream = Stream::Plain(stream);
    let mut io = GuardedIo::new(stream, connection, stall, Arc::clone(&counters), place);
    let error = loop {
        if let Err(error) = io.write_all(&[0; 1 << 16]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(counters.timed_out.load(Ordering::Relaxed), 1);
}

/// The client's connection preface and empty settings (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

/// Streams that are opened and reset at once cost the client nothing (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection_and_nobody_elses() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let running = start(|_, _| ()).await;
    let good = running.plain().await;
    let mut stream = running.tcp().await;
    // HPACK: POST, http, and literal path and authority.
    let mut headers = BytesMut::from(&[0x83, 0x86, 0x04][..]);
    headers.put_u8(u8::try_from(HEALTH.len()).unwrap());
    headers.put_slice(HEALTH.as_bytes());
    headers.put_slice(b"\x01\x01x");
    let mut attack = BytesMut::from(PREFACE);
    for number in 0..2000 {
        attack.extend(frame(HEADERS, 0x04, 2 * number + 1, &headers));
        attack.extend(frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    // The server may end the connection before everything was sent.
    let (mut reading, mut writing) = stream.split();
    let (_, answer) = tokio::join!(writing.write_all(&attack), async {
        let mut code = None;
        let mut head = [0; 9];
        while reading.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if reading.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    });
    assert_eq!(answer, Some(ENHANCE_YOUR_CALM));
    assert_eq!(health(&good).await, Code::Ok);
    running.server.stop().await.unwrap();
}

/// Returns a body with the beginning of a message, `chunks` chunks of it, and then nothing.
fn unfinished(announced: u32, chunks: usize) -> Body {
    const CHUNK_BYTES: usize = 64 << 10;
    let mut head = BytesMut::new();
    head.put_u8(0);
    head.put_u32(announced);
    let chunks = std::iter::repeat_n(BytesMut::zeroed(CHUNK_BYTES), chunks);
    let chunks = std::iter::once(head).chain(chunks);
    let chunks = chunks.map(|chunk| Ok::<_, std::io::Error>(chunk.freeze()));
    let body = stream::iter(chunks.collect::<Vec<_>>()).chain(stream::pending());
    Body::new(axum::body::Body::from_stream(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_do_not_fill_the_memory() {
    let running = start(|options, _| options.limits.connection_bytes = 1).await;
    let channel = running.plain().await;
    // A connection has room for one message of the largest size, and so for one of these.
    let path = "/deed.v1.Ledger/Append";
    let mut sending: FuturesUnordered<_> = (0..3)
        .map(|_| send(&channel, path, unfinished(5 << 20, 64), &[]))
        .collect();
    for _ in 0..2 {
        let status = sending.next().await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    assert!(sending.next().now_or_never().is_none());
    // Small messages of other requests are still accepted.
    assert_eq!(health(&channel).await, Code::Ok);
    drop(sending);
    drop(channel);
    running.server.stop().await.unwrap();

    let running = start(with_access).await;
    let channel = running.plain().await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for path in [HEALTH, "/deed.v1.Log/GetTreeHead"] {
        // A message that is too large is refused when it is announced.
        let status = send(&channel, path, unfinished((64 << 10) + 1, 0), &[]).await;
        assert_eq!(status.code(), Code::OutOfRange, "{path}: {status}");
        let status = send(&channel, path, unfinished(64 << 10, 1), &[]).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
    }
    // Reflection's own service does not report why its stream ended, but it ends.
    for (size, chunks) in [((64 << 10) + 1, 0), (64 << 10, 1)] {
        send(&channel, reflection, unfinished(size, chunks), &[]).await;
    }
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_request_open() {
    let running = start(|options, tls_dir| {
        with_access(options, tls_dir);
        options.limits.stall_ms = 100;
    })
    .await;
    let channel = running.plain().await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // The stream ends; this service reports nothing more.
    send(&channel, reflection, unfinished(100, 0), &[]).await;
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let running = start(with_access).await;
    let channel = running.plain().await;
    let long = "x".repeat(24 << 10);
    let (status, _) = get(&channel, "/logs/none/checkpoint", Some(&long)).await;
    assert_eq!(status, 431);
    let mut stream = running.tcp().await;
    let (mut reading, mut writing) = stream.split();
    let endless = async {
        let _ = writing.write_all(b"GET / HTTP/1.1\r\n").await;
        while writing.write_all(b"a: b\r\n").await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(until_closed(&mut reading), endless);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    running.server.stop().await.unwrap();
}

/// Requests that a proxy in front could read differently are refused.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_is_read_strictly_and_one_way() {
    let running = start(|_, _| ()).await;
    let long = format!("a: {}", "x".repeat(20 << 10));
    let longer = format!("a: {}", "x".repeat(40 << 10));
    let get = "GET /logs/none/checkpoint HTTP/1.1\r\n";
    let ask = async |request: &str| {
        let mut stream = running.tcp().await;
        let (mut reading, mut writing) = stream.split();
        let (answer, _) = tokio::join!(
            until_closed(&mut reading),
            writing.write_all(request.as_bytes())
        );
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let statuses = answer.lines().filter(|line| line.starts_with("HTTP/1."));
        let statuses = statuses.map(|line| line.split(' ').nth(1).unwrap().to_owned());
        statuses.collect::<Vec<_>>().join(" ")
    };
    let close = "connection: close\r\n\r\n";
    for (request, wanted) in [
        (format!("{get}host: x\r\n{close}"), "404"),
        (format!("{get}{close}"), "400"),
        (format!("{get}host: x\r\nhost: y\r\n{close}"), "400"),
        (format!("{get}host: x\n{close}"), "400"),
        (format!("{get}host: x\ry: z\r\n{close}"), "400"),
        (get.replace("\r\n", "\n") + "host: x\n\n", "400"),
        (format!("{get}host: x\r\n{long}\r\n{close}"), "431"),
        (format!("{get}host: x\r\n{longer}\r\n{close}"), "400"),
        (
            format!("{get}host: x\r\ncontent-length: 5\r\n\r\nGET /"),
            "400",
        ),
        (
            format!("{get}host: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        // Each of several requests in a row is read in this way.
        (format!("{get}host: x\r\n\r\n{get}host: x\n\n"), "404 400"),
        (
            format!("{get}host: x\r\n\r\n{get}host: x\r\n{close}"),
            "404 404",
        ),
    ] {
        assert_eq!(ask(&request).await, wanted, "{request:.120}");
    }
    // HTTP/2 is not affected.
    assert_eq!(health(&running.plain().await).await, Code::Ok);
    running.server.stop().await.unwrap();
}

/// Connections without a known caller keep no caller out, however many they are.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_give_way_to_those_who_ask() {
    let running = start(|options, tls_dir| {
        with_access(options, tls_dir);
        options.limits.connections = 4;
    })
    .await;
    let admin = admin(&running.data_dir());
    let known = running.plain().await;
    while call(&known, LIST, BytesMut::new(), Some(&admin)).await != Code::Ok {
        tokio::task::yield_now().await;
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(running.tcp().await);
        // An anonymous request does not make its caller known.
        let stranger = running.plain().await;
        assert_eq!(health(&stranger).await, Code::Ok);
    }
    let newcomer = running.plain().await;
    let listed = call(&newcomer, LIST, BytesMut::new(), Some(&admin)).await;
    assert_eq!(listed, Code::Ok);
    // The connection with a known caller has stayed.
    let listed = call(&known, LIST, BytesMut::new(), Some(&admin)).await;
    assert_eq!(listed, Code::Ok);
    drop(silent);
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_would_be_too_open_does_not_start_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let data = data_dir(&dir);
    let mut options = ServerOptions::new(&data);
    let listen: std::net::SocketAddr = "0.0.0.0:0".parse().unwrap();
    options.listen = listen.into();
    let refused = async |options: &ServerOptions| {
        let started = Server::start(options.clone(), Arc::new(SystemClock)).await;
        match started.err().unwrap() {
            StartError::Exposed(error) => error,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(&options).await, RuleError::NoTls { listen });
    options.access.required = Some(true);
    assert_eq!(refused(&options).await, RuleError::NoTls { listen });
    with_tls(&mut options, &tls_dir(&dir), false);
    options.access.required = Some(false);
    assert_eq!(
        refused(&options).await,
        RuleError::NoAccessControl { listen }
    );
    assert!(!data.exists());
    // Certificates that cannot be read are reported before anything is created, too.
    options.access = AccessOptions::default();
    let broken = TlsOptions {
        key: dir.path().join("none"),
        ..options.tls.clone().unwrap()
    };
    let good = options.tls.replace(broken);
    let started = Server::start(options.clone(), Arc::new(SystemClock)).await;
    assert!(matches!(started.err().unwrap(), StartError::Tls(_)));
    assert!(!data.exists());
    options.tls = good;
    options.listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(options, Arc::new(SystemClock)).await.unwrap();
    server.stop().await.unwrap();
}
