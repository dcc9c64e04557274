//! Intents that their open task cleared: no cell is kept, for their entry says everything.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use deed_proto::v1::{IntentState, LayerState};
use deed_tlog::{Hash, leaf_hash};

use super::{
    act::{copied, copied_of},
    body::{Body, ParsedBody},
    cells::{Act, Leaves, Task},
};
use crate::{
    CommitmentDigest, KeyId, Micros, PayloadDigest, Sequence, SessionId, TaskId,
    entry::{Entry, EntryError},
};

/// An Intent as its entry has it, as far as an [`Act`] holds it.
///
/// A ledger without an evidence policy clears an Intent that relies on no grant, has no deadline
/// and names no amount if its task is open. What becomes of it at its leaf follows from its entry,
/// so no cell is written: it gets one when something else is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImplicitIntent {
    /// Its leaf.
    pub leaf: u64,
    /// Its leaf hash.
    pub leaf_hash: Hash,
    /// The digest of its payload.
    pub payload_digest: PayloadDigest,
    /// Its task.
    pub task: TaskId,
    /// Its session.
    pub session: SessionId,
    /// Its place there.
    pub sequence: Sequence,
    /// The key that signed it, or the manifest over it.
    pub key: Option<KeyId>,
    /// Its receive time, which is effective time at its leaf where no cell is kept.
    pub received_at: Micros,
    /// The digest of its arguments.
    pub arguments: Option<CommitmentDigest>,
    /// True if the prompt is committed to.
    pub prompt: bool,
    /// The resource that it acts on.
    pub resource: Box<str>,
}

impl ImplicitIntent {
    /// Reads the entry at `leaf`; `None` if it is no Intent of a task. `bound_to` tells the key that
    /// a session is bound to; it is asked for what the signature over a batch covers.
    ///
    /// # Errors
    /// As `bound_to`, and [`EntryError`] if these are not the bytes of an entry.
    pub fn read<E: From<EntryError>>(
        leaf: u64,
        entry: &Bytes,
        bound_to: impl FnOnce(SessionId) -> Result<Option<KeyId>, E>,
    ) -> Result<Option<Self>, E> {
        use deed_proto::v1::{Author, PayloadType};
        let parsed = Entry::parse(entry)?;
        if parsed.payload_type != PayloadType::Statement {
            return Ok(None);
        }
        let header = parsed.statement().map_err(EntryError::from)?;
        let (Some(task), crate::statement::BodyKind::Intent) = (header.task, header.body) else {
            return Ok(None);
        };
        let said = ParsedBody::read(&entry.slice_ref(parsed.payload)).map_err(EntryError::from)?;
        let Body::Intent(intent) = said.body else {
            return Ok(None);
        };
        let key = match parsed.author {
            Author::Batched => bound_to(header.session)?,
            _ => parsed.signature.map(|signature| signature.key()),
        };
        Ok(Some(Self {
            leaf,
            leaf_hash: leaf_hash(entry),
            payload_digest: PayloadDigest::of(parsed.payload),
            task,
            session: header.session,
            sequence: header.sequence,
            key,
            received_at: parsed.received_at,
            arguments: intent.arguments,
            prompt: intent.prompt,
            resource: intent.resource.in_payload(parsed.payload).into(),
        }))
    }

    /// The act, if no cell is kept of it: `task` is its task, and `equivocations` are the leaves of
    /// the second statements for its place in its session. `None` if it was recorded before its
    /// ledger assessed anything, or is such a second statement: these are no acts.
    #[must_use]
    pub fn act(&self, task: Option<&Task>, equivocations: Option<&Leaves>) -> Option<Act> {
        let assessed = task.is_some_and(|task| task.first_leaf <= self.leaf);
        let second = equivocations.is_some_and(|leaves| leaves.leaves.contains(&self.leaf));
        (assessed && !second).then(|| self.cleared())
    }

    /// Bytes of memory that it takes.
    const fn held(&self) -> usize {
        size_of::<Self>() + self.resource.len() + 16
    }

    /// The act at its leaf.
    fn cleared(&self) -> Act {
        Act {
            leaf: self.leaf,
            leaf_hash: copied(self.leaf_hash.as_bytes()),
            payload_digest: copied(self.payload_digest.as_bytes()),
            task: copied(self.task.as_bytes()),
            key: copied_of(self.key.as_ref().map(|key| &key.as_bytes()[..])),
            at_us: self.received_at.get(),
            arguments: copied_of(self.arguments.as_ref().map(|digest| &digest.as_bytes()[..])),
            prompt: self.prompt,
            session: copied(self.session.as_bytes()),
            resource: self.resource.to_string(),
            authority: LayerState::Missing.into(),
            state: IntentState::Cleared.into(),
            ..Act::default()
        }
    }
}

/// Recent Intents: most Outcomes are of one of them. A cache of what can be read again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// Those of which no cell was kept when they were recorded, ascending by leaf.
    intents: VecDeque<ImplicitIntent>,
    /// Bytes that these hold.
    held: usize,
    /// Leaves by places in sessions, in two generations: when the young one is full, the old one is
    /// forgotten.
    young: HashMap<(SessionId, Sequence), u64>,
    old: HashMap<(SessionId, Sequence), u64>,
}

/// Places of a generation, and Intents that are held at most.
const RECENT_MAX: usize = 16_384;

/// Bytes that these Intents hold at most.
const RECENT_BYTES: usize = 4 << 20;

/// Bytes of a place: itself, and its room in a table of which half may be empty.
const PLACE_BYTES: usize = 2 * size_of::<((SessionId, Sequence), u64)>();

impl Recent {
    pub(super) fn place(&mut self, place: (SessionId, Sequence), leaf: u64) {
        if self.young.len() >= RECENT_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(place, leaf);
    }

    pub(super) fn leaf_of(&self, place: &(SessionId, Sequence)) -> Option<u64> {
        let leaf = self.young.get(place).or_else(|| self.old.get(place));
        leaf.copied()
    }

    pub(super) fn push(&mut self, intent: ImplicitIntent) {
        self.held += intent.held();
        self.intents.push_back(intent);
        // The newest one is never forgotten: it is asked for right away.
        while self.intents.len() > RECENT_MAX
            || (self.held > RECENT_BYTES && self.intents.len() > 1)
        {
            let oldest = self.intents.pop_front();
            self.held -= oldest.map_or(0, |oldest| oldest.held());
        }
    }

    pub(super) fn intent(&self, leaf: u64) -> Option<&ImplicitIntent> {
        let at = self.intents.binary_search_by_key(&leaf, |one| one.leaf);
        at.ok().and_then(|at| self.intents.get(at))
    }

    /// Bytes that are held, containers included: an estimate.
    pub(super) fn held(&self) -> usize {
        let places = self.young.len() + self.old.len();
        self.held + places * PLACE_BYTES
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(leaf: u64, name: usize) -> ImplicitIntent {
        ImplicitIntent {
            leaf,
            leaf_hash: Hash::new([0; 32]),
            payload_digest: PayloadDigest::new([0; 32]),
            task: TaskId::new([0; 16]),
            session: SessionId::new([0; 16]),
            sequence: Sequence::new(leaf),
            key: None,
            received_at: Micros::new(0),
            arguments: None,
            prompt: false,
            resource: "a".repeat(name).into(),
        }
    }

    /// Recent Intents are bounded in number and in bytes, their places in number, and the newest are
    /// kept.
    #[test]
    fn intents_of_late_are_bounded() {
        let mut recent = Recent::default();
        let many = 3 * RECENT_MAX as u64;
        for leaf in 0..many {
            recent.push(recorded(leaf, 0));
            recent.place((SessionId::new([0; 16]), Sequence::new(leaf)), leaf);
        }
        assert!(recent.intents.len() <= RECENT_MAX);
        assert!(recent.young.len() + recent.old.len() <= 2 * RECENT_MAX);
        let newest = (SessionId::new([0; 16]), Sequence::new(many - 1));
        assert_eq!(recent.leaf_of(&newest), Some(many - 1));
        assert!(recent.intent(many - 1).is_some() && recent.intent(0).is_none());
        for leaf in many..many + 100 {
            recent.push(recorded(leaf, 100_000));
            assert!(recent.held <= RECENT_BYTES, "{}", recent.held);
        }
        assert!(recent.intent(many + 99).is_some() && recent.intent(many - 1).is_none());
    }
}
