//! The address of a server as an argument.

use std::{borrow::Cow, net::IpAddr};

/// Returns the URL of a server. An address without a scheme (`localhost:7733`, `[::1]:7733`) is
/// `http://` on this machine, and `https://` elsewhere or if the caller has certificates. An address of
/// another form is returned as it is: connecting to it fails with the reason.
pub(crate) fn server_url(address: &str, has_certificates: bool) -> Cow<'_, str> {
    let Some(host) = host_of(address) else {
        return Cow::Borrowed(address);
    };
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
    let scheme = if is_loopback && !has_certificates {
        "http"
    } else {
        "https"
    };
    Cow::Owned(format!("{scheme}://{address}"))
}

/// Returns the host of `host:port`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    match bracketed {
        Some(host) => Some(host),
        None => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (!host.is_empty() && host.chars().all(is_name)).then_some(host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_in_clear_on_this_machine_only() {
        for (address, url, with_certificates) in [
            (
                "localhost:7733",
                "http://localhost:7733",
                "https://localhost:7733",
            ),
            ("[::1]:7733", "http://[::1]:7733", "https://[::1]:7733"),
            (
                "127.0.0.1:7733",
                "http://127.0.0.1:7733",
                "https://127.0.0.1:7733",
            ),
            ("127.9.9.9:1", "http://127.9.9.9:1", "https://127.9.9.9:1"),
            (
                "ledger.example.org:443",
                "https://ledger.example.org:443",
                "https://ledger.example.org:443",
            ),
            (
                "192.0.2.7:7733",
                "https://192.0.2.7:7733",
                "https://192.0.2.7:7733",
            ),
            (
                "[2001:db8::7]:7733",
                "https://[2001:db8::7]:7733",
                "https://[2001:db8::7]:7733",
            ),
            // A name that only begins like one of this machine.
            (
                "localhost.example.org:7733",
                "https://localhost.example.org:7733",
                "https://localhost.example.org:7733",
            ),
        ] {
            assert_eq!(server_url(address, false), url);
            assert_eq!(server_url(address, true), with_certificates);
        }
    }

    #[test]
    fn any_other_address_stays_as_it_is() {
        for address in [
            "",
            "localhost",
            "http://192.0.2.7:7733",
            "https://localhost:7733",
            "ftp://x:1",
            "::1:7733",
            "localhost:http",
            "localhost:77333",
            "user@localhost:7733",
            "localhost:7733/path",
            ":7733",
        ] {
            assert_eq!(server_url(address, false), address);
        }
    }
}
