//! The turn that a guard's record names.

use super::GuardedHead;
use crate::store::{Store, StoreError};

/// Compares the turn that a record names with the store's newest, which may be a later one. The error is
/// what the store has instead.
pub(super) fn has_turn(
    slot: u8,
    guarded: &GuardedHead,
    store: &Store,
) -> Result<Result<(), String>, StoreError> {
    if guarded.turn == 0 {
        return Ok(Ok(()));
    }
    let newest = store.newest_turn(slot)?;
    Ok(if newest.number < guarded.turn {
        Err(format!("ends with turn {}", newest.number))
    } else if newest.number == guarded.turn && newest.digest != guarded.digest {
        Err("has another turn of that number".to_owned())
    } else {
        Ok(())
    })
}
