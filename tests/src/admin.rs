//! The admin port: readiness and metrics.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{process::ServerProcess, until};

/// The admin port of a server.
#[derive(Debug, Clone, Copy)]
pub struct Admin(SocketAddr);

impl Admin {
    /// Returns the admin port of this server.
    ///
    /// # Panics
    /// If the server has none.
    #[must_use]
    pub fn of(server: &ServerProcess) -> Self {
        Self(server.admin_address())
    }

    /// Returns status and text of `/readyz`.
    ///
    /// # Panics
    /// If there is no answer in time.
    pub async fn ready(self) -> (u16, String) {
        self.ask("/readyz").await
    }

    /// Returns one number of `/metrics`, by its name and labels.
    ///
    /// # Panics
    /// If it is missing: a missing name is not 0.
    pub async fn figure(self, name: &str) -> u64 {
        self.figures().await.get(name)
    }

    /// Returns all numbers, as of one moment.
    ///
    /// # Panics
    /// If there is no answer in time.
    pub async fn figures(self) -> Figures {
        let (status, text) = self.ask("/metrics").await;
        assert_eq!(status, 200, "{text}");
        Figures(text)
    }

    /// A connection may be ended for others before it is answered; then the request is repeated, as
    /// probes do.
    async fn ask(self, path: &str) -> (u16, String) {
        until("an answer of the admin port", || async {
            let mut stream = TcpStream::connect(self.0).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?.parse().ok()?;
            Some((status, body.to_owned()))
        })
        .await
    }
}

/// The text of `/metrics`.
#[derive(Debug, Clone)]
pub struct Figures(String);

impl Figures {
    /// Returns one number, by its name and labels.
    ///
    /// # Panics
    /// If it is missing.
    #[must_use]
    #[track_caller]
    pub fn get(&self, name: &str) -> u64 {
        let mut lines = self.0.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name} in {}", self.0));
        value.parse().expect("a whole number")
    }
}
