//! Contents that come with statements, and contents that statements name.

use bytes::Bytes;
use deed_evidence::{
    CommitmentDigest,
    commitment::{self, Salt},
    statement::{self, Header},
};
use deed_proto::v1::{self, rejection::Reason};

use super::{Admitting, Rejected};
use crate::content::ATTACHMENT_BYTES_MAX;

/// Most attachments of a statement.
const ATTACHMENTS_MAX: usize = 8;

/// A content that came with a statement and opens one of its commitments.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Position of its envelope in the request.
    pub envelope: usize,
    pub digest: CommitmentDigest,
    pub salt: Salt,
    pub content: Bytes,
}

/// The contents that the statements of a request bring or name.
#[derive(Debug, Default)]
pub struct Contents {
    pub(crate) attached: Vec<Attached>,
    /// Envelope and digest of the commitments whose contents may be held already.
    pub named: Vec<(usize, CommitmentDigest)>,
}

impl Contents {
    /// Keeps the contents of statements that were admitted; `admitted` has the positions of their
    /// envelopes, in ascending order.
    pub(super) fn retain(&mut self, admitted: &[usize]) {
        let is_admitted = |envelope: &usize| admitted.binary_search(envelope).is_ok();
        self.attached.retain(|item| is_admitted(&item.envelope));
        self.named.retain(|(envelope, _)| is_admitted(envelope));
    }

    /// Returns true if the request brings and names no contents.
    pub fn is_empty(&self) -> bool {
        self.attached.is_empty() && self.named.is_empty()
    }
}

impl Admitting {
    /// Checks an envelope's attachments against the commitments of its statement, whose header is
    /// `header`. Where the ledger holds contents (`look`), the other commitments are noted too.
    pub(super) fn take_contents(
        &mut self,
        position: usize,
        envelope: &v1::Envelope,
        header: &Header<'_>,
        look: bool,
    ) -> Result<(), Rejected> {
        if envelope.attachments.is_empty() && !look {
            return Ok(());
        }
        let commitments = statement::commitments_of(header, &envelope.payload);
        let mut open: Vec<CommitmentDigest> = commitments.map(|slot| slot.digest).collect();
        let count = envelope.attachments.len();
        if count > ATTACHMENTS_MAX {
            let message = format!("{count} attachments where {ATTACHMENTS_MAX} are allowed");
            return Err(refused(Reason::ContentMismatch, message));
        }
        for (at, attachment) in envelope.attachments.iter().enumerate() {
            let attached = open_attachment(position, at, attachment)?;
            let Some(slot) = open.iter().position(|digest| *digest == attached.digest) else {
                let message = format!(
                    "attachment {at} opens no commitment of the statement, or one that another \
                     attachment opens"
                );
                return Err(refused(Reason::ContentMismatch, message));
            };
            // Two slots may commit to the same content; it comes once.
            let digest = open.swap_remove(slot);
            open.retain(|other| *other != digest);
            self.contents.attached.push(attached);
        }
        if look {
            let named = open.into_iter().map(|digest| (position, digest));
            self.contents.named.extend(named);
        }
        Ok(())
    }
}

fn open_attachment(
    envelope: usize,
    at: usize,
    attachment: &v1::Attachment,
) -> Result<Attached, Rejected> {
    let found = attachment.content.len();
    if found > ATTACHMENT_BYTES_MAX {
        let message = format!(
            "attachment {at} has {found} bytes, more than {ATTACHMENT_BYTES_MAX}: send it with \
             PutContent first"
        );
        return Err(refused(Reason::Oversized, message));
    }
    let salt: [u8; 32] = attachment.salt[..].try_into().map_err(|_| {
        let found = attachment.salt.len();
        let message = format!("the salt of attachment {at} has {found} bytes where 32 are wanted");
        refused(Reason::Malformed, message)
    })?;
    let salt = Salt::from_bytes(salt);
    Ok(Attached {
        envelope,
        digest: commitment::digest_of(&salt, &attachment.content),
        salt,
        content: attachment.content.clone(),
    })
}

fn refused(reason: Reason, message: String) -> Rejected {
    Rejected::new(reason, "attachments", message)
}
