//! Faults that a replay finds.

use thiserror::Error;

use crate::{
    KeyId, Micros, Sequence, WireError,
    batch::{BatchError, PathError},
    entry::EntryError,
    genesis::GenesisError,
    policy::UnreadablePolicy,
    session,
    signature::SignatureError,
    trust::{ChainError, SpeakerRefusal, TrustRefusal},
};

/// The first entry that is not in place.
#[derive(Debug, Error)]
#[error("leaf {leaf}: {fault}")]
pub struct ReplayError {
    /// Its leaf; one past the last leaf if something is missing at the end.
    pub leaf: u64,
    /// The fault.
    #[source]
    pub fault: Box<Fault>,
}

impl ReplayError {
    /// Makes errors of the faults at a leaf.
    pub(super) fn at(leaf: u64) -> impl Fn(Fault) -> Self {
        move |fault| Self {
            leaf,
            fault: Box::new(fault),
        }
    }
}

/// A fault of an entry.
#[derive(Debug, Error)]
pub enum Fault {
    /// The first entry is no genesis entry.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// It cannot be read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Its payload cannot be read, or does not fit the entry.
    #[error(transparent)]
    Statement(#[from] WireError),
    /// The caller left entries out.
    #[error("leaf {wanted} comes next")]
    Order {
        /// The leaf that comes next.
        wanted: u64,
    },
    /// A ledger has one.
    #[error("a second genesis entry")]
    SecondGenesis,
    /// It is not said here.
    #[error("a statement of another ledger")]
    OtherLedger,
    /// Nobody is its author.
    #[error("an author that this version does not record")]
    NotAnAuthor,
    /// The rules in force do not have such entries.
    #[error("{body} before the rules that take it are in force")]
    BeyondRules {
        /// The body's name.
        body: &'static str,
    },
    /// A form that the rules in force refuse.
    #[error("{0}")]
    Breach(crate::statement::Breach),
    /// A batch lies behind its manifest without a hole.
    #[error("stands between a manifest and its batch")]
    InsideBatch,
    /// A batched statement without a batch.
    #[error("no manifest covers it")]
    NoManifest,
    /// The batch says that other principals delivered parts of it.
    #[error("another principal leaf than its manifest's")]
    PrincipalLeaf,
    /// Parts of a batch were received at different times.
    #[error("another receive time than its manifest's")]
    BatchTime,
    /// The ledger ends inside of a batch.
    #[error("the batch of leaf {manifest} has {wanted} statements, {found} are there")]
    BatchCut {
        /// Leaf of the manifest.
        manifest: u64,
        /// Statements found.
        found: usize,
        /// As the manifest says.
        wanted: u32,
    },
    /// The batch does not fit its manifest.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batched statement does not lead to its manifest's signature.
    #[error("its batch proof: {0}")]
    BatchPath(Box<PathError>),
    /// The trust statements do not hang together.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A trust statement that is in the log and not in the chain that was given.
    #[error("the server's chain of trust statements leaves it out")]
    TrustLeftOut,
    /// It must be signed.
    #[error("the signature is missing")]
    SignatureMissing,
    /// Nobody registered the key.
    #[error("key {key} is not registered")]
    KeyUnknown {
        /// The key.
        key: KeyId,
    },
    /// The signature does not hold.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Its author does not speak for the producer.
    #[error(transparent)]
    Speaker(#[from] SpeakerRefusal),
    /// Its session does not take it.
    #[error(transparent)]
    Session(#[from] session::Refusal),
    /// Times do not go back: it says that it was received long before what stands before it.
    #[error(
        "was received at {received_at} us, long before {effective_time} us, when what stands before it was there"
    )]
    Late {
        /// As the entry says.
        received_at: Micros,
        /// The highest receive time before it.
        effective_time: Micros,
    },
    /// Its place in its session is taken.
    #[error("sequence {sequence} again")]
    Again {
        /// The sequence.
        sequence: Sequence,
    },
    /// The trust statements before it forbid it.
    #[error(transparent)]
    Trust(#[from] TrustRefusal),
    /// A trust statement is missing, or another ledger's.
    #[error("does not link to the trust statement before it, which is leaf {wanted}")]
    TrustLink {
        /// Leaf of the one before.
        wanted: u64,
    },
    /// This build cannot say what it comes to. No fault of the log.
    #[error(transparent)]
    PolicyUnreadable(#[from] UnreadablePolicy),
    /// An entry is missing that the entries before call for.
    #[error("the ledger left out the {body} that belongs here")]
    LeftOut {
        /// The body's name.
        body: &'static str,
    },
    /// The ledger's entry does not follow from the entries before it.
    #[error("the {body} is not the one that the entries before it give")]
    False {
        /// The body's name.
        body: &'static str,
    },
    /// Nothing calls for it.
    #[error("nothing before it calls for a {body} here")]
    Uncalled {
        /// The body's name.
        body: &'static str,
    },
    /// This is a defect: what the machine keeps does not read back.
    #[error("the assessment's own record {key} does not read back")]
    Damaged {
        /// Its key in hex.
        key: String,
    },
}
