//! Reading a content, piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, commitment::Salt};

use super::{
    Binding, ContentError, ContentStatus, ContentStore, LedgerRef, Shared,
    pieces::UploadOf,
    seal::{self, Opener},
};

/// A content that is being read. It locks nothing: an erasure meanwhile ends the reading.
pub struct Reader {
    shared: Arc<Shared>,
    ledger: LedgerRef,
    digest: CommitmentDigest,
    upload: UploadOf,
    size: u64,
    opener: Opener,
}

/// A piece of a content.
pub struct Piece {
    /// The content's salt, with the first piece only.
    pub salt: Option<Salt>,
    /// At most 1 MiB.
    pub bytes: Bytes,
}

impl ContentStore {
    /// Begins to read a content. Reads the disk.
    ///
    /// # Errors
    /// [`ContentError::Unknown`], [`ContentError::Erased`] or [`ContentError::Damaged`].
    pub fn open_content(
        &self,
        ledger: LedgerRef,
        digest: CommitmentDigest,
    ) -> Result<Reader, ContentError> {
        Reader::open(&self.shared, ledger, digest)
    }
}

impl Reader {
    fn open(
        shared: &Arc<Shared>,
        ledger: LedgerRef,
        digest: CommitmentDigest,
    ) -> Result<Self, ContentError> {
        let gone = |what| shared.gone(ledger, digest, what);
        if let Some(leaf) = shared.store.erased(ledger.number, &digest)? {
            return Err(ContentError::Erased { digest, leaf });
        }
        let Some(record) = shared.store.content(ledger.number, &digest)? else {
            return Err(gone("it is not held"));
        };
        let upload = UploadOf::of_record(ledger.number, &digest, &record);
        let upload = upload.ok_or_else(|| gone("its upload's id has not 16 bytes"))?;
        let key = shared.keys.get(ledger.number, &digest)?;
        let key = key
            .filter(|key| key.upload == upload.id)
            .ok_or_else(|| gone("its key is missing"))?;
        let binding = Binding {
            ledger_id: ledger.id,
            digest,
        };
        let data_key = seal::unwrap(&shared.wrapping, &binding, &key.wrapped)
            .map_err(|_| gone("its key does not decrypt"))?;
        if seal::pieces(record.size) != Some(record.chunks) {
            return Err(gone("its size and its pieces do not fit"));
        }
        Ok(Self {
            shared: Arc::clone(shared),
            ledger,
            digest,
            upload,
            size: record.size,
            opener: Opener::new(&data_key, binding, record.size, record.chunks),
        })
    }

    /// Returns the size of the whole content, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Reads and decrypts the next piece; `None` after the last. Reads the disk.
    ///
    /// # Errors
    /// [`ContentError::Erased`] if it was erased meanwhile; [`ContentError::Damaged`] if it cannot
    /// be opened.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, ContentError> {
        let Some(number) = self.opener.next() else {
            return Ok(None);
        };
        let gone = |what: &str| self.shared.gone(self.ledger, self.digest, what);
        let (store, pieces) = (&self.shared.store, &self.shared.pieces);
        // The tombstone is read before the bytes: an erased content is not given out, even if its
        // pieces are still there.
        if let Some(leaf) = store.erased(self.ledger.number, &self.digest)? {
            let digest = self.digest;
            return Err(ContentError::Erased { digest, leaf });
        }
        let sealed = pieces
            .get(&self.upload, number)?
            .ok_or_else(|| gone(&format!("piece {number} is missing")))?;
        let (salt, bytes) = self.opener.open(&sealed).map_err(|_| {
            self.shared.gone(
                self.ledger,
                self.digest,
                &format!("piece {number} does not decrypt to what was committed to"),
            )
        })?;
        // The bytes are wiped when their last holder drops them.
        let bytes = Bytes::from_owner(bytes);
        Ok(Some(Piece { salt, bytes }))
    }
}

impl Shared {
    /// Returns the reason for which a part is missing that was there before: erased or collected
    /// meanwhile, or damaged.
    fn gone(&self, ledger: LedgerRef, digest: CommitmentDigest, what: &str) -> ContentError {
        match self.state(ledger.number, &digest) {
            Ok(ContentStatus::Erased(leaf)) => return ContentError::Erased { digest, leaf },
            Err(error) => return error.into(),
            Ok(ContentStatus::Held | ContentStatus::Unknown) => {}
        }
        match self.store.content(ledger.number, &digest) {
            Ok(None) => ContentError::Unknown { digest },
            Ok(Some(_)) => ContentError::Damaged {
                digest,
                what: what.to_owned(),
            },
            Err(error) => error.into(),
        }
    }
}
