//! Uploads: contents that come in pieces.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, commitment::Salt};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Binding, ContentError, ContentStatus, ContentStore, LedgerRef, QUEUE_WAIT, Shared, SharedGate,
    UploadId,
    content_keys::WrappedKey,
    off_thread,
    pieces::UploadOf,
    quota::Reservation,
    seal::{self, PIECE_BYTES, Sealer, Tagger, WRAPPED_BYTES},
    writer::Sealed,
};
use crate::store::Batch;

/// A content that is being uploaded. Sealed pieces are written as they become full, so it takes 1
/// MiB of memory at most. If it is dropped, the next collection removes what it wrote.
pub struct Upload {
    shared: Arc<Shared>,
    ledger: LedgerRef,
    digest: CommitmentDigest,
    size: u64,
    came: u64,
    sealer: Option<Sealer>,
    tagger: Tagger,
    upload: UploadId,
    wrapped: [u8; WRAPPED_BYTES],
    reservation: Option<Reservation>,
    marked: bool,
}

/// The result of beginning an upload.
pub enum Begun {
    Upload(Box<Upload>),
    /// The content need not be sent. The caller must call [`ContentStore::keep_held`] before it
    /// tells its client.
    AlreadyHeld,
}

impl ContentStore {
    /// Begins the upload of a content of `size` bytes. Reads the disk.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`], [`ContentError::Erased`], [`ContentError::Quota`] or
    /// [`ContentError::NoSpace`].
    pub fn begin_upload(
        &self,
        ledger: LedgerRef,
        digest: CommitmentDigest,
        salt: &Salt,
        size: u64,
        principal: &Arc<str>,
    ) -> Result<Begun, ContentError> {
        let shared = &self.shared;
        match shared.state(ledger.number, &digest)? {
            ContentStatus::Held => return Ok(Begun::AlreadyHeld),
            ContentStatus::Erased(leaf) => return Err(ContentError::Erased { digest, leaf }),
            ContentStatus::Unknown => {}
        }
        let max = shared.bytes_max;
        if size > max || seal::pieces(size).is_none() {
            return Err(ContentError::TooLarge { size, max });
        }
        shared.store.disk().room_for_contents(size)?;
        // The ledger is marked before the content is held: a statement that names it right after
        // must find it.
        shared.mark_in_use(ledger.number);
        let reservation = shared.quota.reserve(principal, size)?;
        let binding = Binding {
            ledger_id: ledger.id,
            digest,
        };
        let data_key = seal::new_key().map_err(ContentError::Random)?;
        let wrapped =
            seal::wrap(&shared.wrapping, &binding, &data_key).map_err(ContentError::Random)?;
        let upload = UploadId::random().map_err(ContentError::Random)?;
        shared.uploads.lock().insert(upload);
        Ok(Begun::Upload(Box::new(Upload {
            shared: Arc::clone(shared),
            ledger,
            digest,
            size,
            came: 0,
            sealer: Some(Sealer::new(&data_key, binding, salt, size)),
            tagger: Tagger::new(&shared.wrapping, ledger.id),
            upload,
            wrapped,
            reservation: Some(reservation),
            marked: false,
        })))
    }

    /// Passes the next bytes to an upload, on a thread that may block.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn write_upload(
        &self,
        mut upload: Box<Upload>,
        bytes: Bytes,
    ) -> Result<Box<Upload>, ContentError> {
        let turn = self.upload_turn().await?;
        off_thread(move || {
            let _turn = turn;
            upload.write(&bytes)?;
            Ok(upload)
        })
        .await
    }

    async fn upload_turn(&self) -> Result<OwnedSemaphorePermit, ContentError> {
        let turn = Arc::clone(&self.upload_writes).acquire_owned().await;
        turn.map_err(|_| ContentError::Stopped)
    }

    /// Completes an upload and returns when content and key are synced. Returns true if the content
    /// is new.
    ///
    /// # Errors
    /// [`ContentError::Size`] or [`ContentError::Mismatch`] if it is not the announced content;
    /// otherwise as [`ContentStore::hold`].
    pub async fn finish_upload(
        &self,
        gate: &SharedGate,
        mut upload: Upload,
    ) -> Result<bool, ContentError> {
        debug_assert_eq!(
            gate.ledger(),
            upload.ledger.number,
            "the gate is the ledger's"
        );
        let room = u32::try_from(PIECE_BYTES).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(room);
        let room = tokio::time::timeout(QUEUE_WAIT, room)
            .await
            .map_err(|_| ContentError::Busy)?
            .map_err(|_| ContentError::Stopped)?;
        let turn = self.upload_turn().await?;
        // The permit moves along with the bytes: a caller that gives up does not free the room
        // before the bytes are gone.
        let (sealed, room, _upload) = off_thread(move || {
            let _turn = turn;
            let sealed = upload.seal_last()?;
            Ok((sealed, room, upload))
        })
        .await?;
        // The upload lives until the write is answered, so that its pieces are not collected
        // before.
        Ok(self.write(vec![sealed], true, room).await? > 0)
    }
}

impl Upload {
    /// Takes the next bytes. Writes to the disk, without a sync.
    ///
    /// # Errors
    /// [`ContentError::Size`] if more bytes come than were announced; [`ContentError::Store`].
    pub fn write(&mut self, bytes: &Bytes) -> Result<(), ContentError> {
        self.came = self.came.saturating_add(bytes.len() as u64);
        if self.came > self.size {
            return Err(self.wrong_size());
        }
        let Some(sealer) = &mut self.sealer else {
            return Err(ContentError::Stopped);
        };
        self.tagger.update(bytes);
        let mut full = Vec::new();
        sealer.update(bytes, &mut |number, piece| full.push((number, piece)));
        for (number, piece) in full {
            self.write_piece(number, &piece)?;
        }
        Ok(())
    }

    fn write_piece(&mut self, number: u32, piece: &[u8]) -> Result<(), ContentError> {
        let (store, pieces) = (&self.shared.store, &self.shared.pieces);
        let upload = UploadOf {
            ledger: self.ledger.number,
            digest: self.digest,
            id: self.upload,
        };
        // The disk may have filled since the upload began.
        store.disk().room_for_contents(piece.len() as u64)?;
        let mut batch = Batch::default();
        if !self.marked {
            // The mark is written with the first piece, so that no piece is ever without it.
            pieces.begin(&mut batch, &upload)?;
            self.marked = true;
        }
        pieces.put(&mut batch, &upload, number, piece)?;
        // There is no sync here: that of the record which completes the upload covers everything
        // before it in the same log.
        store.commit_derived(batch)?;
        if let Some(reservation) = &mut self.reservation {
            reservation.has_pieces(self.upload);
        }
        Ok(())
    }

    fn seal_last(&mut self) -> Result<Sealed, ContentError> {
        if self.came != self.size {
            return Err(self.wrong_size());
        }
        let sealer = self.sealer.take().ok_or(ContentError::Stopped)?;
        let (number, piece, digest) = sealer.finish();
        if digest != self.digest {
            let digest = self.digest;
            return Err(ContentError::Mismatch { digest });
        }
        let reservation = self.reservation.take().ok_or(ContentError::Stopped)?;
        Ok(Sealed {
            ledger: self.ledger.number,
            digest,
            size: self.size,
            chunks: number + 1,
            key: WrappedKey {
                upload: self.upload,
                tag: self.tagger.finish(),
                wrapped: self.wrapped,
            },
            pieces: vec![(number, piece)],
            reservation,
        })
    }

    fn wrong_size(&self) -> ContentError {
        ContentError::Size {
            said: self.size,
            came: self.came,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // The reservation is dropped first: once the upload is removed from the set, its pieces may
        // be collected.
        drop(self.reservation.take());
        self.shared.uploads.lock().remove(&self.upload);
    }
}
