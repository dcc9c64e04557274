//! Entries for people and scripts.

use std::io::Write as _;

use bytes::Bytes;
use deed_client::statement_json::StatementJson;
use deed_evidence::{entry::Entry, statement};
use deed_proto::v1;
use serde::Serialize;

use crate::cli::{Failure, Outcome, Readers, WholeFile, to_json_pretty};

/// An entry, decoded.
#[derive(Serialize)]
pub(crate) struct EntryJson {
    pub(crate) leaf_index: u64,
    pub(crate) leaf_hash: String,
    author: &'static str,
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
            received_at_us: entry.received_at.get(),
            principal_leaf: entry.principal_leaf,
            body: header.body.name(),
            statement: StatementJson::from(statement),
        })
    }

    pub(crate) fn text(&self) -> String {
        let statement = to_json_pretty(&self.statement).unwrap_or_default();
        format!(
            "leaf index      {}\nleaf hash       {}\nauthor          {}\nreceived at us  {}\n\
             body            {}\nstatement       {statement}",
            self.leaf_index, self.leaf_hash, self.author, self.received_at_us, self.body
        )
    }
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
