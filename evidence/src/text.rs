//! The rules of texts.
//!
//! Each looks at bytes, not at a `str`: nearly every text of a statement is ASCII, and finding
//! that out is most of the work that checking UTF-8 would do again.

use deed_proto::rules::Characters;

/// Returns true if `bytes` are a text of these characters alone. Never true for what is not UTF-8:
/// a rule that allows ASCII alone need not look twice.
#[inline]
pub(crate) fn has_only(characters: Characters, bytes: &[u8]) -> bool {
    match characters {
        // No table has it: a text without a rule does not build.
        Characters::Unspecified => false,
        Characters::Any => is_utf8(bytes),
        Characters::NoControl => has_no_control(bytes),
        Characters::Uri => is_uri(bytes),
        Characters::LowerName => is_lower_name(bytes),
        Characters::Currency => is_currency(bytes),
        Characters::MediaType => is_media_type(bytes),
    }
}

/// Returns the error text for a text with other characters.
pub(crate) const fn rule(characters: Characters) -> &'static str {
    match characters {
        Characters::Unspecified => "no text is allowed",
        Characters::Any => "must be text",
        Characters::NoControl => "control characters are not allowed",
        Characters::Uri => "must be a URI, for example spiffe://example.org/agent",
        Characters::LowerName => "only a-z, 0-9, '.', '_' and '-' are allowed",
        Characters::Currency => "must be a currency code of A-Z and 0-9, for example USD",
        Characters::MediaType => "must be a media type, for example application/json",
    }
}

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

/// Unicode's class Cc: U+0000 to U+001F, U+007F to U+009F.
fn has_no_control(bytes: &[u8]) -> bool {
    all_in(bytes, b' '..=b'~')
        || std::str::from_utf8(bytes).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// A URI as far as this ledger cares: RFC 3986 scheme, a colon, something after it; visible
/// ASCII, so no spaces.
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

/// ISO 4217 or a unit like it.
fn is_currency(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9'))
}

/// RFC 6838 section 4.2: type/subtype of restricted-name characters; parameters after `;` are
/// printable ASCII.
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
