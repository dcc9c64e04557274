//! The running digests of a task.

use deed_proto::v1::{FindingKind, IntentState, OutcomeState, TaskState};
use deed_tlog::Hash;
use sha2::{Digest as _, Sha256};

/// The beginning of both digests: 32 zero bytes.
pub const START: Hash = Hash::new([0; 32]);

/// A task's running digest after its next entry: SHA256(0x02 || h || leaf hash). The prefix
/// differs from those of leaves and nodes (RFC 6962), and of batch trees.
#[must_use]
pub fn entries(h: &Hash, leaf_hash: &Hash) -> Hash {
    let mut bytes = [0x02; 1 + 32 + 32];
    bytes[1..33].copy_from_slice(h.as_bytes());
    bytes[33..].copy_from_slice(leaf_hash.as_bytes());
    Hash::new(Sha256::digest(bytes).into())
}

/// Something that an assessment found or changed. Integers are big-endian where it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `0x01 || leaf (8) || number (4) || kind (4) || about (8) || contradicts + 1, or 0 (8)`
    Finding {
        /// The leaf that it arose at.
        leaf: u64,
        /// Its number there.
        number: u32,
        /// Its kind.
        kind: FindingKind,
        /// The statement that it is about.
        about: u64,
        /// The entry that it contradicts.
        contradicts: Option<u64>,
    },
    /// `0x02 || leaf (8) || intent leaf (8) || state (4)`
    Intent {
        /// The leaf at which it moved.
        leaf: u64,
        /// The leaf of the Intent.
        intent: u64,
        /// Its state afterwards.
        state: IntentState,
    },
    /// `0x03 || leaf (8) || intent leaf (8) || state (4)`
    Outcome {
        /// The leaf at which it moved.
        leaf: u64,
        /// The leaf of the Intent.
        intent: u64,
        /// Its state afterwards.
        state: OutcomeState,
    },
    /// `0x04 || leaf (8) || state (4)`
    Task {
        /// The leaf at which it moved.
        leaf: u64,
        /// Its state afterwards.
        state: TaskState,
    },
}

/// A task's assessment digest after an event: SHA256(0x03 || a || event).
#[must_use]
pub fn assessment(a: &Hash, event: &Event) -> Hash {
    match *event {
        Event::Finding {
            leaf,
            number,
            kind,
            about,
            contradicts,
        } => {
            let mut event = [0x01; 33];
            event[1..9].copy_from_slice(&leaf.to_be_bytes());
            event[9..13].copy_from_slice(&number.to_be_bytes());
            event[13..17].copy_from_slice(&(kind as i32).to_be_bytes());
            event[17..25].copy_from_slice(&about.to_be_bytes());
            let contradicts = contradicts.map_or(0, |leaf| leaf.saturating_add(1));
            event[25..].copy_from_slice(&contradicts.to_be_bytes());
            after::<33, 66>(a, event)
        }
        Event::Intent {
            leaf,
            intent,
            state,
        } => after::<21, 54>(a, moved(0x02, leaf, intent, state as i32)),
        Event::Outcome {
            leaf,
            intent,
            state,
        } => after::<21, 54>(a, moved(0x03, leaf, intent, state as i32)),
        Event::Task { leaf, state } => {
            let mut event = [0x04; 13];
            event[1..9].copy_from_slice(&leaf.to_be_bytes());
            event[9..].copy_from_slice(&(state as i32).to_be_bytes());
            after::<13, 46>(a, event)
        }
    }
}

fn moved(kind: u8, leaf: u64, intent: u64, state: i32) -> [u8; 21] {
    let mut event = [kind; 21];
    event[1..9].copy_from_slice(&leaf.to_be_bytes());
    event[9..17].copy_from_slice(&intent.to_be_bytes());
    event[17..].copy_from_slice(&state.to_be_bytes());
    event
}

/// SHA256(0x03 || a || event), from one buffer of `ALL` = 33 + `LEN` bytes: for so few, handing them
/// over one by one costs more than hashing them.
fn after<const LEN: usize, const ALL: usize>(a: &Hash, event: [u8; LEN]) -> Hash {
    const { assert!(ALL == 33 + LEN) };
    let mut bytes = [0x03; ALL];
    bytes[1..33].copy_from_slice(a.as_bytes());
    bytes[33..].copy_from_slice(&event);
    Hash::new(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hashlib.
    #[test]
    fn golden() {
        let h = entries(&START, &Hash::new([0x11; 32]));
        assert_eq!(hex::encode(h.as_bytes()), GOLDEN_ENTRIES,);
        let event = Event::Finding {
            leaf: 7,
            number: 1,
            kind: FindingKind::ScopeExceeded,
            about: 6,
            contradicts: Some(0),
        };
        let a = assessment(&START, &event);
        assert_eq!(hex::encode(a.as_bytes()), GOLDEN_FINDING);
        let event = Event::Intent {
            leaf: 7,
            intent: 7,
            state: IntentState::Cleared,
        };
        let a = assessment(&a, &event);
        assert_eq!(hex::encode(a.as_bytes()), GOLDEN_INTENT);
    }

    const GOLDEN_ENTRIES: &str = "a3f1132bffd8af61b107567e3a4ce88ec015505b363b9139a512eb3182fbe968";
    const GOLDEN_FINDING: &str = "788736fb47d2da69df65d7190da4af4a938830686f67b81159f3556cc5a38dba";
    const GOLDEN_INTENT: &str = "095aa87b83df48703af832379651f892c3c6ddf237ff2aa173bddf88a347341a";
}
