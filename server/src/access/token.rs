//! Bearer tokens: `deed_<id>_<base64url of 32 random bytes>`.
//!
//! The server keeps the SHA-256 of the random bytes. A plain hash is enough where nobody can try
//! 2^256 secrets; what makes password hashes slow would only slow down each request.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

const PREFIX: &str = "deed_";

/// Hexadecimal digits of an id.
const ID_DIGITS: usize = 16;

/// base64url of 32 bytes, without padding.
const SECRET_CHARS: usize = 43;

/// A token as a request shows it: its id, and the secret that proves it.
pub(crate) struct Shown<'a> {
    pub(crate) id: &'a str,
    secret: Zeroizing<[u8; 32]>,
}

impl<'a> Shown<'a> {
    /// Parses a token; returns `None` if the text has another form.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        if !is_id(id) || secret.len() != SECRET_CHARS {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        let length = BASE64URL.decode_slice(secret, &mut *bytes).ok()?;
        (length == bytes.len()).then_some(Self { id, secret: bytes })
    }

    /// Returns true if `hash` is that of the secret. Takes the same time either way.
    pub(crate) fn opens(&self, hash: &SecretHash) -> bool {
        SecretHash::of(&self.secret).0.ct_eq(&hash.0).into()
    }
}

/// SHA-256 of a token's secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecretHash([u8; 32]);

impl SecretHash {
    fn of(secret: &[u8; 32]) -> Self {
        Self(Sha256::digest(secret).into())
    }

    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(digits, &mut hash).ok()?;
        Some(Self(hash))
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A token that was just made: the only time that its text is known.
pub(crate) struct NewToken {
    pub(crate) id: String,
    pub(crate) hash: SecretHash,
    pub(crate) text: Zeroizing<String>,
}

impl NewToken {
    /// Draws an id and a secret.
    ///
    /// # Errors
    /// The error of the system if it gives no random bytes.
    pub(crate) fn draw() -> Result<Self, getrandom::Error> {
        let mut id = [0; ID_DIGITS / 2];
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut *secret)?;
        let id = hex::encode(id);
        let encoded = Zeroizing::new(BASE64URL.encode(*secret));
        Ok(Self {
            text: Zeroizing::new(format!("{PREFIX}{id}_{}", *encoded)),
            hash: SecretHash::of(&secret),
            id,
        })
    }
}

/// Returns true if a text has the form of a token's id.
pub(crate) fn is_id(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == ID_DIGITS && text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_hash_and_no_other() {
        let (one, two) = (NewToken::draw().unwrap(), NewToken::draw().unwrap());
        let shown = Shown::parse(&one.text).unwrap();
        assert_eq!(shown.id, one.id);
        assert!(shown.opens(&one.hash));
        assert!(!shown.opens(&two.hash));
        assert_eq!(SecretHash::from_hex(&one.hash.to_string()), Some(one.hash));
        assert!(!one.text.contains(&one.hash.to_string()));
    }

    /// Golden: FIPS 180-4's SHA-256 of 32 zero bytes.
    #[test]
    fn hashes_are_sha_256() {
        let token = format!("deed_{}_{}", "0".repeat(16), "A".repeat(43));
        let hash = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        let shown = Shown::parse(&token).unwrap();
        assert!(shown.opens(&SecretHash::from_hex(hash).unwrap()));
    }

    #[test]
    fn every_changed_character_of_a_token_closes_it() {
        let made = NewToken::draw().unwrap();
        let text = made.text.as_bytes();
        for at in 0..text.len() {
            for replacement in [b'!', b'_', b'A', b'b', 0xff] {
                let mut changed = text.to_vec();
                changed[at] = replacement;
                if changed == text {
                    continue;
                }
                let opened = std::str::from_utf8(&changed)
                    .ok()
                    .and_then(Shown::parse)
                    .is_some_and(|shown| shown.id == made.id && shown.opens(&made.hash));
                assert!(!opened, "character {at}");
            }
            assert!(Shown::parse(&made.text[..at]).is_none());
        }
        assert!(Shown::parse(&format!("{}A", *made.text)).is_none());
        assert!(Shown::parse(&format!("{}=", *made.text)).is_none());
    }
}
