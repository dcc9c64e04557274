//! Chat transcripts with tool calls as statements.
//!
//! A transcript is one JSON object, `{"run_id": ..., "messages": [...]}`, the messages in the style
//! of OpenAI's chat completions, of Anthropic's messages, or items of OpenAI's responses. Each run
//! becomes a task:
//!
//! ```text
//! TaskOpened                     objective: commitment of the first user message
//! Grant                          of the tools that the run calls; in a session of its own
//! Intent, Outcome                for each tool call, and its result if there is one
//! Approval                       after an Intent that a customer said yes to
//! TaskClosed, SessionClosed      if the importer says that the run is over
//! ```
//!
//! The statements of the first messages are the first statements of all messages (`plan`), so a run that
//! has grown since it was imported continues where it was. A file does not say that a run is over, so its
//! end closes nothing unless the importer says so.
//!
//! The Intents hold the Grant's leaf hash, and an Approval that of its Intent. So a run is made in
//! [`Part`]s, each after the one before it was recorded ([`Making`]). [`Import::check`] makes all parts
//! before that, with stand-ins for the real places: a statement that breaks a rule is found before
//! anything is sent.
//!
//! The nonces of sessions and tasks, and the salts of commitments, derive from the run's id and a
//! secret of the importer: the transcript alone does not tell if it is in a ledger. Transcripts carry no times: where one is needed it is the receive time of a statement
//! before, which the ledger repeats with the first receipt. So the same file imported again with
//! the same secret gives the same bytes, which the ledger answers as duplicates. Grants alone follow
//! from what is recorded: a run that has grown gets another one for what none covers any more
//! ([`Earlier`]).
//!
//! A message of an unknown form makes its run refused, with the place of the message: it may be an act.
//!
//! The author of a transcript claims what it says. A customer's yes in it is recorded as an Approval of
//! the importer, which never counts as one. Of the text only the names of tools, ids of tool calls,
//! reservations and airports, amounts, and the run's id go into a statement in clear; users get a
//! pseudonym. The arguments and results of calls, and the text that a customer said yes to
//! (`intent.arguments`, `outcome.result`, `approval.shown`), may be kept beside the ledger, encrypted and
//! erasable: [`Part::contents`]. The other commitments are to the same
//! texts once more (`outcome.tool_call`, `outcome.response`) or to the conversation so far, which
//! would grow with the square of its length.

mod calls;
mod canonical;
mod confirmation;
mod failure;
mod fields;
mod items;
mod making;
mod message;
mod parts;
mod plan;
pub(crate) mod strict;
mod tools;
mod transcript;
mod wrapped;

pub use making::{Making, Part, PartContent, Recorded, Speaker};
pub use message::{Act, Message, Role, ToolCall, ToolResult};
pub use plan::{Earlier, Given, LeftOut};
pub use transcript::{Transcript, TranscriptError};

use deed_evidence::{
    LedgerId, Micros, Nonce, SessionId, TaskId, WireError, statement::AUTHORITY_PRODUCER,
};
use deed_proto::v1;
use deed_tlog::{Hash, LeafIndex};

use crate::session::Session;

/// BLAKE3 contexts, under which nonces derive from the secret. A change makes a second import miss the first: so they do change, and have the
/// rules' number, when the same transcript gives other statements than before.
const SESSION_CONTEXT: &str = "deed.v1 import chat session nonce 2";
const TASK_CONTEXT: &str = "deed.v1 import chat task nonce 2";
/// Grants have two contexts, signed and claimed, because a session belongs to the key that began it.
const GRANT_CONTEXT: &str = "deed.v1 import chat grant session nonce 2";
const CLAIMED_GRANT_CONTEXT: &str = "deed.v1 import chat claimed grant session nonce 2";

/// The settings that all runs of an import share.
#[derive(Clone)]
pub struct Import {
    /// The ledger that the statements are for.
    pub ledger_id: LedgerId,
    /// The producer of the statements and the acts: a URI that does not begin with `deed:`.
    pub producer: String,
    /// The author of the grants.
    pub grantor: Grantor,
    /// The one that claims the grants of an import for which no authority makes them: an earlier
    /// import of the same run may have been such a one. Looked at with [`Grantor::Authority`]
    /// alone.
    pub claimant: String,
    /// Keys the nonces of sessions and tasks, the salts of the commitments, and the users'
    /// pseudonyms.
    pub secret: [u8; 32],
    /// Name of the model, for runs that do not name one; may be empty.
    pub model: String,
    /// The risk tier of the tasks.
    pub risk_tier: v1::RiskTier,
    /// The runs are over: their tasks and sessions are closed behind their last message, and they do
    /// not grow any more.
    pub runs_are_over: bool,
}

/// The statements of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Statements, grants among them; none if nothing is to be recorded yet: there is no user's
    /// message and no call.
    pub statements: u64,
    /// Numbers of statements by kind.
    pub counts: Counts,
    /// Results that answer no call of the run.
    pub left_out: Vec<LeftOut>,
}

/// The author of the grants of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantor {
    /// An authority of the ledger signs the grants.
    Authority,
    /// The grants are unsigned: this producer claims them.
    Claimed(String),
}

/// The counts of one run, or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Grants: none for a run without tool calls.
    pub grants: u64,
    /// Tool calls, each an Intent.
    pub intents: u64,
    /// Approvals that are claimed: what changes something, after a customer's yes.
    pub approvals: u64,
    /// Outcomes: tool calls with a result.
    pub outcomes: u64,
    /// Outcomes with status failed.
    pub failures: u64,
    /// Effects of the outcomes.
    pub effects: u64,
    /// Tool calls without a result: an Intent, and no Outcome, since nobody said what came of it.
    pub unanswered: u64,
    /// Results without a call before them; they are left out.
    pub stray_results: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.grants += other.grants;
        self.intents += other.intents;
        self.approvals += other.approvals;
        self.outcomes += other.outcomes;
        self.failures += other.failures;
        self.effects += other.effects;
        self.unanswered += other.unanswered;
        self.stray_results += other.stray_results;
    }
}

impl Grantor {
    /// The producer of the grants.
    #[must_use]
    pub fn producer(&self) -> &str {
        match self {
            Self::Authority => AUTHORITY_PRODUCER,
            Self::Claimed(producer) => producer,
        }
    }
}

impl Import {
    /// The session of a run.
    #[must_use]
    pub fn session(&self, run_id: &str) -> SessionId {
        self.begun(run_id).id()
    }

    /// The task of a run.
    #[must_use]
    pub fn task(&self, run_id: &str) -> TaskId {
        self.begun(run_id).task_id(&self.task_nonce(run_id))
    }

    /// The session of a run's grant, which is its first statement: this import's own, then the one
    /// that an import with the other kind of grantor has.
    #[must_use]
    pub fn grant_sessions(&self, run_id: &str) -> [SessionId; 2] {
        let other = match self.grantor {
            Grantor::Authority => Grantor::Claimed(self.claimant.clone()),
            Grantor::Claimed(_) => Grantor::Authority,
        };
        [&self.grantor, &other].map(|grantor| self.granting(grantor, run_id).id())
    }

    /// The session of a run, before its first statement.
    fn begun(&self, run_id: &str) -> Session {
        let nonce = self.derive(SESSION_CONTEXT, run_id);
        Session::with_nonce(self.ledger_id, self.producer.clone(), nonce)
    }

    fn task_nonce(&self, run_id: &str) -> Nonce {
        self.derive(TASK_CONTEXT, run_id)
    }

    /// The session in which a grantor grants what a run did.
    fn granting(&self, grantor: &Grantor, run_id: &str) -> Session {
        let context = match grantor {
            Grantor::Authority => GRANT_CONTEXT,
            Grantor::Claimed(_) => CLAIMED_GRANT_CONTEXT,
        };
        // The producer is part of the derivation: the same run may be imported as another producer's acts.
        let of = format!("{}:{}{run_id}", self.producer.len(), self.producer);
        let nonce = self.derive(context, &of);
        Session::with_nonce(self.ledger_id, grantor.producer(), nonce)
    }

    /// Derives a nonce that nobody computes without the secret.
    fn derive(&self, context: &str, run_id: &str) -> Nonce {
        let key = blake3::derive_key(context, &self.secret);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(self.ledger_id.as_bytes());
        hasher.update(run_id.as_bytes());
        let mut nonce = [0; Nonce::LEN];
        hasher.finalize_xof().fill(&mut nonce);
        Nonce::new(nonce)
    }

    /// Begins to make the statements of a run of which nothing is recorded.
    #[must_use]
    pub fn begin<'a>(&'a self, transcript: &'a Transcript) -> Making<'a> {
        self.resume(transcript, &Earlier::default())
    }

    /// Begins to make the statements of a run of which the ledger has something already. They are
    /// all made: what is recorded is a duplicate.
    #[must_use]
    pub fn resume<'a>(&'a self, transcript: &'a Transcript, earlier: &Earlier) -> Making<'a> {
        Making::new(self, transcript, earlier)
    }

    /// Makes all statements of a run as if nothing of it were recorded, with stand-ins for the places that
    /// the ledger will give them.
    ///
    /// # Errors
    /// As [`Making::next`].
    pub fn check(&self, transcript: &Transcript) -> Result<Checked, WireError> {
        let mut making = self.begin(transcript);
        let mut checked = Checked::default();
        let mut last = None;
        while let Some(part) = making.next(last.as_ref())? {
            checked.statements += part.statements.len() as u64;
            last = Some(Recorded::STAND_IN);
        }
        checked.counts = making.counts();
        checked.left_out = making.left_out().to_vec();
        Ok(checked)
    }
}

impl Recorded {
    /// Stands for a place that is not known yet, and is no shorter than one.
    pub const STAND_IN: Self = Self {
        leaf_index: LeafIndex::new(1 << 48),
        leaf_hash: Hash::new([0xff; 32]),
        received_at: Micros::new(4_000_000_000_000_000),
    };
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("ledger_id", &self.ledger_id)
            .field("producer", &self.producer)
            .field("grantor", &self.grantor)
            .finish_non_exhaustive()
    }
}
