//! Commitments of a statement to contents.

use super::{
    BodyKind, Header,
    fields::{Fields, texts},
    parse,
};
use crate::{
    CommitmentDigest, WireError,
    schema::{COMMITMENTS, COMMITMENTS_MAX},
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
    Ok(commitments_of(&header, payload))
}

/// Lists the commitments of a statement that was parsed: `header` is what [`parse`] returned for
/// `payload`. Checks nothing again, and allocates nothing.
#[must_use]
pub fn commitments_of<'a>(header: &Header<'_>, payload: &'a [u8]) -> Commitments<'a> {
    let mut found = Commitments::default();
    let number = header.body.number();
    if !COMMITMENTS
        .iter()
        .any(|commitment| commitment.body == number)
    {
        return found;
    }
    let [body] = texts(payload, [number]);
    for (field, bytes) in Fields(body).texts() {
        if let Some(slot) = slot_name(header.body, field) {
            found.push(read(slot, bytes));
        }
    }
    found.next = 0;
    found
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
    let [digest, media_type] = texts(bytes, [1, 2]);
    Some(CommitmentSlot {
        slot,
        digest: CommitmentDigest::from_slice(digest)?,
        media_type: std::str::from_utf8(media_type).unwrap_or_default(),
    })
}
