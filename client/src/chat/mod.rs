//! Chat transcripts with tool calls as statements.
//!
//! A transcript is one JSON object a line, `{"run_id": ..., "messages": [...]}`, the messages in
//! the style of OpenAI's chat completions. Each run becomes a task:
//!
//! ```text
//! TaskOpened                     objective: commitment of the first user message
//! Grant                          of the tools that the run calls; in a session of its own
//! Intent, Outcome                for each tool call, and its result if there is one
//! Approval                       behind an Intent that a customer said yes to
//! TaskClosed, SessionClosed
//! ```
//!
//! The Grant's leaf hash stands in the Intents, an Intent's in its Approval: a run is made in
//! [`Part`]s, each with what is known when the one before it was recorded ([`Making`]).
//!
//! The nonces of sessions and tasks, and the salts of commitments, derive from the run's id and a
//! secret of the importer: whoever has the same transcript, and no secret, cannot tell whether it is
//! in a ledger. Transcripts carry no times: where one is needed it is the receive time of a statement
//! before, which the ledger repeats with the first receipt. So the same file imported again with
//! the same secret gives the same bytes, which the ledger answers as duplicates.
//!
//! What a transcript says is claimed by whoever wrote it. A customer's yes in it is recorded as an
//! Approval of the importer, which never counts as one. Nothing of its text goes into a statement
//! in clear but the names of tools, ids of tool calls, reservations and airports, amounts, and the
//! run's id; users get a pseudonym. What the calls were made with, what came of them, and what a
//! customer said yes to (`intent.arguments`, `outcome.result`, `approval.shown`) may be kept beside
//! the ledger, encrypted and erasable: [`Part::contents`]. The other commitments are to the same
//! texts once more (`outcome.tool_call`, `outcome.response`) or to the conversation so far, which
//! would grow with the square of its length.

mod confirmation;
mod making;
mod tools;
mod transcript;

pub use making::{Making, Part, PartContent, Recorded, Speaker};
pub use transcript::{Message, ToolCall, Transcript, TranscriptError};

use deed_evidence::{LedgerId, Nonce, SessionId, TaskId, statement::AUTHORITY_PRODUCER};
use deed_proto::v1;

use crate::session::Session;

/// BLAKE3 contexts, under which nonces derive from the secret. A change makes a second import miss the first: so they do change, and have the
/// rules' number, when the same transcript gives other statements than before.
const SESSION_CONTEXT: &str = "deed.v1 import chat session nonce 2";
const TASK_CONTEXT: &str = "deed.v1 import chat task nonce 2";
/// Two for the grants: a session belongs to whoever began it.
const GRANT_CONTEXT: &str = "deed.v1 import chat grant session nonce 2";
const CLAIMED_GRANT_CONTEXT: &str = "deed.v1 import chat claimed grant session nonce 2";

/// What all runs of an import have in common.
#[derive(Clone)]
pub struct Import {
    /// For which ledger.
    pub ledger_id: LedgerId,
    /// Who speaks, and whose acts they are: a URI, none that begins with `deed:`.
    pub producer: String,
    /// Who lets it act.
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
    /// How much harm the tasks may do.
    pub risk_tier: v1::RiskTier,
}

/// Who makes the grants of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grantor {
    /// An authority of the ledger, which signs them.
    Authority,
    /// Nobody signs them; a claim of this producer.
    Claimed(String),
}

/// What is in one run, or in many.
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
    /// What the outcomes changed.
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
    /// Who speaks in the grants.
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
        let nonce = self.derive(context, run_id);
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

    /// Begins to make the statements of a run.
    #[must_use]
    pub fn begin<'a>(&'a self, transcript: &'a Transcript) -> Making<'a> {
        Making::new(self, transcript)
    }
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
