//! Tests of connections that are told to leave while their transport waits.

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
};
use tonic::{Status, body::Body};
use tower::{Layer as _, Service as _};

use super::{
    Connection, Counters,
    activity::Activity,
    io::{GuardedIo, Stream},
    places::Places,
};
use deed_engine::pressure::{Pressure, quota::MachineTicks};

use crate::{
    access::{Access, body::Stalls, layer::AccessLayer},
    options::LimitOptions,
    testing::TestClock,
};

const HOUR: Duration = Duration::from_secs(3600);
const ASKED: &[u8] = b"GET /logs/a/checkpoint HTTP/1.1\r\nhost: x\r\n\r\n";

/// The event that a connection waits for.
#[derive(Clone, Copy)]
enum Waits {
    ForAnswer,
    ForBody,
}

async fn answer(waits: Waits) -> Result<Response<Body>, Infallible> {
    match waits {
        Waits::ForAnswer => pending().await,
        Waits::ForBody => {
            let nothing = stream::pending::<Result<Bytes, Status>>();
            let body = axum::body::Body::from_stream(nothing);
            Ok(Response::new(Body::new(body)))
        }
    }
}

/// hyper does not poll a connection of HTTP/1 that waits for an answer and has another request at
/// hand: such a connection used to leave only when its peer did.
#[tokio::test]
async fn a_stranger_that_waits_for_its_answer_gives_way() {
    for (waits, requests) in [
        (Waits::ForAnswer, 1),
        (Waits::ForAnswer, 3),
        (Waits::ForBody, 1),
        (Waits::ForBody, 3),
    ] {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut peer = TcpStream::connect(socket.local_addr().unwrap())
            .await
            .unwrap();
        peer.write_all(&ASKED.repeat(requests)).await.unwrap();
        let (stream, address) = socket.accept().await.unwrap();
        let activity = Activity::new(HOUR, HOUR);
        let connection = Connection {
            peer: address,
            activity: activity.clone(),
            ..Connection::none()
        };
        let (place, _) = Places::new(1)
            .take(address.ip(), &activity)
            .await
            .ok()
            .unwrap();
        let counters = Arc::<Counters>::default();
        let io = GuardedIo::new(
            Stream::Plain(stream),
            connection.clone(),
            HOUR,
            counters.clone(),
            place,
        );
        let dir = tempfile::tempdir().unwrap();
        let limits = LimitOptions::default();
        let layer = AccessLayer {
            access: Access::open(dir.path().to_owned(), true, TestClock::at(0)).unwrap(),
            pressure: Arc::new(Pressure::new(&limits, Arc::new(MachineTicks::default()))),
            body_within: HOUR,
            anonymous_within: HOUR,
            stalls: Stalls::new(HOUR),
        };
        let service = layer.layer(tower::service_fn(move |_: Request<Body>| answer(waits)));
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(connection.clone());
            service.clone().call(request)
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        let mut serving = Box::pin(serving);
        let asked = async {
            while !activity.has_open_requests() {
                tokio::task::yield_now().await;
            }
            // By now the connection waits for something that does not come.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            served = &mut serving => panic!("it waits: {served:?}"),
            () = asked => {}
        }
        activity.tell_to_leave();
        let left = tokio::time::timeout(Duration::from_secs(60), serving).await;
        assert!(left.is_ok(), "it gives way");
        assert_eq!(counters.closed.load(Ordering::Relaxed), 1);
        drop(peer);
    }
}
