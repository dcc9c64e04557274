//! The times at which ledgers that are not in memory are checked for deadlines.

use std::time::Duration;

use deed_evidence::Micros;

/// Time between two checks of the ledgers that are not in memory, which read one key of each. A
/// ledger with a deadline before the next check is loaded, so nothing is late because nobody has
/// asked for its ledger.
pub const UNLOADED_INTERVAL: Duration = Duration::from_secs(60);

/// Returns the latest time at which ledgers that are not in memory are checked again.
pub fn next_look(now: Micros) -> Micros {
    let interval = i64::try_from(UNLOADED_INTERVAL.as_micros()).unwrap_or(i64::MAX);
    Micros::new(now.get().saturating_add(interval))
}
