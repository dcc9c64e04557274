//! Values of the meta, heads and state families.
//!
//! They are Protobuf messages with the field numbers below, which never change; a change of meaning
//! is a migration. (They use prost's derive and no .proto file, because they never leave this
//! machine.)

use bytes::Bytes;
use deed_evidence::{
    KeyId, PayloadDigest, PrincipalHash, Sequence,
    session::{Binding, Session},
};

/// meta: a ledger.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LedgerRecord {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub origin: String,
    /// Number of the server's derived log key that signs; 0 for the first.
    #[prost(uint32, tag = "4")]
    pub(crate) key_generation: u32,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "5")]
    pub ledger_id: Bytes,
    #[prost(string, tag = "6")]
    pub vkey: String,
    #[prost(bytes = "bytes", tag = "7")]
    pub genesis_entry: Bytes,
    /// The partition that its turns belong to; absent before version 4 of the layout
    /// ([`super::partition`]).
    #[prost(uint32, optional, tag = "8")]
    pub partition: Option<u32>,
}

/// heads: a signed tree head.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeadRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub checkpoint: Bytes,
    /// Effective time of the head's last leaf, in microseconds since 1970, UTC.
    #[prost(int64, tag = "2")]
    pub effective_time_us: i64,
}

/// heads: the newest tree of a ledger. The turn that made it writes it; it is signed when that turn is
/// guarded.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct TreeRecord {
    #[prost(uint64, tag = "1")]
    pub(crate) size: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) root: Bytes,
    /// Effective time of the tree's last leaf, in microseconds since 1970, UTC.
    #[prost(int64, tag = "3")]
    pub(crate) effective_time_us: i64,
}

/// state: a session.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct SessionRecord {
    #[prost(string, tag = "1")]
    pub producer: String,
    #[prost(uint64, tag = "2")]
    pub next: u64,
    /// 32 bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub last_payload: Bytes,
    #[prost(uint64, tag = "4")]
    pub recorded: u64,
    #[prost(uint64, tag = "5")]
    pub skipped: u64,
    #[prost(bool, tag = "6")]
    pub closed: bool,
    /// First sequence of the session's last run.
    #[prost(uint64, tag = "7")]
    pub last_run: u64,
    /// The key that the session is bound to (16 bytes), or else the principal (first 16 bytes of
    /// the SHA-256 of its name); both are empty if it is bound to neither.
    #[prost(bytes = "bytes", tag = "8")]
    pub key_id: Bytes,
    #[prost(bytes = "bytes", tag = "9")]
    pub principal: Bytes,
}

impl SessionRecord {
    pub(crate) fn new(session: &Session, last_run: Sequence) -> Self {
        Self {
            producer: session.producer.clone(),
            next: session.next.get(),
            last_payload: session.last_payload.map_or_else(Bytes::new, |digest| {
                Bytes::copy_from_slice(digest.as_bytes())
            }),
            recorded: session.recorded,
            skipped: session.skipped,
            closed: session.closed,
            last_run: last_run.get(),
            key_id: match &session.bound_to {
                Binding::Key(key) => Bytes::copy_from_slice(key.as_bytes()),
                Binding::Principal(_) | Binding::Nobody => Bytes::new(),
            },
            principal: match &session.bound_to {
                Binding::Principal(hash) => Bytes::copy_from_slice(hash.as_bytes()),
                Binding::Key(_) | Binding::Nobody => Bytes::new(),
            },
        }
    }

    /// Returns `None` if the digest does not have 32 bytes, or the binding not 16.
    pub(crate) fn session(self) -> Option<Session> {
        let bound_to = match (&self.key_id[..], &self.principal[..]) {
            ([], []) => Binding::Nobody,
            (key, []) => Binding::Key(KeyId::new(key.try_into().ok()?)),
            ([], principal) => Binding::Principal(PrincipalHash::new(principal.try_into().ok()?)),
            _ => return None,
        };
        Some(Session {
            bound_to,
            last_payload: Some(PayloadDigest::from_slice(&self.last_payload)?),
            producer: self.producer,
            next: Sequence::new(self.next),
            recorded: self.recorded,
            skipped: self.skipped,
            closed: self.closed,
        })
    }
}

/// state: a run. It says that the sequences `first..first + count` of a session are in the leaves
/// `first_leaf..first_leaf + count`; the first sequence is in the key.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct RunRecord {
    #[prost(uint64, tag = "1")]
    pub first_leaf: u64,
    #[prost(uint64, tag = "2")]
    pub count: u64,
}

/// state: a trust statement.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct TrustRecord {
    /// Effective time at the statement's leaf, in microseconds since 1970, UTC.
    #[prost(int64, tag = "1")]
    pub effective_time_us: i64,
}
