//! The past that the assessor reads.

use bytes::Bytes;

use super::{
    cells::CellKey,
    implicit_intent::ImplicitIntent,
    timer::{Owner, Timer},
};
use crate::{Sequence, SessionId};

/// The state that the assessor does not have at hand.
pub trait View {
    /// The error of a read that fails. The assessor must not be used after that.
    type Error;

    /// A cell's bytes as [`Changes`](super::Changes) gave them last.
    ///
    /// # Errors
    /// As the keeper of the cells says.
    fn cell(&mut self, key: &CellKey) -> Result<Option<Bytes>, Self::Error>;

    /// The leaf of a statement by its place in its session.
    ///
    /// # Errors
    /// As the keeper of the sessions says.
    fn leaf_of(
        &mut self,
        session: &SessionId,
        sequence: Sequence,
    ) -> Result<Option<u64>, Self::Error>;

    /// The producer that a session belongs to.
    ///
    /// # Errors
    /// As the keeper of the sessions says.
    fn producer_of(&mut self, session: &SessionId) -> Result<Option<String>, Self::Error>;

    /// The Intent in the entry at a leaf, as [`ImplicitIntent::read`] reads it; `None` if there is no
    /// such leaf, something else is there, or it is not what was recorded at its place in its session.
    ///
    /// # Errors
    /// As the keeper of the entries says.
    fn intent(&mut self, leaf: u64) -> Result<Option<ImplicitIntent>, Self::Error>;

    /// The owner of a timer, as [`Changes`](super::Changes) gave it last; `None` if it is not set.
    ///
    /// # Errors
    /// As the keeper of the timers says.
    fn timer(&mut self, timer: &Timer) -> Result<Option<Owner>, Self::Error>;

    /// The first `limit` timers behind `after`, in order: fewer only if there are no more.
    ///
    /// # Errors
    /// As the keeper of the timers says.
    fn timers_after(
        &mut self,
        after: Option<&Timer>,
        limit: usize,
    ) -> Result<Vec<(Timer, Owner)>, Self::Error>;

    /// The error for a cell whose bytes do not decode.
    fn damaged(&self, key: &CellKey) -> Self::Error;
}
