//! A public key as an argument.

use std::path::Path;

use deed_client::key;
use deed_tlog::PublicKey;

use crate::failure::{CommandResult, Failure};

/// Reads a public key: 64 hex digits, or a file with a public or private key.
pub(crate) fn public_key(argument: &str) -> CommandResult<PublicKey> {
    let is_hex = argument.len() == 64 && argument.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex {
        return key::parse_public(argument)
            .map_err(|error| Failure::usage(format!("{argument}: {error}")));
    }
    key::read_public(Path::new(argument)).map_err(|error| Failure::Usage(error.into()))
}

/// Reads a public key as [`public_key`] does, and returns its bytes.
pub(crate) fn authority_key(argument: &str) -> CommandResult<[u8; 32]> {
    Ok(*public_key(argument)?.as_bytes())
}
