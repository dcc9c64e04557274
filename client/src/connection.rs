//! Connections to the servers of a ledger.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use deed_proto::v1::{
    actions_client::ActionsClient, content_client::ContentClient as ContentRpc,
    ledger_client::LedgerClient, log_client::LogClient,
};
use tonic::{
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use crate::{
    access::{Access, Bearer},
    error::{Error, InputError},
};

/// A channel that shows the client's token, if it has one.
pub type Transport = InterceptedService<Channel, Bearer>;

/// Most statements in one request.
pub const REQUEST_ITEMS_MAX: usize = 4_096;
/// Most payload bytes in one request: 4 MiB less 64 KiB for the envelopes around the payloads
/// (a tag, a length and a type, at most 12 bytes each).
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Receive windows: as large as a client can use, so that answers are never held back. A stream's
/// window is half of the connection's: no stream can starve the others.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const FRAME_BYTES_MAX: u32 = 64 * 1024;
/// An answer to 4,096 statements with proofs of 64 hashes has about 10 MiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is found out within these two together.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to one server, or to several that have the same ledgers: calls go to one of them, and to
/// the next one when a call failed in a way that may pass. Reconnects by itself at the next call after it
/// was lost. Clones share it, and the choice of the server.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Never empty.
    servers: Arc<[Server]>,
    /// The addresses of all servers, for messages and evidence: one log key signs for all of them.
    names: Arc<str>,
    /// Position of the server that new calls go to.
    current: Arc<AtomicUsize>,
    access: Arc<Access>,
}

/// One server, with the clients of all services.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    url: Arc<str>,
    ledger: LedgerClient<Transport>,
    log: LogClient<Transport>,
    content: ContentRpc<Transport>,
    actions: ActionsClient<Transport>,
}

impl Connection {
    /// Connects to `server`, for example `http://127.0.0.1:7733`, without credentials.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn open(server: &str) -> Result<Self, Error> {
        Self::open_with(server, Access::new()).await
    }

    /// Connects to `server` over TLS if that is `https://`.
    ///
    /// # Errors
    /// [`Error::Input`] if that is no such address, or what was given does not fit it;
    /// [`Error::Unreachable`] if nobody answers within 5 seconds, or TLS fails.
    pub async fn open_with(server: &str, access: Access) -> Result<Self, Error> {
        Self::open_any(&[server], access).await
    }

    /// Connects to the first of `servers` that is there; the others are connected to when they are
    /// needed. All of them get the same credentials.
    ///
    /// # Errors
    /// [`Error::Input`] if one of the addresses is none, or does not fit what was given;
    /// [`Error::Unreachable`] if no server is there: each has 5 seconds.
    pub async fn open_any(servers: &[impl AsRef<str>], access: Access) -> Result<Self, Error> {
        let servers = servers.iter().map(AsRef::as_ref);
        let endpoints = servers
            .map(|server| Ok((server, endpoint(server, &access)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let mut connected = Vec::with_capacity(endpoints.len());
        let mut first = None;
        let mut failures: Vec<(&str, String)> = Vec::new();
        for (position, (server, endpoint)) in endpoints.iter().enumerate() {
            let channel = match first {
                None => match endpoint.connect().await {
                    Ok(channel) => {
                        first = Some(position);
                        channel
                    }
                    Err(error) => {
                        failures.push((server, explained(&innermost(&error))));
                        endpoint.connect_lazy()
                    }
                },
                Some(_) => endpoint.connect_lazy(),
            };
            connected.push(Server::new(server, channel, &access.bearer()));
        }
        let Some(first) = first else {
            return Err(unreachable(&failures));
        };
        let names: Vec<&str> = endpoints.iter().map(|(server, _)| *server).collect();
        Ok(Self {
            names: names.join(", ").into(),
            servers: connected.into(),
            current: Arc::new(AtomicUsize::new(first)),
            access: Arc::new(access),
        })
    }

    /// Connections that are opened when they are needed.
    #[cfg(test)]
    pub(crate) fn lazy(servers: &[&str]) -> Self {
        let access = Access::new();
        let opened = servers.iter().map(|server| {
            let channel = endpoint(server, &access).unwrap().connect_lazy();
            Server::new(server, channel, &access.bearer())
        });
        Self {
            servers: opened.collect(),
            names: servers.join(", ").into(),
            current: Arc::default(),
            access: Arc::new(access),
        }
    }

    /// The address, as given, of the server that calls go to now.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.at(self.current()).url
    }

    /// The addresses of all servers, in the order in which they were given.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| &*server.url)
    }

    /// The client of the writing service.
    #[must_use]
    pub fn ledger(&self) -> LedgerClient<Transport> {
        self.at(self.current()).ledger()
    }

    /// The client of the reading service.
    #[must_use]
    pub fn log(&self) -> LogClient<Transport> {
        self.at(self.current()).log()
    }

    /// The client of the content service.
    #[must_use]
    pub fn content(&self) -> ContentRpc<Transport> {
        self.at(self.current()).content()
    }

    /// The client of the service for acts: clearance, tasks, findings, search.
    #[must_use]
    pub fn actions(&self) -> ActionsClient<Transport> {
        self.at(self.current()).actions()
    }

    /// A further connection to the same servers, with the same credentials.
    pub(crate) async fn again(&self) -> Result<Self, Error> {
        let servers: Vec<&str> = self.servers().collect();
        Self::open_any(&servers, Access::clone(&self.access)).await
    }

    /// Returns the number of servers.
    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// Returns the position of the server that new calls go to.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// Returns the server at `position`.
    pub(crate) fn at(&self, position: usize) -> &Server {
        &self.servers[position % self.servers.len()]
    }

    /// Returns the position of the server behind the one at `failed`, to which new calls go from now on;
    /// unless another call has found a better one meanwhile.
    pub(crate) fn move_on(&self, failed: usize) -> usize {
        let next = (failed + 1) % self.servers.len();
        let (set, seen) = (Ordering::Relaxed, Ordering::Relaxed);
        // Another call's choice stays.
        let _ = self.current.compare_exchange(failed, next, set, seen);
        next
    }

    /// Returns the addresses of all servers, for messages and evidence.
    pub(crate) fn names(&self) -> &str {
        &self.names
    }
}

impl Server {
    fn new(url: &str, channel: Channel, bearer: &Bearer) -> Self {
        let (url, bearer) = (url.into(), bearer.clone());
        Self {
            url,
            ledger: LedgerClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            log: LogClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            content: ContentRpc::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            actions: ActionsClient::with_interceptor(channel, bearer)
                .max_decoding_message_size(ANSWER_BYTES_MAX),
        }
    }

    /// The server's address as given.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn ledger(&self) -> LedgerClient<Transport> {
        self.ledger.clone()
    }

    pub(crate) fn log(&self) -> LogClient<Transport> {
        self.log.clone()
    }

    pub(crate) fn content(&self) -> ContentRpc<Transport> {
        self.content.clone()
    }

    pub(crate) fn actions(&self) -> ActionsClient<Transport> {
        self.actions.clone()
    }
}

/// Returns the transport's settings for `server`, if the credentials fit its address.
fn endpoint(server: &str, access: &Access) -> Result<Endpoint, InputError> {
    let url = || InputError::ServerUrl {
        url: server.to_owned(),
    };
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|_| url())?;
    let endpoint = match endpoint.uri().scheme_str() {
        Some("http") if access.needs_tls() => return Err(InputError::NoTls),
        // A token in clear is anybody's who listens.
        Some("http") if access.has_token() && !is_loopback(&endpoint) => {
            return Err(InputError::TokenInClear);
        }
        Some("http") => endpoint,
        Some("https") => {
            endpoint
                .tls_config(access.tls())
                .map_err(|error| InputError::Certificates {
                    reason: innermost(&error),
                })?
        }
        _ => return Err(url()),
    };
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT))
}

/// Returns the error for servers of which none is there. Without any server the list is empty.
fn unreachable(failures: &[(&str, String)]) -> Error {
    match failures {
        [] => InputError::ServerUrl { url: String::new() }.into(),
        [(server, reason)] => Error::Unreachable {
            server: (*server).to_owned(),
            reason: reason.clone(),
        },
        several => {
            let servers: Vec<&str> = several.iter().map(|(server, _)| *server).collect();
            let reasons = several
                .iter()
                .map(|(server, reason)| format!("{server}: {reason}"));
            Error::Unreachable {
                server: servers.join(", "),
                reason: reasons.collect::<Vec<_>>().join("; "),
            }
        }
    }
}

fn is_loopback(endpoint: &Endpoint) -> bool {
    let host = endpoint.uri().host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Returns the TLS library's message with advice.
fn explained(reason: &str) -> String {
    let advice = if reason.contains("UnknownIssuer") {
        "the server's certificate is of an authority that is not trusted here; give that one with \
         --ca"
    } else if reason.contains("not valid for name") || reason.contains("NotValidForName") {
        "the server's certificate is for another name; use the name that it is for"
    } else if reason.contains("certificate expired") || reason.contains("Expired") {
        "the server's certificate has expired; its operator must renew it"
    } else if reason.contains("not valid yet") {
        "the server's certificate begins later; one of the two clocks is wrong"
    } else if reason.contains("CertificateRequired") || reason.contains("HandshakeFailure") {
        "the server asks for a client certificate; give one with --client-cert and --client-key"
    } else if reason.contains("InvalidMessage") || reason.contains("corrupt message") {
        "the server does not speak TLS there; use http:// or its other port"
    } else {
        return reason.to_owned();
    };
    format!("{reason}: {advice}")
}

/// The cause at the end of the chain: "transport error" alone helps nobody.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
