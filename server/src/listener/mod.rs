//! The listener: it accepts connections, does TLS, and bounds what each connection holds.
//!
//! Plain and TLS connections go the same way: a place among the connections that may be open, a
//! handshake in bounded time, then tonic's server, which reads HTTP from it. Each carries a
//! `Connection`, which its requests find in their extensions.

pub(crate) mod activity;
mod farewell;
#[cfg(test)]
mod giving_way_tests;
pub(crate) mod http1;
mod io;
pub mod issue;
pub(crate) mod places;
mod rules;
#[cfg(test)]
mod sharing_tests;
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
    time::Duration,
};

use deed_evidence::Micros;
use futures::Stream;
use tokio::{
    net::TcpStream,
    runtime::Runtime,
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{
    activity::Activity,
    farewell::OpenConnections,
    io::GuardedIo,
    places::{NoPlace, Place, Places, Room},
    tls::Certificates,
};
pub(crate) use self::{places::network, rules::check_rules};
pub use self::{rules::RuleError, tls::TlsError};
use deed_engine::{metrics::Connections, pressure::undecoded::MESSAGE_BYTES_MAX};

use crate::{address::Sockets, options::LimitOptions, principal};

/// Connections that wait to be served. Taking one takes no time, so few ever wait.
const WAITING_MAX: usize = 16;

/// Connections that wait for another one to give way to them. If one takes its time to go, the
/// others are not delayed. Each holds a descriptor in addition to those of connections with a
/// place.
pub(crate) const ARRIVING_MAX: usize = 32;

/// Pause after the system could not accept, which happens when it is out of file descriptors or
/// memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connection that a request came over.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    /// Number of the connection since the server's start, counted from 1.
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    /// Principal in the client certificate; `None` if there is no certificate.
    pub(crate) certificate_principal: Option<Arc<str>>,
    /// Time at which that certificate ends: a connection may live longer.
    pub(crate) certificate_ends: Option<Micros>,
    /// Semaphore with a permit for each byte that its requests may have waiting.
    pub(crate) budget: Arc<Semaphore>,
    /// Semaphore with a permit for each byte that its messages may have before they are complete.
    pub(crate) undecoded: Arc<Semaphore>,
    pub(crate) activity: Arc<Activity>,
}

impl Connection {
    /// Returns the connection of a request that came over none.
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

/// Counters of the listener since the start. No ordering between them is needed.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Connections whose handshake succeeded.
    pub(crate) accepted: AtomicU64,
    /// Connections closed at once because too many were open.
    pub(crate) turned_away: AtomicU64,
    /// Handshakes that failed or took too long, and certificates without a principal.
    pub(crate) handshakes_failed: AtomicU64,
    /// Connections ended because the peer sent no request, or took nothing.
    pub(crate) timed_out: AtomicU64,
    /// Connections over HTTP/1 with bytes that are no heads of requests.
    pub(crate) malformed: AtomicU64,
    /// Connections that ended because their places were needed.
    pub(crate) gave_way: AtomicU64,
    /// Connections that were accepted and have ended.
    pub(crate) closed: AtomicU64,
    /// Most connections that may be open at once.
    pub(crate) max: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers for `/metrics`.
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
                ("gave_way", of(&self.gave_way)),
                ("malformed", of(&self.malformed)),
            ],
            max: of(&self.max),
        }
    }

    fn opened(&self) {
        Self::count(&self.accepted);
    }

    fn timed_out(&self) {
        Self::count(&self.timed_out);
    }

    fn malformed(&self) {
        Self::count(&self.malformed);
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

/// Accepts connections on sockets, until [`Incoming`] is dropped. The task ends when the sockets
/// are closed.
pub(crate) fn accept(
    sockets: impl Into<Sockets>,
    certificates: Option<Arc<Certificates>>,
    limits: &LimitOptions,
    counters: Arc<Counters>,
) -> std::io::Result<(Incoming, JoinHandle<()>)> {
    let (ready, incoming) = mpsc::channel(WAITING_MAX);
    let handshakes = certificates
        .is_some()
        .then(|| Handshakes::new().map(Arc::new))
        .transpose()?;
    let acceptor = Acceptor {
        certificates,
        handshakes,
        handshake: Duration::from_millis(limits.handshake_ms),
        idle: Duration::from_millis(limits.idle_ms),
        stall: Duration::from_millis(limits.stall_ms),
        connection_bytes: limits.connection_bytes.min(Semaphore::MAX_PERMITS),
        counters,
        open: Arc::default(),
        ready,
    };
    let places = Places::new(limits.connections);
    let max = limits.connections as u64;
    acceptor.counters.max.store(max, Ordering::Relaxed);
    let accepting = tokio::spawn(accept_all(sockets.into(), Arc::new(acceptor), places));
    Ok((Incoming(incoming), accepting))
}

async fn accept_all(sockets: Sockets, acceptor: Arc<Acceptor>, places: Arc<Places>) {
    let open = Arc::clone(&acceptor.open);
    accept_until_stopped(sockets, acceptor, places).await;
    // This is a task of its own, because whoever waits for this one waits for the port.
    tokio::spawn(async move { open.end().await });
}

async fn accept_until_stopped(sockets: Sockets, acceptor: Arc<Acceptor>, places: Arc<Places>) {
    let mut handshakes = JoinSet::new();
    let arriving = Arc::new(Semaphore::new(ARRIVING_MAX));
    for id in 1.. {
        let arrived = tokio::select! {
            () = acceptor.ready.closed() => return,
            arrived = Arc::clone(&arriving).acquire_owned() => arrived,
        };
        let (stream, peer) = loop {
            tokio::select! {
                () = acceptor.ready.closed() => return,
                accepted = sockets.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => {
                        tracing::warn!(
                            %error,
                            "cannot accept connections for the moment; it is tried again"
                        );
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                // Finished handshakes are removed; as many can be under way as there are places.
                Some(_) = handshakes.join_next() => {}
            }
        };
        let activity = Activity::new(acceptor.handshake, acceptor.idle);
        acceptor.open.add(&activity);
        let (acceptor, places) = (Arc::clone(&acceptor), Arc::clone(&places));
        handshakes.spawn(async move {
            let place = acceptor.place(&places, peer, &activity).await;
            drop(arrived);
            let Some(place) = place else {
                return;
            };
            tokio::select! {
                () = acceptor.prepare(id, stream, peer, &activity, place) => {}
                () = activity.leaving() => {}
            }
        });
    }
}

/// Turns accepted sockets into connections.
struct Acceptor {
    certificates: Option<Arc<Certificates>>,
    /// The thread for handshakes; `None` in clear.
    handshakes: Option<Arc<Handshakes>>,
    handshake: Duration,
    idle: Duration,
    stall: Duration,
    connection_bytes: usize,
    counters: Arc<Counters>,
    open: Arc<OpenConnections>,
    ready: mpsc::Sender<GuardedIo>,
}

impl Acceptor {
    /// Returns a place for a connection that has arrived, if there is one.
    async fn place(
        &self,
        places: &Arc<Places>,
        peer: SocketAddr,
        activity: &Arc<Activity>,
    ) -> Option<Place> {
        let which = match places.take(peer.ip(), activity).await {
            Ok((place, room)) => {
                if room == Room::Made {
                    Counters::count(&self.counters.gave_way);
                }
                return Some(place);
            }
            Err(NoPlace::Full) => "in all",
            Err(NoPlace::AddressFull) => "from this address",
        };
        Counters::count(&self.counters.turned_away);
        tracing::warn!(%peer, "too many connections are open {which}; new ones are closed at once");
        None
    }

    async fn prepare(
        &self,
        id: u64,
        stream: TcpStream,
        peer: SocketAddr,
        activity: &Arc<Activity>,
        place: Place,
    ) {
        let (stream, certificate) = match self.shake_hands(stream, activity).await {
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
            activity: Arc::clone(activity),
        };
        let counters = Arc::clone(&self.counters);
        let io = GuardedIo::new(stream, connection, self.stall, counters, place);
        // Nobody receives any more if the server stops.
        let _ = self.ready.send(io).await;
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        activity: &Arc<Activity>,
    ) -> Result<(io::Stream, Option<(Arc<str>, Micros)>), HandshakeError> {
        stream.set_nodelay(true)?;
        let (Some(certificates), Some(handshakes)) = (&self.certificates, &self.handshakes) else {
            return Ok((io::Stream::Plain(stream), None));
        };
        let accepting = TlsAcceptor::from(certificates.current()).accept(stream);
        let accepting = handshakes.run(accepting, self.handshake, Arc::clone(activity));
        let stream = accepting.await?;
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

/// A thread for handshakes. A private key's operation takes up to some milliseconds (with RSA), and
/// costs the peer that asks for it nothing: on the threads that serve connections, strangers would
/// take time from callers.
struct Handshakes(Option<Runtime>);

impl Handshakes {
    fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("handshakes")
            .enable_time()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does a handshake on that thread, unless the connection has to leave.
    async fn run(
        &self,
        accepting: tokio_rustls::Accept<TcpStream>,
        within: Duration,
        activity: Arc<Activity>,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let shaking = async move {
            tokio::select! {
                shaken = tokio::time::timeout(within, accepting) => Some(shaken),
                () = activity.leaving() => None,
            }
        };
        let in_time = self.there(shaking).await.flatten();
        let in_time = in_time.ok_or(HandshakeError::GaveWay)?;
        Ok(in_time.map_err(|_| HandshakeError::TooSlow)??)
    }

    /// Runs something on that thread; returns `None` if the thread ends first.
    async fn there<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        self.0.as_ref()?.spawn(task).await.ok()
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // The runtime may be dropped where blocking is not allowed.
            runtime.shutdown_background();
        }
    }
}

/// The reason for which a handshake failed.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("it took too long")]
    TooSlow,
    #[error("its place was needed, or the server stops")]
    GaveWay,
    #[error(transparent)]
    Principal(#[from] principal::PrincipalError),
}
