//! Waiting for an Intent's clearance.

use deed_proto::v1::{self, IntentState, statement::Body};
use deed_tlog::LeafIndex;
use tonic::{Status, Streaming};

use super::proven::{ProvenStatement, missing, nonsense};
use crate::{
    error::Error,
    head::SignedHead,
    ledger::Ledger,
    read::Leaf,
    retry::{Backoff, within},
};

/// Where an Intent stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// By the server's word.
    pub state: IntentState,
    /// While it waits: what for.
    pub missing: Vec<String>,
    /// If it is denied: why.
    pub denied: Vec<String>,
    /// The Clearance, if one had to be written: proven to be in the log, written by the ledger, and
    /// of this Intent.
    pub clearance: Option<ProvenStatement>,
    /// The head of the tree that this was read from.
    pub head: SignedHead,
}

/// An Intent's standing, now and whenever it changes, until evidence can change it no more.
/// Survives lost connections. Made by [`Ledger::await_clearance`].
#[derive(Debug)]
pub struct ClearanceWatch {
    ledger: Ledger,
    intent: LeafIndex,
    backoff: Backoff,
    stream: Option<Open>,
    /// What was handed out last.
    reported: Option<Standing>,
}

#[derive(Debug)]
struct Open {
    messages: Streaming<v1::ClearanceResponse>,
    /// Whether a first message came. It is due at once; each later one when something changes.
    answered: bool,
}

impl Standing {
    /// Whether evidence can change it no more.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        !matches!(self.state, IntentState::Waiting)
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.state == other.state && self.missing == other.missing && self.denied == other.denied
    }
}

impl Ledger {
    /// Follows where the Intent at a leaf stands.
    #[must_use]
    pub fn await_clearance(&self, intent: LeafIndex) -> ClearanceWatch {
        ClearanceWatch {
            ledger: self.clone(),
            intent,
            backoff: Backoff::new(self.shared.retry),
            stream: None,
            reported: None,
        }
    }
}

impl ClearanceWatch {
    /// Waits for the next change; `None` after the last one.
    ///
    /// # Errors
    /// Any [`Error`]; lost connections are tried again first. [`Error::Refused`] if there is no such
    /// Intent, or the ledger assesses nothing (rules version 1).
    pub async fn next(&mut self) -> Result<Option<Standing>, Error> {
        if self.reported.as_ref().is_some_and(Standing::is_settled) {
            return Ok(None);
        }
        loop {
            let status = match self.message().await {
                Ok(answer) => {
                    let standing = self.take(answer).await?;
                    let told = self.reported.as_ref();
                    // After a reconnect the first one was told before, and is no progress.
                    if told.is_some_and(|told| told.says_the_same(&standing)) {
                        continue;
                    }
                    self.backoff.reset();
                    self.reported = Some(standing.clone());
                    return Ok(Some(standing));
                }
                Err(status) => status,
            };
            self.stream = None;
            self.ledger.wait_after(&status, &mut self.backoff).await?;
        }
    }

    /// Waits until evidence can change it no more.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn settled(mut self) -> Result<Standing, Error> {
        while let Some(standing) = self.next().await? {
            if standing.is_settled() {
                return Ok(standing);
            }
        }
        self.reported.ok_or(missing("the Intent's state"))
    }

    async fn message(&mut self) -> Result<v1::ClearanceResponse, Status> {
        let timeout = self.ledger.shared.timeout;
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let request = v1::AwaitClearanceRequest {
                    ledger: self.ledger.shared.name.clone(),
                    intent_leaf: self.intent.get(),
                };
                let mut client = self.ledger.connection.actions();
                let answer = within(timeout, client.await_clearance(request)).await?;
                self.stream.insert(Open {
                    messages: answer.into_inner(),
                    answered: false,
                })
            }
        };
        let message = if open.answered {
            open.messages.message().await?
        } else {
            within(timeout, open.messages.message()).await?
        };
        open.answered = true;
        message.ok_or_else(|| Status::unavailable("the server ended the stream"))
    }

    async fn take(&self, answer: v1::ClearanceResponse) -> Result<Standing, Error> {
        let head = self.ledger.trust_note(&answer.checkpoint).await?;
        let state = answer.state();
        if state == IntentState::Unspecified {
            return Err(missing("the Intent's state"));
        }
        let clearance = match answer.clearance_leaf {
            Some(leaf) => Some(self.clearance(LeafIndex::new(leaf)).await?),
            None => None,
        };
        self.ledger.settle_if_due();
        Ok(Standing {
            state,
            missing: answer.missing,
            denied: answer.denied,
            clearance,
            head,
        })
    }

    /// The permit must be there, and be this Intent's.
    async fn clearance(&self, leaf: LeafIndex) -> Result<ProvenStatement, Error> {
        let found = self.ledger.statement(leaf).await?;
        let Some(Body::Clearance(clearance)) = found.body() else {
            return Err(nonsense(leaf, &"it should be a Clearance, and is none"));
        };
        let intent = self
            .ledger
            .prove_leaf(Leaf::Index(self.intent), None)
            .await?;
        let names = clearance.intent.as_ref().is_some_and(|named| {
            named.leaf_index == self.intent.get() && named.leaf_hash == intent.hash.as_bytes()[..]
        });
        if names {
            return Ok(found);
        }
        let other = format!(
            "it should clear the Intent at leaf {}, and does not",
            self.intent
        );
        Err(nonsense(leaf, &other))
    }
}
