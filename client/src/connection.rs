//! An HTTP/2 connection to a server.

use std::{sync::Arc, time::Duration};

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

/// A connection with the clients of all services. Reconnects by itself at the next call after
/// it was lost. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    server: Arc<str>,
    access: Arc<Access>,
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
        let url = || InputError::ServerUrl {
            url: server.to_owned(),
        };
        let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|_| url())?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("http") if access.needs_tls() => return Err(InputError::NoTls.into()),
            // A token in clear is anybody's who listens.
            Some("http") if access.has_token() && !is_loopback(&endpoint) => {
                return Err(InputError::TokenInClear.into());
            }
            Some("http") => endpoint,
            Some("https") => {
                endpoint
                    .tls_config(access.tls())
                    .map_err(|error| InputError::Certificates {
                        reason: innermost(&error),
                    })?
            }
            _ => return Err(url().into()),
        };
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .connect()
            .await
            .map_err(|error| Error::Unreachable {
                server: server.to_owned(),
                reason: explained(&innermost(&error)),
            })?;
        let bearer = access.bearer();
        Ok(Self {
            server: server.into(),
            ledger: LedgerClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            log: LogClient::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            content: ContentRpc::with_interceptor(channel.clone(), bearer.clone())
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            actions: ActionsClient::with_interceptor(channel, bearer)
                .max_decoding_message_size(ANSWER_BYTES_MAX),
            access: Arc::new(access),
        })
    }

    /// The server's address as given.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The client of the writing service.
    #[must_use]
    pub fn ledger(&self) -> LedgerClient<Transport> {
        self.ledger.clone()
    }

    /// The client of the reading service.
    #[must_use]
    pub fn log(&self) -> LogClient<Transport> {
        self.log.clone()
    }

    /// The client of the content service.
    #[must_use]
    pub fn content(&self) -> ContentRpc<Transport> {
        self.content.clone()
    }

    /// The client of the service for acts: clearance, tasks, findings, search.
    #[must_use]
    pub fn actions(&self) -> ActionsClient<Transport> {
        self.actions.clone()
    }

    /// A further connection to the same server, with the same credentials.
    pub(crate) async fn again(&self) -> Result<Self, Error> {
        Self::open_with(&self.server, Access::clone(&self.access)).await
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
