//! Terms, as the index stores them.

use deed_evidence::statement::Term;
use deed_proto::v1::FindingKind;
use sha2::{Digest as _, Sha256};

/// Bytes of a term's hash that the index keeps; the first of them is the bucket.
pub(super) const HASH_BYTES: usize = 8;

/// Numbers of the kinds of terms. They are hashed into the index: other numbers would make another
/// index.
mod kind {
    pub(super) const TASK: u8 = 1;
    pub(super) const AGENT: u8 = 2;
    pub(super) const RESOURCE: u8 = 3;
    pub(super) const ACTION: u8 = 4;
    pub(super) const TRACE: u8 = 5;
    pub(super) const CORRELATION: u8 = 6;
    pub(super) const FINDING: u8 = 7;
}

/// The index's key for a term: the beginning of SHA-256(kind || value).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TermHash(pub(super) [u8; HASH_BYTES]);

impl TermHash {
    pub(super) fn of(term: &Term<'_>) -> Self {
        match *term {
            Term::Task(task) => Self::over(kind::TASK, &[task]),
            Term::Agent(agent) => Self::over(kind::AGENT, &[agent]),
            Term::Resource(resource) => Self::over(kind::RESOURCE, &[resource]),
            Term::Action(action) => Self::over(kind::ACTION, &[action]),
            Term::Trace(trace) => Self::over(kind::TRACE, &[trace]),
            // No kind contains a zero byte.
            Term::Correlation { kind, value } => {
                Self::over(kind::CORRELATION, &[kind, b"\0", value])
            }
        }
    }

    pub(super) fn of_finding(finding: FindingKind) -> Self {
        Self::over(kind::FINDING, &[&(finding as i32).to_be_bytes()])
    }

    fn over(kind: u8, value: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new_with_prefix([kind]);
        for part in value {
            hasher.update(part);
        }
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&hasher.finalize()[..HASH_BYTES]);
        Self(hash)
    }

    pub(super) fn bucket(self) -> u8 {
        self.0[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are on disk; a change would make every index wrong.
    #[test]
    fn golden_hashes() {
        let correlation = Term::Correlation {
            kind: b"order",
            value: b"17",
        };
        for (hash, golden) in [
            (
                TermHash::of(&Term::Task(&[9; 16])),
                "\x01".to_owned() + &"\x09".repeat(16),
            ),
            (TermHash::of(&Term::Agent(b"a")), "\x02a".to_owned()),
            (TermHash::of(&Term::Resource(b"a")), "\x03a".to_owned()),
            (TermHash::of(&Term::Action(b"a")), "\x04a".to_owned()),
            (TermHash::of(&Term::Trace(b"a")), "\x05a".to_owned()),
            (TermHash::of(&correlation), "\x06order\x0017".to_owned()),
            (
                TermHash::of_finding(FindingKind::SequenceGap),
                "\x07\0\0\0\x18".to_owned(),
            ),
        ] {
            assert_eq!(
                hash.0[..],
                Sha256::digest(golden.as_bytes())[..8],
                "{golden:?}"
            );
        }
        assert_eq!(
            hex::encode(TermHash::of(&Term::Agent(b"a")).0),
            "f5fcb5a1e3534de6"
        );
    }
}
