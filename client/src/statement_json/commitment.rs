//! Commitments in JSON: a digest, or the content that one is to be made of.

use std::path::PathBuf;

use deed_proto::v1;
use serde::{Deserialize, Serialize};

use super::{JsonError, hex_bytes::HexBytes};

/// A commitment. As read from a ledger it has a digest; a producer may give the content instead,
/// as a file or as text, and it is committed to before the statement is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitmentJson {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<HexBytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    media_type: String,
}

/// A content that stands in a statement's JSON in place of its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentJson {
    /// The field that it stands in, for example `intent.arguments`; what its salt derives from.
    pub slot: &'static str,
    /// Where its bytes are.
    pub source: ContentSource,
    /// RFC 6838.
    pub media_type: String,
}

/// Where the bytes of a content are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentSource {
    /// The file that holds the content.
    File(PathBuf),
    /// The content itself.
    Text(String),
}

/// Must equal the Intent's commitment to the byte, so it cannot be made anew, with another salt.
const COPY: &str = "outcome.arguments";

impl From<CommitmentJson> for v1::Commitment {
    fn from(json: CommitmentJson) -> Self {
        Self {
            digest: json.digest.unwrap_or_default().into(),
            media_type: json.media_type,
        }
    }
}

impl From<v1::Commitment> for CommitmentJson {
    fn from(message: v1::Commitment) -> Self {
        Self {
            digest: Some(message.digest.into()),
            file: None,
            text: None,
            media_type: message.media_type,
        }
    }
}

impl CommitmentJson {
    /// Returns the content that stands in place of the digest, if one does.
    pub(super) fn content(&self, slot: &'static str) -> Result<Option<ContentJson>, JsonError> {
        let source = match (&self.digest, &self.file, &self.text) {
            (Some(_), None, None) => return Ok(None),
            (None, ..) if slot == COPY => return Err(JsonError::Copy { slot }),
            (None, Some(file), None) => ContentSource::File(file.clone()),
            (None, None, Some(text)) => ContentSource::Text(text.clone()),
            _ => return Err(JsonError::Commitment { slot }),
        };
        Ok(Some(ContentJson {
            slot,
            source,
            media_type: self.media_type.clone(),
        }))
    }
}
