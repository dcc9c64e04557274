//! How many uploads run at once.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Counts of uploads, over all and by connection.
pub(super) struct UploadSlots {
    max: usize,
    connection_max: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    count: usize,
    by_connection: HashMap<u64, usize>,
}

/// An upload's slot, until it is dropped.
#[must_use]
pub(crate) struct UploadSlot {
    slots: Arc<UploadSlots>,
    connection: u64,
}

impl UploadSlots {
    pub(super) fn new(max: usize, connection_max: usize) -> Self {
        Self {
            max,
            connection_max,
            open: Mutex::default(),
        }
    }

    /// `None` if too many run. Connection 0 stands for those that are not known, which share only
    /// the bound over all.
    pub(super) fn take(self: &Arc<Self>, connection: u64) -> Option<UploadSlot> {
        let mut open = self.open.lock();
        let of_connection = open.by_connection.get(&connection).copied().unwrap_or(0);
        let connection_full = connection != 0 && of_connection >= self.connection_max;
        if open.count >= self.max || connection_full {
            return None;
        }
        open.count += 1;
        open.by_connection.insert(connection, of_connection + 1);
        Some(UploadSlot {
            slots: Arc::clone(self),
            connection,
        })
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        let mut open = self.slots.open.lock();
        open.count -= 1;
        if let Some(count) = open.by_connection.get_mut(&self.connection) {
            *count -= 1;
            if *count == 0 {
                open.by_connection.remove(&self.connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_bounded_over_all_and_by_connection_and_what_ends_makes_room() {
        let slots = Arc::new(UploadSlots::new(4, 2));
        let first = slots.take(1);
        let second = slots.take(1);
        assert!(first.is_some() && second.is_some());
        assert!(slots.take(1).is_none());
        let others = [slots.take(0), slots.take(0)];
        assert!(others.iter().all(Option::is_some));
        assert!(slots.take(2).is_none());
        drop(first);
        assert!(slots.take(2).is_some());
        drop((second, others));
        let open = slots.open.lock();
        assert_eq!((open.count, open.by_connection.len()), (0, 0));
    }
}
