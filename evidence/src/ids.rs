//! Newtypes for the words of the field.

use std::{fmt, str::FromStr};

use deed_tlog::Hash;
use thiserror::Error;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            #[must_use]
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes the bytes if there are exactly as many as needed.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

bytes_id!(
    /// A session: 16 bytes, [derived](SessionId::derive) from its producer and a nonce. (Under rules
    /// version 1 the producer chooses it.)
    SessionId,
    16
);
bytes_id!(
    /// A task: 16 bytes, [derived](TaskId::derive) from its opener and a nonce. (Under rules version 1
    /// the opener chooses it.)
    TaskId,
    16
);
bytes_id!(
    /// Bytes that a producer chose to derive an id from: 16, best random ones.
    Nonce,
    16
);
bytes_id!(
    /// SHA-256 of a payload: 32 bytes. Not a leaf hash (no prefix).
    PayloadDigest,
    32
);

bytes_id!(
    /// A producer's or authority's key: the first 16 bytes of SHA-256 of the public key.
    KeyId,
    16
);
bytes_id!(
    /// A legal hold: 16 bytes, chosen by the authority that places it.
    HoldId,
    16
);
bytes_id!(
    /// A commitment's digest: 32 bytes. Names a content.
    CommitmentDigest,
    32
);
bytes_id!(
    /// An authenticated principal, as sessions remember it: the first 16 bytes of SHA-256 of its
    /// name.
    PrincipalHash,
    16
);

impl SessionId {
    /// The id of the session that `producer` opens with `nonce`. Nobody else can open it: the ledger
    /// derives it again, from the producer of the statement that does.
    #[must_use]
    pub fn derive(ledger: LedgerId, producer: &str, nonce: &Nonce) -> Self {
        Self(derived(b"deed/session-id/v1", ledger, producer, nonce))
    }
}

impl TaskId {
    /// The id of the task that `opener` opens with `nonce`. Nobody else can open it.
    #[must_use]
    pub fn derive(ledger: LedgerId, opener: &str, nonce: &Nonce) -> Self {
        Self(derived(b"deed/task-id/v1", ledger, opener, nonce))
    }
}

/// All parts but the last are of a fixed length, so no two inputs have the same bytes.
fn derived(domain: &[u8], ledger: LedgerId, producer: &str, nonce: &Nonce) -> [u8; 16] {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::new()
        .chain_update(domain)
        .chain_update([0])
        .chain_update(ledger.as_bytes())
        .chain_update(nonce.as_bytes())
        .chain_update(producer.as_bytes())
        .finalize()
        .into();
    std::array::from_fn(|at| digest[at])
}

impl KeyId {
    /// The id of a public key.
    #[must_use]
    pub fn of(public_key: &[u8; 32]) -> Self {
        Self(sha256_start(public_key))
    }
}

/// Text that is not 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a key id is written as 32 lower-case hex digits")]
pub struct KeyIdForm;

impl FromStr for KeyId {
    type Err = KeyIdForm;

    fn from_str(text: &str) -> Result<Self, KeyIdForm> {
        let mut bytes = [0; 16];
        // One spelling, as everywhere: upper case is refused.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(KeyIdForm);
        }
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyIdForm)?;
        Ok(Self(bytes))
    }
}

impl PrincipalHash {
    /// The hash of a principal's name.
    #[must_use]
    pub fn of(principal: &str) -> Self {
        Self(sha256_start(principal.as_bytes()))
    }
}

fn sha256_start(bytes: &[u8]) -> [u8; 16] {
    use sha2::Digest as _;
    let digest: [u8; 32] = sha2::Sha256::digest(bytes).into();
    std::array::from_fn(|at| digest[at])
}

impl PayloadDigest {
    /// Hashes a payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(payload).into())
    }
}

/// The leaf hash of a ledger's genesis entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LedgerId(Hash);

impl LedgerId {
    /// Takes a leaf hash as a ledger's id.
    #[must_use]
    pub const fn new(hash: Hash) -> Self {
        Self(hash)
    }

    /// The leaf hash.
    #[must_use]
    pub const fn hash(&self) -> &Hash {
        &self.0
    }

    /// The 32 bytes that statements carry.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A position in a session; the first is 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Sequence(u64);

impl Sequence {
    /// The position that binds a session.
    pub const FIRST: Self = Self(0);

    /// Takes the number as it is.
    #[must_use]
    pub const fn new(sequence: u64) -> Self {
        Self(sequence)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Micros(i64);

impl Micros {
    /// Later than any other.
    pub const MAX: Self = Self(i64::MAX);

    /// Takes the number as it is.
    #[must_use]
    pub const fn new(micros: i64) -> Self {
        Self(micros)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: LedgerId = LedgerId::new(Hash::new([0x11; 32]));
    const NONCE: Nonce = Nonce::new([0x2a; 16]);

    /// Made with another program: printf of the parts, piped into sha256sum.
    #[test]
    fn ids_are_the_beginning_of_a_digest() {
        let producer = "spiffe://example.org/agent/refunds";
        let session = SessionId::derive(LEDGER, producer, &NONCE);
        assert_eq!(session.to_string(), "d4d8a6f8ddf8cd950eb8fd5a129040ae");
        let task = TaskId::derive(LEDGER, producer, &NONCE);
        assert_eq!(task.to_string(), "49d870ec15da0ab7836261af0e8cf179");
    }

    #[test]
    fn every_part_of_it_counts() {
        let id = SessionId::derive(LEDGER, "a:b", &NONCE);
        let others = [
            SessionId::derive(LedgerId::new(Hash::new([0x12; 32])), "a:b", &NONCE),
            SessionId::derive(LEDGER, "a:bc", &NONCE),
            SessionId::derive(LEDGER, "a:b", &Nonce::new([0x2b; 16])),
            SessionId::new(*TaskId::derive(LEDGER, "a:b", &NONCE).as_bytes()),
        ];
        assert!(!others.contains(&id));
    }
}
