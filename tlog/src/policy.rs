//! Trust policies: the logs that a verifier trusts, and the witnesses that must have cosigned their
//! heads.
//!
//! A verifier is configured with a policy, and has to trust nothing else.
//!
//! Source: c2sp.org/tlog-policy.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError, Origin};
use crate::cosignature::PosixSeconds;
use crate::key::{SignatureType, VerifierKey};
use crate::note::{NoteError, SignedNote};
use crate::policy_parser::{self, PolicyParseError};

/// A parsed policy: logs, witnesses and the rule for sufficient cosignatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(crate) logs: Vec<PolicyLog>,
    pub(crate) witnesses: Vec<PolicyWitness>,
    /// One rule for each name, in the order of the file. Members refer backwards only, so one pass
    /// from the front evaluates all of them.
    pub(crate) rules: Vec<Rule>,
    /// The rule that must hold; `None` for `quorum none`.
    pub(crate) quorum: Option<usize>,
}

/// A `log` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyLog {
    /// The log's key, of type 0x01. Its name is the log's origin.
    pub key: VerifierKey,
    /// The log's URL, if the policy has one.
    pub url: Option<String>,
}

/// A `witness` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyWitness {
    /// The witness's name in the policy, which need not be its key's name; bytes that are not UTF-8
    /// are replaced.
    pub name: String,
    /// The witness's key, of type 0x04.
    pub key: VerifierKey,
    /// The witness's submission prefix, if the policy has one.
    pub url: Option<String>,
}

/// The meaning of a name in the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Holds if this witness cosigned.
    Witness(usize),
    /// Holds if at least `threshold` of the members hold.
    Group {
        threshold: usize,
        members: Vec<usize>,
    },
}

/// A checkpoint that the policy accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCheckpoint {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// The key of the log that signed it.
    pub log_key: VerifierKey,
    /// The witnesses of the policy that cosigned it, in the order of the policy; they may be more
    /// than the quorum needs, and none with `quorum none`.
    pub cosigned_by: Vec<CosignedBy>,
}

/// A witness's cosignature of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedBy {
    /// The witness's name in the policy.
    pub witness: String,
    /// The witness's key.
    pub key: VerifierKey,
    /// Time of the cosignature by the witness's own clock; the latest time if there are several.
    pub time: PosixSeconds,
}

/// The reason for which the policy does not accept a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The note is malformed, has a bad signature by a known key, or has none by a known key.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The policy has no log of this origin.
    #[error("the policy does not list the log {origin}")]
    UnknownLog {
        /// The origin of the checkpoint.
        origin: Origin,
    },
    /// Witnesses signed the checkpoint, but the log did not.
    #[error("the checkpoint is not signed by the log {origin}")]
    NotSignedByLog {
        /// The origin of the checkpoint.
        origin: Origin,
    },
    /// The witnesses that cosigned do not make the quorum.
    #[error("cosignatures of {cosigned} of {witnesses} witnesses do not make the quorum")]
    Quorum {
        /// Witnesses of the policy that cosigned.
        cosigned: usize,
        /// Witnesses of the policy.
        witnesses: usize,
    },
}

impl Policy {
    /// Parses a policy file.
    ///
    /// Bytes beyond ASCII are opaque, as the specification demands. The last line may lack its line
    /// feed.
    ///
    /// # Errors
    /// [`PolicyParseError`] with the number of the line.
    pub fn parse(policy: impl AsRef<[u8]>) -> Result<Policy, PolicyParseError> {
        policy_parser::parse(policy.as_ref())
    }

    /// Returns the logs, in the order of the file.
    #[must_use]
    pub fn logs(&self) -> &[PolicyLog] {
        &self.logs
    }

    /// Returns the witnesses, in the order of the file.
    #[must_use]
    pub fn witnesses(&self) -> &[PolicyWitness] {
        &self.witnesses
    }

    /// Returns true if cosignatures are needed, that is unless the policy has `quorum none`.
    #[must_use]
    pub fn needs_cosignatures(&self) -> bool {
        self.quorum.is_some()
    }

    /// Parses a checkpoint note and verifies it: one of the policy's logs signed it, that log is
    /// its origin, and the quorum of witnesses cosigned it.
    ///
    /// # Errors
    /// [`PolicyError`]. A bad signature by any log of this origin or any witness of the policy
    /// rejects the note, even if it has enough good ones.
    pub fn verify_checkpoint(&self, note: &[u8]) -> Result<VerifiedCheckpoint, PolicyError> {
        self.verify_note(&SignedNote::parse(note)?)
    }

    /// Verifies a note that is parsed already, like
    /// [`verify_checkpoint`](Policy::verify_checkpoint).
    ///
    /// # Errors
    /// [`PolicyError`], like [`verify_checkpoint`](Policy::verify_checkpoint).
    pub fn verify_note(&self, note: &SignedNote) -> Result<VerifiedCheckpoint, PolicyError> {
        let checkpoint = Checkpoint::parse(note.text())?;
        let log_keys: Vec<&VerifierKey> = self
            .logs
            .iter()
            .map(|log| &log.key)
            .filter(|key| key.name() == checkpoint.origin.key_name())
            .collect();
        if log_keys.is_empty() {
            return Err(PolicyError::UnknownLog {
                origin: checkpoint.origin,
            });
        }
        self.verify_signatures(note, checkpoint, &log_keys)
    }

    /// Verifies a checkpoint of a log that is known from elsewhere; `key` is used in place of the
    /// policy's logs.
    ///
    /// # Errors
    /// [`PolicyError`], like [`verify_checkpoint`](Policy::verify_checkpoint), and
    /// [`CheckpointError::KeyType`] for the key of a witness.
    pub fn verify_note_of(
        &self,
        note: &SignedNote,
        log_key: &VerifierKey,
    ) -> Result<VerifiedCheckpoint, PolicyError> {
        if log_key.signature_type() != SignatureType::Ed25519 {
            return Err(CheckpointError::KeyType {
                name: log_key.name().clone(),
            }
            .into());
        }
        let checkpoint = Checkpoint::parse(note.text())?;
        if log_key.name() != checkpoint.origin.key_name() {
            return Err(PolicyError::UnknownLog {
                origin: checkpoint.origin,
            });
        }
        self.verify_signatures(note, checkpoint, &[log_key])
    }

    fn verify_signatures(
        &self,
        note: &SignedNote,
        checkpoint: Checkpoint,
        log_keys: &[&VerifierKey],
    ) -> Result<VerifiedCheckpoint, PolicyError> {
        let witness_keys = self.witnesses.iter().map(|witness| &witness.key);
        let signatures = note.verify(log_keys.iter().copied().chain(witness_keys))?;

        let by_log = signatures
            .iter()
            .find(|signature| log_keys.contains(&signature.key));
        let Some(by_log) = by_log else {
            return Err(PolicyError::NotSignedByLog {
                origin: checkpoint.origin,
            });
        };
        let times: Vec<Option<PosixSeconds>> = self
            .witnesses
            .iter()
            .map(|witness| {
                let own = signatures
                    .iter()
                    .filter(|signature| *signature.key == witness.key);
                own.filter_map(|signature| signature.time).max()
            })
            .collect();
        let cosigned: Vec<bool> = times.iter().map(Option::is_some).collect();
        if !self.has_quorum(&cosigned) {
            let count = cosigned.iter().filter(|cosigned| **cosigned).count();
            let witnesses = self.witnesses.len();
            return Err(PolicyError::Quorum {
                cosigned: count,
                witnesses,
            });
        }

        let cosigned_by = self
            .witnesses
            .iter()
            .zip(times)
            .filter_map(|(witness, time)| {
                let PolicyWitness { name, key, .. } = witness.clone();
                time.map(|time| CosignedBy {
                    witness: name,
                    key,
                    time,
                })
            });
        Ok(VerifiedCheckpoint {
            log_key: by_log.key.clone(),
            cosigned_by: cosigned_by.collect(),
            checkpoint,
        })
    }

    /// Returns true if the quorum holds when these witnesses, one flag for each, cosigned.
    fn has_quorum(&self, cosigned: &[bool]) -> bool {
        let mut holds: Vec<bool> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            holds.push(match rule {
                Rule::Witness(witness) => cosigned[*witness],
                Rule::Group { threshold, members } => {
                    members.iter().filter(|member| holds[**member]).count() >= *threshold
                }
            });
        }
        self.quorum.is_none_or(|rule| holds[rule])
    }
}

impl FromStr for Policy {
    type Err = PolicyParseError;

    fn from_str(policy: &str) -> Result<Policy, PolicyParseError> {
        Policy::parse(policy)
    }
}

impl fmt::Display for CosignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.witness, self.time)
    }
}
