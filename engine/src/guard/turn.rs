//! The turn that a guard's record names.

use super::GuardedHead;
use crate::store::{Store, StoreError};

/// Compares the turn that a record names with the store's newest turn, which may be a later one.
/// Returns the difference, in words that begin with a verb; `None` if the store has the turn.
pub(super) fn missing_turn(
    slot: u8,
    guarded: &GuardedHead,
    store: &Store,
) -> Result<Option<String>, StoreError> {
    if guarded.turn == 0 {
        return Ok(None);
    }
    let newest = store.newest_turn(slot)?;
    Ok(if newest.number < guarded.turn {
        Some(format!("ends with turn {}", newest.number))
    } else if newest.number == guarded.turn && newest.digest != guarded.digest {
        Some("has another turn of that number".to_owned())
    } else {
        None
    })
}
