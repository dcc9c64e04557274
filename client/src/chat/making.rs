//! Making a run's statements, part by part.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use deed_evidence::{
    Micros, TaskId, WireError,
    commitment::{Salt, commit},
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Hash, LeafIndex};
use sha2::{Digest as _, Sha256};

use super::{
    Counts, Import,
    confirmation::is_yes,
    tools::{Acting, Pseudonyms, RESOURCES, changes_something},
    transcript::{Message, ToolCall, Transcript},
};
use crate::{
    answer::Receipt,
    session::{Header, Made, Session},
};

/// The tool whose call hands the task to a person.
const HAND_OVER_TOOL: &str = "transfer_to_human_agents";
/// How a tool's answer begins when it failed.
const FAILURE_PREFIX: &str = "Error";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// How long a grant is good for, from the receive time of its task's opening on. Long enough for an
/// import; and as the ledger says that time again with every duplicate, a second import makes the
/// same grant without anything kept here.
const GRANT_US: i64 = 24 * 60 * 60 * 1_000_000;

/// Statements that can be recorded together: what comes behind them needs the place of the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Who says them.
    pub speaker: Speaker,
    /// Consecutive statements of one session; at least one.
    pub statements: Vec<Made>,
    /// What they commit to and may be kept, in the same order.
    pub contents: Vec<PartContent>,
}

/// Who speaks in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// [`Import::producer`].
    Importer,
    /// [`Import::grantor`], in the first of [`Import::grant_sessions`].
    Grantor,
}

/// A content of a part, and what opens its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartContent {
    /// The statement that commits to it, by its place in [`Part::statements`].
    pub position: usize,
    /// 32 bytes, derived.
    pub salt: Salt,
    /// Of any length.
    pub content: Bytes,
}

/// Where the last statement of a part was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Its position in the log.
    pub leaf_index: LeafIndex,
    /// Hash of its entry.
    pub leaf_hash: Hash,
    /// When the ledger admitted it.
    pub received_at: Micros,
}

impl From<&Receipt> for Recorded {
    fn from(receipt: &Receipt) -> Self {
        Self {
            leaf_index: receipt.leaf_index,
            leaf_hash: receipt.leaf_hash,
            received_at: receipt.received_at,
        }
    }
}

/// A run on its way into a ledger. Made by [`Import::begin`].
///
/// A run that is not carried to its end can be begun again, and makes the same statements.
pub struct Making<'a> {
    import: &'a Import,
    transcript: &'a Transcript,
    model: &'a str,
    session: Session,
    task: TaskId,
    /// What is still to be said, in order.
    steps: VecDeque<Step<'a>>,
    counts: Counts,
    /// The grant's leaf hash; empty as long as there is none.
    grant: Bytes,
    /// Calls of the last message with calls that have no result yet, in order.
    waiting: Vec<(&'a ToolCall, v1::StatementRef)>,
    /// The messages so far, as canonical JSON without the closing bracket: what led to a call.
    prompt: Vec<u8>,
    system_prompt_digest: Option<[u8; 32]>,
    handed_over: bool,
    part: Part,
}

enum Step<'a> {
    Open,
    /// Needs the place of what was said before it.
    Grant,
    /// A message with calls follows: calls of an earlier one that nobody answered stay without an
    /// outcome.
    DropWaiting,
    Intent(&'a ToolCall),
    /// Of the Intent before it, whose place it needs: what was shown to whoever said yes.
    Approval(&'a Message),
    Outcome(&'a Message),
    /// Nothing; but it is part of what leads to the calls behind it.
    Said(&'a Message),
    Close,
}

impl Step<'_> {
    const fn needs_a_place(&self) -> bool {
        matches!(self, Self::Grant | Self::Approval(_))
    }
}

impl<'a> Making<'a> {
    pub(super) fn new(import: &'a Import, transcript: &'a Transcript) -> Self {
        Self {
            import,
            transcript,
            model: transcript.model.as_deref().unwrap_or(&import.model),
            session: import.begun(&transcript.run_id),
            task: import.task(&transcript.run_id),
            steps: steps(transcript),
            counts: Counts::default(),
            grant: Bytes::new(),
            waiting: Vec::new(),
            prompt: b"[".to_vec(),
            system_prompt_digest: None,
            handed_over: false,
            part: Part::new(Speaker::Importer),
        }
    }

    /// What was made so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// The next part; `None` at the end. `last` is where the last statement of the part before it
    /// was recorded, and `None` for the first part alone.
    ///
    /// # Errors
    /// [`WireError`] if something in the transcript breaks a field's rule, for example a tool's
    /// name of more than 256 bytes, or more than 64 tools in a run.
    pub fn next(&mut self, last: Option<&Recorded>) -> Result<Option<Part>, WireError> {
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Open => self.task_opened()?,
                Step::Grant => return self.granted(last).map(Some),
                Step::DropWaiting => self.drop_waiting(),
                Step::Intent(call) => {
                    if self.counts.intents == 0 {
                        // What was recorded last is the grant.
                        self.grant = hash_of(last);
                    }
                    self.intent(call)?;
                }
                Step::Approval(shown) => self.approval(shown, last)?,
                Step::Outcome(message) => self.outcome(message)?,
                Step::Said(message) => self.said(message),
                Step::Close => self.close()?,
            }
            let waits = self.steps.front().is_some_and(Step::needs_a_place);
            if waits && !self.part.statements.is_empty() {
                break;
            }
        }
        let next = Part::new(Speaker::Importer);
        let part = std::mem::replace(&mut self.part, next);
        Ok(Some(part).filter(|part| !part.statements.is_empty()))
    }

    fn task_opened(&mut self) -> Result<(), WireError> {
        let mut messages = self.transcript.messages.iter();
        let first = messages.find(|message| message.role == "user");
        let objective = first.map(|message| {
            let slot = "task_opened.objective_commitment";
            let commitment = self.commit(slot, &message.content_bytes(), TEXT);
            v1::task_opened::Objective::ObjectiveCommitment(commitment)
        });
        let opened = v1::TaskOpened {
            objective,
            requested_by: format!("chat:{}", self.transcript.run_id),
            risk_tier: self.import.risk_tier.into(),
            deadline_us: 0,
            nonce: Bytes::copy_from_slice(
                self.import.task_nonce(&self.transcript.run_id).as_bytes(),
            ),
        };
        self.make(Body::TaskOpened(opened)).map(|_| ())
    }

    /// A part of its own: somebody else says it, in the only statement of a session.
    fn granted(&mut self, opened: Option<&Recorded>) -> Result<Part, WireError> {
        let opened_at = opened.map_or(Micros::default(), |opened| opened.received_at);
        let calls = self.transcript.messages.iter().flat_map(calls);
        let actions: BTreeSet<&str> = calls.map(|call| call.name.as_str()).collect();
        let grant = v1::Grant {
            subject: self.import.producer.clone(),
            actions: actions.into_iter().map(str::to_owned).collect(),
            resources: RESOURCES.map(str::to_owned).to_vec(),
            expires_us: opened_at.get().saturating_add(GRANT_US),
            ..v1::Grant::default()
        };
        let run_id = &self.transcript.run_id;
        let mut session = self.import.granting(&self.import.grantor, run_id);
        let header = Header {
            task: Some(self.task),
            occurred_at: opened_at,
            ..Header::default()
        };
        let mut part = Part::new(Speaker::Grantor);
        part.statements
            .push(session.make(&header, Body::Grant(grant))?);
        self.counts.grants += 1;
        Ok(part)
    }

    fn intent(&mut self, call: &'a ToolCall) -> Result<(), WireError> {
        self.handed_over |= call.name == HAND_OVER_TOOL;
        let mut prompt = std::mem::take(&mut self.prompt);
        prompt.push(b']');
        let acting = self.acting(call);
        let intent = v1::Intent {
            action: call.name.clone(),
            resource: acting.resource,
            amount: acting.amount,
            grant: self.grant.clone(),
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
        self.counts.intents += 1;
        self.waiting.push((call, reference));
        Ok(())
    }

    /// The transcript does not say when the customer decided: at the latest when the Intent was
    /// recorded. Nor how they were known: as weakly as can be said.
    fn approval(&mut self, shown: &Message, intent: Option<&Recorded>) -> Result<(), WireError> {
        let decided_at = intent.map_or(Micros::default(), |intent| intent.received_at);
        let approval = v1::Approval {
            intent: intent.map(|intent| v1::LeafRef {
                leaf_index: intent.leaf_index.get(),
                leaf_hash: Bytes::copy_from_slice(intent.leaf_hash.as_bytes()),
            }),
            verdict: v1::Verdict::Allow.into(),
            shown: Some(self.keep("approval.shown", &shown.content_bytes(), TEXT)),
            shown_at_us: 0,
            opened_at_us: 0,
            decided_at_us: decided_at.get(),
            strength: v1::AuthenticationStrength::SingleFactor.into(),
            rationale: "a customer's yes in the transcript".to_owned(),
            assertion: None,
        };
        self.make_at(decided_at, Body::Approval(approval))?;
        self.counts.approvals += 1;
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
            self.counts.stray_results += 1;
            return Ok(());
        }
        let (call, intent) = self.waiting.remove(by_id.unwrap_or(0));
        let content = message.content_bytes();
        let failed = content.starts_with(FAILURE_PREFIX.as_bytes());
        let (status, effects) = if failed {
            (v1::OutcomeStatus::Failed, Vec::new())
        } else {
            let effects = self.acting(call).effects(&content);
            (v1::OutcomeStatus::Succeeded, effects)
        };
        self.counts.outcomes += 1;
        self.counts.failures += u64::from(failed);
        self.counts.effects += effects.len() as u64;
        let outcome = v1::Outcome {
            intent: Some(intent),
            status: status.into(),
            effects,
            tool_call: Some(self.commit("outcome.tool_call", &call.canonical_json(), JSON)),
            response: Some(self.commit("outcome.response", &content, TEXT)),
            result: Some(self.keep("outcome.result", &content, TEXT)),
            // The transcript has the call once: that it was made as it was meant is not known.
            arguments: None,
        };
        self.make(Body::Outcome(outcome)).map(|_| ())
    }

    fn said(&mut self, message: &Message) {
        if message.role == "system" && self.system_prompt_digest.is_none() {
            let digest = Sha256::digest(message.content_bytes());
            self.system_prompt_digest = Some(digest.into());
        }
        if self.prompt.len() > 1 {
            self.prompt.push(b',');
        }
        self.prompt.extend_from_slice(&message.canonical_json());
    }

    fn close(&mut self) -> Result<(), WireError> {
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
        let closed = self.session.clone().close(Micros::default())?;
        self.part.statements.push(closed);
        Ok(())
    }

    fn drop_waiting(&mut self) {
        self.counts.unanswered += self.waiting.len() as u64;
        self.waiting.clear();
    }

    fn acting(&self, call: &ToolCall) -> Acting {
        let users = Pseudonyms {
            ledger_id: self.import.ledger_id,
            secret: &self.import.secret,
        };
        Acting::of(call, &users)
    }

    /// Makes the next statement and a reference to it.
    fn make(&mut self, body: Body) -> Result<v1::StatementRef, WireError> {
        self.make_at(Micros::default(), body)
    }

    fn make_at(&mut self, at: Micros, body: Body) -> Result<v1::StatementRef, WireError> {
        let header = Header {
            task: Some(self.task),
            occurred_at: at,
            ..Header::default()
        };
        let made = self.session.make(&header, body)?;
        let reference = made.reference();
        self.part.statements.push(made);
        Ok(reference)
    }

    /// Commits to a content of the statement that is made next, which is handed out with it.
    fn keep(&mut self, slot: &str, content: &[u8], media_type: &str) -> v1::Commitment {
        let (session, sequence) = (self.session.id(), self.session.next());
        let salt = Salt::derive(&self.import.secret, session, sequence, slot);
        let commitment = commit(&salt, content, media_type);
        self.part.contents.push(PartContent {
            position: self.part.statements.len(),
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

impl Part {
    const fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            statements: Vec::new(),
            contents: Vec::new(),
        }
    }
}

fn hash_of(recorded: Option<&Recorded>) -> Bytes {
    recorded.map_or_else(Bytes::new, |recorded| {
        Bytes::copy_from_slice(recorded.leaf_hash.as_bytes())
    })
}

/// The calls that a message makes: neither a tool nor its owner's prompt calls any.
fn calls(message: &Message) -> &[ToolCall] {
    match message.role.as_str() {
        "tool" | "system" => &[],
        _ => &message.tool_calls,
    }
}

/// What a run comes to.
fn steps(transcript: &Transcript) -> VecDeque<Step<'_>> {
    let messages = &transcript.messages;
    let mut steps = VecDeque::from([Step::Open]);
    if messages.iter().any(|message| !calls(message).is_empty()) {
        steps.push_back(Step::Grant);
    }
    // What the agent said last, and the same if the customer's last word was a yes to it.
    let (mut shown, mut agreed) = (None, None);
    for message in messages {
        match message.role.as_str() {
            "tool" => steps.push_back(Step::Outcome(message)),
            "user" => {
                let text = message.text();
                agreed = shown.filter(|_| text.is_some_and(is_yes));
            }
            "assistant" if message.tool_calls.is_empty() => {
                shown = message
                    .text()
                    .filter(|text| !text.is_empty())
                    .map(|_| message);
            }
            _ => {}
        }
        if !calls(message).is_empty() {
            steps.push_back(Step::DropWaiting);
            for call in calls(message) {
                steps.push_back(Step::Intent(call));
                if let Some(shown) = agreed
                    && changes_something(&call.name)
                {
                    steps.push_back(Step::Approval(shown));
                }
            }
        }
        steps.push_back(Step::Said(message));
    }
    steps.push_back(Step::Close);
    steps
}
