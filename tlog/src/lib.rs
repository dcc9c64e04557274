//! The transparency log: Merkle tree mathematics and the C2SP formats around it.
//!
//! In scope: hashing entries into an RFC 6962 tree, growing it and cutting it into tiles, making
//! and checking proofs; signed notes, checkpoints, cosignatures, trust policies and offline proofs;
//! and the small batch trees that let a producer sign once for many statements. Server, client and
//! offline verifier all call these functions: verification code exists once.
//!
//! Out of scope: the meaning of entries (`deed-evidence`), the place where tiles are stored (they
//! are read through [`TileReader`]) and the times at which things happen. Nothing in this crate
//! accesses a clock, randomness, a file or the network; times and seeds are arguments.
//!
//! | what | where |
//! |---|---|
//! | hashes, indexes, sizes | [`struct@Hash`], [`LeafIndex`], [`TreeSize`], [`TreeHead`] |
//! | a growing tree | [`RightEdge`] (emits [`FullTile`]s), [`Frontier`] (root only) |
//! | proofs from tiles | [`prove_inclusion`], [`prove_consistency`], [`root_at`] |
//! | checking them | [`verify_inclusion`], [`verify_consistency`] |
//! | tiles on the wire | [`TileId`], [`TilePath`], [`encode_entry_bundle`] |
//! | notes and keys | [`SignedNote`], [`VerifierKey`], [`NoteSigner`] |
//! | tree heads on the wire | [`Checkpoint`], [`Cosigner`] |
//! | trust | [`Policy`], [`TlogProof`] |
//! | producer batches | [`batch_root`], [`verify_batch_proof`] |

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod batch;
mod checkpoint;
mod cosignature;
mod ed25519;
mod edge;
mod entry_bundle;
mod frontier;
mod hash;
mod key;
mod note;
mod note_signature;
mod plan;
mod policy;
mod policy_parser;
mod proof;
mod prove;
mod signer;
mod size;
mod text;
mod tile;
mod tile_path;
mod tlog_proof;
mod verify;

pub use batch::{
    BATCH_PAYLOADS_MAX, BatchCount, BatchError, BatchHead, BatchPosition, BatchProof, BatchRoot,
    BatchTree, batch_proof, batch_root, verify_batch_proof,
};
pub use checkpoint::{Checkpoint, CheckpointError, Origin};
pub use cosignature::{COSIGNATURE_BYTES, Cosigner, PosixSeconds, TimeTooLarge};
pub use ed25519::{
    PUBLIC_KEY_BYTES, PublicKey, SIGNATURE_BYTES, SignatureError, SigningKey, verify_strict,
};
pub use edge::{EdgeReader, FullTile, RebuildError, RightEdge};
pub use entry_bundle::{
    ENTRY_BYTES_MAX, EntryBundleError, EntryBundleId, decode_entry_bundle, encode_entry_bundle,
};
pub use frontier::Frontier;
pub use hash::{EMPTY_ROOT, Hash, HashError, empty_root, leaf_hash, node_hash};
pub use key::{KeyError, KeyId, KeyName, SignatureType, VerifierKey};
pub use note::{NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX, NoteError, SignedNote, VerifiedSignature};
pub use note_signature::NoteSignature;
pub use policy::{CosignedBy, Policy, PolicyError, PolicyLog, PolicyWitness, VerifiedCheckpoint};
pub use policy_parser::{POLICY_BYTES_MAX, PolicyLineError, PolicyParseError};
pub use proof::{ConsistencyProof, InclusionProof, ProofTooLong};
pub use prove::{ProveError, prove_consistency, prove_inclusion, prove_inclusions, root_at};
pub use signer::{NoteSigner, SEED_BYTES};
pub use size::{LeafIndex, SizeRange, TreeHead, TreeSize};
pub use text::{Base64Error, DecimalError};
pub use tile::{
    TILE_BYTES, TILE_LEVEL_MAX, TILE_WIDTH, TileError, TileHashes, TileId, TileReadError,
    TileReader, tile_bytes,
};
pub use tile_path::{TilePath, TilePathError};
pub use tlog_proof::{TLOG_PROOF_BYTES_MAX, TlogProof, TlogProofError};
pub use verify::{VerifyError, verify_consistency, verify_inclusion};
