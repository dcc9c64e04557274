//! A content that comes in pieces.

use std::sync::Arc;

use bytes::Bytes;
use deed_evidence::{CommitmentDigest, commitment::Salt};
use prost::Message as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Binding, ContentError, ContentStore, LedgerRef, QUEUE_WAIT, Shared, SharedGate, State,
    UploadId,
    key_store::WrappedKey,
    off_thread,
    quota::Reservation,
    seal::{self, PIECE_BYTES, Sealer, Tagger, WRAPPED_BYTES},
    writer::Sealed,
};
use crate::store::{Batch, Family, content::UploadRecord, keys};

/// A content that is being uploaded. Sealed pieces go to the disk as they become full, so it holds
/// 1 MiB at most. If it is dropped, the next collection removes what it wrote.
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

/// What an upload begins as.
pub enum Begun {
    Upload(Box<Upload>),
    /// It need not be sent. To be asserted with [`ContentStore::keep_held`] before anybody is told.
    AlreadyHeld,
}

impl ContentStore {
    /// Begins to take a content of `size` bytes. Reads the disk.
    ///
    /// # Errors
    /// [`ContentError::TooLarge`], [`ContentError::Erased`], [`ContentError::Quota`],
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
            State::Held => return Ok(Begun::AlreadyHeld),
            State::Erased(leaf) => return Err(ContentError::Erased { digest, leaf }),
            State::Unknown => {}
        }
        let max = shared.bytes_max;
        if size > max || seal::pieces(size).is_none() {
            return Err(ContentError::TooLarge { size, max });
        }
        shared.store.disk().room_for_contents(size)?;
        // Before it is held: a statement that names it right after must find it.
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

    /// Gives an upload the next bytes, where that may block.
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

    /// Makes an upload whole: returns when content and key are synced. Whether it is new.
    ///
    /// # Errors
    /// [`ContentError::Size`] and [`ContentError::Mismatch`] if it is not what was announced;
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
        // The room goes along with the bytes: a caller that gives up does not free it before they
        // are gone.
        let (sealed, room, _upload) = off_thread(move || {
            let _turn = turn;
            let sealed = upload.seal_last()?;
            Ok((sealed, room, upload))
        })
        .await?;
        // The upload lives until it is answered: until then it is not collected.
        Ok(self.write(vec![sealed], true, room).await? > 0)
    }
}

impl Upload {
    /// Takes the next bytes. Writes to the disk, without waiting for it.
    ///
    /// # Errors
    /// [`ContentError::Size`] if more comes than was announced; [`ContentError::Store`].
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
        let (store, ledger) = (&self.shared.store, self.ledger.number);
        // Others may have filled the disk since it began.
        store.disk().room_for_contents(piece.len() as u64)?;
        let mut batch = Batch::default();
        if !self.marked {
            // With the first piece, so that no piece is ever without its mark.
            let record = UploadRecord {
                digest: Bytes::copy_from_slice(self.digest.as_bytes()),
            };
            let mark = keys::upload(ledger, &self.upload);
            store.put(&mut batch, Family::Content, &mark, &record.encode_to_vec());
            self.marked = true;
        }
        let key = keys::chunk(ledger, &self.digest, &self.upload, number);
        store.put(&mut batch, Family::Content, &key, piece);
        // Not synced: the sync of the record that makes it whole covers everything before it in
        // the same log.
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
        // First: once the upload is not among them, its pieces may be collected.
        drop(self.reservation.take());
        self.shared.uploads.lock().remove(&self.upload);
    }
}
