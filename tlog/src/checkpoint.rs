//! Checkpoints: tree heads as the text of a signed note.
//!
//! ```text
//! <origin>
//! <tree size, decimal, no leading zeros>
//! <base64 root hash>
//! ```
//!
//! Source: c2sp.org/tlog-checkpoint, "Format", without extension lines: ours have none, as
//! some witnesses reject them and ML-DSA cosignatures do not cover them, and what is not
//! covered by everybody's signature is better not read.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hash::{Hash, HashError};
use crate::key::{KeyError, KeyName, SignatureType, VerifierKey};
use crate::note::{NoteError, SignedNote};
use crate::signer::NoteSigner;
use crate::size::{TreeHead, TreeSize};
use crate::text::{DecimalError, parse_decimal};

/// The identity of a log, and the name of the key that it signs with. Has the form of a key
/// name: not empty, no white space, no `+`, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(KeyName);

/// A tree head and the log that it belongs to.
///
/// Not checked: that a checkpoint of size 0 has the root of the empty tree. Verifying
/// consistency with it does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checkpoint {
    /// The log.
    pub origin: Origin,
    /// The tree's size and root.
    pub head: TreeHead,
}

/// Why a note is not a checkpoint of the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Not three lines that all end with a line feed.
    #[error("checkpoint does not have three lines")]
    MissingLines,
    /// Lines after the root.
    #[error("checkpoint has extension lines, which are not supported")]
    ExtensionLines,
    /// The first line is no origin.
    #[error("checkpoint origin: {0}")]
    Origin(KeyError),
    /// The second line is no number.
    #[error("checkpoint tree size: {0}")]
    Size(DecimalError),
    /// The third line is no hash.
    #[error("checkpoint root: {0}")]
    Root(HashError),
    /// The key is named otherwise than the origin.
    #[error("checkpoint of {origin} with a key named {key_name}")]
    KeyName {
        /// The log that the checkpoint is of.
        origin: Origin,
        /// The name of the key.
        key_name: KeyName,
    },
    /// The key is a witness's.
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
    /// [`KeyError::EmptyName`] and [`KeyError::NameCharacter`].
    pub fn new(origin: impl Into<String>) -> Result<Origin, KeyError> {
        KeyName::new(origin).map(Origin)
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name that the log's keys must have.
    #[must_use]
    pub fn key_name(&self) -> &KeyName {
        &self.0
    }
}

impl Checkpoint {
    /// Puts a checkpoint together.
    #[must_use]
    pub const fn new(origin: Origin, head: TreeHead) -> Checkpoint {
        Checkpoint { origin, head }
    }

    /// The text that is signed: three lines, each with its line feed.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// Reads the text of a checkpoint. Nothing says yet that the log signed it.
    ///
    /// # Errors
    /// [`CheckpointError`] for everything that [`to_text`](Checkpoint::to_text) would not
    /// give.
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
    /// A log never signs two heads that are not consistent; this function cannot know.
    ///
    /// # Errors
    /// [`CheckpointError::KeyName`] if the key is not named as the origin.
    pub fn sign(&self, signer: &NoteSigner) -> Result<SignedNote, CheckpointError> {
        self.check_key_name(signer.name())?;
        Ok(SignedNote::sign(self.to_text(), signer)?)
    }

    /// Reads a checkpoint note and verifies that the log's key signed it.
    ///
    /// # Errors
    /// [`CheckpointError`]; the note's other signatures are not looked at.
    pub fn open(
        note: &[u8],
        key: &VerifierKey,
    ) -> Result<(Checkpoint, SignedNote), CheckpointError> {
        let note = SignedNote::parse(note)?;
        let checkpoint = Checkpoint::open_note(&note, key)?;
        Ok((checkpoint, note))
    }

    /// As [`open`](Checkpoint::open), for a note that is parsed already.
    ///
    /// # Errors
    /// As [`open`](Checkpoint::open).
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
