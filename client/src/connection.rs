//! One HTTP/2 connection to a server.

use std::{sync::Arc, time::Duration};

use deed_proto::v1::{ledger_client::LedgerClient, log_client::LogClient};
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, InputError};

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

/// A connection with the clients of both services. Reconnects by itself at the next call after
/// it was lost. Clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    server: Arc<str>,
    ledger: LedgerClient<Channel>,
    log: LogClient<Channel>,
}

impl Connection {
    /// Connects to `server`, for example `http://127.0.0.1:7733`.
    ///
    /// # Errors
    /// [`Error::Input`] if that is no such address, [`Error::Unreachable`] if nobody answers
    /// within 5 seconds.
    pub async fn open(server: &str) -> Result<Self, Error> {
        let url = || InputError::ServerUrl {
            url: server.to_owned(),
        };
        let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|_| url())?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                let url = server.to_owned();
                return Err(InputError::Scheme { url }.into());
            }
            _ => return Err(url().into()),
        }
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
                reason: innermost(&error),
            })?;
        Ok(Self {
            server: server.into(),
            ledger: LedgerClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            log: LogClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
        })
    }

    /// The server's address as given.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The client of the writing service.
    #[must_use]
    pub fn ledger(&self) -> LedgerClient<Channel> {
        self.ledger.clone()
    }

    /// The client of the reading service.
    #[must_use]
    pub fn log(&self) -> LogClient<Channel> {
        self.log.clone()
    }
}

/// The cause at the end of the chain: "transport error" alone helps nobody.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
