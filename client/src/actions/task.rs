//! Acting in a task, where only what was cleared can be completed.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use deed_evidence::{
    Micros, Sequence, TaskId,
    entry::{Entry, KeyedSignature},
    replay::task::TaskReplay,
};
use deed_proto::v1::{self, IntentState, statement::Body};
use deed_tlog::LeafIndex;
use thiserror::Error as ThisError;

use super::{
    checked::unfit,
    clearance::{Basis, word},
};

use crate::{
    answer::{Appended, Receipt},
    error::{AnswerError, Error, InputError},
    ledger::Ledger,
    session::{Header, Made, Session, random_nonce},
    signing::{Signing, Statement},
    trust::TrustError,
};

/// A task in which a producer acts, in a session of its own.
///
/// An act begins with [`intend`](Self::intend), which gives a [`Cleared`] only once the ledger has
/// cleared the Intent; and [`complete`](Self::complete) takes one. A gateway that keeps its call
/// between these two cannot act on anything else.
///
/// # What a clearance rests on
///
/// The server's answer alone clears nothing. The client computes from the entries, with the code that the
/// ledger runs, that they give the same:
///
/// | the Intent | what is looked at | round trips more |
/// |---|---|---|
/// | was cleared at once, names no grant, and no evidence policy is in force | the trust chain, the statement that opened the task, and the Intent, all proven to be in the log | none; every 60 s one, for trust statements that came since. In a task that somebody else opened, its report at the first act |
/// | was cleared at once under a grant or a policy | the task's whole report | the trust chain since then, and the report |
/// | waited | the same; the Clearance must be in the log, and the evidence that it names must clear the Intent | the same |
///
/// Absence is not shown: the server may keep back an entry in which somebody closed the task,
/// revoked the grant or key, or set a policy. Only a [`TaskReceipt`](Ledger::request_task_receipt)
/// that covers the Intent shows that there is none, or a replay of the log; and a server that keeps
/// such an entry back has signed a tree that holds it.
///
/// These checks need the right to read the ledger. A caller that may only append, or that wants the
/// server's word, calls [`by_servers_word`](Self::by_servers_word): then nothing of this is checked, and
/// the permit's [`basis`](Cleared::basis) is the server's word.
///
/// ```no_run
/// # use deed_client::{ActError, Task};
/// # use deed_proto::v1;
/// # async fn refund(task: &mut Task) -> Result<(), ActError> {
/// let cleared = task
///     .intend(v1::Intent {
///         action: "payments.refund".to_owned(),
///         resource: "order/7".to_owned(),
///         ..v1::Intent::default()
///     })
///     .await?;
/// // Here, and nowhere else, is the money moved.
/// let outcome = v1::Outcome {
///     status: v1::OutcomeStatus::Succeeded.into(),
///     ..v1::Outcome::default()
/// };
/// task.complete(cleared, outcome).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Task {
    ledger: Ledger,
    id: TaskId,
    session: Session,
    signing: Signing,
    /// Sent, and perhaps recorded: it goes out again before anything else does.
    unsure: Option<Unsure>,
    /// True if clearances are the server's word.
    trusting: bool,
    /// Leaf and bytes of the entry that opened the task, once that is known.
    opened: Option<(u64, Bytes)>,
    /// Leaf and bytes of the entry by which this process ended the task.
    closed: Option<(u64, Bytes)>,
    judge: Option<Judge>,
}

/// Judges an Intent that asks for nothing but its open task.
#[derive(Debug)]
struct Judge {
    replay: TaskReplay,
    /// Time at which the trust chain was asked for.
    asked: Instant,
}

/// After so long the trust chain is asked for again.
const TRUST_AGE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Unsure {
    statement: Statement,
    /// The session behind it.
    session: Session,
}

/// An Intent that may be acted on, once: [`Task::complete`] takes it.
#[derive(Debug)]
#[must_use = "an act that was cleared has an outcome, if only that it was not done"]
pub struct Cleared {
    task: TaskId,
    intent: v1::StatementRef,
    arguments: Option<v1::Commitment>,
    leaf: LeafIndex,
    clearance: Option<LeafIndex>,
    basis: Basis,
}

/// The reason why there is no clearance, or no receipt.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ActError {
    /// The policy, an approver or a policy engine says no.
    #[error("the Intent at leaf {leaf} is denied: {}", reasons.join("; "))]
    Denied {
        /// The Intent.
        leaf: LeafIndex,
        /// The reasons, sorted.
        reasons: Vec<String>,
    },
    /// The Intent has lapsed or is overdue.
    #[error("the Intent at leaf {leaf} may not be acted on any more: it is {}", past(*state))]
    Lapsed {
        /// The Intent.
        leaf: LeafIndex,
        /// Lapsed, overdue, or completed already.
        state: IntentState,
    },
    /// The ledger does not take the statement, by its word. Its place in the session is used: the next
    /// statement skips it.
    #[error("the ledger does not take the statement: {}", .0.message)]
    Rejected(v1::Rejection),
    /// The ledger's rules version is 1: it clears nothing.
    #[error(
        "this ledger assesses nothing (rules version 1), so it clears nothing; an authority \
         brings it to version 2 with a PolicySet"
    )]
    NotAssessed,
    /// Anything else.
    #[error(transparent)]
    Client(#[from] Error),
}

const fn past(state: IntentState) -> &'static str {
    match state {
        IntentState::Completed => "completed already",
        IntentState::Overdue => "overdue",
        _ => "lapsed",
    }
}

impl Cleared {
    /// The Intent's leaf.
    #[must_use]
    pub const fn leaf(&self) -> LeafIndex {
        self.leaf
    }

    /// The leaf of the Clearance; `None` if it was cleared at once, by the rules in force.
    #[must_use]
    pub const fn clearance(&self) -> Option<LeafIndex> {
        self.clearance
    }

    /// The basis of the permit: [`Basis::Checked`], unless the task takes the server's word
    /// ([`Task::by_servers_word`]), or verification is switched off.
    #[must_use]
    pub const fn basis(&self) -> Basis {
        self.basis
    }
}

impl Task {
    /// Opens a task with a random nonce, as the session's next statement.
    ///
    /// # Errors
    /// [`ActError`].
    pub async fn open(
        ledger: &Ledger,
        session: Session,
        signing: Signing,
        opened: v1::TaskOpened,
    ) -> Result<Self, ActError> {
        let nonce = random_nonce()
            .map_err(InputError::from)
            .map_err(Error::from)?;
        let id = session.task_id(&nonce);
        let opened = v1::TaskOpened {
            nonce: Bytes::copy_from_slice(nonce.as_bytes()),
            ..opened
        };
        let mut task = Self::of(ledger, session, signing, id);
        let (made, receipt) = task.say(Body::TaskOpened(opened), Vec::new()).await?;
        task.opened = task.own_entry(&made.payload, &receipt);
        Ok(task)
    }

    /// A task that somebody opened.
    #[must_use]
    pub fn of(ledger: &Ledger, session: Session, signing: Signing, id: TaskId) -> Self {
        Self {
            ledger: ledger.clone(),
            id,
            session,
            signing,
            unsure: None,
            trusting: ledger.shared.tracker.is_none(),
            opened: None,
            closed: None,
            judge: None,
        }
    }

    /// Takes the server's word for clearances: nothing of them is worked out here, and a permit's
    /// [`basis`](Cleared::basis) says so.
    #[must_use]
    pub const fn by_servers_word(mut self) -> Self {
        self.trusting = true;
        self
    }

    /// Returns the id of the task.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// The session that speaks, as far as it is known to be recorded.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// Announces an act, and waits for as long as evidence may still come.
    ///
    /// # Errors
    /// [`ActError`]; but for [`ActError::Rejected`], the Intent is or may be recorded.
    pub async fn intend(&mut self, intent: v1::Intent) -> Result<Cleared, ActError> {
        self.intend_with(intent, Vec::new()).await
    }

    /// [`intend`](Self::intend) with the contents that the Intent commits to.
    ///
    /// # Errors
    /// As [`intend`](Self::intend).
    pub async fn intend_with(
        &mut self,
        intent: v1::Intent,
        contents: Vec<v1::Attachment>,
    ) -> Result<Cleared, ActError> {
        let arguments = intent.arguments.clone();
        let plain = intent.grant.is_empty();
        let (made, receipt) = self.say(Body::Intent(intent), contents).await?;
        let (clearance, basis) = self.cleared(&made.payload, &receipt, plain).await?;
        Ok(Cleared {
            task: self.id,
            intent: v1::StatementRef {
                session: Bytes::copy_from_slice(self.session.id().as_bytes()),
                ..made.reference()
            },
            arguments,
            leaf: receipt.leaf_index,
            clearance,
            basis,
        })
    }

    /// Records what came of a cleared act. Which Intent it is of, and the copy of its arguments'
    /// commitment, are filled in here.
    ///
    /// # Errors
    /// [`ActError`]. If it may or may not be recorded it goes out again before the next statement;
    /// [`settle`](Self::settle) tries that by itself.
    pub async fn complete(
        &mut self,
        cleared: Cleared,
        outcome: v1::Outcome,
    ) -> Result<Receipt, ActError> {
        self.complete_with(cleared, outcome, Vec::new()).await
    }

    /// [`complete`](Self::complete) with the contents that the Outcome commits to.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub async fn complete_with(
        &mut self,
        cleared: Cleared,
        outcome: v1::Outcome,
        contents: Vec<v1::Attachment>,
    ) -> Result<Receipt, ActError> {
        let outcome = v1::Outcome {
            intent: Some(cleared.intent),
            arguments: cleared.arguments,
            ..outcome
        };
        let body = Body::Outcome(outcome);
        let (_, receipt) = self.say_in(cleared.task, body, contents).await?;
        Ok(receipt)
    }

    /// Ends the task, and with it everything that was granted for it.
    ///
    /// # Errors
    /// As [`complete`](Self::complete).
    pub async fn close(&mut self, end: v1::TaskEnd, reason: &str) -> Result<Receipt, ActError> {
        let closed = v1::TaskClosed {
            end: end.into(),
            reason: reason.to_owned(),
        };
        let (made, receipt) = self.say(Body::TaskClosed(closed), Vec::new()).await?;
        self.closed = self.own_entry(&made.payload, &receipt);
        self.judge = None;
        Ok(receipt)
    }

    /// Sends again what may or may not be recorded. Nothing happens if there is nothing.
    ///
    /// # Errors
    /// [`ActError`].
    pub async fn settle(&mut self) -> Result<(), ActError> {
        match self.unsure {
            Some(_) => self.deliver().await.map(|_| ()),
            None => Ok(()),
        }
    }

    /// The Clearance, if one had to be written, and what its word rests on. `plain`: no grant is named.
    async fn cleared(
        &mut self,
        payload: &Bytes,
        receipt: &Receipt,
        plain: bool,
    ) -> Result<(Option<LeafIndex>, Basis), ActError> {
        let leaf = receipt.leaf_index;
        if let Some(assessed) = &receipt.assessed {
            match assessed.intent() {
                IntentState::Cleared if self.trusting => return Ok((None, Basis::ServersWord)),
                IntentState::Cleared => {
                    if !plain || !self.is_cleared_alone(payload, receipt).await? {
                        return Ok((self.is_cleared(leaf).await?, Basis::Checked));
                    }
                    return Ok((None, Basis::Checked));
                }
                IntentState::Denied => {
                    let reasons = assessed.denied.clone();
                    return Err(ActError::Denied { leaf, reasons });
                }
                _ => {}
            }
        }
        let mut watch = self.ledger.await_clearance(leaf);
        if self.trusting {
            watch = watch.by_servers_word();
        }
        let standing = match watch.settled().await {
            Ok(standing) => standing,
            Err(Error::Refused {
                code: tonic::Code::FailedPrecondition,
                ..
            }) => return Err(ActError::NotAssessed),
            Err(error) => return Err(error.into()),
        };
        match standing.state {
            IntentState::Cleared => {
                let clearance = standing.clearance.map(|clearance| clearance.index);
                Ok((clearance, standing.basis))
            }
            IntentState::Denied => Err(ActError::Denied {
                leaf,
                reasons: standing.denied,
            }),
            state => Err(ActError::Lapsed { leaf, state }),
        }
    }

    /// Returns true if the Intent is cleared by nothing but its open task, as far as that can be
    /// told without the task's report.
    async fn is_cleared_alone(
        &mut self,
        payload: &Bytes,
        receipt: &Receipt,
    ) -> Result<bool, ActError> {
        let Some((leaf, entry)) = self.own_entry(payload, receipt) else {
            return Ok(false);
        };
        if self
            .judge
            .as_ref()
            .is_none_or(|one| one.asked.elapsed() > TRUST_AGE)
        {
            self.judge = self.new_judge().await?;
        }
        let Some(judge) = &mut self.judge else {
            return Ok(false);
        };
        if judge.replay.trust().policy().is_some() {
            return Ok(false);
        }
        let would = judge.replay.would(leaf, &entry, None);
        // If it would not be, something has happened that the report shows.
        let state = would
            .ok()
            .and_then(|would| would.intent)
            .map(|verdict| verdict.state);
        Ok(state == Some(IntentState::Cleared))
    }

    /// The trust chain and the statement that opened the task.
    async fn new_judge(&self) -> Result<Option<Judge>, ActError> {
        let Some(opened) = &self.opened else {
            return Ok(None);
        };
        let asked = Instant::now();
        let trust = self.ledger.follow_trust().await?;
        if trust.state().policy().is_some() {
            // The report is needed for each act.
            return Ok(None);
        }
        let own = [Some(opened), self.closed.as_ref()].into_iter().flatten();
        let own = own.map(|(leaf, entry)| (*leaf, entry));
        let trusted = trust.entries.iter().skip(1);
        let trusted = trusted.map(|(leaf, entry)| (leaf.get(), entry));
        let all: std::collections::BTreeMap<u64, &Bytes> = trusted.chain(own).collect();
        let genesis = &self.ledger.shared.genesis_entry;
        let refused = |error| ActError::from(Error::from(unfit(error)));
        let mut replay = TaskReplay::begin(genesis, self.id).map_err(refused)?;
        for (leaf, entry) in all {
            replay.leaf(leaf, entry, None).map_err(refused)?;
        }
        Ok(Some(Judge { replay, asked }))
    }

    /// Checks that the task's entries clear the Intent; the server's other answers do not count. Returns the
    /// Clearance, if one had to be written.
    async fn is_cleared(&mut self, leaf: LeafIndex) -> Result<Option<LeafIndex>, ActError> {
        let judged = self.ledger.judged_task(self.id).await?;
        let verdict = judged.verdict.as_ref();
        let verdict = verdict.map_err(|error| Error::from(error.clone()))?;
        if let Some(doubtful) = judged.doubtful(leaf) {
            return Err(Error::from(doubtful).into());
        }
        let act = verdict.act(leaf.get());
        let state = act.map_or(IntentState::Unspecified, v1::ActInfo::state);
        if state != IntentState::Cleared {
            let reasons =
                act.map_or_else(Vec::new, |act| [&act.missing[..], &act.denied[..]].concat());
            let reason = format!(
                "the Intent at leaf {leaf}: the server says cleared; its own entries say {}{}",
                word(state),
                if reasons.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", reasons.join("; "))
                }
            );
            return Err(Error::from(TrustError::Task { reason }).into());
        }
        if self.opened.is_none() {
            // The opener is known from now on.
            let opened = verdict
                .info
                .opened_leaf
                .and_then(|leaf| judged.report.entry(leaf));
            let own = |entry: &super::ProvenStatement| entry.author != v1::Author::Batched;
            let opened = opened.filter(|entry| own(entry));
            self.opened = opened.map(|opened| (opened.index.get(), opened.entry.clone()));
        }
        let clearance = act.and_then(|act| act.clearance_leaf);
        Ok(clearance.map(LeafIndex::new))
    }

    /// The entry of a statement that this task sent, made again from its receipt, which is proven;
    /// `None` for one of a batch.
    fn own_entry(&self, payload: &Bytes, receipt: &Receipt) -> Option<(u64, Bytes)> {
        let statement = Statement::from(payload.clone());
        let sent = self.signing.envelopes(std::iter::once(&statement)).ok()?;
        let [sent] = &sent[..] else { return None };
        let entry = match KeyedSignature::from_slices(&sent.key_id, &sent.signature) {
            Some(signature) => Entry::signed(payload, signature, receipt.received_at),
            None => Entry::unsigned(payload, receipt.received_at),
        };
        let entry = Entry {
            principal_leaf: receipt.principal_leaf.map(LeafIndex::get),
            ..entry
        };
        let entry = entry.encode();
        let is_it = deed_tlog::leaf_hash(&entry) == receipt.leaf_hash;
        (is_it && receipt.inclusion_verified).then_some((receipt.leaf_index.get(), entry))
    }

    async fn say(
        &mut self,
        body: Body,
        contents: Vec<v1::Attachment>,
    ) -> Result<(Made, Receipt), ActError> {
        self.say_in(self.id, body, contents).await
    }

    async fn say_in(
        &mut self,
        task: TaskId,
        body: Body,
        contents: Vec<v1::Attachment>,
    ) -> Result<(Made, Receipt), ActError> {
        self.settle().await?;
        let header = Header {
            task: Some(task),
            occurred_at: now(),
            ..Header::default()
        };
        let mut session = self.session.clone();
        let made = session.make(&header, body);
        let made = made.map_err(|error| Error::from(InputError::from(error)))?;
        let statement = Statement {
            payload: made.payload.clone(),
            attachments: contents,
        };
        self.unsure = Some(Unsure { statement, session });
        Ok((made, self.deliver().await?))
    }

    /// Sends what is unsure. Until the answer is there it stays so, also if nobody waits for it any
    /// more: another statement at its place would be an equivocation.
    async fn deliver(&mut self) -> Result<Receipt, ActError> {
        let Some(unsure) = &self.unsure else {
            return Err(Error::Ended.into());
        };
        let statements = std::slice::from_ref(&unsure.statement);
        let answer = self.ledger.append_signed(statements, &self.signing).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                // The session in `unsure` is one statement ahead.
                let (session, sequence) = (self.session.id(), self.session.next());
                if matches!(error, Error::Input(_)) {
                    // The statement was never sent.
                    self.unsure = None;
                } else if !self.ledger.may_have(session, sequence, &error).await
                    && let Some(sent) = self.unsure.take()
                {
                    self.session.skip_to(sent.session.next());
                }
                return Err(error.into());
            }
        };
        let item = answer.items.into_iter().next();
        let item = item.ok_or_else(|| Error::from(AnswerError::Missing { what: "the result" }))?;
        let sent = self.unsure.take();
        match (item, sent) {
            (Appended::Accepted(receipt) | Appended::Duplicate(receipt), Some(sent)) => {
                self.session = sent.session;
                Ok(receipt)
            }
            (Appended::Rejected(rejection), Some(sent)) => {
                // Only the server says that the statement is not recorded, so its place stays used.
                self.session.skip_to(sent.session.next());
                if let Some(expected) = rejection.expected_sequence {
                    self.session.stands_at(Sequence::new(expected));
                }
                Err(ActError::Rejected(rejection))
            }
            (_, None) => Err(Error::Ended.into()),
        }
    }
}

fn now() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
