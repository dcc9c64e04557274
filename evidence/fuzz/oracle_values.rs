//! Values of fields: texts, keys, lists.

pub(super) fn uri(text: &str, max: usize) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else {
        return false;
    };
    let mut scheme = scheme.chars();
    text.len() <= max
        && scheme.next().is_some_and(|c| c.is_ascii_alphabetic())
        && scheme.all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_graphic())
}

pub(super) fn text(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(super) fn lower_name(name: &str) -> bool {
    let allowed = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    (1..=64).contains(&name.len()) && name.chars().all(|c| allowed.contains(c))
}

/// RFC 6838 section 4.2, as characters rather than bytes.
pub(super) fn media_type(text: &str) -> bool {
    let name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
            && chars.all(|c| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c))
    };
    let (essence, _) = text.split_once(';').unwrap_or((text, ""));
    let parts: Vec<_> = essence.split('/').collect();
    text.len() <= 127
        && text.chars().all(|c| c == ' ' || c.is_ascii_graphic())
        && parts.len() == 2
        && parts.into_iter().all(name)
}

pub(super) fn empty_or(bytes: &[u8], length: usize) -> bool {
    bytes.is_empty() || bytes.len() == length
}

pub(super) fn is_key(bytes: &[u8]) -> bool {
    bytes.len() == 32 && deed_tlog::PublicKey::from_bytes(&array(bytes)).is_ok()
}

/// The key of a log, in the one form that it has.
pub(super) fn is_log_key(vkey: &str) -> bool {
    let parsed = vkey.parse::<deed_tlog::VerifierKey>();
    text(vkey, 1, 640)
        && parsed.is_ok_and(|key| {
            key.signature_type() == deed_tlog::SignatureType::Ed25519 && key.to_string() == vkey
        })
}

pub(super) fn ascending<T>(list: &[T], bytes: impl Fn(&T) -> &[u8]) -> bool {
    list.windows(2).all(|two| bytes(&two[0]) < bytes(&two[1]))
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as long as the rules say")
}
