//! Plain HTTP/1.1, as tile clients use it.

use std::{future::poll_fn, net::SocketAddr, pin::Pin, str::FromStr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header::HOST};
use hyper::{body::Body as _, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::within;

/// Returns a number in the text of `/metrics`, by its name with all of its labels.
///
/// # Panics
/// If it is missing, or is not such a number.
pub fn figure<N: FromStr>(metrics: &str, name: &str) -> N {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("{name} in {metrics}"));
    let Ok(number) = value.trim().parse() else {
        panic!("{name} is {value}");
    };
    number
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status of the answer.
    pub status: StatusCode,
    /// Content-Type, empty if there is none.
    pub content_type: String,
    /// Cache-Control, empty if there is none.
    pub cache_control: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A connection that is reused between requests; if the server closes it, a new one is opened.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    sender: http1::SendRequest<String>,
}

impl Http {
    /// Opens a connection.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = within("a connection", TcpStream::connect(address))
            .await
            .expect("a socket");
        let (sender, connection) = http1::handshake(TokioIo::new(socket))
            .await
            .expect("an HTTP/1.1 connection");
        tokio::spawn(connection);
        Self { address, sender }
    }

    /// Requests a path.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.request(Method::GET, path).await
    }

    /// Requests a path that must exist, and returns the body.
    ///
    /// # Panics
    /// If it does not exist.
    pub async fn fetch(&mut self, path: &str) -> Bytes {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        answer.body
    }

    /// Sends a request without a body.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn request(&mut self, method: Method, path: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .body(String::new())
            .expect("a request");
        within("an HTTP answer", self.send(request)).await
    }

    async fn send(&mut self, request: Request<String>) -> Answer {
        if self.sender.ready().await.is_err() {
            *self = Self::connect(self.address).await;
            self.sender.ready().await.expect("the connection is open");
        }
        let response = self.sender.send_request(request).await.expect("an answer");
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map_or_else(String::new, |value| {
                value.to_str().expect("text").to_owned()
            })
        };
        let (content_type, cache_control) = (header("content-type"), header("cache-control"));
        let (status, headers) = (response.status(), response.headers().clone());
        let mut incoming = response.into_body();
        let mut body = Vec::new();
        while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await
        {
            if let Ok(data) = frame.expect("the whole body").into_data() {
                body.extend_from_slice(&data);
            }
        }
        Answer {
            status,
            content_type,
            cache_control,
            headers,
            body: body.into(),
        }
    }
}
