//! TaskOpened.

use bytes::Bytes;
use deed_proto::v1::{FindingKind, KeyRole, LayerState, RiskTier, TaskState};

use super::Apply;
use crate::{
    Micros, TaskId,
    assess::{
        View,
        act::copied,
        table::{self, Event, Machine},
        task::{machine_state, task_timer},
    },
};

impl<V: View> Apply<'_, V> {
    /// Opens a task, or finds why its author may not.
    pub(super) fn task_opened(
        &mut self,
        id: TaskId,
        tier: RiskTier,
        deadline: Micros,
    ) -> Result<(), V::Error> {
        let Some(task) = self.cells.change_task(id)? else {
            return Ok(());
        };
        let may = self.author.is_authority() || self.author.has_role(KeyRole::Platform);
        // A speaker that may open it comes before one that only says so.
        let displaces =
            may && task.state() == TaskState::Open && task.opened() != LayerState::Proven;
        if !displaces && table::find(Machine::Task, machine_state(task), Event::Opened).is_none() {
            let opened = task.opened_leaf;
            return self
                .object(FindingKind::OutOfPlace)
                .contradicts(opened)
                .says("the task was opened before");
        }
        if self.author.is_signed() && !may && !self.author.has_role(KeyRole::Importer) {
            // Else an agent would choose its own risk tier, and with it what is asked of it.
            return self
                .find(FindingKind::WrongRole)
                .says("a task is opened by a platform or an authority");
        }
        if let Some(timer) = task_timer(task, id) {
            self.timers.undo(timer);
        }
        task.opened_leaf = Some(self.leaf);
        task.opened_at_us = self.at.get();
        task.opener = self.author.producer.to_owned();
        task.opener_key = match self.author.key {
            Some(key) if !self.author.is_authority() => copied(key.as_bytes()),
            _ => Bytes::new(),
        };
        task.set_tier(tier);
        task.deadline_us = deadline.get();
        task.opened_by = self.author.controller().unwrap_or_default().to_owned();
        task.set_opened(if may {
            LayerState::Proven
        } else {
            LayerState::Claimed
        });
        task.set_state(TaskState::Open);
        if let Some(timer) = task_timer(task, id) {
            self.timers.set(timer);
        }
        self.task_moved(id, TaskState::Open)
    }
}
