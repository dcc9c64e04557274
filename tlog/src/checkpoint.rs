//! Checkpoints: tree heads as the text of a signed note.
//!
//! ```text
//! <origin>
//! <tree size, decimal, no leading zeros>
//! <base64 root hash>
//! ```
//!
//! Source: c2sp.org/tlog-checkpoint, "Format", without extension lines. Deed's checkpoints have
//! none: some witnesses reject them, ML-DSA cosignatures do not cover them, and bytes that some
//! signatures do not cover are better not read.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hash::{Hash, HashError};
use crate::key::{KeyError, KeyName, SignatureType, VerifierKey};
use crate::note::{NoteError, SignedNote};
use crate::signer::NoteSigner;
use crate::size::{TreeHead, TreeSize};
use crate::text::{DecimalError, parse_decimal};

/// The identity of a log, and the name of its key. It has the form of a key name: not empty, no
/// white space, no `+`, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(KeyName);

/// A tree head and the log that it belongs to.
///
/// It is not checked that a checkpoint of size 0 has the root of the empty tree; verifying
/// consistency with it checks that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// The tree's size and root.
    pub head: TreeHead,
}

/// The reason for which a note is not a checkpoint of the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The text is not three lines that all end with a line feed.
    #[error("checkpoint does not have three lines")]
    MissingLines,
    /// There are lines after the root.
    #[error("checkpoint has extension lines, which are not supported")]
    ExtensionLines,
    /// The first line is not an origin.
    #[error("checkpoint origin: {0}")]
    Origin(KeyError),
    /// The second line is not a number.
    #[error("checkpoint tree size: {0}")]
    Size(DecimalError),
    /// The third line is not a hash.
    #[error("checkpoint root: {0}")]
    Root(HashError),
    /// The name of the key is not the origin.
    #[error("checkpoint of {origin} with a key named {key_name}")]
    KeyName {
        /// The log that the checkpoint is of.
        origin: Origin,
        /// The name of the key.
        key_name: KeyName,
    },
    /// The key is a witness's key.
    #[error("key {name} cosigns checkpoints, it does not sign them")]
    KeyType {
        /// The name of the key.
        name: KeyName,
    },
    /// The note itself is malformed or not signed by the key.
    #[error(transparent)]
    Note(#[from] NoteError),
}

impl Origin {
    /// Checks an origin.
    ///
    /// # Errors
    /// [`KeyError::EmptyName`] or [`KeyError::NameCharacter`] if it cannot be a key's name.
    pub fn new(origin: impl Into<String>) -> Result<Origin, KeyError> {
        KeyName::new(origin).map(Origin)
    }

    /// Returns the origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the name that the log's keys must have.
    #[must_use]
    pub fn key_name(&self) -> &KeyName {
        &self.0
    }
}

impl Checkpoint {
    /// Makes a checkpoint of its parts.
    #[must_use]
    pub const fn new(origin: Origin, head: TreeHead) -> Checkpoint {
        Checkpoint { origin, head }
    }

    /// Returns the text that is signed: three lines, each with its line feed.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// Parses the text of a checkpoint, whose signature is not known here.
    ///
    /// # Errors
    /// [`CheckpointError`] for every text that [`to_text`](Checkpoint::to_text) would not return.
    pub fn parse(text: &str) -> Result<Checkpoint, CheckpointError> {
        let mut lines = text.split_inclusive('\n');
        let mut next = || lines.next()?.strip_suffix('\n');
        let (Some(origin), Some(size), Some(root)) = (next(), next(), next()) else {
            return Err(CheckpointError::MissingLines);
        };
        if lines.next().is_some() {
            return Err(CheckpointError::ExtensionLines);
        }
        let origin = Origin::new(origin).map_err(CheckpointError::Origin)?;
        let size = TreeSize::new(parse_decimal(size).map_err(CheckpointError::Size)?);
        let root = Hash::from_base64(root).map_err(CheckpointError::Root)?;
        Ok(Checkpoint {
            origin,
            head: TreeHead::new(size, root),
        })
    }

    /// Signs the checkpoint with the log's key.
    ///
    /// A log must never sign two heads that are not consistent, which this function cannot check.
    ///
    /// # Errors
    /// [`CheckpointError::KeyName`] if the name of the key is not the origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, CheckpointError> {
        self.check_key_name(signer.name())?;
        Ok(SignedNote::sign(self.to_text(), signer)?)
    }

    /// Parses a checkpoint note and verifies that the log's key signed it.
    ///
    /// # Errors
    /// [`CheckpointError`]; the note's other signatures are not checked.
    pub fn open(
        note: &[u8],
        key: &VerifierKey,
    ) -> Result<(Checkpoint, SignedNote), CheckpointError> {
        let note = SignedNote::parse(note)?;
        let checkpoint = Checkpoint::open_note(&note, key)?;
        Ok((checkpoint, note))
    }

    /// Verifies a checkpoint note that is parsed already, like [`open`](Checkpoint::open).
    ///
    /// # Errors
    /// [`CheckpointError`], like [`open`](Checkpoint::open).
    pub fn open_note(note: &SignedNote, key: &VerifierKey) -> Result<Checkpoint, CheckpointError> {
        if key.signature_type() != SignatureType::Ed25519 {
            return Err(CheckpointError::KeyType {
                name: key.name().clone(),
            });
        }
        note.verify([key])?;
        let checkpoint = Checkpoint::parse(note.text())?;
        checkpoint.check_key_name(key.name())?;
        Ok(checkpoint)
    }

    fn check_key_name(&self, key_name: &KeyName) -> Result<(), CheckpointError> {
        if self.origin.key_name() != key_name {
            let (origin, key_name) = (self.origin.clone(), key_name.clone());
            return Err(CheckpointError::KeyName { origin, key_name });
        }
        Ok(())
    }
}

impl From<Origin> for KeyName {
    fn from(origin: Origin) -> KeyName {
        origin.0
    }
}

impl From<&Origin> for KeyName {
    fn from(origin: &Origin) -> KeyName {
        origin.0.clone()
    }
}

impl From<KeyName> for Origin {
    fn from(name: KeyName) -> Origin {
        Origin(name)
    }
}

impl FromStr for Origin {
    type Err = KeyError;

    fn from_str(origin: &str) -> Result<Origin, KeyError> {
        Origin::new(origin)
    }
}

impl AsRef<str> for Origin {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Prints the text that is signed.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n{}\n{}\n",
            self.origin,
            self.head.size,
            self.head.root.to_base64()
        )
    }
}
