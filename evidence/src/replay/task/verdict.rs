//! The verdict over a task, by its own entries.

use std::collections::BTreeMap;

use bytes::Bytes;
use deed_proto::v1::{self, TaskState};
use deed_tlog::Hash;

use super::{ReplayError, TaskReplay, Unshown};
use crate::{
    KeyId, Micros,
    assess::{
        CHAIN_MAX, SKEW_US, TimerKind,
        cells::{self, CellKey},
        effective_state, layers,
    },
    trust::TrustState,
};

/// The proof of who spoke, if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// Its own signature, verified under a key that was in force for its producer.
    Key(KeyId),
    /// The signature of a batch manifest that covers it, likewise.
    Batch {
        /// The key.
        key: KeyId,
        /// The manifest's leaf.
        manifest: u64,
    },
    /// Nobody signed: the producer is claimed.
    Nobody,
    /// The ledger itself, and what stands before it calls for it.
    Ledger,
}

/// A receipt that agrees with the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipted {
    /// The TaskReceipt.
    pub leaf: u64,
    /// The last entry that it covers: up to there none is left out, by what the ledger committed to.
    pub through_leaf: u64,
    /// Entries that it covers.
    pub count: u64,
    /// True if the assessment was the same to the digest.
    pub same_assessment: bool,
}

/// An act that a ledger may have judged otherwise. When it was judged, these entries show from below
/// alone: it may have been later by what a clock may be off, and meanwhile came one of these times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// Its deadline, or the end of a grant: it may be denied.
    pub ends: bool,
    /// The beginning of a grant: it may not be denied.
    pub begins: bool,
}

/// A task as its own entries have it. The messages are those in which a server tells the same.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskVerdict {
    /// The task.
    pub info: v1::TaskInfo,
    /// Its grants, in order.
    pub grants: Vec<v1::GrantInfo>,
    /// Its Intents, and what came of them, in order.
    pub acts: Vec<v1::ActInfo>,
    /// Its findings, in order. Numbers count the findings at a leaf that these entries show. None has
    /// a disposition: which finding one is of follows from all entries alone.
    pub findings: Vec<v1::Finding>,
    /// Acts that a ledger may have judged otherwise, by Intent.
    pub close: BTreeMap<u64, Close>,
    /// Its receipts, in order.
    pub receipts: Vec<Receipted>,
    /// The proofs of who spoke, by leaf.
    pub signed: BTreeMap<u64, Signed>,
    /// Effective time, as far as the entries show it.
    pub known_time: Micros,
    /// The trust state behind the last trust statement that was given.
    pub trust: TrustState,
    /// Facts that stay the operator's word.
    pub unshown: Vec<Unshown>,
}

impl TaskVerdict {
    /// The act whose Intent is at a leaf.
    #[must_use]
    pub fn act(&self, intent_leaf: u64) -> Option<&v1::ActInfo> {
        self.acts.iter().find(|act| act.intent_leaf == intent_leaf)
    }

    /// The last leaf up to which a receipt says that these are all of the task's entries.
    #[must_use]
    pub fn receipted(&self) -> Option<u64> {
        self.receipts.last().map(|receipt| receipt.through_leaf)
    }
}

impl TaskReplay {
    /// Returns the verdict over the entries, of a tree of `size` leaves.
    ///
    /// # Errors
    /// [`ReplayError`] if the ledger had to write something for the task that was not given.
    pub fn end(mut self, size: u64) -> Result<TaskVerdict, ReplayError> {
        let behind = self.unit_end.max(self.running.last_leaf).saturating_add(1);
        if behind < size {
            self.nothing_is_pending(behind)
                .map_err(ReplayError::at(behind))?;
        }
        self.settle();
        let task = self.task_cell();
        let acts = self.intents.iter();
        let acts: Vec<_> = acts.filter_map(|leaf| self.act(*leaf, &task)).collect();
        let grants = self.grants.iter();
        let grants = grants.filter_map(|(_, hash)| self.grant(*hash, &task));
        let findings = self.kept.findings.values();
        let findings = findings.filter(|one| one.task == self.task.as_bytes()[..]);
        let findings = findings.map(|one| v1::Finding {
            disposition_leaf: None,
            disposition: 0,
            ..one.clone()
        });
        let close = self.intents.iter().copied();
        Ok(TaskVerdict {
            close: close
                .filter_map(|leaf| Some((leaf, self.close(leaf)?)))
                .collect(),
            info: self.info(&task, acts.len() as u64),
            grants: grants.collect(),
            acts,
            findings: findings.collect(),
            unshown: self.unshown(size),
            receipts: self.receipts,
            signed: self.signed,
            known_time: self.at,
            trust: self.chain.into_trust(),
        })
    }

    fn unshown(&self, size: u64) -> Vec<Unshown> {
        let last = self.receipts.last();
        let receipted = last.map(|receipt| receipt.through_leaf);
        // Behind a receipt more may come, of a closed task too: late Outcomes and Observations.
        let more = |receipt: &Receipted| receipt.leaf.checked_add(1) != Some(size);
        let mut unshown = Vec::new();
        if last.is_none_or(more) {
            unshown.push(Unshown::Entries { receipted });
        }
        let leaf = self.trust().head().leaf_index.get();
        unshown.push(Unshown::Trust { leaf });
        unshown.push(Unshown::Outside);
        unshown.push(Unshown::Received);
        let waits = |timer: &crate::assess::Timer| !matches!(timer.kind, TimerKind::Session(_));
        if self.kept.timers.keys().any(waits) {
            unshown.push(Unshown::Time { known: self.at });
        }
        if self.shared {
            unshown.push(Unshown::Shared);
        }
        unshown.extend(self.unshown.iter().copied());
        let other = self.receipts.iter().filter(|one| !one.same_assessment);
        unshown.extend(other.map(|one| Unshown::Assessment { leaf: one.leaf }));
        unshown
    }

    fn cell<T: prost::Message + Default>(&self, key: &CellKey) -> Option<T> {
        T::decode(self.kept.cells.get(key)?.clone()).ok()
    }

    fn task_cell(&self) -> cells::Task {
        self.cell(&CellKey::Task(self.task)).unwrap_or_default()
    }

    fn info(&self, task: &cells::Task, acts: u64) -> v1::TaskInfo {
        v1::TaskInfo {
            task: Bytes::copy_from_slice(self.task.as_bytes()),
            state: task.state,
            opened_leaf: task.opened_leaf,
            closed_leaf: task.closed_leaf,
            closed_at_us: task.closed_at_us,
            count: self.running.count,
            digest: Bytes::copy_from_slice(self.running.digest.as_bytes()),
            assessment_digest: task.assessment.clone().into(),
            receipt_leaf: task.receipt_leaf,
            findings: task.findings,
            acts,
            last_leaf: self.running.last_leaf,
            risk_tier: task.tier,
            opened: task.opened,
        }
    }

    fn act(&self, leaf: u64, task: &cells::Task) -> Option<v1::ActInfo> {
        let act = self.act_cell(leaf, task)?;
        Some(layers::info(act, Some(task), self.trust()))
    }

    fn act_cell(&self, leaf: u64, task: &cells::Task) -> Option<cells::Act> {
        let kept = cells::Act::read(leaf, |key| {
            Ok::<_, std::convert::Infallible>(self.kept.cells.get(key).cloned())
        });
        let Ok(kept) = kept;
        // The machine has encoded it.
        kept.and_then(Result::ok).or_else(|| {
            let recorded = self.implicit.get(&leaf)?;
            let second = CellKey::Equivocation(recorded.session, recorded.sequence);
            let second: Option<cells::Leaves> = self.cell(&second);
            recorded.act(Some(task), second.as_ref())
        })
    }

    /// Returns true if a time that the act at `leaf` was judged by may have come already when it was
    /// judged.
    pub(super) fn close(&self, leaf: u64) -> Option<Close> {
        let act = self.act_cell(leaf, &self.task_cell())?;
        let grants = self.grants.iter();
        let named = grants.filter(|(leaf, _)| Some(*leaf) == act.grant_leaf);
        let chain: Vec<_> = named.flat_map(|(_, hash)| self.chain(*hash)).collect();
        // It is judged again with each piece of evidence. That its deadline has passed by then is
        // found at a leaf of its own.
        let judged = act.evidence.iter().map(|one| one.at_us);
        let judged: Vec<i64> = judged.chain([act.at_us]).collect();
        let comes = |edge: i64, at: i64| at < edge && edge <= at.saturating_add(SKEW_US);
        let any = |edge: i64| judged.iter().any(|at| comes(edge, *at));
        let close = Close {
            ends: comes(act.deadline_us, act.at_us)
                || chain.iter().any(|grant| any(grant.expires_us)),
            begins: chain.iter().any(|grant| any(grant.not_before_us)),
        };
        (close.ends || close.begins).then_some(close)
    }

    /// A grant, the one that it is a part of, and so on up to the root.
    fn chain(&self, hash: Hash) -> Vec<cells::Grant> {
        let (mut chain, mut next) = (Vec::<cells::Grant>::new(), Some(hash));
        while let Some(name) = next
            && chain.len() <= CHAIN_MAX as usize
            && let Some(grant) = self.cell::<cells::Grant>(&CellKey::Grant(name))
        {
            next = Hash::try_from(&grant.parent[..]).ok();
            chain.push(grant);
        }
        chain
    }

    fn grant(&self, hash: Hash, task: &cells::Task) -> Option<v1::GrantInfo> {
        let chain = self.chain(hash);
        let grant = chain.first()?;
        let closed = task.state() == TaskState::Closed;
        let (state, from) = effective_state(&chain, self.trust(), closed, self.at);
        Some(v1::GrantInfo {
            leaf_index: grant.leaf,
            leaf_hash: Bytes::copy_from_slice(hash.as_bytes()),
            state: state.into(),
            state_from_leaf: Some(from).filter(|from| *from != grant.leaf),
            accepted_leaf: grant.accepted_leaf,
            parent_leaf: grant.parent_leaf,
            uses_spent: grant.uses_spent,
            amount_spent: grant.amount_spent,
            rooted: grant.rooted,
        })
    }
}
