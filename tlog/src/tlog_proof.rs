//! Offline proofs: an inclusion proof and the checkpoint it leads to, in one text file.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra <base64>            optional, unauthenticated
//! index <leaf index>
//! <base64 hash>*            leaf's sibling first
//! <empty line>
//! <checkpoint, verbatim>
//! ```
//!
//! Source: c2sp.org/tlog-proof, "Format".

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hash::{Hash, HashError};
use crate::note::{NoteError, SignedNote};
use crate::policy::{Policy, PolicyError, VerifiedCheckpoint};
use crate::proof::{InclusionProof, ProofTooLong};
use crate::size::LeafIndex;
use crate::text::{Base64Error, DecimalError, decode_base64, encode_base64, parse_decimal};
use crate::verify::{VerifyError, verify_inclusion};

/// The longest proof that is parsed, in bytes: twice the longest note, which leaves 380 KiB
/// and more for the extra data.
pub const TLOG_PROOF_BYTES_MAX: usize = 1024 * 1024;

/// An offline proof: with a trust policy, it is all that is needed to verify that an entry is in a
/// log.
///
/// Printing it returns exactly the bytes that were parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Application data that is not verified.
    pub extra: Option<Vec<u8>>,
    /// The entry's position in the log.
    pub index: LeafIndex,
    /// The path from the entry's leaf to the root of the checkpoint.
    pub proof: InclusionProof,
    /// The checkpoint note, with its cosignatures.
    pub checkpoint: SignedNote,
}

/// The reason for which a proof is malformed or does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlogProofError {
    /// The proof is longer than is accepted.
    #[error("tlog-proof has {found} bytes, at most {TLOG_PROOF_BYTES_MAX} are accepted")]
    TooLong {
        /// Bytes of the proof.
        found: usize,
    },
    /// The proof is not UTF-8.
    #[error("tlog-proof is not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// Number of bytes before the invalid ones.
        valid_up_to: usize,
    },
    /// The first line is not that of this format.
    #[error("tlog-proof does not start with the line {FIRST_LINE}")]
    FirstLine,
    /// The extra data is not base64.
    #[error("tlog-proof extra: {0}")]
    Extra(Base64Error),
    /// There is no index line.
    #[error("tlog-proof has no index line")]
    NoIndex,
    /// The index is not a canonical decimal number.
    #[error("tlog-proof index: {0}")]
    Index(DecimalError),
    /// A line of the inclusion proof is not a hash.
    #[error("tlog-proof hash {position}: {cause}")]
    Hash {
        /// Zero-based position in the inclusion proof.
        position: usize,
        /// The defect of the hash.
        cause: HashError,
    },
    /// The inclusion proof has more hashes than any can have.
    #[error(transparent)]
    ProofTooLong(#[from] ProofTooLong),
    /// There is no empty line, or nothing after the inclusion proof.
    #[error("tlog-proof ends before the checkpoint")]
    NoCheckpoint,
    /// The checkpoint is not a signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The leaf is not in the tree of the checkpoint.
    #[error(transparent)]
    Inclusion(#[from] VerifyError),
}

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

impl TlogProof {
    /// Parses a proof. Nothing in it may be trusted before [`verify`](TlogProof::verify).
    ///
    /// # Errors
    /// [`TlogProofError`] for all bytes that [`Display`](fmt::Display) would not print.
    pub fn parse(proof: &[u8]) -> Result<TlogProof, TlogProofError> {
        if proof.len() > TLOG_PROOF_BYTES_MAX {
            return Err(TlogProofError::TooLong { found: proof.len() });
        }
        let text = std::str::from_utf8(proof).map_err(|error| TlogProofError::NotUtf8 {
            valid_up_to: error.valid_up_to(),
        })?;
        let rest = match text.split_once('\n') {
            Some((FIRST_LINE, rest)) => rest,
            _ => return Err(TlogProofError::FirstLine),
        };
        let (extra, rest) = match split_line(rest, "extra ") {
            Some((base64, rest)) => (
                Some(decode_base64(base64).map_err(TlogProofError::Extra)?),
                rest,
            ),
            None => (None, rest),
        };
        let (index, rest) = split_line(rest, "index ").ok_or(TlogProofError::NoIndex)?;
        let index = LeafIndex::new(parse_decimal(index).map_err(TlogProofError::Index)?);
        let (hashes, checkpoint) = parse_hashes(rest)?;
        Ok(TlogProof {
            extra,
            index,
            proof: InclusionProof::from_hashes(hashes)?,
            checkpoint: SignedNote::parse(checkpoint.as_bytes())?,
        })
    }

    /// Verifies that the log has `leaf` at [`index`](TlogProof::index): the policy accepts
    /// the checkpoint, and the inclusion proof leads from the leaf to the checkpoint's root.
    ///
    /// The verifier must compute the leaf hash from the entry itself. The extra data stays
    /// unverified.
    ///
    /// # Errors
    /// [`TlogProofError::Policy`] or [`TlogProofError::Inclusion`] if it does not hold.
    pub fn verify(
        &self,
        leaf: &Hash,
        policy: &Policy,
    ) -> Result<VerifiedCheckpoint, TlogProofError> {
        let verified = policy.verify_note(&self.checkpoint)?;
        verify_inclusion(&self.proof, leaf, self.index, &verified.checkpoint.head)?;
        Ok(verified)
    }
}

/// Splits off a line that starts with `keyword`; returns the rest of that line, and the lines
/// below.
fn split_line<'a>(text: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(keyword)?.split_once('\n')
}

/// Parses hashes up to the empty line; returns them, and the lines below.
fn parse_hashes(text: &str) -> Result<(Vec<Hash>, &str), TlogProofError> {
    let mut hashes = Vec::new();
    let mut rest = text;
    loop {
        let (line, below) = rest.split_once('\n').ok_or(TlogProofError::NoCheckpoint)?;
        rest = below;
        if line.is_empty() {
            return Ok((hashes, rest));
        }
        let position = hashes.len();
        if position == InclusionProof::HASHES_MAX {
            let max = InclusionProof::HASHES_MAX;
            return Err(ProofTooLong {
                found: position + 1,
                max,
            }
            .into());
        }
        let hash =
            Hash::from_base64(line).map_err(|cause| TlogProofError::Hash { position, cause })?;
        hashes.push(hash);
    }
}

impl FromStr for TlogProof {
    type Err = TlogProofError;

    fn from_str(proof: &str) -> Result<TlogProof, TlogProofError> {
        TlogProof::parse(proof.as_bytes())
    }
}

/// Prints the proof as it is sent and stored.
impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", encode_base64(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        for hash in self.proof.hashes() {
            writeln!(f, "{}", hash.to_base64())?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
