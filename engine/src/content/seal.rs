//! Encryption of contents and of their keys.
//!
//! ```text
//! content = salt (32) || bytes, cut into pieces of 1 MiB
//! piece   = XChaCha20-Poly1305(data key, nonce = number (u32) || last (u8) || 19 zeros,
//!                              aad = ledger id || digest || number (u32) || last (u8))
//! wrapped = nonce (24, random) || XChaCha20-Poly1305(wrapping key, nonce, data key,
//!                                                    aad = ledger id || digest)
//! tag     = BLAKE3(bytes), keyed with BLAKE3's derive_key(context, wrapping key || ledger id)
//! ```
//!
//! A data key is drawn for each content and seals nothing else, so a piece's number can be the
//! nonce. The number and the mark of the last piece keep pieces from being reordered or cut off;
//! the rest of the associated data ties both to the ledger and the commitment.
//!
//! Contents with the same bytes have the same tag, whatever their salts and commitments are: an
//! erasure uses it to find other contents with the bytes that are to be erased. The tag lies beside
//! the wrapped key and is destroyed with it. Without the key file it shows which contents of a
//! ledger are equal, and nothing else.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, AeadInOut as _, Payload},
};
use deed_evidence::{
    CommitmentDigest, LedgerId,
    commitment::{Committer, Salt},
};
use zeroize::Zeroizing;

/// Bytes of plaintext in every piece but the last.
pub const PIECE_BYTES: usize = 1 << 20;

/// Bytes that the authentication tag adds to each piece.
pub(crate) const TAG_BYTES: usize = 16;

/// Length of a salt, in bytes.
pub(crate) const SALT_BYTES: usize = 32;

/// Length of a data key, and of the key that wraps it, in bytes.
pub(crate) const KEY_BYTES: usize = 32;

const NONCE_BYTES: usize = 24;

/// Length of a wrapped data key, in bytes.
pub(crate) const WRAPPED_BYTES: usize = NONCE_BYTES + KEY_BYTES + TAG_BYTES;

/// BLAKE3 context of the keys that tags are made with. It never changes.
const TAG_CONTEXT: &str = "deed.v1 content tag";

/// A tag that all contents with the same bytes share, within one ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Tag([u8; Tag::LEN]);

impl Tag {
    pub(crate) const LEN: usize = 32;

    pub(crate) const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns the tag of a whole content.
    pub(crate) fn of(wrapping: &SecretKey, ledger_id: LedgerId, bytes: &[u8]) -> Self {
        let mut tagger = Tagger::new(wrapping, ledger_id);
        tagger.update(bytes);
        tagger.finish()
    }
}

/// Computes the tag of a content that comes in pieces.
pub(crate) struct Tagger(Box<blake3::Hasher>);

impl Tagger {
    pub(crate) fn new(wrapping: &SecretKey, ledger_id: LedgerId) -> Self {
        let mut material = Zeroizing::new([0; KEY_BYTES + 32]);
        material[..KEY_BYTES].copy_from_slice(&**wrapping);
        material[KEY_BYTES..].copy_from_slice(ledger_id.as_bytes());
        let key = Zeroizing::new(blake3::derive_key(TAG_CONTEXT, &*material));
        Self(Box::new(blake3::Hasher::new_keyed(&key)))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(&self) -> Tag {
        Tag(*self.0.finalize().as_bytes())
    }
}

/// A key that is wiped when it is dropped.
pub(crate) type SecretKey = Zeroizing<[u8; KEY_BYTES]>;

/// The ciphertext was changed, or the key is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not decrypt")]
pub(crate) struct Undecryptable;

/// The ledger and the commitment that a content's ciphertexts are tied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding {
    pub ledger_id: LedgerId,
    pub digest: CommitmentDigest,
}

impl Binding {
    fn associated(&self) -> [u8; 64] {
        let mut aad = [0; 64];
        aad[..32].copy_from_slice(self.ledger_id.as_bytes());
        aad[32..].copy_from_slice(self.digest.as_bytes());
        aad
    }

    fn of_piece(&self, number: u32, last: bool) -> [u8; 69] {
        let mut aad = [0; 69];
        aad[..64].copy_from_slice(&self.associated());
        aad[64..68].copy_from_slice(&number.to_be_bytes());
        aad[68] = last.into();
        aad
    }
}

/// Returns the number of pieces of a content of `size` bytes; `None` if that is too large.
pub(crate) fn pieces(size: u64) -> Option<u32> {
    let pieces = size
        .checked_add(SALT_BYTES as u64)?
        .div_ceil(PIECE_BYTES as u64);
    // The last number is left free, so that a range of pieces has an end.
    u32::try_from(pieces).ok().filter(|&n| n < u32::MAX)
}

/// Draws a new key.
pub(crate) fn new_key() -> Result<SecretKey, getrandom::Error> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(&mut *key)?;
    Ok(key)
}

/// Wraps a data key under the wrapping key.
pub(crate) fn wrap(
    wrapping: &SecretKey,
    binding: &Binding,
    data_key: &SecretKey,
) -> Result<[u8; WRAPPED_BYTES], getrandom::Error> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let aad = binding.associated();
    let payload = Payload {
        msg: &data_key[..],
        aad: &aad,
    };
    let sealed = XChaCha20Poly1305::new((&**wrapping).into())
        .encrypt(&XNonce::from(nonce), payload)
        .expect("32 bytes are not too long");
    let mut wrapped = [0; WRAPPED_BYTES];
    wrapped[..NONCE_BYTES].copy_from_slice(&nonce);
    wrapped[NONCE_BYTES..].copy_from_slice(&sealed);
    Ok(wrapped)
}

/// Decrypts a key that [`wrap`] encrypted.
pub(crate) fn unwrap(
    wrapping: &SecretKey,
    binding: &Binding,
    wrapped: &[u8; WRAPPED_BYTES],
) -> Result<SecretKey, Undecryptable> {
    let (nonce, sealed) = wrapped.split_at(NONCE_BYTES);
    let nonce = XNonce::try_from(nonce).map_err(|_| Undecryptable)?;
    let aad = binding.associated();
    let payload = Payload {
        msg: sealed,
        aad: &aad,
    };
    let opened = XChaCha20Poly1305::new((&**wrapping).into())
        .decrypt(&nonce, payload)
        .map(Zeroizing::new)
        .map_err(|_| Undecryptable)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if opened.len() != KEY_BYTES {
        return Err(Undecryptable);
    }
    key.copy_from_slice(&opened);
    Ok(key)
}

/// Cuts a content into sealed pieces while it arrives, and computes its commitment.
pub(crate) struct Sealer {
    cipher: XChaCha20Poly1305,
    binding: Binding,
    committer: Committer,
    /// The piece that is being filled.
    plaintext: Zeroizing<Vec<u8>>,
    number: u32,
}

impl Sealer {
    /// Begins with the salt. `size` is the expected size in bytes, for the memory of the first
    /// piece.
    pub(crate) fn new(key: &SecretKey, binding: Binding, salt: &Salt, size: u64) -> Self {
        let room = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .saturating_add(SALT_BYTES)
            .min(PIECE_BYTES);
        // There is room for the tag, too: growing would leave a copy of the plaintext behind.
        let mut plaintext = Zeroizing::new(Vec::with_capacity(room + TAG_BYTES));
        plaintext.extend_from_slice(salt.as_bytes());
        Self {
            cipher: XChaCha20Poly1305::new((&**key).into()),
            binding,
            committer: Committer::new(salt),
            plaintext,
            number: 0,
        }
    }

    /// Takes the next bytes, and passes each piece to `piece` that is full and not the last one.
    pub(crate) fn update(&mut self, mut bytes: &[u8], piece: &mut impl FnMut(u32, Vec<u8>)) {
        self.committer.update(bytes);
        while !bytes.is_empty() {
            // A full piece is known not to be the last one only when more bytes come.
            if self.plaintext.len() == PIECE_BYTES {
                let sealed = self.seal(false);
                piece(self.number, sealed);
                self.number += 1;
            }
            let room = PIECE_BYTES - self.plaintext.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.plaintext.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Returns the last piece with its number, and the commitment to the whole content.
    pub(crate) fn finish(mut self) -> (u32, Vec<u8>, CommitmentDigest) {
        let sealed = self.seal(true);
        (self.number, sealed, self.committer.finalize())
    }

    fn seal(&mut self, last: bool) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut *self.plaintext);
        let aad = self.binding.of_piece(self.number, last);
        self.cipher
            .encrypt_in_place(&nonce(self.number, last), &aad, &mut buffer)
            .expect("a piece of 1 MiB is not too long");
        if !last {
            *self.plaintext = Vec::with_capacity(PIECE_BYTES + TAG_BYTES);
        }
        buffer
    }
}

/// Opens the pieces of a content, in order, and returns no bytes that the commitment does not
/// cover.
pub(crate) struct Opener {
    cipher: XChaCha20Poly1305,
    binding: Binding,
    pieces: u32,
    next: u32,
    left: u64,
    committer: Option<Committer>,
}

impl Opener {
    pub(crate) fn new(key: &SecretKey, binding: Binding, size: u64, pieces: u32) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new((&**key).into()),
            binding,
            pieces,
            next: 0,
            left: size,
            committer: None,
        }
    }

    /// Returns the number of the next piece; `None` after the last.
    pub(crate) fn next(&self) -> Option<u32> {
        (self.next < self.pieces).then_some(self.next)
    }

    /// Opens the next piece and returns its bytes, and with the first piece the salt.
    pub(crate) fn open(
        &mut self,
        sealed: &[u8],
    ) -> Result<(Option<Salt>, Zeroizing<Vec<u8>>), Undecryptable> {
        let number = self.next;
        let last = number + 1 == self.pieces;
        let aad = self.binding.of_piece(number, last);
        let mut buffer = Zeroizing::new(sealed.to_vec());
        self.cipher
            .decrypt_in_place(&nonce(number, last), &aad, &mut *buffer)
            .map_err(|_| Undecryptable)?;
        self.next += 1;
        let salt = if number == 0 {
            let salt = buffer.first_chunk().ok_or(Undecryptable)?;
            let salt = Salt::from_bytes(*salt);
            buffer.drain(..SALT_BYTES);
            Some(salt)
        } else {
            None
        };
        let committer = match (&mut self.committer, &salt) {
            (Some(committer), _) => committer,
            (none, Some(salt)) => none.insert(Committer::new(salt)),
            (None, None) => return Err(Undecryptable),
        };
        committer.update(&buffer);
        self.left = self
            .left
            .checked_sub(buffer.len() as u64)
            .ok_or(Undecryptable)?;
        // The cipher shows that the bytes were not changed; the commitment shows that they are the
        // right ones.
        if last && (self.left != 0 || committer.finalize() != self.binding.digest) {
            return Err(Undecryptable);
        }
        Ok((salt, buffer))
    }
}

fn nonce(number: u32, last: bool) -> XNonce {
    let mut nonce = [0; NONCE_BYTES];
    nonce[..4].copy_from_slice(&number.to_be_bytes());
    nonce[4] = last.into();
    nonce.into()
}
