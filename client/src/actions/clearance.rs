//! Waiting for an Intent's clearance.

use deed_evidence::replay::task::Unshown;
use deed_proto::v1::{self, IntentState, statement::Body};
use deed_tlog::LeafIndex;
use tonic::{Status, Streaming};

use super::{
    checked::JudgedTask,
    proven::{ProvenStatement, missing, nonsense},
};
use crate::{
    attempts::Attempts,
    error::Error,
    head::SignedHead,
    ledger::Ledger,
    read::{Leaf, check_grown},
    retry::within,
    trust::TrustError,
};

/// The basis of a standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Worked out in this process, from entries that are proven to be in the log. What stays the
    /// operator's word all the same is that none was left out: see
    /// [`Standing::unshown`].
    Checked,
    /// The server's word.
    ServersWord,
}

/// The state of an Intent.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The Intent's state. Cleared is checked, unless the watch was told to take the server's word.
    pub state: IntentState,
    /// The basis of `state`.
    pub basis: Basis,
    /// While it waits: what for.
    pub missing: Vec<String>,
    /// If it is denied: why.
    pub denied: Vec<String>,
    /// The Clearance, if one had to be written: proven to be in the log, written by the ledger, and
    /// of this Intent.
    pub clearance: Option<ProvenStatement>,
    /// Facts that stay the operator's word although `state` was checked: that no trust statement
    /// follows the newest one that is known, that no entry of the task was left out, and when they
    /// were received.
    pub unshown: Vec<Unshown>,
    /// The head of the tree that this was read from.
    pub head: SignedHead,
}

/// An Intent's standing, now and whenever it changes, until evidence can change it no more.
/// Survives lost connections. Made by [`Ledger::await_clearance`].
///
/// As soon as the server says that nothing changes any more, the Intent's task is fetched and judged here:
/// what waited is cleared only by a Clearance that is in the log, written by the ledger, and whose
/// evidence clears it by the same code; what was cleared at once is judged again. A server that says
/// otherwise is an [`Error::Trust`]. As long as the Intent waits, what it waits for is the server's
/// word.
#[derive(Debug)]
pub struct ClearanceWatch {
    ledger: Ledger,
    intent: LeafIndex,
    /// True if nothing is checked.
    trusting: bool,
    attempts: Attempts,
    stream: Option<Open>,
    /// The stream is of trees of at least so many leaves.
    min_size: u64,
    /// The last state that was handed out.
    reported: Option<Standing>,
}

#[derive(Debug)]
struct Open {
    messages: Streaming<v1::ClearanceResponse>,
    /// True if a first message came. It is due at once; each later one when something changes.
    answered: bool,
}

impl Standing {
    /// Returns true if evidence can change it no more.
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
            trusting: self.shared.tracker.is_none(),
            attempts: self.attempts(),
            stream: None,
            min_size: 0,
            reported: None,
        }
    }
}

impl ClearanceWatch {
    /// Takes the server's word for where the Intent stands: its task is not fetched, and nothing but
    /// that a Clearance is in the log is checked. Whoever acts on that acts on the operator's word.
    #[must_use]
    pub const fn by_servers_word(mut self) -> Self {
        self.trusting = true;
        self
    }

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
                    let reported = self.reported.as_ref();
                    // The first state after a reconnect was reported before.
                    if reported.is_some_and(|reported| reported.says_the_same(&standing)) {
                        continue;
                    }
                    self.attempts.reset();
                    self.reported = Some(standing.clone());
                    return Ok(Some(standing));
                }
                Err(status) => status,
            };
            self.stream = None;
            self.ledger.wait_after(&status, &mut self.attempts).await?;
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
                    min_size: self.ledger.shared.min_size(),
                };
                self.min_size = request.min_size;
                let mut client = self.attempts.server(&self.ledger.connection).actions();
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

    /// A stream that goes on is asked at another time than the report, which may be further.
    async fn take(&self, answer: v1::ClearanceResponse) -> Result<Standing, Error> {
        let head = self.ledger.trust_note(&answer.checkpoint).await?;
        check_grown(&head, self.min_size)?;
        let state = answer.state();
        if state == IntentState::Unspecified {
            return Err(missing("the Intent's state"));
        }
        let clearance = match answer.clearance_leaf {
            Some(leaf) => Some(self.clearance(LeafIndex::new(leaf)).await?),
            None => None,
        };
        self.ledger.link_heads_if_due();
        let standing = Standing {
            state,
            basis: Basis::ServersWord,
            missing: answer.missing,
            denied: answer.denied,
            clearance,
            unshown: Vec::new(),
            head,
        };
        if self.trusting || !standing.is_settled() {
            return Ok(standing);
        }
        let intent = self.ledger.statement(self.intent).await?;
        let no_task = || nonsense(self.intent, &"it is no Intent of a task");
        let task = intent.task().ok_or_else(no_task)?;
        let judged = self.ledger.judged_task(task).await?;
        checked(standing, self.intent, &judged)
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

/// The standing as the task's entries have it. A server that says cleared where they do not is a
/// liar; that something may not be done, it may say.
fn checked(said: Standing, intent: LeafIndex, judged: &JudgedTask) -> Result<Standing, Error> {
    use IntentState as S;
    let verdict = judged.verdict.as_ref().map_err(Clone::clone)?;
    let no_act = || TrustError::Task {
        reason: format!("the server says how the Intent at leaf {intent} stands, and it is no act"),
    };
    let own = verdict.act(intent.get()).ok_or_else(no_act)?;
    let found = own.state();
    if let Some(doubtful) = judged.doubtful(intent) {
        return match said.state {
            S::Cleared => Err(doubtful.into()),
            _ => Ok(said),
        };
    }
    match (said.state, found) {
        (said, own) if said == own => {}
        // An act that was done meanwhile was cleared.
        (S::Cleared, S::Completed | S::Overdue) => {}
        // A false answer other than "cleared" allows no act.
        (state, _) if state != S::Cleared => return Ok(said),
        (said, _) => {
            let reasons = [&own.missing[..], &own.denied[..]].concat();
            let reasons = match reasons.is_empty() {
                true => String::new(),
                false => format!(" ({})", reasons.join("; ")),
            };
            return Err(TrustError::Task {
                reason: format!(
                    "the Intent at leaf {intent}: the server says {}; its own entries say \
                     {}{reasons}",
                    word(said),
                    word(found)
                ),
            }
            .into());
        }
    }
    let leaf = own.clearance_leaf;
    let unshown = verdict.unshown.iter().copied();
    // Facts that a permit depends on.
    let unshown = unshown.filter(|one| {
        matches!(
            one,
            Unshown::Trust { .. } | Unshown::Entries { .. } | Unshown::Received
        )
    });
    Ok(Standing {
        state: found,
        basis: Basis::Checked,
        missing: own.missing.clone(),
        denied: own.denied.clone(),
        clearance: leaf.and_then(|leaf| judged.report.entry(leaf).cloned()),
        unshown: unshown.collect(),
        head: judged.report.head.clone(),
    })
}

pub(super) fn word(state: IntentState) -> String {
    let name = state.as_str_name();
    let name = name.strip_prefix("INTENT_STATE_").unwrap_or(name);
    name.to_ascii_lowercase()
}
