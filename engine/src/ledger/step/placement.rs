//! The placement of a payload: its leaf, or the reason why it has none.

use deed_evidence::{
    CommitmentDigest, Micros, Sequence, WireError,
    assess::{AHEAD_MAX_US, cells::CellKey},
    entry::{EntryError, TrustLink},
    policy::UnreadablePolicy,
    session,
    statement::Breach,
    trust::{SpeakerRefusal, TrustRefusal},
};
use deed_tlog::Hash;
use thiserror::Error;

use crate::store::{StoreError, recover::LoadError};

/// The result of placing one admitted payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    Recorded {
        leaf: u64,
    },
    /// A trust statement, whose entry the step has completed.
    Linked(RecordedLeaf),
    Duplicate(RecordedLeaf),
    /// Another statement was signed for this sequence before. This one is recorded at `leaf` as
    /// evidence of that, and not as the session's statement.
    Equivocation {
        leaf: u64,
        expected: Sequence,
    },
    Refused(RejectReason),
    /// The payload must be sent again, to be admitted anew: it was received long before the newest
    /// entry, or its policy was not compiled at admission.
    Late,
}

/// A leaf whose entry is not the one that admission wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedLeaf {
    pub leaf: u64,
    pub leaf_hash: Hash,
    pub received_at: Micros,
    pub(crate) principal_leaf: Option<u64>,
    pub(crate) previous_trust: Option<TrustLink>,
}

/// The reason why a payload is not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RejectReason {
    #[error(transparent)]
    Session(#[from] session::Refusal),
    #[error(transparent)]
    Speaker(#[from] SpeakerRefusal),
    #[error(transparent)]
    Trust(#[from] TrustRefusal),
    /// The ledger's rules do not have this body yet.
    #[error(
        "the ledger follows rules version {found}, and this body needs {wanted}; an authority \
         brings it there with `deed policy set`"
    )]
    RulesVersion { found: u32, wanted: u32 },
    /// The deadline is too far away.
    #[error(
        "a deadline may lie {} days ahead at most: {latest} (microseconds, UTC), and this is {found}; \
         name an earlier one, or none",
        AHEAD_MAX_US / 86_400_000_000
    )]
    DeadlineFar { found: Micros, latest: Micros },
    /// The deadline needs a timer, and the speaker has used up its timers.
    #[error(
        "{held} deadlines are pending of what this {speaker} has said, and it may hold {share} now; \
         send Outcomes of Intents and TaskClosed of tasks that have ended, or name no deadline"
    )]
    DeadlinesMany {
        speaker: &'static str,
        held: u64,
        share: u64,
    },
    /// The statement was admitted when nothing was assessed, and cannot be parsed.
    #[error("what the statement says cannot be read: {0}")]
    Unread(WireError),
    /// An Intent, Decision or Approval under a policy that this build cannot read.
    #[error(transparent)]
    Policy(#[from] UnreadablePolicy),
    /// The rules in force refuse the statement's form.
    #[error("{}", .0.rule())]
    Form(Breach),
    /// The Erasure came in a request for which nobody looks up what it would erase.
    #[error("an Erasure is sent with EraseContent, which also erases")]
    ErasureElsewhere,
    /// The Erasure names content that is erased already.
    #[error("content {content} was erased by the entry at leaf {leaf}")]
    ContentErased {
        content: CommitmentDigest,
        leaf: u64,
    },
    /// The statement brings erased content back.
    #[error(
        "content {content} was erased by the entry at leaf {leaf}; send the statement without it"
    )]
    AttachmentErased {
        content: CommitmentDigest,
        leaf: u64,
    },
    /// The Erasure names content that is not held.
    #[error("no content is held under the commitment {content}")]
    ContentUnknown { content: CommitmentDigest },
    /// The statement belongs to a batch that cannot be recorded whole; `culprit` is the envelope
    /// with the reason.
    #[error("the batch is recorded whole or not at all; see envelope {culprit}")]
    Batch { culprit: usize },
}

/// The reason why a step cannot go on: the records contradict each other, or the server stops.
#[derive(Debug, Error)]
pub enum StepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("leaf {leaf} is not an entry: {reason}")]
    Entry { leaf: u64, reason: String },
    #[error("the entry of an Intent: {0}")]
    Intent(EntryError),
    #[error("cell {key:?} of the assessment is damaged")]
    Cell { key: CellKey },
    /// Nothing is wrong: the turn was given up in the middle of a batch, and its state must be
    /// dropped.
    #[error("the turn was given up, for the server stops")]
    Interrupted,
    /// Nothing is wrong: the turn rests on one that is void, and so does this state.
    #[error("the turn was given up, for another writer's turn came first")]
    Superseded,
    #[error("the ledger cannot be read again: {0}")]
    Restore(String),
}

impl From<LoadError> for StepError {
    fn from(cause: LoadError) -> Self {
        Self::Restore(cause.to_string())
    }
}

impl From<EntryError> for StepError {
    fn from(cause: EntryError) -> Self {
        Self::Intent(cause)
    }
}

impl StepError {
    pub(super) fn malformed(leaf: u64, error: &EntryError) -> Self {
        let reason = error.to_string();
        Self::Entry { leaf, reason }
    }
}
