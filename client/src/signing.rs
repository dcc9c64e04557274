//! Statements on their way, and how they are signed.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use deed_evidence::{
    KeyId,
    batch::{BatchError, Manifest},
    entry::KeyedSignature,
    receipt::Sent,
    signature, statement,
};
use deed_proto::v1::{self, PayloadType};
use deed_tlog::SigningKey;

use crate::session::Made;

/// A statement with the contents that travel beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The canonical bytes of the statement.
    pub payload: Bytes,
    /// Contents that it commits to: at most 64 KiB each and 8 in number.
    pub attachments: Vec<v1::Attachment>,
}

impl From<Bytes> for Statement {
    fn from(payload: Bytes) -> Self {
        Self {
            payload,
            attachments: Vec::new(),
        }
    }
}

impl From<Made> for Statement {
    fn from(made: Made) -> Self {
        made.payload.into()
    }
}

impl Statement {
    /// Returns true if `next` may stand right behind it in a batch: the same session's next statement,
    /// and no trust statement.
    #[must_use]
    pub fn is_continued_by(&self, next: &Self) -> bool {
        follows(&self.payload, &next.payload)
    }

    /// Bytes that count towards a request's bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let contents = self.attachments.iter();
        // 32 bytes of salt, and the tags and lengths.
        self.payload.len() + contents.map(|a| a.content.len() + 48).sum::<usize>()
    }
}

/// A way of signing statements.
#[derive(Clone, Default)]
pub enum Signing {
    /// No signature: the producer is claimed.
    #[default]
    None,
    /// One signature for each statement.
    Each(Arc<SigningKey>),
    /// Once for what waits: a manifest over up to 4,096 consecutive statements of one session,
    /// recorded together or not at all.
    Batch(Arc<SigningKey>),
}

impl Signing {
    /// The id of the key.
    #[must_use]
    pub fn key_id(&self) -> Option<KeyId> {
        self.key().map(|key| signature::key_id(key.public_key()))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<SigningKey>> {
        match self {
            Self::None => None,
            Self::Each(key) | Self::Batch(key) => Some(key),
        }
    }

    /// Returns true if it is one signature for many.
    #[must_use]
    pub const fn is_batch(&self) -> bool {
        matches!(self, Self::Batch(_))
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Each(_) => "each",
            Self::Batch(_) => "batch",
        }
    }

    /// Returns the envelopes of these statements: one for each, behind a manifest if they are a
    /// batch. Ed25519 is deterministic: the same statements give the same bytes.
    pub(crate) fn envelopes<'a>(
        &self,
        statements: impl ExactSizeIterator<Item = &'a Statement> + Clone,
    ) -> Result<Vec<v1::Envelope>, BatchError> {
        let mut envelopes = Vec::with_capacity(statements.len() + 1);
        if let Self::Batch(key) = self {
            let payloads: Vec<&Bytes> = statements.clone().map(|s| &s.payload).collect();
            let payload = Manifest::over(&payloads)?.encode();
            envelopes.push(signed(key, PayloadType::BatchManifest, payload));
        }
        envelopes.extend(statements.map(|statement| {
            let payload = statement.payload.clone();
            let envelope = match self {
                Self::Each(key) => signed(key, PayloadType::Statement, payload),
                Self::None | Self::Batch(_) => v1::Envelope {
                    payload_type: PayloadType::Statement.into(),
                    payload,
                    ..v1::Envelope::default()
                },
            };
            v1::Envelope {
                attachments: statement.attachments.clone(),
                ..envelope
            }
        }));
        Ok(envelopes)
    }
}

impl PartialEq for Signing {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name() && self.key_id() == other.key_id()
    }
}

impl Eq for Signing {}

/// Names the key, never shows it.
impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.key_id().map_or(Ok(()), |id| write!(f, "({id})"))
    }
}

fn signed(key: &SigningKey, payload_type: PayloadType, payload: Bytes) -> v1::Envelope {
    let signature = signature::sign(key, payload_type, &payload);
    v1::Envelope {
        payload_type: payload_type.into(),
        key_id: Bytes::copy_from_slice(signature::key_id(key.public_key()).as_bytes()),
        signature: Bytes::copy_from_slice(&signature),
        payload,
        attachments: Vec::new(),
    }
}

/// Describes an envelope, for the check of its receipt. `batched` if a manifest leads the request.
pub(crate) fn sent(envelope: &v1::Envelope, batched: bool) -> Sent<'_> {
    let payload = &envelope.payload[..];
    match KeyedSignature::from_slices(&envelope.key_id, &envelope.signature) {
        Some(signature) if is_manifest(envelope) => Sent::manifest(payload, signature),
        Some(signature) => Sent::signed(payload, signature),
        None if batched => Sent::batched(payload),
        None => Sent::unsigned(payload),
    }
}

pub(crate) fn is_manifest(envelope: &v1::Envelope) -> bool {
    envelope.payload_type() == PayloadType::BatchManifest
}

/// Returns true if `next` may stand right behind `last` in a batch.
pub(crate) fn follows(last: &[u8], next: &[u8]) -> bool {
    let (Ok(last), Ok(next)) = (statement::parse(last), statement::parse(next)) else {
        return false;
    };
    last.ledger_id == next.ledger_id
        && last.session == next.session
        && last.producer == next.producer
        && last.sequence.get().checked_add(1) == Some(next.sequence.get())
        && next.skipped_from.is_none()
        && last.body != statement::BodyKind::SessionClosed
        && !next.body.is_trust()
}
