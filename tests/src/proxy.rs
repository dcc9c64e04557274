//! A bad network between a client and a server: connections that are cut in the middle of messages,
//! delayed, and whose data arrives after they have ended.
//!
//! ```text
//! client ── connection ──> proxy ── connection ──> server
//! ```
//!
//! The fate of a connection is drawn when it is accepted: the number of bytes after which it ends,
//! the direction in which they are counted, and the way in which it ends:
//!
//! | fate | the client | the server |
//! |---|---|---|
//! | closed | is closed | gets what was sent before the cut, then the end |
//! | reset | is reset | is reset; what either had not read is lost |
//! | answers lost | gets nothing more | gets all that the client sends for a while; then both end |
//! | late | is closed | gets the last data only when the client's next connection sends something |
//!
//! With the last one, requests of the old connection and the same ones sent again on the new one
//! reach the server at once: this is how a network duplicates. So a proxy is for one client.
//!
//! No byte is ever changed or left out in the middle, because TCP does not do that either. Random
//! numbers are seeded; times are not: which bytes arrive together depends on the system.

use std::{
    io,
    iter::Sum,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::random::Random;

/// Largest piece that is passed on at once, in bytes.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// Most bytes of a connection that are kept for later.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// The faults of a network.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Every connection is cut before this many bytes have gone in the counted direction; 0 cuts
    /// none.
    pub cut_bytes_max: u64,
    /// One piece in this many is delayed; 0 delays none.
    pub delay_once_in: u64,
    /// Longest delay, in milliseconds.
    pub delay_ms_max: u64,
}

impl Faults {
    /// A network without faults.
    pub const NONE: Self = Self {
        cut_bytes_max: 0,
        delay_once_in: 0,
        delay_ms_max: 0,
    };
}

/// The actions of a proxy so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Connections accepted.
    pub connections: u64,
    /// Connections ended by the proxy, in any way.
    pub cuts: u64,
    /// Connections of these that were reset.
    pub resets: u64,
    /// Connections of these whose answers were swallowed while requests still arrived.
    pub answers_lost: u64,
    /// Connections of these with data that arrived only after the next connection had sent
    /// something.
    pub late: u64,
    /// Bytes that arrived in that way.
    pub late_bytes: u64,
    /// Pieces that were delayed.
    pub delays: u64,
    /// Bytes from clients to the server, and back.
    pub bytes: [u64; 2],
}

impl Sum for Report {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        reports.fold(Self::default(), |sum, one| Self {
            connections: sum.connections + one.connections,
            cuts: sum.cuts + one.cuts,
            resets: sum.resets + one.resets,
            answers_lost: sum.answers_lost + one.answers_lost,
            late: sum.late + one.late,
            late_bytes: sum.late_bytes + one.late_bytes,
            delays: sum.delays + one.delays,
            bytes: [sum.bytes[0] + one.bytes[0], sum.bytes[1] + one.bytes[1]],
        })
    }
}

/// A proxy on a free port of 127.0.0.1. It ends, with all connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    faults: Faults,
    healed: AtomicBool,
    /// Number of connections over which the client has sent something.
    spoken: watch::Sender<u64>,
    ended: watch::Receiver<bool>,
    connections: AtomicU64,
    cuts: AtomicU64,
    resets: AtomicU64,
    answers_lost: AtomicU64,
    late: AtomicU64,
    late_bytes: AtomicU64,
    delays: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl Proxy {
    /// Listens, and connects every client to `target`.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(target: SocketAddr, faults: Faults, random: Random) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (ended, end) = watch::channel(false);
        let shared = Arc::new(Shared {
            target,
            faults,
            healed: AtomicBool::new(false),
            spoken: watch::Sender::new(0),
            ended: end,
            connections: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            answers_lost: AtomicU64::new(0),
            late: AtomicU64::new(0),
            late_bytes: AtomicU64::new(0),
            delays: AtomicU64::new(0),
            bytes: [AtomicU64::new(0), AtomicU64::new(0)],
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), random));
        Self {
            address,
            shared,
            accepting,
            ended,
        }
    }

    /// Returns the URL that clients connect to, for gRPC.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops giving faults to new connections. Open connections keep their fates.
    pub fn heal(&self) {
        self.shared.healed.store(true, Relaxed);
    }

    /// Returns the actions so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let shared = &self.shared;
        Report {
            connections: shared.connections.load(Relaxed),
            cuts: shared.cuts.load(Relaxed),
            resets: shared.resets.load(Relaxed),
            answers_lost: shared.answers_lost.load(Relaxed),
            late: shared.late.load(Relaxed),
            late_bytes: shared.late_bytes.load(Relaxed),
            delays: shared.delays.load(Relaxed),
            bytes: shared.bytes.each_ref().map(|bytes| bytes.load(Relaxed)),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.ended.send_replace(true);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut random: Random) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // The system is out of file descriptors: some connection will end soon.
            tokio::task::yield_now().await;
            continue;
        };
        shared.connections.fetch_add(1, Relaxed);
        let fate = Fate::draw(&shared, &mut random);
        let (shared, random) = (Arc::clone(&shared), random.fork());
        let mut ended = shared.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                // An error ends the connection, too: dropping everything tells the other side.
                _ = pass(client, fate, &shared, random) => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
        });
    }
}

/// A direction: from the client, or to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up = 0,
    Down = 1,
}

/// The way in which a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    Reset,
    AnswersLost,
    Late,
}

/// The fate of a connection.
#[derive(Debug, Clone, Copy)]
struct Fate {
    ending: Ending,
    /// Direction in which the bytes are counted.
    way: Way,
    /// Number of bytes before the cut; `None` for a connection without a fault.
    after_bytes: Option<u64>,
}

impl Fate {
    fn draw(shared: &Shared, random: &mut Random) -> Self {
        let max = shared.faults.cut_bytes_max;
        let ending = match random.between(0, 3) {
            0 => Ending::Closed,
            1 => Ending::Reset,
            2 => Ending::AnswersLost,
            _ => Ending::Late,
        };
        let way = match ending {
            // The data that arrives late is the client's.
            Ending::Late => Way::Up,
            _ if random.once_in(2) => Way::Up,
            _ => Way::Down,
        };
        let after_bytes = match random.between(1, 8) {
            // The cut is in HTTP/2's preface, or before it.
            1 => random.between(0, 200.min(max)),
            _ => random.between(0, max),
        };
        let left_alone = max == 0 || shared.healed.load(Relaxed);
        Self {
            ending,
            way,
            after_bytes: (!left_alone).then_some(after_bytes),
        }
    }
}

/// One direction of a connection.
struct Pipe {
    way: Way,
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// Bytes that are still to be passed on before the cut.
    left: u64,
    piece: Vec<u8>,
    /// The part of the piece that was read and not passed on yet. It is kept here and not in a
    /// future, which may be dropped: later bytes must not arrive without it.
    waiting: Range<usize>,
    has_spoken: bool,
}

/// The reason for which passing on in one direction ended.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// The sender has ended.
    Ended,
    /// The fate's number of bytes was passed on.
    Cut,
}

/// Passes bytes on in both directions, until one side ends or the fate ends it.
async fn pass(
    client: TcpStream,
    fate: Fate,
    shared: &Shared,
    mut random: Random,
) -> io::Result<()> {
    let server = TcpStream::connect(shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut up = Pipe::new(Way::Up, from_client, to_server, fate);
    let mut down = Pipe::new(Way::Down, from_server, to_client, fate);
    let mut down_random = random.fork();
    let stop = tokio::select! {
        stop = up.pass(shared, &mut random) => stop?,
        stop = down.pass(shared, &mut down_random) => stop?,
    };
    if stop == Stop::Ended {
        return Ok(());
    }
    shared.cuts.fetch_add(1, Relaxed);
    let a_while = Duration::from_millis(random.between(0, shared.faults.delay_ms_max));
    match fate.ending {
        Ending::Closed => {}
        Ending::Reset => {
            shared.resets.fetch_add(1, Relaxed);
            // Closing now sends a reset, and discards data that waits to be sent.
            up.to.as_ref().set_zero_linger()?;
            down.to.as_ref().set_zero_linger()?;
        }
        Ending::AnswersLost => {
            shared.answers_lost.fetch_add(1, Relaxed);
            up.left = u64::MAX;
            let unanswered = async {
                let heard_nothing = swallow(&mut down.from);
                tokio::join!(up.pass(shared, &mut random), heard_nothing)
            };
            // In the end the client is told, as keep-alive would tell it.
            let _ = timeout(a_while, unanswered).await;
        }
        Ending::Late => {
            let kept = up.read_what_waits()?;
            let mut spoken = shared.spoken.subscribe();
            let before = *spoken.borrow_and_update();
            drop((up.from, down.to));
            if kept.is_empty() || spoken.wait_for(|count| *count > before).await.is_err() {
                return Ok(());
            }
            up.to.write_all(&kept).await?;
            shared.late.fetch_add(1, Relaxed);
            shared.late_bytes.fetch_add(kept.len() as u64, Relaxed);
            // The server gets time to read the data: it may not read from a connection that ends at
            // once.
            let _ = timeout(a_while, swallow(&mut down.from)).await;
        }
    }
    Ok(())
}

/// Reads to the end and discards everything.
async fn swallow(from: &mut OwnedReadHalf) -> io::Result<u64> {
    tokio::io::copy(from, &mut tokio::io::sink()).await
}

impl Pipe {
    fn new(way: Way, from: OwnedReadHalf, to: OwnedWriteHalf, fate: Fate) -> Self {
        let limit = fate.after_bytes.filter(|_| fate.way == way);
        Self {
            way,
            from,
            to,
            left: limit.unwrap_or(u64::MAX),
            piece: vec![0; PIECE_BYTES_MAX],
            waiting: 0..0,
            has_spoken: false,
        }
    }

    /// Passes bytes on until the sender ends, or enough were passed. It may be dropped and called
    /// again.
    async fn pass(&mut self, shared: &Shared, random: &mut Random) -> io::Result<Stop> {
        let faults = &shared.faults;
        loop {
            self.write_what_waits(shared).await?;
            if self.left == 0 {
                return Ok(Stop::Cut);
            }
            let most = random.between(1, PIECE_BYTES_MAX as u64).min(self.left);
            let most = usize::try_from(most).expect("a piece fits into memory");
            let read = self.from.read(&mut self.piece[..most]).await?;
            if read == 0 {
                return Ok(Stop::Ended);
            }
            self.waiting = 0..read;
            if faults.delay_once_in > 0 && random.once_in(faults.delay_once_in) {
                shared.delays.fetch_add(1, Relaxed);
                let pause_ms = random.between(0, faults.delay_ms_max);
                sleep(Duration::from_millis(pause_ms)).await;
            }
        }
    }

    async fn write_what_waits(&mut self, shared: &Shared) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let written = self.to.write(&self.piece[self.waiting.clone()]).await?;
            self.waiting.start += written;
            self.left -= written as u64;
            let bytes = &shared.bytes[self.way as usize];
            bytes.fetch_add(written as u64, Relaxed);
            if self.way == Way::Up && !std::mem::replace(&mut self.has_spoken, true) {
                shared.spoken.send_modify(|count| *count += 1);
            }
        }
        Ok(())
    }

    /// Returns data that has arrived and was not passed on.
    fn read_what_waits(&mut self) -> io::Result<Vec<u8>> {
        let mut kept = self.piece[self.waiting.clone()].to_vec();
        while kept.len() < KEPT_BYTES_MAX {
            match self.from.try_read(&mut self.piece) {
                Ok(0) => break,
                Ok(read) => kept.extend_from_slice(&self.piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{run, within};
    use tokio::sync::mpsc;

    /// Starts a server that answers every byte with the same byte, and returns the bytes of each
    /// connection, in the order of their ends.
    async fn echo() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, ends) = mpsc::channel(100);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let sender = sender.clone();
                tokio::spawn(async move {
                    let (mut got, mut piece) = (Vec::new(), [0; 1000]);
                    while let Ok(read @ 1..) = stream.read(&mut piece).await {
                        got.extend_from_slice(&piece[..read]);
                        if stream.write_all(&piece[..read]).await.is_err() {
                            break;
                        }
                    }
                    let _ = sender.send(got).await;
                });
            }
        });
        (address, ends)
    }

    fn text(bytes: usize) -> Vec<u8> {
        let mut random = Random::new(7);
        (0..bytes).map(|_| random.next().to_le_bytes()[0]).collect()
    }

    const FAULTS: Faults = Faults {
        cut_bytes_max: 20_000,
        delay_once_in: 5,
        delay_ms_max: 20,
    };

    /// Sends everything and returns the answer.
    async fn talk(proxy: &Proxy, text: &[u8]) -> Vec<u8> {
        let Ok(stream) = TcpStream::connect(proxy.address()).await else {
            return Vec::new();
        };
        let (mut from, mut to) = stream.into_split();
        let talking = async {
            let _ = to.write_all(text).await;
        };
        let listening = async {
            let (mut got, mut piece) = (Vec::new(), [0; 1000]);
            while got.len() < text.len() {
                match from.read(&mut piece).await {
                    Ok(read @ 1..) => got.extend_from_slice(&piece[..read]),
                    Ok(0) | Err(_) => break,
                }
            }
            got
        };
        tokio::join!(talking, listening).1
    }

    #[test]
    fn without_faults_every_byte_arrives() {
        run(async {
            let (address, mut ends) = echo().await;
            let faults = Faults {
                cut_bytes_max: 0,
                ..FAULTS
            };
            let proxy = Proxy::start(address, faults, Random::new(1)).await;
            let text = text(200_000);
            assert_eq!(within("an echo", talk(&proxy, &text)).await, text);
            assert_eq!(within("the end", ends.recv()).await.unwrap(), text);
            let report = proxy.report();
            assert_eq!((report.connections, report.cuts), (1, 0));
            assert_eq!(report.bytes, [200_000; 2]);
            assert!(report.delays > 0);
        });
    }

    /// Whatever happens, both sides get a prefix of what the other side sent.
    #[test]
    fn connections_are_cut_in_every_way_and_bytes_stay_in_order() {
        run(async {
            let (address, mut ends) = echo().await;
            let proxy = Proxy::start(address, FAULTS, Random::new(2)).await;
            let text = text(60_000);
            let mut shortest = text.len();
            for _ in 0..60 {
                let got = within("an end", talk(&proxy, &text)).await;
                assert!(text.starts_with(&got));
                shortest = shortest.min(got.len());
            }
            proxy.heal();
            assert_eq!(within("an echo", talk(&proxy, &text)).await, text);
            for _ in 0..61 {
                let got = within("the end of a connection", ends.recv())
                    .await
                    .unwrap();
                assert!(text.starts_with(&got));
            }
            let report = proxy.report();
            assert_eq!((report.connections, report.cuts), (61, 60), "{report:?}");
            assert!(shortest < 200, "cuts at the very beginning");
            let kinds = [report.resets, report.answers_lost, report.late];
            assert!(kinds.iter().all(|count| *count > 3), "{report:?}");
            assert!(report.late_bytes > 0, "{report:?}");
        });
    }
}
