//! Commitments of a statement to contents.

use super::{BodyKind, fields::texts, parse};
use crate::{
    CommitmentDigest, WireError,
    schema::{self, COMMITMENTS, COMMITMENTS_MAX},
    wire::{self, Value},
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

/// The commitments of one statement in the order of their fields. Iterate, or look at them as a
/// slice of options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Commitments<'a> {
    slots: [Option<CommitmentSlot<'a>>; COMMITMENTS_MAX],
    next: usize,
}

/// Lists the commitments of a statement. Allocates nothing unless it fails.
///
/// # Errors
/// As [`parse`]: the payload is checked whole.
pub fn commitments(payload: &[u8]) -> Result<Commitments<'_>, WireError> {
    let header = parse(payload)?;
    let number = header.body.number();
    if !COMMITMENTS
        .iter()
        .any(|commitment| commitment.body == number)
    {
        return Ok(Commitments::default());
    }
    let [body] = texts(payload, [number]);
    let mut found = Commitments::default();
    wire::walk(header.body.table(), body, |field, value| {
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

/// The name of the body's field, if that is a commitment.
pub(crate) fn slot_name(body: BodyKind, field: u32) -> Option<&'static str> {
    COMMITMENTS
        .iter()
        .find(|commitment| (commitment.body, commitment.field) == (body.number(), field))
        .map(|commitment| commitment.name)
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
