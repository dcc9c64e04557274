//! The canonical form of the URIs that name producers and controllers.
//!
//! Registrations, grants and bindings compare them whole, as bytes; whether two parties are
//! independent of each other hangs on it. So of all texts that name the same place one is taken,
//! and the others are refused with that one in the answer.

use std::fmt::Write as _;

use url::Url;

use crate::name::{self, is_unreserved};

/// The canonical form of a URI of visible ASCII; `None` if there is none.
///
/// With `//` behind the scheme: scheme and host in lower case (the host as the URL standard has
/// it: punycode, and addresses in their usual form), no dot at the host's end, no port that is the
/// scheme's own (443 for spiffe, which has none, too), no user, query or fragment, no empty, `.` or
/// `..` segment, nothing percent-encoded that may stand in a path as it is, hex digits of an
/// encoding in upper case. Encoded separators have no canonical form: who resolves them may read
/// them as separators.
///
/// Other URIs have it if they are a name as an Intent's resource must be one, with the scheme in
/// lower case.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("//") else {
        if ["http", "https", "spiffe", "ws", "wss", "ftp", "file"].contains(&scheme.as_str()) {
            // It would be read as if `//` stood there.
            return None;
        }
        let form = format!("{scheme}:{rest}");
        return (!rest.is_empty() && name::flaw(form.as_bytes()).is_none()).then_some(form);
    };
    // The standard has rules for hosts of its special schemes alone.
    let read_as = match scheme.as_str() {
        "http" | "ws" | "wss" | "ftp" => scheme.as_str(),
        "file" => return None,
        _ => "https",
    };
    let url = Url::parse(&format!("{read_as}://{rest}")).ok()?;
    let whole = url.host_str()?;
    let host = whole.trim_end_matches('.');
    if host.is_empty() {
        return None;
    }
    let mut form = format!("{scheme}://{host}");
    if let Some(port) = url.port() {
        write!(form, ":{port}").ok()?;
    }
    // Decoding may bring out a dot segment that the standard does not know.
    for segment in url.path().split('/') {
        let segment = path_segment(segment)?;
        if !matches!(segment.as_str(), "" | "." | "..") {
            form.push('/');
            form.push_str(&segment);
        }
    }
    if host != whole {
        // The rest may be read in another way: `2..` is a name, `2` an address.
        return canonical(&form);
    }
    Some(form)
}

/// As [`canonical`], for whom independence is judged by: https or spiffe.
#[must_use]
pub fn canonical_controller(text: &str) -> Option<String> {
    canonical(text).filter(|form| form.starts_with("https://") || form.starts_with("spiffe://"))
}

/// One encoding for each segment: none where RFC 3986's `pchar` may stand as it is.
fn path_segment(segment: &str) -> Option<String> {
    let bytes = segment.as_bytes();
    let mut form = String::with_capacity(segment.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = name::escape(&bytes[at..]);
        let byte = escaped.unwrap_or(byte);
        at += if escaped.is_some() { 3 } else { 1 };
        let is_lone_percent = byte == b'%' && escaped.is_none();
        if is_lone_percent || byte.is_ascii_control() || b"/\\".contains(&byte) {
            return None;
        }
        if is_pchar(byte) {
            form.push(char::from(byte));
        } else {
            write!(form, "%{byte:02X}").ok()?;
        }
    }
    // An escape that was itself encoded: read once more it would be another name.
    (!name::encodes_too_much(form.as_bytes())).then_some(form)
}

/// RFC 3986 section 3.3, without escapes.
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn other_spellings_of_a_controller_come_to_one() {
        let form = "https://example.org/teams/payments";
        for other in [
            form,
            "HTTPS://example.org/teams/payments",
            "https://EXAMPLE.org/teams/payments",
            "https://example.org./teams/payments",
            "https://example.org:443/teams/payments",
            "https://example.org:/teams/payments",
            "https://example.org/teams/payments/",
            "https://example.org/teams//payments",
            "https://example.org/teams/./payments",
            "https://example.org/a/../teams/payments",
            "https://example.org/%61/%2E%2e/teams/payments",
            "https://example.org/team%73/payments",
            "https://example.org/teams/payments?x=1",
            "https://example.org/teams/payments#top",
            "https://user:pw@example.org/teams/payments",
            "https://ex%61mple.org/teams/payments",
            "https://example.org\\teams\\payments",
            "https:///example.org/teams/payments",
        ] {
            assert_eq!(
                canonical_controller(other).as_deref(),
                Some(form),
                "{other}"
            );
        }
    }

    #[test]
    fn each_of_these_has_its_form() {
        for (text, form) in [
            ("spiffe://Example.org/Agent", "spiffe://example.org/Agent"),
            ("spiffe://example.org:443/a", "spiffe://example.org/a"),
            ("spiffe://example.org/", "spiffe://example.org"),
            ("https://example.org:8443/", "https://example.org:8443"),
            ("https://127.1/a", "https://127.0.0.1/a"),
            ("https://127.1../a", "https://127.0.0.1/a"),
            ("https://[::0:1]/a", "https://[::1]/a"),
            ("https://example.org/%c3%a9", "https://example.org/%C3%A9"),
            ("https://example.org/a%40b", "https://example.org/a@b"),
            ("https://example.org/a%3fb", "https://example.org/a%3Fb"),
            ("https://example.org/a|b", "https://example.org/a%7Cb"),
            (
                "https://xn--bcher-kva.example",
                "https://xn--bcher-kva.example",
            ),
        ] {
            assert_eq!(canonical_controller(text).as_deref(), Some(form), "{text}");
        }
    }

    #[test]
    fn what_is_no_controller_has_no_form() {
        for text in [
            "example.org",
            "https:",
            "https://",
            "https://./a",
            "https://xn--zzzzzzzzzzz/",
            "https://exa mple.org",
            "https://example.org/a%2Fb",
            "https://example.org/a%5cb",
            "https://example.org/a%00",
            "https://example.org/%252e%252e",
            "https://example.org/%",
            "https://example.org/%zz",
            "http://example.org/a",
            "mailto:a@example.org",
            "deed:authority",
        ] {
            assert_eq!(canonical_controller(text), None, "{text}");
        }
    }

    #[test]
    fn producers_may_have_other_schemes() {
        for (text, form) in [
            ("test:agent", Some("test:agent")),
            ("TEST:agent", Some("test:agent")),
            ("urn:example:Agent:7", Some("urn:example:Agent:7")),
            ("http://Example.org:80/a/", Some("http://example.org/a")),
            ("mailto:agent@example.org", Some("mailto:agent@example.org")),
            ("test:a/../b", None),
            ("test:%61", None),
            ("file:///agent", None),
            ("agent", None),
        ] {
            assert_eq!(canonical(text).as_deref(), form, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_form_is_its_own_form(text in "(https|spiffe|http|x)://[a-zA-Z.%2eE/:@?;\\\\-]{1,20}") {
            if let Some(form) = canonical(&text) {
                prop_assert_eq!(canonical(&form), Some(form));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = canonical(&text);
        }
    }
}
