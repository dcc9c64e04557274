//! What is due: what happens when effective time has come so far, although nobody says anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{KeyId, Micros, SessionId, TaskId};

/// Something that happens when effective time has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Due {
    /// When.
    pub at: Micros,
    /// The leaf that it was set by.
    pub leaf: u64,
    /// What.
    pub what: DueOf,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DueOf {
    /// The task ends.
    Task(TaskId),
    /// The Intent at this leaf lapses, or is overdue.
    Intent(u64),
    /// The Outcome of the Intent at this leaf stays uncorroborated.
    Observation(u64),
    /// The session has broken its promise.
    Session(SessionId),
    /// Further tasks of the compromised key are looked at.
    Compromised(KeyId),
}

impl Due {
    /// As it is stored: in byte order of time, then leaf. 33 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 33] {
        let mut bytes = [0; 33];
        bytes[..8].copy_from_slice(&self.at.get().to_be_bytes());
        bytes[8..16].copy_from_slice(&self.leaf.to_be_bytes());
        let (kind, id) = match self.what {
            DueOf::Task(task) => (1, *task.as_bytes()),
            DueOf::Intent(leaf) => (2, padded(leaf)),
            DueOf::Observation(leaf) => (3, padded(leaf)),
            DueOf::Session(session) => (4, *session.as_bytes()),
            DueOf::Compromised(key) => (5, *key.as_bytes()),
        };
        bytes[16] = kind;
        bytes[17..].copy_from_slice(&id);
        bytes
    }

    /// Reads what [`Due::to_bytes`] writes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 33] = bytes.try_into().ok()?;
        let id: [u8; 16] = *bytes.last_chunk()?;
        let leaf = u64::from_be_bytes(*id.last_chunk()?);
        Some(Self {
            at: Micros::new(i64::from_be_bytes(*bytes.first_chunk()?)),
            leaf: u64::from_be_bytes(*bytes[8..16].first_chunk()?),
            what: match bytes[16] {
                1 => DueOf::Task(TaskId::new(id)),
                2 => DueOf::Intent(leaf),
                3 => DueOf::Observation(leaf),
                4 => DueOf::Session(SessionId::new(id)),
                5 => DueOf::Compromised(KeyId::new(id)),
                _ => return None,
            },
        })
    }
}

fn padded(leaf: u64) -> [u8; 16] {
    (u128::from(leaf)).to_be_bytes()
}

/// Everything that is due in a ledger, and what of it changed in this turn.
#[derive(Debug, Default)]
pub(super) struct Dues {
    all: BTreeSet<Due>,
    changed: BTreeMap<Due, bool>,
    /// Sessions that have promised to go on.
    promises: HashMap<SessionId, Due>,
}

impl Dues {
    pub(super) fn restore(all: impl Iterator<Item = Due>) -> Self {
        let all: BTreeSet<Due> = all.collect();
        let promises = all.iter().filter_map(|due| match due.what {
            DueOf::Session(session) => Some((session, *due)),
            _ => None,
        });
        Self {
            promises: promises.collect(),
            all,
            changed: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn first(&self) -> Option<Due> {
        self.all.first().copied()
    }

    pub(super) fn set(&mut self, due: Due) {
        if let DueOf::Session(session) = due.what {
            self.promises.insert(session, due);
        }
        if self.all.insert(due) {
            self.moved(due, true);
        }
    }

    pub(super) fn undo(&mut self, due: Due) {
        if let DueOf::Session(session) = due.what {
            self.promises.remove(&session);
        }
        if self.all.remove(&due) {
            self.moved(due, false);
        }
    }

    /// The session has spoken: it has kept its promise, if it gave one.
    pub(super) fn kept_promise(&mut self, session: SessionId) {
        if !self.promises.is_empty()
            && let Some(due) = self.promises.get(&session).copied()
        {
            self.undo(due);
        }
    }

    fn moved(&mut self, due: Due, set: bool) {
        // What was set and undone in one turn was never there.
        if self.changed.remove(&due).is_none() {
            self.changed.insert(due, set);
        }
    }

    pub(super) fn take_changes(&mut self) -> Vec<(Due, bool)> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }
}
