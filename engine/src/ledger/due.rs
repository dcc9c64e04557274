//! When ledgers that are not in memory are looked at for what is due in them.

use std::time::Duration;

use deed_evidence::Micros;

/// Between two looks at ledgers that are not in memory: one key is read of each. Loaded is what will be
/// due by the next look, so that nothing is late because nobody has asked for its ledger.
pub const UNLOADED_INTERVAL: Duration = Duration::from_secs(60);

/// Returns the latest time at which ledgers that are not in memory are looked at again.
pub fn next_look(now: Micros) -> Micros {
    let interval = i64::try_from(UNLOADED_INTERVAL.as_micros()).unwrap_or(i64::MAX);
    Micros::new(now.get().saturating_add(interval))
}
