//! Values of arguments that are more than text.

use deed_evidence::{Micros, uri};

use super::{When, now};
use crate::failure::{CommandResult, Failure};

/// Exactly `N` bytes in hex.
pub(crate) fn hex_bytes<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("must be {} hex digits", 2 * N))?;
    Ok(bytes)
}

/// A producer as the ledger takes it, in its canonical form. (A `deed:` URI is refused elsewhere.)
pub(crate) fn producer(text: &str) -> Result<String, String> {
    in_form(text, uri::canonical(text), "a URI")
}

/// A controller as the ledger takes it.
pub(crate) fn controller(text: &str) -> Result<String, String> {
    let form = uri::canonical_controller(text);
    in_form(text, form, "an https or spiffe URI with a host")
}

fn in_form(text: &str, form: Option<String>, wanted: &str) -> Result<String, String> {
    match form {
        Some(form) if form == text => Ok(form),
        Some(form) => Err(format!("is not in canonical form; {form} would be taken")),
        None => Err(format!("must be {wanted}")),
    }
}

/// `kind=value`, as correlation keys are given.
pub(crate) fn kind_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
            Ok((kind.to_owned(), value.to_owned()))
        }
        _ => Err("write it as kind=value, for example order=4711".to_owned()),
    }
}

/// `kind:value`, as outside tokens are given.
pub(crate) fn token(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
            Ok((kind.to_owned(), value.to_owned()))
        }
        _ => Err("write it as kind:value, for example jti:8f14e45f".to_owned()),
    }
}

/// Strictly ascending, as the protocol wants lists.
pub(crate) fn ascending<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list
}

/// Returns the time that `option` names; a duration counts from now on.
pub(crate) fn moment(option: &'static str, when: When) -> CommandResult<Micros> {
    when.after(now())
        .map_err(|error| Failure::usage(format!("{option}: the time {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_two_halves() {
        let pair = |kind: &str, value: &str| Ok((kind.to_owned(), value.to_owned()));
        assert_eq!(kind_and_value("order=4711"), pair("order", "4711"));
        assert_eq!(kind_and_value("url=a=b"), pair("url", "a=b"));
        assert_eq!(token("jti:a:b"), pair("jti", "a:b"));
        for text in ["", "=", "a", "a=", "=a"] {
            assert!(kind_and_value(text).is_err(), "{text}");
            assert!(token(&text.replace('=', ":")).is_err(), "{text}");
        }
    }
}
