//! TLS, client certificates and tokens: what is asked of the server, what is shown to it, and
//! what a person is told when it fails.

use std::sync::{Arc, Mutex};

use deed_client::{Access, Error, ErrorKind, InputError, Ledger, Options, Token};
use deed_proto::v1::{ledger_server::LedgerServer, log_server::LogServer};
use deed_testkit::fake::{Fake, options};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// A certificate authority of this test alone.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key for a name.
    fn issue(&self, name: &str) -> (String, String) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server with TLS, and the credentials that it saw.
struct Secure {
    url: String,
    authority: Authority,
    tokens: Arc<Mutex<Vec<Option<String>>>>,
}

impl Secure {
    /// `name` is what the certificate is for; with `clients` only certificates of that authority
    /// are let in.
    async fn start(name: &str, clients: Option<&Authority>) -> Self {
        let fake = Fake::start().await;
        let authority = Authority::new("test authority");
        let (certificate, key) = authority.issue(name);
        let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        if let Some(clients) = clients {
            tls = tls.client_ca_root(Certificate::from_pem(&clients.pem));
        }
        let tokens = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&tokens);
        let look = move |request: Request<()>| {
            let token = request.metadata().get("authorization");
            let token = token.map(|token| token.to_str().unwrap().to_owned());
            let refused = token.as_deref() == Some("Bearer wrong");
            seen.lock().unwrap().push(token);
            if refused {
                return Err(Status::unauthenticated("no such token"));
            }
            Ok(request)
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(LedgerServer::with_interceptor(fake.clone(), look.clone()))
            .add_service(LogServer::with_interceptor(fake, look))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        Self {
            url: format!("https://localhost:{port}"),
            authority,
            tokens,
        }
    }

    fn trusted(&self) -> Access {
        Access::new().ca_pem(self.authority.pem.as_str())
    }

    async fn connect(&self, access: Access) -> Result<Ledger, Error> {
        Ledger::connect(options(&self.url).access(access)).await
    }
}

fn told(error: &Error, wanted: &str) {
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = error.to_string();
    assert!(error.contains(wanted), "{error}");
}

#[tokio::test]
async fn a_server_of_a_trusted_authority_is_spoken_to_and_gets_the_token() {
    let secure = Secure::start("localhost", None).await;
    let access = secure.trusted().token(Token::parse("right").unwrap());
    let ledger = secure.connect(access).await.unwrap();
    ledger.head().await.unwrap();
    // A further connection shows the same.
    ledger.connect_again().await.unwrap().head().await.unwrap();
    let tokens = secure.tokens.lock().unwrap();
    assert!(tokens.len() >= 4);
    assert!(
        tokens
            .iter()
            .all(|token| token.as_deref() == Some("Bearer right"))
    );
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let secure = Secure::start("localhost", None).await;
    let other = Access::new().ca_pem(Authority::new("other").pem);
    told(&secure.connect(other).await.unwrap_err(), "--ca");
    let elsewhere = Secure::start("elsewhere.example", None).await;
    let error = elsewhere.connect(elsewhere.trusted()).await.unwrap_err();
    told(&error, "for another name");
    assert!(secure.tokens.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let clients = Authority::new("clients");
    let secure = Secure::start("localhost", Some(&clients)).await;
    let (certificate, key) = clients.issue("agent.example");
    let shown = secure.trusted().identity_pem(&certificate, &key);
    secure.connect(shown).await.unwrap();
    // The client sees either the server's alert or the closed connection first.
    let error = secure.connect(secure.trusted()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    let (_, other_key) = clients.issue("agent.example");
    let mismatched = secure.trusted().identity_pem(certificate, other_key);
    let error = secure.connect(mismatched).await.unwrap_err();
    assert!(
        matches!(error, Error::Input(InputError::Certificates { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn a_wrong_token_is_told_without_being_shown() {
    let secure = Secure::start("localhost", None).await;
    let access = secure.trusted().token(Token::parse("wrong").unwrap());
    let error = secure.connect(access).await.unwrap_err();
    assert!(matches!(error, Error::Unauthenticated { .. }), "{error}");
    told(&error, "--token-file");
    assert!(!format!("{error} {error:?}").contains("wrong"));
}

#[tokio::test]
async fn what_needs_tls_is_not_sent_without() {
    let token = || Access::new().token(Token::parse("right").unwrap());
    let connect = |url: &str, access| Ledger::connect(Options::new(url, "test").access(access));
    let error = connect("http://ledger.example:7733", token())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Input(InputError::TokenInClear)),
        "{error}"
    );
    let certificates = Access::new().ca_pem("whatever");
    let error = connect("http://127.0.0.1:7733", certificates)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Input(InputError::NoTls)), "{error}");
    // To this machine itself it may.
    let fake = Fake::start().await;
    Ledger::connect(fake.options().access(token()))
        .await
        .unwrap();
}

#[tokio::test]
async fn tls_to_a_port_without_it_says_so() {
    let fake = Fake::start().await;
    let url = fake.url().replace("http://", "https://");
    let access = Access::new().ca_pem(Authority::new("any").pem);
    let error = Ledger::connect(options(&url).access(access))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
