//! The listener against clients that are slow, wrong or hostile.

mod limits;

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
use deed_engine::clock::Clock as _;

use crate::{
    Server, ServerOptions, StartError, SystemClock,
    access::role::Role,
    options::{AccessOptions, TlsOptions},
};

const AGENT: &str = "spiffe://example.org/agent";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const ENTRIES: &str = "/deed.v1.Log/GetEntries";
const LIST: &str = "/deed.v1.Ledger/ListLedgers";

/// The client's connection preface and empty settings (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

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
