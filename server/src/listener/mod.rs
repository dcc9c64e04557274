//! Connections: accepting them, TLS, and what one of them may hold.
//!
//! Plain and TLS connections go the same way: a place among the connections that may be open, a
//! handshake in bounded time, then tonic's server, which reads HTTP from it. Each carries a
//! `Connection`, which requests find in their extensions.

pub(crate) mod activity;
mod io;
pub mod issue;
mod places;
mod rules;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod tls;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use deed_evidence::Micros;
use futures::Stream;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use self::{
    activity::Activity,
    io::GuardedIo,
    places::{NoPlace, Place, Places},
    tls::Certificates,
};
pub(crate) use self::{places::network, rules::check_rules};
pub use self::{rules::RuleError, tls::TlsError};
use crate::{
    access::principal, metrics::Connections, options::LimitOptions,
    pressure::undecoded::MESSAGE_BYTES_MAX,
};

/// Connections that wait to be served. Serving one takes no time, so few ever wait.
const WAITING_MAX: usize = 16;

/// How long to wait after the system could not accept, which it tells when it is out of file
/// descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log says that connections are turned away.
const SAY_INTERVAL: Duration = Duration::from_secs(10);

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Counted from 1 since the server's start.
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    /// Whom its client certificate names.
    pub(crate) certificate_principal: Option<Arc<str>>,
    /// When that certificate ends: a connection may live longer.
    pub(crate) certificate_ends: Option<Micros>,
    /// A permit for each byte that its requests may have waiting.
    pub(crate) budget: Arc<Semaphore>,
    /// A permit for each byte that its messages may have before they are complete.
    pub(crate) undecoded: Arc<Semaphore>,
    pub(crate) activity: Arc<Activity>,
}

impl Connection {
    /// Stands for the connection of a request that came over none.
    pub(crate) fn none() -> Self {
        Self {
            id: 0,
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            certificate_principal: None,
            certificate_ends: None,
            budget: Arc::new(Semaphore::new(0)),
            undecoded: Arc::new(Semaphore::new(MESSAGE_BYTES_MAX)),
            activity: Activity::new(Duration::ZERO, Duration::ZERO),
        }
    }
}

/// What happened at the listener since the start. They only count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections whose handshake was done.
    pub(crate) accepted: AtomicU64,
    /// Connections closed at once because too many were open.
    pub(crate) turned_away: AtomicU64,
    /// Handshakes that failed or took too long, and certificates that name nobody.
    pub(crate) handshakes_failed: AtomicU64,
    /// Connections ended because nothing was asked for, or nothing was taken.
    pub(crate) timed_out: AtomicU64,
    /// Connections that were accepted and are gone.
    pub(crate) closed: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// For `/metrics`.
    pub(crate) fn figures(&self) -> Connections {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let taken = of(&self.accepted);
        Connections {
            taken,
            open: taken.saturating_sub(of(&self.closed)),
            refused: vec![
                ("full", of(&self.turned_away)),
                ("handshake", of(&self.handshakes_failed)),
                ("slow", of(&self.timed_out)),
            ],
        }
    }

    fn opened(&self) {
        Self::count(&self.accepted);
    }

    fn timed_out(&self) {
        Self::count(&self.timed_out);
    }

    fn closed(&self) {
        Self::count(&self.closed);
    }
}

/// Connections that are ready to be served. Dropping it closes the listening socket.
pub(crate) struct Incoming(mpsc::Receiver<GuardedIo>);

impl Stream for Incoming {
    type Item = Result<GuardedIo, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|io| io.map(Ok))
    }
}

/// Accepts connections on a socket, until [`Incoming`] is dropped. The task ends when the socket
/// is closed.
pub(crate) fn accept(
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
    limits: &LimitOptions,
    counters: Arc<Counters>,
) -> (Incoming, JoinHandle<()>) {
    let (ready, incoming) = mpsc::channel(WAITING_MAX);
    let acceptor = Acceptor {
        certificates,
        handshake: Duration::from_millis(limits.handshake_ms),
        idle: Duration::from_millis(limits.idle_ms),
        stall: Duration::from_millis(limits.stall_ms),
        connection_bytes: limits.connection_bytes.min(Semaphore::MAX_PERMITS),
        counters,
        ready,
    };
    let places = Places::new(limits.connections);
    let accepting = tokio::spawn(accept_all(socket, Arc::new(acceptor), places));
    (Incoming(incoming), accepting)
}

async fn accept_all(socket: TcpListener, acceptor: Arc<Acceptor>, places: Arc<Places>) {
    let mut handshakes = JoinSet::new();
    let mut said: Option<Instant> = None;
    for id in 1.. {
        let (stream, peer) = loop {
            tokio::select! {
                () = acceptor.ready.closed() => return,
                accepted = socket.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections for the moment");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Those that are done are forgotten; as many can be under way as there are places.
                Some(_) = handshakes.join_next() => {}
            }
        };
        let place = match places.take(peer.ip()) {
            Ok(place) => place,
            Err(why) => {
                Counters::count(&acceptor.counters.turned_away);
                // Now and then: whoever floods us must not flood the log.
                if said.is_none_or(|said| said.elapsed() >= SAY_INTERVAL) {
                    said = Some(Instant::now());
                    let which = match why {
                        NoPlace::Full => "in all",
                        NoPlace::AddressFull => "from this address",
                    };
                    tracing::warn!(
                        %peer,
                        "too many connections are open {which}; new ones are closed at once"
                    );
                }
                continue;
            }
        };
        let acceptor = Arc::clone(&acceptor);
        handshakes.spawn(async move { acceptor.prepare(id, stream, peer, place).await });
    }
}

/// Makes connections of sockets.
struct Acceptor {
    certificates: Option<Arc<Certificates>>,
    handshake: Duration,
    idle: Duration,
    stall: Duration,
    connection_bytes: usize,
    counters: Arc<Counters>,
    ready: mpsc::Sender<GuardedIo>,
}

impl Acceptor {
    async fn prepare(&self, id: u64, stream: TcpStream, peer: SocketAddr, place: Place) {
        let activity = Activity::new(self.handshake, self.idle);
        let (stream, certificate) = match self.shake_hands(stream).await {
            Ok(shaken) => shaken,
            Err(why) => {
                Counters::count(&self.counters.handshakes_failed);
                tracing::debug!(%peer, connection = id, %why, "handshake failed");
                return;
            }
        };
        let (certificate_principal, certificate_ends) = certificate.unzip();
        let connection = Connection {
            id,
            peer,
            certificate_principal,
            certificate_ends,
            budget: Arc::new(Semaphore::new(self.connection_bytes)),
            undecoded: Arc::new(Semaphore::new(self.connection_bytes.max(MESSAGE_BYTES_MAX))),
            activity,
        };
        let counters = Arc::clone(&self.counters);
        let io = GuardedIo::new(stream, connection, self.stall, counters, place);
        // Nobody receives any more when the server stops.
        let _ = self.ready.send(io).await;
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
    ) -> Result<(io::Stream, Option<(Arc<str>, Micros)>), HandshakeError> {
        stream.set_nodelay(true)?;
        let Some(certificates) = &self.certificates else {
            return Ok((io::Stream::Plain(stream), None));
        };
        let accepting = TlsAcceptor::from(certificates.current()).accept(stream);
        let stream = tokio::time::timeout(self.handshake, accepting)
            .await
            .map_err(|_| HandshakeError::TooSlow)??;
        let certificate = match stream.get_ref().1.peer_certificates() {
            Some([own, ..]) => Some((
                principal::of_certificate(own)?,
                principal::certificate_ends(own)?,
            )),
            Some([]) | None => None,
        };
        Ok((io::Stream::Tls(Box::new(stream)), certificate))
    }
}

/// Why a connection came to nothing.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it took too long")]
    TooSlow,
    #[error(transparent)]
    Principal(#[from] principal::PrincipalError),
}
