//! Promises of bytes that are not in the log.
//!
//! digest = BLAKE3 derive-key("deed.v1 content commitment", salt || bytes). The salt keeps
//! short contents from being guessed; it is derived, so that sending again gives the same
//! bytes.

use bytes::Bytes;
use deed_proto::v1;

use crate::{Sequence, SessionId};

/// BLAKE3 context of a commitment's digest. Never changes.
const CONTENT_CONTEXT: &str = "deed.v1 content commitment";

/// 32 bytes that only those who may read the content know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Derives the salt of one content: BLAKE3 keyed with the producer's secret, over session
    /// (16 bytes), sequence (8 bytes, big-endian) and the slot's name.
    ///
    /// `slot` is the field that holds the commitment, for example `intent.arguments`.
    #[must_use]
    pub fn derive(secret: &[u8; 32], session: SessionId, sequence: Sequence, slot: &str) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(session.as_bytes());
        hasher.update(&sequence.get().to_be_bytes());
        hasher.update(slot.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// Commits to `content`.
#[must_use]
pub fn commit(salt: &Salt, content: &[u8], media_type: &str) -> v1::Commitment {
    v1::Commitment {
        digest: Bytes::copy_from_slice(&digest(salt, content)),
        media_type: media_type.to_owned(),
    }
}

/// Whether `commitment` is one to `content` under `salt`.
#[must_use]
pub fn opens(commitment: &v1::Commitment, salt: &Salt, content: &[u8]) -> bool {
    commitment.digest == digest(salt, content)[..]
}

fn digest(salt: &Salt, content: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTENT_CONTEXT);
    hasher.update(&salt.0);
    hasher.update(content);
    *hasher.finalize().as_bytes()
}
