//! Commitments: salted digests of contents that are not in the log.
//!
//! digest = BLAKE3 derive-key("deed.v1 content commitment", salt || bytes). The salt keeps
//! short contents from being guessed; it is derived, so that sending again gives the same
//! bytes.

use bytes::Bytes;
use deed_proto::v1;

use crate::{CommitmentDigest, Sequence, SessionId};

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

    /// Takes a salt as it travels.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
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
        digest: Bytes::copy_from_slice(digest_of(salt, content).as_bytes()),
        media_type: media_type.to_owned(),
    }
}

/// Returns true if `commitment` is one to `content` under `salt`.
#[must_use]
pub fn opens(commitment: &v1::Commitment, salt: &Salt, content: &[u8]) -> bool {
    commitment.digest == digest_of(salt, content).as_bytes()[..]
}

/// The digest of a commitment to `content`.
#[must_use]
pub fn digest_of(salt: &Salt, content: &[u8]) -> CommitmentDigest {
    let mut committer = Committer::new(salt);
    committer.update(content);
    committer.finalize()
}

/// Commits to a content that comes in pieces.
#[derive(Clone)]
pub struct Committer(blake3::Hasher);

impl Committer {
    /// Begins with the salt.
    #[must_use]
    pub fn new(salt: &Salt) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTENT_CONTEXT);
        hasher.update(&salt.0);
        Self(hasher)
    }

    /// Takes the next bytes; how they are cut makes no difference.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything so far.
    #[must_use]
    pub fn finalize(&self) -> CommitmentDigest {
        CommitmentDigest::new(*self.0.finalize().as_bytes())
    }
}

impl std::fmt::Debug for Committer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The state holds the salt.
        f.write_str("Committer(..)")
    }
}
