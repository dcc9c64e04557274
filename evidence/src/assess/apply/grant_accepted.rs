//! GrantAccepted.

use deed_proto::v1::{FindingKind, GrantState};
use deed_tlog::Hash;

use super::{Apply, Author};
use crate::{
    TaskId,
    assess::{
        View,
        act::copied,
        cells::{self, CellKey},
        grant::{is_subject, machine_state},
        table::{self, Event, Machine, State},
    },
};

impl<V: View> Apply<'_, V> {
    /// Lets a grant be in force that its subject takes on.
    pub(super) fn grant_accepted(&mut self, task: TaskId, name: &Hash) -> Result<(), V::Error> {
        let ended = self.task_has_ended(task)?;
        let key = CellKey::Grant(*name);
        let Some(grant) = self.cells.change::<Box<cells::Grant>>(key)? else {
            return self
                .find(FindingKind::UnknownGrant)
                .says("there is no such grant to accept");
        };
        let (kind, detail) = if grant.task[..] != task.as_bytes()[..] {
            (FindingKind::UnknownGrant, "the grant is another task's")
        } else if !is_subject(grant, self.author.producer, self.author.key) {
            (
                FindingKind::WrongRole,
                "a grant is accepted by its subject, with its key",
            )
        } else if !accepts(grant, self.author, machine_state(grant, ended, self.at)) {
            (
                FindingKind::OutOfPlace,
                "the grant does not wait for an acceptance",
            )
        } else {
            grant.set_state(GrantState::Active);
            grant.accepted_leaf = Some(self.leaf);
            grant.accepted_signed = !self.author.is_claim();
            grant.accepted_key = copied(self.author.key_bytes());
            grant.accepted_at_us = self.at.get();
            return Ok(());
        };
        let leaf = Some(grant.leaf);
        self.find(kind).contradicts(leaf).says(detail)
    }
}

/// Returns true if the grant waits for its subject's acceptance, or has only a claimed one, and this one
/// is proven.
fn accepts(grant: &cells::Grant, author: Author<'_>, state: State) -> bool {
    let displaces = state == State::Active
        && grant.accepted_leaf.is_some()
        && !grant.accepted_signed
        && !author.is_claim();
    displaces || table::find(Machine::Grant, state, Event::Accepted).is_some()
}
