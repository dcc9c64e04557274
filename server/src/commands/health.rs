//! The command `deed-server health`.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use deed_server::address::ListenAddress;

use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Address of the server's admin port, as `admin.listen` sets it.
    #[arg(long, default_value = "127.0.0.1:7734")]
    address: ListenAddress,
    /// Milliseconds to wait for an answer.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

/// Largest answer, in bytes: a status line, a few headers and a reason.
const ANSWER_BYTES_MAX: u64 = 16 << 10;

/// Sends a request over HTTP/1.0, whose connection ends after the answer.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address = &arguments.address;
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let mut stream = connect(address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("GET /readyz HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .with_context(|| format!("no answer from {address}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{address} does not speak HTTP");
    };
    let status = head.split(' ').nth(1).unwrap_or_default();
    let body = body.trim_end();
    if status != "200" {
        bail!("not ready ({status}): {body}");
    }
    print_line(body);
    Ok(ExitCode::SUCCESS)
}

/// Connects to the first of the addresses that answers.
fn connect(address: &ListenAddress, timeout: Duration) -> anyhow::Result<TcpStream> {
    let found = tokio::runtime::Builder::new_current_thread()
        .build()
        .context("cannot start the runtime")?
        .block_on(address.resolve())
        .with_context(|| format!("cannot find {address}"))?;
    let mut last = None;
    for found in found {
        let connected = TcpStream::connect_timeout(&reachable(found), timeout);
        match connected.with_context(|| format!("no answer from {found}")) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.with_context(|| format!("{address} stands for no address"))?)
}

/// Returns the address at which a server can be reached that listens on `address`. If that is every
/// address of the machine, the server is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
