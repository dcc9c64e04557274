//! Revocation.

use deed_proto::v1::{FindingKind, GrantState};
use deed_tlog::Hash;

use super::Apply;
use crate::{
    TaskId,
    assess::{
        View,
        cells::{self, CellKey},
        grant::machine_state,
        table::{self, Event, Machine},
    },
};

impl<V: View> Apply<'_, V> {
    /// Ends a grant.
    pub(super) fn revocation(&mut self, task: TaskId, name: &Hash) -> Result<(), V::Error> {
        let key = CellKey::Grant(*name);
        let ended = self.task_has_ended(task)?;
        let found = self.cells.change::<Box<cells::Grant>>(key)?;
        let (kind, detail) = match found {
            Some(grant) if grant.task[..] != task.as_bytes()[..] => {
                (FindingKind::UnknownGrant, "the grant is another task's")
            }
            Some(grant)
                if table::find(
                    Machine::Grant,
                    machine_state(grant, ended, self.at),
                    Event::Revoked,
                )
                .is_none() =>
            {
                (
                    FindingKind::OutOfPlace,
                    "the grant had ended, or never was one",
                )
            }
            Some(grant) => {
                grant.set_state(GrantState::Revoked);
                grant.revoked_leaf = Some(self.leaf);
                return Ok(());
            }
            None => (
                FindingKind::UnknownGrant,
                "there is no such grant to revoke",
            ),
        };
        self.find(kind).says(detail)
    }
}
