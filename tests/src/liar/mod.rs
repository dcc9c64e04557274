//! Servers that lie: about what was recorded, and about the assessment of a ledger.
//!
//! There are two tools, and one can be in front of the other:
//!
//! ```text
//! client ── Liar ──> deed-server             answers are changed on their way back
//! client ── ForgedServer                     a ledger that a test makes, entry by entry
//! client ── Liar ──> ForgedServer            a forged ledger, and other answers about it
//! ```
//!
//! A [`Liar`] passes every rpc on to a server and lets a closure change the answer:
//!
//! ```text
//! let liar = Liar::before(&server.url()).await;
//! liar.list_findings(|_, answer| Ok(v1::ListFindingsResponse { findings: Vec::new(), ..answer? }));
//! let deed = Deed::new(&liar.url(), "payments");
//! ```
//!
//! A liar cannot sign: every client detects a changed entry, proof or head. A [`ForgedLedger`] has
//! its log's key. Its tree, heads and proofs are all valid, and the test chooses what its entries
//! say, who signed them and when they were received:
//!
//! ```text
//! let mut ledger = ForgedLedger::new("payments");
//! let mut cast = Cast::in_ledger(&mut ledger);
//! let intent = ledger.says_unsigned(&mut cast.agent, task, body);
//! let forged = ledger.serve().await;            // a server; or ledger.write_mirror(&dir)
//! ```
//!
//! By default the forged server gives the best possible assessment: everything is cleared,
//! completed and proven, and there are no findings. [`ForgedServer::tell`] changes it, and
//! [`Story::honest`] makes it the true one.

mod answers;
pub mod cast;
mod forward;
mod honest;
mod ledger;
mod lies;
mod serve;
mod story;

use std::{net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Status, transport::server::Router};

pub use cast::{Cast, Voice};
pub use ledger::{ForgedLedger, Place, ProofFiles, clearance};
pub use lies::Answer;
pub use serve::ForgedServer;
pub use story::Story;

use forward::Forward;
use lies::Lies;

/// Requests and answers of tests may be large.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A server between clients and another server, on a free port of 127.0.0.1. It ends when it is
/// dropped.
///
/// The methods that are named after rpcs set the changes of their answers; a later change of the
/// same rpc replaces the earlier one. An answer with several messages is changed as a whole if the
/// stream ends by itself, and otherwise message by message.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    lies: Arc<Lies>,
    serving: Serving,
}

impl Liar {
    /// Starts in front of the server at `url`, without any lies.
    ///
    /// # Panics
    /// If there is no server, or no free port.
    pub async fn before(url: &str) -> Self {
        let lies = Arc::new(Lies::default());
        let forward = Forward::to(url, Arc::clone(&lies)).await;
        let (address, serving) = Serving::start(forward.services()).await;
        Self {
            address,
            lies,
            serving,
        }
    }

    /// Returns the URL that clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the rpcs that clients called so far, by name, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<&'static str> {
        self.lies.asked()
    }

    /// Stops forwarding an rpc from now on: the lie about it gets UNAVAILABLE, and makes the whole
    /// answer.
    pub fn withhold(&self, rpc: &'static str) {
        self.lies.withhold(rpc);
    }

    /// Ends the server, with all connections.
    pub fn end(self) {
        drop(self.serving);
    }
}

/// A server in this process. It ends when it is dropped.
#[derive(Debug)]
struct Serving(JoinHandle<()>);

impl Serving {
    async fn start(services: Router) -> (SocketAddr, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let connections = TcpListenerStream::new(listener).map(|connection| {
            // Without this, each small answer waits for the delayed acknowledgement of the one
            // before.
            connection.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        });
        let serving = tokio::spawn(async move {
            // The server ends with the test, or with the listener.
            let _ = services.serve_with_incoming(connections).await;
        });
        (address, Self(serving))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns a refusal as its sender made it, without the metadata that the transport added.
fn bare(status: &Status) -> Status {
    let details = bytes::Bytes::copy_from_slice(status.details());
    Status::with_details(status.code(), status.message(), details)
}
