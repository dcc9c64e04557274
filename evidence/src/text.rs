//! The rules of texts.
//!
//! Each looks at bytes, not at a `str`: nearly every text of a statement is ASCII, and finding
//! that out is most of the work that checking UTF-8 would do again.

use crate::wire::TextRule;

/// Any text.
pub(crate) static ANYTHING: TextRule = TextRule {
    holds: is_utf8,
    otherwise: "must be text",
};

/// No character of Unicode's class Cc: U+0000 to U+001F, U+007F to U+009F.
pub(crate) static NO_CONTROL: TextRule = TextRule {
    holds: has_no_control,
    otherwise: "control characters are not allowed",
};

/// A URI as far as this ledger cares: RFC 3986 scheme, a colon, something after it; visible
/// ASCII, so no spaces.
pub(crate) static URI: TextRule = TextRule {
    holds: is_uri,
    otherwise: "must be a URI, for example spiffe://example.org/agent",
};

/// A name that another system has for something.
pub(crate) static LOWER_NAME: TextRule = TextRule {
    holds: is_lower_name,
    otherwise: "only a-z, 0-9, '.', '_' and '-' are allowed",
};

/// ISO 4217 or a unit like it.
pub(crate) static CURRENCY: TextRule = TextRule {
    holds: is_currency,
    otherwise: "must be a currency code of A-Z and 0-9, for example USD",
};

/// RFC 6838 section 4.2: type/subtype of restricted-name characters; parameters after `;` are
/// printable ASCII.
pub(crate) static MEDIA_TYPE: TextRule = TextRule {
    holds: is_media_type,
    otherwise: "must be a media type, for example application/json",
};

/// Returns true if every byte lies in `range`. Looks at all of them, which the compiler turns into a
/// few vector instructions; stopping at the first bad one would save time for bad texts alone.
#[inline]
fn all_in(bytes: &[u8], range: std::ops::RangeInclusive<u8>) -> bool {
    bytes
        .iter()
        .fold(true, |all, byte| all & range.contains(byte))
}

fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

fn has_no_control(bytes: &[u8]) -> bool {
    all_in(bytes, b' '..=b'~')
        || std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

fn is_uri(bytes: &[u8]) -> bool {
    let Some(colon) = bytes.iter().position(|&byte| byte == b':') else {
        return false;
    };
    let (scheme, rest) = (&bytes[..colon], &bytes[colon + 1..]);
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
        && !rest.is_empty()
        && all_in(rest, b'!'..=b'~')
}

fn is_lower_name(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

fn is_currency(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9'))
}

fn is_media_type(bytes: &[u8]) -> bool {
    let essence = match bytes.iter().position(|&byte| byte == b';') {
        Some(semicolon) => &bytes[..semicolon],
        None => bytes,
    };
    let Some(slash) = essence.iter().position(|&byte| byte == b'/') else {
        return false;
    };
    is_restricted_name(&essence[..slash])
        && is_restricted_name(&essence[slash + 1..])
        && all_in(bytes, b' '..=b'~')
}

fn is_restricted_name(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| {
        matches!(
            byte,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9'
                | b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+'
        )
    };
    bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(allowed)
}
