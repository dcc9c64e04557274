//! Helpers for tests of the listener and of access control: a server on a free port, and clients
//! that can misbehave.

use std::{
    collections::HashMap,
    future::poll_fn,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use deed_evidence::Micros;
use hyper::body::Body as _;
use tempfile::TempDir;
use tonic::{
    Code, Status,
    body::Body,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tower::{Service as _, ServiceExt as _};

use super::issue;
use deed_engine::clock::Clock as _;

use crate::{
    Server, ServerOptions, SystemClock,
    access::{
        file::{AccessFile, TokenRequest},
        role::{EVERY_LEDGER, Role},
    },
    options::{AccessOptions, TlsOptions},
    testing::AUTHORITY_KEY,
};

pub(crate) const SERVER_NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// A server that runs, with its files.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

impl Running {
    pub(crate) fn data_dir(&self) -> PathBuf {
        data_dir(&self.dir)
    }

    pub(crate) fn tls_dir(&self) -> PathBuf {
        tls_dir(&self.dir)
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.address().port()
    }

    pub(crate) async fn tcp(&self) -> tokio::net::TcpStream {
        tokio::net::TcpStream::connect(self.server.address())
            .await
            .unwrap()
    }

    /// Opens a connection in clear.
    pub(crate) async fn plain(&self) -> Channel {
        let uri = format!("http://127.0.0.1:{}", self.port());
        let endpoint = Channel::from_shared(uri).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Opens a connection under TLS that trusts the authority of `tls_dir`, with the client
    /// certificate of this name.
    pub(crate) async fn tls(
        &self,
        tls_dir: &Path,
        client: Option<&str>,
    ) -> Result<Channel, tonic::transport::Error> {
        let mut config = ClientTlsConfig::new()
            .domain_name("localhost")
            .ca_certificate(Certificate::from_pem(pem(tls_dir, "ca.pem")));
        if let Some(name) = client {
            let certificate = pem(tls_dir, &format!("{name}.pem"));
            let key = pem(tls_dir, &format!("{name}.key"));
            config = config.identity(Identity::from_pem(certificate, key));
        }
        let uri = format!("https://127.0.0.1:{}", self.port());
        let endpoint = Channel::from_shared(uri).unwrap().tls_config(config)?;
        endpoint.connect().await
    }
}

/// Starts a server; `set` may change its options.
pub(crate) async fn start(set: impl FnOnce(&mut ServerOptions, &Path)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    start_in(dir, set).await
}

pub(crate) async fn start_in(dir: TempDir, set: impl FnOnce(&mut ServerOptions, &Path)) -> Running {
    let mut options = ServerOptions::new(data_dir(&dir));
    set(&mut options, &tls_dir(&dir));
    let server = Server::start(options, Arc::new(SystemClock)).await.unwrap();
    Running { server, dir }
}

pub(crate) fn data_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

pub(crate) fn tls_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("tls")
}

pub(crate) fn pem(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

/// Makes certificates and sets the options to use them.
pub(crate) fn with_tls(options: &mut ServerOptions, tls_dir: &Path, clients: bool) {
    issue::init(tls_dir, &SERVER_NAMES.map(str::to_owned), SystemClock.now()).unwrap();
    options.tls = Some(TlsOptions {
        certificate: tls_dir.join("server.pem"),
        key: tls_dir.join("server.key"),
        client_authorities: clients.then(|| tls_dir.join("ca.pem")),
        require_client_certificate: false,
    });
}

/// Sets the options so that callers must say who they are, in clear.
pub(crate) fn with_access(options: &mut ServerOptions, _: &Path) {
    options.access = AccessOptions {
        required: Some(true),
        insecure: false,
    };
}

/// Makes a token that is valid for an hour.
pub(crate) fn token(data_dir: &Path, principal: &str, ledgers: Option<&[&str]>) -> String {
    let now = SystemClock.now();
    let request = TokenRequest {
        principal: principal.to_owned(),
        ledgers: ledgers.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
        now,
        expires: Micros::new(now.get() + 3_600_000_000),
    };
    let made = AccessFile::edit(data_dir, |file| file.create_token(request)).unwrap();
    made.1.to_string()
}

pub(crate) fn grant(data_dir: &Path, principal: &str, ledger: &str, role: Role) {
    AccessFile::edit(data_dir, |file| file.grant(principal, ledger, role)).unwrap();
}

/// Creates ledgers with this token.
pub(crate) async fn create_ledgers(channel: &Channel, token: Option<&str>, names: &[&str]) {
    for name in names {
        let mut request = named(name);
        request.put_slice(&[0x12, 32]);
        request.put_slice(&AUTHORITY_KEY);
        let path = "/deed.v1.Ledger/CreateLedger";
        assert_eq!(call(channel, path, request, token).await, Code::Ok);
    }
}

/// Makes an admin's token; the principal has all roles everywhere.
pub(crate) fn admin(data_dir: &Path) -> String {
    for role in Role::ALL {
        grant(data_dir, "admin", EVERY_LEDGER, role);
    }
    token(data_dir, "admin", None)
}

/// Returns a message whose first field is this text, as most requests have it.
pub(crate) fn named(name: &str) -> BytesMut {
    let mut message = BytesMut::new();
    message.put_u8(0x0a);
    message.put_u8(u8::try_from(name.len()).unwrap());
    message.put_slice(name.as_bytes());
    message
}

/// Calls an rpc with one message; returns the code with which it ends, or `Ok` if a first message
/// comes, without waiting for the rest.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    message: BytesMut,
    token: Option<&str>,
) -> Code {
    let authorization = token.map(|token| format!("Bearer {token}"));
    call_as(channel, path, message, authorization.as_slice()).await
}

/// Calls an rpc with these authorization headers.
pub(crate) async fn call_as(
    channel: &Channel,
    path: &str,
    message: BytesMut,
    authorization: &[String],
) -> Code {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap());
    body.extend(message);
    let body = axum::body::Body::from(body.freeze());
    send(channel, path, Body::new(body), authorization)
        .await
        .code()
}

pub(crate) async fn send(
    channel: &Channel,
    path: &str,
    body: Body,
    authorization: &[String],
) -> Status {
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for value in authorization {
        request = request.header("authorization", value);
    }
    let mut channel = channel.clone();
    let request = request.body(body).unwrap();
    let called = match channel.ready().await {
        Ok(ready) => ready.call(request).await,
        Err(error) => Err(error),
    };
    let mut response = match called {
        Ok(response) => response,
        Err(error) => return Status::from_error(Box::new(error)),
    };
    // A path that no service has is answered by the HTTP routes; clients of gRPC read a 404 in this
    // way, too.
    if response.status() == 404 {
        return Status::unimplemented("there is no such service");
    }
    assert_eq!(response.status(), 200, "{path}");
    if let Some(status) = Status::from_header_map(response.headers()) {
        return status;
    }
    while let Some(frame) = poll_fn(|c| Pin::new(response.body_mut()).poll_frame(c)).await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(status) => return status,
        };
        match frame.trailers_ref().and_then(Status::from_header_map) {
            Some(status) => return status,
            None if frame.is_data() => return Status::ok(""),
            None => {}
        }
    }
    Status::unknown("the stream ended without a status")
}

/// Requests an HTTP path; returns its status and headers.
pub(crate) async fn get(
    channel: &Channel,
    path: &str,
    token: Option<&str>,
) -> (u16, HashMap<String, String>) {
    let mut request = http::Request::get(format!("http://localhost{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut channel = channel.clone();
    let body = Body::new(axum::body::Body::from(Bytes::new()));
    let request = request.body(body).unwrap();
    let response = channel.ready().await.unwrap().call(request).await.unwrap();
    let headers = response.headers().iter();
    let headers = headers.map(|(name, value)| {
        let value = value.to_str().unwrap().to_owned();
        (name.as_str().to_owned(), value)
    });
    (response.status().as_u16(), headers.collect())
}
