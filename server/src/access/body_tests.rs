//! Tests of what bodies hold, and of when they end.

use std::{
    future::poll_fn,
    task::{Poll, Waker},
};

use bytes::{BufMut as _, BytesMut};
use futures::{StreamExt as _, stream};
use tonic::Code;

use super::*;
use deed_engine::pressure::{Pressure, quota::MachineTicks};

use crate::{access::Caller, listener::activity::Activity, options::LimitOptions};

const HOUR: Duration = Duration::from_secs(3600);
const CONNECTION_BYTES: usize = 6 << 20;
const CHUNK_BYTES: usize = 16 << 10;

/// Returns a message that announces more bytes than ever arrive.
fn unfinished(chunks: usize) -> Body {
    let chunks = (0..chunks).map(|number| {
        let mut chunk = BytesMut::zeroed(CHUNK_BYTES);
        if number == 0 {
            (&mut chunk[1..]).put_u32(6 << 20);
        }
        Ok::<_, Status>(chunk.freeze())
    });
    let body = stream::iter(chunks).chain(stream::pending());
    Body::new(axum::body::Body::from_stream(body))
}

fn pressure() -> Pressure {
    Pressure::new(&LimitOptions::default(), Arc::new(MachineTicks::default()))
}

fn poll(body: &mut Body) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(body).poll_frame(&mut context)
}

/// Takes what is ready and returns the error with which the body ends, if it does.
fn drain(body: &mut Body) -> Option<Status> {
    loop {
        match poll(body) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(status))) => return Some(status),
            Poll::Ready(None) | Poll::Pending => return None,
        }
    }
}

#[tokio::test]
async fn unfinished_messages_of_a_connection_hold_no_more_than_its_bound() {
    let pressure = pressure();
    let caller = Caller::unrestricted();
    for stream in [false, true] {
        let mut refused = 0;
        let mut bodies: Vec<Body> = Vec::new();
        for _ in 0..100 {
            let undecoded = caller.undecoded(&pressure);
            let Ok(mut body) = Arriving::wrap(unfinished(64), undecoded, false, stream, HOUR)
            else {
                refused += 1;
                continue;
            };
            if let Some(status) = drain(&mut body) {
                assert_eq!(status.code(), Code::ResourceExhausted);
                refused += 1;
            }
            bodies.push(body);
            assert!(pressure.undecoded_bytes() <= CONNECTION_BYTES);
        }
        // Six messages of a mebibyte each have room, and those that were refused hold nothing.
        assert_eq!(
            (refused, pressure.undecoded_bytes()),
            (94, CONNECTION_BYTES)
        );
        drop(bodies);
        assert_eq!(pressure.undecoded_bytes(), 0);
    }
}

/// A request counts even if nothing but its head has arrived, until its message is complete.
#[tokio::test]
async fn requests_without_bodies_do_not_fill_the_memory() {
    let pressure = pressure();
    let caller = Caller::unrestricted();
    let wrap = |body| Arriving::wrap(body, caller.undecoded(&pressure), false, false, HOUR);
    let of = |chunks: Vec<Bytes>| {
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Status>));
        Body::new(axum::body::Body::from_stream(
            chunks.chain(stream::pending()),
        ))
    };
    let mut waiting = Vec::new();
    let refused = loop {
        match wrap(of(Vec::new())) {
            Ok(body) => waiting.push(body),
            Err(refusal) => break refusal,
        }
    };
    assert!(
        matches!(refused, ApiError::Overloaded { .. }),
        "{refused:?}"
    );
    assert_eq!(waiting.len(), CONNECTION_BYTES / WAITING_BYTES);
    drop(waiting);
    assert_eq!(pressure.undecoded_bytes(), 0);
    let mut body = wrap(of(vec![Bytes::from_static(&[0; 5])])).unwrap();
    assert_eq!(pressure.undecoded_bytes(), WAITING_BYTES);
    assert!(drain(&mut body).is_none());
    assert_eq!(pressure.undecoded_bytes(), 0);
}

#[tokio::test]
async fn whoever_is_nobody_sends_little() {
    let pressure = pressure();
    let nobody = Caller::of(&http::Extensions::new());
    assert!(nobody.is_anonymous());
    for (chunks, refused) in [(4, false), (5, true)] {
        let undecoded = nobody.undecoded(&pressure);
        let mut body = Arriving::wrap(unfinished(chunks), undecoded, true, true, HOUR).unwrap();
        let status = drain(&mut body);
        assert_eq!(status.is_some(), refused);
        if let Some(status) = status {
            assert_eq!(status.code(), Code::Unauthenticated);
            assert!(status.message().contains("65536"), "{status}");
        }
    }
    // Small complete messages, one after the other, are counted together.
    let many = stream::repeat_with(|| Ok::<_, Status>(Bytes::from_static(&[0; 5])));
    let body = Body::new(axum::body::Body::from_stream(many));
    let mut body = Arriving::wrap(body, nobody.undecoded(&pressure), true, true, HOUR).unwrap();
    assert_eq!(drain(&mut body).unwrap().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stream_may_stay_open_between_messages_and_not_within_one() {
    let pressure = pressure();
    let caller = Caller::unrestricted();
    let short = Duration::from_millis(10);
    let whole = Bytes::from_static(&[0; 5]);
    let body = |chunks: Vec<Bytes>| {
        let chunks = stream::iter(chunks.into_iter().map(Ok::<_, Status>));
        let body = Body::new(axum::body::Body::from_stream(
            chunks.chain(stream::pending()),
        ));
        Arriving::wrap(body, caller.undecoded(&pressure), false, true, short).unwrap()
    };
    let mut half = body(vec![whole.clone(), whole.slice(..3)]);
    let mut between = body(vec![whole.clone(), whole.slice(..3), whole.slice(3..)]);
    let ended = loop {
        match poll_fn(|context| Pin::new(&mut half).poll_frame(context)).await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("it is never complete"),
        }
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert_eq!(pressure.undecoded_bytes(), 0);
    assert!(drain(&mut between).is_none());
    assert!(
        tokio::time::timeout(
            2 * short,
            poll_fn(|context| { Pin::new(&mut between).poll_frame(context) })
        )
        .await
        .is_err()
    );
}

fn answer(body: Body, kept: &Arc<()>, ends: Option<Duration>) -> Answer {
    Answer {
        body,
        open: Activity::new(HOUR, HOUR).begin_request(),
        _work: None,
        _kept: Some(Kept::new(Arc::clone(kept))),
        made: None,
        _place: None,
        ends: ends.map(|ends| Box::pin(tokio::time::sleep(ends)) as Pin<Box<_>>),
        grpc: true,
    }
}

fn status_of(frame: Option<Result<Frame<Bytes>, Status>>) -> Code {
    let frame = frame.unwrap().unwrap();
    Status::from_header_map(frame.trailers_ref().unwrap())
        .unwrap()
        .code()
}

#[tokio::test]
async fn an_answer_that_nobody_takes_holds_its_share_until_it_is_ended() {
    let stalls = Stalls::new(Duration::from_secs(10));
    let kept = Arc::new(());
    let held = || Arc::strong_count(&kept) > 1;
    let begun = Instant::now();
    let mut untaken = stalls.watch(answer(unfinished(2), &kept, None));
    stalls.end_stalled(begun + Duration::from_secs(9));
    assert!(held());
    stalls.end_stalled(Instant::now() + Duration::from_secs(10));
    assert!(!held());
    let mut next = async || poll_fn(|context| Pin::new(&mut untaken).poll_frame(context)).await;
    assert_eq!(status_of(next().await), Code::DeadlineExceeded);
    assert!(next().await.is_none());

    // Something was taken of this answer, and then no more.
    let mut half = stalls.watch(answer(unfinished(2), &kept, None));
    assert!(matches!(poll(&mut half), Poll::Ready(Some(Ok(_)))));
    stalls.end_stalled(Instant::now() + Duration::from_secs(10));
    assert!(!held());
    // This body waits for the server, however long that takes.
    let mut waits = stalls.watch(answer(unfinished(2), &kept, None));
    assert!(drain(&mut waits).is_none());
    stalls.end_stalled(Instant::now() + HOUR);
    assert!(held());
    assert!(poll(&mut waits).is_pending());
    // Answers that are gone are forgotten.
    drop((untaken, half, waits));
    assert!(!held());
    stalls.end_stalled(Instant::now());
    assert!(stalls.slots.lock().is_empty());
}

#[tokio::test]
async fn a_connection_that_does_not_even_take_the_end_is_closed() {
    let stalls = Stalls::new(Duration::from_secs(10));
    let kept = Arc::new(());
    let activity = Activity::new(HOUR, HOUR);
    let of_it = || Answer {
        open: activity.begin_request(),
        ..answer(unfinished(2), &kept, None)
    };
    let closed = || activity.is_leaving();
    let mut takes = stalls.watch(of_it());
    let stuck = stalls.watch(of_it());
    let ended = Instant::now() + Duration::from_secs(10);
    stalls.end_stalled(ended);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(drain(&mut takes).is_none());
    stalls.end_stalled(ended + Duration::from_secs(9));
    assert!(!closed());
    // The answer whose end was taken is no reason to close the connection; the other one is.
    stalls.end_stalled(ended + Duration::from_secs(10));
    assert!(closed());
    drop((takes, stuck));
}

#[tokio::test]
async fn what_an_answer_brings_keeps_its_share_until_the_bytes_are_gone() {
    let pressure = pressure();
    let room = Caller::unrestricted().answer_room(&pressure);
    let making = room.clone();
    let chunks = stream::once(async move {
        let share = making.take(1000).await.unwrap();
        making.made(share, 100);
        Ok::<_, Status>(Bytes::from(vec![7; 100]))
    });
    let stalls = Stalls::new(HOUR);
    let mut body = stalls.watch(Answer {
        made: Some(room.to_body()),
        ..answer(
            Body::new(axum::body::Body::from_stream(chunks)),
            &Arc::new(()),
            None,
        )
    });
    // Nothing is made before the transport asks.
    assert_eq!(pressure.answers().held(), 0);
    let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
    let bytes = frame.unwrap().unwrap().into_data().ok().unwrap();
    drop((body, room));
    assert_eq!((bytes.len(), pressure.answers().held()), (100, 200));
    drop(bytes);
    assert_eq!(pressure.answers().held(), 0);
}

#[tokio::test]
async fn answers_to_nobody_end() {
    let stalls = Stalls::new(HOUR);
    let kept = Arc::new(());
    let mut body = stalls.watch(answer(
        unfinished(0),
        &kept,
        Some(Duration::from_millis(10)),
    ));
    assert!(poll(&mut body).is_pending());
    let last = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
    assert_eq!(status_of(last), Code::Unavailable);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
}
