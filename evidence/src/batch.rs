//! One signature for many statements: batch manifests and the paths of single statements.

use bytes::Bytes;
use deed_proto::v1::{self, Author, PayloadType};
use deed_tlog::{
    BATCH_PAYLOADS_MAX, BatchCount, BatchHead, BatchPosition, BatchProof, BatchRoot, Hash,
    LeafIndex, PublicKey, TreeHead, VerifyError, leaf_hash, verify_batch_proof, verify_inclusion,
};
use prost::Message as _;
use thiserror::Error;

use crate::{
    KeyId, LedgerId, PAYLOAD_BYTES_MAX, PayloadDigest, Problem, Sequence, SessionId, WireError,
    entry::{Entry, EntryError},
    receipt::inclusion_proof,
    schema,
    session::BatchStep,
    signature::{self, SignatureError},
    statement::{self, AUTHORITY_PRODUCER, BodyKind, Header, LEDGER_PRODUCER},
    wire::{self, Value},
};

/// A batch manifest: a producer signs it once for 1 to 4,096 statements of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger that all of them are for.
    pub ledger_id: LedgerId,
    /// The producer of all of them.
    pub producer: String,
    /// Their session.
    pub session: SessionId,
    /// Sequence of the first; the others follow without a hole.
    pub first_sequence: Sequence,
    /// Number of statements.
    pub count: BatchCount,
    /// Root of the batch tree over their payloads.
    pub root: Hash,
}

/// Statements that do not fit their manifest. Positions are zero-based.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// No statements, or too many for any batch.
    #[error("a batch has 1 to {BATCH_PAYLOADS_MAX} statements, not {found}")]
    Size {
        /// Statements found; counting stops at the first one too many.
        found: usize,
    },
    /// Another number of statements than the manifest says.
    #[error("the batch manifest speaks of {wanted} statements, but {found} are there")]
    Count {
        /// Statements found; counting stops at the first one too many.
        found: usize,
        /// As the manifest says.
        wanted: BatchCount,
    },
    /// A statement that cannot be read.
    #[error("statement {position} of the batch: {source}")]
    Statement {
        /// Its position.
        position: usize,
        /// The reason.
        source: WireError,
    },
    /// A statement that differs from the manifest or from the others in what all of them share.
    #[error("statement {position} of the batch has another {field} than the batch manifest")]
    Other {
        /// Its position.
        position: usize,
        /// `ledger_id`, `producer` or `session`.
        field: &'static str,
    },
    /// A body that is never batched.
    #[error("statement {position} of the batch is {body}, which is never in a batch")]
    Body {
        /// Its position.
        position: usize,
        /// The body's name.
        body: &'static str,
    },
    /// A sequence that does not follow.
    #[error("statement {position} of the batch has sequence {found}; the next one is {wanted}")]
    Sequence {
        /// Its position.
        position: usize,
        /// Its sequence.
        found: Sequence,
        /// The one that follows.
        wanted: u128,
    },
    /// A hole inside of the batch.
    #[error("statement {position} of the batch sets skipped_from; only the first one may")]
    Skipped {
        /// Its position.
        position: usize,
    },
    /// `previous` is not the digest of the payload before it.
    #[error("statement {position} of the batch has another previous than the payload before it")]
    Previous {
        /// Its position.
        position: usize,
    },
    /// Something comes after SessionClosed.
    #[error("statement {position} of the batch closes the session, but is not the last one")]
    ClosedEarly {
        /// Its position.
        position: usize,
    },
    /// The payloads are others than those that were signed.
    #[error("the batch's payloads have root {found}, but the manifest says {wanted}")]
    Root {
        /// Root of the payloads.
        found: Hash,
        /// As the manifest says.
        wanted: Hash,
    },
}

impl Manifest {
    /// Reads a manifest's payload.
    ///
    /// # Errors
    /// [`WireError`] with the first field that is not canonical or breaks its rule.
    pub fn parse(payload: &[u8]) -> Result<Self, WireError> {
        if payload.is_empty() || payload.len() > PAYLOAD_BYTES_MAX {
            let problem = Problem::Length {
                found: payload.len(),
                min: 1,
                max: PAYLOAD_BYTES_MAX,
            };
            return Err(WireError::new("payload", problem));
        }
        let (mut ledger_id, mut session, mut root) = (None, None, None);
        let (mut first, mut count) = (0, 0);
        let mut producer = "";
        wire::walk(&schema::BATCH_MANIFEST, payload, |field, value| {
            match (field.number, value) {
                (1, Value::Bytes(b)) => ledger_id = Hash::try_from(b).ok(),
                (2, Value::Bytes(b)) => producer = std::str::from_utf8(b).unwrap_or_default(),
                (3, Value::Bytes(b)) => session = SessionId::from_slice(b),
                (4, Value::Number(n)) => first = n,
                (5, Value::Number(n)) => count = n,
                (6, Value::Bytes(b)) => root = Hash::try_from(b).ok(),
                _ => {}
            }
        })?;
        if producer == AUTHORITY_PRODUCER {
            let rule = "must not be deed:authority: what it says is signed one by one";
            return Err(WireError::rule("producer", rule));
        }
        if producer == LEDGER_PRODUCER {
            let rule = "must not be deed:ledger: the ledger signs nothing but tree heads";
            return Err(WireError::rule("producer", rule));
        }
        let out_of_range = || WireError::new("count", Problem::Range { value: count });
        let count = usize::try_from(count).map_err(|_| out_of_range())?;
        let count = BatchCount::new(count).map_err(|_| out_of_range())?;
        if first.checked_add(u64::from(count.get()) - 1).is_none() {
            let rule = "leaves no room for so many statements";
            return Err(WireError::rule("first_sequence", rule));
        }
        let missing = |field| move || WireError::new(field, Problem::Missing);
        Ok(Self {
            ledger_id: LedgerId::new(ledger_id.ok_or_else(missing("ledger_id"))?),
            producer: producer.to_owned(),
            session: session.ok_or_else(missing("session"))?,
            first_sequence: Sequence::new(first),
            count,
            root: root.ok_or_else(missing("root"))?,
        })
    }

    /// The manifest's payload. [`Manifest::parse`] reads it back, if the fields keep the rules.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        v1::BatchManifest {
            ledger_id: Bytes::copy_from_slice(self.ledger_id.as_bytes()),
            producer: self.producer.clone(),
            session: Bytes::copy_from_slice(self.session.as_bytes()),
            first_sequence: self.first_sequence.get(),
            count: self.count.get(),
            root: Bytes::copy_from_slice(self.root.as_bytes()),
        }
        .encode_to_vec()
        .into()
    }

    /// The manifest over these payloads, for their producer. What it returns passes [`check`].
    ///
    /// # Errors
    /// [`BatchError`] if they are not the statements of one batch.
    pub fn over<T: AsRef<[u8]>>(payloads: &[T]) -> Result<Self, BatchError> {
        let size = |_| BatchError::Size {
            found: payloads.len(),
        };
        let count = BatchCount::new(payloads.len()).map_err(size)?;
        let mut statements = Vec::with_capacity(payloads.len());
        let mut root = BatchRoot::new();
        for (position, payload) in payloads.iter().enumerate() {
            let payload = payload.as_ref();
            let header = statement::parse(payload)
                .map_err(|source| BatchError::Statement { position, source })?;
            root.push(payload).map_err(size)?;
            statements.push((header, payload));
        }
        let first = statements[0].0;
        let no_ledger = BatchError::Body {
            position: 0,
            body: first.body.name(),
        };
        let manifest = Self {
            ledger_id: first.ledger_id.ok_or(no_ledger)?,
            producer: first.producer.to_owned(),
            session: first.session,
            first_sequence: first.sequence,
            count,
            root: root.finish().map_err(size)?.root,
        };
        let mut walk = Walk::new(&manifest);
        for (header, payload) in &statements {
            walk.take(header, payload)?;
        }
        Ok(manifest)
    }

    /// The number of payloads and the root over them.
    #[must_use]
    pub const fn head(&self) -> BatchHead {
        BatchHead {
            count: self.count,
            root: self.root,
        }
    }
}

/// Checks the statements of a batch, in order: each one's header and payload. Returns what they do
/// to their session, once that has judged the first.
///
/// It is for the caller to check that the first is the session's next, and whose signature the
/// manifest has.
///
/// # Errors
/// [`BatchError`] for the first thing that does not fit.
pub fn check<'a>(
    manifest: &Manifest,
    statements: impl IntoIterator<Item = (Header<'a>, &'a [u8])>,
) -> Result<BatchStep, BatchError> {
    let wanted = manifest.count;
    let mut walk = Walk::new(manifest);
    let mut root = BatchRoot::new();
    for (header, payload) in statements {
        walk.take(&header, payload)?;
        root.push(payload).map_err(|_| BatchError::Count {
            found: walk.position,
            wanted,
        })?;
    }
    let count = BatchError::Count {
        found: walk.position,
        wanted,
    };
    let Some((last, payload)) = walk.last else {
        return Err(count);
    };
    if walk.position != wanted.get() as usize {
        return Err(count);
    }
    let found = root.finish().map_err(|_| count)?.root;
    if found != manifest.root {
        return Err(BatchError::Root {
            found,
            wanted: manifest.root,
        });
    }
    Ok(BatchStep {
        first_sequence: manifest.first_sequence,
        count: wanted,
        last_payload: PayloadDigest::of(payload),
        closed: last == BodyKind::SessionClosed,
    })
}

/// The rules of a batch but for its root, statement by statement.
struct Walk<'m, 'p> {
    manifest: &'m Manifest,
    /// Of the next statement.
    position: usize,
    last: Option<(BodyKind, &'p [u8])>,
}

impl<'m, 'p> Walk<'m, 'p> {
    const fn new(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            position: 0,
            last: None,
        }
    }

    fn take(&mut self, header: &Header<'_>, payload: &'p [u8]) -> Result<(), BatchError> {
        let position = self.position;
        let wanted = self.manifest.count;
        if position >= wanted.get() as usize {
            let found = position + 1;
            return Err(BatchError::Count { found, wanted });
        }
        check_member(self.manifest, position, header)?;
        if let Some((body, before)) = self.last {
            if body == BodyKind::SessionClosed {
                return Err(BatchError::ClosedEarly {
                    position: position - 1,
                });
            }
            let previous = header.previous;
            if previous.is_some_and(|previous| previous != PayloadDigest::of(before)) {
                return Err(BatchError::Previous { position });
            }
        }
        self.last = Some((header.body, payload));
        self.position += 1;
        Ok(())
    }
}

/// Checks one statement of a batch without its neighbours.
fn check_member(
    manifest: &Manifest,
    position: usize,
    header: &Header<'_>,
) -> Result<(), BatchError> {
    // Genesis, too, which alone has no ledger id.
    for (field, same) in [
        ("ledger_id", header.ledger_id == Some(manifest.ledger_id)),
        ("producer", header.producer == manifest.producer),
        ("session", header.session == manifest.session),
    ] {
        if !same {
            return Err(BatchError::Other { position, field });
        }
    }
    if header.body.is_trust() {
        let body = header.body.name();
        return Err(BatchError::Body { position, body });
    }
    let wanted = u128::from(manifest.first_sequence.get()) + position as u128;
    if u128::from(header.sequence.get()) != wanted {
        return Err(BatchError::Sequence {
            position,
            found: header.sequence,
            wanted,
        });
    }
    if position > 0 && header.skipped_from.is_some() {
        return Err(BatchError::Skipped { position });
    }
    Ok(())
}

/// A batched statement whose signature was followed to its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPath {
    /// The manifest that was signed.
    pub manifest: Manifest,
    /// The key that signed it.
    pub key_id: KeyId,
    /// Leaf of the manifest.
    pub manifest_index: LeafIndex,
    /// Leaf of the statement.
    pub statement_index: LeafIndex,
    /// Hash of the statement's entry.
    pub statement_hash: Hash,
    /// Its place in the batch.
    pub position: BatchPosition,
}

/// A batch proof that does not hold.
#[derive(Debug, Error)]
pub enum PathError {
    /// One of the two entries cannot be read.
    #[error("the {which} entry: {source}")]
    Entry {
        /// `manifest` or `statement`.
        which: &'static str,
        /// The reason.
        source: EntryError,
    },
    /// The payload in one of them cannot be read, or is not what should be there.
    #[error("the {which} entry's payload: {source}")]
    Payload {
        /// `manifest` or `statement`.
        which: &'static str,
        /// The reason.
        source: WireError,
    },
    /// The entry before is no signed batch manifest.
    #[error("the manifest entry is no batch manifest")]
    NotManifest,
    /// The statement has an author of its own.
    #[error("the statement entry is not one of a batch")]
    NotBatched,
    /// A proof for another ledger.
    #[error("the batch is one of ledger {found}, not of {wanted}")]
    OtherLedger {
        /// As the manifest says.
        found: LedgerId,
        /// The one asked about.
        wanted: LedgerId,
    },
    /// Signed by another key than the one to verify with.
    #[error("the batch manifest is signed with key {found}, not with {wanted}")]
    OtherKey {
        /// As the entry says.
        found: KeyId,
        /// The key given.
        wanted: KeyId,
    },
    /// Not this key's signature.
    #[error("the batch manifest: {0}")]
    Signature(#[from] SignatureError),
    /// The statement does not fit the manifest at its position.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The statement's payload is not in the batch tree at its position.
    #[error("the statement's path: {0}")]
    Path(#[from] deed_tlog::BatchError),
    /// A leaf index beyond 64 bits.
    #[error("no leaf lies {position} after the manifest's index {manifest_index}")]
    Index {
        /// The manifest's.
        manifest_index: LeafIndex,
        /// The position claimed.
        position: u32,
    },
    /// Hashes of the wrong length or too many of them.
    #[error("the proof's hashes are malformed")]
    Malformed,
    /// One of the two entries is not in the tree.
    #[error("inclusion of the {which} entry: {source}")]
    Inclusion {
        /// `manifest` or `statement`.
        which: &'static str,
        /// The reason.
        source: VerifyError,
    },
}

/// The key that signed the manifest, by its entry's word: the one to look up for [`verify_path`].
///
/// # Errors
/// [`PathError::Entry`] and [`PathError::NotManifest`].
pub fn signer(proof: &v1::GetBatchProofResponse) -> Result<KeyId, PathError> {
    Ok(manifest_entry(proof)?.1)
}

/// Follows a batched statement to its signature, and both to the tree head: everything that
/// `GetBatchProofResponse` claims, but for the head, whose signature is for others.
///
/// # Errors
/// [`PathError`] for the first thing that does not hold.
pub fn verify_path(
    proof: &v1::GetBatchProofResponse,
    ledger_id: LedgerId,
    key: &PublicKey,
    head: &TreeHead,
) -> Result<VerifiedPath, PathError> {
    let (entry, found, signature) = manifest_entry(proof)?;
    let wanted = signature::key_id(key);
    if found != wanted {
        return Err(PathError::OtherKey { found, wanted });
    }
    signature::verify(key, PayloadType::BatchManifest, entry.payload, signature)?;
    let payload = |which| move |source| PathError::Payload { which, source };
    let manifest = Manifest::parse(entry.payload).map_err(payload("manifest"))?;
    if manifest.ledger_id != ledger_id {
        return Err(PathError::OtherLedger {
            found: manifest.ledger_id,
            wanted: ledger_id,
        });
    }

    let statement = Entry::parse(&proof.statement_entry).map_err(|source| PathError::Entry {
        which: "statement",
        source,
    })?;
    if statement.author != Author::Batched {
        return Err(PathError::NotBatched);
    }
    let header = statement.statement().map_err(payload("statement"))?;
    let position = BatchPosition::new(proof.position);
    if !manifest.count.contains(position) {
        let count = manifest.count;
        return Err(deed_tlog::BatchError::PositionOutOfRange { position, count }.into());
    }
    check_member(&manifest, position.get() as usize, &header)?;
    let is_last = position.get() + 1 == manifest.count.get();
    if header.body == BodyKind::SessionClosed && !is_last {
        let position = position.get() as usize;
        return Err(BatchError::ClosedEarly { position }.into());
    }
    let hashes: Option<Vec<Hash>> = proof
        .batch_path
        .iter()
        .map(|hash| Hash::try_from(&hash[..]).ok())
        .collect();
    let path = BatchProof::from_hashes(hashes.ok_or(PathError::Malformed)?)?;
    verify_batch_proof(&path, statement.payload, position, &manifest.head())?;

    let manifest_index = LeafIndex::new(proof.manifest_index);
    let statement_index = manifest_index
        .checked_add(u64::from(position.get()) + 1)
        .ok_or(PathError::Index {
            manifest_index,
            position: position.get(),
        })?;
    let statement_hash = leaf_hash(&proof.statement_entry);
    let manifest_hash = leaf_hash(&proof.manifest_entry);
    for (which, hashes, hash, index) in [
        (
            "manifest",
            &proof.manifest_inclusion,
            manifest_hash,
            manifest_index,
        ),
        (
            "statement",
            &proof.statement_inclusion,
            statement_hash,
            statement_index,
        ),
    ] {
        let inclusion = inclusion_proof(hashes).map_err(|_| PathError::Malformed)?;
        verify_inclusion(&inclusion, &hash, index, head)
            .map_err(|source| PathError::Inclusion { which, source })?;
    }
    Ok(VerifiedPath {
        manifest,
        key_id: found,
        manifest_index,
        statement_index,
        statement_hash,
        position,
    })
}

fn manifest_entry(
    proof: &v1::GetBatchProofResponse,
) -> Result<(Entry<'_>, KeyId, &[u8; 64]), PathError> {
    let entry = Entry::parse(&proof.manifest_entry).map_err(|source| PathError::Entry {
        which: "manifest",
        source,
    })?;
    match entry.signature {
        Some(signature) if entry.payload_type == PayloadType::BatchManifest => {
            Ok((entry, signature.key(), signature.signature))
        }
        _ => Err(PathError::NotManifest),
    }
}
