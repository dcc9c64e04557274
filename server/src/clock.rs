//! The clock, injected so that tests decide what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use deed_evidence::Micros;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, UTC.
    fn now(&self) -> Micros;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Micros::new(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}
