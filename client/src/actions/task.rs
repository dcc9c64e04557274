//! Acting in a task, where only what was cleared can be completed.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use deed_evidence::{Micros, Sequence, TaskId};
use deed_proto::v1::{self, IntentState, statement::Body};
use deed_tlog::LeafIndex;
use thiserror::Error as ThisError;

use crate::{
    answer::{Appended, Receipt},
    error::{AnswerError, Error, InputError},
    ledger::Ledger,
    session::{Header, Made, Session, random_nonce},
    signing::{Signing, Statement},
};

/// A task in which somebody acts, in a session of their own.
///
/// An act begins with [`intend`](Self::intend), which gives a [`Cleared`] only once the ledger has
/// cleared the Intent; and [`complete`](Self::complete) takes one. A gateway that keeps its call
/// between these two cannot act on anything else.
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
}

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
}

/// Why there is no clearance, or no receipt.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ActError {
    /// The policy, an approver or a policy engine says no.
    #[error("the Intent at leaf {leaf} is denied: {}", reasons.join("; "))]
    Denied {
        /// The Intent.
        leaf: LeafIndex,
        /// Why, sorted.
        reasons: Vec<String>,
    },
    /// Its time is over.
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
        task.say(Body::TaskOpened(opened), Vec::new()).await?;
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
        }
    }

    /// Its id.
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
        let (made, receipt) = self.say(Body::Intent(intent), contents).await?;
        let clearance = self.cleared(&receipt).await?;
        Ok(Cleared {
            task: self.id,
            intent: v1::StatementRef {
                session: Bytes::copy_from_slice(self.session.id().as_bytes()),
                ..made.reference()
            },
            arguments,
            leaf: receipt.leaf_index,
            clearance,
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
        let (_, receipt) = self.say(Body::TaskClosed(closed), Vec::new()).await?;
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

    async fn cleared(&self, receipt: &Receipt) -> Result<Option<LeafIndex>, ActError> {
        let leaf = receipt.leaf_index;
        if let Some(assessed) = &receipt.assessed {
            match assessed.intent() {
                IntentState::Cleared => return Ok(None),
                IntentState::Denied => {
                    let reasons = assessed.denied.clone();
                    return Err(ActError::Denied { leaf, reasons });
                }
                _ => {}
            }
        }
        let standing = match self.ledger.await_clearance(leaf).settled().await {
            Ok(standing) => standing,
            Err(Error::Refused {
                code: tonic::Code::FailedPrecondition,
                ..
            }) => return Err(ActError::NotAssessed),
            Err(error) => return Err(error.into()),
        };
        match standing.state {
            IntentState::Cleared => Ok(standing.clearance.map(|clearance| clearance.index)),
            IntentState::Denied => Err(ActError::Denied {
                leaf,
                reasons: standing.denied,
            }),
            state => Err(ActError::Lapsed { leaf, state }),
        }
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
                    // It was never sent.
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
                // That it is not recorded is the server's word: its place is used.
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
