//! Addresses to listen on: their text, the names that stand for them, and the sockets bound to
//! them.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use thiserror::Error;
use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Longest name of a host, in bytes.
///
/// Source: RFC 1035 section 2.3.4, without the length bytes of the first label and the root.
const NAME_BYTES_MAX: usize = 253;

/// Attempts to find one port that is free on several addresses.
const FREE_PORT_ATTEMPTS: usize = 16;

/// An address to listen on: `127.0.0.1:7733`, `[::1]:7733`, `localhost:7733`, or `:7733` for every
/// address of this machine. Port 0 is any free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: Host,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// A socket address; an IPv6 address may have a scope.
    Address(SocketAddr),
    Name(String),
    Every,
}

/// Text that is no [`ListenAddress`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("wanted is a host and a port, such as 127.0.0.1:7733, [::1]:7733, localhost:7733 or :7733")]
pub struct NoAddress;

impl FromStr for ListenAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let (host, port) = text.rsplit_once(':').ok_or(NoAddress)?;
        // `u16` takes a plus sign, which is no part of a port.
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        let port = port.and_then(|port| port.parse().ok()).ok_or(NoAddress)?;
        let host = match host {
            "" => Host::Every,
            name if is_name(name) => Host::Name(name.to_owned()),
            _ => return Err(NoAddress),
        };
        Ok(Self { host, port })
    }
}

/// Returns true if the text is a host's name. The last label of a name is no number, so that 127.1
/// and 10.0.0.256 are mistakes and not names.
fn is_name(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = labels.rsplit('.').next().unwrap_or_default();
    text.len() <= NAME_BYTES_MAX
        && labels.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(address),
            port: address.port(),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Address(address) => address.fmt(f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Every => write!(f, ":{}", self.port),
        }
    }
}

impl ListenAddress {
    /// Returns the addresses that this one stands for, each once; at least one.
    ///
    /// # Errors
    /// The error of the system if the name is not found.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let found: Vec<_> = match &self.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => lookup_host((name.as_str(), self.port)).await?.collect(),
            Host::Every => [
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                Ipv4Addr::UNSPECIFIED.into(),
            ]
            .map(|every| SocketAddr::new(every, self.port))
            .into(),
        };
        let mut addresses = Vec::with_capacity(found.len());
        for address in found {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let why = "the name has no address";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        Ok(addresses)
    }
}

/// Sockets that listen, one for each address.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<TcpListener>,
    /// The socket that is asked first. It changes each time, so that no socket waits for a busy
    /// one.
    first: AtomicUsize,
}

impl From<TcpListener> for Sockets {
    fn from(socket: TcpListener) -> Self {
        Self::new(vec![socket])
    }
}

impl Sockets {
    fn new(sockets: Vec<TcpListener>) -> Self {
        Self {
            sockets,
            first: AtomicUsize::new(0),
        }
    }

    /// Listens on all of these addresses. With port 0, all of them get the same free port. If there
    /// are several, those that this machine does not have are left out: `localhost` stands for
    /// `::1` also where there is no IPv6.
    ///
    /// # Errors
    /// The address that cannot be bound, with the error of the system; no address is bound then.
    pub(crate) async fn bind(addresses: &[SocketAddr]) -> Result<Self, (SocketAddr, io::Error)> {
        let any_port = addresses.len() > 1 && addresses.iter().all(|it| it.port() == 0);
        for _ in 1..FREE_PORT_ATTEMPTS {
            match Self::bind_once(addresses).await {
                // Another socket has the port that was free on the first address.
                Err((_, error)) if any_port && error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Self::bind_once(addresses).await
    }

    async fn bind_once(addresses: &[SocketAddr]) -> Result<Self, (SocketAddr, io::Error)> {
        let mut bound = Vec::new();
        let mut absent = None;
        let mut port = None;
        for &asked in addresses {
            let mut address = asked;
            if let (0, Some(port)) = (asked.port(), port) {
                address.set_port(port);
            }
            let socket = match TcpListener::bind(address).await {
                Ok(socket) => socket,
                // On most systems `[::]` has every address of IPv4 as well.
                Err(error) if serves_ipv4(&bound, address, &error) => continue,
                Err(error) if is_absent(&error) => {
                    tracing::info!(%address, %error, "this machine does not have an address");
                    absent = Some((asked, error));
                    continue;
                }
                Err(error) => return Err((asked, error)),
            };
            let local = socket.local_addr().map_err(|error| (asked, error))?;
            port = Some(local.port());
            bound.push(socket);
        }
        match absent {
            Some(absent) if bound.is_empty() => Err(absent),
            _ => Ok(Self::new(bound)),
        }
    }

    /// Returns the bound addresses, in the order in which they were asked for.
    pub(crate) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(TcpListener::local_addr).collect()
    }

    /// Waits for a connection to any of the addresses.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let first = self.first.fetch_add(1, Ordering::Relaxed);
        let count = self.sockets.len();
        for offset in 0..count {
            let socket = &self.sockets[first.wrapping_add(offset) % count];
            if let Poll::Ready(accepted) = socket.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

/// Returns true if an IPv4 address is taken because one of these sockets serves it already.
fn serves_ipv4(bound: &[TcpListener], address: SocketAddr, error: &io::Error) -> bool {
    let every = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
    error.kind() == io::ErrorKind::AddrInUse
        && address.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        && bound
            .iter()
            .any(|socket| socket.local_addr().is_ok_and(|local| local == every))
}

/// Returns true if an address was refused because this machine does not have it, or none of its
/// kind.
fn is_absent(error: &io::Error) -> bool {
    let no_such_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(no_such_family)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<ListenAddress> {
        text.parse().ok()
    }

    #[test]
    fn addresses_names_and_every_address_are_taken() {
        for text in [
            "127.0.0.1:7733",
            "0.0.0.0:0",
            "[::1]:7733",
            "[::]:7733",
            "[fe80::1%2]:7733",
            "localhost:7733",
            "ledger.example.org:65535",
            "ledger.example.org.:1",
            "a-b_c:1",
            "3com.example:1",
            ":7733",
            ":0",
        ] {
            let address = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            ":",
            "nonsense",
            "7733",
            "localhost",
            "localhost:",
            "localhost:65536",
            "localhost:+1",
            "localhost:-1",
            "localhost: 1",
            " localhost:1",
            "http://localhost:1",
            "localhost:1/",
            "a..b:1",
            ".a:1",
            "a b:1",
            "user@host:1",
            "127.1:1",
            "10.0.0.256:1",
            "1:1",
            "::1:7733",
            "[::1]",
            "[localhost]:1",
            "ä:1",
            &format!("{}:1", "a".repeat(64)),
            &format!("{}:1", "a.".repeat(127)),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn names_are_looked_up_and_every_address_is_two() {
        let resolve = async |text: &str| parse(text).unwrap().resolve().await;
        let one = "127.0.0.1:5".parse().unwrap();
        assert_eq!(resolve("127.0.0.1:5").await.unwrap(), [one]);
        let local = resolve("localhost:5").await.unwrap();
        assert!(!local.is_empty());
        for address in &local {
            assert!(address.ip().is_loopback(), "{address}");
            assert_eq!(address.port(), 5);
            assert_eq!(local.iter().filter(|it| *it == address).count(), 1);
        }
        let every = resolve(":5").await.unwrap();
        assert_eq!(every, ["[::]:5", "0.0.0.0:5"].map(|it| it.parse().unwrap()));
        // RFC 6761 section 6.4: this name never has an address.
        resolve("nobody.invalid:5").await.unwrap_err();
    }

    #[tokio::test]
    async fn several_addresses_share_a_free_port_and_all_are_accepted_on() {
        let asked = ["127.0.0.1:0", "127.0.0.2:0"].map(|text| text.parse().unwrap());
        let sockets = Sockets::bind(&asked).await.unwrap();
        let bound = sockets.addresses().unwrap();
        assert_eq!(bound.len(), 2);
        assert_eq!(bound[0].port(), bound[1].port());
        assert_ne!(bound[0].port(), 0);
        for address in &bound {
            let (connected, accepted) = tokio::join!(TcpStream::connect(address), sockets.accept());
            let (stream, _) = accepted.unwrap();
            assert_eq!(stream.local_addr().unwrap(), *address);
            drop(connected.unwrap());
        }
        // An address that another socket has is an error, and the others are free again.
        let taken: Vec<_> = ["127.0.0.3", "127.0.0.2"]
            .iter()
            .map(|ip| SocketAddr::new(ip.parse().unwrap(), bound[1].port()))
            .collect();
        let (which, error) = Sockets::bind(&taken).await.unwrap_err();
        assert_eq!(which, taken[1]);
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        Sockets::bind(&taken[..1]).await.unwrap();
    }

    #[tokio::test]
    async fn addresses_of_other_machines_are_left_out_unless_they_are_all() {
        // RFC 5737: this address is for documentation, so no machine has it.
        let absent: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets = Sockets::bind(&[absent, here]).await.unwrap();
        let bound = sockets.addresses().unwrap();
        assert_eq!(bound.len(), 1);
        assert!(bound[0].ip().is_loopback());
        let (which, error) = Sockets::bind(&[absent]).await.unwrap_err();
        assert_eq!(which, absent);
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
