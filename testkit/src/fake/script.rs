//! What a fake server is told to do wrong, and what it saw.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use deed_evidence::SessionId;
use deed_proto::v1;
use tonic::Code;

/// The answers to reads that ask for a tree of at least some size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lag {
    /// It says that it is behind if its tree is smaller, without having waited.
    #[default]
    None,
    /// It knows no `min_size`.
    Ignored,
    /// It says that it is behind, however large its tree is.
    Always,
    /// The same, to reads that ask for no size too.
    Everything,
    /// The same, but proofs of consistency are given: copies of different age stand behind one address.
    AllButProofs,
    /// All reads fail.
    Down,
}

/// What a fake does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    None,
    /// Receipts name another leaf hash.
    LeafHash,
    /// Receipts name a leaf beyond the tree.
    LeafBeyond,
    /// Inclusion proofs have one hash changed.
    Inclusion,
    /// Inclusion proofs are left out.
    NoInclusion,
    /// Consistency proofs have one hash changed.
    Consistency,
    /// Consistency proofs are left out.
    NoConsistency,
    /// Heads are signed by another key of the same name.
    Signature,
    /// The head that hands over to another log key is signed with the new key alone.
    NoHandover,
    /// Nothing is told of log keys.
    NoLogKeys,
    /// All heads are signed with the first log key.
    Retired,
    /// LedgerInfo names another log key.
    Vkey,
    /// LedgerInfo names another ledger id.
    LedgerId,
    /// LedgerInfo's genesis entry is not leaf 0.
    Genesis,
    /// One result too few.
    Results,
    /// Answers to appends carry the head before them.
    StaleHead,
    /// Entries have their last byte changed.
    Entry,
    /// The newest head is the one before the last leaf, whatever the client knows.
    OldHead,
    /// Consistency proofs are refused, with INTERNAL.
    NoConsistencyRpc,
    /// No rpc is answered; streams are opened and stay empty.
    Silence,
    /// Watches are refused as being of a head beyond the tree.
    WatchOutOfRange,
    /// Watches end after their first head.
    ShortWatch,
    /// Trust statements link to the genesis entry, whatever came between.
    PreviousTrust,
    /// Receipts of trust statements name another link than their entry has.
    ReceiptTrust,
    /// The trust chain lacks its second entry.
    TrustOmitted,
    /// The trust chain begins with its second entry.
    TrustWithoutGenesis,
    /// A leaf stands between a batch manifest and its statements.
    Spliced,
    /// Batch proofs name the leaf after the manifest.
    ManifestIndex,
    /// Batch proofs have one hash of the path changed.
    BatchPath,
    /// Sessions are said to be one statement longer.
    SessionEnd,
    /// Contents have one byte changed.
    ContentByte,
    /// Contents lack their last byte.
    ContentShort,
    /// Contents have a byte too many.
    ContentLong,
    /// Contents come with another salt.
    ContentSalt,
    /// Contents are said to be erased by the genesis entry.
    ErasureLeaf,
    /// Stories of tasks are for others to read.
    MayNotRead,
    /// Receipts have another digest.
    ReceiptDigest,
    /// Receipts are left out of a task's story, which is made to fit.
    ReceiptHidden,
    /// A task's digest is another one.
    TaskDigest,
    /// A task is said to have 530,000 entries, and its story tells none of them.
    TaskLong,
    /// A task's second entry is left out of its story.
    TaskOmitted,
    /// The same, and number and digest are made to fit.
    TaskRewritten,
    /// A task's acts point to its first entry.
    TaskPointer,
    /// The receipt that was asked for is the task's first entry.
    OtherReceipt,
    /// Everything is found, whatever was searched for.
    SearchOther,
    /// A search is said to have looked at leaves that do not exist yet.
    SearchBeyond,
    /// Proofs of consistency come with a head that nobody has signed.
    ProofHead,
    /// All findings are told, whichever were asked for.
    FindingsOther,
}

/// The fate of one append request, whatever is true.
#[derive(Debug, Clone, Copy)]
pub enum Whim {
    Fair,
    /// Everything in it is said to be refused, and this sequence to be wanted.
    Refuse {
        record: bool,
        expected: Option<u64>,
    },
    /// This status is all that comes.
    Lose {
        record: bool,
        code: Code,
    },
}

/// What a fake does, and what it saw.
#[derive(Default)]
pub struct Script {
    pub lie: Lie,
    /// The next streams are refused with RESOURCE_EXHAUSTED and this delay.
    pub exhausted: Vec<Duration>,
    /// The next requests (counted from now) that are refused item by item as not being the next.
    pub forget: Vec<bool>,
    /// Every request is refused like that.
    pub forget_always: bool,
    /// Two histories: each request is answered from the one that its base belongs to.
    pub two_histories: bool,
    /// Sequences that are rejected for good.
    pub unwanted: Vec<u64>,
    /// Erasures are refused with PERMISSION_DENIED and this message.
    pub erasure_refused: Option<&'static str>,
    /// What is said of each Intent that is recorded.
    pub assessed: Option<v1::Assessed>,
    /// Where every Intent stands, one after the other.
    pub standings: Vec<v1::ClearanceResponse>,
    /// Acts that are told in place of those that follow from the entries.
    pub acts: Vec<v1::ActInfo>,
    /// The answers to reads that name a `min_size`.
    pub lag: Lag,
    /// Reads that were told that the ledger is behind.
    pub behinds: u32,
    /// Leaves that are left out of a task's story, which is made to fit.
    pub hidden: Vec<u64>,
    /// Trust statements that the trust chain leaves out.
    pub hidden_trust: Vec<u64>,
    /// The trust chain is that of the tree of so many leaves.
    pub trust_size: Option<usize>,
    /// No findings are told.
    pub no_findings: bool,
    /// The next streams of the service for acts that break after their first message.
    pub cuts: u32,
    /// Clearances asked for.
    pub clearances: u32,
    pub streams: u32,
    /// Watches opened.
    pub watches: u32,
    /// Consistency proofs asked for, and how many of these at the same time.
    pub proofs: u32,
    pub proofs_now: u32,
    pub proofs_at_once: u32,
    /// How long a consistency proof takes.
    pub proof_delay: Duration,
    pub requests: u32,
    /// consistency_from of each append request.
    pub bases: Vec<Option<u64>>,
    /// The sequence of the first statement of each append request.
    pub sequences: Vec<u64>,
    /// The fates of the next append requests.
    pub whims: VecDeque<Whim>,
    /// Sessions are said to be no longer than this.
    pub session_length: Option<usize>,
    /// The first statement that was sent for each place in a session, recorded or not.
    pub said: HashMap<(SessionId, u64), Bytes>,
    /// Places for which something else was sent later.
    pub said_otherwise: Vec<u64>,
}
