//! Applying what happens at a leaf: a statement, the timers that are due, an entry of the ledger.
//!
//! Everything that is applied at a leaf gets one [`Apply`]: the ledger's assessment with the [`View`]
//! through which it reads, the leaf, effective time there, and the author. Each body that changes a
//! task, grant or act has a file here, with the method that applies it; [`Apply::statement`] calls it.
//! What every statement says of its session, Heartbeat too, is in `assess/session.rs`. What several
//! bodies share stands beside this directory.

mod approval;
mod decision;
mod disposition;
mod finding;
mod grant;
mod grant_accepted;
mod intent;
mod key_revoked;
mod ledger_entry;
mod observation;
mod outcome;
mod revocation;
mod task_closed;
mod task_opened;
mod time;

use std::collections::VecDeque;

use deed_proto::v1;

pub(super) use finding::Findings;
pub(super) use observation::ObservedEffects;

use super::{
    assessor::{IntentVerdict, PendingEntry, RecordedStatement},
    body::Body,
    cell_cache::Cells,
    implicit_intent::Recent,
    timer::{Owner, TimerQueue},
    view::View,
};
use crate::{
    KeyId, Micros, TaskId,
    statement::{AUTHORITY_PRODUCER, LEDGER_PRODUCER},
    trust::{KeyRecord, TrustState},
};

/// The context of everything that is applied at a leaf.
pub(super) struct Apply<'a, V> {
    pub(super) cells: Cells<'a, V>,
    pub(super) timers: &'a mut TimerQueue,
    pub(super) pending: &'a mut VecDeque<PendingEntry>,
    pub(super) recent: &'a mut Recent,
    pub(super) findings: &'a mut Findings,
    pub(super) trust: &'a TrustState,
    /// The leaf of the entry.
    pub(super) leaf: u64,
    /// Effective time there.
    pub(super) at: Micros,
    pub(super) author: Author<'a>,
    /// The task of the statement; `None` while timers fire.
    pub(super) task: Option<TaskId>,
    /// True if the statement proves nothing of its author: a serious finding by its word is a claim.
    pub(super) claimed: bool,
}

/// A statement's author as the assessment takes it: the producer, the key of the signature, and what
/// the trust state has on record of that key.
#[derive(Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) producer: &'a str,
    pub(super) key: Option<KeyId>,
    pub(super) record: Option<&'a KeyRecord>,
}

impl<'a> Author<'a> {
    /// The ledger itself.
    pub(super) const LEDGER: Author<'static> = Author {
        producer: LEDGER_PRODUCER,
        key: None,
        record: None,
    };

    pub(super) fn new(producer: &'a str, key: Option<KeyId>, trust: &'a TrustState) -> Self {
        Self {
            producer,
            key,
            record: key.and_then(|key| trust.key(key)),
        }
    }
}

impl Author<'_> {
    /// Returns true for an authority of the ledger.
    pub(super) fn is_authority(&self) -> bool {
        self.producer == AUTHORITY_PRODUCER
    }

    pub(super) fn is_signed(&self) -> bool {
        self.key.is_some()
    }

    /// Returns true if the statement proves nothing of its author: nobody signed it, or an importer
    /// did, whose signature shows who brought it in.
    pub(super) fn is_claim(&self) -> bool {
        !self.is_signed() || self.has_role(v1::KeyRole::Importer)
    }

    /// Returns true if the author signed with a key of this role.
    pub(super) fn has_role(&self, role: v1::KeyRole) -> bool {
        self.record.is_some_and(|record| record.role == role)
    }

    pub(super) fn controller(&self) -> Option<&str> {
        self.record.map(|record| record.controller.as_str())
    }

    /// The bytes of the key; empty for none.
    pub(super) fn key_bytes(&self) -> &[u8] {
        self.key.as_ref().map_or(&[], |key| &key.as_bytes()[..])
    }

    /// The owner of the timers that the author sets.
    pub(super) fn timer_owner(&self) -> Owner {
        match self.controller() {
            Some(controller) => Owner::controller(controller),
            None if self.is_authority() => Owner::AUTHORITY,
            None => Owner::producer(self.producer),
        }
    }
}

impl<V: View> Apply<'_, V> {
    /// Applies a statement. Returns what became of it, if it is an Intent.
    pub(super) fn statement(
        &mut self,
        statement: &RecordedStatement<'_>,
    ) -> Result<Option<IntentVerdict>, V::Error> {
        self.claimed = self.author.is_claim();
        self.enter(statement)?;
        self.session_spoke(statement)?;
        let hash = &statement.leaf_hash;
        match (&statement.parsed.body, self.task) {
            (Body::TaskOpened { tier, deadline }, Some(task)) => {
                self.task_opened(task, *tier, *deadline)?;
            }
            (Body::TaskClosed { .. }, Some(task)) => self.task_closed(task)?,
            (Body::Grant(grant), Some(task)) => self.grant(task, hash, grant)?,
            (Body::GrantAccepted { grant }, Some(task)) => self.grant_accepted(task, grant)?,
            (Body::Revocation { grant }, Some(task)) => self.revocation(task, grant)?,
            (Body::Intent(intent), Some(task)) => {
                let verdict = self.intent(task, statement, intent)?;
                self.finish_timers()?;
                return Ok(Some(verdict));
            }
            (Body::Outcome(outcome), Some(task)) => self.outcome(task, statement, outcome)?,
            (Body::Decision { intent, verdict }, Some(task)) => {
                self.decision(task, hash, intent, *verdict)?;
            }
            (Body::Approval(approval), Some(task)) => self.approval(task, hash, approval)?,
            (
                Body::Observation {
                    intent,
                    effects,
                    observed_at,
                },
                _,
            ) => self.observation(statement, *intent, effects, *observed_at)?,
            (Body::Disposition { leaf, number, kind }, _) => {
                self.disposition(*leaf, *number, *kind)?;
            }
            (
                Body::KeyRevoked {
                    key,
                    compromised_since: Some(since),
                },
                _,
            ) => self.key_compromised(*key, *since)?,
            // A key that ended, and that nobody else had, ends no act.
            (
                Body::KeyRevoked {
                    compromised_since: None,
                    ..
                },
                _,
            ) => {}
            // `session_spoke` has taken what these say.
            (Body::Heartbeat { .. } | Body::SessionClosed, _) => {}
            (Body::Nothing, _) => {}
            // `statement::parse` refuses them without a task.
            (
                Body::TaskOpened { .. }
                | Body::TaskClosed { .. }
                | Body::Grant(_)
                | Body::GrantAccepted { .. }
                | Body::Revocation { .. }
                | Body::Intent(_)
                | Body::Outcome(_)
                | Body::Decision { .. }
                | Body::Approval(_),
                None,
            ) => {}
        }
        self.finish_timers()?;
        Ok(None)
    }

    /// Begins with a statement: counts it among its task's entries first, so that a task is there
    /// to take what is found.
    pub(super) fn enter(&mut self, statement: &RecordedStatement<'_>) -> Result<(), V::Error> {
        self.findings.begin_statement(self.leaf);
        match self.task {
            Some(task) => self.entry_of(task, &statement.leaf_hash, statement.parsed),
            None => Ok(()),
        }
    }

    /// Gives the timers that a statement has set to their owner.
    fn finish_timers(&mut self) -> Result<(), V::Error> {
        if self.timers.is_kept() {
            return Ok(());
        }
        self.keep_timers(self.author.timer_owner())
    }
}
