//! Tests of the bounds on what peers may hold, and for how long.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let running = start(|options, _| options.limits.connections = 2).await;
    let first = running.plain().await;
    assert_eq!(health(&first).await, Code::Ok);
    let second = running.plain().await;
    assert_eq!(health(&second).await, Code::Ok);
    // The third connection gets not a byte, although the server speaks first in HTTP/2.
    let mut third = running.tcp().await;
    let _ = third.write_all(PREFACE).await;
    assert!(until_closed(&mut third).await.is_empty());
    assert_eq!(health(&first).await, Code::Ok);
    drop(second);
    // The place is free as soon as the server has noticed that the connection is gone.
    loop {
        let mut stream = running.tcp().await;
        let _ = stream.write_all(PREFACE).await;
        if matches!(stream.read(&mut [0; 9]).await, Ok(read) if read > 0) {
            break;
        }
    }
    assert_eq!(health(&first).await, Code::Ok);
    drop(first);
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_ask_for_nothing_are_closed() {
    for tls in [false, true] {
        let running = start(|options, tls_dir| {
            if tls {
                with_tls(options, tls_dir, false);
            }
            options.limits.handshake_ms = 100;
        })
        .await;
        // The client sends nothing, half a handshake, or half a request.
        let beginnings: [&[u8]; 5] = [
            b"",
            &[0x16, 3, 1],
            b"PRI * HT",
            PREFACE,
            b"GET / HTTP/1.1\r\nhost: x\r\n",
        ];
        for beginning in beginnings {
            let mut stream = running.tcp().await;
            stream.write_all(beginning).await.unwrap();
            until_closed(&mut stream).await;
        }
        running.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let running = start(|options, _| options.limits.idle_ms = 200).await;
    let busy = running.plain().await;
    // On this watch nothing moves, but it stays open.
    let watch = "/grpc.health.v1.Health/Watch";
    let mut request = tonic::Request::new(tonic_health::pb::HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(60));
    let mut client = tonic_health::pb::health_client::HealthClient::new(busy.clone());
    let mut watching = client.watch(request).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some(), "{watch}");

    let mut idle = running.tcp().await;
    idle.write_all(b"GET /logs/none/checkpoint HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = until_closed(&mut idle).await;
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
    // The busy connection had no traffic but its watch for as long.
    assert_eq!(health(&busy).await, Code::Ok);
    assert!(watching.message().now_or_never().is_none(), "{watch}");
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_not_sent_to_their_end_are_given_up() {
    let running = start(|options, _| options.limits.stall_ms = 100).await;
    let channel = running.plain().await;
    let pending = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let body = Body::new(axum::body::Body::from_stream(pending));
    let status = send(&channel, LIST, body, &[]).await;
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("100 ms"), "{status}");
    running.server.stop().await.unwrap();
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_given_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let _peer = TcpStream::connect(address).await.unwrap();
    let (stream, peer) = socket.accept().await.unwrap();
    let hour = Duration::from_secs(3600);
    let activity = Activity::new(hour, hour);
    let connection = Connection {
        peer,
        activity: Arc::clone(&activity),
        ..Connection::none()
    };
    let counters = Arc::new(Counters::default());
    let taken = Places::new(1).take(peer.ip(), &activity).await;
    let (place, _) = taken.ok().unwrap();
    let stall = Duration::from_millis(50);
    let stream = Stream::Plain(stream);
    let mut io = GuardedIo::new(stream, connection, stall, Arc::clone(&counters), place);
    let error = loop {
        if let Err(error) = io.write_all(&[0; 1 << 16]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(counters.timed_out.load(Ordering::Relaxed), 1);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_uint(payload.len() as u64, 3);
    frame.put_u8(kind);
    frame.put_u8(flags);
    frame.put_u32(stream);
    frame.put_slice(payload);
    frame
}

/// Streams that are opened and reset at once cost the client nothing (CVE-2023-44487).
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection_and_nobody_elses() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let running = start(|_, _| ()).await;
    let good = running.plain().await;
    let mut stream = running.tcp().await;
    // HPACK: POST, http, and literal path and authority.
    let mut headers = BytesMut::from(&[0x83, 0x86, 0x04][..]);
    headers.put_u8(u8::try_from(HEALTH.len()).unwrap());
    headers.put_slice(HEALTH.as_bytes());
    headers.put_slice(b"\x01\x01x");
    let mut attack = BytesMut::from(PREFACE);
    for number in 0..2000 {
        attack.extend(frame(HEADERS, 0x04, 2 * number + 1, &headers));
        attack.extend(frame(RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()));
    }
    // The server may end the connection before everything was sent.
    let (mut reading, mut writing) = stream.split();
    let (_, answer) = tokio::join!(writing.write_all(&attack), async {
        let mut code = None;
        let mut head = [0; 9];
        while reading.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if reading.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
        code
    });
    assert_eq!(answer, Some(ENHANCE_YOUR_CALM));
    assert_eq!(health(&good).await, Code::Ok);
    running.server.stop().await.unwrap();
}

/// Returns a body with the beginning of a message, `chunks` chunks of it, and then nothing.
fn unfinished(announced: u32, chunks: usize) -> Body {
    const CHUNK_BYTES: usize = 64 << 10;
    let mut head = BytesMut::new();
    head.put_u8(0);
    head.put_u32(announced);
    let chunks = std::iter::repeat_n(BytesMut::zeroed(CHUNK_BYTES), chunks);
    let chunks = std::iter::once(head).chain(chunks);
    let chunks = chunks.map(|chunk| Ok::<_, std::io::Error>(chunk.freeze()));
    let body = stream::iter(chunks.collect::<Vec<_>>()).chain(stream::pending());
    Body::new(axum::body::Body::from_stream(body))
}

#[tokio::test(flavor = "multi_thread")]
async fn unfinished_messages_do_not_fill_the_memory() {
    let running = start(|options, _| options.limits.connection_bytes = 1).await;
    let channel = running.plain().await;
    // A connection has room for one message of the largest size, and so for one of these.
    let path = "/deed.v1.Ledger/Append";
    let mut sending: FuturesUnordered<_> = (0..3)
        .map(|_| send(&channel, path, unfinished(5 << 20, 64), &[]))
        .collect();
    for _ in 0..2 {
        let status = sending.next().await.unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    }
    assert!(sending.next().now_or_never().is_none());
    // Others, small ones, pass it.
    assert_eq!(health(&channel).await, Code::Ok);
    drop(sending);
    drop(channel);
    running.server.stop().await.unwrap();

    let running = start(with_access).await;
    let channel = running.plain().await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for path in [HEALTH, "/deed.v1.Log/GetTreeHead"] {
        // A message that is too large is refused when it is announced.
        let status = send(&channel, path, unfinished((64 << 10) + 1, 0), &[]).await;
        assert_eq!(status.code(), Code::OutOfRange, "{path}: {status}");
        let status = send(&channel, path, unfinished(64 << 10, 1), &[]).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
    }
    // Reflection's own service does not report why its stream ended, but it ends.
    for (size, chunks) in [((64 << 10) + 1, 0), (64 << 10, 1)] {
        send(&channel, reflection, unfinished(size, chunks), &[]).await;
    }
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_a_request_open() {
    let running = start(|options, tls_dir| {
        with_access(options, tls_dir);
        options.limits.stall_ms = 100;
    })
    .await;
    let channel = running.plain().await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    // The stream ends; this service reports nothing more.
    send(&channel, reflection, unfinished(100, 0), &[]).await;
    running.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let running = start(with_access).await;
    let channel = running.plain().await;
    let long = "x".repeat(24 << 10);
    let (status, _) = get(&channel, "/logs/none/checkpoint", Some(&long)).await;
    assert_eq!(status, 431);
    let mut stream = running.tcp().await;
    let (mut reading, mut writing) = stream.split();
    let endless = async {
        let _ = writing.write_all(b"GET / HTTP/1.1\r\n").await;
        while writing.write_all(b"a: b\r\n").await.is_ok() {}
    };
    let (answer, ()) = tokio::join!(until_closed(&mut reading), endless);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    running.server.stop().await.unwrap();
}

/// Requests that a proxy in front could read differently are refused.
#[tokio::test(flavor = "multi_thread")]
async fn http_1_is_read_strictly_and_one_way() {
    let running = start(|_, _| ()).await;
    let long = format!("a: {}", "x".repeat(20 << 10));
    let longer = format!("a: {}", "x".repeat(40 << 10));
    let get = "GET /logs/none/checkpoint HTTP/1.1\r\n";
    let ask = async |request: &str| {
        let mut stream = running.tcp().await;
        let (mut reading, mut writing) = stream.split();
        let (answer, _) = tokio::join!(
            until_closed(&mut reading),
            writing.write_all(request.as_bytes())
        );
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let statuses = answer.lines().filter(|line| line.starts_with("HTTP/1."));
        let statuses = statuses.map(|line| line.split(' ').nth(1).unwrap().to_owned());
        statuses.collect::<Vec<_>>().join(" ")
    };
    let close = "connection: close\r\n\r\n";
    for (request, wanted) in [
        (format!("{get}host: x\r\n{close}"), "404"),
        (format!("{get}{close}"), "400"),
        (format!("{get}host: x\r\nhost: y\r\n{close}"), "400"),
        (format!("{get}host: x\n{close}"), "400"),
        (format!("{get}host: x\ry: z\r\n{close}"), "400"),
        (get.replace("\r\n", "\n") + "host: x\n\n", "400"),
        (format!("{get}host: x\r\n{long}\r\n{close}"), "431"),
        (format!("{get}host: x\r\n{longer}\r\n{close}"), "400"),
        (
            format!("{get}host: x\r\ncontent-length: 5\r\n\r\nGET /"),
            "400",
        ),
        (
            format!("{get}host: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        // Each of several requests in a row is read in this way.
        (format!("{get}host: x\r\n\r\n{get}host: x\n\n"), "404 400"),
        (
            format!("{get}host: x\r\n\r\n{get}host: x\r\n{close}"),
            "404 404",
        ),
    ] {
        assert_eq!(ask(&request).await, wanted, "{request:.120}");
    }
    // HTTP/2 is none of this.
    assert_eq!(health(&running.plain().await).await, Code::Ok);
    running.server.stop().await.unwrap();
}

/// Connections without a known caller keep no caller out, however many they are.
#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_give_way_to_those_who_ask() {
    let running = start(|options, tls_dir| {
        with_access(options, tls_dir);
        options.limits.connections = 4;
    })
    .await;
    let admin = admin(&running.data_dir());
    let known = running.plain().await;
    while call(&known, LIST, BytesMut::new(), Some(&admin)).await != Code::Ok {
        tokio::task::yield_now().await;
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(running.tcp().await);
        // An anonymous request does not make its caller known.
        let stranger = running.plain().await;
        assert_eq!(health(&stranger).await, Code::Ok);
    }
    let newcomer = running.plain().await;
    let listed = call(&newcomer, LIST, BytesMut::new(), Some(&admin)).await;
    assert_eq!(listed, Code::Ok);
    // The connection with a known caller has stayed.
    let listed = call(&known, LIST, BytesMut::new(), Some(&admin)).await;
    assert_eq!(listed, Code::Ok);
    drop(silent);
    running.server.stop().await.unwrap();
}
