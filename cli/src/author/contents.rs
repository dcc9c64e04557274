//! Contents that a command commits to.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use deed_client::{CONTENT_INLINE_BYTES_MAX, Ledger, StateDir};
use deed_evidence::{
    CommitmentDigest, Sequence, SessionId,
    commitment::{Salt, digest_of},
};
use deed_proto::v1;

use super::secret;
use crate::failure::{CommandResult, Failure};

/// Longest content: the default limit of a server.
const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Commits to the contents of one statement. Salts derive from the state directory's secret, so
/// the same statement gets the same commitments again.
pub(crate) struct ContentCommitter {
    secret: [u8; 32],
    place: (SessionId, Sequence),
    attachments: Vec<v1::Attachment>,
    /// Too long to travel with the statement.
    ahead: Vec<(CommitmentDigest, Salt, Bytes)>,
}

impl ContentCommitter {
    pub(crate) fn at(
        state: &StateDir,
        session: SessionId,
        sequence: Sequence,
    ) -> CommandResult<Self> {
        Ok(Self {
            secret: secret::made_once(state)?,
            place: (session, sequence),
            attachments: Vec::new(),
            ahead: Vec::new(),
        })
    }

    /// Commits to a content that stands in the field `slot`.
    pub(crate) fn commit(
        &mut self,
        slot: &'static str,
        content: Bytes,
        media_type: &str,
    ) -> v1::Commitment {
        let salt = Salt::derive(&self.secret, self.place.0, self.place.1, slot);
        let digest = digest_of(&salt, &content);
        if content.len() <= CONTENT_INLINE_BYTES_MAX {
            self.attachments.push(v1::Attachment {
                salt: Bytes::copy_from_slice(salt.as_bytes()),
                content,
            });
        } else {
            self.ahead.push((digest, salt, content));
        }
        v1::Commitment {
            digest: Bytes::copy_from_slice(digest.as_bytes()),
            media_type: media_type.to_owned(),
        }
    }

    /// Commits to a file, or to stdin if it is named `-`; what it is shows in its bytes.
    pub(crate) fn file(
        &mut self,
        slot: &'static str,
        path: Option<&Path>,
    ) -> CommandResult<Option<v1::Commitment>> {
        let Some(path) = path else { return Ok(None) };
        let content = read(path)?;
        let media_type = media_type_of(&content);
        Ok(Some(self.commit(slot, content, media_type)))
    }

    /// Puts what is too long beside the log, and returns what travels with the statement.
    pub(crate) async fn put_ahead(self, ledger: &Ledger) -> CommandResult<Vec<v1::Attachment>> {
        for (digest, salt, content) in self.ahead {
            ledger.contents().put_bytes(digest, &salt, content).await?;
        }
        Ok(self.attachments)
    }
}

fn read(path: &Path) -> CommandResult<Bytes> {
    let cannot = |error: io::Error| {
        let what = format!("cannot read {}", path.display());
        Failure::Usage(anyhow::Error::new(error).context(what))
    };
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(cannot)?)
    };
    let mut content = Vec::new();
    let mut bounded = source.take(CONTENT_BYTES_MAX + 1);
    bounded.read_to_end(&mut content).map_err(cannot)?;
    if content.len() as u64 > CONTENT_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} is longer than {CONTENT_BYTES_MAX} bytes",
            path.display()
        )));
    }
    Ok(content.into())
}

/// RFC 6838, as far as the bytes themselves tell.
fn media_type_of(content: &[u8]) -> &'static str {
    if serde_json::from_slice::<serde::de::IgnoredAny>(content).is_ok() {
        "application/json"
    } else if std::str::from_utf8(content).is_ok() {
        "text/plain"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_content_is_shows_in_its_bytes() {
        for (content, media_type) in [
            (&b"{\"a\": 1}"[..], "application/json"),
            (b"refund order 7", "text/plain"),
            (b"", "text/plain"),
            (b"\xff\xfe", "application/octet-stream"),
        ] {
            assert_eq!(media_type_of(content), media_type);
        }
    }
}
