//! Access control: tokens, roles and certificates, made with the operator's commands.

use std::{
    convert::Infallible,
    future::poll_fn,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::{Body as _, Frame};
use tonic::{
    Code, Request, Status,
    body::Body,
    client::GrpcService as _,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    process::{ServerProcess, deed_server},
    until, within,
};

/// A bearer token.
#[derive(Debug, Clone)]
pub struct Token(pub String);

impl Token {
    /// Makes a token. `extra` are further arguments of the command.
    ///
    /// # Panics
    /// If the command fails.
    #[track_caller]
    pub fn create(data_dir: &Path, principal: &str, extra: &[&str]) -> Self {
        let mut arguments = vec!["token", "create", "--principal", principal, "--data-dir"];
        let data_dir = data_dir.to_str().expect("a path of text");
        arguments.push(data_dir);
        arguments.extend(extra);
        let printed = deed_server(arguments);
        let token = printed.lines().find(|line| line.starts_with("deed_"));
        Self(token.expect("a token").trim().to_owned())
    }

    /// Returns the token's id.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split('_').nth(1).expect("an id")
    }

    /// Revokes the token.
    ///
    /// # Panics
    /// If the command fails.
    #[track_caller]
    pub fn revoke(&self, data_dir: &Path) {
        let data_dir = data_dir.to_str().expect("a path of text");
        deed_server(["token", "revoke", self.id(), "--data-dir", data_dir]);
    }

    /// Attaches the token to a request.
    ///
    /// # Panics
    /// If it cannot be in a header.
    #[track_caller]
    pub fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {}", self.0).parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
        request
    }
}

/// Makes an authority and a server certificate in `dir`; returns the arguments with which a server
/// uses them.
///
/// # Panics
/// If the command fails.
#[track_caller]
pub fn tls(dir: &Path) -> Vec<String> {
    let path = dir.to_str().expect("a path of text");
    deed_server(["tls", "init", "--dir", path]);
    vec![
        "--tls-certificate".to_owned(),
        format!("{path}/server.pem"),
        "--tls-key".to_owned(),
        format!("{path}/server.key"),
    ]
}

/// Opens a connection under TLS that trusts the authority of [`tls`].
///
/// # Panics
/// If there is no connection in time.
pub async fn connect_tls(server: &ServerProcess, dir: &Path) -> Channel {
    let authority = std::fs::read_to_string(dir.join("ca.pem")).expect("the authority");
    let config = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(authority));
    let endpoint = Endpoint::from_shared(format!("https://{}", server.address()))
        .and_then(|endpoint| endpoint.tls_config(config))
        .expect("an endpoint");
    let connect = || async { endpoint.connect().await.ok() };
    until("a connection under TLS", connect).await
}

/// Calls an rpc with one message; returns its status, which is OK once there is an answer. The rest
/// of the answer is not waited for.
///
/// # Panics
/// If there is no answer in time.
pub async fn call(channel: &Channel, path: &str, message: &[u8], token: Option<&str>) -> Status {
    send(channel, path, frame(message), token).await
}

/// Returns a message in the form that it has in the body of a gRPC request.
///
/// # Panics
/// If it has more than 4 GiB.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).expect("a short message"));
    body.put_slice(message);
    body.freeze()
}

/// Calls an rpc like [`call`], with any bytes for a body.
///
/// # Panics
/// If there is no answer in time.
pub async fn send(channel: &Channel, path: &str, body: Bytes, token: Option<&str>) -> Status {
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (parts, mut body) = match exchange(channel, request, body, token).await {
        Ok(response) => response.into_parts(),
        Err(status) => return status,
    };
    if let Some(status) = Status::from_header_map(&parts.headers) {
        return status;
    }
    let frames = async {
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame = frame?;
            if frame.is_data() {
                return Ok(());
            }
            if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                return match status.code() {
                    Code::Ok => Ok(()),
                    _ => Err(status),
                };
            }
        }
        Err(Status::unknown("the stream ended without a status"))
    };
    match within(path, frames).await {
        Ok(()) => Status::ok(""),
        Err(status) => status,
    }
}

/// Requests an HTTP path over the same kind of connection; returns the answer's status.
///
/// # Panics
/// If there is no answer in time.
pub async fn get(channel: &Channel, path: &str, token: Option<&str>) -> u16 {
    let answer = exchange(channel, http::Request::get(path), Bytes::new(), token).await;
    answer.expect("an answer").status().as_u16()
}

/// Asks for an HTTP path with any method over the same kind of connection.
///
/// # Panics
/// If nothing comes in time.
pub async fn ask(channel: &Channel, method: http::Method, path: &str) -> http::Response<Body> {
    let request = http::Request::builder().method(method).uri(path);
    let answer = exchange(channel, request, Bytes::new(), None).await;
    answer.expect("an answer")
}

async fn exchange(
    channel: &Channel,
    mut request: http::request::Builder,
    body: Bytes,
    token: Option<&str>,
) -> Result<http::Response<Body>, Status> {
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = Body::new(Whole(Some(body)));
    let request = request.body(body).expect("a request");
    let mut channel = channel.clone();
    let exchanged = async {
        poll_fn(|context| channel.poll_ready(context)).await?;
        channel.call(request).await
    };
    let answer = within("an answer", exchanged).await;
    answer.map_err(|error: tonic::transport::Error| Status::from_error(Box::new(error)))
}

/// A body whose bytes are all there already.
struct Whole(Option<Bytes>);

impl hyper::body::Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}
