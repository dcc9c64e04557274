//! The cells of tasks, and of the keys that spoke in them.

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::Hash;

use crate::assess::digest;

/// A task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Task {
    /// Leaf of TaskOpened.
    #[prost(uint64, optional, tag = "1")]
    pub opened_leaf: Option<u64>,
    /// `v1::RiskTier`.
    #[prost(enumeration = "v1::RiskTier", tag = "2")]
    pub tier: i32,
    /// 0 for none.
    #[prost(int64, tag = "3")]
    pub deadline_us: i64,
    /// The proof of the opening.
    #[prost(enumeration = "v1::LayerState", tag = "4")]
    pub opened: i32,
    /// The controller of the key that opened it; empty for an authority, and if nobody signed.
    #[prost(string, tag = "5")]
    pub opened_by: String,
    /// `v1::TaskState`.
    #[prost(enumeration = "v1::TaskState", tag = "6")]
    pub state: i32,
    /// Leaf of TaskClosed; none if its deadline ended it.
    #[prost(uint64, optional, tag = "7")]
    pub closed_leaf: Option<u64>,
    /// Effective time.
    #[prost(int64, tag = "8")]
    pub closed_at_us: i64,
    /// Entries so far.
    #[prost(uint64, tag = "9")]
    pub count: u64,
    /// Running digest over them; 32 bytes, written over in place.
    #[prost(bytes = "vec", tag = "10")]
    pub digest: Vec<u8>,
    /// Running digest over findings and moves; 32 bytes, likewise.
    #[prost(bytes = "vec", tag = "11")]
    pub assessment: Vec<u8>,
    /// Its newest entry.
    #[prost(uint64, tag = "12")]
    pub last_leaf: u64,
    /// Its newest TaskReceipt.
    #[prost(uint64, optional, tag = "13")]
    pub receipt_leaf: Option<u64>,
    /// Findings so far.
    #[prost(uint64, tag = "14")]
    pub findings: u64,
    /// Intents so far.
    #[prost(uint64, tag = "15")]
    pub acts: u64,
    /// Intents without an Outcome whose effects were seen; at most 64.
    #[prost(uint64, repeated, tag = "16")]
    pub seen_open: Vec<u64>,
    /// Keys that spoke in it: the first 64. Others have cells of their own.
    #[prost(message, repeated, tag = "17")]
    pub keys: Vec<KeyActivity>,
    /// Its first entry.
    #[prost(uint64, tag = "18")]
    pub first_leaf: u64,
    /// Producer of TaskOpened.
    #[prost(string, tag = "19")]
    pub opener: String,
    /// Key that signed TaskOpened; 16 bytes, or empty. An authority's is not looked at again.
    #[prost(bytes = "bytes", tag = "20")]
    pub opener_key: Bytes,
    /// Effective time at TaskOpened.
    #[prost(int64, tag = "21")]
    pub opened_at_us: i64,
}

impl Task {
    /// Takes an entry into the running digest.
    pub(in crate::assess) fn add_entry(&mut self, leaf_hash: &Hash) {
        advance(&mut self.digest, |h| digest::entries(h, leaf_hash));
        self.count += 1;
    }

    /// Takes an event into the assessment digest.
    pub(in crate::assess) fn note(&mut self, event: &digest::Event) {
        advance(&mut self.assessment, |a| digest::assessment(a, event));
        // Every Intent moves once at its own leaf, when it is judged first.
        if let digest::Event::Intent { leaf, intent, .. } = event
            && leaf == intent
        {
            self.acts += 1;
        }
    }
}

fn advance(digest: &mut Vec<u8>, next: impl FnOnce(&Hash) -> Hash) {
    let before = Hash::try_from(&digest[..]).unwrap_or(digest::START);
    digest.clear();
    digest.extend_from_slice(next(&before).as_bytes());
}

/// The last statement of a key in a task.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyActivity {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its last statement there.
    #[prost(uint64, tag = "2")]
    pub last_leaf: u64,
    /// Effective time then.
    #[prost(int64, tag = "3")]
    pub last_at_us: i64,
}

/// A count.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Count {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub count: u32,
}

/// A task that a key spoke in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyTask {
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub task: Bytes,
}

/// The tasks of a compromised key that are left to be looked at, from the newest to the oldest.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Sweep {
    /// Leaf of the KeyRevoked.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// Since when somebody else may have had the key.
    #[prost(int64, tag = "2")]
    pub since_us: i64,
    /// So many of its tasks are still to be looked at.
    #[prost(uint32, tag = "3")]
    pub left: u32,
    /// The time at which the next ones are looked at.
    #[prost(int64, tag = "4")]
    pub due_us: i64,
}
