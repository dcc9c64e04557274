//! Tests that connections leave time to each other.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, mpsc},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
};

use super::{
    Connection, Counters, Handshakes,
    activity::Activity,
    io::{GuardedIo, Stream, TURN_BYTES},
    places::Places,
    tests::PREFACE,
};

/// A peer that sends faster than the server reads leaves the others of its thread their turn.
#[tokio::test]
async fn what_is_read_of_a_connection_in_a_row_is_bounded() {
    const SENT: usize = 1 << 20;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut sender = TcpStream::connect(socket.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, peer) = socket.accept().await.unwrap();
    let hour = Duration::from_secs(3600);
    let connection = Connection {
        peer,
        activity: Activity::new(hour, hour),
        ..Connection::none()
    };
    let taken = Places::new(1).take(peer.ip(), &connection.activity).await;
    let (place, _) = taken.ok().unwrap();
    let counters = Arc::new(Counters::default());
    let mut io = GuardedIo::new(Stream::Plain(stream), connection, hour, counters, place);
    // The bytes begin like HTTP/2: those that follow are not checked.
    let mut sent = PREFACE.to_vec();
    sent.resize(SENT, 0);
    let sending = async {
        sender.write_all(&sent).await.unwrap();
        sender.shutdown().await.unwrap();
    };
    let reading = async {
        let (mut in_all, mut longest) = (0, 0);
        let mut piece = vec![0; 4 << 10];
        loop {
            let mut in_a_row = 0;
            let ended = poll_fn(|context| {
                loop {
                    let mut buffer = ReadBuf::new(&mut piece);
                    match Pin::new(&mut io).poll_read(context, &mut buffer) {
                        Poll::Ready(read) => {
                            read.unwrap();
                            if buffer.filled().is_empty() {
                                return Poll::Ready(true);
                            }
                            in_a_row += buffer.filled().len();
                        }
                        Poll::Pending if in_a_row > 0 => return Poll::Ready(false),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            });
            let ended = ended.await;
            in_all += in_a_row;
            longest = longest.max(in_a_row);
            if ended {
                return (in_all, longest);
            }
        }
    };
    let ((), (in_all, longest)) = tokio::join!(sending, reading);
    assert_eq!(in_all, SENT);
    assert!(longest < TURN_BYTES + (4 << 10), "{longest}");
}

#[tokio::test]
async fn handshakes_have_a_thread_of_their_own() {
    let handshakes = Handshakes::new().unwrap();
    let name = async { std::thread::current().name().map(str::to_owned) };
    let there = handshakes.there(name).await.unwrap();
    assert_eq!(there.as_deref(), Some("handshakes"));
    // A private key's operation that takes long delays nothing here.
    let (release, held) = mpsc::channel::<()>();
    let slow = handshakes.there(async move { held.recv().is_ok() });
    let here = async {
        tokio::task::yield_now().await;
        release.send(()).unwrap();
    };
    assert_eq!(tokio::join!(slow, here).0, Some(true));
}
