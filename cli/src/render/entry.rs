//! Entries for people and scripts.

use bytes::Bytes;
use deed_client::{SignatureCheck, statement_json::StatementJson};
use deed_evidence::{entry::Entry, statement};
use deed_proto::v1;
use deed_tlog::LeafIndex;
use serde::Serialize;

use super::{printable, to_json_pretty};
use crate::failure::{CommandResult, Failure};

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
    pub(crate) fn decode(bytes: &Bytes, leaf_index: u64, leaf_hash: String) -> CommandResult<Self> {
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
    pub(crate) fn by(mut self, check: &SignatureCheck) -> Self {
        (self.signature, self.refused) = match check {
            SignatureCheck::Verified => ("verified", None),
            SignatureCheck::Nobody | SignatureCheck::Ledger => ("none", None),
            SignatureCheck::Refused(why) => ("refused", Some(why.clone())),
            SignatureCheck::Unchecked => ("not_checked", None),
        };
        self
    }

    /// Adds the newest trust statement that a verified signature goes by.
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
            _ => "none: the producer is a claim".to_owned(),
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

/// Returns the basis of a signature that verifies: the trust statements, and the server's word that no
/// later one follows.
pub(crate) fn trust_words(through: Option<u64>) -> String {
    let through = through.map_or_else(String::new, |leaf| format!(" up to leaf {leaf}"));
    format!("by trust statements{through}; that none follows is the server's word")
}
