//! Making a run's statements, part by part.

use std::collections::VecDeque;

use bytes::Bytes;
use deed_evidence::{
    Micros, Sequence, TaskId, WireError,
    commitment::{Salt, commit},
};
use deed_proto::v1::{self, statement::Body};
use deed_tlog::{Hash, LeafIndex};
use sha2::{Digest as _, Sha256};

use super::{
    Counts, Import,
    message::{Message, Role, ToolCall, ToolResult},
    plan::{Earlier, Given, LeftOut, Plan, Step, lasts},
    tools::{Acting, Pseudonyms, RESOURCES},
    transcript::Transcript,
};
use crate::{
    answer::Receipt,
    session::{Header, Made, Session},
};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The validity of a grant. Long enough for an import; the first ones count from the receive
/// time of their task's opening on: as the ledger says that time again with every duplicate, a second
/// import makes the same grants without anything kept here.
const GRANT_US: i64 = 24 * 60 * 60 * 1_000_000;
/// A correlation key of a grant that a later import of a run needs: the sequence of the Intents from
/// which on it is the one that they name.
pub(super) const FROM_KEY: &str = "import.from";

/// Statements that can be recorded together. Later statements need the place of the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The speaker of the statements.
    pub speaker: Speaker,
    /// Consecutive statements of one session; at least one.
    pub statements: Vec<Made>,
    /// The contents that they commit to and that may be kept, in the same order.
    pub contents: Vec<PartContent>,
}

/// The speaker of a part.
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
    /// The content, of any length.
    pub content: Bytes,
}

/// The place of the last statement of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The position of the entry in the log.
    pub leaf_index: LeafIndex,
    /// Hash of its entry.
    pub leaf_hash: Hash,
    /// The time at which the ledger admitted it.
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

/// A run on its way into a ledger. Made by [`Import::begin`] and [`Import::resume`].
///
/// A run that is not carried to its end can be begun again, and makes the same statements.
pub struct Making<'a> {
    import: &'a Import,
    transcript: &'a Transcript,
    model: &'a str,
    session: Session,
    task: TaskId,
    /// The rest of the run, in order.
    steps: VecDeque<Step<'a>>,
    left_out: Vec<LeftOut>,
    counts: Counts,
    /// Earlier statements, and the grants of this import.
    earlier: Earlier,
    /// The session in which grants are made.
    granting: Session,
    /// A grant that was made last, and whose place is not known yet.
    granted: Option<Given>,
    opened_at: Option<Micros>,
    /// The Intent of each call, in order.
    intents: Vec<v1::StatementRef>,
    /// The messages so far, as canonical JSON without the closing bracket: what led to a call.
    prompt: Vec<u8>,
    system_prompt_digest: Option<[u8; 32]>,
    part: Part,
}

impl<'a> Making<'a> {
    pub(super) fn new(import: &'a Import, transcript: &'a Transcript, earlier: &Earlier) -> Self {
        let plan = Plan::of(transcript, earlier, import.runs_are_over);
        let granting = import.granting(&import.grantor, &transcript.run_id);
        let granting = match earlier.granted {
            Some(last) => {
                let producer = import.grantor.producer();
                Session::resume(import.ledger_id, producer, granting.id(), last)
            }
            None => granting,
        };
        Self {
            import,
            transcript,
            model: transcript.model.as_deref().unwrap_or(&import.model),
            session: import.begun(&transcript.run_id),
            task: import.task(&transcript.run_id),
            steps: plan.steps,
            counts: Counts {
                grants: earlier.grants.len() as u64,
                unanswered: plan.unanswered,
                stray_results: plan.left_out.len() as u64,
                ..Counts::default()
            },
            left_out: plan.left_out,
            earlier: earlier.clone(),
            granting,
            granted: None,
            opened_at: None,
            intents: Vec::new(),
            prompt: b"[".to_vec(),
            system_prompt_digest: None,
            part: Part::new(Speaker::Importer),
        }
    }

    /// Returns the counts so far.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Results that answer no call of the run.
    #[must_use]
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// The next part; `None` at the end. `last` is where the last statement of the part before it
    /// was recorded, and `None` for the first part alone.
    ///
    /// # Errors
    /// [`WireError`] if something in the transcript breaks a field's rule, for example a tool's
    /// name of more than 256 bytes.
    pub fn next(&mut self, last: Option<&Recorded>) -> Result<Option<Part>, WireError> {
        if let Some(last) = last {
            self.opened_at.get_or_insert(last.received_at);
            if let Some(given) = self.granted.take() {
                self.earlier.grants.push(Given {
                    leaf_hash: last.leaf_hash,
                    ..given
                });
            }
        }
        while let Some(step) = self.steps.pop_front() {
            match step {
                Step::Open(objective) => self.task_opened(objective)?,
                Step::Grant(actions) => return self.granted(actions).map(Some),
                Step::Intent(number, call) => {
                    debug_assert_eq!(number, self.intents.len());
                    self.intent(call)?;
                }
                Step::Approval(shown) => self.approval(shown, last)?,
                Step::Outcome(number, call, result) => self.outcome(number, call, result)?,
                Step::Said(message) => self.said(message),
                Step::Close(end) => self.close(end)?,
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

    fn task_opened(&mut self, objective: Option<&Message>) -> Result<(), WireError> {
        let objective = objective.map(|message| {
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

    /// A part of its own: somebody else says it, in a session that holds grants alone.
    fn granted(&mut self, actions: Vec<String>) -> Result<Part, WireError> {
        // Recorded statements keep the grants that they name.
        let from = self.earlier.next.max(Sequence::new(1));
        let is_later = from > Sequence::new(1);
        let (now, opened_at) = (self.earlier.at, self.opened_at.unwrap_or_default());
        let ends = Micros::new(opened_at.get().saturating_add(GRANT_US));
        let at = if lasts(ends, now) { opened_at } else { now };
        let expires = Micros::new(at.get().saturating_add(GRANT_US));
        let grant = v1::Grant {
            subject: self.import.producer.clone(),
            actions: actions.clone(),
            resources: RESOURCES.map(str::to_owned).to_vec(),
            expires_us: expires.get(),
            ..v1::Grant::default()
        };
        let sequence = from.get().to_string();
        let keys = [(FROM_KEY, sequence.as_str())];
        let header = Header {
            task: Some(self.task),
            occurred_at: at,
            correlation_keys: if is_later { &keys } else { &[] },
            ..Header::default()
        };
        let mut part = Part::new(Speaker::Grantor);
        part.statements
            .push(self.granting.make(&header, Body::Grant(grant))?);
        self.counts.grants += 1;
        self.granted = Some(Given {
            leaf_hash: Hash::new([0; 32]),
            actions,
            from,
            expires,
        });
        Ok(part)
    }

    fn intent(&mut self, call: &'a ToolCall) -> Result<(), WireError> {
        let mut prompt = std::mem::take(&mut self.prompt);
        prompt.push(b']');
        let acting = self.acting(call);
        let grant = self.earlier.grant(&call.name, self.session.next().get());
        let intent = v1::Intent {
            action: call.name.clone(),
            resource: acting.resource,
            amount: acting.amount,
            grant: grant.map_or_else(Bytes::new, |grant| {
                Bytes::copy_from_slice(grant.leaf_hash.as_bytes())
            }),
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
        self.intents.push(reference);
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

    fn outcome(
        &mut self,
        number: usize,
        call: &ToolCall,
        result: &ToolResult,
    ) -> Result<(), WireError> {
        let content = &result.content;
        let media_type = if result.is_text { TEXT } else { JSON };
        let (status, effects) = if result.failed {
            (v1::OutcomeStatus::Failed, Vec::new())
        } else {
            let effects = self.acting(call).effects(content);
            (v1::OutcomeStatus::Succeeded, effects)
        };
        self.counts.outcomes += 1;
        self.counts.failures += u64::from(result.failed);
        self.counts.effects += effects.len() as u64;
        let outcome = v1::Outcome {
            intent: self.intents.get(number).cloned(),
            status: status.into(),
            effects,
            tool_call: Some(self.commit("outcome.tool_call", &call.canonical_json(), JSON)),
            response: Some(self.commit("outcome.response", content, media_type)),
            result: Some(self.keep("outcome.result", content, media_type)),
            // The transcript has the call once: that it was made as it was meant is not known.
            arguments: None,
        };
        self.make(Body::Outcome(outcome)).map(|_| ())
    }

    fn said(&mut self, message: &Message) {
        if message.role == Role::System && self.system_prompt_digest.is_none() {
            let digest = Sha256::digest(message.content_bytes());
            self.system_prompt_digest = Some(digest.into());
        }
        if self.prompt.len() > 1 {
            self.prompt.push(b',');
        }
        self.prompt.extend_from_slice(&message.canonical_json());
    }

    fn close(&mut self, end: v1::TaskEnd) -> Result<(), WireError> {
        let closed = v1::TaskClosed {
            end: end.into(),
            reason: String::new(),
        };
        self.make(Body::TaskClosed(closed))?;
        let closed = self.session.clone().close(Micros::default())?;
        self.part.statements.push(closed);
        Ok(())
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
