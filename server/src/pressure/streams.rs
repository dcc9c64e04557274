//! Streams that a connection has open.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::status::Refusal;

/// When a caller should try again that has too many streams open: only its own doing helps.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts by connection.
#[derive(Debug)]
pub(super) struct OpenStreams {
    max: usize,
    open: Mutex<HashMap<u64, usize>>,
}

/// A stream that is open, until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream(Option<(Arc<OpenStreams>, u64)>);

impl OpenStreams {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            open: Mutex::default(),
        }
    }

    pub(super) fn open(self: &Arc<Self>, connection: u64) -> Result<OpenStream, Refusal> {
        let mut open = self.open.lock();
        let count = open.entry(connection).or_insert(0);
        if *count == self.max {
            return Err(Refusal::Quota {
                what: format!(
                    "this connection has {count} streams of reads open, and more are not allowed; \
                     end one first, or open another connection"
                ),
                retry_after: RETRY_AFTER,
            });
        }
        *count += 1;
        Ok(OpenStream(Some((Arc::clone(self), connection))))
    }
}

impl OpenStream {
    pub(super) fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Some((streams, connection)) = &self.0 else {
            return;
        };
        let mut open = streams.open.lock();
        if let Some(count) = open.get_mut(connection) {
            *count -= 1;
            if *count == 0 {
                open.remove(connection);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_has_its_own_bound_and_what_ends_makes_room() {
        let streams = Arc::new(OpenStreams::new(2));
        let first = streams.open(1).unwrap();
        let _second = streams.open(1).unwrap();
        assert!(matches!(streams.open(1), Err(Refusal::Quota { .. })));
        let other = streams.open(2).unwrap();
        drop(first);
        let _third = streams.open(1).unwrap();
        drop(other);
        assert_eq!(streams.open.lock().len(), 1);
    }
}
