//! TaskClosed.

use deed_proto::v1::{FindingKind, KeyRole, LayerState};

use super::{Apply, Author};
use crate::{
    TaskId,
    assess::{
        View,
        cells::Task,
        table::{self, Event, Machine},
        task::machine_state,
    },
};

impl<V: View> Apply<'_, V> {
    /// Closes a task, or finds why its author may not.
    pub(super) fn task_closed(&mut self, id: TaskId) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(());
        };
        if table::find(Machine::Task, machine_state(task), Event::Closed).is_none() {
            let closed = task.closed_leaf;
            return self
                .object(FindingKind::OutOfPlace)
                .contradicts(closed)
                .says("the task is not open");
        }
        if !may_close(task, self.author) {
            return self
                .object(FindingKind::WrongRole)
                .says("a task is closed by an authority, or by whoever opened it");
        }
        task.closed_leaf = Some(self.leaf);
        self.close(id)
    }
}

/// Returns true if a speaker may end a task: an authority; a platform of the controller whose
/// platform opened it; or, where nobody proved the opening, the producer that the opening names.
fn may_close(task: &Task, author: Author<'_>) -> bool {
    if author.is_authority() {
        return true;
    }
    if task.opened() != LayerState::Proven {
        return author.producer == task.opener;
    }
    let same = author.controller() == Some(task.opened_by.as_str());
    author.has_role(KeyRole::Platform) && same
}
