//! Evidence that a log showed two histories.

use std::fmt;

use deed_tlog::{Hash, VerifierKey};
use serde::{Deserialize, Serialize};

use super::Pin;
use crate::head::SignedHead;

/// The kinds of forks, the strongest evidence first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForkKind {
    /// Two signed heads of one size with different roots: conclusive by themselves.
    SameSize,
    /// The proof that the smaller head leads to the larger one does not hold. The heads are
    /// signed, the proof is not: an honest log could still give one that holds.
    ProofFails,
    /// The larger head is signed with a log key that was replaced before, as the smaller one says: it
    /// is signed with that key too. Whoever has the old key makes another history.
    RetiredKey,
    /// The server refuses to prove that the smaller head leads to the larger one, for example
    /// because it has lost the larger one. An honest log could prove it.
    NoProof,
}

impl fmt::Display for ForkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameSize => "two roots for one size",
            Self::ProofFails => "the consistency proof does not hold",
            Self::RetiredKey => "a log key signs after it was replaced",
            Self::NoProof => "the server cannot prove its heads consistent",
        })
    }
}

/// Two signed heads of one log, verbatim, that were not shown to be consistent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkEvidence {
    /// The kind of contradiction.
    pub kind: ForkKind,
    /// The log.
    pub origin: String,
    /// The key that signed the smaller one.
    pub vkey: String,
    /// The key that signed the larger one, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_vkey: Option<String>,
    /// Lower hex.
    pub ledger_id: String,
    /// The server that showed it.
    pub server: String,
    /// Microseconds since 1970, by this machine's clock.
    pub seen_at_us: u64,
    /// Signed note of the smaller head, verbatim.
    pub older_checkpoint: String,
    /// Signed note of the larger head (or the other one of the same size), verbatim.
    pub newer_checkpoint: String,
    /// The consistency proof that the server gave, if any: base64 hashes.
    pub consistency_proof: Option<Vec<String>>,
}

impl ForkEvidence {
    pub(crate) fn new(
        kind: ForkKind,
        pin: &Pin,
        [older_key, newer_key]: [&VerifierKey; 2],
        server: &str,
        [older, newer]: [&SignedHead; 2],
        proof: Option<&[Hash]>,
        seen_at_us: u64,
    ) -> Self {
        // Signed notes are UTF-8, or they would not have been opened.
        let note = |head: &SignedHead| String::from_utf8_lossy(&head.note).into_owned();
        Self {
            kind,
            origin: pin.origin.to_string(),
            vkey: older_key.to_string(),
            newer_vkey: (newer_key != older_key).then(|| newer_key.to_string()),
            ledger_id: pin.ledger_id.to_string(),
            server: server.to_owned(),
            seen_at_us,
            older_checkpoint: note(older),
            newer_checkpoint: note(newer),
            consistency_proof: proof.map(|hashes| hashes.iter().map(Hash::to_base64).collect()),
        }
    }
}
