//! The past that the assessment of a task may read.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Last, RecordedLeaf};
use crate::{
    Sequence, SessionId,
    assess::{ImplicitIntent, Owner, Timer, View, cells::CellKey},
    replay::{Fault, Kept},
};

/// The state that the machine may ask for. Nothing is forgotten, so it asks for little.
pub(super) struct Past<'a> {
    pub(super) kept: &'a Kept,
    pub(super) implicit: &'a HashMap<u64, ImplicitIntent>,
    pub(super) places: &'a HashMap<(SessionId, Sequence), RecordedLeaf>,
    pub(super) sessions: &'a HashMap<SessionId, Last>,
}

impl View for Past<'_> {
    type Error = Fault;

    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, Fault> {
        Ok(self.kept.cell(key))
    }

    fn leaf_of(&mut self, session: &SessionId, sequence: Sequence) -> Result<Option<u64>, Fault> {
        Ok(self
            .places
            .get(&(*session, sequence))
            .map(|recorded| recorded.leaf))
    }

    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, Fault> {
        let last = self.sessions.get(session);
        Ok(last.map(|last| last.producer.clone()))
    }

    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, Fault> {
        Ok(self.implicit.get(&leaf).cloned())
    }

    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, Fault> {
        Ok(self.kept.timers.get(timer).copied())
    }

    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, Fault> {
        Ok(self.kept.timers_after(after, limit))
    }

    fn damaged(&self, key: &CellKey) -> Fault {
        Fault::Damaged {
            key: hex::encode(key.to_bytes()),
        }
    }
}
