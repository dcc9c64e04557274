//! The names of actions and resources: one text for one thing.
//!
//! Grants and policies compare them as bytes, and a grant of `order/*` covers all that begins with
//! `order/`. So no name may lead out of what it begins with, whoever resolves it, and no two names
//! may read as one. Unicode's normal forms are not looked at: `é` in one character and in two are
//! two names.

/// The reason why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// `a//b`, `a/`.
    EmptySegment,
    /// `a/../b`, `./a`, `a/..;v=1/b`.
    DotSegment,
    /// `a%2Fb`, `%61`, `%252e`.
    Encoding,
    /// `a\b`.
    Backslash,
    /// A character that cannot be seen.
    Unseen,
    /// `a /b`, `a  b`.
    Space,
}

impl Flaw {
    /// The rule that it breaks, in words.
    pub(crate) const fn rule(self) -> &'static str {
        match self {
            Self::EmptySegment => {
                "must have no empty segment: no `//` but behind a URI's scheme, and no `/` at the end"
            }
            Self::DotSegment => "must have no `.` or `..` segment",
            Self::Encoding => {
                "must not percent-encode letters, digits, `-`, `.`, `_`, `~`, `/`, `\\`, control \
                 characters, or a `%` before two hex digits"
            }
            Self::Backslash => "must have no backslash",
            Self::Unseen => UNSEEN_RULE,
            Self::Space => "must have no space at the end of a segment, nor two in a row",
        }
    }
}

pub(crate) const UNSEEN_RULE: &str = "must have no character that cannot be seen or that changes the direction of text, and no space \
     but U+0020";

/// Returns the flaw of a name, if it has one. The text is UTF-8.
pub(crate) fn flaw(text: &[u8]) -> Option<Flaw> {
    if is_plain(text) { None } else { found(text) }
}

/// Returns true if nothing can be wrong: visible ASCII without `%` and `\`, where no segment is
/// empty or begins with a dot. Looks at every byte, without a branch: nearly all names are plain.
fn is_plain(text: &[u8]) -> bool {
    let seen = |byte: &u8| (b'!'..=b'~').contains(byte) & (*byte != b'%') & (*byte != b'\\');
    let ends = text.first() != Some(&b'.') && text.last() != Some(&b'/');
    let rest = text.get(1..).unwrap_or_default();
    ends && text.iter().fold(true, |all, byte| all & seen(byte))
        && text.iter().zip(rest).fold(true, |all, (a, b)| {
            all & !((*a == b'/') & ((*b == b'/') | (*b == b'.')))
        })
}

#[cold]
fn found(bytes: &[u8]) -> Option<Flaw> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Some(Flaw::Unseen);
    };
    if has_unseen(text) {
        return Some(Flaw::Unseen);
    }
    if text.contains('\\') {
        return Some(Flaw::Backslash);
    }
    let dots = segments(text).any(is_dots);
    if dots {
        return Some(Flaw::DotSegment);
    }
    if encodes_too_much(bytes) {
        return Some(Flaw::Encoding);
    }
    let path = behind_scheme(text);
    let is_root = path == "/";
    if !is_root && segments(text).any(str::is_empty) {
        return Some(Flaw::EmptySegment);
    }
    let spaced = |segment: &str| {
        segment.starts_with(' ') || segment.ends_with(' ') || segment.contains("  ")
    };
    segments(text).any(spaced).then_some(Flaw::Space)
}

/// A URI without its scheme and the `//` behind that; another text as it is.
fn behind_scheme(text: &str) -> &str {
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match text.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => text,
    }
}

/// The texts between slashes; a slash at the beginning begins the first one.
fn segments(text: &str) -> impl Iterator<Item = &str> {
    let path = behind_scheme(text);
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Returns true if a segment is `.` or `..`, perhaps encoded, to anybody who ends a path at `;`,
/// `?` or `#`.
fn is_dots(segment: &str) -> bool {
    let mut rest = segment;
    let mut dots = 0;
    loop {
        if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
        } else if matches!(escape(rest.as_bytes()), Some(b'.')) {
            rest = &rest[3..];
        } else {
            break;
        }
        dots += 1;
    }
    let ends = matches!(rest.bytes().next().or(Some(b';')), Some(b';' | b'?' | b'#'))
        || matches!(escape(rest.as_bytes()), Some(b';' | b'?' | b'#'));
    // A space there is lost on some systems.
    let ends = ends || rest.bytes().all(|byte| byte == b' ');
    (1..=2).contains(&dots) && ends
}

/// The byte that an escape at the beginning stands for.
pub(crate) fn escape(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = *bytes else {
        return None;
    };
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

pub(crate) fn encodes_too_much(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| match escape(&bytes[at..]) {
        None => false,
        // Encoded twice.
        Some(b'%') => {
            let [_, _, _, behind @ ..] = &bytes[at..] else {
                return false;
            };
            matches!(behind, [high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit())
        }
        Some(byte) => is_unreserved(byte) || byte.is_ascii_control() || b"/\\".contains(&byte),
    })
}

/// RFC 3986 section 2.3: encoding these changes nothing.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Returns true if a text has a character that a reader does not see, or not where it stands:
/// controls, all that Unicode calls default ignorable, direction marks, line ends, and spaces but
/// U+0020.
pub(crate) fn has_unseen(text: &str) -> bool {
    text.chars().any(is_unseen)
}

/// As [`has_unseen`], for a text that the walk found to be UTF-8 without controls.
pub(crate) fn has_unseen_bytes(bytes: &[u8]) -> bool {
    !bytes.is_ascii() && std::str::from_utf8(bytes).map_or(true, has_unseen)
}

fn is_unseen(character: char) -> bool {
    matches!(character,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
        | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_are_in_use_have_no_flaw() {
        for name in [
            "payments.refund",
            "get_user_details",
            "order/4711",
            "order/*",
            "order/4711/*",
            "/",
            "/*",
            "/etc/.profile",
            "a/...",
            "a/..b",
            ".hidden",
            "https://shop.example/orders/4711?full=1#top",
            "https://shop.example:8443",
            "https://*",
            "file:///var/lib",
            "urn:example:order:4711",
            "arn:aws:s3:::bucket/key",
            "C:/x",
            "50% off",
            "caf\u{e9} au lait/%C3%A9",
            "a%20b",
            "100%25",
        ] {
            assert_eq!(flaw(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn each_flaw_is_found() {
        for (flawed, names) in [
            (
                Flaw::EmptySegment,
                &[
                    "order//1",
                    "order/",
                    "//order",
                    "https://",
                    "https://shop.example/",
                    "https://shop.example//a",
                    "file:////a",
                    "a:b://c",
                    "order/a?to=https://x",
                ][..],
            ),
            (
                Flaw::DotSegment,
                &[
                    "order/../../admin",
                    "order/..",
                    "..",
                    ".",
                    "./a",
                    "/../a",
                    "order/./a",
                    "order/%2e%2e/admin",
                    "order/.%2E/admin",
                    "order/%2E",
                    "order/..;v=1/admin",
                    "order/..%3b/admin",
                    "order/..?a",
                    "order/.. /admin",
                    "https://shop.example/../admin",
                ],
            ),
            (
                Flaw::Encoding,
                &[
                    "order%2f1",
                    "order%2F1",
                    "order%5c1",
                    "order%5C1",
                    "%61dmin",
                    "a%2eb",
                    "a%00",
                    "a%0d",
                    "a%7f",
                    "order/%252e%252e/admin",
                    "order%252f1",
                ],
            ),
            (Flaw::Backslash, &["order\\1", "..\\admin"]),
            (
                Flaw::Unseen,
                &[
                    "a\u{200b}b",
                    "a\u{200f}",
                    "a\u{202e}b",
                    "\u{2066}a\u{2069}",
                    "\u{feff}a",
                    "a\u{2028}b",
                    "a\u{2029}",
                    "a\u{e0041}",
                    "a\u{ad}b",
                    "a\u{a0}b",
                    "a\u{3000}b",
                    "a\u{0}",
                    "a\nb",
                    "a\u{85}",
                    "a\u{fe0f}",
                    "a\u{3164}",
                ],
            ),
            (
                Flaw::Space,
                &["order ", " order", "order /1", "order/ 1", "order  1"],
            ),
        ] {
            for name in names {
                assert_eq!(flaw(name.as_bytes()), Some(flawed), "{name:?}");
            }
        }
    }

    proptest! {
        /// The short way and the long way say the same.
        #[test]
        fn what_is_plain_has_no_flaw(name in "[a-z./%:\\\\ 2eé*-]{1,12}") {
            if is_plain(name.as_bytes()) {
                prop_assert_eq!(found(name.as_bytes()), None);
            }
        }

        /// Resolved by the rules of the web, a name stays where it begins.
        #[test]
        fn no_name_leads_out_of_its_prefix(rest in "[a.%2eEfF5cC/;?#\\\\]{1,12}") {
            let name = format!("https://shop.example/order/{rest}");
            if flaw(name.as_bytes()).is_none() {
                let resolved = url::Url::parse(&name).unwrap();
                prop_assert!(resolved.path().starts_with("/order/"), "{} {}", name, resolved);
            }
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = flaw(&bytes);
        }
    }
}
