//! The header of a statement.

use std::ops::Deref;

use super::{body_kind::BodyKind, breach::Breach};
use crate::{LedgerId, Micros, PayloadDigest, Sequence, SessionId, TaskId};

/// The header of a statement, borrowed from its payload.
///
/// [`parse`](super::parse) returns it only for a payload that keeps every rule of
/// `deed/v1/statement.proto`, but for three things. Rules that hold from rules version 2 on are in
/// [`SessionHeader::breach`]. The origin, the keys and the rules version of a genesis statement are
/// read once, by [`Genesis::from_entry`](crate::genesis::Genesis::from_entry). What a PolicySet's
/// texts say, and whether their digest is right, is found out where they are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The ledger it is for; `None` in a genesis statement alone.
    pub ledger_id: Option<LedgerId>,
    /// The time of the event, by the producer's clock.
    pub occurred_at: Micros,
    /// The rest; its fields are read as those of the header.
    pub in_session: SessionHeader<'a>,
}

impl<'a> Deref for Header<'a> {
    type Target = SessionHeader<'a>;

    fn deref(&self) -> &SessionHeader<'a> {
        &self.in_session
    }
}

/// The part of a header by which a statement that was admitted is placed and judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionHeader<'a> {
    /// The producer.
    pub producer: &'a str,
    /// Its session. All zero in a genesis statement, which has none; a producer may call its
    /// own session so as well.
    pub session: SessionId,
    /// Its position there.
    pub sequence: Sequence,
    /// Digest of the payload before it.
    pub previous: Option<PayloadDigest>,
    /// First sequence that the producer says it lost.
    pub skipped_from: Option<Sequence>,
    /// The task it belongs to.
    pub task: Option<TaskId>,
    /// The kind of its body.
    pub body: BodyKind,
    /// The first of its forms that only rules version 1 takes.
    pub breach: Option<Breach>,
}
