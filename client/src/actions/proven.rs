//! Statements that were proven to be in the log.

use bytes::Bytes;
use deed_evidence::{KeyId, Micros, PayloadDigest, TaskId, entry::Entry, receipt, statement};
use deed_proto::v1::{self, PayloadType, statement::Body};
use deed_tlog::{Hash, LeafIndex, TreeHead, leaf_hash, verify_inclusion};

use crate::{
    error::{AnswerError, Error},
    ledger::Ledger,
    read::ProvenEntry,
    trust::TrustError,
};

/// A statement with its entry, whose inclusion under a verified head was proven (unless
/// verification is switched off).
#[derive(Debug, Clone, PartialEq)]
pub struct ProvenStatement {
    /// Its leaf index.
    pub index: LeafIndex,
    /// Hash of its entry.
    pub hash: Hash,
    /// Bytes of its entry, as hashed.
    pub entry: Bytes,
    /// The evidence for its author.
    pub author: v1::Author,
    /// The key that signed it, if it has a signature of its own. Whether the key spoke for the
    /// producer is not checked here.
    pub key_id: Option<KeyId>,
    /// The time at which the server admitted it, by the server's word.
    pub received_at: Micros,
    /// The statement.
    pub statement: v1::Statement,
}

impl ProvenStatement {
    /// Reads an entry and verifies its inclusion under `head`; `None` for a batch manifest, which
    /// is no statement.
    pub(super) fn read(
        proven: &v1::ProvenEntry,
        head: Option<&TreeHead>,
    ) -> Result<Option<Self>, Error> {
        let index = LeafIndex::new(proven.leaf_index);
        if let Some(head) = head {
            let proof = receipt::inclusion_proof(&proven.inclusion_proof).map_err(|_| {
                TrustError::MalformedProof {
                    what: "an inclusion proof",
                }
            })?;
            let hash = leaf_hash(&proven.entry);
            verify_inclusion(&proof, &hash, index, head).map_err(|source| TrustError::Proof {
                what: format!("the inclusion proof of leaf {index}"),
                source,
            })?;
        }
        Self::decode(index, &proven.entry)
    }

    /// Reads an entry whose inclusion is proven already.
    ///
    /// # Errors
    /// [`Error::Trust`] if it is no well-formed statement.
    pub fn of(entry: &ProvenEntry) -> Result<Self, Error> {
        let index = entry.leaf.index;
        Self::decode(index, &entry.bytes)?
            .ok_or_else(|| nonsense(index, &"it is a batch manifest, no statement"))
    }

    fn decode(index: LeafIndex, bytes: &Bytes) -> Result<Option<Self>, Error> {
        let entry = Entry::parse(bytes).map_err(|error| nonsense(index, &error))?;
        if entry.payload_type != PayloadType::Statement {
            return Ok(None);
        }
        // Checks that author and body agree: only the ledger writes receipts and clearances.
        entry.statement().map_err(|error| nonsense(index, &error))?;
        let payload = bytes.slice_ref(entry.payload);
        let statement = statement::decode(&payload).map_err(|error| nonsense(index, &error))?;
        Ok(Some(Self {
            index,
            hash: leaf_hash(bytes),
            entry: bytes.clone(),
            author: entry.author,
            key_id: entry.signature.map(|signature| signature.key()),
            received_at: entry.received_at,
            statement,
        }))
    }

    /// The payload, exactly as received.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        // The entry was parsed when `self` was made, so parsing cannot fail.
        Entry::parse(&self.entry).map_or_else(
            |_| Bytes::new(),
            |entry| self.entry.slice_ref(entry.payload),
        )
    }

    /// The task that it names.
    #[must_use]
    pub fn task(&self) -> Option<TaskId> {
        TaskId::from_slice(&self.statement.task)
    }

    /// Returns the body of the statement.
    #[must_use]
    pub const fn body(&self) -> Option<&Body> {
        self.statement.body.as_ref()
    }

    /// A reference to this statement by its place in its session and its content.
    #[must_use]
    pub fn statement_ref(&self) -> v1::StatementRef {
        let digest = PayloadDigest::of(&self.payload());
        v1::StatementRef {
            session: self.statement.session.clone(),
            sequence: self.statement.sequence,
            payload_digest: Bytes::copy_from_slice(digest.as_bytes()),
        }
    }

    /// A reference to this entry by index and hash.
    #[must_use]
    pub fn leaf_ref(&self) -> v1::LeafRef {
        v1::LeafRef {
            leaf_index: self.index.get(),
            leaf_hash: Bytes::copy_from_slice(self.hash.as_bytes()),
        }
    }
}

impl Ledger {
    /// Fetches a statement's entry, verifies that it is in the newest tree, and reads it.
    ///
    /// # Errors
    /// As [`entry`](Self::entry); [`Error::Trust`] if the leaf is no statement.
    pub async fn statement(&self, index: LeafIndex) -> Result<ProvenStatement, Error> {
        ProvenStatement::of(&self.entry(index, None).await?)
    }
}

pub(super) fn nonsense(index: LeafIndex, reason: &dyn std::fmt::Display) -> Error {
    TrustError::Entry {
        index: index.get(),
        reason: reason.to_string(),
    }
    .into()
}

pub(super) const fn missing(what: &'static str) -> Error {
    Error::Answer(AnswerError::Missing { what })
}
