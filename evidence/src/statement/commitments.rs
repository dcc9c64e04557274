//! Commitments of a statement to contents.

use super::{BodyKind, number, parse};
use crate::{
    CommitmentDigest, WireError, schema,
    wire::{self, Message, Value},
};

/// One commitment of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitmentSlot<'a> {
    /// The field that holds it, for example `intent.arguments`: what salts are derived with.
    pub slot: &'static str,
    /// The digest of the content.
    pub digest: CommitmentDigest,
    /// The media type of the content, by the producer's word.
    pub media_type: &'a str,
}

/// The commitments of one statement in the order of their fields: at most four. Iterate, or look
/// at them as a slice of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commitments<'a> {
    slots: [Option<CommitmentSlot<'a>>; SLOTS_MAX],
    next: usize,
}

/// Outcome has the most.
const SLOTS_MAX: usize = 4;

/// Lists the commitments of a statement. Allocates nothing unless it fails.
///
/// # Errors
/// As [`parse`]: the payload is checked whole.
pub fn commitments(payload: &[u8]) -> Result<Commitments<'_>, WireError> {
    let header = parse(payload)?;
    let Some((table, number)) = table_of(header.body) else {
        return Ok(Commitments::default());
    };
    let mut body: &[u8] = &[];
    wire::walk(&schema::STATEMENT, payload, |field, value| {
        if let Value::Bytes(bytes) = value
            && field.number == number
        {
            body = bytes;
        }
    })?;
    let mut found = Commitments::default();
    wire::walk(table, body, |field, value| {
        if let (Some(slot), Value::Bytes(bytes)) = (slot_name(header.body, field.number), value) {
            found.push(read(slot, bytes));
        }
    })?;
    found.next = 0;
    Ok(found)
}

impl<'a> Commitments<'a> {
    /// Returns true if the statement commits to no content.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots[0].is_none()
    }

    fn push(&mut self, slot: Option<CommitmentSlot<'a>>) {
        if let Some(free) = self.slots.get_mut(self.next) {
            *free = slot;
            self.next += usize::from(slot.is_some());
        }
    }
}

impl<'a> Iterator for Commitments<'a> {
    type Item = CommitmentSlot<'a>;

    fn next(&mut self) -> Option<CommitmentSlot<'a>> {
        let slot = self.slots.get(self.next).copied().flatten()?;
        self.next += 1;
        Some(slot)
    }
}

fn table_of(body: BodyKind) -> Option<(&'static Message, u32)> {
    match body {
        BodyKind::TaskOpened => Some((&schema::TASK_OPENED, number::TASK_OPENED)),
        BodyKind::Intent => Some((&schema::INTENT, number::INTENT)),
        BodyKind::Outcome => Some((&schema::OUTCOME, number::OUTCOME)),
        BodyKind::Approval => Some((&schema::APPROVAL, number::APPROVAL)),
        _ => None,
    }
}

/// A test holds these against the tables: every field that is a commitment, and no other.
pub(crate) const fn slot_name(body: BodyKind, field: u32) -> Option<&'static str> {
    Some(match (body, field) {
        (BodyKind::TaskOpened, 2) => "task_opened.objective_commitment",
        (BodyKind::Intent, 6) => "intent.arguments",
        (BodyKind::Intent, 7) => "intent.prompt",
        (BodyKind::Outcome, 4) => "outcome.tool_call",
        (BodyKind::Outcome, 5) => "outcome.response",
        (BodyKind::Outcome, 6) => "outcome.result",
        (BodyKind::Outcome, 7) => "outcome.arguments",
        (BodyKind::Approval, 3) => "approval.shown",
        _ => return None,
    })
}

fn read<'a>(slot: &'static str, bytes: &'a [u8]) -> Option<CommitmentSlot<'a>> {
    let (mut digest, mut media_type) = (None, "");
    // Checked on the way here.
    let _ = wire::walk(&schema::COMMITMENT, bytes, |field, value| {
        match (field.number, value) {
            (1, Value::Bytes(b)) => digest = CommitmentDigest::from_slice(b),
            (2, Value::Bytes(b)) => media_type = std::str::from_utf8(b).unwrap_or_default(),
            _ => {}
        }
    });
    Some(CommitmentSlot {
        slot,
        digest: digest?,
        media_type,
    })
}
