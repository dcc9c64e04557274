//! Batched statements, followed to the signature over their batch.

use bytes::Bytes;
use deed_proto::v1;
use deed_tlog::{BatchPosition, LeafIndex, TreeHead, leaf_hash};

use crate::{
    PayloadDigest,
    batch::{self, PathError, VerifiedPath},
    entry::Entry,
    replay::Fault,
    statement,
    trust::TrustState,
};

/// A batched statement's signature, followed to its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    pub(super) path: VerifiedPath,
    pub(super) principal_leaf: Option<LeafIndex>,
    /// True if the place of the batch's first statement may be another's.
    pub(super) in_doubt: bool,
}

impl Covered {
    /// Verifies a batch proof under the key that `trust` has for its signer. Whether that key was
    /// in force is judged when the statement is taken.
    ///
    /// # Errors
    /// [`Fault`] for what does not hold.
    pub fn verify(
        proof: &v1::GetBatchProofResponse,
        trust: &TrustState,
        head: &TreeHead,
    ) -> Result<Self, Fault> {
        let fails = |error: PathError| Fault::BatchPath(Box::new(error));
        let signer = batch::signer(proof).map_err(fails)?;
        let key = trust
            .key(signer)
            .map(|record| &record.public_key)
            .ok_or(Fault::KeyUnknown { key: signer })?;
        let path = batch::verify_path(proof, trust.ledger_id(), key, head).map_err(fails)?;
        Self::of(proof, path)
    }

    /// The same of a path that [`batch::verify_path`] has verified, with the key of its signer.
    ///
    /// # Errors
    /// [`Fault::Entry`] if the manifest's entry cannot be read.
    pub fn of(proof: &v1::GetBatchProofResponse, path: VerifiedPath) -> Result<Self, Fault> {
        let manifest = Entry::parse(&proof.manifest_entry)?;
        Ok(Self {
            path,
            principal_leaf: manifest.principal_leaf.map(LeafIndex::new),
            in_doubt: false,
        })
    }

    /// Says that the ledger does not show the batch's first statement at that statement's place in
    /// its session: the batch may be there as evidence of an equivocation alone.
    #[must_use]
    pub fn in_doubt(mut self) -> Self {
        self.in_doubt = true;
        self
    }

    /// The same for another statement of the batch, which is proven to be at `leaf`: `whole` are the
    /// payloads of all of it.
    ///
    /// # Errors
    /// [`Fault::NoManifest`] if it is none of the batch.
    pub fn sibling(&self, leaf: u64, entry: &Bytes, whole: &WholeBatch) -> Result<Self, Fault> {
        let manifest = self.path.manifest_index.get();
        let position = leaf.checked_sub(manifest.saturating_add(1));
        let position = position.and_then(|position| u32::try_from(position).ok());
        let position = position.ok_or(Fault::NoManifest)?;
        let digest = PayloadDigest::of(Entry::parse(entry)?.payload);
        if whole.0.get(position as usize) != Some(&digest) {
            return Err(Fault::NoManifest);
        }
        Ok(Self {
            path: VerifiedPath {
                statement_index: LeafIndex::new(leaf),
                statement_hash: leaf_hash(entry),
                position: BatchPosition::new(position),
                ..self.path.clone()
            },
            principal_leaf: self.principal_leaf,
            in_doubt: self.in_doubt,
        })
    }

    /// The places of statement and manifest, and the key that signed.
    #[must_use]
    pub const fn path(&self) -> &VerifiedPath {
        &self.path
    }

    /// The batch's last leaf.
    pub(super) fn last_leaf(&self) -> u64 {
        let manifest = self.path.manifest_index.get();
        manifest.saturating_add(self.path.manifest.count.get().into())
    }
}

/// The payloads of a whole batch, which fit its manifest.
#[derive(Debug, Clone)]
pub struct WholeBatch(Vec<PayloadDigest>);

impl WholeBatch {
    /// Checks them against the manifest.
    ///
    /// # Errors
    /// [`Fault::Batch`] if they are others, [`Fault::Statement`] if one cannot be read.
    pub fn of(manifest: &batch::Manifest, payloads: &[Bytes]) -> Result<Self, Fault> {
        let headers = payloads.iter();
        let headers = headers.map(|payload| Ok((statement::parse(payload)?, &payload[..])));
        let headers = headers.collect::<Result<Vec<_>, crate::WireError>>()?;
        batch::check(manifest, headers)?;
        let digests = payloads.iter().map(|payload| PayloadDigest::of(payload));
        Ok(Self(digests.collect()))
    }
}
