//! Ed25519 verification in its one strict form, for everything that is signed anywhere in
//! Deed.
//!
//! Implementations of Ed25519 disagree about edge cases. Evidence must not: a signature that
//! verifies here verifies everywhere, and there is one encoding of a key and of a signature. So
//! there are rules beyond RFC 8032 section 5.1.7: keys and the point R of small order are refused,
//! because they verify messages that nobody signed; S and the encodings of R and of the key are
//! canonical; and the group equation is the one without the cofactor, which cannot tell single from
//! batch verification. There is no batch verification.

use std::{hint::black_box, mem::MaybeUninit};

use ed25519_dalek::{Signature, Signer as _, Verifier as _, VerifyingKey};
use thiserror::Error;

/// Bytes of an encoded public key.
pub const PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The reason for which a key or a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The key's y coordinate is not below 2^255 - 19.
    #[error("public key is not canonically encoded")]
    NonCanonicalKey,
    /// The key is not a point of the curve.
    #[error("public key is not a point of the curve")]
    InvalidKey,
    /// The key has an order of at most 8: anyone can sign for it.
    #[error("public key has small order")]
    SmallOrderKey,
    /// The signature is not one of this key over this message, or not canonical, or R has
    /// small order.
    #[error("signature does not verify")]
    Mismatch,
}

/// A public key that was checked: canonical, on the curve, not of small order.
///
/// It keeps the decompressed point, so keep it for a key that verifies more than once.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Checks the encoding of a key, RFC 8032 section 5.1.2.
    ///
    /// # Errors
    /// [`SignatureError::NonCanonicalKey`], [`SignatureError::InvalidKey`] and
    /// [`SignatureError::SmallOrderKey`].
    pub fn from_bytes(bytes: &[u8; PUBLIC_KEY_BYTES]) -> Result<PublicKey, SignatureError> {
        if !is_canonical_y(bytes) {
            return Err(SignatureError::NonCanonicalKey);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| SignatureError::InvalidKey)?;
        if key.is_weak() {
            return Err(SignatureError::SmallOrderKey);
        }
        Ok(PublicKey(key))
    }

    /// Returns the encoded key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        self.0.as_bytes()
    }

    /// Checks a signature over a message.
    ///
    /// # Errors
    /// [`SignatureError::Mismatch`] if it does not verify.
    pub fn verify_strict(
        &self,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> Result<(), SignatureError> {
        // This is dalek's verify_strict without decompressing R: R is compared, as bytes, with the
        // result of the group equation, so it is canonical; and a point's order shows in its
        // canonical encoding. The key was checked not to be of small order when it was made.
        // (Measured: it saves a sixth of the time.)
        if is_small_order(signature) {
            return Err(SignatureError::Mismatch);
        }
        on_new_page(|| self.0.verify(message, &Signature::from_bytes(signature)))
            .map_err(|_| SignatureError::Mismatch)
    }
}

/// A value that marks the start of a page of the stack.
#[repr(align(4096))]
struct Page(#[expect(dead_code, reason = "only its place counts")] MaybeUninit<[u8; 64]>);

/// Calls `verify` from the start of a page of the stack.
///
/// The field arithmetic of a verification keeps vectors of 32 bytes on the stack. Where one of them
/// lies across two pages a verification takes up to a sixth longer, so its speed would depend on the
/// frames of its callers.
#[inline(never)]
fn on_new_page<T>(verify: impl FnOnce() -> T) -> T {
    let page = Page(MaybeUninit::uninit());
    black_box(&page);
    let verified = verify();
    black_box(&page);
    verified
}

/// The canonical encodings of all points of order 1, 2, 4 and 8 with an even x; those with an odd x
/// have the highest bit set.
///
/// Source: the torsion subgroup of edwards25519; the test makes them from one of order 8.
const SMALL_ORDER: [[u8; 32]; 5] = [
    {
        let mut identity = [0; 32];
        identity[0] = 1;
        identity
    },
    {
        let mut order_two = [0xff; 32];
        order_two[0] = 0xec;
        order_two[31] = 0x7f;
        order_two
    },
    [0; 32],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
];

/// Returns true if a signature's R encodes a point of order 8 or less. (The sign bit of a point
/// with x = 0 is not canonical, and refused by the comparison that follows.)
fn is_small_order(signature: &[u8; SIGNATURE_BYTES]) -> bool {
    let mut y = [0; 32];
    y.copy_from_slice(&signature[..32]);
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// A private key without a name or a purpose of its own: a producer's or an authority's.
///
/// The messages that it signs state their purpose in their first bytes. The seed is wiped when the
/// key is dropped, and never printed.
#[derive(Clone)]
pub struct SigningKey {
    signing: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// Makes the key of a seed: 32 random bytes, which are RFC 8032's private key.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> SigningKey {
        let signing = ed25519_dalek::SigningKey::from_bytes(seed);
        // A clamped scalar times the base point is never of small order, and dalek's compression is
        // canonical.
        let public = PublicKey(signing.verifying_key());
        SigningKey { signing, public }
    }

    /// Returns the seed, to be stored where only the signer can read it.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        self.signing.as_bytes()
    }

    /// Returns the key that verifies this one's signatures.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message, RFC 8032 section 5.1.6. The same message gives the same signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing.sign(message).to_bytes()
    }
}

/// Prints the public half only.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({:?})", self.public)
    }
}

/// Checks a key and a signature over a message, strictly.
///
/// # Errors
/// [`SignatureError`] as [`PublicKey::from_bytes`] and [`PublicKey::verify_strict`].
pub fn verify_strict(
    public_key: &[u8; PUBLIC_KEY_BYTES],
    message: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), SignatureError> {
    PublicKey::from_bytes(public_key)?.verify_strict(message, signature)
}

/// Prints the encoded key in lower hex.
impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Returns true if y, little-endian without the sign bit, is below p = 2^255 - 19 = 0x7fff..ffed.
///
/// The decompression reduces y modulo p without an error, so y and y + p would be two encodings of
/// one key. The other non-canonical encodings, x = 0 with the sign bit set, are of points of small
/// order and are refused as such.
fn is_canonical_y(bytes: &[u8; PUBLIC_KEY_BYTES]) -> bool {
    let [lowest, middle @ .., highest] = bytes;
    *lowest < 0xed || *highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All encodings of 32 bytes that dalek takes for a weak key, among all candidates, are in the
    /// table, and the table has no others.
    #[test]
    fn the_points_of_small_order_are_known() {
        for encoding in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut bytes = encoding;
                bytes[31] |= sign;
                let key = VerifyingKey::from_bytes(&bytes).expect("a point of the curve");
                assert!(key.is_weak(), "{bytes:02x?}");
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&bytes);
                assert!(is_small_order(&signature));
            }
        }
        // The subgroup has eight points: 1, 2 (order 4, both signs of x), 4 of order 8, and -1.
        let distinct: std::collections::BTreeSet<_> = SMALL_ORDER.into_iter().collect();
        assert_eq!(distinct.len(), 5);
    }

    /// The answer is that of dalek's own strict verification, for signatures that are good, bad in
    /// each byte, and of points of small order.
    #[test]
    fn strict_is_what_dalek_calls_strict() {
        let signing = SigningKey::from_seed(&[7; 32]);
        let good = signing.sign(b"message");
        let mut all = vec![good];
        for at in 0..64 {
            for bit in [0x01, 0x80] {
                let mut bad = good;
                bad[at] ^= bit;
                all.push(bad);
            }
        }
        for encoding in SMALL_ORDER {
            for sign in [0, 0x80] {
                // S = 0 and S = 1 are the values that a forger without a key would try.
                for s in [0, 1] {
                    let mut forged = [0; 64];
                    forged[..32].copy_from_slice(&encoding);
                    forged[31] |= sign;
                    forged[32] = s;
                    all.push(forged);
                }
            }
        }
        for signature in all {
            let theirs = signing
                .public
                .0
                .verify_strict(b"message", &Signature::from_bytes(&signature));
            let ours = signing.public.verify_strict(b"message", &signature);
            assert_eq!(ours.is_ok(), theirs.is_ok(), "{signature:02x?}");
        }
    }

    /// Returns 2^255 - 19 + y.
    fn p_plus(y: u8) -> [u8; 32] {
        let mut bytes = [0xff; 32];
        bytes[0] = 0xed + y;
        bytes[31] = 0x7f;
        bytes
    }

    #[test]
    fn non_canonical_keys_are_refused_even_of_large_order() {
        let mut usable = 0;
        for y in 0..19 {
            let mut canonical = [0; 32];
            canonical[0] = y;
            usable += u32::from(PublicKey::from_bytes(&canonical).is_ok());
            for sign in [0, 0x80] {
                let mut bytes = p_plus(y);
                bytes[31] |= sign;
                assert_eq!(
                    PublicKey::from_bytes(&bytes),
                    Err(SignatureError::NonCanonicalKey)
                );
            }
        }
        assert!(
            usable > 0,
            "some of these are keys, and had a second spelling"
        );
        let mut largest = p_plus(0);
        largest[0] -= 1; // p - 1 = -1, of order 2
        assert_eq!(
            PublicKey::from_bytes(&largest),
            Err(SignatureError::SmallOrderKey)
        );
    }

    #[test]
    fn invalid_and_small_order_keys_are_told_apart() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(
            PublicKey::from_bytes(&identity),
            Err(SignatureError::SmallOrderKey)
        );
        assert_eq!(
            PublicKey::from_bytes(&[0; 32]),
            Err(SignatureError::SmallOrderKey)
        );
        let mut off_curve = [0; 32];
        off_curve[0] = 2;
        assert_eq!(
            PublicKey::from_bytes(&off_curve),
            Err(SignatureError::InvalidKey)
        );
    }
}
