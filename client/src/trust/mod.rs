//! The trusted state of a ledger: pins, keys, heads, evidence.
//!
//! A ledger is pinned at first use: its log key and its id, checked against its genesis entry and
//! that entry's inclusion. From then on every head is compared with what was trusted before, and
//! signed by the pinned key or by one that it, or a successor of it, has handed over to.

mod evidence;
mod files;
mod keys;
mod pin;
mod store;
mod unlinked;

pub use evidence::{ForkEvidence, ForkKind};
pub use keys::KnownKeys;
pub use pin::Pin;
pub use store::{Advance, StateDir, StoreError, TrustStore};
pub(crate) use unlinked::{Contradiction, Refused, UnlinkedHeads};

use std::path::PathBuf;

use deed_evidence::{LedgerId, trust::HeadError};
use deed_tlog::{CheckpointError, VerifyError};
use thiserror::Error;

/// The reason why a head, key or genesis entry is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Not signed by the ledger's key, of another origin, or malformed.
    #[error("the server's tree head is not one of {origin}: {source}")]
    Checkpoint {
        /// The pinned origin.
        origin: String,
        /// The reason.
        source: CheckpointError,
    },
    /// Signed by none of the keys that are known, and none of them has handed over.
    #[error(
        "the server's tree head of {origin} is signed by a log key that is not trusted; trusted is \
         {trusted}, and the server does not show that it has handed over to another. Do not use this \
         server. If the ledger's owner confirms the other key, remove what is kept of {origin} in the \
         state directory to trust anew"
    )]
    UnknownLogKey {
        /// The pinned origin.
        origin: String,
        /// The newest key that is trusted.
        trusted: String,
    },
    /// Signed by a key of the ledger that does not sign trees of that size.
    #[error("the server's tree head is not one of {origin}: {source}")]
    LogKey {
        /// The pinned origin.
        origin: String,
        /// The reason.
        source: HeadError,
    },
    /// A head that is shown for the handover to another key, and is none.
    #[error(
        "the server says that another log key of {origin} took over from {trusted}, but shows no head \
         that this key signed and in which that is recorded: {reason}. Do not use this server. If the \
         ledger's owner confirms the other key, remove what is kept of {origin} in the state directory \
         to trust anew"
    )]
    NotHandedOver {
        /// The pinned origin.
        origin: String,
        /// The newest key that is trusted.
        trusted: String,
        /// The reason.
        reason: String,
    },
    /// Entries that do not show that a key took over by an authority's will.
    #[error("what the server shows of the ledger's log keys does not hold: {reason}")]
    LogKeys {
        /// The reason.
        reason: String,
    },
    /// The genesis entry cannot be read.
    #[error("the server's genesis entry does not make sense: {reason}")]
    Genesis {
        /// The reason.
        reason: String,
    },
    /// The server's description of the ledger differs from its genesis entry.
    #[error("the server says that the {what} is {claimed}, its genesis entry says {genesis}")]
    Contradiction {
        /// The field.
        what: &'static str,
        /// The value that the server claims.
        claimed: String,
        /// The value in the genesis entry.
        genesis: String,
    },
    /// Another ledger than the one that was trusted so far.
    #[error(
        "this is not the ledger that was trusted before: its {what} is {found}, trusted is \
         {pinned}. If the ledger was made anew on purpose, remove {remove}"
    )]
    OtherLedger {
        /// The field.
        what: &'static str,
        /// Found now.
        found: String,
        /// Trusted.
        pinned: String,
        /// The file to remove to forget it.
        remove: String,
    },
    /// The key is not the one that was demanded.
    #[error("the ledger's log key is {found}, demanded is {wanted}")]
    OtherKey {
        /// Found.
        found: String,
        /// Given by the user.
        wanted: String,
    },
    /// The genesis entry is not in the tree.
    #[error("the genesis entry of {ledger_id} is not leaf 0 of the server's tree: {reason}")]
    GenesisNotIncluded {
        /// The ledger.
        ledger_id: LedgerId,
        /// The reason.
        reason: String,
    },
    /// Two signed heads that cannot both be true.
    #[error(
        "{}. Evidence is kept in {}",
        fork_message(*kind, *old_size, *new_size),
        kept_in.as_ref().map_or("memory only".to_owned(), |path| path.display().to_string())
    )]
    Fork {
        /// The kind of contradiction.
        kind: ForkKind,
        /// Size of the smaller head.
        old_size: u64,
        /// Size of the larger one.
        new_size: u64,
        /// The evidence file.
        kept_in: Option<PathBuf>,
    },
    /// The server does not prove what it must be able to prove.
    #[error("the server gives no proof that size {old_size} leads to size {new_size}")]
    NoProof {
        /// Size of the smaller head.
        old_size: u64,
        /// Size of the larger one.
        new_size: u64,
    },
    /// A head that was the newest once, shown as the newest.
    #[error(
        "the server shows an older tree than it has shown before: its newest head has size \
         {found}, trusted is size {trusted}. It was restored from an older copy, or hides entries"
    )]
    Stale {
        /// Size of the head that it shows.
        found: u64,
        /// Size of the head that was trusted before, and named in the request.
        trusted: u64,
    },
    /// A proof that does not hold, about something that is not signed.
    #[error("{what} does not hold: {source}")]
    Proof {
        /// The subject of the proof.
        what: String,
        /// The reason.
        source: VerifyError,
    },
    /// A batched statement that does not lead to a signature.
    #[error("the server's batch proof does not hold: {reason}")]
    BatchProof {
        /// The reason.
        reason: String,
    },
    /// A content that is not what was committed to.
    #[error("the server's content does not open commitment {commitment}: {reason}")]
    Content {
        /// The commitment's digest.
        commitment: String,
        /// The reason.
        reason: &'static str,
    },
    /// Trust statements that do not hang together.
    #[error("the server's trust chain does not hold: {reason}")]
    TrustChain {
        /// The reason.
        reason: String,
    },
    /// A task's report that its own entries contradict.
    #[error("the server's report of the task does not hold: {reason}")]
    Task {
        /// The reason.
        reason: String,
    },
    /// An entry that is not what was searched for.
    #[error("the server answers leaf {index} to the search, but {reason}")]
    Found {
        /// The leaf.
        index: u64,
        /// The reason.
        reason: String,
    },
    /// An entry that nobody could have recorded.
    #[error("the entry at leaf {index} does not make sense: {reason}")]
    Entry {
        /// The leaf.
        index: u64,
        /// The reason.
        reason: String,
    },
    /// A proof that is malformed.
    #[error("{what} is malformed")]
    MalformedProof {
        /// The kind of proof.
        what: &'static str,
    },
    /// A head of another size than asked for.
    #[error("the server signs a head of size {found}, asked was {wanted}")]
    OtherSize {
        /// Found.
        found: u64,
        /// Asked for.
        wanted: u64,
    },
}

/// Returns the message for two heads that are signed. Without a proof it is not known to be a fork.
fn fork_message(kind: ForkKind, old_size: u64, new_size: u64) -> String {
    match kind {
        ForkKind::NoProof => format!(
            "size {old_size} and size {new_size} of the ledger are both signed, and no server proves that \
             one continues the other: it was put back to an older copy, or has forked"
        ),
        kind => format!(
            "the ledger has forked: {kind}; size {old_size} and size {new_size} are both signed"
        ),
    }
}

impl TrustError {
    /// Returns the error for a head of the pinned ledger that these keys did not open.
    pub(crate) fn of_head(error: HeadError, pin: &Pin, known: &KnownKeys) -> Self {
        let origin = pin.origin.to_string();
        if error.is_unknown_key() {
            let trusted = known.keys().newest().key.to_string();
            return Self::UnknownLogKey { origin, trusted };
        }
        match error {
            HeadError::Checkpoint(source) => Self::Checkpoint { origin, source },
            source => Self::LogKey { origin, source },
        }
    }
}
