//! Servers that lie: about what they were told, and about what a ledger means.
//!
//! Two tools, of which each can stand before the other:
//!
//! ```text
//! client ── Liar ──> deed-server             answers are changed on their way back
//! client ── ForgedServer                     a ledger that a test makes, entry by entry
//! client ── Liar ──> ForgedServer            a forged ledger, and another story about it
//! ```
//!
//! A [`Liar`] passes every rpc on to a server and lets a closure change the answer:
//!
//! ```ignore
//! let liar = Liar::before(&server.url()).await;
//! liar.list_findings(|_, answer| Ok(v1::ListFindingsResponse { findings: Vec::new(), ..answer? }));
//! let deed = Deed::new(&liar.url(), "payments");
//! ```
//!
//! It cannot sign: a changed entry, proof or head is found out by every client. A
//! [`ForgedLedger`] has its log's key. Its tree, heads and proofs are all in order, and what the
//! entries in it say, who signed them and when they came is for the test to choose:
//!
//! ```ignore
//! let mut ledger = ForgedLedger::new("payments");
//! let mut cast = Cast::in_ledger(&mut ledger);
//! let intent = ledger.says_unsigned(&mut cast.agent, task, body);
//! let forged = ledger.serve().await;            // a server; or ledger.write_mirror(&dir)
//! ```
//!
//! The forged server's own story is the best that can be told: everything is cleared, completed and
//! proven, and nothing was found. [`ForgedServer::tell`] changes it, and with [`Story::honest`] makes it
//! what the entries come to.

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

/// Stands between clients and a server, on a free port of 127.0.0.1. Ends when it is dropped.
///
/// The methods that are named after rpcs set what becomes of their answers; a later lie about the same
/// rpc takes the place of the one before. Of rpcs with an answer in several messages, those that end
/// by themselves are changed as a whole, and those that do not, message by message.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    lies: Arc<Lies>,
    serving: Serving,
}

impl Liar {
    /// Stands before the server at an address, and tells no lies yet.
    ///
    /// # Panics
    /// If nobody listens there, or there is no port.
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

    /// The URL that clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The rpcs that clients called so far, by name, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<&'static str> {
        self.lies.asked()
    }

    /// Keeps an rpc from the server from now on: the lie about it, which gets UNAVAILABLE, is all that
    /// is left of its answer.
    pub fn withhold(&self, rpc: &'static str) {
        self.lies.withhold(rpc);
    }

    /// Ends it, with all connections.
    pub fn end(self) {
        drop(self.serving);
    }
}

/// A server of this process. Ends when it is dropped.
#[derive(Debug)]
struct Serving(JoinHandle<()>);

impl Serving {
    async fn start(services: Router) -> (SocketAddr, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let connections = TcpListenerStream::new(listener).map(|connection| {
            // Or each small answer waits for the delayed acknowledgement of the one before.
            connection.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        });
        let serving = tokio::spawn(async move {
            // It ends with the test, or with the listener.
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

/// A refusal as its sender made it: without what the transport added.
fn bare(status: &Status) -> Status {
    let details = bytes::Bytes::copy_from_slice(status.details());
    Status::with_details(status.code(), status.message(), details)
}
