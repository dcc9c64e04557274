//! The clock: a trait, so that tests decide what time it is.

pub mod ahead;
pub mod confirmation;
pub mod keeper;

use std::time::{SystemTime, UNIX_EPOCH};

use deed_evidence::Micros;

pub use confirmation::{ConfirmError, confirm};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time, UTC.
    fn now(&self) -> Micros;

    /// Returns the time since the machine was booted, by a clock that cannot be set and that goes
    /// on while the machine sleeps; `None` if there is none.
    fn since_boot(&self) -> Option<Micros> {
        None
    }

    /// Returns an id that is different after each boot; `None` if the machine has none.
    fn boot_id(&self) -> Option<String> {
        None
    }
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

    #[cfg(target_os = "linux")]
    fn since_boot(&self) -> Option<Micros> {
        use rustix::time::{ClockId, clock_gettime};
        let time = clock_gettime(ClockId::Boottime);
        let seconds = time.tv_sec.saturating_mul(1_000_000);
        Some(Micros::new(seconds.saturating_add(time.tv_nsec / 1_000)))
    }

    #[cfg(target_os = "linux")]
    fn boot_id(&self) -> Option<String> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }
}
