//! Chat transcripts with tool calls as statements.
//!
//! A transcript is one JSON object a line, `{"run_id": ..., "messages": [...]}`, the messages in
//! the style of OpenAI's chat completions. Of each run come, in one session:
//!
//! ```text
//! TaskOpened                     objective: commitment of the first user message
//! Intent, Outcome                for each tool call, and its result if there is one
//! TaskClosed, SessionClosed
//! ```
//!
//! Session and task derive from the ledger's id and the run's, salts from a secret of the
//! importer, times are left out (transcripts carry none): the same file imported again with the
//! same secret gives the same bytes, which the ledger answers as duplicates.
//!
//! What a transcript says is claimed by whoever wrote it. Nothing of its text goes into a
//! statement in clear but the names of tools, ids of tool calls and the run's id. What the calls
//! were made with and what came of them (`intent.arguments`, `outcome.result`) may be kept beside
//! the ledger, encrypted and erasable: [`Run::contents`]. The other commitments are to the same
//! texts once more (`outcome.tool_call`, `outcome.response`) or to the conversation so far, which
//! would grow with the square of its length.

mod transcript;

pub use transcript::{Message, ToolCall, Transcript, TranscriptError};

use bytes::Bytes;
use deed_evidence::{
    LedgerId, Micros, SessionId, TaskId, WireError,
    commitment::{Salt, commit},
};
use deed_proto::v1::{self, statement::Body};
use sha2::{Digest as _, Sha256};

use crate::session::{Header, Made, Session};

/// BLAKE3 contexts. Never change: a second import would not find the first.
const SESSION_CONTEXT: &str = "deed.v1 import chat session";
const TASK_CONTEXT: &str = "deed.v1 import chat task";

/// The tool whose call hands the task to a person.
const HAND_OVER_TOOL: &str = "transfer_to_human_agents";
/// How a tool's answer begins when it failed.
const FAILURE_PREFIX: &str = "Error";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// What all runs of an import have in common.
#[derive(Clone)]
pub struct Import {
    /// For which ledger.
    pub ledger_id: LedgerId,
    /// Who speaks: a URI.
    pub producer: String,
    /// Keys the salts of the commitments.
    pub secret: [u8; 32],
    /// Name of the model, for runs that do not name one; may be empty.
    pub model: String,
    /// How much harm the tasks may do.
    pub risk_tier: v1::RiskTier,
}

/// The statements of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// In the order of their sequence.
    pub statements: Vec<Made>,
    /// Arguments and results that they commit to, in the same order.
    pub contents: Vec<RunContent>,
    /// What is in them.
    pub counts: Counts,
}

/// A content of a run, and what opens its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunContent {
    /// The statement that commits to it, by its place in [`Run::statements`].
    pub position: usize,
    /// 32 bytes, derived.
    pub salt: Salt,
    /// Of any length.
    pub content: Bytes,
}

/// What is in one run, or in many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Tool calls, each an Intent.
    pub tool_calls: u64,
    /// Outcomes: tool calls with a result.
    pub outcomes: u64,
    /// Outcomes with status failed.
    pub failures: u64,
    /// Tool calls without a result: an Intent, and no Outcome, since nobody said what came of it.
    pub unanswered: u64,
    /// Results without a call before them; they are left out.
    pub stray_results: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.tool_calls += other.tool_calls;
        self.outcomes += other.outcomes;
        self.failures += other.failures;
        self.unanswered += other.unanswered;
        self.stray_results += other.stray_results;
    }
}

impl Import {
    /// The session of a run: the first 16 bytes of BLAKE3 derive-key over ledger id and run id.
    #[must_use]
    pub fn session(&self, run_id: &str) -> SessionId {
        SessionId::new(self.derive(SESSION_CONTEXT, run_id))
    }

    /// The task of a run; derived as its session is, in another context.
    #[must_use]
    pub fn task(&self, run_id: &str) -> TaskId {
        TaskId::new(self.derive(TASK_CONTEXT, run_id))
    }

    fn derive(&self, context: &str, run_id: &str) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(self.ledger_id.as_bytes());
        hasher.update(run_id.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        id
    }

    /// Makes the statements of a run.
    ///
    /// # Errors
    /// [`WireError`] if something in the transcript breaks a field's rule, for example a tool's
    /// name of more than 256 bytes.
    pub fn run(&self, transcript: &Transcript) -> Result<Run, WireError> {
        let mut maker = Maker::new(self, transcript);
        maker.task_opened(transcript)?;
        for message in &transcript.messages {
            maker.message(message)?;
        }
        maker.close()
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("ledger_id", &self.ledger_id)
            .field("producer", &self.producer)
            .finish_non_exhaustive()
    }
}

/// Goes through one transcript.
struct Maker<'a> {
    import: &'a Import,
    model: &'a str,
    session: Session,
    task: TaskId,
    run: Run,
    /// Calls of the last message with calls that have no result yet, in order.
    waiting: Vec<(ToolCall, v1::StatementRef)>,
    /// The messages so far, as canonical JSON without the closing bracket: what led to a call.
    prompt: Vec<u8>,
    system_prompt_digest: Option<[u8; 32]>,
    handed_over: bool,
}

impl<'a> Maker<'a> {
    fn new(import: &'a Import, transcript: &'a Transcript) -> Self {
        let id = import.session(&transcript.run_id);
        let session = Session::with_id(import.ledger_id, import.producer.clone(), id);
        Self {
            import,
            model: transcript.model.as_deref().unwrap_or(&import.model),
            session,
            task: import.task(&transcript.run_id),
            run: Run {
                statements: Vec::new(),
                contents: Vec::new(),
                counts: Counts::default(),
            },
            waiting: Vec::new(),
            prompt: b"[".to_vec(),
            system_prompt_digest: None,
            handed_over: false,
        }
    }

    fn task_opened(&mut self, transcript: &Transcript) -> Result<(), WireError> {
        let first = transcript
            .messages
            .iter()
            .find(|message| message.role == "user");
        let objective = first.map(|message| {
            let slot = "task_opened.objective_commitment";
            let commitment = self.commit(slot, &message.content_bytes(), TEXT);
            v1::task_opened::Objective::ObjectiveCommitment(commitment)
        });
        let opened = v1::TaskOpened {
            objective,
            requested_by: format!("chat:{}", transcript.run_id),
            risk_tier: self.import.risk_tier.into(),
            deadline_us: 0,
        };
        self.make(Body::TaskOpened(opened)).map(|_| ())
    }

    fn message(&mut self, message: &Message) -> Result<(), WireError> {
        match message.role.as_str() {
            "system" if self.system_prompt_digest.is_none() => {
                let content = message.content_bytes();
                self.system_prompt_digest = Some(Sha256::digest(&content).into());
            }
            "tool" => self.outcome(message)?,
            _ if !message.tool_calls.is_empty() => {
                // Calls of an earlier message that nobody answered stay without an outcome.
                self.drop_waiting();
                for call in &message.tool_calls {
                    self.intent(call)?;
                }
            }
            _ => {}
        }
        if self.prompt.len() > 1 {
            self.prompt.push(b',');
        }
        self.prompt.extend_from_slice(&message.canonical_json());
        Ok(())
    }

    fn intent(&mut self, call: &ToolCall) -> Result<(), WireError> {
        self.handed_over |= call.name == HAND_OVER_TOOL;
        let mut prompt = std::mem::take(&mut self.prompt);
        prompt.push(b']');
        let intent = v1::Intent {
            action: call.name.clone(),
            resource: format!("tool:{}", call.name),
            arguments: Some(self.keep("intent.arguments", call.arguments.as_bytes(), JSON)),
            prompt: Some(self.commit("intent.prompt", &prompt, JSON)),
            model: self.model.to_owned(),
            system_prompt_digest: self
                .system_prompt_digest
                .map(|digest| digest.to_vec().into())
                .unwrap_or_default(),
            tool_call_id: call.id.clone(),
            ..v1::Intent::default()
        };
        prompt.pop();
        self.prompt = prompt;
        let reference = self.make(Body::Intent(intent))?;
        self.run.counts.tool_calls += 1;
        self.waiting.push((call.clone(), reference));
        Ok(())
    }

    /// Ids repeat in real transcripts, so a result belongs to a call of the message before it: to
    /// the one with its id if there is one, else to the first that waits.
    fn outcome(&mut self, message: &Message) -> Result<(), WireError> {
        let by_id = self
            .waiting
            .iter()
            .position(|(call, _)| message.tool_call_id.as_deref() == Some(call.id.as_str()));
        if self.waiting.is_empty() {
            self.run.counts.stray_results += 1;
            return Ok(());
        }
        let (call, intent) = self.waiting.remove(by_id.unwrap_or(0));
        let content = message.content_bytes();
        let failed = content.starts_with(FAILURE_PREFIX.as_bytes());
        let status = if failed {
            v1::OutcomeStatus::Failed
        } else {
            v1::OutcomeStatus::Succeeded
        };
        let outcome = v1::Outcome {
            intent: Some(intent),
            status: status.into(),
            effects: Vec::new(),
            tool_call: Some(self.commit("outcome.tool_call", &call.canonical_json(), JSON)),
            response: Some(self.commit("outcome.response", &content, TEXT)),
            result: Some(self.keep("outcome.result", &content, TEXT)),
            // Not part of the first imports: a second one must make the same bytes.
            arguments: None,
        };
        self.make(Body::Outcome(outcome))?;
        self.run.counts.outcomes += 1;
        self.run.counts.failures += u64::from(failed);
        Ok(())
    }

    fn close(mut self) -> Result<Run, WireError> {
        self.drop_waiting();
        let end = if self.handed_over {
            v1::TaskEnd::HandedOver
        } else {
            v1::TaskEnd::Completed
        };
        let closed = v1::TaskClosed {
            end: end.into(),
            reason: String::new(),
        };
        self.make(Body::TaskClosed(closed))?;
        self.run
            .statements
            .push(self.session.close(Micros::default())?);
        Ok(self.run)
    }

    fn drop_waiting(&mut self) {
        self.run.counts.unanswered += self.waiting.len() as u64;
        self.waiting.clear();
    }

    /// Makes the next statement and a reference to it.
    fn make(&mut self, body: Body) -> Result<v1::StatementRef, WireError> {
        let header = Header {
            task: Some(self.task),
            ..Header::default()
        };
        let made = self.session.make(&header, body)?;
        let reference = made.reference();
        self.run.statements.push(made);
        Ok(reference)
    }

    /// Commits to a content of the statement that is made next, which is handed out with it.
    fn keep(&mut self, slot: &str, content: &[u8], media_type: &str) -> v1::Commitment {
        let (session, sequence) = (self.session.id(), self.session.next());
        let salt = Salt::derive(&self.import.secret, session, sequence, slot);
        let commitment = commit(&salt, content, media_type);
        self.run.contents.push(RunContent {
            position: self.run.statements.len(),
            salt,
            content: Bytes::copy_from_slice(content),
        });
        commitment
    }

    /// Commits to a content of the statement that is made next.
    fn commit(&self, slot: &str, content: &[u8], media_type: &str) -> v1::Commitment {
        let (session, sequence) = (self.session.id(), self.session.next());
        let salt = Salt::derive(&self.import.secret, session, sequence, slot);
        commit(&salt, content, media_type)
    }
}
