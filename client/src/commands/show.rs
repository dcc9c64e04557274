//! Entries for people and scripts.

use std::io::Write as _;

use bytes::Bytes;
use deed_client::{Voice, statement_json::StatementJson};
use deed_evidence::{entry::Entry, statement};
use deed_proto::v1;
use deed_tlog::LeafIndex;
use serde::Serialize;

use crate::cli::{Failure, Outcome, Readers, WholeFile, printable, to_json_pretty};

/// An entry, decoded.
#[derive(Serialize)]
pub(crate) struct EntryJson {
    pub(crate) leaf_index: u64,
    pub(crate) leaf_hash: String,
    author: &'static str,
    /// The result for the signature: `verified`, `none`, `refused`, or `not_checked`.
    signature: &'static str,
    /// The reason why the signature shows nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// The newest trust statement that a verified signature goes by. That none follows, a revocation
    /// for example, is the server's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    trust_through: Option<u64>,
    received_at_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal_leaf: Option<u64>,
    body: &'static str,
    statement: StatementJson,
}

impl EntryJson {
    /// Decodes an entry whose inclusion was verified. One that makes no sense is an error: it
    /// should not be in the log.
    pub(crate) fn decode(bytes: &Bytes, leaf_index: u64, leaf_hash: String) -> Outcome<Self> {
        let entry =
            Entry::parse(bytes).map_err(|error| Failure::does_not_verify(error.to_string()))?;
        let payload = Bytes::copy_from_slice(entry.payload);
        let wrong = |error| Failure::does_not_verify(format!("the entry's statement: {error}"));
        let header = statement::parse(&payload).map_err(wrong)?;
        let statement = statement::decode(&payload).map_err(wrong)?;
        Ok(Self {
            leaf_index,
            leaf_hash,
            author: match entry.author {
                v1::Author::Signed => "signed",
                v1::Author::Batched => "batched",
                v1::Author::Unsigned => "unsigned",
                v1::Author::Ledger => "ledger",
                v1::Author::Unspecified => "unspecified",
            },
            signature: match entry.author {
                v1::Author::Signed | v1::Author::Batched => "not_checked",
                _ => "none",
            },
            refused: None,
            trust_through: None,
            received_at_us: entry.received_at.get(),
            principal_leaf: entry.principal_leaf,
            body: header.body.name(),
            statement: StatementJson::from(statement),
        })
    }

    /// Adds the result of a check of its signature.
    pub(crate) fn by(mut self, voice: &Voice) -> Self {
        (self.signature, self.refused) = match voice {
            Voice::Verified => ("verified", None),
            Voice::Nobody | Voice::Ledger => ("none", None),
            Voice::Refused(why) => ("refused", Some(why.clone())),
            Voice::Unchecked => ("not_checked", None),
        };
        self
    }

    /// The same with how far the trust statements go that a verified signature goes by.
    pub(crate) fn going_by(mut self, newest_trust: Option<LeafIndex>) -> Self {
        let newest = newest_trust.filter(|_| self.signature == "verified");
        self.trust_through = newest.map(LeafIndex::get);
        self
    }

    /// Says that the signature verifies, and that nothing shows whose the key was.
    pub(crate) fn by_key_alone(mut self) -> Self {
        self.signature = "key_unknown";
        self
    }

    fn signature_words(&self) -> String {
        match (self.signature, &self.refused) {
            ("verified", _) if self.trust_through.is_some() => format!(
                "verified: the key was the producer's and in force,\n                {}",
                trust_words(self.trust_through).replace("; ", ";\n                ")
            ),
            ("verified", _) => "verified: the key was the producer's and in force".to_owned(),
            ("refused", Some(why)) => format!("proves nothing: {}", printable(why)),
            ("key_unknown", _) => {
                "verified with the given key; whose that was is not checked".to_owned()
            }
            ("not_checked", _) => "not checked".to_owned(),
            _ if self.author == "ledger" => {
                "none: the ledger's own; whether it follows was not looked at".to_owned()
            }
            _ => "none: who spoke is a claim".to_owned(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let statement = to_json_pretty(&self.statement).unwrap_or_default();
        format!(
            "leaf index      {}\nleaf hash       {}\nauthor          {}\nsignature       {}\n\
             received at us  {} (by the server's word)\nbody            {}\n\
             statement       {statement}",
            self.leaf_index,
            self.leaf_hash,
            self.author,
            self.signature_words(),
            self.received_at_us,
            self.body
        )
    }
}

/// What a signature that verifies goes by, and whose word it is that this is all.
pub(crate) fn trust_words(through: Option<u64>) -> String {
    let through = through.map_or_else(String::new, |leaf| format!(" up to leaf {leaf}"));
    format!("by trust statements{through}; that none follows is the server's word")
}

/// Writes a file that the user named, whole or not at all, replacing what is there.
pub(crate) fn write_file(path: &std::path::Path, bytes: &[u8]) -> Outcome {
    let write = || {
        let mut file = WholeFile::create(path, Readers::All)?;
        file.write_all(bytes)?;
        file.keep()
    };
    write().map_err(|error: std::io::Error| {
        Failure::Usage(
            anyhow::Error::new(error).context(format!("cannot write {}", path.display())),
        )
    })
}

/// Reads a file that the user named.
pub(crate) fn read_file(path: &std::path::Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        Failure::Usage(anyhow::Error::new(error).context(format!("cannot read {}", path.display())))
    })
}

/// Reads a file of one of C2SP's text formats (a proof, a checkpoint, a policy), whose lines end with
/// LF alone. A mail program or an editor that made CRLF of it, or put a byte order mark before it, has
/// changed nothing that it says; no such file has either, so it is read as it was.
pub(crate) fn read_text_lines(path: &std::path::Path) -> Outcome<Vec<u8>> {
    let bytes = read_file(path)?;
    let refused = |what: &str| Err(Failure::usage(format!("{}: {what}", path.display())));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return refused("it is UTF-16; save it as UTF-8");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut lines = Vec::with_capacity(bytes.len());
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' if bytes.get(at + 1) == Some(&b'\n') => {}
            b'\r' => return refused("its lines end with CR; they end with LF"),
            byte => lines.push(*byte),
        }
    }
    Ok(lines)
}

/// Reads a binary file that holds a checkpoint, whose lines end with LF. Where every LF has a CR before
/// it, something took the file for text on the way.
pub(crate) fn read_with_checkpoint(path: &std::path::Path) -> Outcome<Vec<u8>> {
    let bytes = read_file(path)?;
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let has_cr = |at: usize| at > 0 && bytes[at - 1] == b'\r';
    if bytes.contains(&b'\n') && ends.all(|(at, _)| has_cr(at)) {
        let what = "its line ends were changed to CRLF; it is no text, so copy it again as it is";
        return Err(Failure::usage(format!("{}: {what}", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_marks_that_were_added_are_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.policy");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text_lines(&path)
        };
        for bytes in [&b"a\nb\n"[..], b"a\r\nb\r\n", b"\xef\xbb\xbfa\r\nb\n"] {
            assert_eq!(read(bytes).unwrap(), b"a\nb\n");
        }
        let refused: [(&[u8], &str); 3] = [
            (b"a\rb\r", "CR"),
            (b"a\r\r\n", "CR"),
            (b"\xff\xfea\0", "UTF-16"),
        ];
        for (bytes, says) in refused {
            let Err(Failure::Usage(error)) = read(bytes) else {
                panic!("{bytes:?}")
            };
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
