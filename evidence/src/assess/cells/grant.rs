//! The cells of grants.

use bytes::Bytes;
use deed_proto::v1;

/// A grant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Grant {
    /// Its leaf.
    #[prost(uint64, tag = "1")]
    pub leaf: u64,
    /// 16 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub task: Bytes,
    /// The producer that may act.
    #[prost(string, tag = "3")]
    pub subject: String,
    /// 16 bytes, or empty for any key.
    #[prost(bytes = "bytes", tag = "4")]
    pub subject_key: Bytes,
    /// 0 for at once.
    #[prost(int64, tag = "7")]
    pub not_before_us: i64,
    /// Itself excluded.
    #[prost(int64, tag = "8")]
    pub expires_us: i64,
    /// 0 for any number.
    #[prost(uint64, tag = "9")]
    pub uses: u64,
    /// Bound on the sum of amounts.
    #[prost(int64, optional, tag = "10")]
    pub minor_units: Option<i64>,
    /// Its currency.
    #[prost(string, tag = "11")]
    pub currency: String,
    /// Leaf hash of the parent; empty for a root grant.
    #[prost(bytes = "bytes", tag = "12")]
    pub parent: Bytes,
    /// Leaf of the parent.
    #[prost(uint64, optional, tag = "13")]
    pub parent_leaf: Option<u64>,
    /// 1 for a root grant.
    #[prost(uint32, tag = "14")]
    pub depth: u32,
    /// `Active` or `Pending` at first; what time decides is worked out when asked.
    #[prost(enumeration = "v1::GrantState", tag = "15")]
    pub state: i32,
    /// Proven if an authority signed the root, and everybody's key what they delegated.
    #[prost(enumeration = "v1::LayerState", tag = "16")]
    pub rooted: i32,
    /// Leaf of GrantAccepted.
    #[prost(uint64, optional, tag = "17")]
    pub accepted_leaf: Option<u64>,
    /// True if the acceptance was signed.
    #[prost(bool, tag = "18")]
    pub accepted_signed: bool,
    /// Uses charged.
    #[prost(uint64, tag = "19")]
    pub uses_spent: u64,
    /// Amount charged.
    #[prost(int64, tag = "20")]
    pub amount_spent: i64,
    /// Leaf of the Revocation.
    #[prost(uint64, optional, tag = "21")]
    pub revoked_leaf: Option<u64>,
    /// Key that signed it; 16 bytes, or empty. An authority's is not looked at again.
    #[prost(bytes = "bytes", tag = "22")]
    pub issuer_key: Bytes,
    /// Effective time at its leaf.
    #[prost(int64, tag = "23")]
    pub at_us: i64,
    /// Key that signed the acceptance; 16 bytes, or empty.
    #[prost(bytes = "bytes", tag = "24")]
    pub accepted_key: Bytes,
    /// Effective time at the acceptance.
    #[prost(int64, tag = "25")]
    pub accepted_at_us: i64,
}

/// The scope of a grant. It never changes, so that charging a use to the grant does not write it again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    /// Patterns.
    #[prost(string, repeated, tag = "1")]
    pub actions: Vec<String>,
    /// Patterns.
    #[prost(string, repeated, tag = "2")]
    pub resources: Vec<String>,
    /// Producers that may carry out what is cleared under it.
    #[prost(string, repeated, tag = "3")]
    pub gateways: Vec<String>,
}

/// Grants that stand for one outside token: at most `SHARED_MAX`, the best founded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrantList {
    /// The grants, in order of their leaves.
    #[prost(message, repeated, tag = "1")]
    pub grants: Vec<GrantName>,
}

/// A grant that stands for an outside token.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GrantName {
    /// Its leaf hash.
    #[prost(bytes = "bytes", tag = "1")]
    pub hash: Bytes,
    /// 2 for an authority's, 1 for one that a registered key signed, 0 for one that nobody did.
    #[prost(uint32, tag = "2")]
    pub rank: u32,
    /// Its leaf.
    #[prost(uint64, tag = "3")]
    pub leaf: u64,
    /// Its task; 16 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub task: Bytes,
}
